"""Whatever stands in a claims file or in a gate's baseline: what it holds, or an error that says where; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attnprof.claims import parse
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.gate import baseline
from attnprof.records import case_from_json, to_json
from attnprof.spec import yaml_loader
from tests.faults import hostile

CI, CI_BASELINES = 150, 300
LONGEST, LONGEST_BASELINES = 30_000, 10_000
SPECS = Path(__file__).parents[2] / "specs"
_SHORT = 5000  # characters of the claims files that are mutated: the others hold more of the same
_POINTS = 4  # of a baseline that is mutated


def claims_files() -> list[tuple[str, Any]]:
    texts = [file.read_text(encoding="utf-8") for file in sorted(SPECS.glob("claims/*.yaml"))]
    return [(text, yaml_loader.load(text, "").value) for text in texts if len(text) < _SHORT]


def baselines() -> list[tuple[str, Any]]:
    """The first points of the shipped baseline; the same with a ledger and measured ratios."""
    content = json.loads((SPECS / "baselines/catalogue.json").read_text(encoding="utf-8"))
    content["points"] = dict(list(content["points"].items())[:_POINTS])
    key = next(iter(content["points"]))
    change = {"metric": "macs", "key": key, "label": "a", "point": "b", "from": 1, "to": 2, "reason": "r", "when": "2026-11-01"}
    held = {"against": "se", "ratio": 1.5, "low": 1.4, "high": 1.6, "processes": 5, "pairs": 40, "threads": 1}
    ratios = {"device": "cpu", "torch": "2.13", "points": {key: held}}
    rich = content | {"accepted": [change], "ratios": ratios}
    return [(json.dumps(each, indent=1), each) for each in (content, rich)]


def check_claims(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        (paper,) = parse.parse_files([path])
    except UsageError as error:
        hostile.check_error(error, str(path))
        return "refused"
    for case in paper.cases.values():
        assert case_from_json(to_json(case)).key == case.key
    for claim in paper.claims:
        assert claim.value is None or set(claim.value.names) <= set(paper.cases)
    return "read"


def check_baseline(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        found = baseline.read(path)
    except (UsageError, NothingSelectedError) as error:
        hostile.check_error(error, str(path))
        return "refused"
    again = path.with_suffix(".again")
    again.write_text(baseline.write(found), encoding="utf-8")  # what was read can be written, and reads as the same
    assert baseline.read(again) == found
    return "read"


def run(path: Path, shipped: list[tuple[str, Any]], check: Any, examples: int, what: str) -> None:
    found = {"read": 0, "refused": 0}

    def survives(content: bytes) -> None:
        found[check(path, content)] += 1

    ran = hostile.rounds(examples, hostile.files(shipped), survives)
    print(f"{what}: {ran:,} inputs, {found['read']:,} of them read, {found['refused']:,} refused")
    assert ran >= examples
    assert min(found.values()) > examples // 50


@pytest.mark.fault
def test_hostile_claims_are_claims_or_an_error_with_its_place(tmp_path: Path) -> None:
    run(tmp_path / "hostile.yaml", claims_files(), check_claims, CI, "claims parser")


@pytest.mark.fault
def test_hostile_baselines_are_a_baseline_or_an_error(tmp_path: Path) -> None:
    run(tmp_path / "hostile.json", baselines(), check_baseline, CI_BASELINES, "baseline reader")


@pytest.mark.fault
@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_thirty_thousand_hostile_claims(tmp_path: Path) -> None:
    run(tmp_path / "hostile.yaml", claims_files(), check_claims, LONGEST, "claims parser")


@pytest.mark.fault
@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_ten_thousand_hostile_baselines(tmp_path: Path) -> None:
    run(tmp_path / "hostile.json", baselines(), check_baseline, LONGEST_BASELINES, "baseline reader")
