"""Cost against size on two log axes: a line per series, its exponent and its closed form's order beside its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnprof.report.charts import Chart, Panel
from attnprof.report.charts.axes import (
    Canvas,
    bare,
    colour_scale,
    filled,
    log_scale,
    metric_axis,
    padded,
    position,
    said_axis,
    shape_scale,
    spread,
    text_width,
    value_at,
    value_text,
)
from attnprof.report.charts.data import Context, Line, contexts, lines, name_of, series_of, size_text
from attnprof.report.charts.exponents import LEAST_SIZES, exponent, exponent_text, few_for, short_exponent
from attnprof.report.devices import tied
from attnprof.report.metrics import METRICS, Metric
from attnprof.report.table import Report

if TYPE_CHECKING:
    import altair as alt

_LEADER = 0.14  # of the plot's width, between the last size and the names
_MOST_NAMED = 6
_CHANGES = 0.005  # exponents below that are those of a cost that does not change with the size


@dataclass(frozen=True)
class _Frame:
    """What the panels of one chart share."""

    metric: Metric
    canvas: Canvas
    series: int
    y_ends: tuple[float, float]


def charts(report: Report, _every_size: bool) -> tuple[list[Chart], list[str]]:
    """A chart for every metric of the report that changes with the size."""
    series = series_of(report.records)
    groups = contexts(report.records)
    drawn: list[Chart] = []
    constant: list[str] = []
    for metric in metrics_of(report):
        found = [(context, lines(context, metric, series)) for context in groups]
        found = [(context, rows) for context, rows in found if any(exponent(line.points) is not None for line in rows)]
        slopes = [exponent(line.points) for _, rows in found for line in rows]
        fitted = [slope for slope in slopes if slope is not None]
        if sum(abs(slope) >= _CHANGES for slope in fitted) * 2 > len(fitted):
            drawn.append(_chart(metric, found, len(series)))
        elif fitted:
            constant.append(metric.noun)
    if not drawn and not constant:
        return [], ["Cost against size is not drawn: no mechanism has a value at two sizes."]
    return drawn, [f"Not drawn against size, since most do not change with it: {', '.join(constant)}."] if constant else []


def metrics_of(report: Report) -> list[Metric]:
    """The metrics that the report's tables show, in their order."""
    kinds = ("value", "delta", "ratio")
    keys = dict.fromkeys(column.key for table in report.tables for column in table.columns if column.kind in kinds)
    return [METRICS[key] for key in keys if key in METRICS]


def _chart(metric: Metric, found: Sequence[tuple[Context, list[Line]]], series: int) -> Chart:
    readings = [point.reading for _, rows in found for line in rows for point in line.points]
    values = [value for one in readings for value in (one.value, one.low, one.high) if value is not None and value > 0]
    y_ends = padded(values)

    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        frame = _Frame(metric, canvas, series, y_ends)
        return tuple(Panel(context.title, _panel(rows, frame), _said(context, rows, metric)) for context, rows in found)

    every = [line for _, rows in found for line in rows]
    caption = f"{metric.noun[0].upper()}{metric.noun[1:]} against the size of the input, both axes logarithmic."
    if any(line.exponent is not None for line in every):
        caption += " Beside each name: the exponent p of cost ~ N^p, N = H*W, fitted by least squares over the sizes shown"
        caption += ", → the power of N in the order of the closed form." if any(line.order for line in every) else "."
    if any(line.ends for line in every):
        caption += " [low, high] beside an exponent: what the ends of the readings' intervals allow."
    if any(few_for(metric, line.points) for line in every):
        caption += f" No exponent is given below {LEAST_SIZES} sizes: nothing would tell noise from growth."
    if any(one.low is not None for one in readings):
        caption += " Bands are 95 % intervals."
    if tied(metric.key) and any(context.letters for context, _ in found):
        caption += " What several devices measured is a line for each, with the device's letter, fitted alone."
    caption += "".join(_left_out(context, metric, len(found) > 1) for context, _ in found)
    return Chart(
        metric.key.replace("_", "-"),
        caption.partition(",")[0],
        caption,
        draw,
        facts=_facts(found, metric),
        facts_head="The exponents",
    )


