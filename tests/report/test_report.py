"""Reports from literal records: golden texts, hand-worked ratios, and what must hold for any label. No torch.

A golden file is rewritten by `ATTNPROF_BLESS=1 pytest tests/report/test_report.py`; read the diff before you keep it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof import records, report, stats, units
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import Case, Counts, Holder, Memory, OpCost, Record, Shape, Timing
from attnprof.report import catalogue, cells, compare, console, explain, markdown, metrics, notes, table, text
from attnprof.report import csv as tidy
from attnprof.report.metrics import METRICS, Reading
from attnprof.spec import values

GOLDEN = Path(__file__).parents[1] / "golden"
ENVIRONMENT = {
    "provenance": {"attnprof": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "source": "c4c1", "counting": "b9b7"},
    "device": "cpu",
    "cpu": "Example CPU",
    "load_1m": 0.3,
    "torch": "2.13.0",
    "flags": {"threads": 1, "pinned_cores": [1], "matmul_tf32": False, "cudnn_tf32": True},
}


def counts(macs: int, peak: int, params: int = 526_848, **more: Any) -> Counts:
    return Counts(params, macs, 2 * macs + 1_000, 4 * peak, 2 * peak, 20_000_000, peak, peak + 512, **more)


def timing(milliseconds: float, block: str = "b1", rounds: int = 20, **more: Any) -> Timing:
    """Samples that go up and down by one percent; every member of a block has the same rounds."""
    samples = tuple(milliseconds * 1e-3 * (1 + 0.01 * math.sin(i)) for i in range(rounds))
    return Timing(samples, tuple(range(rounds)), block, 5, **more)


def record(
    label: str,
    found: Counts | None = None,
    timed: Timing | None = None,
    *,
    mode: str = "inference",
    hw: tuple[int, int] = (97, 97),
    device: str = "cpu",
    args: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> Record:
    mechanism = f"spatial/{label.partition('[')[0]}"
    case = Case(mechanism, label, args or {}, Shape(1, 512, *hw), "float32", mode, device, settings=settings or {})
    return Record(case, counts=found, timing=timed, environment=ENVIRONMENT, **more)


def run() -> list[Record]:
    """Both modes; an ablation axis, an unmeasured cell, a failure with counts, one without, an unpaired latency."""
    out = []
    for mode, scale in (("inference", 1), ("training", 3)):
        block = f"block {mode}"
        out += [
            record("nonlocal", counts(50_000_000_000 * scale, 372 * 2**20), timing(400.0 * scale, block), mode=mode),
            record(
                "ccnet[recurrence=1]",
                counts(5_800_000_000 * scale, 20 * 2**20),
                timing(200.0 * scale, block, warnings=("clock dropped to 80 %",)),
                mode=mode,
                args={"recurrence": 1},
            ),
            record(
                "ccnet[recurrence=2]",
                counts(8_300_000_000 * scale, 41 * 2**20),
                timing(401.0 * scale, "another block"),
                mode=mode,
                args={"recurrence": 2},
            ),
            record("se", counts(32_768, 4 * 2**20, 32_768), mode=mode, detail="not measured (budget)"),
            record("simam", counts(0, 2 * 2**20, 0), timing(2.0, block, stopped_by="budget"), mode=mode),
            record("sasa", counts(9_000_000_000, 90 * 2**20), mode=mode, status="timeout", detail="no answer for 300 s"),
            record("fullattn", mode=mode, status="oom", detail="host: 61 GiB wanted"),
        ]
    return out


def golden(name: str, actual: str) -> None:
    """Equal to tests/golden/NAME; ATTNPROF_BLESS=1 writes it."""
    path = GOLDEN / name
    if os.environ.get("ATTNPROF_BLESS"):
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8"), f"{path} differs: read the diff, then ATTNPROF_BLESS=1"


def full_record() -> Record:
    """A record whose ops and holders add up."""
    ops = (
        OpCost("convolution", "query", "forward", 1, 600, 1_200, 4_096),
        OpCost("bmm", "", "forward", 2, 4_000, 8_000, 10_240),
        OpCost("_softmax", "", "forward", 1, 0, 500, 8_192),
        OpCost("convolution", "out|put", "forward", 1, 400, 800, 2_048),
    )
    holders = (
        Holder(3 * 2**20, "bmm", "", "forward", (1, 9409, 9409)),
        Holder(2**20, "convolution", "query", "forward", (64, 64)),
    )
    found = Counts(
        *(1_000, 5_000, 10_500, 24_576, 9_000, 7_000, 4 * 2**20, 4 * 2**20),
        at_peak=holders,
        uncounted={"aten.special": 2},
        assumed={"aten.nonzero": 1},
        traced_by="fake",
        ops=ops,
    )
    return record("nonlocal", found, device="none")


# Golden texts


@pytest.mark.parametrize("name", ["csv", "json", "latex", "md"])
def test_formats_match_their_golden_files(name: str) -> None:
    built = report.build(run(), name="segmentation", baseline="nonlocal")
    ((suffix, content),) = report.FORMATS[name](built).items()
    assert isinstance(content, str)
    golden(f"segmentation{suffix}", content)


def test_the_wide_csv_matches_its_golden_file() -> None:
    built = report.build(run(), name="segmentation", baseline="nonlocal", look=report.Look(wide=True))
    golden("wide.csv", str(report.FORMATS["csv"](built)[".csv"]))


def test_console_matches_its_golden_file() -> None:
    golden("segmentation.txt", console.render(report.build(run(), name="segmentation", baseline="nonlocal")))


def test_compare_matches_its_golden_file() -> None:
    members = [each for each in run() if each.case.label in ("nonlocal", "ccnet[recurrence=1]", "se")]
    golden("compare.txt", compare.render(compare.comparison(members, "nonlocal"), sort="macs"))


def test_explain_matches_its_golden_file() -> None:
    golden("explain.txt", explain.render(full_record(), top=2))


def test_catalogue_matches_its_golden_file() -> None:
    entries = [
        ("channel", "se", "Squeeze-and-Excitation", "Hu, Shen, Sun. CVPR 2018. arXiv:1709.01507, § 3"),
        ("channel", "plain", "A plain layer", "none: the plain layer, e.g. Zhao et al., CVPR 2017"),
        ("channel_spatial", "a_name_of_some_length", "A title that is far too long for its column " * 2, "Nobody"),
    ]
    headings = {"Paper": entries[0][3], "Formula": "s = W₂ δ(W₁ GAP(x));\ny = s ⊙ x"}
    shown = catalogue.show_text(
        "channel/se", "Squeeze-and-Excitation", headings, [("reduction", "16"), ("hw", None)], {"MACs": "1"}
    )
    golden("catalogue.txt", catalogue.list_text(entries) + "\n" + shown)


# What holds for every report


def grids(built: report.Report) -> list[list[list[str]]]:
    """Cells of the pipe tables of the Markdown, unescaped pipes only."""
    out: list[list[list[str]]] = []
    previous = ""
    for line in markdown.render(built).splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                out.append([])
            out[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        previous = line
    return out


LABELS = st.text(min_size=1, max_size=120)


@settings(max_examples=60)
@given(LABELS, LABELS, LABELS)
def test_any_label_fits_80_columns_and_breaks_no_table(label: str, detail: str, argument: str) -> None:
    members = [
        record("nonlocal", counts(10, 20), timing(1.0)),
        replace(record(label, status="error", detail=detail), case=replace(record(label).case, args={argument: detail})),
        record(label + "2", counts(7, 9), timing(2.0)),
    ]
    built = report.build(members, name=label, baseline="nonlocal")
    for line in console.render(built).split("\n"):
        assert text.width(line) <= 80
        assert len(line) <= 80
    compared = compare.render(compare.comparison(members, "nonlocal"))
    assert all(text.width(line) <= 80 for line in compared.split("\n"))
    for rows in grids(built):
        assert {len(row) for row in rows} == {len(rows[0])}
        assert all(cell for row in rows for cell in row)
    parsed = list(csv.DictReader(io.StringIO(tidy.render(built), newline="")))
    assert len(parsed) == 3 * 5
    assert not any(value.lstrip()[:1] in tuple("=+@") for row in parsed for value in row.values() if value)
    explained = explain.render(replace(full_record(), case=members[1].case))
    assert all(text.width(line) <= 80 for line in explained.split("\n"))
    listed = catalogue.list_text([("channel_spatial", "some_long_name", label, detail)])
    assert all(text.width(line) <= 80 for line in listed.split("\n"))
    shown = catalogue.show_text(label, detail, {"Formula": argument}, [("x", label)])
    assert all(text.width(line) <= 80 for line in shown.split("\n"))


def test_every_case_is_there_exactly_once_and_no_cell_is_empty() -> None:
    members = run()
    built = report.build(members, name="segmentation", baseline="nonlocal")
    assert Counter(row.record.case.key for each in built.tables for row in each.rows) == Counter(m.case.key for m in members)
    assert all(cell.text for each in built.tables for row in each.rows for cell in row.cells)
    lines = console.render(built).splitlines()
    assert not any(re.search(r"\s$", line) for line in lines)
    labels = [row[0] for rows in grids(built) for row in rows[2:]]
    assert Counter(labels) == Counter(m.case.label for m in members)


def test_a_table_per_size_mode_and_setting() -> None:
    members = [
        record("se", counts(1, 2), mode=mode, hw=hw, device="none", settings={"sdpa": sdpa, "cache": "cold"})
        for hw in ((65, 65), (65, 97))
        for mode in records.MODES
        for sdpa in ("math", "fused")
    ]
    built = report.build(members)
    heads = [each.title for each in built.tables]
    assert len(set(heads)) == 8
    assert heads[0] == "65x65, 512 channels, batch 1, float32, inference, traced only, sdpa=math"
    assert "Settings: cache=cold." in built.notes


def test_wide_characters_take_two_columns() -> None:
    assert text.width("日本") == 4
    assert text.clip("日本語の注意機構", 9) == "日本…機構"
    assert text.clip("ccnet[recurrence=3]", 11) == "ccnet…ce=3]"
    assert text.wrap("日本語の注意", 5) == ["日本", "語の", "注意"]


def test_no_records_says_so() -> None:
    built = report.build([])
    assert "No cases." in console.render(built)
    assert "No cases." in markdown.render(built)


def test_every_format_and_command_text_leaves_heavy_modules_out() -> None:
    code = (
        "import sys; from attnprof import report; from attnprof.report import compare, console, explain, catalogue;"
        "print([m for m in ('torch', 'pandas', 'rich', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=GOLDEN.parent.parent)
    assert found.stdout.strip() == "[]"


# Digits, units, ranks


@pytest.mark.parametrize(
    ("value", "places", "shown"),
    [
        *((0, 2, "0"), (12.345, 2, "12.35"), (0.5, 2, "0.50"), (0.0049, 2, "0.0049"), (0.001, 2, "0.0010")),
        *((0.00099, 2, "<0.001"), (3.3e-8, 2, "<0.001")),
        *((999.94, 1, "999.9"), (999.96, 1, "1000"), (1234.5, 2, "1234"), (35013.1, 1, "35013")),
    ],
)
def test_numbers_never_read_as_zero(value: float, places: int, shown: str) -> None:
    assert cells.number(value, places) == shown


def test_a_large_and_a_tiny_value_in_one_column() -> None:
    members = [record("a", counts(1, 35_013 * 2**20 + 99_999)), record("b", counts(10**7, 2**10)), record("c", counts(0, 0))]
    built = report.build(members, metrics=["macs", "peak_memory"])
    assert [[cell.text for cell in row.cells[1:]] for row in built.tables[0].rows] == [
        ["<0.001", "35013"],
        ["10.0", "<0.001"],
        ["0", "0"],
    ]
    rows = list(csv.DictReader(io.StringIO(tidy.render(built), newline="")))
    assert [row["value"] for row in rows[:2]] == ["1", str(35_013 * 2**20 + 99_999)]
    assert cells.value_text(Reading(1e-7, 5e-8, 2e-7), 2, 1e-3) == "<0.001"
    assert cells.value_text(Reading(1.2004, 1.2, 1.2006), 2, 1e-3) == "1200 ± <1"


@pytest.mark.parametrize(
    ("delta", "exact", "shown"),
    [
        *((0, True, "0"), (1.25, True, "+1.2"), (-0.034, True, "-0.034"), (-2e-9, True, "-<0.001"), (35013.1, True, "+35013")),
        *((0, False, "0"), (0.17, False, "+0.2"), (-0.034, False, "-<0.1")),
    ],
)
def test_deltas_have_a_sign(delta: float, exact: bool, shown: str) -> None:
    assert cells.delta_text(delta, 1, 1.0, exact) == shown


def test_decimals_follow_the_interval() -> None:
    assert cells.decimals([Reading(12.4123, 12.33, 12.49)], 1.0) == 2  # half-width 0.08: hundredths are a tenth of it
    assert cells.decimals([Reading(12.4123, 12.4122, 12.4124)], 1.0) == 2  # four significant digits at most
    assert cells.decimals([Reading(412.0, 300.0, 500.0)], 1.0) == 0
    assert cells.value_text(Reading(12.4123, 12.33, 12.49), 2, 1.0) == "12.41 ± 0.08"
    assert cells.value_text(Reading(12.4123, 12.4122, 12.4124), 2, 1.0) == "12.41 ± <0.01"


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1.0, 3.7, "1.1 [1.0, 3.7]"),  # ± 2.6 would say that it may be below zero
        (0.5, 1.2, "1.1 [0.5, 1.2]"),
        (1.1, 1.3, "1.1 [1.1, 1.3]"),
        (0.7, 1.6, "1.1 ± 0.5"),  # 1.25 times: told by one number
        (1.1, 1.14, "1.1 ± <0.1"),  # below what the column shows
    ],
)
def test_a_skewed_interval_shows_both_ends(low: float, high: float, shown: str) -> None:
    assert cells.value_text(Reading(1.1, low, high), 1, 1.0) == shown


def test_skewed_intervals_fit_in_80_columns() -> None:
    members = [
        record(label * 20, counts(1, 1), Timing((1234.5,) * 6 + (1300.0,) * 5 + (98765.4,) * 6, tuple(range(17)), "b"))
        for label in "abc"
    ]
    printed = console.render(report.build(members, baseline="a" * 20))
    assert "[1234500" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_short_reason_keeps_whole_clauses() -> None:
    reason = "not calibrated: the pass cannot be followed without data: there is nothing to probe."
    assert text.first_clauses(reason, 60) == "not calibrated: the pass cannot be followed without data"
    assert text.first_clauses("not measured (budget)", 60) == "not measured (budget)"
    assert text.first_clauses("no clause in it. " * 6, 20) == text.clip("no clause in it. " * 6, 20)
    member = replace(record("a", counts(1, 1), timing(1.0)), detail=reason)
    (note,) = [note for note in report.build([member], metrics=["calibrated_memory"]).notes if "have a value" in note]
    assert note.endswith("1 not calibrated: the pass cannot be followed without data.")


def test_interval_of_a_latency_shows_its_larger_side() -> None:
    samples = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.2)
    member = record("se", None, Timing(samples, tuple(range(7)), "b"))
    reading = METRICS["latency"].read(member)
    assert reading == Reading(1.0, *stats.median_interval(samples), 7)
    assert cells.half_width(reading) == pytest.approx(0.2)


def test_a_single_sample_has_no_interval() -> None:
    member = record("se", None, Timing((0.01,), (0,), "b"))
    assert METRICS["latency"].read(member) == Reading(0.01, n=1)


@pytest.mark.parametrize(("largest", "unit"), [(0, "M"), (5e6, "M"), (1e5, "M"), (9e4, "K"), (50, "")])
def test_column_units(largest: float, unit: str) -> None:
    assert units.column_unit("count", largest)[0] == unit


def test_ranks_share_where_intervals_meet() -> None:
    exact = [Reading(3), Reading(1), Reading(1), None, Reading(2)]
    assert cells.ranks(exact, False) == [0, 1, 1, 0, 2]
    assert cells.ranks(exact, True) == [1, 0, 0, 0, 2]
    timed = [Reading(1.0, 0.9, 1.1), Reading(1.05, 1.0, 1.2), Reading(2.0, 1.9, 2.1)]
    assert cells.ranks(timed, False) == [1, 1, 2]
    assert cells.ranks([Reading(1.0)], False) == [0]
    close = [Reading(1.0001), Reading(1.0002)]  # alike when rounded, not alike
    assert cells.ranks(close, False) == [1, 0]


def test_ranks_ask_what_tells_two_apart_before_their_intervals() -> None:
    timed = [Reading(1.0, 0.9, 1.1), Reading(1.05, 1.0, 1.2), Reading(2.0, 1.9, 2.1)]
    assert cells.ranks(timed, False, worse=lambda best, other: other != best) == [1, 2, 0]
    assert cells.ranks(timed, False, worse=lambda _, __: False) == [1, 1, 1]
    assert cells.ranks(timed, False, worse=lambda _, __: None) == [1, 1, 2]
    assert cells.ranks(timed, False, "best", lambda _, __: False) == [1, 2, 0]


@pytest.mark.parametrize(("block", "marks"), [("b1", [1, 0]), ("another", [1, 1])])
def test_timings_side_by_side_are_marked_by_their_ratio(block: str, marks: list[int]) -> None:
    """The machine drifts by a fifth, alike for both: their intervals meet, and the ratio of each round is 1.05."""
    drift = [1 + 0.2 * i / 19 for i in range(20)]
    fast = record("fast", None, Timing(tuple(drift), tuple(range(20)), "b1"))
    slow = record("slow", None, Timing(tuple(1.05 * each for each in drift), tuple(range(20)), block))
    for metric in ("latency", "throughput"):
        (found,) = report.build([fast, slow], metrics=(metric,)).tables
        assert [row.cells[-1].rank for row in found.rows] == marks


# Ratios, worked by hand


def pair_of(first: Record, second: Record) -> tuple[table.Cell, table.Cell]:
    """Value and ratio cell of the second's latency, against the first."""
    built = report.build([first, second], baseline=first.case.label, metrics=["latency"])
    cells_ = built.tables[0].rows[1].cells
    return cells_[1], cells_[3]


