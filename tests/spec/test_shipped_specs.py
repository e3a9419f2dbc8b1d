"""The specs that the project ships: together they are the whole catalogue, and every case of the survey is counted in full."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from attnprof import mechanisms, plan
from attnprof.profiling.counting.trace import trace_case
from attnprof.records import Case, Counts
from attnprof.spec import Spec, parse_file
from tests.catalogue import NAMES
from tests.makers.doc_tables import ROOT

PATHS = sorted(path for path in (ROOT / "specs").rglob("*.yaml") if path.parent.name != "claims")
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
    found = {case.shape for case in plan.expand(spec, "none") if spec.baseline in (case.label, case.mechanism)}
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


ABLATIONS = {path.stem: plan.expand(SHIPPED[path.stem], "none") for path in PATHS if path.parent.name == "ablations"}


_TRACED: dict[str, Counts] = {}


def traced(case: Case) -> Counts:
    """A trace of a case of an ablation, made once: two tests read the parameters of what a third has traced."""
    if case.key not in _TRACED:
        _TRACED[case.key] = replace(trace_case(case), ops=(), at_peak=())
    return _TRACED[case.key]


def _in_training(name: str) -> list[Case]:
    return [case for case in ABLATIONS[name] if case.mode == "training"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_counted_in_full(name: str) -> None:
    """In training, whose forward has the ops of inference: the hosts' and the survey's tests count both modes.

    Each mechanism once in every way to stand: elsewhere in the network it has no other op.
    """
    assert {case.mode for case in ABLATIONS[name]} == {"inference", "training"}
    for case in {(case.mechanism, case.host and case.host.how): case for case in _in_training(name)}.values():
        counts = traced(case)
        assert (counts.uncounted, counts.assumed, counts.traced_by) == ({}, {}, "meta"), case.label
        assert counts.macs > 0


def params_of(name: str) -> dict[str, int]:
    return {case.label: traced(case).params for case in _in_training(name)}


def test_se_has_the_parameters_of_its_papers_reduction_table() -> None:
    """SENet, table 10: r = 2, 4, 8, 16, 32 of 45.7, 35.7, 30.7, 28.1, 26.9 M."""
    found = params_of("reduction_in_resnet")
    published = {2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}
    for ratio, wanted in published.items():
        assert found[f"se[reduction={ratio}]"] / 1e6 == pytest.approx(wanted, rel=0.005)


def test_more_blocks_cost_more() -> None:
    found = params_of("how_many")
    for mechanism in ("se", "gcnet", "nonlocal"):
        grown = [params for label, params in found.items() if label.startswith(f"{mechanism}[")]
        assert len(grown) == 5
        assert [found["resnet50"], *grown] == sorted({found["resnet50"], *grown})