def _left_out(context: Context, metric: Metric, several: bool) -> str:
    """' Not drawn (training): simam 0 at every size; a 97x97 oom.'"""
    zero: dict[str, None] = {}
    missing: dict[str, list[str]] = {}
    for record in context.records:
        reading = metric.read(record)
        if reading is None:
            why = record.status if record.status != "ok" else "no value"
            missing.setdefault(f"{name_of(record)} {why} at", []).append(size_text(record.case))
        elif reading.value <= 0:
            zero[name_of(record)] = None
    texts = [f"{who} {', '.join(sizes)}" for who, sizes in missing.items()] + [f"{who} (0)" for who in zero]
    if not texts:
        return ""
    rest = f"; and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return f" Not drawn{f' ({context.title})' if several and context.title else ''}: {'; '.join(texts[:_MOST_NAMED])}{rest}."


def _facts(found: Sequence[tuple[Context, list[Line]]], metric: Metric) -> tuple[tuple[str, ...], ...]:
    """Head and rows: context, mechanism, exponent, sizes, order of the closed form; the steepest first in each context."""
    rows = []
    for context, each in found:
        for line in sorted(each, key=lambda one: -(one.exponent or 0.0)):
            sizes = f"{line.points[0].size} to {line.points[-1].size}" if len(line.points) > 1 else line.points[0].size
            rows.append((context.title or metric.head, line.label, exponent_text(line, metric), sizes, line.order or "-"))
    return (("Where", "Mechanism", "Exponent", "Sizes", "Closed form"), *rows)


def _said(context: Context, rows: Sequence[Line], metric: Metric) -> str:
    where = f" ({context.title})" if context.title else ""
    text = f"{metric.noun} against input size{where}: {len({line.series for line in rows})} mechanisms"
    fitted = [line for line in rows if line.exponent is not None]
    if not fitted:
        return f"{text}; no exponent below {LEAST_SIZES} sizes."
    steepest = max(fitted, key=lambda line: line.exponent or 0.0)
    return f"{text}; the steepest is {steepest.label} with exponent {short_exponent(steepest, metric)}."


def name_text(line: Line, metric: Metric) -> str:
    """'nonlocal 1.95 → 2': the label, the fitted exponent, the power of N in the closed form's order."""
    if line.exponent is None:
        return line.label
    return f"{line.label}  {short_exponent(line, metric)}" + (f" → {line.power}" if line.power else "")


def point_rows(rows: Sequence[Line], metric: Metric) -> list[dict[str, Any]]:
    """The data of a panel: one row per reading, values in base units."""
    out = []
    for number, line in enumerate(rows):
        more = {"line": number, "exponent": exponent_text(line, metric), "order": line.order or "-"}
        for point in line.points:
            reading = point.reading
            entry: dict[str, Any] = {
                "series": line.series,
                "label": line.label,
                "n": point.n,
                "size": point.size,
                "value": reading.value,
                "said": value_text(reading.value, metric),
                **more,
            }
            if reading.low and reading.high:
                said = f"{value_text(reading.low, metric)} to {value_text(reading.high, metric)}"
                entry |= {"low": reading.low, "high": reading.high, "interval": said}
            out.append(entry)
    return out


