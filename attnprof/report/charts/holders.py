"""Who holds the memory at the traced peak, as bars: the op that made each part of what is alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof import units
from attnprof.records import Holder, Record
from attnprof.report.charts import Chart, Panel
from attnprof.report.charts.axes import COLOURS, DARK, GREY, PALE, Canvas, bare, filled, row_axis, said_axis, text_width
from attnprof.report.charts.data import by_size, name_of, shares, survey
from attnprof.report.table import Report
from attnprof.report.text import clean

_OTHER = "other ops"
_MOST_HELD = 4


def charts(report: Report, every_size: bool) -> tuple[list[Chart], list[str]]:
    """Who holds the memory at the traced peak: shares by the op that made it, the whole as text beside it."""
    if survey(report.records):
        groups = [("", [("each at its own size", list(report.records))])]
    else:
        groups = by_size(report.records, every_size)
    drawn = []
    for size, blocks in groups:
        found = [(title, [record for record in block if shares(record)]) for title, block in blocks]
        found = [(title, block) for title, block in found if block]
        if found:
            drawn.append(_holders(found, size))
    if drawn:
        return drawn, []
    return [], ["Who holds the memory at the peak is not drawn: no case has a trace."]


def _holders(found: Sequence[tuple[str, list[Record]]], size: str) -> Chart:
    totals: dict[str, float] = {}
    for _, block in found:
        for record in block:
            assert record.counts is not None
            for share in shares(record):
                totals[share.op] = totals.get(share.op, 0.0) + share.bytes / max(record.counts.peak_bytes, 1)
    shown = sorted(totals, key=lambda op: -totals[op])[: len(COLOURS)]
    facts: list[tuple[str, ...]] = [("Where", "Mechanism", "Peak", "Held by")]
    for title, block in found:
        facts += [(title or "-", name_of(record), _peak(record), _held(record)) for record in block]

    def draw(canvas: Canvas) -> tuple[Panel, ...]:
        return tuple(Panel(title, _stacked(block, shown, canvas), _said_holders(block, title)) for title, block in found)

    caption = (
        f"What is alive at the traced peak{f' at {size}' if size else ''}, above parameters, buffers and inputs, by the op that"
        " made it, as shares of each peak; the peak itself stands beside its bar."
    )
    return Chart("memory", "Who holds the memory at the peak", caption, draw, size, tuple(facts))


def _said_holders(block: Sequence[Record], title: str) -> str:
    most = max(block, key=lambda record: record.counts.peak_bytes if record.counts else 0)
    where = f" ({title})" if title else ""
    return f"Memory at the traced peak by the op that made it{where}: the most is {name_of(most)}, {_held(most)}."


def _peak(record: Record) -> str:
    return "-" if record.counts is None else units.format_bytes(record.counts.peak_bytes)


def _held(record: Record) -> str:
    """'bmm 48 %, _softmax 48 %, convolution 4 %'."""
    whole = record.counts.peak_bytes if record.counts is not None and record.counts.peak_bytes else 1
    every = shares(record)
    texts = [f"{share.op} {100 * share.bytes / whole:.0f} %" for share in every[:_MOST_HELD]]
    rest = sum(share.bytes for share in every[_MOST_HELD:])
    return ", ".join(texts + ([f"other ops {100 * rest / whole:.0f} %"] if rest else []))


def holder_rows(block: Sequence[Record], shown: Sequence[str]) -> list[dict[str, Any]]:
    """The data of a panel: one row per case and op, from `begin` to `end` of the peak; ops not among `shown` are other ops."""
    out: list[dict[str, Any]] = []
    for i, record in enumerate(block):
        assert record.counts is not None
        whole, begin = max(record.counts.peak_bytes, 1), 0.0
        common = {"row": i, "label": name_of(record), "peak": _peak(record)}
        for share in sorted(shares(record), key=lambda one: shown.index(one.op) if one.op in shown else len(shown)):
            held = "; ".join(_holder_text(holder) for holder in share.holders[:_MOST_HELD])
            more = f"; and {len(share.holders) - _MOST_HELD} more" if len(share.holders) > _MOST_HELD else ""
            end = begin + share.bytes / whole
            out.append(
                common
                | {"op": share.op, "group": share.op if share.op in shown else _OTHER, "bytes": share.bytes, "begin": begin}
                | {"end": end, "middle": (begin + end) / 2, "said": units.format_bytes(share.bytes), "what": held + more}
            )
            begin = end
    return out


def _holder_text(held: Holder) -> str:
    """'1x9409x9409 in head.query, forward'."""
    where = f" in {clean(held.module)}" if held.module else ""
    return f"{'x'.join(map(str, held.shape))}{where}, {clean(held.phase)}"


def _stacked(block: Sequence[Record], shown: Sequence[str], canvas: Canvas) -> dict[str, Any]:
    import altair as alt

    rows, names = holder_rows(block, shown), [name_of(record) for record in block]
    small = 0.85 * canvas.font
    for row in rows:
        fits = text_width(row["op"], small) + 4 < (row["end"] - row["begin"]) * canvas.width
        row["inside"] = row["op"] if fits else ""
    groups, colours = [*shown, _OTHER], [*COLOURS[: len(shown)], GREY]
    scale = alt.Scale(domain=groups, range=colours)
    wide = canvas.columns > 1 or canvas.interactive
    legend = alt.Legend(
        title=None,
        orient="bottom",
        columns=3 if wide else 2,
        labelLimit=12 * canvas.font,
        symbolType="square",
        symbolStrokeWidth=0,
        symbolSize=6 * canvas.font,
    )
    y = alt.Y("row:O", axis=row_axis(names))
    share = said_axis([0.0, 0.5, 1.0], ["0 %", "50 %", "100 %"], "Share of the peak", grid=False)
    x = alt.X("begin:Q", scale=alt.Scale(domain=[0, 1]), axis=share)
    base = alt.Chart(alt.NamedData("parts")).encode(y=y)
    drawn = base.mark_bar(height=0.8 * canvas.row).encode(
        x=x, x2=alt.X2("end:Q"), color=alt.Color("group:N", scale=scale, legend=legend)
    )
    if canvas.interactive:
        fields = (("label", "Mechanism"), ("op", "Made by"), ("said", "Bytes"), ("what", "What"), ("peak", "Peak"))
        drawn = drawn.encode(tooltip=[alt.Tooltip(f"{field}:N", title=head) for field, head in fields])
    pale = [group for group, colour in zip(groups, colours, strict=True) if colour in PALE]
    dark = {"test": {"field": "group", "oneOf": pale}, "value": DARK}
    ink = alt.ColorValue("white", condition=dark)
    inside = base.transform_filter("datum.inside != ''").mark_text(fontSize=small)
    wholes = list({row["row"]: {"row": row["row"], "peak": row["peak"], "end": 1.0} for row in rows}.values())
    text = alt.Chart(alt.NamedData("wholes")).mark_text(align="left", dx=3)
    layers = alt.layer(
        drawn,
        inside.encode(x=alt.X("middle:Q"), text=alt.Text("inside:N"), color=ink),
        text.encode(x=alt.X("end:Q"), y=y, text=alt.Text("peak:N")),
        width=canvas.width,
        height=canvas.row * len(names),
    )
    return filled(bare(layers), {"parts": rows, "wholes": wholes})