def test_latency_ratio_is_of_shared_rounds_only() -> None:
    first = record("a", None, Timing((1.0, 2.0, 4.0, 8.0, 1.0, 1.0, 1.0), (0, 1, 2, 3, 4, 5, 6), "b"))
    second = record("b", None, Timing((16.0, 4.0, 2.0, 1.0, 99.0, 0.5, 0.5), (3, 2, 1, 0, 7, 4, 5), "b"))
    ratio = pair_of(first, second)[1].ratio
    assert ratio is not None
    assert ratio.pairs == 6  # rounds 0 to 5: ratios 1, 1, 1, 2, 0.5, 0.5
    assert ratio.value == pytest.approx(1.0)
    expected = stats.paired_ratio([1.0, 2.0, 4.0, 16.0, 0.5, 0.5], [1.0, 2.0, 4.0, 8.0, 1.0, 1.0])
    assert (ratio.low, ratio.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (timing(2.0, "another"), "not timed in the same block"),
        (timing(2.0, ""), "not timed in the same block"),
        (replace(timing(2.0), rounds=()), "not timed in the same block"),
    ],
)
def test_no_pairs_no_ratio(other: Timing, reason: str) -> None:
    first, second = record("a", None, timing(1.0)), record("b", None, other)
    value, ratio = pair_of(first, second)
    assert value.reading is not None
    assert ratio.marked == "- (1)"
    assert ratio.reason == f"not compared: {reason}"
    built = report.build([first, second], baseline="a", metrics=["latency"])
    assert built.tables[0].rows[1].cells[2].marked == "- (1)"
    assert list(csv.DictReader(io.StringIO(tidy.render(built), newline="")))[1]["delta"] == ""


