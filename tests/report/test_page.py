"""The HTML report: one file without an address, safe with any name, and at work in a real browser with the network off.

The browser tests need Chromium (/usr/bin/chromium, or what CHROMIUM names) and the package playwright; else they are skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attnprof import report
from attnprof.records import record_from_json
from attnprof.report import page
from tests.report.chart_records import HOSTILE, built, hostile, passes, placed, run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog, Page

pytest.importorskip("altair", reason="the extra 'plots' is not installed")
pytest.importorskip("vl_convert", reason="the extra 'plots' is not installed")

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Outline(HTMLParser):
    """Elements with their attributes, what is open at the end, the text in scripts, and all other text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += data


def outlined(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    return found


@pytest.fixture(scope="module")
def plain() -> str:
    return page.render(built(run(), name="A page & more"))


@pytest.fixture(scope="module")
def unfriendly() -> str:
    """The page whose names try to get out of it: read as text by one test, opened in a browser by another."""
    return page.render(built(hostile(), name=HOSTILE[2], baseline=HOSTILE[0]))


# The file.


def test_elements_close_in_order_and_ids_are_there_once(plain: str) -> None:
    found = outlined(plain)
    assert found.wrong == []
    assert found.open == []
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
    assert links
    assert all(link is not None and link[0] == "#" and link[1:] in ids for link in links)


def test_no_element_asks_for_anything(plain: str) -> None:
    found = outlined(plain)
    assert not {"img", "link", "iframe", "object", "embed", "base", "form", "audio", "video"} & {
        tag for tag, _ in found.elements
    }
    for tag, attributes in found.elements:
        assert not {"src", "srcset", "action", "style", "background"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
    styles = re.findall(r"<style>(.*?)</style>", plain, re.DOTALL)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]


def test_the_policy_forbids_addresses_eval_and_other_scripts(plain: str) -> None:
    policies = [a["content"] for tag, a in outlined(plain).elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    policy = str(policies[0])
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.count("'sha256-") == 3  # two scripts and the style


def test_the_data_is_in_the_page(plain: str) -> None:
    scripts = {a.get("id"): text for a, text in outlined(plain).scripts if a.get("type") == "application/json"}
    embedded = json.loads(scripts["attnprof-data"])
    assert embedded["name"] == "A page & more"
    assert [record_from_json(each) for each in embedded["records"]] == run()


def test_tables_read_without_a_script(plain: str) -> None:
    rep = built(run(), name="A page & more")
    text = " ".join(outlined(plain).text.split())
    for table in rep.tables:
        assert table.title in text
        assert all(note in text for note in table.footnotes)
        assert all(cell.text in text for row in table.rows for cell in row.cells)
    assert all(" ".join(note.split()) in text for note in rep.notes)
    assert "A page & more" in text
    assert "2 oom" in text


def test_cells_carry_their_raw_values(plain: str) -> None:
    values = [attributes["data-value"] for _, attributes in outlined(plain).elements if "data-value" in attributes]
    macs = [str(each.counts.macs) for each in run() if each.counts is not None]
    assert set(macs) <= set(values)


def test_what_a_mechanism_adds_to_a_network_is_in_the_summary() -> None:
    text = outlined(page.render(built(placed(), baseline=None))).text
    assert "se adds 4.000 K MACs to resnet50 (+0.1 %)" in text


def test_hostile_names_are_text(unfriendly: str, plain: str) -> None:
    found, usual = outlined(unfriendly), outlined(plain)
    assert found.wrong == []
    assert found.open == []
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in usual.elements}
    assert len(found.scripts) == len(usual.scripts)
    for tag, attributes in found.elements:
        assert not any(key.startswith("on") for key in attributes), tag
    for hostile_name in HOSTILE:
        assert hostile_name in found.text
    embedded = json.loads(next(t for a, t in found.scripts if a.get("id") == "attnprof-data"))
    assert {each["case"]["label"] for each in embedded["records"]} == set(HOSTILE)


def test_a_page_without_timelines_says_so_and_one_with_them_says_what_lacks_one(plain: str) -> None:
    assert "Memory over the pass is not drawn: no record holds a timeline" in plain
    found = outlined(page.render(built(passes(), baseline=None)))
    assert {"value": "1"} in [attributes for tag, attributes in found.elements if tag == "option"]
    assert "Memory over the pass: 1 case holds no timeline." in found.text
    assert "held by bmm 50 %, softmax 50 %" in found.text
    embedded = json.loads(next(text for a, text in found.scripts if a.get("id") == "attnprof-data"))
    assert [record_from_json(each) for each in embedded["records"]] == passes()


def test_an_empty_report_is_a_page() -> None:
    text = page.render(report.build([], name="nothing"))
    found = outlined(text)
    assert found.wrong == []
    assert "No cases." in found.text


# In a browser, with the network off.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no browser at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


class Opened:
    """A page in a context without a network, and all that it asked for or complained of."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(offline=True, **options)
        self.context.set_default_timeout(90_000)  # a busy machine is slow, not broken
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self.dismiss)
        self.address = path.as_uri()
        self.page.goto(self.address)

    def dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def draw_all(self) -> None:
        """Bring every chart that is to be seen into view, and wait until it is drawn."""
        for drawing in self.page.locator(".drawing:visible").all():
            drawing.scroll_into_view_if_needed()
            drawing.locator("svg").wait_for()

    def check(self) -> None:
        """Nothing was asked for but the page itself, and nothing complained."""
        assert self.requests == [self.address]
        assert self.complaints == []


@pytest.fixture(scope="module")
def shared(browser: Browser, plain: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    path = tmp_path_factory.mktemp("shared") / "page.html"
    path.write_text(plain, encoding="utf-8")
    found = Opened(browser, path, viewport={"width": 1280, "height": 900})
    yield found
    found.context.close()


@pytest.fixture
def opened(shared: Opened) -> Iterator[Opened]:
    """One page for all tests that read it: loading it and drawing its charts take seconds.

    No test relies on how the rows are sorted when it begins; what else it changes it sets back.
    """
    yield shared
    shared.check()


def column(opened: Opened, number: int) -> list[str]:
    cells = opened.page.locator("#table-1 tbody tr").all()
    return [row.locator("th, td").nth(number).inner_text() for row in cells if row.is_visible()]


def heads(opened: Opened) -> list[str]:
    return [head.inner_text().strip() for head in opened.page.locator("#table-1 thead th").all()]


def test_every_chart_is_drawn_without_a_request(opened: Opened) -> None:
    opened.draw_all()
    visible = opened.page.locator(".drawing:visible").count()
    assert visible >= 10
    assert opened.page.locator(".drawing:visible svg").count() == visible


def test_a_click_on_a_head_sorts_numbers_as_numbers(opened: Opened) -> None:
    at = next(i for i, text in enumerate(heads(opened)) if text.startswith("MACs ("))
    button = opened.page.locator("#table-1 thead th button").nth(at)
    button.click()
    head = opened.page.locator("#table-1 thead th").nth(at)
    assert head.get_attribute("aria-sort") == "ascending"
    wanted = {"free": 0, "flat": 900, "linear": 70 * 16**2, "fails": 10 * 16**3, "square": 10 * 16**4}
    assert column(opened, 0) == sorted(wanted, key=lambda name: wanted[name])
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, 0) == sorted(wanted, key=lambda name: -wanted[name])


def test_what_has_no_value_is_last_in_both_directions(opened: Opened) -> None:
    at = next(i for i, text in enumerate(heads(opened)) if text.startswith("Latency ("))
    button = opened.page.locator("#table-1 thead th button").nth(at)
    for _ in range(2):
        button.click()
        assert column(opened, 0)[-1] == "free"


def test_the_keyboard_sorts_as_well(opened: Opened) -> None:
    button = opened.page.locator("#table-1 thead th button").first
    button.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#table-1 thead th").first.get_attribute("aria-sort") == "ascending"
    assert column(opened, 0) == ["fails", "flat", "free", "linear", "square"]
    opened.page.keyboard.press("Space")
    assert column(opened, 0) == ["square", "linear", "free", "flat", "fails"]
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.closest('th').cellIndex") == 1


def test_the_filter_leaves_the_rows_with_the_words(opened: Opened) -> None:
    opened.page.get_by_label("Show rows with").fill("lin")
    assert column(opened, 0) == ["linear"]
    rows = opened.page.locator("#tables tbody tr")
    assert opened.page.locator("#found").inner_text() == f"{len(run()) // 5} of {rows.count()} rows"
    opened.page.get_by_label("Show rows with").fill("")
    assert len(column(opened, 0)) == 5


def test_hovering_over_a_point_shows_its_numbers(opened: Opened) -> None:
    drawing = opened.page.locator("#chart-macs .drawing").first
    drawing.scroll_into_view_if_needed()
    point = drawing.locator("[aria-label*='Mechanism: square'][aria-label*='64x64']").first
    point.hover()
    tooltip = opened.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "square" in tooltip.inner_text()
    assert "64x64" in tooltip.inner_text()
    assert "167.8 M" in tooltip.inner_text()  # 10 * 64**4


def test_another_size_is_chosen(opened: Opened) -> None:
    chart = opened.page.locator("#chart-memory")
    chart.scroll_into_view_if_needed()
    assert "at 64x64" in chart.locator(".variant:visible > p").first.inner_text()
    chart.get_by_label("Size").select_option("16x16")
    assert "at 16x16" in chart.locator(".variant:visible > p").first.inner_text()
    chart.locator(".drawing:visible svg").first.wait_for()
    chart.get_by_label("Size").select_option("64x64")
    assert "at 64x64" in chart.locator(".variant:visible > p").first.inner_text()


def test_charts_and_page_are_dark_where_the_system_is(opened: Opened) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    opened.draw_all()
    svg = opened.page.locator("#chart-macs .drawing svg").first
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"
    assert "#1b1b1b" in str(svg.evaluate("e => e.outerHTML"))
    opened.page.emulate_media(color_scheme="dark")
    assert opened.page.evaluate(background) == "rgb(24, 27, 32)"
    drawn = opened.page.locator("#chart-macs .drawing svg").first
    drawn.locator("[fill='#e6e6e6'], [stroke='#e6e6e6']").first.wait_for(state="attached")
    opened.page.emulate_media(color_scheme="light")
    drawn.locator("[fill='#1b1b1b'], [stroke='#1b1b1b']").first.wait_for(state="attached")


def visible_bars(opened: Opened) -> list[str]:
    """What the bars of the memory over the pass say, one text each."""
    bars = opened.page.locator("#chart-timeline .drawing:visible [aria-label*='Alive: ']")
    bars.first.wait_for()
    return [str(bar.get_attribute("aria-label")) for bar in bars.all()]


@pytest.fixture(scope="module")
def passing() -> str:
    return page.render(built([*run(), *passes(3)], name="passes"))


@pytest.fixture
def passed_over(browser: Browser, passing: str, tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "page.html"
    path.write_text(passing, encoding="utf-8")
    found = Opened(browser, path, viewport={"width": 1280, "height": 900})
    yield found
    found.check()
    found.context.close()


def test_memory_over_the_pass_is_drawn_for_the_case_that_is_chosen(passed_over: Opened) -> None:
    chart = passed_over.page.locator("#chart-timeline")
    chart.scroll_into_view_if_needed()
    bars = visible_bars(passed_over)
    assert len(bars) == 6
    assert any("Alive: 12.0 MiB" in bar and "At: softmax" in bar and "Pass: forward" in bar for bar in bars)
    words = " ".join(chart.locator(".drawing:visible svg text").all_text_contents())
    assert "peak 12.0 MiB" in words
    assert "bmm 50 %" in words
    choice = chart.get_by_label("Case")
    choice.focus()
    passed_over.page.keyboard.press("ArrowDown")
    assert choice.locator("option:checked").inner_text() == "m2: 8.00 MiB"
    assert any("Alive: 8.00 MiB" in bar for bar in visible_bars(passed_over))
    passed_over.page.set_viewport_size({"width": 700, "height": 900})
    passed_over.page.keyboard.press("ArrowUp")  # one that was drawn before the window changed
    svg = chart.locator(".drawing:visible svg")
    box = svg.bounding_box()
    assert box is not None
    assert 400 < box["width"] <= 700


def test_hovering_over_the_pass_says_who_and_how_much(passed_over: Opened) -> None:
    chart = passed_over.page.locator("#chart-timeline")
    chart.scroll_into_view_if_needed()
    visible_bars(passed_over)
    chart.locator(".drawing:visible [aria-label*='Event: 6']").hover()  # whose bar has no height
    tooltip = passed_over.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    said = " ".join(tooltip.inner_text().split())
    assert said == "Alive 0 B At bmm backward In head Pass backward Event 6"


def test_what_was_not_scrolled_to_is_printed(passed_over: Opened) -> None:
    passed_over.page.evaluate(
        "addEventListener('afterprint', () => { window.printed = document.querySelectorAll('.drawing svg').length; })"
    )
    wanted = passed_over.page.locator(".drawing:visible").count()
    assert passed_over.page.locator(".drawing svg").count() < wanted
    first = passed_over.page.pdf()
    assert passed_over.page.evaluate("window.printed") == wanted
    passed_over.draw_all()
    again = passed_over.page.pdf()
    assert len(first) == pytest.approx(len(again), rel=0.02)  # the drawings were on the first paper already
    assert passed_over.page.locator(".drawing svg").count() == wanted


def test_every_column_is_on_paper(browser: Browser, tmp_path: Path) -> None:
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("pdftotext is not installed")
    metrics = (
        *("params", "macs", "flops", "bytes_moved", "activation_memory", "resident_memory", "peak_memory", "peak_cuda_memory"),
        *("throughput", "latency"),
    )
    rep = report.build(run(), baseline="square", metrics=metrics)
    path, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(page.render(rep), encoding="utf-8")
    opened = Opened(browser, path, viewport={"width": 1280, "height": 900})
    for form in ("Letter", "A4"):
        paper.write_bytes(opened.page.pdf(format=form))
        words = set(subprocess.run([reader, "-layout", paper, "-"], check=True, capture_output=True, text=True).stdout.split())
        for table in rep.tables:
            for row in table.rows:
                cells = row.cells[-5:]
                assert {word for cell in cells for word in cell.text.split()} <= words, row.record.case.label
        best = page.parts.glance(rep)
        assert best is not None
        assert {word for row in best["rows"] for text in row["texts"] for word in text.split()} <= words
    boxes = subprocess.run([reader, "-bbox", paper, "-"], check=True, capture_output=True, text=True).stdout
    sheet = float(re.findall(r'<page width="([0-9.]+)"', boxes)[0])
    assert max(float(right) for right in re.findall(r'xMax="([0-9.]+)"', boxes)) <= sheet
    opened.check()
    opened.context.close()


def no_wider(opened: Opened, width: int) -> None:
    """The body stays inside the window, and the first table scrolls in itself."""
    opened.draw_all()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    table = opened.page.locator("#tables .scroll").first
    assert table.evaluate("e => e.clientWidth") <= width
    assert table.evaluate("e => e.scrollWidth > e.clientWidth")


def test_the_body_is_no_wider_than_the_window(opened: Opened) -> None:
    no_wider(opened, 1280)


def test_the_body_is_no_wider_than_a_telephone(browser: Browser, plain: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(plain, encoding="utf-8")
    narrow = Opened(browser, path, viewport={"width": 390, "height": 844})
    no_wider(narrow, 390)
    narrow.check()
    narrow.context.close()


def test_without_javascript_the_tables_are_there(browser: Browser, plain: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(plain, encoding="utf-8")
    opened = Opened(browser, path, java_script_enabled=False)
    assert opened.page.locator("#table-1 tbody tr").count() == 5
    assert opened.page.locator("noscript p").is_visible()
    box = opened.page.locator("#chart-macs .said").first.bounding_box()
    assert box is not None
    assert box["width"] > 100  # what a chart shows stands there in words
    assert not opened.page.locator("#filter").is_visible()
    opened.context.close()


def test_hostile_names_do_nothing_in_a_browser(browser: Browser, unfriendly: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(unfriendly, encoding="utf-8")
    opened = Opened(browser, path, viewport={"width": 1280, "height": 900})
    opened.draw_all()
    drawing = opened.page.locator("#chart-macs .drawing").first
    drawing.scroll_into_view_if_needed()
    point = drawing.locator("[aria-label*='script'][aria-label*='64x64']").first
    point.hover()
    tooltip = opened.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert tooltip.locator("script, img").count() == 0
    assert opened.page.locator("img, [onmouseover], [onerror]").count() == 0
    assert opened.page.title() == HOSTILE[2]
    opened.check()
    opened.context.close()


def test_a_script_that_is_not_of_the_page_is_refused(browser: Browser, plain: str, tmp_path: Path) -> None:
    """The policy holds: what gets into the page after all does not run, and loads nothing."""
    path = tmp_path / "page.html"
    path.write_text(plain.replace("</main>", "<script>window.ran = 1</script><img src='x.png'></main>"), encoding="utf-8")
    opened = Opened(browser, path)
    assert opened.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.context.close()
