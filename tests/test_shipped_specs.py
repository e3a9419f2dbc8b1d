"""The specs that the project ships: together they are the whole catalogue, and every case of the survey is counted in full."""

from __future__ import annotations

import math

import pytest

from attnprof import mechanisms, plan
from attnprof.profiling.counting.trace import trace_case
from attnprof.records import Case
from attnprof.spec import Spec, parse_file
from tests.catalogue import NAMES
from tests.doc_tables import ROOT

PATHS = sorted((ROOT / "specs").rglob("*.yaml"))
SHIPPED = {path.stem: parse_file(path) for path in PATHS}
FAMILIES = {
    "classification": ("channel", "branch", "channel_spatial"),
    "video": ("temporal", "spatial_temporal"),
    "survey": tuple(mechanisms.names()),
}


def names_in(spec: Spec) -> set[str]:
    return {entry.mechanism for entry in spec.entries}


def test_together_they_are_the_catalogue() -> None:
    by_hand = [names_in(spec) for name, spec in SHIPPED.items() if name != "survey"]
    assert set.union(*map(names_in, SHIPPED.values())) == set(NAMES)
    assert names_in(SHIPPED["survey"]) == set(NAMES)
    assert set.union(*by_hand) <= set(NAMES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_spec_holds_its_families_whole(name: str) -> None:
    wanted = {f"{family}/{member}" for family in FAMILIES[name] for member in mechanisms.names()[family]}
    assert not wanted - names_in(SHIPPED[name]), f"not in specs/{name}.yaml: make catalogue"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_baseline_stands_at_every_size_of_the_spec(name: str) -> None:
    spec = SHIPPED[name]
    found = {case.shape for case in plan.expand(spec, "none") if case.label == spec.baseline}
    sizes = [math.prod(map(len, (given.batch, given.channels, given.hw, given.frames))) for given in spec.inputs]
    assert spec.baseline is None or len(found) == sum(sizes)


CASES = {(case.mechanism, case.label, case.mode): case for case in plan.expand(SHIPPED["survey"], "none")}


@pytest.mark.parametrize("case", CASES.values(), ids=[" ".join(key[1:]) for key in CASES])
def test_every_case_of_the_survey_is_counted_in_full(case: Case) -> None:
    counts = trace_case(case)
    assert not counts.uncounted
    assert not counts.assumed
    assert counts.traced_by == "meta"
    assert counts.flops > 0
    assert counts.peak_bytes > 0
