"""Report -> LaTeX: a float with booktabs rules per block, captioned, its footnotes and what made it under the table.

The file is there to be \\input; `Look.standalone` makes it a document. A table that is too wide or too tall for a page is
several, each with the mechanisms and some of the metrics; what is still wider than the line is scaled down to it. It takes no
package but booktabs and graphicx (siunitx and etoolbox where that style is chosen) and no character but ASCII.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from attnprof.report import texcells
from attnprof.report.captions import caption, foot
from attnprof.report.metrics import METRICS
from attnprof.report.table import FOOTNOTE_ROOM, Column, Look, Report, Row, Table, narrow, visible
from attnprof.report.tex import breakable, comment, escape, slug, width
from attnprof.report.text import letter

_ARROWS = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "": ""}
_CHAR = 4.7  # points that a digit takes at \small of a 10 point class
_GAP = 8.0  # points between two columns
_PAGE = 550.0  # points: what a line of A4 with margins of 2 cm takes when scaled down by an eighth
_ONE_COLUMN = 237.0  # points: a column of a page with two
_LINES = 40  # rows and lines of footnotes on one page
_LABEL = 30  # characters of a label on one line
_FOOT = 110  # characters of a footnote on one line
_FLOATS = 12  # of a document of its own after which a new page begins
_LEFT = ("label", "size", "device")


@dataclass(frozen=True)
class _Part:
    """A float: a table that fits, which of how many it is, and the report it is of."""

    table: Table
    number: int
    of: int


def render(report: Report) -> str:
    """The whole report as LaTeX."""
    floats = [_float(report, part, f"{i}-{part.number}") for i, table in enumerate(report.tables, 1) for part in _parts(table)]
    if report.look.standalone:  # floats alone: TeX gives up on more than a hundred without a page in between
        floats = [each + "\\clearpage\n" if i % _FLOATS == 0 else each for i, each in enumerate(floats, 1)]
    body = "\n".join(floats) if floats else "No cases.\n"
    notes = [*report.notes]
    if any(record.crosscheck for record in report.records):
        notes.append("The cross-check of this run stands in its Markdown and CSV.")
    if report.look.standalone:
        return _document(report, body, notes)
    needs = "booktabs, graphicx" + (", siunitx, etoolbox" if report.look.latex == "siunitx" else "")
    head = [rf"{comment(report.name)}: tables to \input; packages: {needs}", *_robust(report.look, "% ")]
    return "\n".join([*head, "", body, *map(comment, notes)]) + "\n"


def _robust(look: Look, before: str = "") -> list[str]:
    """What siunitx wants in the preamble: bold numbers, and digits as close in a cell as in the text around it."""
    if look.latex != "siunitx":
        return []
    return [
        before + r"\robustify\bfseries",
        before + r"\sisetup{text-series-to-math = true, propagate-math-font = true, group-digits = none}",
    ]


def _document(report: Report, body: str, notes: Iterable[str]) -> str:
    packages = [r"\usepackage{booktabs}", r"\usepackage{graphicx}"]
    if report.look.latex == "siunitx":
        packages += [r"\usepackage{siunitx}", r"\usepackage{etoolbox}"]
    items = [rf"\item[--] {breakable(note)}" for note in notes]
    said = [r"\section*{Notes}", r"\begin{itemize}\small\raggedright", *items, r"\end{itemize}"] if items else []
    return "\n".join(
        [
            r"\documentclass[10pt,a4paper]{article}",
            r"\usepackage[margin=2cm]{geometry}",
            r"\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}",
            *packages,
            *_robust(report.look),
            r"\setlength{\emergencystretch}{3em}",
            r"\makeatletter\setlength{\@fptop}{0pt}\makeatother",
            r"\begin{document}",
            rf"\section*{{{breakable(report.name)}}}",
            body,
            r"\clearpage",
            *said,
            r"\end{document}",
            "",
        ]
    )


def _parts(table: Table) -> list[_Part]:
    """The table as parts that fit on a page each, by groups of columns, then by rows."""
    shown = visible(table)
    beside = "delta" if any(row.record.case.host is not None for row in table.rows) else "ratio"
    wanted = {*_LEFT, "value", "delta", "ratio"} if table.picked else {*_LEFT, "value", beside}
    shown = narrow(shown, [i for i, column in enumerate(shown.columns) if column.kind in wanted])
    heads = [i for i, column in enumerate(shown.columns) if column.kind in _LEFT]
    pages = [visible(narrow(shown, [*heads, *page])) for page in _pages(shown, heads)]
    tables = [narrow(replace(page, rows=page.rows[a:b]), range(len(page.columns))) for page in pages for a, b in _runs(page)]
    return [_Part(each, i, len(tables)) for i, each in enumerate(tables, 1)]


def _pages(table: Table, heads: Sequence[int]) -> list[list[int]]:
    """Columns per page: those of one metric together, as even as they go."""
    groups: list[list[int]] = []
    for i, column in enumerate(table.columns):
        if column.kind in _LEFT:
            continue
        if groups and table.columns[groups[-1][0]].key == column.key:
            groups[-1].append(i)
        else:
            groups.append([i])
    for count in range(1, len(groups)):
        cuts = [round(i * len(groups) / count) for i in range(count + 1)]
        pages = [[i for group in groups[a:b] for i in group] for a, b in pairwise(cuts)]
        if all(_width(table, [*heads, *page]) <= _PAGE for page in pages):
            return pages
    return groups or [[]]


def _width(table: Table, columns: Iterable[int]) -> float:
    """Points that these columns take, about."""
    total = 0.0
    for i in columns:
        column = table.columns[i]
        texts = [column.head, *(row.cells[i].text for row in table.rows)]
        total += _GAP + _CHAR * min(max(map(width, texts)), _LABEL if column.kind == "label" else 1000)
    return total


def _runs(table: Table) -> list[tuple[int, int]]:
    """(first, after last) rows of each page."""
    runs, start = list[tuple[int, int]](), 0
    for i in range(len(table.rows)):
        if i > start and _lines(table.rows[start : i + 1]) > _LINES:
            runs.append((start, i))
            start = i
    return [*runs, (start, len(table.rows))]


def _lines(rows: Sequence[Row]) -> int:
    """Lines that these rows and their footnotes take, about."""
    reasons = {cell.reason for row in rows for cell in row.cells if cell.reason}
    labels = sum(1 + (width(row.cells[0].text) - 1) // _LABEL for row in rows)
    return labels + sum(1 + min(width(reason), FOOTNOTE_ROOM) // _FOOT for reason in reasons)


def _float(report: Report, part: _Part, number: str) -> str:
    """One table with its caption, footnotes and what made it."""
    table = part.table
    of = f"part {part.number} of {part.of}" if part.of > 1 else ""
    kind = "table*" if _width(table, range(len(table.columns))) > _ONE_COLUMN else "table"
    lines = [
        rf"\begin{{{kind}}}[!htbp]",
        r"\centering",
        rf"\caption{{{caption(report, table, of)}}}",
        rf"\label{{tab:{slug(report.name)}-{number}}}",
        r"\smallskip",
        r"\small\setlength{\tabcolsep}{4pt}%",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        _tabular(table, report.look) + "}",
    ]
    notes = [rf"\textsuperscript{{{letter(i)}}}~{breakable(note)}" for i, note in enumerate(table.footnotes, 1)]
    notes += [breakable(text) for text in [foot(report, table)] if text]
    if notes:
        lines += [r"\par\smallskip", r"\parbox{\linewidth}{\footnotesize\raggedright", "\\\\\n".join(notes) + "}"]
    return "\n".join([*lines, rf"\end{{{kind}}}", ""])


def _tabular(table: Table, look: Look) -> str:
    """The tabular, laid out by pandas: its rows are TeX already."""
    import pandas as pd

    columns, sides = [], []
    centred = set[int]()  # heads over numbers that something follows: the right end of the column is not theirs
    for i, column in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        if column.kind in _LEFT:
            long = column.kind == "label" and any(width(cell.text) > _LABEL for cell in cells)
            columns.append([(rf"\raggedright {breakable(cell.text)}" if long else escape(cell.text)) for cell in cells])
            sides.append(rf"p{{{_LABEL * _CHAR:.0f}pt}}" if long else "l")
        elif look.latex == "siunitx":
            texts, options = texcells.siunitx(cells)
            columns.append(texts)
            sides.append(f"S[{options}]")
        else:
            columns.append(texcells.booktabs(cells))
            sides.append("r")
            centred |= {i} if texcells.intervals(cells) else set()
    upper, lower = _heads(table, look)
    lower = [rf"\multicolumn{{1}}{{c}}{{{text}}}" if i in centred else text for i, text in enumerate(lower)]
    alone = {a - 1 for a, b in _spans(upper) if a == b}  # pandas leaves these as they are
    heads = [rf"\multicolumn{{1}}{{c}}{{{text}}}" if i in alone else text for i, text in enumerate(upper)]
    names = pd.MultiIndex.from_arrays([heads, lower]) if any(upper) else lower
    frame = pd.DataFrame(dict(enumerate(columns)), dtype=object)
    frame.columns = names
    style = frame.style.hide(axis="index")
    text = style.to_latex(hrules=True, column_format="".join(sides), multicol_align="c").rstrip("\n")
    if not any(upper):
        return text
    rules = " ".join(rf"\cmidrule(lr){{{a}-{b}}}" for a, b in _spans(upper))
    first, after, rest = text.partition("\\\\\n")
    return first + after + rules + "\n" + rest


def _heads(table: Table, look: Look) -> tuple[list[str], list[str]]:
    """Both head lines: metrics over their columns, or how metrics were found over them, or ('', ...) over a single line."""
    values = [column for column in table.columns if column.kind not in _LEFT]
    keys = [column.key for column in values]
    if len(set(keys)) < len(keys):
        upper = ["" if c.kind in _LEFT else _head(table, c) for c in table.columns]
        lower = [escape(c.head) if c.kind in _LEFT else _braced(_under(c), look) for c in table.columns]
        return upper, lower
    found = {_how(column) for column in values}
    upper = ["" if column.kind in _LEFT or len(found) < 2 else _how(column) for column in table.columns]
    lower = [escape(c.head) if c.kind in _LEFT else _braced(_single(table, c), look) for c in table.columns]
    return upper, lower


def _how(column: Column) -> str:
    if METRICS[column.key].traced:
        return "Traced"
    return "Calibrated" if column.key == "calibrated_memory" else "Measured"


def _head(table: Table, column: Column) -> str:
    """The head of a metric, with the arrow to the better side where its values are shown."""
    shown = any(other.key == column.key and other.kind == "value" for other in table.columns)
    metric = METRICS[column.key]
    return escape(metric.head) + (_ARROWS[metric.direction] if shown else "")


def _under(column: Column) -> str:
    """What stands under the head of a metric: the unit of a value, 'ratio', or 'delta' with its unit."""
    unit = f"({escape(column.unit)})" if column.unit else ""
    return (unit or "value") if column.kind == "value" else f"{escape(column.head)} {unit}".rstrip()


def _single(table: Table, column: Column) -> str:
    unit = f" ({escape(column.unit)})" if column.unit else ""
    if column.kind == "value":
        return f"{escape(column.head)}{unit}{_ARROWS[column.direction]}"
    return f"{_head(table, column)} {escape(column.head)}{unit}"


def _braced(text: str, look: Look) -> str:
    return f"{{{text}}}" if look.latex == "siunitx" else text


def _spans(upper: Sequence[str]) -> list[tuple[int, int]]:
    """(first, last) columns, from 1, under each head of the upper line."""
    spans: list[tuple[int, int]] = []
    for i, text in enumerate(upper, 1):
        if text and spans and upper[i - 2] == text:
            spans[-1] = (spans[-1][0], i)
        elif text:
            spans.append((i, i))
    return spans
