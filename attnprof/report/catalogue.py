"""`list` and `show`: the catalogue as text of at most 80 columns, from plain values (this layer does not read mechanisms)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from attnprof.report.text import WIDTH, clean, fit, grid, pad, wrap

_VENUE = re.compile(r"\b([A-Z][A-Za-z+-]+)(?: [A-Za-z]+)?,? ((?:19|20)\d\d)\b")
_YEAR = re.compile(r"\b((?:19|20)\d\d)\b(?!\.\d)")
_ARXIV = re.compile(r"\barXiv:\d{4}\.\d{4,5}\b")
_NONE = re.compile(r"none(?:[:,.]|$)", re.IGNORECASE)
_NAMED_AUTHOR = re.compile(r"\b([A-Z][\w'-]+),? (?:et al|and\b|&)")
_INDENT = "  "


def list_text(entries: Iterable[tuple[str, str, str, str]]) -> str:
    """(family, name, title, paper) as columns of name, title and paper under their family.

    A name is never cut, since it is what people type; titles and papers go on in the next line where they are long.
    """
    rows = [(clean(f), _INDENT + clean(n), clean(t), short_paper(p)) for f, n, t, p in entries]
    if not rows:
        return "No mechanisms.\n"
    head = (_INDENT + "Name", "Title", "Paper")
    name, title, paper = fit(list(zip(head, *(row[1:] for row in rows), strict=True)), [WIDTH] * 3)
    room = max(WIDTH - 4 - name, 8)
    paper = min(paper, max(room // 2, room - title))
    widths = [name, min(title, room - paper), paper]
    lines = grid([head], [], widths, left=3)
    family = ""
    for row in rows:
        if row[0] != family:
            family = row[0]
            lines += ["", family] if len(lines) > 2 else [family]
        cells = [[row[1]], wrap(row[2], widths[1]), wrap(row[3], widths[2])]
        lines += ["  ".join(map(pad, line, widths)).rstrip() for line in zip_longest(*cells, fillvalue="")]
    return "\n".join([*lines, "", f"{len(rows)} mechanism{'s' if len(rows) > 1 else ''}."]) + "\n"


def short_paper(paper: str) -> str:
    """'Hu, Shen, Sun. CVPR 2018. arXiv:1709.01507, § 3' -> 'Hu, CVPR 2018': first author, venue, year, where they are found.

    'none: the plain layer, e.g. Zhao et al., CVPR 2017' -> 'none (cf. Zhao 2017)'.
    """
    text = clean(paper) if paper.strip() else "-"
    if _NONE.match(text):
        near, when = _NAMED_AUTHOR.search(text), _YEAR.search(text)
        return f"none (cf. {near.group(1)} {when.group(1)})" if near and when else "none"
    author = re.split(r"[,.]| et al| and | & ", text, maxsplit=1)[0].strip()
    venue, year, number = _VENUE.search(text), _YEAR.search(text), _ARXIV.search(text)
    if not author or author == text:
        return text
    if venue and venue.group(1) != author:
        return f"{author}, {venue.group(1)} {venue.group(2)}"
    if year or number:
        return f"{author}, {year.group(1) if year else number.group() if number else ''}"
    return text


def show_text(
    name: str,
    title: str,
    headings: Mapping[str, str],
    arguments: Sequence[tuple[str, str | None]] = (),
    costs: Mapping[str, str] | None = None,
) -> str:
    """One mechanism: title, the headings of its docstring, its arguments (default None: required), costs at a shape."""
    lines = [*wrap(f"{clean(name)}: {clean(title)}"), ""]
    sections = [*headings.items()]
    if arguments:
        texts = [clean(arg) if default is None else f"{clean(arg)} = {clean(default)}" for arg, default in arguments]
        sections.append(("Arguments", "\n".join(texts)))
    sections += (costs or {}).items()
    room = max((len(clean(key)) for key, _ in sections), default=0) + 2
    for key, text in sections:
        label = clean(key)
        for line in text.splitlines() or ["-"]:
            wrapped = wrap(line, WIDTH - room) if line.strip() else [""]
            for piece in wrapped:
                lines.append(f"{label:<{room}}{piece}".rstrip())
                label = ""
    return "\n".join(lines) + "\n"
