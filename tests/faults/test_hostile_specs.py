"""Whatever stands in a spec file or behind `--set`: a Spec, or an error that says where; never a traceback or a hang."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from attnprof import plan
from attnprof.errors import UsageError
from attnprof.records import case_from_json, to_json
from attnprof.spec import check_import_permission, parse_file, yaml_loader
from tests.faults import hostile

CI = 400
LONGEST = 60_000
SPECS = Path(__file__).parents[2] / "specs"
_KEYED = 20  # cases of an expansion whose keys are made


def shipped() -> list[tuple[str, Any]]:
    """Text and value of every spec that is shipped."""
    files = sorted([*SPECS.glob("*.yaml"), *SPECS.glob("ablations/*.yaml")])
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [(text, yaml_loader.load(text, "").value) for text in texts]


PATHS = st.lists(st.sampled_from([*hostile.WORDS, "0", "1", "-1", "٣", "", "99999999999999999999"]), max_size=4).map(".".join)
VALUES = st.sampled_from(hostile.ODD_TEXTS) | hostile.PLAIN.map(lambda value: hostile.written(value).decode(errors="replace"))
OVERRIDES = st.lists(st.builds("{}={}".format, PATHS, VALUES) | st.text(max_size=10), max_size=2)


def inputs() -> st.SearchStrategy[tuple[bytes, list[str]]]:
    return st.tuples(hostile.files(shipped()), st.just([]) | OVERRIDES)


def check_spec(path: Path, example: tuple[bytes, list[str]]) -> str:
    """What became of it: 'spec' or 'refused'."""
    content, overrides = example
    path.write_bytes(content)
    try:
        spec = parse_file(path, overrides)
    except UsageError as error:
        hostile.check_error(error, str(path))
        return "refused"
    try:
        check_import_permission(spec, ())
    except UsageError as error:
        hostile.check_message(str(error))
    cases = plan.expand(spec, "none")
    assert cases
    for case in itertools.islice(cases, _KEYED):
        assert case_from_json(to_json(case)).key == case.key
    return "spec"


def run(tmp_path: Path, examples: int) -> None:
    found: dict[str, int] = {"spec": 0, "refused": 0}

    def survives(example: tuple[bytes, list[str]]) -> None:
        found[check_spec(tmp_path / "hostile.yaml", example)] += 1

    ran = hostile.rounds(examples, inputs(), survives)
    print(f"spec parser: {ran:,} inputs, {found['spec']:,} of them specs, {found['refused']:,} refused")
    assert ran >= examples
    assert min(found.values()) > examples // 50  # both ways are taken: neither only garbage nor only what is harmless


@pytest.mark.fault
def test_hostile_specs_are_a_spec_or_an_error_with_its_place(tmp_path: Path) -> None:
    run(tmp_path, CI)


@pytest.mark.fault
@pytest.mark.longest
@pytest.mark.timeout(3600)
def test_sixty_thousand_hostile_specs(tmp_path: Path) -> None:
    run(tmp_path, LONGEST)
