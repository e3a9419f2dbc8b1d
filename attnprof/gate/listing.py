"""A baseline as text of at most 80 columns: what it was made with, a block per point, and the ledger of accepted changes."""

from __future__ import annotations

from attnprof import units
from attnprof.gate.baseline import Baseline, Point
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
    if baseline.accepted:
        lines += ["", "accepted:"]
    for each in baseline.accepted:
        who = f", {clean(each.who)}" if each.who else ""
        what = f"{clean(f'{each.label} {each.point}')}: {each.metric} {each.before:,} -> {each.after:,}: {clean(each.reason)}"
        lines += [f"  {line}" for line in wrap(f"{each.when[:10]}{who}: {what}", WIDTH - 2, "  ")]
    return "\n".join(lines) + "\n"


def _cells(point: Point) -> list[str]:
    if point.status != "ok":
        return [point.status, *("-" for _ in _SHOWN[1:])]
    forms = {"peak_bytes": units.format_bytes}
    return [forms.get(metric, units.format_count)(point.metrics[metric]) for metric, _ in _SHOWN]
