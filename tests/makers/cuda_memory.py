"""`peak_cuda_bytes` against CUDA's own allocator, over the catalogue.

    python -m tests.makers.cuda_memory --out reports/cuda_memory.md [--only 'spatial/*']

Every mechanism at its natural shape, in both modes: traced here, then run on the GPU in a child process as `run` measures peaks
(a warm-up pass; what is allocated then is subtracted; the statistics reset; one pass; torch.cuda.max_memory_allocated). The
model was written from PyTorch's sources and has no fitted constants: every row scores it on shapes that it has not seen.
Without a CUDA device it says so and ends with exit code 3. It has not been run on a GPU yet: no figure of it is in this
repository.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnprof import mechanisms, units
from attnprof.execute.child import Ending, converse
from attnprof.profiling.counting.lifetimes import Lifetimes, rounded
from attnprof.records import MODES, Case, to_json
from tests.catalogue import NAMES

LARGE = 64 * 2**20  # the rows that the score is for
TOLERANCE = 2  # percent
NO_GPU = 3
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Row:
    """One mechanism in one mode, in bytes above the resident ones; `measured` None and `why` where it could not be run."""

    name: str
    mode: str
    shape: str
    traced: int
    modelled: int
    at: str = ""  # what is made, or which kernel's scratch is held, at the modelled peak
    measured: int | None = None
    why: str = ""

    @property
    def error(self) -> float | None:
        """modelled / measured - 1."""
        return self.modelled / self.measured - 1 if self.measured else None

    @property
    def near(self) -> bool:
        """Is the model within the tolerance of a measured row?"""
        return self.measured is not None and 100 * abs(self.modelled - self.measured) <= TOLERANCE * self.measured

    @property
    def large(self) -> bool:
        """Was it measured, above LARGE?"""
        return self.measured is not None and self.measured > LARGE


def peak_maker(lifetimes: Lifetimes) -> str:
    """The op at the modelled peak, with the scratch that its kernel holds: 'bmm (backward), 12.0 MiB of scratch'."""
    scratch: dict[int, int] = {}
    for when, size in lifetimes.temporaries:
        scratch[when] = max(scratch.get(when, 0), rounded(size))
    live, best, found, maker = 0, 0, "", lifetimes.makers[0]
    for index, event in enumerate(lifetimes.events, 1):
        live += rounded(lifetimes.sizes[event]) if event > 0 else -rounded(lifetimes.sizes[-event])
        maker = lifetimes.makers[event] if event > 0 else maker
        held = scratch.get(index, 0)
        if live + held > best:
            best = live + held
            found = f"{maker.op} ({maker.phase})" + (f", {units.format_bytes(held)} of scratch" if held else "")
    return found


def score(rows: Sequence[Row]) -> tuple[int, int]:
    """(rows within the tolerance, rows) among the measured ones whose measured peak is above LARGE."""
    large = [row for row in rows if row.large]
    return sum(row.near for row in large), len(large)


def render(rows: Sequence[Row], environment: Mapping[str, Any]) -> str:
    """The report: the score, the environment, every row, and every large row outside the tolerance with its difference."""
    good, large = score(rows)
    share = f" ({100 * good / large:.1f} %)" if large else ""
    lines = [
        "# peak_cuda_bytes against torch.cuda.max_memory_allocated",
        "",
        f"{good} of {large} rows above {units.format_bytes(LARGE)} are within {TOLERANCE} %{share}. Made by",
        "`python -m tests.makers.cuda_memory`. Bytes above parameters, buffers, inputs and the workspaces that cuBLAS keeps.",
        "",
        *(f"- {name}: {value}" for name, value in environment.items()),
        "",
        "| mechanism | mode | shape | traced | modelled | measured | modelled / measured - 1 | at the modelled peak |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.name, row.mode)):
        measured = row.why if row.measured is None else f"{row.measured:,}"
        error = "-" if row.error is None else f"{100 * row.error:+.2f} %"
        cells = (row.name, row.mode, row.shape, f"{row.traced:,}", f"{row.modelled:,}", measured, error, row.at)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    outside = [row for row in rows if row.large and not row.near]
    if outside:
        lines += ["", "Outside the tolerance, by bytes that the model lacks (+) or has too many (-):", ""]
        for row in sorted(outside, key=lambda row: -abs((row.measured or 0) - row.modelled)):
            lines.append(f"- {row.name} {row.mode}: {(row.measured or 0) - row.modelled:+,} at {row.at}")
    return "\n".join(lines) + "\n"


def cases(only: str = "*") -> Iterator[Case]:
    """Every mechanism of the catalogue whose name matches, at its natural shape, in both modes."""
    for name in fnmatch.filter(NAMES, only):
        shape = mechanisms.load(name).natural
        assert shape is not None, f"{name} has no natural shape"
        for mode in MODES:
            yield Case(name, name.partition("/")[2], {}, shape, mode=mode, device="cuda:0")


def compare(case: Case) -> Row:
    """Trace a case, and run it on the GPU in a child."""
    from attnprof.profiling.counting.trace import follow_case

    found = follow_case(case)
    counts, at = found.counts, peak_maker(found.lifetimes)
    row = Row(case.mechanism, case.mode, case.shape.text(), counts.peak_bytes, counts.peak_cuda_bytes, at)
    request = {"op": "memory", "cases": [to_json(case)], "seed": 0, "memory_bytes": None}
    why = "no answer"
    for item in converse(request, timeout_s=_TIMEOUT_S, spawn=True):
        if isinstance(item, Ending):
            break
        if item["event"] == "memory":
            return Row(**{**vars(row), "measured": item["memory"]["peak_bytes"]})
        why = f"{item['status']}: {item['detail']}".splitlines()[0]
    return Row(**{**vars(row), "why": why})


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. Exit codes: 0 written, 3 no CUDA device."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.makers.cuda_memory", description="Score peak_cuda_bytes on this GPU."
    )
    parser.add_argument("--out", type=Path, default=Path("reports/cuda_memory.md"), help="where the report goes")
    parser.add_argument("--only", default="*", help="a glob of mechanisms, as family/name")
    options = parser.parse_args(arguments)

    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was run, nothing is written.", file=sys.stderr)
        return NO_GPU
    from attnprof.profiling.measuring.device import environment

    rows = []
    for case in cases(options.only):
        rows.append(compare(case))
        print(f"{case.mechanism} {case.mode}: {rows[-1].modelled:,} modelled, {rows[-1].measured} measured", file=sys.stderr)
    options.out.write_text(render(rows, environment("cuda:0")), encoding="utf-8")
    good, large = score(rows)
    print(f"{options.out}: {good} of {large} rows above {units.format_bytes(LARGE)} within {TOLERANCE} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
