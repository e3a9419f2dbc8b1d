"""Figures that a page holds: what is too high is several, and no mechanism is lost on the way."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from attnprof import report
from attnprof.records import Holder, Record
from attnprof.report import figures
from tests.report.test_report import counts, record

pytest.importorskip("altair", reason="the extra 'plots' is not installed")
vl_convert = pytest.importorskip("vl_convert", reason="the extra 'plots' is not installed")


@pytest.fixture(autouse=True)
def svg_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pdf and png: what they are made of is the svg, and they take long."""
    for name in ("svg_to_pdf", "svg_to_png"):
        monkeypatch.setattr(vl_convert, name, lambda svg, **_: b"")


def many(number: int) -> list[Record]:
    """As many mechanisms in both modes; what is alive at their peaks is known."""
    return [
        record(
            f"m{i:02}",
            counts(1000 + i, 2**20, at_peak=(Holder(2**20, "bmm", "", "forward", (512, 512)),)),
            mode=mode,
            device="none",
        )
        for mode in ("inference", "training")
        for i in range(number)
    ]


def texts(svg: str | bytes) -> Counter[str]:
    """The texts of a drawing, and how often each stands in it."""
    return Counter("".join(each.itertext()) for each in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))


def high(svg: str | bytes) -> float:
    """Inches."""
    return float(str(ET.fromstring(svg).get("height")).removesuffix("in"))


def test_rows_of_panels_then_mechanisms_make_figures_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert figures.HIGHEST <= 9  # inches: letter paper with margins of one
    monkeypatch.setattr(figures, "HIGHEST", 2.8)
    members = many(18)
    found = figures.figures(report.build(members, metrics=("params",)))
    column = [name for name in found if re.fullmatch(r"-memory-column(-\d+)?\.svg", name)]
    page = [name for name in found if re.fullmatch(r"-memory(-\d+)?\.svg", name)]
    assert column == [f"-memory-column-{i}.svg" for i in (1, 2, 3, 4)]
    assert page == ["-memory-1.svg", "-memory-2.svg"]
    assert all(1 < high(found[name]) <= figures.HIGHEST for name in (*column, *page))
    for names, once in ((column, 2), (page, 2)):
        shown = sum((texts(found[name]) for name in names), Counter[str]())
        assert {text: number for text, number in shown.items() if re.fullmatch(r"m\d\d", text)} == {
            f"m{i:02}": once for i in range(18)
        }
    titles = [next(text for text in texts(found[name]) if "part" in text) for name in column]
    assert titles == [f"{mode}, part {i} of 2" for mode in ("inference", "training") for i in (1, 2)]
    assert {"inference, part 1 of 2", "training, part 1 of 2"} <= set(texts(found["-memory-1.svg"]))
    described = json.loads(str(found["-memory-2.vl.json"]))["description"]
    assert described.endswith("This is part 2 of 2, by mechanism; each has axes and markers of its own.")
    assert {name.partition(".")[2] for name in found} == {"svg", "pdf", "png", "vl.json"}


def test_a_page_of_panels_keeps_its_title_where_others_went_to_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "HIGHEST", 3.0)
    found = figures.figures(report.build(many(12), metrics=("params",)))
    assert [name for name in found if name.endswith(".svg")] == [
        "-memory.svg",
        "-memory-column-1.svg",
        "-memory-column-2.svg",
    ]
    for number, mode in ((1, "inference"), (2, "training")):
        shown = texts(found[f"-memory-column-{number}.svg"])
        assert shown[mode] == 1
        assert sum(text.startswith("m") for text in shown) == 12
        assert not any("part" in text for text in shown)


def test_parts_of_ratios_are_held_against_the_same_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "HIGHEST", 1.4)
    monkeypatch.setattr(figures, "_CANVASES", {"": figures._CANVASES[""]})
    members = [each for each in many(10) if each.case.mode == "inference"]
    found = figures.figures(report.build(members, baseline="m07", metrics=("macs",)))
    parts = [str(found[name]) for name in found if re.fullmatch(r"-deltas-\d\.svg", name)]
    assert len(parts) > 1
    shown = sum(map(texts, parts), Counter[str]())
    names = {text: number for text, number in shown.items() if re.fullmatch(r"m\d\d", text)}
    assert names == {f"m{i:02}": 1 for i in range(10) if i != 7}
    assert shown["+0.2 %"] == 1  # 1009 over 1007
    assert all(high(part) <= 1.4 for part in parts)


@pytest.mark.parametrize("other", [(7, 7), (97, 97)])
def test_a_part_shows_the_cases_that_the_whole_would(other: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A survey whose parts are at one size each, and sizes of which one is shown: what is not at it is in no part."""
    monkeypatch.setattr(figures, "HIGHEST", 1.6)
    monkeypatch.setattr(figures, "_CANVASES", {"-column": figures._CANVASES["-column"]})
    held = (Holder(2**20, "bmm", "", "forward", (512, 512)),)
    members = [record(f"n{i:02}", counts(1, 2**20, at_peak=held), hw=(14, 14), device="none") for i in range(8)]
    members += [record(f"m{i:02}", counts(1, 2**20, at_peak=held), hw=(56, 56), device="none") for i in range(8)]
    survey = other == (7, 7)
    members += [record("m00" if not survey else "x", counts(1, 2**20, at_peak=held), hw=other, device="none")]
    members += [record(f"l{i:02}", counts(1, 2**20, at_peak=held), hw=other, device="none") for i in range(8)]
    found = figures.figures(report.build(members, metrics=("params",)))
    parts = [str(found[name]) for name in found if re.fullmatch(r"-memory-column-\d\.svg", name)]
    assert len(parts) > 1
    names = [text for part in parts for text in texts(part).elements() if re.fullmatch(r"[lmn]\d\d|x", text)]
    wanted = [each.case.label for each in members if survey or each.case.shape.height == 97]
    assert sorted(names) == sorted(wanted)


def test_a_figure_that_cannot_be_lower_is_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "HIGHEST", 0.1)
    monkeypatch.setattr(figures, "_CANVASES", {"-column": figures._CANVASES["-column"]})
    found = figures.figures(report.build(many(2)[:2], metrics=("params",)))
    drawn = [texts(content) for name, content in found.items() if re.fullmatch(r"-memory-column-\d\.svg", name)]
    assert [sorted({"m00", "m01"} & set(each)) for each in drawn] == [["m00"], ["m01"]]
