"""Markdown as a reader shows it: whatever a name is, it stays in its cell, and nothing of it becomes markup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from attnprof import report
from attnprof.records import Opinion, Record
from attnprof.report import markdown
from attnprof.report.text import clean
from tests.report.test_report import counts, record, timing

markdown_it = pytest.importorskip("markdown_it", reason="no markdown-it-py here (it comes with rich)")
HOSTILE = [
    "a|b",
    r"a\|b",
    "a\\",
    "`code`",
    "``a|b",
    "<script>alert(1)</script>",
    "<!-- a",
    "<b onclick=x>",
    "&lt;b&gt; &amp;",
    "a\nb\r\n\r\n# c",
    "\n\n| - |",
    "*bold* __strong__ _it_",
    "~~gone~~",
    "[l](javascript:x)",
    "![i](http://x/y.png)",
    "[a]: http://x",
    "<http://x>",
    "# head",
    "- item",
    "1. one",
    "> quote",
    "---",
    ":--",
    "***",
    "日本 \u202e x",
    "**",
    "</table>",
]
TAGS = {"h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "strong", "u", "p", "br", "ul", "li"}


class Shown(HTMLParser):
    """The tags of a page, and the text of each cell, heading, item and paragraph."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: dict[str, list[str]] = {"td": [], "h1": [], "h2": [], "li": [], "p": []}
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert all(name == "style" and tag in ("th", "td") for name, _ in attrs)
        if tag in self.texts:
            self.inside.append(tag)
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.texts:
            assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[self.inside[-1]][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def shown(text: str) -> Shown:
    """What CommonMark with GitHub's tables and lines through text makes of it; HTML in it would be taken as it is."""
    page = Shown()
    page.feed(markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    return page


def members() -> Iterator[Record]:
    """The names as labels; every third as the reason of a failure too, the first two as best and second."""
    for i, name in enumerate(HOSTILE):
        made = record(name, counts(10**9 * (i + 1), 2**20 * (i + 1)), timing(3.0 + i), detail=name)
        yield replace(made, status="error", counts=None, timing=None) if i % 3 == 2 else made


def test_every_name_is_the_text_of_its_cell_and_no_markup() -> None:
    built = report.build(list(members()), name=HOSTILE[5], baseline=HOSTILE[0])
    page = shown(markdown.render(built))
    assert page.tags <= TAGS
    across = len(built.tables[0].columns)
    cells = page.texts["td"]
    assert [clean(name) for name in HOSTILE] == cells[::across]
    assert all(cells)
    assert page.texts["h1"] == [HOSTILE[5]]
    assert page.texts["h2"] == [built.tables[0].title, "Notes"]
    assert len(page.texts["li"]) == len(built.notes)
    (footnotes,) = page.texts["p"]
    for name in HOSTILE[2::3]:
        assert clean(name) in footnotes


def test_arguments_settings_and_opinions_are_text() -> None:
    opinion = Opinion("<b>|x", "explained", 5, -0.5, sentence="`a` | <i>b</i>\n# c")
    made = [
        replace(record(f"m[{i}]", counts(10, 2), args={"<u>|": f"*{i}*|"}, settings={"a|": "<b>"}), crosscheck=(opinion,))
        for i in (1, 2)
    ]
    page = shown(markdown.render(report.build(made, metrics=("macs",))))
    assert page.tags <= TAGS
    assert {"*1*|", "*2*|", "<b>|x", "`a` | <i>b</i> # c"} <= set(page.texts["td"])
