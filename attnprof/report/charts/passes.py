"""Live memory over the pass of a case, as a record keeps it: forward and backward, the peak, and who holds it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attnprof import units
from attnprof.records import Moment, Record
from attnprof.report.blocks import distinctions
from attnprof.report.charts import Chart, Panel
from attnprof.report.charts.axes import COLOURS, GREY, Canvas, bare, filled, text_width
from attnprof.report.charts.data import by_size, name_of, shares, survey
from attnprof.report.table import Report
from attnprof.report.text import clean, clip

if TYPE_CHECKING:
    import altair as alt

MOST_ON_PAGE = 200  # cases to choose from: what a page may grow by stays bounded
MOST_IN_FIGURE = 6
_MOST_NAMED = 3  # ops beside the peak
_LEAST = 0.005  # of the peak: what would read as 0 % is not named
_MOST_HELD = 8  # rows of the table under a chart
_NAME = 26  # characters of an op beside the peak
_ROOM = 60  # characters of a submodule in a tooltip
_MARGIN = 0.01  # of the width, beside the text at the peak
_LINE = 1.25  # height of a line of text in units of the font's size
_COLOURS = {"forward": COLOURS[0], "backward": COLOURS[1]}


def charts(report: Report, every_size: bool) -> tuple[list[Chart], list[str]]:
    """A chart per case that has a timeline, the highest peak first, to choose from; without `every_size` a few of the largest
    size beside each other. A sentence where no record has one.
    """
    found = [record for record in report.records if record.moments]
    if not found:
        why = "no record holds a timeline. `run --fresh` gives one to every case that it can trace."
        return [], [f"Memory over the pass is not drawn: {why}"]
    names = dict(zip(map(id, found), _names(found), strict=True))
    if not every_size and not survey(found):
        found = [record for _, blocks in by_size(found, every_size) for _, block in blocks for record in block]
    ranked = sorted(found, key=lambda record: -_peak(record).bytes)
    most = MOST_ON_PAGE if every_size else MOST_IN_FIGURE
    shown, left_out = ranked[:most], len(report.records) - len(ranked[:most])
    foot = f"{left_out} of {len(report.records)} cases are not drawn" if left_out else ""
    if not every_size:
        return [_beside([(record, names[id(record)]) for record in shown], foot)], []
    without = sum(1 for record in report.records if record.counts is not None and not record.moments)
    said = [f"Memory over the pass: {without} {'case holds' if without == 1 else 'cases hold'} no timeline."] if without else []
    if len(ranked) > most:
        said.append(f"Memory over the pass: of {len(ranked)} cases, the {most} with the highest peaks are drawn.")
    return [_one(record, names[id(record)]) for record in shown], said


def _names(found: Sequence[Record]) -> list[str]:
    """'nonlocal, 97x97, training': the label and what tells the cases apart."""
    apart = distinctions([record.case for record in found])
    return [", ".join(text for text in (name_of(record), more) if text) for record, more in zip(found, apart, strict=True)]


def _one(record: Record, name: str) -> Chart:
    peak = _peak(record)
    return Chart(
        "timeline",
        "Memory over the pass",
        _caption(record),
        lambda canvas: (Panel("", _drawn(record, canvas), _said(record, name)),),
        f"{name}: {units.format_bytes(peak.bytes)}",
        _facts(record),
        choice="Case",
        facts_head="Who holds the peak",
    )


def _beside(found: Sequence[tuple[Record, str]], foot: str) -> Chart:
    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        return tuple(Panel(name, _drawn(record, canvas), _said(record, name)) for record, name in found)

    caption = f"Live bytes above parameters, buffers and inputs over the pass{f'; {foot}' if foot else ''}."
    return Chart("timeline", "Memory over the pass", caption, draw, foot=foot)


def _peak(record: Record) -> Moment:
    return max(record.moments, key=lambda moment: moment.bytes)  # the first of the highest, as the trace takes it


def _caption(record: Record) -> str:
    assert record.memory_timeline is not None
    assert record.counts is not None
    events, shown = record.memory_timeline.events, len(record.moments)
    text = (
        f"Bytes above parameters, buffers and inputs that are alive after each of the {events:,} events of the pass: at an"
        " event a tensor's storage is made or let go."
    )
    if shown < events:
        text += f" Each of the {shown} bars is the highest of its stretch, so that the peak is among them."
    if record.counts.traced_by == "real":
        text += " The pass was run on data, since it depends on them."
    elif record.counts.assumed:
        text += f" What depends on data was assumed ({clean(', '.join(record.counts.assumed))})."
    return text


def _said(record: Record, name: str) -> str:
    peak = _peak(record)
    return (
        f"Live memory over the pass, {name}: the peak is {units.format_bytes(peak.bytes)}, at {_place(peak)}"
        f" ({clean(peak.phase)}); held by {', '.join(_held(record))}."
    )


def _place(moment: Moment) -> str:
    """'bmm in head.query'."""
    return clean(moment.op) + (f" in {clip(clean(moment.module), _ROOM)}" if moment.module else "")


def _held(record: Record) -> list[str]:
    """['bmm 48 %', ...]: the ops that made most of what is alive at the peak."""
    whole = max(_peak(record).bytes, 1)
    every = [share for share in shares(record) if share.bytes >= _LEAST * whole]
    shown = every if len(every) <= _MOST_NAMED + 1 else every[:_MOST_NAMED]
    rows = [(clip(share.op, _NAME), share.bytes) for share in shown]
    if len(shown) < len(every):
        rows.append((f"{len(every) - len(shown)} other ops", sum(share.bytes for share in every[len(shown) :])))
    return [f"{op} {100 * size / whole:.0f} %" for op, size in rows]


def _facts(record: Record) -> tuple[tuple[str, ...], ...]:
    """Head and rows: what made what is alive at the peak, by op and submodule, the largest first."""
    assert record.counts is not None
    groups: dict[tuple[str, str, str], list[int]] = {}
    for holder in record.counts.at_peak:
        groups.setdefault((holder.op, holder.module, holder.phase), []).append(holder.bytes)
    ordered = sorted(groups.items(), key=lambda group: -sum(group[1]))
    unit, size = _unit(_peak(record).bytes)
    rows = [
        (clean(op), clip(clean(module), _ROOM) if module else "-", clean(phase), str(len(sizes)), _in_units(sum(sizes) / size))
        for (op, module, phase), sizes in ordered[:_MOST_HELD]
    ]
    rest = [size for _, sizes in ordered[_MOST_HELD:] for size in sizes]
    if rest:
        rows.append((f"{len(ordered) - _MOST_HELD} more", "-", "-", str(len(rest)), _in_units(sum(rest) / size)))
    return (("Made by", "Submodule", "Phase", "Storages", unit), *rows) if rows else ()


def _in_units(number: float) -> str:
    """Two decimals, which sort as text; what they do not show is not called nothing."""
    return f"{number:.2f}" if number >= 0.005 else "<0.01"


def _unit(size: int) -> tuple[str, int]:
    """The unit that a size is written in, and how many bytes it is."""
    unit = units.format_bytes(size).rpartition(" ")[2]
    return unit, 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)


def moment_rows(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """The data of a chart: a bar per moment, from the one before to its own event."""
    begins = [0, *(moment.event for moment in moments)]
    return [
        {
            "begin": begin,
            "end": moment.event,
            "bytes": moment.bytes,
            "said": units.format_bytes(moment.bytes),
            "op": clean(moment.op),
            "module": clip(clean(moment.module), _ROOM) if moment.module else "the module itself",
            "phase": clean(moment.phase),
        }
        for begin, moment in zip(begins, moments, strict=False)
    ]


def _peak_row(record: Record, canvas: Canvas, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mark at the peak and the text above it; `top` is where the axis ends, with room for the most lines there are."""
    peak = _peak(record)
    lines = [f"peak {units.format_bytes(peak.bytes)}", *_held(record)]
    at = next((row["begin"] + row["end"]) / 2 for row in rows if row["bytes"] == peak.bytes)
    share = at / rows[-1]["end"]
    line = _LINE * canvas.font / canvas.height
    top = max(peak.bytes, 1) / (1 - (_MOST_NAMED + 2.5) * line)
    foot = top * (1 - (len(lines) + 0.2) * line)
    room = _MARGIN + max(text_width(text, canvas.font) for text in lines) / canvas.width
    turns = [after["begin"] / rows[-1]["end"] for before, after in pairwise(rows) if before["phase"] != after["phase"]]
    side = side_of(share, room, turns)
    return {"at": at, "bytes": peak.bytes, "top": top, "foot": foot, "side": side, "text": "\n".join(lines)}


