"""A count that leaves ops out or takes something for granted: never the best of its column, no ratio without a word."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from attnprof import report
from attnprof.profiling.counting import flex
from attnprof.records import Case, Counts, Record, Shape
from attnprof.report import compare, console, json, markdown
from attnprof.report import csv as tidy
from attnprof.report.metrics import METRICS, caveat


def record(label: str, macs: int, **more: Any) -> Record:
    zeros = dict.fromkeys(("params", "flops", "bytes_moved", "activation_bytes", "resident_bytes", "peak_bytes"), 0)
    counts = Counts(**{**zeros, "peak_cuda_bytes": 0, "macs": macs, **more})
    return Record(Case("channel/se", label, {}, Shape(1, 8, 4, 4)), counts=counts)


BLIND = record("blind", 1000, uncounted={"sparse_mm": 1})
GUESSED = record("guessed", 2000, assumed={"nonzero": 1})
WHOLE = [record("third", 7000), record("first", 5000), record("second", 6000)]


def cells(found: report.Report, kind: str = "value") -> dict[str, Any]:
    (table,) = found.tables
    (at,) = [i for i, column in enumerate(table.columns) if column.kind == kind]
    return {row.record.case.label: row.cells[at] for row in table.rows}


@pytest.mark.parametrize("partial", [BLIND, GUESSED])
def test_a_count_with_a_caveat_is_neither_best_nor_second(partial: Record) -> None:
    """It is the smallest of all; the two smallest whole ones keep the first and the second place."""
    found = cells(report.build([partial, *WHOLE], metrics=("macs",)))
    assert {label: cell.rank for label, cell in found.items()} == {partial.case.label: 0, "first": 1, "second": 2, "third": 0}
    text = markdown.render(report.build([partial, *WHOLE], metrics=("macs",)))
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {partial.case.label} ")]
    assert "**" not in line
    assert "<u>" not in line
    assert "(1)" in line
    assert text.count("**") == 2


def test_beside_one_whole_count_nothing_is_the_best() -> None:
    assert [cell.rank for cell in cells(report.build([BLIND, WHOLE[0]], metrics=("macs",))).values()] == [0, 0]


@pytest.mark.parametrize("base", ["blind", "first"])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_ratio_with_such_a_count_says_so(base: str, inverse: bool) -> None:
    found = report.build([BLIND, *WHOLE], metrics=("macs",), baseline=base, inverse=inverse)
    said = f"blind: {caveat(BLIND, METRICS['macs'])}"
    other = "first" if base == "blind" else "blind"
    ratios = cells(found, "ratio")
    assert ratios[other].reason == said
    assert (ratios["third"].reason == said) is (base == "blind")
    for text in (markdown.render(found).replace(chr(92), ""), console.render(found)):
        assert said in " ".join(text.split())
    rows = {row["label"]: row["reason"] for row in csv.DictReader(io.StringIO(tidy.render(found)))}
    assert "NOT COUNTED" in rows[other]
    if not inverse:
        assert cells(found, "delta")[other].reason == said


def test_ratios_in_json_carry_the_caveat() -> None:
    found = compare.data(compare.comparison([BLIND, *WHOLE], "blind", ["macs"]))["ratios"]
    assert [entry["reason"] for entry in found] == [f"blind: {caveat(BLIND, METRICS['macs'])}"] * 3
    assert json.data([BLIND], "x")["records"][0]["counts"]["uncounted"] == {"sparse_mm": 1}
    (plain, _) = compare.data(compare.comparison(WHOLE, "first", ["macs"]))["ratios"]
    assert plain["reason"] == ""


TRACED = [key for key, metric in METRICS.items() if metric.traced and key != "bound"]  # which has no value then
DRAWN = record("drawn", 10, assumed={"nonzero": 1}, traced_by="real")
RUN = record("run", 10, traced_by="real")
MASK = record("mask", 10, assumed={flex.MASKED: 2})


@pytest.mark.parametrize(
    ("marked", "without"),
    [
        (GUESSED, {"params", "resident_memory"}),
        (DRAWN, {"params", "resident_memory"}),
        (RUN, {"params", "resident_memory"}),
        (MASK, set(TRACED) - {"macs", "flops", "unfused"}),
        (BLIND, set(TRACED) - {"macs", "flops"}),
        (WHOLE[0], set(TRACED)),
    ],
    ids=lambda value: value.case.label if isinstance(value, Record) else "",
)
def test_which_metrics_depend_on_what(marked: Record, without: set[str]) -> None:
    assert {key for key in TRACED if not caveat(marked, METRICS[key])} == without


def test_memory_that_depends_on_data_says_so_and_is_no_best() -> None:
    small = record("drawn", 10, assumed={"nonzero": 1}, traced_by="real", peak_bytes=1)
    whole = [record(each.case.label, 1, peak_bytes=9 + i) for i, each in enumerate(WHOLE)]
    found = report.build([small, *whole], metrics=("peak_memory",), baseline="first")
    said = "DEPENDS ON DATA, counted in one run on seeded values: nonzero 1"
    assert {label: cell.rank for label, cell in cells(found).items()} == {"drawn": 0, "third": 1, "first": 2, "second": 0}
    assert cells(found)["drawn"].reason == said
    assert cells(found, "ratio")["drawn"].reason == f"drawn: {said}"
    for text in (markdown.render(found).replace(chr(92), ""), console.render(found)):
        assert said in " ".join(text.split())
    rows = {row["label"]: row["reason"] for row in csv.DictReader(io.StringIO(tidy.render(found)))}
    assert said in rows["drawn"]
    assert any(said in text for text in compare.comparison([small, *whole], "first", ["peak_memory"]).sentences)
