"""Reports over several devices: each row says where it was measured, and nothing measured is held against another device's.

Two machines: a holds nonlocal and ccnet of every block, b the others (and of one block all). With one device nothing is said.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from attnprof import report
from attnprof.profiling import bounds, rates
from attnprof.records import Case, Counts, Memory, Record, Shape, Timing
from attnprof.report import compare, console, latex, markdown, wide
from attnprof.report import csv as tidy
from attnprof.report.charts import data, exponents, fronts, scaling
from attnprof.report.devices import Device, device_of, lettered
from attnprof.report.metrics import METRICS
from attnprof.report.ratios import paired, ratio_of
from attnprof.report.table import Column, Look, Table, sort

METRICS_SHOWN = ("macs", "peak_memory", "calibrated_memory", "latency", "energy")
A = {"device": "cpu", "cpu": "AMD EPYC 7B13", "machine": "3f2a91c0ffee", "torch": "2.13.0"}
B = {**A, "machine": "9d40bb12ab34", "executor": "ray", "node": "9c1d04e5f6a7"}
TEXT_A = "cpu, AMD EPYC 7B13, host 3f2a91"
TEXT_B = "cpu, AMD EPYC 7B13, host 9d40bb, node 9c1d04"


def timing(seconds: float, block: str) -> Timing:
    """Twenty samples that go up and down by one percent."""
    return Timing(tuple(seconds * (1 + 0.01 * math.sin(i)) for i in range(20)), tuple(range(20)), block, 5)


def record(label: str, cost: int, where: dict[str, Any], side: int = 64, *, measured: bool = True, **more: Any) -> Record:
    """Latency, energy, measured and calibrated memory grow with `cost`; all of a size stand in one block of one name."""
    case = Case(f"spatial/{label}", label, {}, Shape(1, 8, side, side), "float32", "inference", "cpu")
    found = Counts(1_000, cost, 2 * cost, 4 * cost, cost, cost, cost, cost)
    if not measured:
        return Record(case, counts=found, detail="not measured (budget)", environment=where, **more)
    return Record(
        case,
        counts=found,
        timing=timing(1e-9 * cost, f"block {side}"),
        memory=Memory(2 * cost, "cpu_allocator"),
        calibrated=Memory(3 * cost, "calibrated"),
        energy_j=1e-6 * cost,
        environment=where,
        **more,
    )


def run() -> list[Record]:
    """Three sizes: the small one of device a, the middle one of both, the large one of b but for what was not measured."""
    out = []
    for side, places in ((16, (A, A, A)), (32, (A, A, B)), (64, (B, B, B))):
        for label, power, where in zip(("nonlocal", "ccnet", "se"), (2.0, 1.5, 1.0), places, strict=True):
            out.append(record(label, 10 * round((side * side) ** power), where, side))
    return [*out, record("sasa", 9_000, B, 64, measured=False)]


def built(records: list[Record], baseline: str | None = "nonlocal", **more: Any) -> report.Report:
    return report.build(records, name="sharded", baseline=baseline, metrics=METRICS_SHOWN, **more)


def column(table: Table, key: str, kind: str = "value") -> list[Any]:
    at = next(i for i, one in enumerate(table.columns) if (one.key, one.kind) == (key, kind))
    return [row.cells[at] for row in table.rows]


# Which device


def test_a_device_is_told_by_host_model_uuid_and_node() -> None:
    assert device_of(record("se", 1_000, A)) == Device("cpu", "AMD EPYC 7B13", "", "3f2a91c0ffee", "")
    gpu = {**A, "device": "cuda:0", "gpu": "NVIDIA H200", "gpu_uuid": "GPU-5f3a91c2-77aa", "node": "9c1d04e5f6a7"}
    found = [device_of(record("se", 1_000, {**gpu, key: "other"})) for key in ("gpu", "gpu_uuid", "machine", "node", "cpu")]
    assert len(set(found)) == 5
    assert found[-1] == device_of(record("se", 1_000, gpu))  # the CPU beside a GPU does not make it another
    assert found[-1] is not None
    assert found[-1].text == "cuda:0, NVIDIA H200, GPU-5f3a91c2, host 3f2a91, node 9c1d04"


def test_only_what_was_measured_has_a_device() -> None:
    assert device_of(record("se", 1_000, A, measured=False)) is None
    bare = replace(record("se", 1_000, A), timing=None, memory=None, calibrated=None, energy_j=None)
    assert device_of(bare) is None
    for one in ({"timing": timing(1.0, "")}, {"memory": Memory(1, "x")}, {"calibrated": Memory(1, "x")}, {"energy_j": 1.0}):
        assert device_of(replace(bare, **one)) is not None
    assert device_of(replace(bare, timing=Timing(()))) is None


def test_letters_go_by_first_appearance_and_one_device_has_none() -> None:
    both = [record("a", 1, B), record("b", 1, A, measured=False), record("c", 1, A), record("d", 1, B)]
    assert [(device.host[:2], sign) for device, sign in lettered(both).items()] == [("9d", "A"), ("3f", "B")]
    assert lettered(both[:2]) == {}
    many = [record("a", 1, {**A, "machine": f"{i:012x}"}) for i in range(28)]
    assert list(lettered(many).values())[-3:] == ["Z", "AA", "AB"]


def test_hostile_words_of_an_environment_stay_on_one_line() -> None:
    odd = {**A, "cpu": "x\n| <b>\x1b[31m", "machine": 7, "node": ["n"]}
    assert device_of(record("a", 1, odd)).text == "cpu, x | <b>?[31m, host 7, node ['n']"  # type: ignore[union-attr]


# Tables


def test_every_table_says_where_its_rows_were_measured() -> None:
    found = built(run())
    assert [[cell.text for cell in column(table, "measured_on", "device")] for table in found.tables] == [
        ["A", "A", "A"],
        ["A", "A", "B"],
        ["B", "B", "B", "-"],
    ]
    legend = next(note for note in found.notes if note.startswith("Measured on"))
    assert legend == f"Measured on A: {TEXT_A} (5 rows); B: {TEXT_B} (4 rows)."
    assert any("no ratio, delta, interval, fit or mark" in note for note in found.notes)


@pytest.mark.parametrize("metric", ["measured_memory", "calibrated_memory", "latency", "energy"])
def test_no_ratio_delta_or_mark_is_taken_over_devices(metric: str) -> None:
    small, middle, _ = built(run()).tables
    assert [cell.rank for cell in column(small, metric)] == [0, 2, 1]
    assert [cell.rank for cell in column(middle, metric)] == [0, 0, 0]
    for kind in ("ratio", "delta"):
        assert [cell.text != "-" for cell in column(small, metric, kind)] == [True] * 3
        assert [cell.text != "-" for cell in column(middle, metric, kind)] == [True, True, False]
    assert column(middle, metric, "ratio")[2].reason == "not compared: measured on different devices"


def test_counts_compare_over_devices() -> None:
    for table in built(run()).tables[:2]:
        assert [cell.rank for cell in column(table, "macs")] == [0, 2, 1]
        assert all(cell.text != "-" for cell in column(table, "macs", "ratio"))


def test_marks_of_other_highlights_keep_to_it() -> None:
    middle = built(run(), look=Look(highlight="best")).tables[1]
    assert [cell.rank for cell in column(middle, "latency")] == [0, 0, 0]
    assert 1 in [cell.rank for cell in column(middle, "macs")]


def test_rows_are_sorted_device_by_device() -> None:
    slow_a, fast_a, fast_b = record("slow", 9_000, A), record("fast", 4_000, A), record("other", 1_000, B)
    (table,) = built([slow_a, fast_b, fast_a], baseline=None).tables
    assert [row.record.case.label for row in sort(table, "latency").rows] == ["fast", "slow", "other"]
    assert [row.record.case.label for row in sort(table, "macs").rows] == ["other", "fast", "slow"]


def test_equal_names_of_a_block_do_not_pair_latencies_of_two_machines() -> None:
    here, there = record("a", 1_000, A), record("b", 2_000, B)
    assert paired(here, record("b", 2_000, A))
    assert paired(here, there) == ()
    assert ratio_of(here, there, METRICS["latency"]).delta is None
    assert ratio_of(here, there, METRICS["macs"]).value == 0.5


def test_compare_does_not_say_what_two_devices_took() -> None:
    records = [record("a", 1_000, A), record("b", 2_000, B)]
    said = compare.comparison(records, "a", METRICS_SHOWN).sentences
    assert "b needs 2.00x more MACs than a" in said
    for noun in ("measured peak memory", "calibrated peak memory", "latency", "energy"):
        assert f"{noun}: a and b are not compared (measured on different devices)" in said
    assert not any(re.search(r"needs .*(measured|calibrated|energy)|faster|slower", text) for text in said)


def test_columns_of_counts_alone_say_no_device() -> None:
    counted, timed = (built(run(), columns=columns) for columns in (("macs", "macs.ratio"), ("macs", "latency")))
    for render in (console.render, markdown.render):
        assert "Measured on  " not in render(counted)
        assert "Measured on  " in render(timed)


# Formats


def test_the_console_has_the_letter_beside_the_first_measured_metric_of_each_panel() -> None:
    text = console.render(built(run()))
    assert max(map(len, text.splitlines())) <= 80
    heads = [line for line in text.splitlines() if line.startswith("Mechanism")]
    panels = [head for head in heads if re.search(r"meas\.|calib\.|Latency|Energy", head)]
    assert len(panels) >= 3
    for head in panels:
        assert re.search(r"Measured on +(Peak meas\.|Peak calib\.|Latency|Energy)", head), head
    assert not any("Measured on" in head for head in heads if head not in panels)


def test_markdown_has_a_column_of_letters() -> None:
    lines = markdown.render(built(run())).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines if line.startswith("| ")]
    assert rows[:4] == [["Mechanism", "Measured on"], ["nonlocal", "A"], ["ccnet", "A"], ["se", "A"]]
    assert rows[-1] == ["sasa", "-"]


@pytest.mark.parametrize("style", ["booktabs", "siunitx"])
def test_latex_has_the_letters_and_what_they_stand_for_under_each_table(style: str) -> None:
    text = latex.render(built(run(), look=Look(latex=style)))
    floats = text.split(r"\end{table")[:-1]
    measured = [each for each in floats if "Measured on &" in each or "Latency" in each]
    assert measured
    for each in measured:
        assert "Mechanism & Measured on &" in each
        assert re.search(r"Measured on [AB]: cpu, AMD EPYC", each)
    assert f"A: {TEXT_A} (3 rows)." in floats[0]  # the devices of this table alone
    assert "B: cpu" not in floats[0]


def test_csv_has_a_last_column_that_is_empty_for_counts() -> None:
    reader = csv.DictReader(io.StringIO(tidy.render(built(run()))))
    assert reader.fieldnames is not None
    assert list(reader.fieldnames) == [*tidy.COLUMNS, "measured_on"]
    rows = {(row["label"], row["height"], row["metric"]): row["measured_on"] for row in reader}
    assert rows["se", "32", "latency"] == TEXT_B
    assert rows["nonlocal", "32", "energy"] == TEXT_A
    assert rows["se", "32", "macs"] == rows["sasa", "64", "latency"] == ""


def test_wide_csv_has_a_last_column() -> None:
    reader = csv.DictReader(io.StringIO(wide.render(built(run()))))
    assert reader.fieldnames is not None
    assert reader.fieldnames[-1] == "measured_on"
    found = {(row["label"], row["height"]): row["measured_on"] for row in reader}
    assert (found["nonlocal", "32"], found["se", "32"], found["sasa", "64"]) == (TEXT_A, TEXT_B, "")


def test_html_has_the_column_and_the_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    pytest.importorskip("vl_convert", reason="the extra 'plots' is not installed")
    from attnprof.report import page

    monkeypatch.setattr(page, "_bundle", lambda: "")  # drawing, and Vega itself, take seconds: other tests have them
    monkeypatch.setattr(page, "charts_of", lambda *_, **__: ([], []))
    text = page.render(built(run()))
    assert '<span class="head">Measured on</span>' in text
    assert '<td class="text">B</td>' in text
    assert f"B: {TEXT_B} (4 rows)." in text


def test_one_device_gives_what_it_always_gave() -> None:
    """What stands in a report of one machine does not depend on which one it is, and has no column for it."""
    one = [replace(each, environment=A) for each in run()]
    unknown = [replace(each, environment={"torch": "2.13.0", "device": "cpu", "cpu": "AMD EPYC 7B13"}) for each in run()]
    for name in ("md", "csv", "latex"):
        text, other = (report.FORMATS[name](built(records)) for records in (one, unknown))
        assert text == other
        assert not re.search(r"Measured on|measured_on", str(text))
    assert console.render(built(one)) == console.render(built(unknown))
    assert not any(isinstance(each, Column) and each.kind == "device" for table in built(one).tables for each in table.columns)


# Charts


def test_lines_of_what_was_measured_are_split_by_device_and_fitted_alone() -> None:
    records = [record("se", cost, where, side) for side, cost, where in (
        (8, 100, A), (16, 400, A), (32, 1_600, A), (8, 9_000, B), (16, 9_000, B), (32, 9_000, B))]  # fmt: skip
    (context,) = data.contexts(records)
    series = data.series_of(records)
    alone, (first, second) = data.lines(context, METRICS["macs"], series), data.lines(context, METRICS["latency"], series)
    assert [line.label for line in alone] == ["se"]
    assert [(line.label, line.series) for line in (first, second)] == [("se (A)", 0), ("se (B)", 0)]
    assert first.exponent == pytest.approx(1.0)
    assert second.exponent == pytest.approx(0.0)
    marked = {(row["line"], row["label"]) for row in scaling.point_rows((first, second), METRICS["latency"])}
    assert marked == {(0, "se (A)"), (1, "se (B)")}


def test_a_device_with_too_few_sizes_has_no_exponent() -> None:
    (context,) = data.contexts(run())
    found = {line.label: line for line in data.lines(context, METRICS["latency"], data.series_of(run()))}
    assert set(found) == {"nonlocal (A)", "nonlocal (B)", "ccnet (A)", "ccnet (B)", "se (A)", "se (B)"}
    assert {exponents.exponent_text(line, METRICS["latency"]) for line in found.values()} == {"- (below 3 sizes)"}


def test_the_drawing_joins_no_points_of_two_devices() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    from attnprof.report.charts import together

    drawn, _ = scaling.charts(built(run()), True)
    (latency,) = [chart for chart in drawn if chart.key == "latency"]
    assert "a line for each, with the device's letter, fitted alone" in latency.caption
    spec = json.dumps(together(latency, data_canvas()))
    assert '"detail": {"field": "line", "type": "nominal"}' in spec
    assert '"detail": {"field": "series"' not in spec
    (macs,) = [chart for chart in drawn if chart.key == "macs"]
    assert "device" not in macs.caption


def data_canvas() -> Any:
    from attnprof.report.charts import Canvas

    return Canvas(300, 200, 10)


def test_each_device_has_a_front_of_its_own() -> None:
    # of a, two cases that nothing of a beats; b beats them all in both, and is no better for it
    records = [
        *(record(f"a{i}", cost, A) for i, cost in enumerate((5_000, 6_000, 7_000))),
        *(record(f"b{i}", cost, B) for i, cost in enumerate((1_000, 2_000, 3_000))),
    ]
    drawn, _ = fronts.charts(built(records, baseline=None), True)
    by_key = {chart.key: chart for chart in drawn}
    (block,) = [[("", records)]]
    split = data.by_device(block, (METRICS["macs"], METRICS["latency"]), lettered(records))
    assert [(title, [each.case.label for each in members]) for title, members in split] == [
        ("measured on A", ["a0", "a1", "a2"]),
        ("measured on B", ["b0", "b1", "b2"]),
    ]
    assert data.by_device(block, (METRICS["macs"], METRICS["peak_memory"]), lettered(records)) == block
    assert "Each device has a front of its own" in by_key["macs-latency"].caption
    assert "Each device" not in by_key["macs-peak-memory"].caption
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    said = [panel.said for panel in by_key["macs-latency"].draw(data_canvas())]
    assert [text.rpartition(": ")[2] for text in said] == ["a0.", "b0."]


# Bounds


def rated(each: Record, bytes_per_s: float) -> Record:
    found = bounds.Rates("a device", "published", {"float32": 1e9}, {"float32": 1e9}, bytes_per_s)
    return replace(each, environment=bounds.put(each.environment, found))


def test_bounds_by_different_rates_are_not_compared() -> None:
    same = [rated(record("a", 1_000, A), 1e9), rated(record("b", 2_000, B), 1e9)]
    other = [same[0], rated(record("b", 2_000, B), 2e9)]
    for records, ranks, compared in ((same, [1, 0], True), (other, [0, 0], False)):
        found = report.build(records, baseline="a", metrics=("bound",))
        assert "| Measured on" in markdown.render(found)
        (table,) = found.tables
        assert [cell.rank for cell in column(table, "bound")] == ranks
        assert (column(table, "bound", "ratio")[1].text != "-") is compared
    assert column(table, "bound", "ratio")[1].reason == "not compared: bounds by different rates"


def test_an_unmeasured_case_has_the_rates_of_no_device_where_two_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = bounds.Rates("a device", "measured", {"float32": 1e9}, {"float32": 1e9}, 1e9)
    monkeypatch.setattr(rates, "kept", lambda _: peaks)
    waiting = replace(record("c", 1, {}, measured=False))
    alone = rates.stamped([record("a", 1_000, A), waiting])
    both = rates.stamped([record("a", 1_000, A), record("b", 1_000, B), waiting])
    assert bounds.rates_of(alone[-1]) == peaks
    assert bounds.rates_of(both[-1]) is None