def side_of(share: float, room: float, turns: Sequence[float]) -> str:
    """How a text as wide as `room` stands at `share`, both parts of the width: clear of the lines at `turns` and inside."""
    begins = {"center": share - room / 2, "left": share, "right": share - room}
    inside = [side for side, begin in begins.items() if begin >= 0 and begin + room <= 1]
    clear = [side for side, begin in begins.items() if not any(begin < turn < begin + room for turn in turns)]
    wide = "left" if share < 1 / 2 else "right"  # the side of the peak with more room
    choices = [side for side in ("center", wide, "left", "right") if side in inside and side in clear]
    return (choices or inside or [wide])[0]


def _drawn(record: Record, canvas: Canvas) -> dict[str, Any]:
    rows = moment_rows(record.moments)
    mark = _peak_row(record, canvas, rows)
    turns = [{"at": after["begin"]} for before, after in pairwise(rows) if before["phase"] != after["phase"]]
    view = _view(_unit(mark["bytes"]), tuple(dict.fromkeys(row["phase"] for row in rows)), canvas)
    return filled(view, {"moments": rows, "peak": [mark]} | ({"turns": turns} if turns else {}))


@lru_cache(maxsize=64)
def _view(in_unit: tuple[str, int], phases: tuple[str, ...], canvas: Canvas) -> dict[str, Any]:
    """The view without rows: the cases of a page have a few between them, and altair takes longest for it."""
    import altair as alt

    unit, size = in_unit
    scale = alt.Scale(domain=phases, range=[_COLOURS.get(phase, GREY) for phase in phases])
    legend = alt.Legend(title=None, orient="bottom", symbolType="square", symbolSize=6 * canvas.font, symbolStrokeWidth=0)
    colour = alt.Color("phase:N", scale=scale, legend=legend)
    x_axis = alt.Axis(title="Events of the pass", grid=False, tickCount=6, tickMinStep=1, format=",d")
    x = alt.X("begin:Q", scale=alt.Scale(nice=False, zero=True), axis=x_axis)
    y_axis = alt.Axis(title="Live memory", tickCount=5, labelExpr=f"format(datum.value, '.6~g') + ' {unit}'", gridOpacity=0.7)
    y = alt.Y("value:Q", scale=alt.Scale(nice=False, zero=True), axis=y_axis)
    bars = alt.Chart(alt.NamedData("moments")).transform_calculate(value=f"datum.bytes / {size}", zero="0")
    bars = bars.encode(x=x, x2=alt.X2("end:Q"))
    marks = alt.Chart(alt.NamedData("peak")).transform_calculate(
        value=f"datum.bytes / {size}", top_value=f"datum.top / {size}", foot_value=f"datum.foot / {size}"
    )
    at = alt.X("at:Q")
    layers: list[Any] = [
        bars.mark_rect(strokeWidth=0.5).encode(
            y=y, y2=alt.Y2("zero:Q"), color=colour, stroke=alt.Stroke("phase:N", scale=scale, legend=legend)
        ),
        marks.mark_point(opacity=0).encode(x=at, y=alt.Y("top_value:Q")),
        marks.mark_rule(strokeWidth=0.7).encode(x=at, y=alt.Y("value:Q"), y2=alt.Y2("foot_value:Q")),
    ]
    if len(phases) > 1:
        layers.append(alt.Chart(alt.NamedData("turns")).mark_rule(strokeWidth=0.7, strokeDash=[4, 3]).encode(x=at))
    text = marks.mark_text(align=alt.ExprRef("datum.side"), baseline="top", lineBreak="\n", lineHeight=_LINE * canvas.font)
    layers.append(text.encode(x=at, y=alt.YValue(0), text=alt.Text("text:N")))
    if canvas.interactive:
        layers.append(_hovered(bars))
    wide = "container" if canvas.interactive else canvas.width
    return bare(alt.layer(*layers, width=wide, height=canvas.height))


def _hovered(bars: alt.Chart) -> alt.Chart:
    """Bars of the whole height that nobody sees, so that a low one is as easily pointed at as a high one."""
    import altair as alt

    hover = alt.selection_point(name="pointed", on="pointerover", clear="pointerout", empty=False)
    fields = (("said", "Alive"), ("op", "At"), ("module", "In"), ("phase", "Pass"), ("end", "Event"))
    drawn = bars.mark_rect(fill=GREY).encode(
        y=alt.YValue(0),
        y2=alt.Y2Value("height"),
        opacity=alt.OpacityValue(0, condition={"param": "pointed", "empty": False, "value": 0.3}),
        tooltip=[alt.Tooltip(f"{field}:N", title=head) for field, head in fields],
    )
    found: alt.Chart = drawn.properties(name="hidden").add_params(hover)
    return found
