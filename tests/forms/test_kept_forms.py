"""The kept closed forms of the whole catalogue: made from the code that is here, and equal to the trace in every field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from attnprof import mechanisms
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.forms import kept
from attnprof.profiling.forms.expression import compile_text
from attnprof.profiling.forms.general import contradiction
from attnprof.profiling.forms.regions import Region
from attnprof.records import MODES, Case, Counts, Shape

NAMES = [f"{family}/{name}" for family, members in mechanisms.names().items() for name in members]
KEPT = list(kept.names())
GENERAL_DRAWS = 24  # points per mechanism and mode where the arguments vary too, every sixth map of one or two elements
DRAWS = 4  # shapes per mechanism and mode, the natural one beside them
SIDES = (7, 8, 9, 12, 14, 16, 21, 28, 33, 48, 56, 65, 97)
_WORKSPACE = "training: the workspace of efficient attention's backward changes its blocks with the head size"
WITHOUT_PROGRAM = {"spatial/mhsa": _WORKSPACE, "spatial/sdpa": _WORKSPACE, "spatial/vit": _WORKSPACE}  # {name: why}
WITHOUT_FILE = {  # {name: why}: at most 5 % of the catalogue
    "channel_spatial/residual_attention": "a search of 280 s did not end",
    "spatial/dram": "not searched yet: a trace in training takes 3 s",
    "spatial/ocnet_pyramid": "a search of 180 s did not end",
    "spatial_temporal/sta_lstm": "not searched to the end yet",
}
AGAIN = "python -m tests.makers.forms_kept makes them again"


def shapes(name: str) -> Iterator[Shape]:
    """The natural shape of a mechanism, at batch 1 as well, then seeded ones around it."""
    natural = mechanisms.load(name).natural
    assert natural is not None
    yield natural
    yield replace(natural, batch=1)
    random = Random(name)
    frames = mechanisms.uses_frames(name)
    flat = natural.hw == (1, 1)
    while True:
        sides = (1, 1) if flat else (random.choice(SIDES), random.choice(SIDES))
        channels = random.choice([natural.channels, natural.channels // 2, 2 * natural.channels, random.randrange(1, 40) * 8])
        yield Shape(random.choice([1, 1, 2, 3]), channels, *sides, random.choice([2, 4, 5, 8]) if frames else natural.frames)


_traced: dict[Any, Counts] = {}


def traced(case: Case) -> Counts:
    """The trace of a case, once per test run."""
    key = (case.mechanism, case.shape, case.mode)
    if key not in _traced:
        _traced[key] = trace_case(case)
    return _traced[key]


def answered(name: str, mode: str) -> list[tuple[Case, Counts]]:
    """DRAWS cases that the kept programs answer, the natural shape first, with the answers."""
    found: list[tuple[Case, Counts]] = []
    for tries, shape in enumerate(shapes(name)):
        case = Case(name, name, {}, shape, mode=mode)
        counts = kept.counts_of(case)
        if counts is not None and case not in [other for other, _ in found]:
            found.append((case, counts))
        if len(found) == DRAWS or tries == 60:
            return found
    raise AssertionError("there is no end to the shapes")


@pytest.fixture
def taken_as_true(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kept files are read whatever they were made from: `test_it_was_made_from_what_is_here` alone looks at that."""
    monkeypatch.setattr(kept, "_stale", lambda name, made: "")
    kept._read.cache_clear()
    yield
    kept._read.cache_clear()


def test_every_mechanism_has_a_file_and_every_file_a_mechanism() -> None:
    assert set(KEPT) == set(NAMES) - set(WITHOUT_FILE), AGAIN
    assert len(WITHOUT_FILE) <= 0.05 * len(NAMES)


@pytest.mark.parametrize("name", KEPT)
def test_it_was_made_from_what_is_here(name: str) -> None:
    held = kept.read(name)
    assert held is not None
    assert not held.stale, f"{name}: {held.stale}: {AGAIN}"
    assert set(held.modes) == set(MODES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KEPT)
def test_its_programs_give_what_the_trace_gives(taken_as_true: None, name: str, mode: str) -> None:
    found = answered(name, mode)
    natural = mechanisms.load(name).natural
    assert (found and found[0][0].shape == natural) or name in WITHOUT_PROGRAM, "its natural shape is not covered"
    for case, counts in found:
        assert counts == traced(case), case.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KEPT)
def test_its_forms_give_what_the_trace_gives(taken_as_true: None, name: str, mode: str) -> None:
    forms = kept.forms_of(name, mode)
    assert forms is not None
    for form in forms.forms.values():
        assert form.draws >= 200
        assert compile_text(form.expr).names <= set("CHWT")
        domain, seen = compile_text(form.domain), 0
        for tries, drawn in enumerate(shapes(name)):
            shape = replace(drawn, batch=1)
            values = kept.variables(shape)
            if domain(values):
                counts = traced(Case(name, name, {}, shape, mode=mode))
                assert compile_text(form.expr)(values) == getattr(counts, form.metric), (form.metric, shape)
                seen += 1
            if seen == 3 or tries == 60:
                break
        assert seen, f"{form.metric}: nothing near the natural shape lies inside {form.domain}"
        for piece in form.pieces:
            assert compile_text(piece.expr).names <= set("CHWT")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", KEPT)
def test_its_general_forms_give_what_the_trace_gives(taken_as_true: None, name: str, mode: str) -> None:
    forms = kept.forms_of(name, mode)
    assert forms is not None
    natural = mechanisms.load(name).natural
    assert natural is not None
    case = Case(name, name, {}, natural, mode=mode, settings={"sdpa": "auto"})
    region = Region(frames=natural.frames if mechanisms.uses_frames(name) else 0)
    if natural.hw == (1, 1):
        region = replace(region, fixed=(0, 0, 1, 1, 0))
    seed = (1, natural.channels, *natural.hw, natural.frames)
    assert contradiction(case, seed, region, forms.general, count=GENERAL_DRAWS) == ""


def test_nearly_every_row_has_a_form_and_each_gap_a_reason(taken_as_true: None) -> None:
    rows = [(name, mode) for name in KEPT for mode in MODES]
    without = []
    for name, mode in rows:
        forms = kept.forms_of(name, mode)
        assert forms is not None
        gaps = [metric for metric in ("params", "macs", "flops", "peak_bytes") if metric not in forms.forms]
        assert all(forms.missing.get(metric) for metric in gaps), (name, mode, gaps)
        without += [(name, mode, gaps)] if set(gaps) - {"peak_bytes"} else []
    assert len(without) <= 0.05 * len(rows), without