def test_few_pairs_give_a_ratio_without_an_interval() -> None:
    ratio = pair_of(record("a", None, timing(2.0, rounds=5)), record("b", None, timing(1.0, rounds=5)))[1].ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(0.5)
    assert (ratio.low, ratio.high) == (None, None)


def test_traced_ratios_and_csv_deltas() -> None:
    built = report.build(
        [record("a", counts(80, 40)), record("b", counts(20, 60))], baseline="a", metrics=["macs", "peak_memory"]
    )
    rows = list(csv.DictReader(io.StringIO(tidy.render(built), newline="")))
    assert [(row["label"], row["metric"], row["delta"], row["ratio"]) for row in rows] == [
        ("a", "macs", "0", "1.0"),
        ("a", "peak_memory", "0", "1.0"),
        ("b", "macs", "-60", "0.25"),
        ("b", "peak_memory", "20", "1.5"),
    ]


def test_deltas_are_in_markdown_and_not_on_the_console() -> None:
    members = [record("a", counts(80_000_000, 40), timing(4.0)), record("b", counts(20_000_000, 60), timing(3.0))]
    built = report.build(members, baseline="a", metrics=["macs", "peak_memory", "latency"])
    rows = [row[2::3] for row in grids(built)[0]]
    assert rows[0] == ["delta (M)", "delta (B)", "delta (ms)"]
    assert rows[2:] == [["0", "0", "0"], ["-60.0", "+20.0", "-1.00"]]
    shown = console.render(built)
    assert not any("delta" in line for line in shown.partition("\n- ")[0].splitlines())
    assert "- delta (in md and csv): value - value of a" in shown
    compared = compare.comparison(members, "a").report
    assert not any(column.kind == "delta" for column in compared.tables[0].columns)
    assert not any(note.startswith("delta") for note in compared.notes)


