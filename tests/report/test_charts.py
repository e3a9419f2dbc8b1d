"""Charts hold the numbers of the records: exponents, Pareto fronts, ratios, holders; and figures are files that open."""

from __future__ import annotations

import json
import math
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprof.errors import UsageError
from attnprof.profiling.forms import kept
from attnprof.records import Case, Record, Shape, Timing
from attnprof.report import figures
from attnprof.report.charts import Canvas, Chart, axes, charts_of, data, exponents, panels_of, ratios, spec_of, together
from attnprof.report.metrics import METRICS, Reading
from attnprof.report.ratios import Ratio
from tests.report.chart_records import HOSTILE, SIDES, built, counts, grown, hostile, passes, placed, record, run

CANVAS = Canvas(200, 150, 10)
SCREEN = Canvas(300, 250, 12, interactive=True)


def charts(records: list[Record], every_size: bool = False, **more: Any) -> dict[str, Chart]:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    return {chart.key: chart for chart in charts_of(built(records, **more), every_size)[0]}


def rows(spec: Any) -> Iterator[dict[str, Any]]:
    """All rows of data in a Vega-Lite spec."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if key == "values" and isinstance(value, list):
                yield from (row for row in value if isinstance(row, dict))
            elif key == "datasets":
                yield from (row for each in value.values() for row in each)
            else:
                yield from rows(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from rows(value)


def context(records: list[Record]) -> data.Context:
    (found,) = data.contexts(records)
    return found


# Cost against size.


def test_a_line_has_the_records_values_and_their_exponent() -> None:
    records = grown("square", 2.0, 10) + grown("linear", 1.0, 3)
    square, linear = data.lines(context(records), METRICS["macs"], data.series_of(records))
    assert [point.n for point in square.points] == [side * side for side in SIDES]
    assert [point.reading.value for point in square.points] == [10 * side**4 for side in SIDES]
    assert square.exponent == pytest.approx(2.0, abs=1e-9)
    assert linear.exponent == pytest.approx(1.0, abs=1e-9)


def test_an_exponent_is_the_slope_by_least_squares() -> None:
    values = {8: 100, 64: 700, 4096: 90_000}
    points = [
        data.Point(n, "", METRICS["macs"].read(record("x", 1, counts(v, 1))) or pytest.fail("no reading"))
        for n, v in values.items()
    ]
    x, y = ([math.log(v) for v in each] for each in (values.keys(), values.values()))
    mean_x, mean_y = sum(x) / 3, sum(y) / 3
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    assert exponents.exponent(points) == pytest.approx(slope)
    assert exponents.exponent(points[:1]) is None
    assert exponents.exponent([points[0], points[0]]) is None


def timed(value: float, side: int, noise: float) -> Record:
    """A record whose latency has an interval of `noise` parts on either side."""
    samples = tuple(value * (1 + noise * each) for each in (-1, -1, -1, 0, 0, 0, 1, 1, 1))
    return record("x", side, counts(1000 * side, 1), timing=Timing(samples, tuple(range(9)), str(side)))


def test_a_measured_cost_has_no_exponent_below_three_sizes_and_two_digits_from_there() -> None:
    members = [timed(side**2.5, side, 0.1) for side in (8, 16, 32)]
    two, three = charts(members[:2])["latency"], charts(members)["latency"]
    assert [row[2] for row in two.facts[1:]] == ["- (below 3 sizes)"]
    assert "No exponent is given below 3 sizes" in two.caption
    assert "Beside each name" not in two.caption
    panel = two.draw(CANVAS)[0]
    assert "no exponent" in panel.said
    assert {row["name"] for row in rows(spec_of(panel, CANVAS, "x")) if "name" in row} == {"x"}
    assert charts(members[:2])["macs"].facts[1][2] == "0.500"  # a count is not noisy
    low, high = 1.25 + math.log(0.9 / 1.1) / math.log(16), 1.25 + math.log(1.1 / 0.9) / math.log(16)
    assert [row[2] for row in three.facts[1:]] == [f"1.2 [{low:.1f}, {high:.1f}]"]
    assert "No exponent" not in three.caption
    panel = three.draw(CANVAS)[0]
    assert {row["name"] for row in rows(spec_of(panel, CANVAS, "x")) if "name" in row} == {"x  1.2"}


@given(
    values=st.lists(st.tuples(*(st.floats(0.001, 1000) for _ in range(3))).map(sorted), min_size=3, max_size=6),
    shares=st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_any_values_inside_the_intervals_have_an_exponent_between_its_ends(
    values: list[list[float]], shares: list[float]
) -> None:
    points = [data.Point(4**i, "", Reading(middle, low, high)) for i, (low, middle, high) in enumerate(values, 1)]
    ends = exponents.exponent_ends(points)
    assert ends is not None
    inside = [low + share * (high - low) for (low, _, high), share in zip(values, shares, strict=False)]
    slope = exponents.exponent([data.Point(4**i, "", Reading(value)) for i, value in enumerate(inside, 1)])
    assert slope is not None
    assert ends[0] - 1e-6 <= slope <= ends[1] + 1e-6
    assert exponents.exponent_ends([*points, data.Point(4**9, "", Reading(1.0))]) is None


def test_the_order_of_a_kept_form_is_said_where_the_record_was_counted_by_the_same_code() -> None:
    name = "spatial/nonlocal"
    made = kept.made_from(name)
    case = Case(name, "nonlocal", {}, Shape(1, 512, 65, 65))
    same = Record(case, counts=counts(1, 1), environment={"provenance": made})
    other = replace(same, environment={"provenance": made | {"counting": "of another day"}})
    forms = kept.forms_of(name, "inference")
    assert forms is not None
    assert data.order_of(same, METRICS["macs"]) == forms.forms["macs"].order
    assert data.order_of(other, METRICS["macs"]) == ""
    assert data.order_of(replace(same, environment={}), METRICS["macs"]) == ""
    assert data.order_of(same, METRICS["latency"]) == ""


@pytest.mark.parametrize(
    ("order", "power"), [("O(C*N**1.5 + C**2*N)", "1.5"), ("O(N + C)", "1"), ("O(C**2)", "0"), ("O(N**2 + C*N)", "2"), ("", "")]
)
def test_the_power_of_an_order(order: str, power: str) -> None:
    assert data.Line(0, "x", (), 1.0, order).power == power


def test_contexts_are_what_sizes_and_mechanisms_do_not_tell_apart() -> None:
    found = data.contexts(run())
    assert [(each.title, len(each.records)) for each in found] == [("inference", 15), ("training", 15)]
    assert [block[0].case.shape.height for block in found[0].blocks] == list(SIDES)


def test_the_chart_of_macs_holds_every_positive_value_and_says_what_it_leaves_out() -> None:
    records = run()
    chart = charts(records)["macs"]
    panel = chart.draw(CANVAS)[0]
    drawn = {(row["label"], row["size"]): row["value"] for row in rows(spec_of(panel, CANVAS, "x")) if "size" in row}
    wanted = {
        (each.case.label, data.size_text(each.case)): each.counts.macs
        for each in records
        if each.counts is not None and each.counts.macs and each.case.mode == "inference"
    }
    assert drawn == wanted
    assert "fails oom at 64x64" in chart.caption
    assert "free (0)" in chart.caption
    assert panel.title == "inference"


def test_latency_has_its_interval_and_parameters_are_not_drawn_against_size() -> None:
    records = run()
    found = charts(records)
    drawn = [
        row
        for row in rows(spec_of(found["latency"].draw(CANVAS)[0], CANVAS, "x"))
        if row.get("label") == "square" and "size" in row
    ]
    timings = [each.timing for each in records[:3] if each.timing is not None]
    assert [(row["low"], row["high"]) for row in drawn[:3]] == [timing.ci_s for timing in timings]
    assert "Bands are 95 % intervals" in found["latency"].caption
    assert "params" not in found
    assert any("parameters" in reason for reason in charts_of(built(records))[1])


def test_facts_under_a_chart_are_its_lines_the_steepest_first() -> None:
    head, *found = charts(run())["macs"].facts
    assert head == ("Where", "Mechanism", "Exponent", "Sizes", "Closed form")
    inference = [row for row in found if row[0] == "inference"]
    assert [row[1:4] for row in inference] == [
        ("square", "2.000", "16x16 to 64x64"),
        ("fails", "1.500", "16x16 to 32x32"),
        ("linear", "1.000", "16x16 to 64x64"),
        ("flat", "0.000", "16x16 to 64x64"),
    ]


def test_every_series_has_a_colour_and_marker_of_its_own() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    shapes = axes.shape_scale(49).to_dict()["range"]
    colours = len(axes.COLOURS) + 1
    assert len({(i % colours, shape) for i, shape in enumerate(shapes)}) == 49


# Cost against cost.

COORDINATES = st.tuples(st.integers(0, 12), st.integers(0, 12))


@given(st.lists(COORDINATES, max_size=40))
def test_the_front_is_that_of_a_comparison_of_all_pairs(points: list[tuple[int, int]]) -> None:
    def beaten(a: tuple[int, int]) -> bool:
        return any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in points)

    assert sorted(data.front(points)) == [i for i, point in enumerate(points) if not beaten(point)]


def test_spots_are_the_records_and_only_whole_counts_are_ranked() -> None:
    block = [record(label, 16, found) for label, found in (
        ("a", counts(10, 100)), ("b", counts(20, 50)), ("c", counts(20, 60)), ("d", counts(1, 1, uncounted={"sparse": 1})),
    )]  # fmt: skip
    found = {spot.label: spot for spot in data.spots(block, METRICS["macs"], METRICS["peak_memory"], data.series_of(block))}
    assert {name: (spot.x.value, spot.y.value) for name, spot in found.items()} == {
        "a": (10, 100), "b": (20, 50), "c": (20, 60), "d": (1, 1),
    }  # fmt: skip
    assert [name for name, spot in found.items() if spot.on_front] == ["a", "b"]
    assert [name for name, spot in found.items() if not spot.ranked] == ["d"]


def test_the_front_chart_is_of_the_largest_size_and_puts_zeros_beside_the_scale() -> None:
    found = charts(run())["macs-peak-memory"]
    assert found.size == "64x64"
    spec = spec_of(found.draw(CANVAS)[0], CANVAS, "x")
    drawn = {row["label"]: row for row in rows(spec) if "front" in row}
    assert set(drawn) == {"square", "linear", "flat", "free"}  # what failed has no values
    assert drawn["free"]["x"] == 0
    assert 0 < drawn["free"]["at_x"] < drawn["flat"]["x"]
    assert "What is 0 stands at the mark 0" in found.caption
    assert {row["label"] for row in drawn.values() if row["front"] == "yes"} == {"free", "flat"}
    every = [chart for chart in charts_of(built(run()), every_size=True)[0] if chart.key == "macs-peak-memory"]
    assert [chart.size for chart in every] == ["64x64", "32x32", "16x16"]


# Ratios.


def test_bars_are_the_ratios_to_the_baseline() -> None:
    block = [
        record("square", 16, counts(100, 1000)),
        record("half", 16, counts(50, 3000)),
        record("fails", 16, None, status="oom"),
    ]
    base = data.base_of(block, "square")
    assert base is block[0]
    half, fails = data.bars(block, base, METRICS["macs"], data.series_of(block))
    assert (half.label, half.ratio.value) == ("half", 0.5)
    assert fails.ratio.value is None
    assert "oom" in fails.ratio.reason


def test_what_the_bars_are_held_against() -> None:
    one = [record(f"se[reduction={r}]", 16, counts(100, r), args={"reduction": r}, mechanism="mine/se") for r in (1, 2)]
    assert data.base_of(one, None) is one[0]
    network = placed()
    assert data.base_of(network, None) is network[0]
    assert data.base_of([record("a", 16, counts(1, 1)), record("b", 16, counts(1, 1))], None) is None


def test_ratios_are_drawn_as_percent_where_all_are_small() -> None:
    panels = {panel.title: panel for panel in charts(placed(), baseline=None)["deltas"].draw(SCREEN)}
    drawn = [row for row in rows(spec_of(panels["MACs"], SCREEN, "x")) if "ratio" in row]
    assert [(row["label"], row["text"]) for row in drawn] == [("se", "+0.1 %"), ("eca", "+0.01 %")]
    assert [row["at"] for row in drawn] == pytest.approx([0.1, 0.01])


def test_a_ratio_of_nothing_has_no_bar_and_one_without_value_says_why() -> None:
    axis = ratios._axis([data.Bar(0, "x", Ratio(0.25)), data.Bar(1, "y", Ratio(0.0))])
    zero, none = ratios.bar_rows([data.Bar(1, "y", Ratio(0.0)), data.Bar(2, "z", Ratio(reason="no pairs"))], axis)
    assert (zero["text"], zero["at"]) == ("0x", 1.0)
    assert (none["text"], none["said"]) == ("-", "no pairs")
    assert axis.ends[0] < 0.25
    assert axis.ends[1] == 1.0


# Who holds the memory.


def test_shares_at_the_peak_are_those_of_the_trace() -> None:
    found = record("square", 16, counts(5, 1001))
    assert [(share.op, share.bytes) for share in data.shares(found)] == [("softmax", 501), ("bmm", 500)]
    chart = charts(run())["memory"]
    drawn = [row for row in rows(spec_of(chart.draw(CANVAS)[0], CANVAS, "x")) if "group" in row]
    for label in ("square", "free"):
        own = [row for row in drawn if row["label"] == label]
        assert sum(row["bytes"] for row in own) == next(
            each.counts.peak_bytes for each in run() if each.counts and (each.case.label, each.case.shape.height) == (label, 64)
        )
        assert own[-1]["end"] == pytest.approx(1.0)
    assert ("inference", "square", "640 MiB", "bmm 50 %, softmax 50 %") in chart.facts


# Without data.


def test_charts_without_data_are_left_out_with_a_reason() -> None:
    empty = Record(Case("mine/x", "x", {}, Shape(1, 8, 16, 16)), status="error", detail="it broke")
    found, reasons = charts_of(built([empty], baseline=None))
    assert found == []
    assert len(reasons) == 5
    assert all("not drawn" in reason for reason in reasons)
    with pytest.raises(UsageError, match="no figure can be drawn"):
        figures.figures(built([empty], baseline=None))


def test_a_survey_has_no_front_since_every_case_has_its_own_size() -> None:
    survey = [record(f"m{side}", side, counts(side, side)) for side in SIDES]
    assert set(charts(survey, baseline=None)) == {"memory"}


# What altair is not asked to check when a page is drawn.


@pytest.mark.parametrize("canvas", [CANVAS, SCREEN], ids=["paper", "screen"])
def test_every_kind_of_chart_is_vega_lite(canvas: Canvas) -> None:
    schema = pytest.importorskip("altair", reason="the extra 'plots' is not installed").Root
    kinds: dict[str, Any] = {}
    for rep in (built([*run(), *passes()]), built(placed(), baseline=None)):
        for chart in charts_of(rep, canvas.interactive)[0]:
            kinds.setdefault(chart.key, chart)
            if chart.key == "deltas":
                kinds["percent"] = chart
    assert {"macs", "latency", "macs-peak-memory", "macs-latency", "deltas-inference", "percent", "memory", "timeline"} <= set(
        kinds
    )
    for chart in kinds.values():
        spec = spec_of(panels_of(chart, canvas)[0], canvas, "x") if canvas.interactive else together(chart, canvas)
        schema.validate(spec)
        views = spec.get("concat", [spec])
        assert {part["data"]["name"] for view in views for part in (view, *view["layer"]) if "data" in part} == set(
            spec["datasets"]
        )


# Axes and names.


@pytest.mark.parametrize(
    ("ends", "binary", "wanted"),
    [
        ((1e3, 1e9), False, [1e4, 1e6, 1e8]),
        ((2.0**20, 2.0**41), True, [2.0**20, 2.0**25, 2.0**30, 2.0**35, 2.0**40]),
        ((90.0, 1100.0), False, [100.0, 200.0, 500.0, 1000.0]),
    ],
)
def test_ticks_are_round_and_inside(ends: tuple[float, float], binary: bool, wanted: list[float]) -> None:
    found = axes.ticks(*ends, binary=binary)
    assert all(ends[0] <= tick <= ends[1] for tick in found)
    assert 2 <= len(found) <= 7
    assert set(wanted) & set(found)


@given(st.floats(1e-9, 1e15), st.floats(1.0, 1e12), st.booleans())
def test_any_axis_has_ticks(low: float, factor: float, binary: bool) -> None:
    ends = axes.padded([low, low * factor])
    found = axes.ticks(*ends, binary=binary)
    assert 1 <= len(found) <= 7
    assert found == sorted(found)
    assert all(ends[0] <= tick <= ends[1] for tick in found)


def test_ticks_say_their_unit() -> None:
    assert [axes.tick_text(value, METRICS["latency"]) for value in (1e-4, 1e-3, 0.5)] == ["100 us", "1 ms", "500 ms"]
    assert [axes.tick_text(value, METRICS["peak_memory"]) for value in (2.0**20, 2.0**31)] == ["1 MiB", "2 GiB"]
    assert [axes.tick_text(value, METRICS["macs"]) for value in (0, 1e6, 3e9)] == ["0", "1 M", "3 G"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(0.5, 10))
def test_names_are_spread_in_their_order(wanted: list[float], gap: float) -> None:
    length = max(100.0, gap * len(wanted))
    found = axes.spread(wanted, gap, length)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = [found[i] for i in order]
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(places))
    assert min(places) >= -1e-6
    assert max(places) <= length + 1e-6


def test_names_that_have_room_stay_where_they_are() -> None:
    assert axes.spread([10.0, 50.0, 90.0], 5.0, 100.0) == pytest.approx([10.0, 50.0, 90.0])


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 150)), min_size=1, max_size=25))
def test_names_of_points_do_not_lie_on_each_other(points: list[tuple[float, float]]) -> None:
    font, names = 10.0, [f"name {i}" for i in range(len(points))]
    found = axes.placed(points, names, (200, 150), font, [])
    boxes = []
    for i, (align, dx, dy) in found.items():
        wide = axes.text_width(names[i], font)
        left = points[i][0] + dx - {"left": 0.0, "right": wide, "center": wide / 2}[align]
        boxes.append((left, points[i][1] + dy - font / 2, left + wide, points[i][1] + dy + font / 2))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


# Figures.


def test_figures_are_svg_pdf_and_png_of_the_promised_width() -> None:
    pytest.importorskip("vl_convert", reason="the extra 'plots' is not installed")
    found = figures.figures(built(grown("square", 2.0, 10) + grown("linear", 1.0, 30)))
    keys = {chart.key for chart in charts_of(built(grown("square", 2.0, 10) + grown("linear", 1.0, 30)))[0]}
    assert "macs" in keys
    assert set(found) == {
        f"-{key}{suffix}"
        for key in keys
        for suffix in (".svg", ".pdf", ".png", ".vl.json", "-column.svg", "-column.pdf", "-column.png")
    }
    for suffix, inches in (("", 6.9), ("-column", 3.3)):
        svg, pdf, png = (found[f"-macs{suffix}.{kind}"] for kind in ("svg", "pdf", "png"))
        assert isinstance(svg, str)
        assert isinstance(pdf, bytes)
        assert isinstance(png, bytes)
        root = ET.fromstring(svg)
        assert root.get("width") == f"{inches:g}in"
        assert any("square" in (text.text or "") for text in root.iter("{http://www.w3.org/2000/svg}text"))  # text stays text
        box = re.search(rb"/MediaBox ?\[0 0 ([\d.]+)", pdf)
        assert box is not None
        assert float(box[1]) == pytest.approx(72 * inches, abs=4)
        assert b"/FontFile" in pdf or b"/FontFile2" in pdf or b"/FontFile3" in pdf
        assert png.startswith(b"\x89PNG")
        assert int.from_bytes(png[16:20], "big") == pytest.approx(300 * inches, abs=20)
    described = json.loads(str(found["-macs.vl.json"]))
    assert described["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert {row["label"] for row in rows(described) if "label" in row} == {"square", "linear"}


def test_hostile_names_are_text_in_a_figure() -> None:
    vl_convert = pytest.importorskip("vl_convert", reason="the extra 'plots' is not installed")
    for chart in charts(hostile(), baseline=HOSTILE[0]).values():
        root = ET.fromstring(vl_convert.vegalite_to_svg(together(chart, CANVAS)))
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not names & {"script", "image", "img", "foreignObject"}
        assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)


def test_finding_what_to_draw_needs_neither_torch_nor_altair() -> None:
    import subprocess

    code = (
        "import sys; from tests.report.chart_records import built, run; from attnprof.report.charts import charts_of;"
        "charts_of(built(run())); assert 'torch' not in sys.modules and 'altair' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
