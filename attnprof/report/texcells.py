"""A column of cells as TeX: decimals under each other, what follows the number left-aligned, best and second marked.

booktabs: plain right-aligned columns, numbers padded with \\phantom. siunitx: S columns, which take a sign, '<' and a margin in
parentheses as parts of the number; what else follows it (for an exponent S would keep room in every row) is text behind it.
What is no number stands in braces, and nothing is underlined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnprof.report.table import MISSING, Cell
from attnprof.report.tex import escape
from attnprof.report.text import letter

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<less><?)(?P<whole>\d+)(?P<part>\.\d+)?(?P<power>e[+-]\d+)?(?P<tail> ± <?[\d.]+| \[.*\])?"
)
_MARGIN = re.compile(r" ± ([\d.]+)")
_EXACT = re.compile(r"(?: ± [0.]+)?")
_WORDS = {MISSING: "--", "oom": "OOM"}


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
        if match is None:  # ends where numbers do, not where what follows them does
            out.append(_ranked(_words(cell.text), cell.rank) + mark(cell) + _hidden(longest))
            continue
        part = match["part"] or ""
        head = _signed(match) + _ranked(match["whole"] + part + _power(match), cell.rank)
        missing = "" if match["power"] else ".000000000"[len(part) : places]
        pad = rf"\phantom{{{missing}}}" if missing else ""
        tail = escape(match["tail"]) if match["tail"] else ""
        if len(set(map(len, tails))) > 1:  # each in a box of the longest
            tail = (rf"\rlap{{ {tail}}}" if tail else "") + _hidden(longest)
        elif tail:
            tail = " " + tail
        out.append(head + mark(cell) + pad + tail if not match["tail"] else head + pad + tail + mark(cell))
    return out


def intervals(cells: Sequence[Cell]) -> bool:
    """Whether an interval or margin follows a number of the column."""
    return any(match["tail"] for match in (_NUMBER.fullmatch(cell.text) for cell in cells) if match)


def siunitx(cells: Sequence[Cell]) -> tuple[list[str], str]:
    """The cells of an S column, and the options of the column: room for every part, since siunitx drops what has none."""
    whole, places, margin, signs, out = 1, 0, 0, "", list[str]()
    behind: list[int] = []  # digits from the point to the end of the text behind a number
    for cell, match in ((cell, _NUMBER.fullmatch(cell.text)) for cell in cells):
        if match is None or (match["sign"] and match["less"]):  # siunitx knows '<' before a sign, not behind it
            text = _words(cell.text) if match is None else _signed(match) + match["whole"] + (match["part"] or "")
            out.append(f"{{{_ranked(text, cell.rank % 2)}{mark(cell)}}}")
            continue
        part, digits, (text, wide) = match["part"] or "", _last_digits(match), _behind(match)
        number = match["sign"] + match["less"] + match["whole"] + part + (f"({digits})" if digits else "")
        bold, normal = (r"\bfseries ", r"\mdseries{}" if text else "") if cell.rank == 1 else ("", "")
        post = normal + text + mark(cell)
        out.append(bold + number + (f"{{{post}}}" if post else ""))
        whole, places, margin = max(whole, len(match["whole"])), max(places, len(part) - 1), max(margin, len(digits))
        signs += match["less"] + ("+" if match["sign"] else "")
        behind += [max(len(part) - 1, 0) + wide] if post else []
    form = "".join(sign for sign in "<+" if sign in signs) + f"{whole}.{places}" + (f"({margin})" if margin else "")
    options = [f"table-format={form}"]
    options += ["retain-explicit-plus"] if "+" in signs else []
    options += ["table-align-comparator=false"] if "<" in signs else []
    options += ["table-align-text-after=false"] if behind else []
    room = max(behind, default=0) - places
    options += [f"table-space-text-post={'0' * room}"] if room > 0 else []
    return out, ", ".join(options)


def _behind(match: re.Match[str]) -> tuple[str, int]:
    """What follows a number in an S column, in TeX, and about how many digits' room it takes."""
    tail = "" if _last_digits(match) or _EXACT.fullmatch(match["tail"] or "") else match["tail"]
    wide = len(f"x10{int(match['power'][1:])}") + 1 if match["power"] else 0
    return _power(match) + (f" {escape(tail.strip())}" if tail else ""), wide + len(tail)


def _hidden(tail: str) -> str:
    """Room for what follows a number elsewhere in the column."""
    return rf"\hphantom{{ {escape(tail)}}}" if tail else ""


def _words(text: str) -> str:
    return _WORDS.get(text) or escape(text)


def _last_digits(match: re.Match[str]) -> str:
    """'12.41 ± 0.08' -> '8': the margin in units of the last digit."""
    margin = _MARGIN.fullmatch(match["tail"] or "")
    return margin.group(1).replace(".", "").lstrip("0") if margin else ""


def _ranked(text: str, rank: int) -> str:
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(rank, text)


def _signed(match: re.Match[str]) -> str:
    return (f"${match['sign']}$" if match["sign"] else "") + ("$<$" if match["less"] else "")


def _power(match: re.Match[str]) -> str:
    return rf"$\times10^{{{int(match['power'][1:])}}}$" if match["power"] else ""
