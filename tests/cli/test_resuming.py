"""A run that goes on with a store: what it takes from there, and what it does not put in its place."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from attnprof import store
from attnprof.cli import resuming
from attnprof.cli.interrupts import twice_leaves
from attnprof.cli.resuming import _better
from attnprof.execute import run
from attnprof.execute.calibrating import Calibrated
from attnprof.records import NOT_MEASURED_BUDGET, Case, Memory, Record, Shape, Timing
from attnprof.spec import parse_text
from tests.cli.test_cli import CASES, call, lines_of_kind, measured, out, tiny  # noqa: F401  fixtures
from tests.command import Call

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
    assert "(2 of 4 cases are there, and the counts of 2 more)" in done.err
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
        (replace(LEFT, detail=f"{NOT_MEASURED_BUDGET}: 8 s needed"), LEFT, LEFT),
        (
            TIMED,
            replace(TIMED, memory=Memory(1, "cpu_allocator"), detail=""),
            replace(TIMED, memory=Memory(1, "cpu_allocator"), detail=""),
        ),
        (
            replace(TIMED, memory=Memory(2, "cpu_allocator"), detail=""),
            TIMED,
            replace(TIMED, memory=Memory(2, "cpu_allocator"), detail=""),
        ),
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


def test_cases_of_other_code_are_named(call: Call, tiny: Path, out: Path) -> None:  # noqa: F811
    path = out / "tiny.jsonl"
    text = path.read_text()
    now = store.load(path).records
    sources = {record.environment["provenance"]["source"] for record in now.values() if record.case.label == "se"}
    path.write_text(text.replace(sources.pop(), "0123456789abcdef"))
    done = call("run", tiny, "--device", "cpu", "--out", out, "--resume")
    assert done.code == 0
    assert f"(0 of {CASES} cases are there, and the counts of 2 more)" in done.err
    assert "2 cases timed again beside what runs again, so that their latencies have a ratio: gcnet." in done.err
    assert "2 cases of other code than now (the module's, attnprof's or torch's) run again: se." in done.err


@pytest.mark.parametrize("cut", ["other code", "an interrupt"])
def test_what_is_timed_again_is_timed_beside_its_block(call: Call, tiny: Path, out: Path, cut: str) -> None:  # noqa: F811
    """One case of a block runs again: so are the others of it timed again, none is counted again, and all have a ratio."""
    path = out / "tiny.jsonl"
    before = dict(store.load(path).records)
    one = next(record for record in before.values() if record.case.label == "gcnet")
    made = one.environment["provenance"]
    if cut == "other code":
        lost = replace(one, environment={"provenance": {**made, "source": "0123456789abcdef"}})
    else:
        lost = replace(one, status="interrupted", timing=None, memory=None, environment={"provenance": made})
    store.append(path, lost)
    done = call("run", tiny, "--device", "cpu", "--out", out, "--resume")
    assert done.code == 0
    assert "1 case timed again beside what runs again, so that their latencies have a ratio: se." in done.err
    assert done.err.count("[trace") == (1 if cut == "other code" else 0)
    now = store.load(path).records
    for key, record in before.items():
        timing = now[key].timing
        assert record.timing is not None
        assert timing is not None
        assert (timing.block == record.timing.block) is (record.case.block != one.case.block), "the other block stays as it was"
    blocks = [now[key].timing.block for key, record in before.items() if record.case.block == one.case.block]  # type: ignore[union-attr]
    assert len(set(blocks)) == 1
    assert "not timed in the same block" not in done.out


def test_an_edited_helper_is_noticed(
    call: Call,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine.py").write_text("from its_own_helper import layer as Mine\n")
    helper = "from torch import nn\n\n\ndef layer(c):\n    return nn.Conv2d(c, c, 1)\n"
    Path("its_own_helper.py").write_text(helper)
    Path("s.yaml").write_text(
        "name: s\ninput: {channels: 8, hw: 9x9}\nmechanisms: [{import: 'mine.py:Mine', as: mine}]\nmetrics: [params]\n"
        "modes: [inference]\n"
    )
    wanted = ("run", "s.yaml", "--allow-import", "mine.py:*", "--out", "o", "--device", "none", "--resume")
    assert call(*wanted).code == 0
    assert "(1 of 1 cases are there)" in call(*wanted).err
    Path("its_own_helper.py").write_text(helper.replace("c, 1", "c, kernel_size=3"))
    assert "1 case of other code than now" in call(*wanted).err
    (record,) = store.load(Path("o/s.jsonl")).records.values()
    assert record.counts is not None
    assert record.counts.params == 8 * 8 * 9 + 8


def test_a_report_that_cannot_be_written_costs_nobody_the_table(call: Call, tiny: Path, out: Path) -> None:  # noqa: F811
    (out / "tiny.md").unlink()
    (out / "tiny.md").mkdir()
    done = call("run", tiny, "--device", "cpu", "--out", out)
    assert done.code == 2
    assert "tiny.md" in done.err
    assert "gcnet" in done.out


def test_what_a_budget_left_out_is_said_with_what_to_do(call: Call, tiny: Path) -> None:  # noqa: F811
    done = call("run", tiny, "--device", "cpu", "--out", "out", "--set", "measure.run_budget_s=0.001")
    assert done.code == 0
    assert f"{CASES} of {CASES} cases are not measured: measuring had 0.001 s." in done.err
    assert "--set measure.run_budget_s=SECONDS" in done.err
    lines = lines_of_kind(Path("out/tiny.jsonl"), "record")
    assert call("run", tiny, "--device", "cpu", "--out", "out", "--set", "measure.run_budget_s=0.001", "--resume").code == 0
    assert lines_of_kind(Path("out/tiny.jsonl"), "record") == lines, "nothing new is known: nothing is written"


@pytest.mark.fault
def test_counts_that_are_resumed_keep_their_timeline(call: Call, tiny: Path, out: Path) -> None:  # noqa: F811
    """Killed after it had counted: what the case's final record has of its pass is from the store."""
    path = out / "tiny.jsonl"
    before = store.load(path).records
    one = next(iter(before.values()))
    assert one.memory_timeline is not None
    store.append(path, replace(one, status="interrupted", timing=None, memory=None))
    done = call("run", tiny, "--device", "cpu", "--out", out, "--resume", "--set", "measure.run_budget_s=0.001")
    assert done.code == 0
    assert "[trace" not in done.err
    final = store.load(path).records[one.case.key]
    assert (final.status, final.counts, final.memory_timeline) == ("ok", one.counts, one.memory_timeline)


