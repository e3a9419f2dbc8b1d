"""A baseline as text of at most 80 columns: what it was made with, a block per point, and the ledger of accepted changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof import units
from attnprof.gate.baseline import Baseline, Point
from attnprof.gate.naming import Listed
from attnprof.report.text import WIDTH, clean, fit, grid, wrap

_SHOWN = (("params", "Params"), ("macs", "MACs"), ("flops", "FLOPs"), ("peak_bytes", "Peak"))
_CAPS = (16, 24, 7, 7, 7, 8)


def render(baseline: Baseline) -> str:
    """The whole file; `--json` has every metric to the unit."""
    made = baseline.made
    head = f"{clean(baseline.spec)}: {len(baseline.points):,} points, made with attnprof {made.attnprof}, torch {made.torch}"
    rows = [[clean(point.label), point.text, *_cells(point)] for point in baseline.points.values()]
    heads = ["Mechanism", "Point", *(head for _, head in _SHOWN)]
    widths = fit([[head, *cells] for head, *cells in zip(heads, *rows, strict=True)], _CAPS)
    lines = [*wrap(head), "", *grid([heads], rows, widths, left=2)]
    lines += _ratio_lines(baseline)
    if baseline.accepted:
        lines += ["", "accepted:"]
    for each in baseline.accepted:
        who = f", {clean(each.who)}" if each.who else ""
        what = f"{clean(f'{each.label} {each.point}')}: {each.metric} {each.before:,} -> {each.after:,}: {clean(each.reason)}"
        lines += [f"  {line}" for line in wrap(f"{each.when[:10]}{who}: {what}", WIDTH - 2, "  ")]
    return "\n".join(lines) + "\n"


def _ratio_lines(baseline: Baseline) -> list[str]:
    held = baseline.ratios
    if held is None:
        return []
    count = len(held.points)
    head = (
        f"{count:,} {'ratio' if count == 1 else 'ratios'} of latency, measured on {clean(held.device)} with torch {held.torch}"
    )
    rows = [
        [clean(point.label), point.text, clean(each.against), f"{each.ratio:.3g}", each.bounds, str(each.processes)]
        for point in baseline.points.values()
        if (each := held.points.get(point.key)) is not None
    ]
    heads = ["Mechanism", "Point", "To", "Ratio", "95 % interval", "Processes"]
    widths = fit([[head, *cells] for head, *cells in zip(heads, *rows, strict=True)], (16, 24, 12, 6, 16, 9))
    return ["", *wrap(f"{head}:"), "", *grid([heads], rows, widths, left=3)]


def render_listed(found: Sequence[Listed]) -> str:
    """A line per baseline of the folder."""
    heads = ["Baseline", "Spec", "Points", "Ratios", "Accepted", "torch"]
    rows = [[clean(each.file.stem), *_listed_cells(each)] for each in found]
    widths = fit([[head, *cells] for head, *cells in zip(heads, *rows, strict=True)], (24, 24, 7, 7, 8, 6))
    lines = grid([heads], rows, widths, left=2)
    for each in found:
        lines += wrap(clean(each.problem), indent="  ") if each.problem else []
    return "\n".join(lines) + "\n"


def _listed_cells(each: Listed) -> list[str]:
    held = each.held
    if held is None:
        return ["cannot be read", *("-" for _ in range(4))]
    numbers = (len(held.points), 0 if held.ratios is None else len(held.ratios.points), len(held.accepted))
    return [clean(held.spec), *(f"{number:,}" for number in numbers), held.made.torch]


def listed_data(each: Listed) -> dict[str, Any]:
    """The same as plain JSON types."""
    held = each.held
    if held is None:
        return {"name": each.file.stem, "file": str(each.file), "problem": each.problem}
    return {
        "name": each.file.stem,
        "file": str(each.file),
        "spec": held.spec,
        "points": len(held.points),
        "ratios": 0 if held.ratios is None else len(held.ratios.points),
        "accepted": len(held.accepted),
        "torch": held.made.torch,
    }


def _cells(point: Point) -> list[str]:
    if point.status != "ok":
        return [point.status, *("-" for _ in _SHOWN[1:])]
    forms = {"peak_bytes": units.format_bytes}
    return [forms.get(metric, units.format_count)(point.metrics[metric]) for metric, _ in _SHOWN]
