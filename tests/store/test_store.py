"""The store: what is written is read, whatever killed a writer; what is foreign is refused; what is stale is not reused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof import store
from attnprof.errors import UsageError
from attnprof.profiling import provenance as sources
from attnprof.profiling.provenance import PROVENANCE, provenance, source_hash
from attnprof.records import (
    MODES,
    NOT_MEASURED_BUDGET,
    NOT_MEASURED_MEMORY,
    SCHEMA_VERSION,
    STATUSES,
    Case,
    Counts,
    Holder,
    Memory,
    OpCost,
    Opinion,
    Placement,
    Record,
    Shape,
    Timeline,
    Timing,
)

CASE = Case("channel/se", "se", {}, Shape(1, 64, 8, 8))
COUNTS = Counts(1, 2, 3, 4, 5, 6, 7, 8)

_size = st.integers(0, 2**62)
_text = st.text(max_size=20)
_value = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), _text)
_mapping = st.dictionaries(_text, st.one_of(_value, st.lists(_value, max_size=3)), max_size=3)
_seconds = st.floats(1e-9, 1e4)
_shape = st.builds(Shape, *(st.integers(1, 1000) for _ in range(5)))
_case = st.builds(
    Case,
    _text,
    _text,
    _mapping,
    _shape,
    mode=st.sampled_from(MODES),
    device=st.sampled_from(["none", "cpu"]),
    settings=_mapping,
)
_counts = st.builds(
    Counts,
    *[_size] * 8,
    at_peak=st.tuples(st.builds(Holder, _size, _text, _text, _text, st.tuples(_size, _size))),
    uncounted=st.dictionaries(_text, _size, max_size=2),
    assumed=st.dictionaries(_text, _size, max_size=2),
    ops=st.tuples(st.builds(OpCost, _text, _text, _text, _size, _size, _size, _size)),
)
_timing = st.lists(_seconds, min_size=1, max_size=30).flatmap(
    lambda samples: st.builds(
        Timing,
        st.just(tuple(samples)),
        rounds=st.just(tuple(range(len(samples)))),
        block=_text,
        warmup=st.integers(0, 9),
        warmup_converged=st.booleans(),
        stopped_by=st.sampled_from(["interval", "stable", "budget"]),
        warnings=st.lists(_text, max_size=2).map(tuple),
    )
)
_sizes = st.dictionaries(_text, _size, max_size=2)
_others = st.tuples(st.tuples(_text, _text, _text))
_record = st.builds(
    Record,
    _case,
    status=st.sampled_from(STATUSES),
    counts=st.none() | _counts,
    timing=st.none() | _timing,
    memory=st.none() | st.builds(Memory, _size, _text, st.none() | _size),
    energy_j=st.none() | _seconds,
    environment=_mapping,
    detail=_text,
    crosscheck=st.just(())
    | st.tuples(st.builds(Opinion, _text, _text, st.none() | _size, missed=st.dictionaries(_text, _size))),
    calibrated=st.none() | st.builds(Memory, _size, _text),
    memory_timeline=st.none() | st.builds(Timeline, _size, st.tuples(_size), st.tuples(_size), st.just((0,)), _others),
)


@settings(max_examples=40)
@given(st.lists(_record, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[Record]) -> None:
    path = tmp_path_factory.mktemp("store") / "run.jsonl"
    run = store.Run("night", tuple(record.case.key for record in written), "se", ("macs", "latency"), "abc")
    store.append(path, run)
    for record in written:
        store.append(path, record)
    stored = store.load(path)
    assert stored.runs == (run,)
    by_key = {record.case.key: record for record in written}
    assert dict(stored.records) == by_key
    assert stored.warnings == ()
    for found in stored.some(by_key, outlined=True)[0]:
        record = by_key[found.case.key]
        counts = None if record.counts is None else dataclasses.replace(record.counts, at_peak=())
        assert found == dataclasses.replace(record, counts=counts, memory_timeline=None), "all but what tables do not show"


def test_the_last_record_of_a_key_wins(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    store.append(path, Record(CASE, status="timeout"))
    store.append(path, Record(CASE, counts=COUNTS))
    assert store.load(path).records[CASE.key].status == "ok"


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_line_is_dropped_and_said_and_mended(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.jsonl"
    other = dataclasses.replace(CASE, label="other")
    store.append(path, Record(CASE, counts=COUNTS))
    whole = path.read_bytes()
    store.append(path, Record(other, counts=COUNTS))
    torn = path.read_bytes()[: -cut - 1]
    path.write_bytes(torn)
    stored = store.load(path)
    assert set(stored.records) == {CASE.key}
    assert len(stored.warnings) == 1
    assert "torn" in stored.warnings[0]
    assert path.read_bytes() == torn, "a reader changes nothing"
    store.append(path, Record(other, status="oom"))
    assert path.read_bytes().startswith(whole)
    assert set(store.load(path).records) == {CASE.key, other.key}
    assert store.load(path).warnings == ()


def test_a_last_line_that_lacks_only_its_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    store.append(path, Record(CASE, counts=COUNTS))
    path.write_bytes(path.read_bytes()[:-1])
    assert set(store.load(path).records) == {CASE.key}
    store.append(path, Record(dataclasses.replace(CASE, label="other")))
    assert len(store.load(path).records) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("# notes\nof mine\n", "no JSON"),
        ("[1, 2]\n", "no line of an attnprof store"),
        ('{"some": "json"}\n', "no line of an attnprof store"),
        ('{"schema": 99, "kind": "record", "record": {}}\n', "newer"),
        ('{"schema": 1, "kind": "poem"}\n', "unknown"),
        ('{"schema": 1, "kind": "record", "record": {"case": {}}}\n', "field"),
        ('{"schema": 1, "kind": "record", "record": {"status": "ok"\n{"schema": 1}\n', ":1: this line is no JSON"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=says):
        store.load(path)
    assert path.read_text() == content


def test_a_missing_store_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        store.load(tmp_path / "nothing.jsonl")


_WRITER = """
import sys
from pathlib import Path
from attnprof import store
from attnprof.records import Case, Record, Shape
for n in range(100000):
    record = Record(Case("m", str(n), {}, Shape(1, 1, 1, 1)), detail="x" * 3000)
    store.append(Path(sys.argv[1]), record)
    print(record.case.key, flush=True)
