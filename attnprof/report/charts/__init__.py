"""Charts of a report: cost against size and cost, ratios to the baseline, who holds the peak, memory over the pass.

    charts_of(report) -> (charts, reasons)    every chart that has data, and why another one has none
    panels_of(chart, canvas) -> panels          Vega-Lite views made by altair, one per context (mode, dtype, ...)
    together(chart, canvas) -> dict             all panels as one Vega-Lite spec, for a figure; spec_of: one of them, for a page

altair is imported where a chart is drawn, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprof.errors import UsageError
from attnprof.report.charts.axes import FONT, Canvas, config

if TYPE_CHECKING:
    from attnprof.report.table import Report

__all__ = ["Canvas", "Chart", "Panel", "charts_of", "panels_of", "together"]


@dataclass(frozen=True)
class Panel:
    """One view: Vega-Lite with its rows, without config; what it is called beside other panels; what it shows, in words."""

    title: str
    view: Mapping[str, Any]
    said: str


@dataclass(frozen=True)
class Chart:
    """One figure: `key` names its files, `size` is the map's where it shows one of several ('' for all of them).

    `facts` is what the chart says in numbers: a head and rows of text (the exponents of lines); () where a table has them.
    `choice` is what charts of one key differ in, `foot` stands under a figure.
    """

    key: str
    title: str
    caption: str
    draw: Callable[[Canvas], tuple[Panel, ...]]
    size: str = ""
    facts: tuple[tuple[str, ...], ...] = ()
    in_row: int = 0  # panels that belong side by side; 0: as many as the canvas has columns
    choice: str = "Size"
    facts_head: str = "As a table"
    foot: str = ""


def charts_of(report: Report, every_size: bool = False) -> tuple[list[Chart], list[str]]:
    """The charts, and a sentence for each kind that has no data. What shows one size shows the largest, or `every_size`."""
    from attnprof.report.charts import fronts, holders, passes, ratios, scaling

    charts: list[Chart] = []
    reasons: list[str] = []
    for kind in (scaling.charts, fronts.charts, ratios.charts, holders.charts, passes.charts):
        found, missing = kind(report, every_size)
        charts += found
        reasons += missing
    return charts, reasons


def panels_of(chart: Chart, canvas: Canvas) -> tuple[Panel, ...]:
    """The chart's panels. Raises UsageError where altair is not installed.

    altair holds every part that it makes against Vega-Lite's schema, which takes most of the time and can find nothing that
    depends on the records: of them a chart has numbers and text. `chart.draw` does so; the tests hold whole specs against it.
    """
    with _altair().utils.schemapi.debug_mode(False):
        return chart.draw(canvas)


def spec_of(panel: Panel, canvas: Canvas, font: str) -> dict[str, Any]:
    """One panel as Vega-Lite, with its config."""
    return _spec({**panel.view, "description": panel.said}, canvas, font)


def columns_in(in_row: int, canvas: Canvas) -> int:
    """How many panels stand side by side where `in_row` belong together: small ones, of which a column takes two."""
    if not in_row:
        return canvas.columns
    return in_row if in_row <= 2 * canvas.columns + 1 else 2 * canvas.columns


def together(chart: Chart, canvas: Canvas) -> dict[str, Any]:
    """All panels of a chart as one Vega-Lite spec, each under its title where there are several; for canvases of paper."""
    panels = panels_of(chart, canvas)
    drawn = dict(panels[0].view)
    if len(panels) > 1:
        views = [{**panel.view, "title": panel.title} if panel.title else dict(panel.view) for panel in panels]
        datasets = {name: rows for view in views for name, rows in view.pop("datasets").items()}
        columns = columns_in(chart.in_row, canvas)
        drawn = {"concat": views, "columns": columns, "spacing": 1.5 * canvas.font, "datasets": datasets}
    if chart.foot:
        drawn["title"] = {"text": chart.foot, "orient": "bottom", "fontWeight": "normal", "fontSize": canvas.font}
    return _spec({**drawn, "description": " ".join(panel.said for panel in panels)}, canvas)


def _spec(drawn: Mapping[str, Any], canvas: Canvas, font: str = FONT) -> dict[str, Any]:
    return {"$schema": _altair().SCHEMA_URL, "config": config(canvas, font), **drawn, "padding": 2}


def _altair() -> Any:
    try:
        import altair as alt
    except ImportError as error:
        raise UsageError("charts need Altair: pip install 'attnprof[plots]'.") from error
    return alt