@pytest.mark.fault
@pytest.mark.parametrize("at", ["while a record is written", "while it measures"])
def test_an_interrupted_run_keeps_the_calibrated_peaks_of_cases_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """One of two is measured when the interrupt comes: calibrating the other may have taken minutes."""
    first, second = (Case("channel/se", label, {}, Shape(1, 8, 9, 9), device="cpu") for label in ("first", "second"))
    peak = Calibrated(Memory(7, "calibrated"))

    def trace(cases: Sequence[Case], *_: object) -> Iterator[Record]:
        return (Record(each, environment=RECORD.environment) for each in cases)

    def calibrate(cases: Sequence[Case], *_: object) -> Iterator[tuple[Case, Calibrated]]:
        return ((each, peak) for each in cases)

    def measure(group: Sequence[Record], *_: object) -> Iterator[Record]:
        yield replace(group[0], timing=TIMED.timing)
        signal.raise_signal(signal.SIGINT)

    class Struck(store.Writer):
        def append(self, entry: Record | store.Run) -> None:
            super().append(entry)
            if at == "while a record is written" and isinstance(entry, Record) and entry.timing is not None:
                signal.raise_signal(signal.SIGINT)

    run_cases = partial(run.run_cases, phases=run.Phases(trace, calibrate, measure))
    monkeypatch.setattr(resuming, "execution", lambda _: SimpleNamespace(run_cases=run_cases))
    spec = parse_text("name: s\ninput: {channels: 8, hw: 9x9}\nmechanisms: [se]\nmetrics: [macs, calibrated_memory]\n")
    options = {"timeout": None, "jobs": 1, "quiet": True, "executor": "local"}
    with store.writing(tmp_path / "s.jsonl") as writer, twice_leaves():
        struck = Struck(writer.path, writer.descriptor)
        _, interrupted = resuming.execute(spec, [first, second], options, struck, {})
    assert interrupted
    found = store.load(tmp_path / "s.jsonl").records
    assert [(found[each.key].status, found[each.key].calibrated) for each in (first, second)] == [
        ("ok", peak.memory),
        ("interrupted", peak.memory),
    ]