def test_ratio_to_zero_and_to_an_absent_baseline_say_why() -> None:
    members = [record("a", counts(0, 1)), record("b", counts(5, 1))]
    built = report.build(members, baseline="a", metrics=["macs"])
    assert built.tables[0].rows[1].cells[3].reason == "no ratio: a is zero"
    assert built.tables[0].rows[1].cells[2].text == "+5.00"
    assert built.tables[0].rows[0].cells[3].reason == "no ratio: both are zero"
    built = report.build(members, baseline="zzz", metrics=["macs"])
    assert built.tables[0].footnotes == ("not compared: the baseline 'zzz' is not in this table",)


def test_the_baseline_may_be_a_mechanisms_name() -> None:
    mine = replace(record("x").case, mechanism="spatial/nonlocal")
    built = report.build([Record(mine, counts=counts(4, 4)), record("b", counts(2, 2))], baseline="nonlocal", metrics=["macs"])
    assert built.tables[0].rows[1].cells[3].text == "0.5"


# What is missing


def test_the_unit_of_operations_is_the_tables_own_and_no_best_cell_is_lost_in_it() -> None:
    def small(label: str, macs: int, side: int) -> Record:
        made = record(label, counts(macs, 4))
        return replace(made, case=replace(made.case, shape=Shape(1, 512, side, side)))

    members = [small("a", 7_700_000, 8), small("b", 9_900_000, 8), small("a", 7 * 10**10, 97), small("b", 10**11, 97)]
    few, many = report.build(members, metrics=["macs", "flops"]).tables
    assert [column.unit for column in few.columns[1:]] == ["M", "M"]
    assert [column.unit for column in many.columns[1:]] == ["G", "G"]
    assert few.rows[0].cells[1].text == "7.70"
    mixed = report.build([small("a", 150_000, 97), small("b", 10**11, 97)], metrics=["macs", "flops"]).tables[0]
    assert [column.unit for column in mixed.columns[1:]] == ["G", "G"], "the largest is not written with six digits"
    near = report.build([small("a", 150_000, 97), small("b", 4 * 10**9, 97)], metrics=["macs", "flops"]).tables[0]
    assert [column.unit for column in near.columns[1:]] == ["M", "M"]
    assert [near.rows[0].cells[1].text, near.rows[1].cells[1].text] == ["0.15", "4000"]


