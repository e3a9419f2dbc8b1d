"""How many times the baseline each case costs, as bars: a panel per metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnprof import units
from attnprof.records import Record
from attnprof.report.charts import Chart, Panel, columns_in
from attnprof.report.charts.axes import (
    COLOURS,
    GREY,
    Canvas,
    bare,
    filled,
    log_scale,
    row_axis,
    said_axis,
    text_width,
    ticks,
)
from attnprof.report.charts.data import Bar, bars, base_of, by_size, name_of, series_of, slug, survey
from attnprof.report.charts.scaling import metrics_of
from attnprof.report.metrics import Metric
from attnprof.report.table import Report
from attnprof.report.text import clean

_LESS, _MORE = COLOURS[0], COLOURS[1]
_RATIO_TICKS = 2  # beside that at 1
_SMALL = 0.5  # ratios that are all nearer to 1 than this stand on a plain axis of percent


@dataclass(frozen=True)
class _Axis:
    """The axis of one panel: of the ratio (log), or of the change in percent; its ends and what bars begin at."""

    percent: bool
    ends: tuple[float, float]

    @property
    def begin(self) -> float:
        return 0.0 if self.percent else 1.0


def charts(report: Report, every_size: bool) -> tuple[list[Chart], list[str]]:
    """Ratios to the baseline, a chart per context; cases of a single mechanism are held against the first of them."""
    series = series_of(report.records)
    drawn = []
    for size, blocks in [] if survey(report.records) else by_size(report.records, every_size):
        for title, block in blocks:
            base = base_of(block, report.baseline)
            if base is None or len(block) < 2:
                continue
            found = [(metric, bars(block, base, metric, series)) for metric in metrics_of(report)]
            found = [(metric, each) for metric, each in found if any(bar.ratio.value not in (None, 1.0) for bar in each)]
            if found:
                drawn.append(_deltas(found, base, title, size))
    if drawn:
        return drawn, []
    return [], ["Ratios are not drawn: nothing of one size is there to be held against a baseline that differs from it."]


def _deltas(found: Sequence[tuple[Metric, list[Bar]]], base: Record, title: str, size: str) -> Chart:
    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        side_by_side = columns_in(len(found), canvas)
        named = [canvas.interactive or at % side_by_side == 0 for at in range(len(found))]
        return tuple(
            Panel(metric.head, _bars(each, canvas, name), _said_deltas(each, metric, base, title))
            for (metric, each), name in zip(found, named, strict=True)
        )

    over = "the network alone" if base.case.alone else name_of(base)
    where = "".join(f", {text}" for text in (title, f"at {size}" if size else "") if text)
    caption = (
        f"Cost over {over}{where}: times that of {over} on a log axis, or the change in percent where all changes are small."
        " Blue is less, orange more."
    )
    if any(bar.ratio.low != bar.ratio.high for _, each in found for bar in each):
        caption += " Black lines are 95 % intervals of latency ratios."
    key = f"deltas-{slug(title)}" if title else "deltas"
    return Chart(key, f"Cost over {over}{f', {title}' if title else ''}", caption, draw, size, in_row=len(found))


def _said_deltas(each: Sequence[Bar], metric: Metric, base: Record, title: str) -> str:
    values = [(bar.ratio.value, bar.label) for bar in each if bar.ratio.value is not None]
    where = f" ({title})" if title else ""
    if not values:
        return f"{metric.noun} over {name_of(base)}{where}: no ratios."
    (low, least), (high, most) = min(values), max(values)
    return f"{metric.noun} over {name_of(base)}{where}: from {low:.3g} ({least}) to {high:.3g} ({most})."


def _axis(every: Sequence[Bar]) -> _Axis:
    found = [value for bar in every for value in (bar.ratio.value, bar.ratio.low, bar.ratio.high) if value is not None]
    if all(abs(value - 1) < _SMALL for value in found):
        low, high = 100 * min(*found, 1.0) - 100, 100 * max(*found, 1.0) - 100
        room = 0.05 * (high - low or 1.0)
        return _Axis(True, (low - room * (low < 0), high + room * (high > 0)))
    positive = [value for value in found if value > 0]
    low, high = min(*positive, 1.0), max(*positive, 1.0)
    room = (high / low) ** 0.05
    return _Axis(False, (low / room if low < 1 else low, high * room if high > 1 else high))


def bar_rows(each: Sequence[Bar], axis: _Axis) -> list[dict[str, Any]]:
    """The data of a panel of ratios, a row per bar in the table's order; what has no ratio says why."""
    out = []
    for i, bar in enumerate(each):
        ratio = bar.ratio
        row: dict[str, Any] = {"row": i, "label": bar.label, "begin": axis.begin}
        if ratio.value is None:
            out.append(row | {"at": axis.begin, "text": "-", "said": clean(ratio.reason), "side": "none"})
            continue
        text = _percent(ratio.value) if axis.percent else f"{ratio_said(ratio.value)}x"
        row |= {"ratio": ratio.value, "at": _place(ratio.value, axis), "text": text, "said": text}
        row["side"] = "more" if ratio.value > 1 else "less"
        if ratio.low is not None and ratio.high is not None and ratio.low != ratio.high:
            low, high = ratio.low, ratio.high
            row |= {"low": _place(low, axis), "high": _place(high, axis), "said": f"{text} [{low:.3f}, {high:.3f}]"}
        out.append(row)
    return out


