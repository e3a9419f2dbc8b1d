"""Cost against cost at one size: every case a point, and the Pareto front of those that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnprof.report.charts import Chart, Panel
from attnprof.report.charts.axes import (
    Canvas,
    bare,
    colour_scale,
    filled,
    log_scale,
    metric_axis,
    padded,
    placed,
    position,
    shape_scale,
    value_text,
)
from attnprof.report.charts.data import Spot, by_device, by_size, series_of, spots, survey
from attnprof.report.charts.scaling import metrics_of
from attnprof.report.devices import tied
from attnprof.report.metrics import METRICS, Metric
from attnprof.report.table import Report

_PAIRS = (("macs", "peak_memory"), ("latency", "peak_memory"), ("macs", "latency"))
_FEWEST = 3  # a front of two points says no more than the table


@dataclass(frozen=True)
class _Frame:
    """What the panels of one chart share: metrics, ends of the axes and where a zero is drawn."""

    x: Metric
    y: Metric
    canvas: Canvas
    series: int
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    x_zero: float | None
    y_zero: float | None


def charts(report: Report, every_size: bool) -> tuple[list[Chart], list[str]]:
    """A chart for each pair of metrics, at the largest size of each context or at every one."""
    series = series_of(report.records)
    shown = [] if survey(report.records) else metrics_of(report)
    drawn: list[Chart] = []
    for names in _PAIRS:
        x, y = (METRICS[name] for name in names)
        if x in shown and y in shown:
            for size, blocks in by_size(report.records, every_size):
                found = [(title, spots(block, x, y, series)) for title, block in by_device(blocks, (x, y), report.letters)]
                found = [(title, each) for title, each in found if len(each) >= _FEWEST]
                if found:
                    apart = bool(report.letters) and (tied(x.key) or tied(y.key))
                    drawn.append(_chart(x, y, found, len(series), size, apart))
    if drawn:
        return drawn, []
    return [], [f"Cost against cost is not drawn: no {_FEWEST} cases of one size have two of MACs, peak memory and latency."]


def _chart(x: Metric, y: Metric, found: Sequence[tuple[str, list[Spot]]], series: int, size: str, apart: bool) -> Chart:
    every = [spot for _, each in found for spot in each]
    across, x_zero = _ends([value for spot in every for value in (spot.x.value, spot.x.low, spot.x.high)])
    up, y_zero = _ends([value for spot in every for value in (spot.y.value, spot.y.low, spot.y.high)])

    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        frame = _Frame(x, y, canvas, series, across, up, x_zero, y_zero)
        return tuple(Panel(title, *_panel(each, frame, title)) for title, each in found)

    caption = (
        f"{x.noun[0].upper()}{x.noun[1:]} against {y.noun}{f' at {size}' if size else ''}, both axes logarithmic. Filled"
        " markers on the line are the Pareto front: nothing else has less of one and no more of the other. Names that have no"
        " room are left out; a mechanism's marker is the same in all figures."
    )
    if any(not spot.ranked for spot in every):
        caption += " The network alone and counts that leave something out are shown, not ranked."
    if x_zero is not None or y_zero is not None:
        caption += " What is 0 stands at the mark 0, outside of the log scale."
    if apart:
        caption += " Each device has a front of its own: what another one measured does not compare."
    if any(spot.x.low is not None or spot.y.low is not None for spot in every):
        caption += " Intervals of timings are not drawn: the front is that of the medians."
    key = f"{x.key}-{y.key}".replace("_", "-")
    return Chart(key, caption.partition(",")[0].partition(" at ")[0], caption, draw, size)


def _ends(values: Sequence[float | None]) -> tuple[tuple[float, float], float | None]:
    """Ends of an axis for these values, and where zeros stand on it (None without one)."""
    found = [value for value in values if value is not None]
    positive = [value for value in found if value > 0] or [1.0]
    low, high = padded(positive, 1.25)
    if all(value > 0 for value in found):
        return (low, high), None
    room = (high / low) ** 0.08
    return (low / room**1.6, high), low / room


def _panel(found: Sequence[Spot], frame: _Frame, title: str) -> tuple[dict[str, Any], str]:
    import altair as alt

    canvas, size = frame.canvas, (frame.canvas.width, frame.canvas.height)
    data = rows_of(found, frame.x, frame.y)
    for row in data:
        row |= {"at_x": row["x"] or frame.x_zero, "at_y": row["y"] or frame.y_zero}
    points = [
        (position(row["at_x"], frame.x_ends, size[0]), size[1] - position(row["at_y"], frame.y_ends, size[1])) for row in data
    ]
    best = sorted((i for i, spot in enumerate(found) if spot.on_front), key=lambda i: (found[i].x.value, found[i].y.value))
    places = placed(points, [spot.label for spot in found], size, canvas.font, best)
    grid = {"gridOpacity": 0.7}
    x = alt.X("at_x:Q", scale=log_scale(frame.x_ends), axis=metric_axis(frame.x, frame.x_ends, frame.x_zero, **grid))
    y = alt.Y("at_y:Q", scale=log_scale(frame.y_ends), axis=metric_axis(frame.y, frame.y_ends, frame.y_zero, **grid))
    base = alt.Chart(alt.NamedData("cases")).encode(x=x, y=y)
    marks = base.encode(
        color=alt.Color("series:N", scale=colour_scale(frame.series), legend=None),
        shape=alt.Shape("series:N", scale=shape_scale(frame.series), legend=None),
    )
    if canvas.interactive:
        fields = (("label", "Mechanism"), ("said_x", frame.x.head), ("said_y", frame.y.head), ("front", "Pareto front"))
        marks = marks.encode(tooltip=[alt.Tooltip(f"{field}:N", title=head) for field, head in fields])
    front = base.transform_filter("datum.front == 'yes'")
    layers: list[Any] = [
        front.mark_line(interpolate="step-after", strokeWidth=1, strokeDash=[4, 2]).encode(order=alt.Order("at_x:Q")),
        marks.transform_filter("datum.front != 'yes'").mark_point(size=3 * canvas.font, strokeWidth=1, opacity=1),
        marks.transform_filter("datum.front == 'yes'").mark_point(filled=True, size=5 * canvas.font, opacity=1),
    ]
    named = [data[i] | {"align": align, "dx": dx, "dy": dy} for i, (align, dx, dy) in places.items()]
    rows = {"cases": data}
    for align, dx, dy in sorted({(row["align"], row["dx"], row["dy"]) for row in named}):
        group = f"named {len(rows)}"
        rows[group] = [row for row in named if (row["align"], row["dx"], row["dy"]) == (align, dx, dy)]
        text = alt.Chart(alt.NamedData(group)).mark_text(align=align, dx=dx, dy=dy, baseline="middle")
        layers.append(text.encode(x=x, y=y, text=alt.Text("label:N")))
    names = ", ".join(found[i].label for i in best)
    where = f" ({title})" if title else ""
    said = f"{frame.x.noun} against {frame.y.noun}{where}: {len(found)} cases; on the Pareto front: {names or 'none'}."
    return filled(bare(alt.layer(*layers, width=size[0], height=size[1])), rows), said


def rows_of(found: Sequence[Spot], x: Metric, y: Metric) -> list[dict[str, Any]]:
    """The data of a panel: one row per case, values in base units."""
    return [
        {
            "series": spot.series,
            "label": spot.label,
            "x": spot.x.value,
            "y": spot.y.value,
            "said_x": value_text(spot.x.value, x),
            "said_y": value_text(spot.y.value, y),
            "front": "yes" if spot.on_front else "no" if spot.ranked else "not ranked",
        }
        for spot in found
    ]