def test_failures_and_unmeasured_cells_show_why() -> None:
    built = report.build(run(), metrics=["macs", "latency"])
    rows = {row.record.case.label: [cell.marked for cell in row.cells[2:]] for row in built.tables[0].rows}
    assert rows["se"][1] == "- (1)"
    assert rows["sasa"] == ["9.00", "timeout (2)"]
    assert rows["fullattn"] == ["oom (3)", "oom (3)"]
    assert built.tables[0].footnotes == (
        "not measured (budget)",
        "timeout: no answer for 300 s",
        "oom: host: 61 GiB wanted",
    )
    assert "Latency: 8 of 14 cases have a value; 2 not measured (budget); 2 timeout; 2 oom." in built.notes


@pytest.mark.parametrize("status", [status for status in records.STATUSES if status != "ok"])
def test_every_status_shows_as_itself(status: str) -> None:
    built = report.build([record("a", status=status)])
    assert all(cell.marked == f"{status} (1)" for cell in built.tables[0].rows[0].cells[1:])
    assert all(cell == f"{markdown.escape(status)} (1)" for cell in grids(built)[0][2][1:])


def test_without_a_device_the_measured_columns_go_into_a_note() -> None:
    built = report.build([record("a", counts(1, 2), device="none"), record("b", counts(3, 4), device="none")], baseline="a")
    assert "Latency (" not in markdown.render(built)
    assert "Latency: 0 of 2 cases have a value; 2 not measured (device none)." in built.notes
    rows = [row for row in csv.DictReader(io.StringIO(tidy.render(built), newline="")) if row["metric"] == "latency"]
    assert [(row["value"], row["reason"]) for row in rows] == [("", "not measured (device none)")] * 2
    only = report.build([record("a", counts(1, 2), device="none")], metrics=["latency"])
    assert "- (1)" in markdown.render(only)


def test_ledgers_sources_and_warnings_become_notes() -> None:
    found = counts(1, 2, uncounted={"aten.x": 3}, assumed={"aten.y": 1}, traced_by="real")
    timed = timing(1.0, warmup_converged=False, stopped_by="budget", warnings=("clock | dropped", notes.UNSTEADY))
    built = report.build([record("a", found, timed, memory=Memory(99, "calibrated")), record("b", status="crashed")])
    for note in (
        "Not counted: aten.x (a).",
        "DEPENDS ON DATA, counted in one run on seeded values: aten.y (a).",
        "Traced by real tensors instead of meta: a.",
        "Source of measured peaks: calibrated (1).",
        "Warm-up did not reach a steady state: a.",
        "Sampling ended by the budget, not by the interval: a.",
        "Warning: clock | dropped (a).",
    ):
        assert note in built.notes
    assert sum("steady state" in note for note in built.notes) == 1
    assert "clock \\| dropped" in markdown.render(built)
    assert any(column.key == "measured_memory" for column in built.tables[0].columns)


def test_the_unsteady_warning_is_the_one_that_measuring_gives() -> None:
    source = GOLDEN.parent.parent / "attnprof" / "profiling" / "measuring" / "measure.py"
    assert f'"{notes.UNSTEADY}"' in source.read_text(encoding="utf-8")


def test_many_labels_become_their_number_and_the_first_few() -> None:
    def note(count: int) -> str:
        members = [record(f"m{i}", None, timing(1.0, warmup_converged=False)) for i in range(count)]
        return next(each for each in report.build(members).notes if each.startswith("Warm-up"))

    assert note(6) == "Warm-up did not reach a steady state: m0, m1, m2, m3, m4, m5."
    assert note(7) == "Warm-up did not reach a steady state: 7 labels: m0, m1, m2 and 4 more."


