"""Is the time gate honest? `python -m tests.makers.time_gate_honesty --out reports/time_gate_honesty.md`.

Every gate is the product's own: a scratch repository with a user's module, its last commit as the base, the working tree as
head, pairs of processes, verdicts, confirmation.
    same        head differs by a comment, beside a neighbour that burns CPU and memory bandwidth without a pause
    slow        head does 33 units of the work that base does 30 of: a tenth more
    slow_busy   the same beside that neighbour

Results are appended to a csv beside the report as they come in: `--resume` goes on after the last one, `--seconds` ends a
slice. A target of 0 leaves a condition as it is. The report is made from the csv alone and written again after every slice.
Every row has a digest of the files that measure and decide (`code`); rows of other code are not gone on with. A gate that
measured nothing is a row as well.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import hashlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attnprof.execute.lockstep import Sampling
from attnprof.gate.rows import Row
from attnprof.gate.timing import Options, time_rows
from attnprof.records import Case, Shape
from tests.makers import interval_honesty, time_gate_report
from tests.makers.interval_honesty import load, neighbours

ROOT = Path(__file__).resolve().parents[2]
UNITS, MORE_UNITS = 30, 33
MODULE = '''\
"""{remark}"""

from torch import nn


class Mine(nn.Module):
    """A convolution, `units` times in a row."""

    def __init__(self, channels, units={units}):
        super().__init__()
        self.units = units
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        for _ in range(self.units):
            x = self.conv(x)
        return x
'''
CASE = Case("mine.py:Mine", "mine", {}, Shape(1, 16, 32, 32), device="cpu", settings={"sdpa": "auto"})
CODE = (
    *("gate/timing.py", "gate/latency.py", "gate/timed.py", "execute/lockstep.py", "execute/side.py", "execute/checkout.py"),
    *(
        "lockstep_worker.py",
        "profiling/measuring/measure.py",
        "profiling/measuring/window.py",
        "profiling/measuring/prepare.py",
    ),
)
FIELDS = (
    *(
        "code",
        "condition",
        "index",
        "date",
        "cpu",
        "cores",
        "torch",
        "load",
        "busy_share",
        "seconds",
        "outcome",
        "reason",
        "base_s",
    ),
    *("head_s", "ratio", "low", "high", "processes", "ratios", "again", "again_low", "again_processes", "again_ratios"),
)


@contextlib.contextmanager
def scratch(condition: str) -> Iterator[Path]:
    """A repository whose last commit is the base and whose working tree is head, as the current folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="time-gate-") as name:
        folder = Path(name).resolve()
        file = folder / "mine.py"
        file.write_text(MODULE.format(remark="Mine.", units=UNITS), encoding="utf-8")
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "base"]):
            subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
        units = MORE_UNITS if condition.startswith("slow") else UNITS
        file.write_text(MODULE.format(remark="Mine, of today.", units=units), encoding="utf-8")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def gate(condition: str, index: int) -> dict[str, Any]:
    """One gate through the product, as a row."""
    began, before = time.monotonic(), interval_honesty._processor_times()
    with scratch(condition) as folder:
        options = Options(sampling=Sampling(seed=1000 * index))
        (found,) = time_rows([CASE], "HEAD", folder, options)
    busy = interval_honesty._share(before, interval_honesty._processor_times())
    return {
        "code": digest(ROOT),
        "condition": condition,
        "index": index,
        "date": dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d"),
        "busy_share": f"{busy:.3f}",
        "seconds": f"{time.monotonic() - began:.1f}",
        **row_of(found),
    }


def digest(root: Path) -> str:
    """Of the files of a checkout that measure and decide."""
    found = hashlib.sha256()
    for name in CODE:
        found.update((root / "attnprof" / name).read_bytes())
    return found.hexdigest()[:12]


def row_of(found: Row) -> dict[str, Any]:
    """What a gate's row says, in the fields of the csv; of one that measured nothing the outcome alone."""
    detail = found.detail
    out: dict[str, Any] = {"outcome": found.outcome.value, "reason": found.reason.value}
    if detail["estimate"] is None:
        return out
    environment, again = detail["environment"], detail.get("confirming")
    out |= {name: environment[name] for name in ("cpu", "cores", "torch")} | {"load": environment["load_1m"]}
    out |= {name: f"{detail['estimate'][name]:.6g}" for name in ("base_s", "head_s", "ratio", "low", "high")}
    out |= {"processes": detail["estimate"]["processes"], "ratios": _words(detail["ratios"])}
    if again is not None and again["estimate"] is not None:
        out |= {"again": f"{again['estimate']['ratio']:.6g}", "again_low": f"{again['estimate']['low']:.6g}"}
        out |= {"again_processes": again["estimate"]["processes"], "again_ratios": _words(again["ratios"])}
    return out


def _words(ratios: Sequence[float]) -> str:
    return " ".join(f"{ratio:.4f}" for ratio in ratios)


def run(file: Path, targets: dict[str, int], seconds: float, burners: int) -> None:
    """Bring every condition to its target, appending each result as soon as it is there; stop once `seconds` have passed."""
    until = time.monotonic() + seconds
    done = _done(file)
    for condition, target in targets.items():
        beside = burners if condition in ("same", "slow_busy") and done[condition] < target else 0
        with neighbours(beside, "steady"):
            for index in range(done[condition], target):
                if time.monotonic() >= until:
                    return
                row = gate(condition, index)
                _append(file, row)
                print(" ".join(f"{name}={row.get(name, '')}" for name in FIELDS if name in row), flush=True)


def _done(file: Path) -> dict[str, int]:
    """{condition: gates that are there}."""
    found = Counter(row["condition"] for row in load(file))
    return {condition: found[condition] for condition in time_gate_report.AIMS}


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
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "time_gate_honesty.md")
    defaults = {"same": 50, "slow": 50, "slow_busy": 0}
    for condition, target in defaults.items():
        parser.add_argument(f"--{condition.replace('_', '-')}", type=int, metavar="N", default=target)
    parser.add_argument("--burners", type=int, default=1, metavar="N", help="neighbours that never pause")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end this slice after so long")
    parser.add_argument("--resume", action="store_true", help="keep the results that are there")
    options = parser.parse_args(arguments)
    out: Path = options.out.resolve()
    file = out.with_suffix(".csv")
    if not options.resume:
        file.unlink(missing_ok=True)
    other = {row["code"] for row in load(file)} - {digest(ROOT)}
    if other and any(getattr(options, condition) > count for condition, count in _done(file).items()):
        print(f"{file} has gates of other code ({', '.join(sorted(other))}): begin anew, without --resume", file=sys.stderr)
        return 1
    run(file, {condition: getattr(options, condition) for condition in defaults}, options.seconds, options.burners)
    out.write_text(time_gate_report.render(load(file)), encoding="utf-8")
    print(f"wrote {out} and {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
