"""Live bytes over a pass, drawn in at most 80 columns: where the forward pass ends, where the peak is, which submodule runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attnprof import units
from attnprof.records import Moment
from attnprof.report.text import WIDTH, clean, pad, width

_HEIGHT = 8
_GUTTER = 9
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = "   ..::##"


def draw(moments: Sequence[Moment], plain: bool = False) -> list[str]:
    """The drawing, with a mark over the peak; nothing for a pass without events. `plain`: ASCII only."""
    if not moments:
        return []
    room = WIDTH - _GUTTER - 2
    repeat = max(1, room // len(moments))
    columns = _columns(moments, min(room, repeat * len(moments)))
    peak = max(moment.bytes for moment in columns)
    at = next(i for i, moment in enumerate(columns) if moment.bytes == peak)
    edge, corner, rule, mark = ("|", "+", "-", "v") if plain else ("│", "└", "─", "▼")
    lines = [" " * (_GUTTER + 1 + at) + mark]
    for row in range(_HEIGHT, 0, -1):
        label = units.format_bytes(peak * row / _HEIGHT) if row in (_HEIGHT, _HEIGHT // 2) else ""
        cells = "".join(_cell(moment.bytes, peak, row, plain) for moment in columns)
        lines.append(f"{label:>{_GUTTER}}{edge}{cells}".rstrip())
    lines.append(f"{'0 B':>{_GUTTER}}{corner}{rule * len(columns)}")
    lines.append(" " * (_GUTTER + 1) + _runs(columns, plain, lambda moment: moment.phase))
    if any(moment.module for moment in columns):
        lines.append(" " * (_GUTTER + 1) + _runs(columns, plain, lambda moment: moment.module.partition(".")[0]))
    return [line.rstrip() for line in lines]


def _columns(moments: Sequence[Moment], number: int) -> list[Moment]:
    """One moment per column, the highest of those that fall into it."""
    out = []
    for i in range(number):
        first = i * len(moments) // number
        last = max(first + 1, (i + 1) * len(moments) // number)
        out.append(max(moments[first:last], key=lambda moment: moment.bytes))
    return out


def _cell(size: int, peak: int, row: int, plain: bool) -> str:
    """How much of this row a column of `size` fills, in eighths."""
    eighths = round(8 * (_HEIGHT * size / peak - (row - 1))) if peak else 0
    return (_ASCII if plain else _BLOCKS)[max(0, min(8, eighths))]


def _runs(columns: Sequence[Moment], plain: bool, name: Callable[[Moment], str]) -> str:
    """The names under the columns that they belong to, each run begun by '|'; a run of few columns has none."""
    text, start = "", 0
    for i in range(1, len(columns) + 1):
        if i == len(columns) or name(columns[i]) != name(columns[start]):
            label = clean(name(columns[start])) if name(columns[start]) else ""
            length = i - start
            if plain:
                label = label[: length - 1]
            text += "|" + (pad(label, length - 1) if length > 3 or width(label) < length else " " * (length - 1))
            start = i
    return text
