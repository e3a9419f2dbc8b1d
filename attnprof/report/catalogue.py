"""`list` and `show`: the catalogue as text of at most 80 columns, from plain values (this layer does not read mechanisms)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attnprof.report.text import WIDTH, clean, fit, grid, wrap

_VENUE = re.compile(r"\b([A-Z][A-Za-z+-]+)(?: [A-Za-z]+)?,? ((?:19|20)\d\d)\b")
_YEAR = re.compile(r"\b((?:19|20)\d\d)\b")


def list_text(entries: Iterable[tuple[str, str, str, str]]) -> str:
    """The table of (family, name, title, paper); family and name are never cut, since they are what people type."""
    rows = [(clean(f), clean(n), clean(t), short_paper(p)) for f, n, t, p in entries]
    if not rows:
        return "No mechanisms.\n"
    head = ("Family", "Name", "Title", "Paper")
    columns = list(zip(head, *rows, strict=True))
    family, name, title, paper = fit(columns, [WIDTH] * 4)
    room = max(WIDTH - 6 - family - name, 8)
    paper = min(paper, max(room // 2, room - title))
    lines = grid([head], rows, [family, name, min(title, room - paper), paper], left=4)
    return "\n".join([*lines, "", f"{len(rows)} mechanism{'s' if len(rows) > 1 else ''}."]) + "\n"


def short_paper(paper: str) -> str:
    """'Hu, Shen, Sun. CVPR 2018. arXiv:1709.01507, § 3' -> 'Hu, CVPR 2018': first author, venue, year, where they are found."""
    text = clean(paper) if paper.strip() else "-"
    author = re.split(r"[,.]| et al| and | & ", text, maxsplit=1)[0].strip()
    venue, year = _VENUE.search(text), _YEAR.search(text)
    if venue and venue.group(1) != author:
        return f"{author}, {venue.group(1)} {venue.group(2)}"
    return f"{author}, {year.group(1)}" if year and author and author != text else text


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
