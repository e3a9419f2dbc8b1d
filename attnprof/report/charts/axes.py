"""Axes, looks and the places of names: log scales with ticks in units people read, and names that do not lie on each other."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attnprof import units
from attnprof.report.metrics import Metric

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's palette, without the yellow that cannot be read on white; the first is the ink of the background.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY, DARK = "#8c8c8c", "#1b1b1b"
PALE = ("#CC79A7", "#E69F00", "#56B4E9")  # that dark text is read on
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
_TEXTS = {"bytes": units.format_bytes, "seconds": units.format_seconds}
_FEWEST_TICKS, _MOST_TICKS = 4, 7
_GLYPH = 0.56  # width of a letter in units of the font's size, on average
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


@dataclass(frozen=True)
class Canvas:
    """How large a chart is drawn: of one panel, in px of a page or points of paper.

    width, height: of the plot without axes and names. row: of one name or bar. columns: panels side by side.
    interactive: tooltips, and names that bring out their line. ink, paper, faint: text, background, grid.
    """

    width: float
    height: float
    font: float
    columns: int = 2
    interactive: bool = False
    paper: str = "white"
    ink: str = DARK
    faint: str = "#e4e4e4"
    row: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row", 1.35 * self.font)


def config(canvas: Canvas, font: str = FONT) -> dict[str, Any]:
    """The Vega-Lite config of a canvas: every neutral colour and the palette stand here, none in a chart."""
    title = {"color": canvas.ink, "fontSize": canvas.font, "fontWeight": "normal"}
    axis = {
        "labelColor": canvas.ink, "titleColor": canvas.ink, "titleFontWeight": "normal", "labelFontSize": canvas.font,
        "titleFontSize": canvas.font, "gridColor": canvas.faint, "domainColor": canvas.ink, "tickColor": canvas.ink,
        "tickSize": 3, "labelLimit": 400,
    }  # fmt: skip
    legend = {"labelColor": canvas.ink, "titleColor": canvas.ink, "labelFontSize": canvas.font, "titleFontSize": canvas.font}
    return {
        "font": font,
        "background": canvas.paper,
        "view": {"stroke": None},
        "title": title | {"fontWeight": "bold", "anchor": "start", "frame": "group", "offset": 6},
        "axis": axis,
        "legend": legend | {"titleFontWeight": "normal", "labelLimit": 300},
        "text": {"color": canvas.ink, "fontSize": canvas.font},
        "rule": {"color": canvas.ink},
        "line": {"color": canvas.ink},
        "bar": {"stroke": canvas.paper, "strokeWidth": 0.4},
        "range": {"category": [canvas.ink, *COLOURS]},
    }


def bare(drawn: alt.LayerChart | alt.FacetChart) -> dict[str, Any]:
    """An altair chart of layers as a Vega-Lite view: without config, and with no data but their names."""
    found: dict[str, Any] = drawn.to_dict(validate=False)
    return {key: value for key, value in found.items() if key not in ("$schema", "config")}


def filled(view: Mapping[str, Any], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """A view of layers with the rows that its names of data stand for.

    altair never sees rows: it would copy, walk and hash them at every step. What is left of a name is a hash of its rows, so
    that views stand beside each other in a figure.
    """
    names = {name: f"data-{hashlib.sha256(json.dumps(each).encode()).hexdigest()[:32]}" for name, each in rows.items()}

    def renamed(part: Mapping[str, Any]) -> dict[str, Any]:
        return {**part, "data": {"name": names[part["data"]["name"]]}} if "data" in part else dict(part)

    layers = [renamed(layer) for layer in view["layer"]]
    return {**renamed(view), "layer": layers, "datasets": {names[name]: list(each) for name, each in rows.items()}}


def colour_scale(count: int) -> alt.Scale:
    """Series 0 to count - 1, coloured by the config's palette, over and over."""
    import altair as alt

    return alt.Scale(domain=list(range(count)))


