"""Report -> figures for papers: every chart as svg, pdf and png in two widths, and its Vega-Lite description. Offline.

A figure is drawn in points of paper: `column` is 3.3 in wide, `page` 6.9 in. Text stays text in svg; pdf embeds its fonts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

from attnprof.errors import UsageError
from attnprof.report.charts import Canvas, Chart, charts_of, columns_in, together
from attnprof.report.table import Report

POINTS = 72  # per inch
INCHES = {"": 6.9, "-column": 3.3}  # of the page's width, and of one of two columns
_CANVASES = {"": Canvas(170, 190, 7.5, columns=2), "-column": Canvas(120, 150, 7.0, columns=1)}
_PPI = 300
_LEAST = 40.0  # of a plot's width


def figures(report: Report) -> dict[str, str | bytes]:
    """{"-macs.svg": ..., "-macs.pdf": ..., "-macs.png": ..., "-macs.vl.json": ..., "-macs-column.svg": ...}.

    What shows one size shows the largest. Raises UsageError where altair or vl-convert is missing or nothing can be drawn.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError("figures need vl-convert: pip install 'attnprof[plots]'.") from error
    out: dict[str, str | bytes] = {}
    charts, reasons = charts_of(report)
    if not charts:
        raise UsageError(f"no figure can be drawn. {' '.join(reasons)}")
    for chart in charts:
        for suffix, canvas in _CANVASES.items():
            svg, spec = _fitted(chart, canvas, INCHES[suffix] * POINTS)
            stem = f"-{chart.key}{suffix}"
            out[f"{stem}.svg"] = _in_inches(svg, INCHES[suffix])
            out[f"{stem}.pdf"] = vl_convert.svg_to_pdf(svg)
            out[f"{stem}.png"] = vl_convert.svg_to_png(svg, ppi=_PPI)
            if not suffix:
                out[f"{stem}.vl.json"] = json.dumps(spec, indent=1) + "\n"
    return out


def _fitted(chart: Chart, canvas: Canvas, wanted: float) -> tuple[str, dict[str, Any]]:
    """The svg and spec of a chart with plots that make the whole `wanted` points wide, or are as narrow as they may be."""
    import vl_convert

    for last in (False, False, True):
        spec = together(chart, canvas)
        svg: str = vl_convert.vegalite_to_svg(spec)
        over = _width(svg) - wanted
        width = max(canvas.width - over / min(columns_in(chart.in_row, canvas), len(spec.get("concat", "1"))), _LEAST)
        if last or abs(over) <= 1 or width == canvas.width:
            break
        canvas = replace(canvas, width=width)
    return svg, spec


def _width(svg: str) -> float:
    found = re.search(r'<svg[^>]* width="([\d.]+)"', svg)
    return float(found.group(1)) if found else math.nan


def _in_inches(svg: str, inches: float) -> str:
    """The same drawing with its physical size, so that a page that includes it needs no scale."""

    def sized(match: re.Match[str]) -> str:
        wide, high = float(match.group(2)), float(match.group(4))
        return f'{match.group(1)}{inches:g}in{match.group(3)}{inches * high / wide:.4g}in"'

    return re.sub(r'(<svg[^>]*? width=")([\d.]+)(" height=")([\d.]+)"', sized, svg, count=1)
