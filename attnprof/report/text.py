"""Plain text of a known width: cleaning labels, clipping them visibly, wrapping notes, laying out columns.

A wide character counts as two columns and every other as one, so a line is never wider than counted. Nothing here
knows a record.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from string import ascii_lowercase

WIDTH = 80
ELLIPSIS = "…"


def clean(text: str) -> str:
    """One printable line: runs of white space become one space, other characters that do not print become '?'."""
    line = " ".join(text.split())
    if line.isprintable():
        return line or "?"
    return "".join(char if char.isprintable() else "?" for char in line)


def width(text: str) -> int:
    """Columns that `text` takes at most."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def clip(text: str, room: int) -> str:
    """`text` in at most `room` columns; the middle goes, since ablation labels differ at their end, and '…' says so."""
    if width(text) <= room:
        return text
    if room <= 1:
        return ELLIPSIS[:room]
    tail_room = (room - 1) // 2
    tail = ""
    for char in reversed(text):
        if width(char + tail) > tail_room:
            break
        tail = char + tail
    head = ""
    for char in text:
        if width(head + char) > room - 1 - width(tail):
            break
        head += char
    return head + ELLIPSIS + tail


def letter(number: int) -> str:
    """1 -> a, 26 -> z, 27 -> aa; '' for 0."""
    out = ""
    while number > 0:
        number, rest = divmod(number - 1, len(ascii_lowercase))
        out = ascii_lowercase[rest] + out
    return out


def first_clauses(reason: str, room: int) -> str:
    """As many clauses ('a: b: c.') of a reason as have room, without the full stop; clipped where not even one has."""
    text = reason.rstrip(".")
    while width(text) > room and ": " in text:
        text = text.rpartition(": ")[0]
    return clip(text, room)


def pad(text: str, room: int, right: bool = False) -> str:
    """`text` clipped and padded to `room` columns."""
    text = clip(text, room)
    fill = " " * (room - width(text))
    return fill + text if right else text + fill


def wrap(text: str, room: int = WIDTH, indent: str = "") -> list[str]:
    """Lines of at most `room` columns; lines after the first begin with `indent`; a longer word is broken."""
    lines, line = [], ""
    for word in clean(text).split(" "):
        rest = word
        while rest:
            lead = line + " " if line.strip() else line
            if width(lead + rest) <= room:
                line, rest = lead + rest, ""
            elif line.strip():
                lines.append(line)
                line = indent
            else:
                cut = next(n for n in range(len(rest), 0, -1) if width(line + rest[:n]) <= room or n == 1)
                lines.append(line + rest[:cut])
                line, rest = indent, rest[cut:]
    return [*lines, line] if line.strip() or not lines else lines


def grid(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], widths: Sequence[int], left: int = 1) -> list[str]:
    """Head lines, a rule, then the rows; the first `left` columns are flush left, the others flush right."""

    def line(cells: Sequence[str]) -> str:
        padded = (pad(cell, room, right=i >= left) for i, (cell, room) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [*(line(head) for head in heads), rule, *(line(row) for row in rows)]


def fit(columns: Sequence[Sequence[str]], caps: Sequence[int]) -> list[int]:
    """The width that each column wants, at most its cap."""
    return [min(max(map(width, column), default=0), cap) for column, cap in zip(columns, caps, strict=True)]
