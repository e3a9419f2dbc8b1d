"""What a case may take: memory, time, room for its words; and that these bounds blame nobody for what others take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from attnprof import store
from attnprof.execute import Options, run_cases, tracing
from attnprof.execute import child as children
from attnprof.execute.blocks import Phase
from attnprof.execute.predict import Predictor, Rates
from attnprof.profiling.measuring import device
from attnprof.records import NOT_MEASURED_MEMORY, Case, Counts, Record, Shape

pytestmark = pytest.mark.fault

FAULTY = str(Path(__file__).parents[1] / "faulty.py")
GIB = 2**30


def case(name: str, where: str = "none", size: int = 8) -> Case:
    return Case(f"{FAULTY}:{name}", f"{name}{size}", {}, Shape(1, 8, 8, size), device=where, settings={"cache": "warm"})


def counted(macs: int = 1000, peak: int = 1000) -> Record:
    return Record(case("Good", "cpu"), counts=Counts(0, macs, 0, 0, 0, 0, peak, peak))


def test_memory_cap_of_a_child_on_the_cpu() -> None:
    """The cap is the machine's available memory, shared by the children that there are; never none."""
    available = device.available_bytes()
    assert 0.5 * available < tracing.child_memory(Options()) < available
    assert tracing.child_memory(Options(), 4) <= available / 4
    options = Options(timeout_s=20, tracer="tests.faulty:run_on_data", memory_bytes=GIB)
    found = {record.case.label: record for record in run_cases([case("Allocates"), case("Good")], options)}
    assert found["Allocates8"].status == "oom"
    assert found["Good8"].status == "ok"


def test_memory_that_others_had_is_asked_for_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A case that fits into the machine and not into a child's part of it: how many children there are changes no result."""
    asked: list[tuple[int, int]] = []

    def part(options: Options, children: int = 1) -> int:
        asked.append((children, GIB // 2 if children > 1 else 4 * GIB))
        return asked[-1][1]

    monkeypatch.setattr(tracing, "child_memory", part)
    cases = [case("WantsAGiB"), *(case("Good", size=size) for size in range(4, 9))]
    found = list(run_cases(cases, Options(timeout_s=60, jobs=2, tracer="tests.faulty:run_on_data")))
    assert [record.status for record in found] == ["ok"] * len(cases)
    assert found[-1].case.label == "WantsAGiB8", "it came last, and alone"
    assert {number for number, _ in asked} == {1, 2}


def test_predicted_oom_is_skipped_and_no_failure() -> None:
    record = next(run_cases([case("Segfaults", "cpu")], Options(tracer="tests.faulty:huge")))
    assert record.status == "ok"
    assert record.detail.startswith(NOT_MEASURED_MEMORY)
    assert record.timing is None


def test_timeout_follows_the_predicted_cost() -> None:
    """20 times what the cell should take, at least a minute; what was told goes before it."""
    predictor = Predictor({"float32": Rates(1e9, 1e9, 0.0)}, 0)
    quick, slow = counted(macs=1000), counted(macs=10**10)  # ten seconds a pass
    phase = Phase("cpu", Options(budget_s=1.0), lambda _: None, 0.0, predictor, 2)
    first, second = phase.bounds_s([quick, slow])
    assert first == 60.0
    assert second == pytest.approx(20 * predictor.cell_s(slow, 10))
    assert Phase("cpu", Options(timeout_s=7.0), lambda _: None, 0.0, predictor, 2).bounds_s([quick, slow]) == [7.0, 7.0]


def test_capture_of_what_a_child_prints_is_bounded() -> None:
    """Output that never ends leaves its last 64 KiB with the driver, and no more."""
    read, write = os.pipe()
    heard = children._Child(children.Task({}), 0, None, None, read, None, "7f", wire_open=False)  # type: ignore[arg-type]
    os.set_blocking(write, False)
    try:
        for _ in range(8):
            sent = os.write(write, b"x" * 60_000)
            assert sent > 0
            heard.hear([read])
            assert len(heard.tail) <= children.RING_BYTES
    finally:
        os.close(read)
        os.close(write)
    assert len(heard.tail) == children.RING_BYTES


def test_a_job_of_slurms_has_the_memory_of_its_control_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/system.slice/job_7/step_0\n")
    limits = list(device._limits(tmp_path / "sys", tmp_path / "cgroup"))
    folders: Sequence[str] = [str(limit.parent.relative_to(tmp_path / "sys")) for limit, _ in limits]
    assert folders == ["system.slice/job_7/step_0", "system.slice/job_7", "system.slice", "."]
    assert {(limit.name, used.name) for limit, used in limits} == {("memory.max", "memory.current")}
    (tmp_path / "cgroup").write_text("5:cpu:/x\n4:memory:/slurm/job_7\n")
    limits = list(device._limits(tmp_path / "sys", tmp_path / "cgroup"))
    assert str(limits[0][0].relative_to(tmp_path)) == "sys/memory/slurm/job_7/memory.limit_in_bytes"


def test_what_is_written_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after `append` has returned takes nothing: the line, and the file's name, are synced."""
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with store.writing(tmp_path / "s.jsonl") as writer:
        assert len(synced) == 1, "the folder"
        for number in (1, 2):
            writer.append(Record(case("Good", size=number)))
            assert synced[-1] == (tmp_path / "s.jsonl").stat().st_size
    assert len(synced) == 3