def test_what_is_said_about_measuring_needs_a_measurement() -> None:
    def measured(*members: Record) -> list[str]:
        built = report.build(
            members, baseline="a", metrics=["peak_memory", "measured_memory", "latency", "throughput", "energy"]
        )
        heads = ("Peak meas.: measured", "Latency: median", "Throughput: batch", "Energy: joules", "Latency ratio")
        return [head for head in heads for note in built.notes if note.startswith(head)]

    for device in ("none", "cpu"):
        assert measured(record("a", counts(1, 2), device=device), record("b", counts(1, 2), device=device)) == []
    one = [record("a", counts(1, 2), timing(1.0)), record("b", counts(1, 2), timing(1.0, "another"), energy_j=1.0)]
    assert measured(*one) == ["Latency: median", "Throughput: batch", "Energy: joules"]
    assert "Latency ratio" in measured(one[0], record("b", None, timing(1.0)))


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (("cpu_allocator",), "measured"),
        (("calibrated",), "calibrated"),
        (("cuda_allocator", "calibrated"), "measured or calibrated"),
    ],
)
def test_only_sources_of_memory_that_occur_are_said(sources: tuple[str, ...], said: str) -> None:
    built = report.build([record(f"m{i}", counts(1, 2), memory=Memory(99, source)) for i, source in enumerate(sources)])
    assert f"Peak meas.: {said} peak above parameters, buffers and inputs." in built.notes


def test_whose_attention_kernels_were_traced_is_said() -> None:
    def traced(label: str, op: str, **settings: Any) -> Record:
        return record(label, counts(1, 2, ops=(OpCost(op, "", "forward", 1, 1, 1, 1),)), settings=settings)

    def said(*members: Record) -> list[str]:
        return [note for note in report.build(members).notes if note.startswith("Attention")]

    efficient, cpu = "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention_for_cpu"
    assert said(traced("a", "bmm", sdpa="auto"), record("b")) == []
    assert said(traced("a", efficient, sdpa="fused"), traced("b", "bmm", sdpa="fused")) == [
        (
            "Attention (a) is traced as the kernel that a GPU would choose (sdpa=fused), whatever device measured: its traced"
            " memory is not what attention takes on a CPU."
        )
    ]
    for each in (traced("a", cpu, target="cpu"), traced("a", efficient, target="cpu"), traced("a", cpu)):
        assert said(each)[0].startswith("Attention (a) is traced as the kernel that a CPU would choose (sdpa=auto), whatever")


def test_the_environment_is_read_where_records_hold_it() -> None:
    gpu = {"gpu": "Example GPU", "driver": "1", "cuda": "13.0", "flags": {"threads": 4, "matmul_tf32": True}}
    built = report.build([replace(record("a", counts(1, 2), timing(1.0)), environment=ENVIRONMENT | gpu)])
    assert (
        "Environment: device cpu, gpu Example GPU, cpu Example CPU, driver 1, cuda 13.0, torch 2.13.0, threads 4,"
        " matmul tf32 on, attnprof 0.1.0." in built.notes
    )
    traced = replace(record("a", counts(1, 2)), environment={"provenance": ENVIRONMENT["provenance"]})
    assert "Environment: torch 2.13.0, attnprof 0.1.0." in report.build([traced]).notes


def test_two_environments_are_both_named() -> None:
    other = replace(record("b", counts(1, 2)), environment={"torch": "2.9.0"})
    built = report.build([record("a", counts(1, 2)), other])
    measured = report.build([record("a", counts(1, 2), timing(1.0)), other])
    assert not any("environments" in note for note in measured.notes)
    assert "2 environments; measured numbers compare only within one." in built.notes
    assert "Environment of 1 case: torch 2.9.0." in built.notes


# Ablation axes


def test_an_axis_is_a_column_in_markdown_and_csv() -> None:
    members = [
        record("se", counts(1, 2), args={"reduction": 16}),
        record("ccnet", counts(1, 2)),
        record("ccnet[recurrence=3]", counts(1, 2), args={"recurrence": 3}),
    ]
    built = report.build(members)
    assert [column.key for column in built.tables[0].columns if column.kind == "axis"] == ["recurrence"]
    assert [row.cells[1].text for row in built.tables[0].rows] == ["n/a", "default", "3"]
    rows = list(csv.DictReader(io.StringIO(tidy.render(built), newline="")))
    assert [row["arg_recurrence"] for row in rows[::5]] == ["n/a", "default", "3"]


# Markdown and CSV escapes


def test_markdown_escapes() -> None:
    assert markdown.escape("a|b\nc") == "a\\|b c"
    assert markdown.escape("ccnet_bmm[r=2]") == "ccnet_bmm[r=2]"
    assert markdown.escape("*x* _y_ <b> `z` [l](u)") == "\\*x\\* \\_y\\_ &lt;b&gt; \\`z\\` [l]\\(u)"


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@x", "\t=1", " =1"])
def test_no_csv_text_is_a_formula(label: str) -> None:
    built = report.build([record(label, counts(1, 2))], name=label)
    row = next(csv.DictReader(io.StringIO(tidy.render(built), newline="")))
    assert row["label"] == "'" + label
    assert row["spec"] == "'" + label


def test_json_round_trips() -> None:
    members = run()
    data = json.loads(report.FORMATS["json"](report.build(members, name="x"))[".json"])
    assert (data["schema"], data["name"]) == (records.SCHEMA_VERSION, "x")
    assert [records.record_from_json(each) for each in data["records"]] == members


# compare


def sentences(first: Record, other: Record, *names: str) -> tuple[str, ...]:
    return compare.comparison([first, other], first.case.label, names).sentences


