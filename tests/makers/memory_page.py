"""reports/memory.md: traced, calibrated and measured peak memory of the catalogue, side by side.

    python -m tests.makers.memory_page [--out reports/memory.md] [--rows FILE] [NAMES...]

For every mechanism and both modes, at its natural shape and at half of its height and width, by the product's own functions,
each step in a child process of its own whose memory is bounded:

1. traced: the pass on meta tensors, for the kernels of a CPU;
2. calibrated: `execute.calibrating`, with a cache that starts empty: each distinct op of that trace run alone;
3. measured: `profiling.measuring.peak`, a real pass after one to warm up, the running sum of the allocator's events;
4. calibrated once more from the cache alone: the same number, and no op is run.

No number of one step enters another. A row whose calibrated and measured peaks differ by more than 1 % is run once more under
`tests.observer`, which names the op that ran at the allocator's peak. `--rows` keeps each row in a file as it is found, and
goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from attnprof import mechanisms
from attnprof.execute import Options
from attnprof.execute.calibrating import calibrate_all
from attnprof.execute.child import Ending, converse
from attnprof.execute.tracing import trace_all
from attnprof.profiling.calibrating.cache import VARIABLE
from attnprof.profiling.measuring.device import available_bytes
from attnprof.profiling.provenance import provenance
from attnprof.records import MODES, Case, Shape, to_json
from tests import observer

_MEMORY_SHARE = 0.5  # of what the machine has free: a row predicted above that is not run
_TIMEOUT_S = 900.0
_CLOSE = 1.0  # percent
_WANTED = 95.0  # percent of the rows
_SIZES = ("natural", "half")
_COLUMNS = ("mechanism", "shape", "mode", "traced MiB", "calibrated MiB", "measured MiB", "calibrated - measured %", "scratch")
_LEGEND = (
    "Bytes above parameters, buffers and inputs. Traced: the most tensor storage alive, counted without data, for the kernels",
    "of a CPU. Calibrated: the largest sum of the bytes alive before an op and that op's own peak, each distinct op run once",
    "alone on this machine. Measured: the running sum of the events of torch's CPU allocator in a real pass. Scratch: how far",
    "the calibrated peak is above the traced one, the op where it lies, and which inner op asks for what is no output there.",
    "A number in `x * 0.5` becomes a tensor of 4 or 8 bytes: the op's scratch, or, where autograd keeps it for the backward",
    "pass, bytes that neither a trace nor an op alone shows.",
)
_NO_FIT = (
    "Half size: every mechanism at half the height and width of its natural shape, with a cache of its own that starts empty.",
    "Nothing is fitted: an op is looked up by its exact sizes, strides, types and arguments, so that no number of the first",
    "table is used here, and an op of another size is run anew.",
)


@dataclass(frozen=True)
class Row:
    """One line of the table; peaks in bytes, None where there is none and `note` says why."""

    name: str
    mode: str
    size: str
    shape: str
    traced: int | None = None
    calibrated: int | None = None
    measured: int | None = None
    again: int | None = None  # calibrated from the cache alone
    probed: int = 0
    probed_again: int = 0
    distinct: int = 0
    calls: int = 0
    op: str = ""
    op_scratch: int = 0
    scratch: Mapping[str, int] = field(default_factory=dict)
    seen_in: str = ""  # the op that ran at the allocator's peak; looked up where the two differ
    note: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def difference(self) -> float | None:
        """Calibrated against measured in percent; None where one of them is missing."""
        if self.calibrated is None or self.measured is None:
            return None
        return 100 * (self.calibrated - self.measured) / self.measured if self.measured else 100.0 * (self.calibrated > 0)

    @property
    def close(self) -> bool:
        """Is the calibrated peak within 1 % of the measured one?"""
        return self.difference is not None and abs(self.difference) <= _CLOSE


def shape_of(name: str, size: str) -> Shape:
    """The natural shape of a mechanism, or that at half its height and width (at least 1)."""
    natural = mechanisms.load(name).natural or Shape(1, 64, 14, 14)
    if size == "natural":
        return natural
    return replace(natural, height=max(natural.height // 2, 1), width=max(natural.width // 2, 1))


def row_of(name: str, mode: str, size: str) -> Row:
    """The four steps for one mechanism in one mode."""
    shape = shape_of(name, size)
    row = Row(name, mode, size, shape.text())
    case = Case(name, name, {}, shape, "float32", mode, "cpu")
    usable = int(_MEMORY_SHARE * available_bytes())
    options = Options(timeout_s=_TIMEOUT_S, memory_bytes=usable)
    (record,) = trace_all([replace(case, device="none", settings={"target": "cpu"})], options, lambda _: None)
    if record.counts is None:
        return replace(row, note=f"not traced: {_line_of(record.detail)}")
    row = replace(row, traced=record.counts.peak_bytes)
    needed = record.counts.peak_bytes + record.counts.resident_bytes
    if needed > usable:
        return replace(row, note=f"not run: {needed} bytes needed, half of the free memory is {usable}")
    ((_, first),) = calibrate_all([case], options, lambda _: None)
    if first.memory is None:
        return replace(row, note=f"not calibrated: {_line_of(first.reason)}")
    facts = first.facts
    row = replace(
        row,
        calibrated=first.memory.peak_bytes,
        op=first.memory.at_op,
        op_scratch=first.memory.scratch_bytes or 0,
        machine={name: first.environment[name] for name in ("cpu", "torch", "cores")},
        **{name: facts[name] for name in ("probed", "distinct", "calls", "scratch")},
    )
    measured, reason = measure(case, options)
    row = replace(row, measured=measured, note=reason)
    ((_, second),) = calibrate_all([case], options, lambda _: None)
    if second.memory is not None:
        row = replace(row, again=second.memory.peak_bytes, probed_again=second.facts["probed"])
    return row if row.close or measured is None else replace(row, seen_in=observer.seen_in_child(name, mode, shape))


def measure(case: Case, options: Options) -> tuple[int | None, str]:
    """(the allocator's peak of a real pass, '' or why there is none), found in a child of its own."""
    request = {"op": "memory", "cases": [to_json(case)], "seed": 0, "memory_bytes": options.memory_bytes}
    reason = ""
    for item in converse(request, timeout_s=options.bound_s):
        if isinstance(item, Ending):
            reason = reason or item.reason()
        elif item["event"] == "memory":
            return int(item["memory"]["peak_bytes"]), ""
        else:
            reason = item["detail"]
    return None, f"not measured: {_line_of(reason)}"


def _line_of(text: str) -> str:
    return " ".join(text.split())[:160].replace("|", "/")


def summary(rows: Sequence[Row]) -> list[str]:
    """How many rows are close, how many are equal to the byte, what was not run, and what the second calibration found."""
    run = [row for row in rows if row.difference is not None]
    close = [row for row in run if row.close]
    equal = [row for row in run if row.calibrated == row.measured]
    share = 100 * len(close) / len(run) if run else 0.0
    counted = f"{len(rows)} rows, {len(run)} with both numbers"
    found = f"calibrated within {_CLOSE:g} % of measured in {len(close)} ({share:.1f} %; at least {_WANTED:g} % are wanted)"
    lines = [f"{counted}: {found}, equal to the byte in {len(equal)}."]
    if run:
        worst = max(run, key=lambda row: abs(row.difference or 0.0))
        lines.append(f"The largest difference: {worst.difference:+.4f} %, {worst.name} {worst.mode} at {worst.shape}.")
        traced = [row for row in run if row.traced is not None and _off(row.traced, row.measured) <= _CLOSE]
        lines.append(f"For comparison, traced within {_CLOSE:g} % of measured: {len(traced)} of {len(run)}.")
    again = [row for row in rows if row.calibrated is not None]
    same = sum(row.again == row.calibrated for row in again)
    first, second, calls = (sum(getattr(row, name) for row in rows) for name in ("probed", "probed_again", "calls"))
    found = f"the same number in {same} of {len(again)} rows, {second} ops run"
    lines.append(f"Calibrated again from the cache: {found}. The first time {first} were run, of {calls} calls.")
    missing = [f"{row.name} {row.mode} at {row.shape}: {row.note}." for row in rows if row.difference is None]
    return lines + ([f"Without a number: {len(missing)}.", *missing] if missing else [])


def _off(value: int, measured: int | None) -> float:
    """How far a value is from the measured one, in percent of that."""
    return 100 * abs(value - measured) / measured if measured else 100.0 * (value > 0)


def _scratch(row: Row) -> str:
    """Where the calibrated peak is above the traced one; where calibrated and measured differ, what ran at the other's peak."""
    if row.calibrated is None or row.traced is None:
        return ""
    added, parts = row.calibrated - row.traced, []
    if added:
        text = f"{row.op}: {added:+d}"
        if row.op_scratch != added:
            text += f" (the peak moves here; {row.op_scratch} above its outputs)"
        inner = ", ".join(f"{name} {size}" for name, size in sorted(row.scratch.items(), key=lambda item: -item[1]))
        parts = [text, inner]
    if row.seen_in:
        parts.append(f"calibrated in {row.op or 'no op'}, the allocator's peak in {row.seen_in}")
    return "; ".join(filter(None, parts))


def _difference(row: Row) -> str:
    """In percent; in bytes where that would read as nothing."""
    if row.calibrated is None or row.measured is None or row.difference is None:
        return "-"
    text = f"{row.difference:+.4f}"
    if row.calibrated == row.measured:
        return "0"
    return f"{row.calibrated - row.measured:+d} B" if not text.strip("+-0.") else text


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.3f}"