def _panel(rows: Sequence[Line], frame: _Frame) -> dict[str, Any]:
    import altair as alt

    canvas = frame.canvas
    height = max(canvas.height, canvas.row * len(rows))
    first, last = min(line.points[0].n for line in rows), max(line.points[-1].n for line in rows)
    x_ends = (first / 1.06, last * (last / first) ** (_LEADER / (1 - _LEADER)))
    data = point_rows(rows, frame.metric)
    hover = alt.selection_point(fields=["series"], on="pointerover", clear="pointerout", empty=True)
    fixed = alt.OpacityValue(1.0)
    clear = (
        alt.OpacityValue(0.12, condition={"param": hover.name, "empty": True, "value": 1.0}) if canvas.interactive else fixed
    )
    colour = alt.Color("series:N", scale=colour_scale(frame.series), legend=None)
    shape = alt.Shape("series:N", scale=shape_scale(frame.series), legend=None)
    sizes = _size_axis(rows, x_ends, canvas)
    x = alt.X("n:Q", scale=log_scale(x_ends), axis=sizes)
    y = alt.Y("value:Q", scale=log_scale(frame.y_ends), axis=metric_axis(frame.metric, frame.y_ends, gridOpacity=0.7))
    base = alt.Chart(alt.NamedData("points")).encode(x=x, color=colour, opacity=clear)
    detail = alt.Detail("line:N")
    layers: list[Any] = []
    if any("low" in row for row in data):
        band = base.transform_filter("isValid(datum.low)").mark_area(fillOpacity=0.18, strokeOpacity=0)
        layers.append(band.encode(y=alt.Y("low:Q"), y2=alt.Y2("high:Q"), detail=detail))
    layers.append(base.mark_line(strokeWidth=1.3).encode(y=y, detail=detail))
    dots = base.mark_point(filled=True, size=2.6 * canvas.font).encode(y=y, shape=shape)
    layers.append(dots.encode(tooltip=_tooltip(data, frame.metric)) if canvas.interactive else dots)
    names = _names(rows, frame, height, x_ends)
    layers += _named({"x": x, "y": y, "color": colour, "shape": shape, "opacity": clear}, canvas)
    if canvas.interactive:
        layers[0] = layers[0].add_params(hover)
    return filled(bare(alt.layer(*layers, width=canvas.width, height=height)), {"points": data, "names": names})


def _tooltip(data: Sequence[dict[str, Any]], metric: Metric) -> list[alt.Tooltip]:
    import altair as alt

    fields = [
        ("label", "Mechanism"),
        ("size", "Size"),
        ("said", metric.head),
        ("exponent", "Exponent"),
        ("order", "Closed form"),
    ]
    if any("interval" in row for row in data):
        fields.insert(3, ("interval", "95 % interval"))
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in fields]


def _size_axis(rows: Sequence[Line], x_ends: tuple[float, float], canvas: Canvas) -> alt.Axis:
    """Ticks at the sizes themselves, as many as have room, the largest always among them."""
    sizes = {point.n: point.size for line in rows for point in line.points}
    shown: list[int] = []
    free = float("inf")
    for n in sorted(sizes, reverse=True):
        place, half = position(n, x_ends, canvas.width), text_width(sizes[n], canvas.font) / 2 + 2
        if place + half <= free:
            shown.append(n)
            free = place - half
    return said_axis(shown, [sizes[n] for n in shown], "Input size", grid=False)


def _names(rows: Sequence[Line], frame: _Frame, height: float, x_ends: tuple[float, float]) -> list[dict[str, Any]]:
    """The data of the names: where each line ends, and where its name stands on the right side, none on another."""
    canvas, ends = frame.canvas, frame.y_ends
    wanted = [position(line.points[-1].reading.value, ends, height) for line in rows]
    return [
        {
            "series": line.series,
            "name": name_text(line, frame.metric),
            "last_n": line.points[-1].n,
            "last": line.points[-1].reading.value,
            "n": x_ends[1],
            "value": value_at(place, ends, height),
        }
        for line, place in zip(rows, spread(wanted, canvas.row, height), strict=True)
    ]


def _named(encode: Mapping[str, Any], canvas: Canvas) -> list[alt.Chart]:
    """Leaders from the last points to the right side, a marker there, and the names."""
    import altair as alt

    base = alt.Chart(alt.NamedData("names")).encode(**{key: encode[key] for key in ("x", "y", "opacity")})
    leader = base.mark_rule(strokeWidth=0.5, strokeDash=[2, 2])
    ends = {"x2": alt.X2("last_n:Q"), "y2": alt.Y2("last:Q"), "color": encode["color"]}
    marker = base.mark_point(filled=True, size=2.6 * canvas.font).encode(color=encode["color"], shape=encode["shape"])
    text = base.mark_text(align="left", dx=0.6 * canvas.font).encode(text=alt.Text("name:N"))
    return [leader.encode(**ends), marker, text]