def shape_scale(count: int) -> alt.Scale:
    """Series 0 to count - 1 with a marker each: colour and marker together are unlike for 49 series."""
    import altair as alt

    round_of = len(COLOURS) + 1
    shapes = [_SHAPES[(number + number // round_of) % len(_SHAPES)] for number in range(count)]
    return alt.Scale(domain=list(range(count)), range=shapes)


def value_text(value: float, metric: Metric) -> str:
    """A value with its unit: '2.13 GiB', '8.27 G'; a tick's text as well."""
    if value == 0:
        return "0"
    if metric.kind in _TEXTS:
        return _TEXTS[metric.kind](value)
    if metric.kind in ("count", "operations"):
        return units.format_count(value)
    return f"{value:.4g}{' ' + metric.unit if metric.unit != '1' else ''}"


def tick_text(value: float, metric: Metric) -> str:
    """`value_text` without zeros that say nothing: '1 MiB', '200 us', '10 G'."""
    number, space, unit = value_text(value, metric).partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return number + space + unit


def padded(values: Iterable[float], factor: float = 1.12) -> tuple[float, float]:
    """The ends of a log axis that holds all values, with some room; never of no length."""
    found = list(values)
    low, high = min(found), max(found)
    if high / low < 1.5:
        middle = math.sqrt(low * high)
        low, high = min(low, middle / 1.4), max(high, middle * 1.4)
    room = max(factor, (high / low) ** 0.04)
    return low / room, high * room


def ticks(low: float, high: float, binary: bool = False) -> list[float]:
    """Round values between the ends of a log axis, few enough to read; powers of two where `binary`."""
    found: list[float] = []
    for candidate in _candidates(low, high, binary):
        found = [value for value in candidate if low <= value <= high]
        if len(found) >= _FEWEST_TICKS:
            break
    stride = math.ceil(len(found) / _MOST_TICKS)
    return found[::stride] if stride else found


def _candidates(low: float, high: float, binary: bool) -> Iterable[list[float]]:
    """Ever finer sets of round values that reach over both ends."""
    if binary:
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        for step in (10, 5, 4, 3, 2, 1):
            yield [2.0**power for power in range(first, last + 1) if power % step == 0]
        yield [factor * 2.0**power for power in range(first - 1, last + 1) for factor in (1, 1.25, 1.5, 1.75)]
        return
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for step in (3, 2, 1):
        yield [10.0**power for power in range(first, last + 1) if power % step == 0]
    for factors in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)):
        yield [factor * 10.0**power for power in range(first - 1, last + 1) for factor in factors]


def said_axis(values: Sequence[float], texts: Sequence[str], title: str | None, **more: Any) -> alt.Axis:
    """An axis with exactly these ticks, each with its own text."""
    import altair as alt

    expression = f"{json.dumps(list(texts))}[indexof({json.dumps(list(values))}, datum.value)]"
    return alt.Axis(values=list(values), labelExpr=expression, title=title, **more)


def row_axis(names: Sequence[str]) -> alt.Axis:
    """An axis of rows 0, 1, ... with their names, for bars."""
    numbers = list(range(len(names)))
    return said_axis(numbers, names, None, domain=False, ticks=False, labelPadding=4, labelOverlap=False)


def metric_axis(metric: Metric, ends: tuple[float, float], zero_at: float | None = None, **more: Any) -> alt.Axis:
    """A log axis of a metric in its units; `zero_at` is where what is 0 is drawn, beside the scale."""
    found = ticks(*ends, binary=metric.kind == "bytes")
    values, texts = list(found), [tick_text(value, metric) for value in found]
    if zero_at is not None:
        values, texts = [zero_at, *values], ["0", *texts]
    return said_axis(values, texts, metric.noun[0].upper() + metric.noun[1:], **more)


def log_scale(ends: tuple[float, float]) -> alt.Scale:
    """A log scale from end to end."""
    import altair as alt

    return alt.Scale(type="log", domain=list(ends), nice=False)


def position(value: float, ends: tuple[float, float], length: float) -> float:
    """Where a value stands on a log axis of `length`, from its low end."""
    return length * math.log(value / ends[0]) / math.log(ends[1] / ends[0])


def value_at(place: float, ends: tuple[float, float], length: float) -> float:
    """The inverse of `position`."""
    return ends[0] * math.exp(place / length * math.log(ends[1] / ends[0]))


def spread(wanted: Sequence[float], gap: float, length: float) -> list[float]:
    """Places at least `gap` apart within [0, length], in the order of `wanted` and as near to it as squares can tell.

    Neighbours that would be too close stand together around the mean of what they want. What has no room runs over the end.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # (sum of wanted place - gap * rank, members): their means must ascend
    for rank, i in enumerate(order):
        groups.append((wanted[i] - gap * rank, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1] = (groups[-1][0] + total, groups[-1][1] + count)
    last = max(length - gap * (len(wanted) - 1), 0.0)
    starts = [min(max(total / count, 0.0), last) for total, count in groups for _ in range(count)]
    out = [0.0] * len(wanted)
    for rank, (i, start) in enumerate(zip(order, starts, strict=True)):
        out[i] = start + gap * rank
    return out


def text_width(text: str, font: float) -> float:
    """About how wide a text is drawn."""
    return _GLYPH * font * len(text)


Place = tuple[str, float, float]  # align, dx, dy


def placed(
    points: Sequence[tuple[float, float]], texts: Sequence[str], size: tuple[float, float], font: float, first: Sequence[int]
) -> Mapping[int, Place]:
    """Where the names of points go, in px from their point, without lying on a name, a point or the line of those named first.

    `first` says whose names come first, in the order in which steps join them; a name without room is left out. y grows down.
    """
    boxes = [(x - font / 2, y - font / 2, x + font / 2, y + font / 2) for x, y in points]
    for i, k in pairwise(first):
        (left, up), (right, down) = points[i], points[k]
        boxes += [(left, up - 1, right, up + 1), (right - 1, min(up, down), right + 1, max(up, down))]
    found: dict[int, Place] = {}
    for i in [*first, *(i for i in range(len(points)) if i not in first)]:
        wide, (x, y) = text_width(texts[i], font), points[i]
        for align, dx, dy in _places(font):
            left = x + dx - {"left": 0.0, "right": wide, "center": wide / 2}[align]
            box = (left, y + dy - font / 2, left + wide, y + dy + font / 2)
            inside = box[0] >= 0 and box[2] <= size[0] and box[1] >= -font and box[3] <= size[1]
            others = (other for k, other in enumerate(boxes) if k != i)
            if inside and not any(_meet(box, other) for other in others):
                found[i] = (align, dx, dy)
                boxes.append(box)
                break
    return found


def _places(font: float) -> list[Place]:
    """The sides of a point, the best first: right, left, above, below, the corners."""
    side, corner = 0.75 * font, 0.6 * font
    straight: list[Place] = [
        ("left", side, 0.0),
        ("right", -side, 0.0),
        ("center", 0.0, -1.1 * font),
        ("center", 0.0, 1.1 * font),
    ]
    return straight + [(align, sign * corner, up * font) for up in (-1.1, 1.1) for align, sign in (("left", 1), ("right", -1))]


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
