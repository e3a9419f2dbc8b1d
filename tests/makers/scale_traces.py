"""Part `traces` of the scale page: whole runs of N traced cases, one child at a time on one core; time, memory, store.

The sweep is the catalogue in both modes at as many sizes of input as it takes: 5 mechanisms, drawn once, for 10 cases, 50 for
100, all of them beyond. A case costs what its ops cost, and the mixes differ a little, so their mean is given too.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnprof import mechanisms
from tests.faults.driver import Driver, marked, start

SIZES = (10, 100, 1_000, 10_000)
_HW = (
    "16x16",
    "24x24",
    "28x28",
    "32x32",
    "40x40",
    "48x48",
    "56x56",
    "64x64",
    "72x72",
    "80x80",
    "96x96",
    "112x112",
    "120x120",
    "128x128",
)
_CHANNELS = (64, 96, 256, 512)
_EVERY_S = 0.25


@dataclass(frozen=True)
class Found:
    """What one run of N cases took."""

    cases: int
    failed: int
    ops: float  # calls per case
    seconds: float  # wall clock, from the first record on the disk to the last
    start_s: float  # until the first
    end_s: float  # reports
    cpu_s: float  # of all processes, start and reports included
    driver_bytes: int  # the most that the driver held resident
    family_bytes: int  # the most that all processes held together, shared pages once
    store_bytes: int


def write_spec(path: Path, cases: int) -> int:
    """A spec of about so many cases; how many they are."""
    names = [name for every in mechanisms.names().values() for name in every]
    names = random.Random(0).sample(names, 5 if cases <= 10 else 50 if cases <= 100 else len(names))
    sizes = max(round(cases / (2 * len(names))), 1)
    hw = _HW[: -(-sizes // len(_CHANNELS))]
    channels = _CHANNELS[: -(-sizes // len(hw))]
    path.write_text(
        f"name: scale\ninput: {{channels: {list(channels)}, hw: [{', '.join(hw)}]}}\nmodes: [inference, training]\n"
        f"measure: {{device: none}}\nmechanisms: [{', '.join(names)}]\n"
    )
    return 2 * len(names) * len(hw) * len(channels)


def one_run(cases: int) -> Found:
    """Run a sweep, and watch it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planned = write_spec(folder / "scale.yaml", cases)
        store = folder / "out" / "scale.jsonl"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        driver = start(folder, "run", "scale.yaml", "--out", "out", "--jobs", "1", "-q", "--format", "csv", before=_one_core())
        first, last, driver_bytes, family_bytes, size = 0.0, 0.0, 0, 0, 0
        for turn in itertools.count():
            if driver.process.poll() is not None:
                break
            now = time.monotonic()
            grown = store.stat().st_size if store.exists() else 0
            if grown > size:
                first, last, size = first or (now if b'"kind":"record"' in _head(store) else 0.0), now, grown
            if turn % 5 == 0:
                own, family = memory_of(driver)
                driver_bytes, family_bytes = max(driver_bytes, own), max(family_bytes, family)
            time.sleep(_EVERY_S / 5)
        ended = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        records = [json.loads(line)["record"] for line in store.open("rb") if b'"kind":"record"' in line[:60]]
        assert len(records) == planned, driver.stderr
        counted = [record["counts"] for record in records if record["counts"]]
        ops = sum(op["calls"] for counts in counted for op in counts["ops"]) / len(counted)
        failed = len(records) - len(counted)
        size = store.stat().st_size
        return Found(planned, failed, ops, last - first, first - began, ended - last, cpu, driver_bytes, family_bytes, size)


def _one_core() -> list[str]:
    core = max(os.sched_getaffinity(0))
    return ["taskset", "-c", str(core)]


def _head(store: Path) -> bytes:
    with store.open("rb") as file:
        file.readline()
        return file.read(100)


def memory_of(driver: Driver) -> tuple[int, int]:
    """(bytes that the driver holds, bytes that it and all that came of it hold together: shared pages count once)."""
    own = family = 0
    for pid in marked(driver.mark):
        try:
            said = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in said.splitlines()[1:]}
        family += found["Pss"]
        own = found["Rss"] if pid == driver.process.pid else own
    return own, family


def traces_part(sizes: Sequence[int]) -> list[str]:
    """The table of part `traces`."""
    heads = (
        "cases",
        "not counted",
        "op calls per case",
        "to the first record (s)",
        "counting (s)",
        "per case (ms)",
        "per op call (us)",
        "reports (s)",
        "processor, whole run (s)",
        "driver (MB)",
        "all processes (MB)",
        "store (MB)",
    )
    out = ["| " + " | ".join(heads) + " |", "| ---: " * len(heads) + "|"]
    for size in sizes:
        found = one_run(size)
        each = found.seconds / max(found.cases - 1, 1)
        cells = (
            f"{found.cases:,}",
            f"{found.failed}",
            f"{found.ops:.0f}",
            f"{found.start_s:.1f}",
            f"{found.seconds:.1f}",
            f"{1e3 * each:.1f}",
            f"{1e6 * each / found.ops:.0f}",
            f"{found.end_s:.1f}",
            f"{found.cpu_s:.1f}",
            f"{found.driver_bytes / 1e6:.0f}",
            f"{found.family_bytes / 1e6:.0f}",
            f"{found.store_bytes / 1e6:.1f}",
        )
        out.append("| " + " | ".join(cells) + " |")
        print(out[-1], file=sys.stderr, flush=True)
    return out
