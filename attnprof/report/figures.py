"""Report -> figures for papers: every chart as svg, pdf and png in two widths, and its Vega-Lite description. Offline.

A figure is drawn in points of paper: `column` is 3.3 in wide, `page` 6.9 in. Text stays text in svg; pdf embeds its fonts.
None is higher than a page: one that would be is several, `-1`, `-2`, ... in their names, with some of the panels each. A panel
that is too high alone has some of the mechanisms in each part, and says so in its title. Nothing is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.report.charts import Canvas, Chart, Panel, charts_of, columns_in, panels_of, together
from attnprof.report.charts.data import base_of, by_size, identity, series_of, size_text
from attnprof.report.table import Report

POINTS = 72  # per inch
INCHES = {"": 6.9, "-column": 3.3}  # of the page's width, and of one of two columns
HIGHEST = 8.5  # inches: letter paper with margins of an inch, less a caption of two lines
_CANVASES = {"": Canvas(170, 190, 7.5, columns=2), "-column": Canvas(120, 150, 7.0, columns=1)}
_PPI = 300
_LEAST = 40.0  # of a plot's width

_Drawn = tuple[str, dict[str, Any]]  # svg and Vega-Lite of a figure


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
            parts = _bounded(report, chart, suffix, [panel.title for panel in panels_of(chart, canvas)])
            for number, (svg, spec) in enumerate(parts, 1):
                stem = f"-{chart.key}{suffix}" + (f"-{number}" if len(parts) > 1 else "")
                out[f"{stem}.svg"] = _in_inches(svg, INCHES[suffix])
                out[f"{stem}.pdf"] = vl_convert.svg_to_pdf(svg)
                out[f"{stem}.png"] = vl_convert.svg_to_png(svg, ppi=_PPI)
                if not suffix:
                    out[f"{stem}.vl.json"] = json.dumps(spec, indent=1) + "\n"
    return out


def _bounded(report: Report, chart: Chart, suffix: str, titles: Sequence[str]) -> list[_Drawn]:
    """The panels with these titles as figures that a page holds: rows of panels together, then some of the mechanisms."""
    canvas = _CANVASES[suffix]
    drawn = _fitted(_with(chart, titles), canvas, INCHES[suffix] * POINTS)
    high = _inches_high(drawn, suffix)
    if high <= HIGHEST:
        return [drawn]
    across = columns_in(chart.in_row, canvas)
    rows = [titles[i : i + across] for i in range(0, len(titles), across)]
    if len(rows) == 1:
        return _by_mechanism(report, chart, suffix, titles, high)
    count = math.ceil(len(rows) / max(int(HIGHEST * len(rows) / high), 1))
    pages = [[title for row in page for title in row] for page in (rows[run] for run in _even(len(rows), count))]
    return [part for page in pages for part in _bounded(report, chart, suffix, page)]


def _by_mechanism(report: Report, chart: Chart, suffix: str, titles: Sequence[str], high: float) -> list[_Drawn]:
    """One row of panels as figures with some of the mechanisms each, as few as a page each allows, and what they are said."""
    every = list(series_of(report.records))
    blocks = [block for _, sized in by_size(report.records, True) for _, block in sized]
    held_against = {identity(base.case) for base in (base_of(block, report.baseline) for block in blocks) if base is not None}
    drawn: list[_Drawn] = []

    def shown(record: Record) -> bool:
        return chart.size in ("", size_text(record.case))

    for count in range(min(math.ceil(high / HIGHEST), len(every)), len(every) + 1):
        drawn = []
        for number, run in enumerate(_even(len(every), count), 1):
            wanted = {*every[run], *(held_against if chart.key.startswith("deltas") else ())}
            records = tuple(record for record in report.records if identity(record.case) in wanted and shown(record))
            found = [each for each in charts_of(replace(report, records=records))[0] if each.key == chart.key]
            if not found:
                continue  # none of them has anything to show here
            part = f"part {number} of {count}"
            svg, spec = _fitted(_with(found[0], titles, part), _CANVASES[suffix], INCHES[suffix] * POINTS)
            said = f"{spec['description']} This is {part}, by mechanism; each has axes and markers of its own."
            drawn.append((svg, spec | {"description": said}))
            if _inches_high(drawn[-1], suffix) > HIGHEST and count < len(every):
                break
        else:
            break
    return drawn


def _with(chart: Chart, titles: Sequence[str], part: str = "") -> Chart:
    """The chart with some of its panels, each under its title and what part it is."""

    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        panels = chart.draw(canvas)
        kept = [panel for panel in panels if panel.title in titles] or panels  # a part of a survey may be at one size
        if len(kept) == len(panels) and not part:
            return panels
        heads = [", ".join(text for text in (panel.title, part) if text) for panel in kept]
        return tuple(
            replace(panel, title=head, view={**panel.view, "title": head}) for panel, head in zip(kept, heads, strict=True)
        )

    return replace(chart, draw=draw)


def _even(length: int, count: int) -> list[slice]:
    """`count` runs of neighbours among `length`, as even as they go; fewer where there are fewer."""
    cuts = [round(i * length / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def _inches_high(drawn: _Drawn, suffix: str) -> float:
    return INCHES[suffix] * _size(drawn[0], "height") / _size(drawn[0], "width")


def _fitted(chart: Chart, canvas: Canvas, wanted: float) -> _Drawn:
    """The svg and spec of a chart with plots that make the whole `wanted` points wide, or are as narrow as they may be."""
    import vl_convert

    for last in (False, False, True):
        spec = together(chart, canvas)
        svg: str = vl_convert.vegalite_to_svg(spec)
        over = _size(svg, "width") - wanted
        width = max(canvas.width - over / min(columns_in(chart.in_row, canvas), len(spec.get("concat", "1"))), _LEAST)
        if last or abs(over) <= 1 or width == canvas.width:
            break
        canvas = replace(canvas, width=width)
    return svg, spec


def _size(svg: str, side: str) -> float:
    found = re.search(rf'<svg[^>]* {side}="([\d.]+)"', svg)
    return float(found.group(1)) if found else math.nan


def _in_inches(svg: str, inches: float) -> str:
    """The same drawing with its physical size, so that a page that includes it needs no scale."""

    def sized(match: re.Match[str]) -> str:
        wide, high = float(match.group(2)), float(match.group(4))
        return f'{match.group(1)}{inches:g}in{match.group(3)}{inches * high / wide:.4g}in"'

    return re.sub(r'(<svg[^>]*? width=")([\d.]+)(" height=")([\d.]+)"', sized, svg, count=1)
