"""`sites`: the hosts, and the submodules of one, as text of at most 80 columns, from plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attnprof.report.text import WIDTH, clean, fit, grid, wrap

_GAP = 2


def hosts_text(entries: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """(name, title, names of sites) of every host."""
    rows = [(clean(name), clean(title), ", ".join(sites)) for name, title, sites in entries]
    return "\n".join(_columns(("Host", "Architecture", "Sites"), rows, left=3)) + "\n"


def sites_text(host: str, size: str, named: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Named sites with their globs, then every submodule: type, outputs that differ, how often it runs in one pass."""
    lines = wrap(f"{clean(host)}, input {size}")
    if named:
        texts = [(each["site"], each["glob"], str(each["matches"])) for each in named]
        lines += ["", *_columns(("Site", "Glob", "Submodules"), texts, left=2)]
    lists = [(clean(row["name"]), clean(row["type"]), _shapes(row["outputs"]), str(row["runs"])) for row in rows]
    lines += ["", *_columns(("Submodule", "Type", "Output", "Runs"), lists, left=2)]
    if any(row["runs"] != 1 or row["output"] is None for row in rows):
        lines += ["", *wrap("A mechanism can stand where a submodule runs once and returns a single tensor.")]
    return "\n".join(lines) + "\n"


def _columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int) -> list[str]:
    """A grid in which the first column keeps its width, since it is what people type."""
    widths = fit(list(zip(head, *rows, strict=True)), [WIDTH] * len(head))
    while sum(widths) + _GAP * (len(widths) - 1) > WIDTH and max(widths[1:]) > 8:
        widest = max(range(1, len(widths)), key=lambda i: widths[i])
        widths[widest] -= 1
    return grid([head], rows, widths, left=left)


def _shapes(sizes: Sequence[Sequence[int] | None]) -> str:
    return ", ".join("no single tensor" if size is None else "x".join(map(str, size)) for size in sizes) or "-"