def line(row: Row) -> str:
    """One line of the table."""
    cells = [row.name, row.shape, row.mode, _mib(row.traced), _mib(row.calibrated), _mib(row.measured), _difference(row)]
    return "| " + " | ".join([*cells, row.note if row.difference is None else _scratch(row)]) + " |"


def table(rows: Iterable[Row]) -> list[str]:
    """Head and lines."""
    return ["| " + " | ".join(_COLUMNS) + " |", "|---|---|---|---:|---:|---:|---:|---|", *map(line, rows)]


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"- {text}" for text in lines]


def markdown(rows: Sequence[Row], command: str) -> str:
    """The page."""
    natural, half = ([row for row in rows if row.size == size] for size in _SIZES)
    machines = dict.fromkeys(", ".join(f"{key} {value}" for key, value in row.machine.items()) for row in rows if row.machine)
    versions = provenance(Case("none", "none", {}, Shape(1, 1, 1, 1)))
    made = f"attnprof {versions['attnprof']}, python {versions['python']}, one thread, float32, default arguments"
    parts = [
        "# Peak memory: traced, calibrated, measured",
        "",
        f"Made by `{command}` with {made}.",
        "",
        *_bullets(f"Machine: {machine}, kernels for {torch.backends.cpu.get_cpu_capability()}." for machine in machines),
        *_bullets(summary(natural)),
        "",
        *_LEGEND,
        "",
        *table(natural),
        "",
        "## Other shapes",
        "",
        *_NO_FIT,
        "",
        *_bullets(summary(half)),
        "",
        *table(half),
        "",
    ]
    return "\n".join(parts)


