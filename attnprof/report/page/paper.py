"""How wide each table is on paper, where nothing scrolls: the size of its letters that brings every column onto the sheet.

A table keeps its lines whole where letters of seven points have room for that; else cells break at their spaces, and letters
are as much smaller as the words ask. Sizes are in parts of the sheet's own width, so that any paper and margin will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnprof.report.text import width

_CHAR = 0.62  # em that a character takes on average, at most: heads are bold
_PADDING = 0.8  # em beside a cell, both sides together, as page.css has it for paper
_NOTE = 2  # characters that a footnote's number takes
_LONGEST = 20  # characters of a word that is not broken; page.css breaks longer ones


def printed(tables: Iterable[tuple[str, Sequence[Sequence[str]]]]) -> str:
    """The print style of (id, rows of cells with the heads first) for each table."""
    rules = [f"#{name} {{ font-size: {_size(rows)}; }}" for name, rows in tables if rows]
    return "\n".join(["@media print {", *rules, "}"]) if rules else ""


def _size(rows: Sequence[Sequence[str]]) -> str:
    columns = list(zip(*rows, strict=True))
    whole = sum(max(map(width, column)) for column in columns)
    broken = sum(max(min(width(word), _LONGEST) for text in column for word in text.split() or [""]) for column in columns)
    at_best, at_worst = (
        100 / ((_CHAR * (count + _NOTE * len(columns))) + _PADDING * len(columns)) for count in (whole, broken)
    )
    return f"min(.875rem, {at_worst:.3f}cqw, max({at_best:.3f}cqw, 7pt))"