def test_sentences_about_traced_numbers() -> None:
    first, other = record("nonlocal", counts(654, 950)), record("ccnet", counts(100, 100))
    assert sentences(first, other, "params", "macs", "peak_memory") == (
        "the parameter counts are equal (nonlocal, ccnet)",
        "ccnet needs 6.54x fewer MACs than nonlocal",
        "ccnet needs 9.50x less peak memory than nonlocal",
    )
    assert sentences(other, first, "macs") == ("nonlocal needs 6.54x more MACs than ccnet",)
    assert sentences(record("a", counts(1000, 1)), record("b", counts(980, 1)), "macs") == ("b needs 2.0 % fewer MACs than a",)
    near = sentences(record("a", counts(1_000_000, 1)), record("b", counts(1_000_001, 1)), "macs")
    assert near == ("b needs less than 0.1 % more MACs than a",)
    none = record("simam", counts(0, 1))
    assert sentences(first, none, "macs") == ("nonlocal needs MACs, simam needs none",)
    assert sentences(none, first, "macs") == ("nonlocal needs MACs, simam needs none",)


def test_sentences_about_latency() -> None:
    slow, fast = record("nonlocal", None, timing(3.0)), record("ccnet", None, timing(1.0))
    assert sentences(slow, fast, "latency") == (
        "ccnet is 3.00x faster than nonlocal (95 % interval 3.00 to 3.00, within one process, n=20 pairs)",
    )
    assert sentences(fast, slow, "latency")[0].startswith("nonlocal is 3.00x slower than ccnet (95 % interval 3.00 to 3.00")
    assert sentences(slow, replace(fast, timing=timing(1.0, "x")), "latency") == (
        "latency: nonlocal and ccnet are not compared (not timed in the same block)",
    )
    few = sentences(record("a", None, timing(2.0, rounds=3)), record("b", None, timing(1.0, rounds=3)), "latency")
    assert few == ("b is 2.00x faster than a (n=3 pairs, too few for an interval)",)


@pytest.mark.parametrize(
    ("other_s", "words"),
    [
        (1.02, "a and b show no difference in {} (ratio 1.000, 95 % interval 0.980 to 1.020, "),
        (1.1, "a difference in {} between a and b could not be told (ratio 1.000, 95 % interval 0.909 to 1.100, "),
    ],
)
@pytest.mark.parametrize("metric", ["latency", "throughput"])
def test_no_difference_is_claimed_only_where_the_interval_leaves_no_room(metric: str, other_s: float, words: str) -> None:
    """One side of 1 by order statistics: half of the ratios are 1 / other, half are other."""
    first = record("a", None, Timing((1.0, other_s) * 10, tuple(range(20)), "b"))
    other = record("b", None, Timing((other_s, 1.0) * 10, tuple(range(20)), "b"))
    assert sentences(first, other, metric)[0].startswith(words.format(metric))


def test_sentences_about_what_is_missing() -> None:
    first = record("a", counts(1, 1), device="none")
    assert sentences(first, record("b", counts(1, 1), device="none"), "latency") == ("latency: not measured (device none)",)
    failed = record("b", status="oom", detail="host")
    assert sentences(record("a", counts(1, 1)), failed, "params", "macs") == ("b is not compared with a: oom: host",)
    assert sentences(failed, record("c", counts(1, 1)), "params", "macs") == ("b has no numbers: oom: host",)


def test_ratios_in_json_are_first_over_other() -> None:
    members = [each for each in run() if each.case.label in ("nonlocal", "ccnet[recurrence=1]", "se")]
    data = compare.data(compare.comparison(members, "nonlocal"))
    ratios = {(each["metric"], each["mode"], each["other"]): each for each in data["ratios"]}
    assert len(data["records"]) == 6
    assert len(data["ratios"]) == 5 * 2 * 2
    macs = ratios["macs", "training", "ccnet[recurrence=1]"]
    assert (macs["value"], macs["low"], macs["high"], macs["covers"]) == (
        pytest.approx(50 / 5.8),
        *[macs["value"]] * 2,
        "exact",
    )
    latency = ratios["latency", "inference", "ccnet[recurrence=1]"]
    assert (latency["value"], latency["covers"], latency["pairs"]) == (pytest.approx(2.0), "within one process", 20)
    missing = ratios["latency", "inference", "se"]
    assert (missing["value"], missing["reason"]) == (None, "se: not measured (budget)")


def test_compare_sorts_and_refuses() -> None:
    members = run()[:7]
    compared = compare.comparison(members, "nonlocal")
    ordered = [row.record.case.label for row in table.sort(compared.report.tables[0], "peak_bytes").rows]
    assert ordered == ["simam", "se", "ccnet[recurrence=1]", "ccnet[recurrence=2]", "sasa", "nonlocal", "fullattn"]
    with pytest.raises(UsageError, match="did you mean 'latency'"):
        compare.render(compared, sort="latancy")
    with pytest.raises(
        UsageError, match="'energy', which it does not show: it shows params, macs, flops, peak_memory, latency"
    ):
        compare.render(compared, sort="energy")
    traced = compare.comparison([record(label, counts(1, 2), device="none") for label in "ab"], "a")
    with pytest.raises(UsageError, match=r"'latency', which it does not show: it shows params, macs, flops, peak_memory\.$"):
        compare.render(traced, sort="latency")
    with pytest.raises(NothingSelectedError, match="zzz"):
        compare.comparison(members, "zzz")


# explain


def test_explain_columns_add_up() -> None:
    shown = explain.render(full_record())
    assert "sum to" not in shown
    costs = [line.split() for line in shown.splitlines() if line.startswith(("query", "(the module", "out|put"))]
    assert sum(float(line[-1]) for line in costs if line[-1].replace(".", "").isdigit()) == pytest.approx(100, abs=0.2)
    short = explain.render(full_record(), top=1)
    assert "2 more" in short
    assert "1 more" in short


