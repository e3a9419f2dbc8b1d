"""A run that goes on with a store: what it takes from there, and what it does not put in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attnprof import store
from attnprof.cli.resuming import _better
from attnprof.records import NOT_MEASURED_BUDGET, Case, Memory, Record, Shape, Timing
from tests.command import Call
from tests.test_cli import CASES, call, lines_of_kind, measured, out, tiny  # noqa: F401  fixtures

RECORD = Record(Case("channel/se", "se", {}, Shape(1, 8, 9, 9), device="cpu"), environment={"device": {"model": "then"}})
TIMED = replace(RECORD, timing=Timing((1.0,) * 10), detail=f"memory: {NOT_MEASURED_BUDGET}")
LEFT = replace(RECORD, detail=f"{NOT_MEASURED_BUDGET}: 9 s needed", environment={"device": {"model": "now"}, "rates": 1})


def test_a_smaller_budget_takes_no_measurement_away(call: Call, tiny: Path, out: Path) -> None:  # noqa: F811
    """Timed, its memory left out by the budget: that is tried again; where there is no time for it, what there was stays."""
    path = out / "tiny.jsonl"
    stored = store.load(path)
    for record in list(stored.records.values())[:2]:
        store.append(path, replace(record, memory=None, detail=f"memory: {NOT_MEASURED_BUDGET}"))
    lines = lines_of_kind(path, "record")
    done = call("run", tiny, "--device", "cpu", "--out", out, "--resume", "--set", "measure.run_budget_s=0.001")
    assert done.code == 0
    assert "of 2 more the counts are there" in done.err
    assert lines_of_kind(path, "record") == lines
    now = store.load(path)
    assert len(now.records) == CASES
    assert all(now.records[key].timing == record.timing is not None for key, record in stored.records.items())
    assert done.out.count("not measured (budget)") == 2


@pytest.mark.parametrize(
    ("record", "before", "wanted"),
    [
        (LEFT, TIMED, TIMED),
        (LEFT, RECORD, LEFT),
        (replace(TIMED, energy_j=2.0), TIMED, replace(TIMED, energy_j=2.0)),
        (replace(LEFT, status="crashed"), TIMED, replace(LEFT, status="crashed")),
        (LEFT, replace(TIMED, status="error"), LEFT),
    ],
)
def test_which_of_two_records_is_better(record: Record, before: Record, wanted: Record) -> None:
    assert _better(record, before) == wanted


def test_a_calibrated_peak_that_is_new_joins_what_was_timed() -> None:
    peak = Memory(7, "calibrated")
    found = _better(replace(LEFT, calibrated=peak), TIMED)
    assert (found.timing, found.calibrated, found.detail) == (TIMED.timing, peak, TIMED.detail)
    assert found.environment == {"device": {"model": "then"}, "rates": 1}
