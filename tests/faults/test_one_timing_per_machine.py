"""Two runs on one machine: a block is timed on its CPUs at a time, and nobody pays for the wait."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from attnprof.execute import Options, Progress, blocks
from attnprof.execute.predict import Predictor
from attnprof.profiling.measuring import gpu
from attnprof.records import Case, Record, Shape

pytestmark = pytest.mark.fault


def _phase(device: str, said: list[Progress]) -> blocks.Phase:
    return blocks.Phase(device, Options(run_budget_s=10.0), said.append, time.monotonic(), Predictor({}, 1), 1)


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("cuda:0", False)])
def test_a_second_run_waits_and_is_not_charged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, waits: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free: list[bool] = []

    def timed(group: Sequence[Record], share: tuple[float, float], phase: blocks.Phase) -> Iterator[Record]:
        probe = gpu.lock(blocks.CPU_TIMING, wait=False)
        free.append(probe is not None)
        if probe is not None:
            os.close(probe)
        yield from group

    monkeypatch.setattr(blocks, "_measure_block", timed)
    other = gpu.lock(blocks.CPU_TIMING, wait=False)
    assert other is not None
    timer = threading.Timer(0.4, os.close, [other])
    timer.start()
    said: list[Progress] = []
    phase = _phase(device, said)
    began = time.monotonic()
    record = Record(Case("channel/se", "se", {}, Shape(1, 8, 4, 4), device=device))
    assert list(blocks.measure_block([record], (1.0, 1.0), phase)) == [record]
    passed, left = time.monotonic() - began, phase.left_s()
    timer.join()
    assert (phase.waited_s >= 0.3) is waits
    assert free == [False]  # while it timed, the lock was held: by it, or (for the GPU) by the other still
    assert [step.stage for step in said] == (["warning"] if waits else [])
    assert left == pytest.approx(10 - passed + phase.waited_s, abs=0.1)
    after = gpu.lock(blocks.CPU_TIMING, wait=False)
    assert after is not None
    os.close(after)