"""


def test_kill_9_while_writing_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(5)]
        time.sleep(0.05)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.stdout if len(line) == 21]
        writer.stdout.close()
        writer.wait()
        assert set(acknowledged) <= set(store.load(path).records)


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    code = _WRITER.replace("100000", "40").replace("str(n)", "sys.argv[2] + str(n)")
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stdout=subprocess.DEVNULL) for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    stored = store.load(path)
    assert len(stored.records) == 80
    assert stored.warnings == ()


def test_derived_files_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.md"
    store.write_atomically(path, "old")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.md"]
    store.write_atomically(path, b"new")
    assert path.read_text() == "new"


def _stored(record: Record) -> store.Stored:
    return store.Stored(records={record.case.key: record})


def test_reuse_asks_for_the_same_source_and_versions() -> None:
    now = provenance(CASE)
    assert now["source"]
    record = Record(CASE, counts=COUNTS, environment={PROVENANCE: now})
    assert store.reusable(_stored(record), CASE, now) == record
    assert store.reusable(store.Stored(), CASE, now) is None
    for name in now:
        assert store.reusable(_stored(record), CASE, {**now, name: "another"}) is None, name


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "ok"])
def test_what_failed_is_tried_again(status: str) -> None:
    record = Record(CASE, status=status, counts=COUNTS, environment={PROVENANCE: provenance(CASE)})
    assert store.reusable(_stored(record), CASE, provenance(CASE)) is None


def test_reuse_of_measured_cases() -> None:
    case = dataclasses.replace(CASE, device="cpu")
    base = Record(case, counts=COUNTS, environment={PROVENANCE: provenance(case)})
    timed = dataclasses.replace(base, timing=Timing((1.0,) * 10), memory=Memory(1, "cpu_allocator"))
    memory = dataclasses.replace(base, detail=f"{NOT_MEASURED_MEMORY}: 2 bytes needed, 1 available")
    budget = dataclasses.replace(base, detail=f"{NOT_MEASURED_BUDGET}: 9 s needed")
    no_peak = dataclasses.replace(timed, memory=None, detail=f"memory: {NOT_MEASURED_BUDGET}")
    assert store.reusable(_stored(timed), case, provenance(case)) == timed
    assert store.reusable(_stored(memory), case, provenance(case)) == memory
    for record in (base, budget, no_peak):
        assert store.reusable(_stored(record), case, provenance(case)) is None, record.detail


def test_counts_hold_whatever_became_of_measuring() -> None:
    case = dataclasses.replace(CASE, device="cpu")
    now = provenance(case)
    for status in STATUSES:
        record = Record(case, status=status, counts=COUNTS, environment={PROVENANCE: now})
        assert store.counted(_stored(record), case, now) == record
        assert store.counted(_stored(dataclasses.replace(record, counts=None)), case, now) is None
        assert store.counted(_stored(record), case, {**now, "source": "another"}) is None
    assert store.counted(store.Stored(), case, now) is None


def test_provenance_of_many_cases_reads_each_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def count(*given: object) -> str:
        asked.append(given)
        return str(len(asked))

    monkeypatch.setattr(sources, "source_hash", count)
    find = sources.remembering()
    cases = [
        dataclasses.replace(CASE, mechanism=name, label=str(i)) for i in range(3) for name in ("channel/se", "channel/eca")
    ]
    assert [find(case)["source"] for case in cases] == ["1", "2"] * 3
    placed = dataclasses.replace(CASE, host=Placement("resnet50"))
    assert (find(placed)["source"], find(placed)["source"]) == ("3", "3")


def test_source_hashes_follow_the_file_and_import_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "strangers"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "block.py").write_text("class Block: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    by_name, by_path = source_hash("strangers.block:Block"), source_hash(f"{package}/block.py:Block")
    assert by_name == by_path != ""
    (package / "block.py").write_text("class Block: x = 1\n")
    assert source_hash("strangers.block:Block") != by_name
    assert source_hash("strangers.nothing:Block") == ""
    assert source_hash("channel/se") == source_hash("se") != source_hash("nonlocal")
    assert source_hash("channel/se", host="resnet") != ""


def test_lines_carry_schema_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    store.append(path, store.Run("a", ("k",)))
    store.append(path, Record(CASE, counts=COUNTS))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["schema"], line["kind"]) for line in lines] == [(SCHEMA_VERSION, "run"), (SCHEMA_VERSION, "record")]
    assert lines[1]["record"]["case"]["key"] == CASE.key
