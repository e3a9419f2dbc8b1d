"""A column of cells as TeX: decimals under each other, what follows the number left-aligned, best and second marked.

booktabs: plain right-aligned columns, numbers padded with \\phantom. siunitx: S columns, in which whatever is no plain number
stands in braces, and nothing is underlined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_lowercase

from attnprof.report.table import MISSING, Cell
from attnprof.report.tex import escape

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<less><?)(?P<whole>\d+)(?P<part>\.\d+)?(?P<power>e[+-]\d+)?(?P<tail> ± <?[\d.]+| \[.*\])?"
)
_PLAIN = re.compile(r"(?P<whole>\d+)(?:\.(?P<part>\d+))?(?: ± (?P<margin>[\d.]+))?")
_WORDS = {MISSING: "--", "oom": "OOM"}


def letter(number: int) -> str:
    """The mark of a footnote: 1 -> a, 26 -> z, 27 -> aa; '' for 0."""
    out = ""
    while number > 0:
        number, rest = divmod(number - 1, len(ascii_lowercase))
        out = ascii_lowercase[rest] + out
    return out


def mark(cell: Cell) -> str:
    """The mark of a cell's footnote, without width, so that numbers stay under each other."""
    return rf"\rlap{{\textsuperscript{{{letter(cell.marker)}}}}}" if cell.marker else ""


def booktabs(cells: Sequence[Cell]) -> list[str]:
    """The cells of a right-aligned column."""
    found = [_NUMBER.fullmatch(cell.text) for cell in cells]
    places = max((len(match["part"] or "") for match in found if match and not match["power"]), default=0)
    tails = {match["tail"] or "" for match in found if match}
    longest = max(tails, key=len, default="")
    out = []
    for cell, match in zip(cells, found, strict=True):
        if match is None:
            out.append(_ranked(_words(cell.text), cell.rank) + mark(cell))
            continue
        part = match["part"] or ""
        head = _ranked(_signed(match) + match["whole"] + part + _power(match), cell.rank)
        missing = "" if match["power"] else ".000000000"[len(part) : places]
        pad = rf"\phantom{{{missing}}}" if missing else ""
        tail = escape(match["tail"]) if match["tail"] else ""
        if len(set(map(len, tails))) > 1:  # each in a box of the longest
            tail = (rf"\rlap{{ {tail}}}" if tail else "") + rf"\hphantom{{ {escape(longest)}}}"
        elif tail:
            tail = " " + tail
        out.append(head + mark(cell) + pad + tail if not match["tail"] else head + pad + tail + mark(cell))
    return out


def siunitx(cells: Sequence[Cell]) -> tuple[list[str], str]:
    """The cells of an S column, and its table-format."""
    found = [None if cell.marker else _PLAIN.fullmatch(cell.text) for cell in cells]
    numbers = [match for match in found if match]
    whole = max((len(match["whole"]) for match in numbers), default=1)
    part = max((len(match["part"] or "") for match in numbers), default=0)
    margin = max((len(_last_digits(match)) for match in numbers), default=0)
    out = []
    for cell, match in zip(cells, found, strict=True):
        if match is None:
            (text,) = booktabs([replace(cell, rank=cell.rank % 2)])
            out.append(f"{{{text}}}")
            continue
        bold = r"\bfseries " if cell.rank == 1 else ""
        digits = _last_digits(match)
        number = match["whole"] + (f".{match['part']}" if match["part"] else "") + (f"({digits})" if digits else "")
        out.append(bold + number)
    return out, f"{whole}.{part}" + (f"({margin})" if margin else "")


def _words(text: str) -> str:
    return _WORDS.get(text) or escape(text)


def _last_digits(match: re.Match[str]) -> str:
    """'12.41 ± 0.08' -> '8': the margin in units of the last digit."""
    margin = match["margin"] or ""
    return margin.replace(".", "").lstrip("0")


def _ranked(text: str, rank: int) -> str:
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(rank, text)


def _signed(match: re.Match[str]) -> str:
    return (f"${match['sign']}$" if match["sign"] else "") + ("$<$" if match["less"] else "")


def _power(match: re.Match[str]) -> str:
    return rf"$\times10^{{{int(match['power'][1:])}}}$" if match["power"] else ""