def ratio_said(value: float) -> str:
    """A ratio in three digits; an exponent for the very small and large."""
    if value in (0, 1):
        return f"{value:g}"
    if value < 1e-3 or value >= 1e4:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits}e{int(power)}"
    return units.format_ratio(value)


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    return f"{percent:+.1f} %" if abs(percent) >= 1 else f"{percent:+.2g} %" if percent else "0 %"


def _place(ratio: float, axis: _Axis) -> float:
    return 100 * (ratio - 1) if axis.percent else ratio or axis.begin


def _bars(each: Sequence[Bar], canvas: Canvas, named: bool) -> dict[str, Any]:
    import altair as alt

    axis = _axis(each)
    data = bar_rows(each, axis)
    y = alt.Y("row:O", axis=row_axis([bar.label for bar in each]) if named else None)
    if axis.percent:
        x = alt.X(
            "at:Q",
            scale=alt.Scale(domain=axis.ends, nice=False),
            axis=alt.Axis(title=None, tickCount=3, format="~g", grid=False),
        )
    else:
        found = [value for value in ticks(*axis.ends) if value != 1]
        found = sorted([*found[:: math.ceil(len(found) / _RATIO_TICKS) or 1], 1.0])
        texts = [f"{value:g}" if 1e-3 <= value < 1e4 else ratio_said(value).replace(".0e", "e") for value in found]
        x = alt.X("at:Q", scale=log_scale(axis.ends), axis=said_axis(found, texts, None, grid=False))
    base = alt.Chart(alt.NamedData("bars")).encode(y=y)
    colour = alt.Color("side:N", scale=alt.Scale(domain=["less", "more", "none"], range=[_LESS, _MORE, GREY]), legend=None)
    drawn = base.mark_bar(height=0.62 * canvas.row).encode(x=x, x2=alt.X2("begin:Q"), color=colour)
    if canvas.interactive:
        drawn = drawn.encode(tooltip=[alt.Tooltip("label:N", title="Mechanism"), alt.Tooltip("said:N", title="Over baseline")])
    layers: list[Any] = [drawn]
    if any("low" in row for row in data):
        layers.append(
            base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1).encode(x=alt.X("low:Q"), x2=alt.X2("high:Q"))
        )
    layers.append(alt.Chart(alt.NamedData("begin")).mark_rule(strokeWidth=0.5).encode(x=x))
    room = max(text_width(str(row["text"]), canvas.font) for row in data) + canvas.font
    layers.append(base.mark_text(align="right").encode(x=alt.XValue(canvas.width + room), text=alt.Text("text:N")))
    drawn = bare(alt.layer(*layers, width=canvas.width, height=canvas.row * len(each)))
    return filled(drawn, {"bars": data, "begin": [{"at": axis.begin}]})
