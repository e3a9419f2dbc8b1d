"""Are the intervals of latency ratios honest? `python -m tests.makers.interval_honesty --out reports/interval_honesty.md`.

Every comparison is one of the product's own: two labels, children, blocks, warm-up, rounds, the ratio that `compare` prints.
    quiet      A against A: the interval has to cover 1
    busy       the same beside two neighbours that burn CPU and memory bandwidth in bursts, with pauses as long
    crowded    the same beside two neighbours that never pause
    slow       B does 11 units of the work that A does 10 of: the interval has to leave 1 out
    slow_busy  the same beside the neighbours
`placement` holds the product's own way of sampling (tensors moved before every sample) against leaving them where they are.

Results are appended to a csv beside the report as they come in: `--resume` goes on after the last one, `--seconds` ends a
slice. A target of 0 leaves a condition as it is. The report is made from the csv alone and written again after every slice.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnprof.execute import Options, run_cases
from attnprof.records import Case, Record, Shape, Timing
from attnprof.report.metrics import METRICS
from attnprof.report.ratios import paired, ratio_of
from tests.makers import interval_report

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "tests" / "makers" / "interval_work.py"
CCNET, SIDE, UNITS, MORE_UNITS = "spatial/ccnet", 33, 10, 11
BUDGET_S = 2.0
NEIGHBOURS = 2
PLACEMENT_ROUNDS = 70
ARMS = ("still", "moved", "shared")
FIELDS = (
    *("condition", "index", "date", "cpu", "cores", "torch", "threads", "load", "busy_share", "seconds", "first_s", "other_s"),
    *("stopped_by", "macs_ratio", "pairs", "ratio", "low", "high", "covers", "logs"),
)


def cases_of(condition: str) -> list[Case]:
    """The two cases of a comparison: A and A again, or A and B with a tenth more of the same work."""
    common: dict[str, Any] = {"shape": Shape(1, 64, SIDE, SIDE), "device": "cpu", "settings": {"sdpa": "auto"}}
    if not condition.startswith("slow"):
        return [Case(CCNET, label, {}, **common) for label in ("A", "A again")]
    common["shape"] = Shape(1, 64, 17, 17)
    return [Case(f"{WORK}:Repeats", label, {"units": units}, **common) for label, units in (("A", UNITS), ("B", MORE_UNITS))]


def compare(condition: str, index: int) -> dict[str, Any]:
    """One comparison through the product, as a row; other / first for the slowed ones, so that slower is above 1."""
    began, before = time.monotonic(), _processor_times()
    records = list(run_cases(cases_of(condition), Options(budget_s=BUDGET_S, seed=index)))
    by_label = {record.case.label: record for record in records}
    first, other = (by_label[case.label] for case in cases_of(condition))
    assert all(record.status == "ok" and record.timing is not None for record in records), [r.detail for r in records]
    if condition.startswith("slow"):
        first, other = other, first
    ratio = ratio_of(first, other, METRICS["latency"])
    (pairs,) = paired(first, other)
    flags = first.environment["flags"]
    return {
        "condition": condition,
        "index": index,
        "date": dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d"),
        **{name: first.environment[name] for name in ("cpu", "cores", "torch")},
        "threads": flags["threads"],
        "load": first.environment["load_1m"],
        "busy_share": f"{_share(before, _processor_times()):.3f}",
        "seconds": f"{time.monotonic() - began:.1f}",
        "first_s": f"{_timing(first).median_s:.6g}",
        "other_s": f"{_timing(other).median_s:.6g}",
        "stopped_by": _timing(first).stopped_by,
        "macs_ratio": f"{_macs(first) / _macs(other):.6g}",
        "pairs": ratio.pairs,
        **{name: f"{getattr(ratio, name):.6f}" for name in ("low", "high")},
        "ratio": f"{ratio.value:.6f}",
        "covers": ratio.covers,
        "logs": _logs(zip(*pairs, strict=True)),
    }


def _timing(record: Record) -> Timing:
    assert record.timing is not None
    return record.timing


def _macs(record: Record) -> int:
    assert record.counts is not None
    return record.counts.macs


def _logs(pairs: Any) -> str:
    """Log ratios in the order of the rounds, in units of 1e-4."""
    return " ".join(str(round(1e4 * math.log(a / b))) for a, b in pairs)


def place(arm: str, index: int) -> dict[str, Any]:
    """One fresh process in which two equal members are timed, as a row."""
    command = [sys.executable, "-m", "tests.makers.interval_work", "placement", arm, str(index), str(PLACEMENT_ROUNDS)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    logs = _logs(json.loads(done.stdout))
    row = {"condition": f"placement {arm}", "index": index, "pairs": PLACEMENT_ROUNDS, "logs": logs}
    return row | {"seconds": f"{time.monotonic() - began:.1f}"}


@contextlib.contextmanager
def neighbours(count: int, *how: str) -> Iterator[None]:
    """Processes that disturb, while the context lasts; how: 'steady' without pauses."""
    running = [
        subprocess.Popen([sys.executable, "-m", "tests.makers.interval_work", "neighbour", str(seed), *how], cwd=ROOT)
        for seed in range(count)
    ]
    try:
        if count:
            time.sleep(5)  # they import torch first
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _processor_times() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all processors."""
    return [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]


def _share(before: Sequence[int], after: Sequence[int]) -> float:
    """The part of all processors' time that was not idle."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return 1 - (spent[3] + spent[4]) / max(sum(spent), 1)


def load(file: Path) -> list[dict[str, str]]:
    """Every result so far."""
    if not file.exists():
        return []
    csv.field_size_limit(1 << 24)
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def run(file: Path, targets: dict[str, int], seconds: float) -> None:
    """Bring every condition to its target, appending each result as soon as it is there; stop once `seconds` have passed."""
    until = time.monotonic() + seconds
    done = Counter(row["condition"] for row in load(file))
    for condition, target in targets.items():
        arms = [f"placement {arm}" for arm in ARMS] if condition == "placement" else [condition]
        beside = (condition.endswith("busy") or condition == "crowded") and done[condition] < target
        with neighbours(NEIGHBOURS if beside else 0, *(["steady"] if condition == "crowded" else [])):
            for index in range(min(done[arm] for arm in arms), target):
                for arm in arms:
                    if time.monotonic() >= until:
                        return
                    row = place(arm.split()[1], index) if condition == "placement" else compare(condition, index)
                    _append(file, row)
                    print(" ".join(f"{name}={row.get(name, '')}" for name in FIELDS[:-1] if name in row), flush=True)


def _append(file: Path, row: dict[str, Any]) -> None:
    new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "interval_honesty.md")
    defaults = {"quiet": 200, "busy": 200, "crowded": 200, "slow": 100, "slow_busy": 0, "placement": 20}
    for condition, target in defaults.items():
        parser.add_argument(f"--{condition.replace('_', '-')}", type=int, metavar="N", default=target)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end this slice after so long")
    parser.add_argument("--resume", action="store_true", help="keep the results that are there")
    options = parser.parse_args(arguments)
    file = options.out.with_suffix(".csv")
    if not options.resume:
        file.unlink(missing_ok=True)
    run(file, {condition: getattr(options, condition) for condition in defaults}, options.seconds)
    options.out.write_text(interval_report.render(load(file)), encoding="utf-8")
    print(f"wrote {options.out} and {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