def test_explain_says_where_sums_differ_or_are_missing() -> None:
    found = full_record().counts
    assert found is not None
    off = explain.render(replace(full_record(), counts=replace(found, macs=5_001, peak_bytes=1)))
    assert "The MACs of these ops sum to 5,000, the record says 5,001." in off
    assert "These sum to 4,194,304 bytes, the record's peak is 1 bytes." in off
    bare = explain.render(replace(full_record(), counts=counts(1, 2)))
    assert bare.count("not recorded for this case") == 2
    assert "crashed: signal 11" in explain.render(record("a", status="crashed", detail="signal 11"))


# Writing


def test_write_puts_files_directly_into_the_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    meta = report.Meta("seg/../mentation", "nonlocal")
    paths = report.write(run(), meta, ["md", "csv", "json", "md"], tmp_path)
    assert [path.name for path in paths] == ["seg_.._mentation.md", "seg_.._mentation.csv", "seg_.._mentation.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["mine.txt", *(path.name for path in paths)])
    before = paths[1].read_bytes()
    report.write(run(), meta, ["csv"], tmp_path)
    assert paths[1].read_bytes() == before


def test_write_leaves_the_old_file_where_rendering_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = report.write(run(), report.Meta("x"), ["md"], tmp_path)
    before = path.read_text(encoding="utf-8")

    def broken(_: report.Report) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr(report, "FORMATS", {"md": broken})
    with pytest.raises(RuntimeError, match="broken"):
        report.write(run(), report.Meta("x"), ["md"], tmp_path)
    assert path.read_text(encoding="utf-8") == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.md"]


def test_specs_and_reports_know_the_same_metrics() -> None:
    assert tuple(METRICS) == values.METRICS
    assert metrics.DEFAULT_METRICS == values.DEFAULT_METRICS


def test_the_catalogue_cuts_nothing() -> None:
    title = "Recurrent criss-cross attention, as lean in memory as the paper's kernels"
    entries = [("channel", "se", "Short", "Hu, CVPR 2018"), *(("spatial", name, title, "") for name in ("ccnet", "ccnet_bmm"))]
    lines = catalogue.list_text(entries).splitlines()
    assert [line for line in lines[2:] if line and line[0] != " "] == ["channel", "spatial", "3 mechanisms."]
    assert "…" not in "".join(lines)
    at = lines[0].index("Title")
    assert " ".join(line[at:].removesuffix(" -").strip() for line in lines[6:10]).split() == (title + " " + title).split()


def test_unknown_formats_and_metrics_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'csv'"):
        report.write(run(), report.Meta("x"), ["cvs"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="did you mean 'params'"):
        metrics.metric("param")
    assert [report.file_stem(name) for name in ("", "..", "a b", ".hidden")] == ["report", "report", "a_b", "hidden"]


@pytest.mark.parametrize(
    ("paper", "short"),
    [
        ("Hu, Shen, Sun. CVPR 2018. arXiv:1709.01507, § 3", "Hu, CVPR 2018"),
        ("Huang et al. ICCV 2019 (arXiv:1811.11721)", "Huang, ICCV 2019"),
        ("", "-"),
        ("Unpublished", "Unpublished"),
        ('Chen et al., "Rethinking", arXiv:2012.05587, section 3.3', "Chen, arXiv:2012.05587"),
        ("none: the plain layer, e.g. Zhao et al., CVPR 2017", "none (cf. Zhao 2017)"),
        ("none: an exercise", "none"),
        ("none", "none"),
    ],
)
def test_short_paper(paper: str, short: str) -> None:
    assert catalogue.short_paper(paper) == short


# A survey: each mechanism at its own size


def survey() -> list[Record]:
    return [
        record("nonlocal", counts(50_000_000_000, 372 * 2**20), timing(400.0)),
        record("se", counts(8_192, 3 * 2**20, 8_192), timing(2.0), hw=(56, 56)),
        record("gct", counts(0, 5 * 2**20, 768), hw=(14, 14), detail="not measured (budget)"),
        record("nonlocal", counts(150_000_000_000, 700 * 2**20), timing(900.0, "b2"), mode="training"),
    ]


def test_shapes_share_a_table_where_no_mechanism_stands_at_two() -> None:
    built = report.build(survey(), name="survey", metrics=("params", "macs", "peak_memory", "latency"))
    golden("survey.txt", console.render(built))
    golden("survey.md", markdown.render(built))
    assert [len(each.rows) for each in built.tables] == [3, 1]
    assert all(cell.rank == 0 for each in built.tables for row in each.rows for cell in row.cells)


def test_a_baseline_or_a_second_size_keeps_one_table_per_shape() -> None:
    twice = [*survey(), record("se", counts(8_192, 2**20, 8_192), hw=(7, 7))]
    assert len(report.build(twice).tables) == 5
    assert len(report.build(survey(), baseline="se").tables) == 4


def test_medians_whose_quotient_is_not_in_the_ratios_interval_are_said() -> None:
    """Half as slow in 18 of 20 rounds, but the rounds that something disturbed make the medians equal."""

    def timed(label: str, quiet: int, milliseconds: float) -> Record:
        samples = tuple(milliseconds * 1e-3 * (1 if number < quiet else 2) for number in range(20))
        return record(label, counts(1, 1), Timing(samples, tuple(range(20)), "b", 5))

    told = "The quotient of the medians is outside the interval of the latency ratio"
    moved = [timed("nonlocal", 11, 5.0), timed("se", 9, 2.5), timed("eca", 11, 2.5)]
    found = [note for note in report.build(moved, name="x", baseline="nonlocal").notes if note.startswith(told)]
    assert len(found) == 1
    assert found[0].endswith(": se.")
    alike = [timed("nonlocal", 11, 5.0), timed("se", 11, 2.5)]
    assert not any(note.startswith(told) for note in report.build(alike, name="x", baseline="nonlocal").notes)
