"""The project's own exact gate: every case of specs/survey.yaml against specs/baselines/catalogue.json.

`make test` runs the gate itself (`make baseline` renews the file, after a change that is meant). Here: the file has every case,
and the gate that reads it does find a number that is other.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attnprof import plan
from attnprof.profiling import provenance
from attnprof.spec import parse_file
from tests.makers.doc_tables import ROOT, run_here

SPEC, BASELINE = ROOT / "specs" / "survey.yaml", ROOT / "specs" / "baselines" / "catalogue.json"
GATE = "attnprof gate specs/survey.yaml --baseline specs/baselines/catalogue.json --strict"
SAVE = "attnprof baseline save specs/survey.yaml -o specs/baselines/catalogue.json --exact-only"


def test_every_case_of_the_survey_is_in_the_baseline() -> None:
    points = json.loads(BASELINE.read_text(encoding="utf-8"))["points"]
    cases = {case.key: f"{case.label} {case.shape.text()} {case.mode}" for case in plan.expand(parse_file(str(SPEC)), "none")}
    assert [name for key, name in cases.items() if key not in points] == [], "make baseline, and read the diff"
    assert [point["label"] for key, point in points.items() if key not in cases] == [], "make baseline, and read the diff"
    assert [point["label"] for point in points.values() if "params" not in point] == []


def test_it_was_counted_with_the_torch_that_is_pinned() -> None:
    pinned = re.search(r"torch==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert pinned is not None
    assert json.loads(BASELINE.read_text(encoding="utf-8"))["made"]["torch"] == pinned[1]


def test_make_runs_the_gate_and_renews_its_baseline() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(BIN)/", "")
    targets = dict(re.findall(r"^(test|baseline):.*\n((?:\t.*\n?)+)", makefile, re.MULTILINE))
    assert GATE in targets["test"]
    assert SAVE in targets["baseline"]


@pytest.mark.skipif(
    provenance.torch_release() != json.loads(BASELINE.read_text(encoding="utf-8"))["made"]["torch"],
    reason="the baseline was counted with another torch, which the gate refuses",
)
@pytest.mark.parametrize(("off", "code"), [(0, 0), (-1, 1), (1, 1)])
def test_a_number_that_is_other_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int, code: int) -> None:
    """Of one mechanism, so that it is quick; one more and one less than what is counted now."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    data = json.loads(BASELINE.read_text(encoding="utf-8"))
    mine = next(
        point for point in data["points"].values() if point["mechanism"] == "channel/eca" and point["mode"] == "training"
    )
    mine["peak_bytes"] += off
    Path("baseline.json").write_text(json.dumps(data), encoding="utf-8")
    status, out = run_here(["gate", str(SPEC), "--baseline", "baseline.json", "--match", "eca", "--strict", "-q"])
    assert status == code, out
    assert ("peak_bytes" in out) == bool(off)