def _kept(path: Path | None) -> dict[tuple[str, str, str], Row]:
    if path is None or not path.exists():
        return {}
    found = [Row(**json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]
    return {(row.size, row.name, row.mode): row for row in found}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.makers.memory_page", description="Traced, calibrated and measured peaks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mechanisms; the whole catalogue when none is given")
    parser.add_argument("--out", type=Path, help="write the page to this file instead of the terminal")
    parser.add_argument("--rows", type=Path, help="keep the rows in this file, and go on from those that it has")
    return parser.parse_args(arguments)


def rows_of(names: Sequence[str], kept: Path | None) -> list[Row]:
    """Every row, with a cache for each size that starts empty."""
    known = _kept(kept)
    rows: list[Row] = []
    for size in _SIZES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[VARIABLE] = folder
            for name, mode in itertools.product(names, MODES):
                row = known.get((size, name, mode)) or row_of(name, mode, size)
                rows.append(row)
                print(line(row), file=sys.stderr, flush=True)
                if kept is not None and (size, name, mode) not in known:
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
    return rows


def main(arguments: Sequence[str]) -> None:
    """One row after the other, then the page."""
    options = _parse(arguments)
    every = [f"{family}/{name}" for family, members in mechanisms.names().items() for name in members]
    rows = rows_of([mechanisms.resolve(name) for name in options.names] or every, options.rows)
    said = itertools.takewhile(lambda word: word != "--rows", arguments)
    text = markdown(rows, " ".join(["python -m tests.makers.memory_page", *said]))
    if options.out is None:
        print(text)
    else:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
