"""Memory over the pass: its maximum is the counted peak, a store gives it back, charts show it, and their number is bounded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import attnprof
from attnprof import spec, store
from attnprof.errors import UsageError
from attnprof.execute import run_cases
from attnprof.profiling import timeline
from attnprof.records import MODES, Case, Moment, OpCost, Record, Shape, record_from_json, to_json
from attnprof.report.charts import Canvas, Chart, charts_of, passes, spec_of, together
from attnprof.report.page.packed import packed
from tests.report.chart_records import built, counts, passed, record
from tests.report.chart_records import passes as records_of_passes

CANVAS = Canvas(200, 150, 10)
SHAPE = Shape(1, 32, 12, 10)


def case(name: str, mode: str = "inference", shape: Shape = SHAPE) -> Case:
    return Case(spec.make_entry(name, {}).mechanism, name, {}, shape, mode=mode)


def biggest(found: Record) -> int:
    return max(moment.bytes for moment in found.moments)


# The trace.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["nonlocal", "ccnet", "se", "cbam", "mhsa", "simam", "eca"])
def test_the_highest_moment_is_the_counted_peak(name: str, mode: str) -> None:
    found = timeline.trace_record(case(name, mode))
    assert found.counts is not None
    assert found.memory_timeline is not None
    assert biggest(found) == found.counts.peak_bytes
    assert 0 < len(found.moments) <= timeline.POINTS
    events = [moment.event for moment in found.moments]
    assert events == sorted(set(events))
    assert events[-1] <= found.memory_timeline.events
    phases = [moment.phase for moment in found.moments]
    assert phases == sorted(phases, reverse=True)  # forward, then backward
    assert ("backward" in phases) == (mode == "training")


def test_a_long_pass_is_thinned_and_keeps_its_peak() -> None:
    deep = nn.Sequential(*(layer for _ in range(60) for layer in (nn.Conv2d(4, 4, 1), nn.ReLU())))
    found = attnprof.profile(deep, (1, 4, 8, 8), mode="training")
    assert found.counts is not None
    assert found.memory_timeline is not None
    assert found.memory_timeline.events > 2 * timeline.POINTS
    assert len(found.moments) <= timeline.POINTS
    assert biggest(found) == found.counts.peak_bytes
    assert {moment.module for moment in found.moments} & {str(i) for i in range(120)}


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x[x > 0] * 2).sum()


def test_a_pass_that_was_run_on_data_has_the_timeline_of_that_run() -> None:
    found = attnprof.profile(Masked(), (1, 4, 8, 8))
    assert found.counts is not None
    assert found.counts.traced_by == "real"
    assert biggest(found) == found.counts.peak_bytes


def test_a_pass_that_allocates_nothing_has_none() -> None:
    found = attnprof.profile(nn.Identity(), (1, 4, 8, 8))
    assert found.memory_timeline is None
    assert found.moments == ()
    assert "memory_timeline" not in to_json(found)


def test_a_child_hands_over_the_same_timeline() -> None:
    (found,) = run_cases([case("se", "training")])
    assert found.memory_timeline is not None
    assert found.memory_timeline == timeline.trace_record(case("se", "training")).memory_timeline


# The compact form, and the store.

_word = st.text(max_size=5)
_moment = st.builds(Moment, st.integers(1, 10**6), st.integers(0, 2**50), _word, _word, _word)
_op = st.builds(OpCost, _word, _word, _word, st.just(1), st.just(1), st.just(1), st.just(1))


@given(st.lists(_moment, min_size=1, max_size=20), st.lists(_op, max_size=5))
def test_a_record_gives_its_moments_back(moments: list[Moment], ops: list[OpCost]) -> None:
    ops += [OpCost(moment.op, moment.module, moment.phase, 1, 1, 1, 1) for moment in moments[::2]]
    compact = timeline.compact(moments, 10**6, ops)
    kept = Record(case("se"), counts=replace(counts(1, 1), ops=tuple(ops)), memory_timeline=compact)
    assert kept.moments == tuple(moments)
    assert record_from_json(json.loads(json.dumps(to_json(kept)))) == kept
    assert len(compact.others) <= len(moments) // 2


def test_a_store_gives_timelines_back_and_reads_records_without(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    new, old = passed(record("new", 8, counts(1, 64))), record("old", 8, counts(1, 64))
    store.append(path, new)
    store.append(path, old)
    lines = [json.loads(line)["record"] for line in path.read_text().splitlines()]
    assert ["memory_timeline" in line for line in lines] == [True, False]
    assert list(store.load(path).records.values()) == [new, old]
    assert store.load(path).records[old.case.key].moments == ()


def test_a_store_that_was_written_before_there_were_timelines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(
        '{"schema":2,"kind":"record","record":{"case":{"mechanism":"channel/se","label":"se","args":{},"shape":{"batch":1,'
        '"channels":8,"height":4,"width":4,"frames":1},"dtype":"float32","mode":"inference","device":"none","host":null,'
        '"settings":{}},"status":"ok","counts":{"params":16,"macs":16,"flops":200,"bytes_moved":1600,"activation_bytes":600,'
        '"resident_bytes":576,"peak_bytes":544,"peak_cuda_bytes":1024,"at_peak":[],"uncounted":{},"assumed":{},"traced_by":'
        '"meta","ops":[]},"timing":null,"memory":null,"energy_j":null,"environment":{},"detail":""}}\n'
    )
    (found,) = store.load(path).records.values()
    assert found.counts is not None
    assert found.counts.peak_bytes == 544
    assert found.memory_timeline is None
    assert found.moments == ()


@pytest.mark.parametrize("wrong", [{"who": [0, 0, 1, 1, 2, 9]}, {"who": [0, 0, 1, 1, 2, -1]}, {"at": [1]}, {"bytes": None}])
def test_a_damaged_timeline_is_refused_with_its_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "run.jsonl"
    store.append(path, passed(record("a", 8, counts(1, 64))))
    line = json.loads(path.read_text())
    line["record"]["memory_timeline"] |= wrong
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=r"run\.jsonl:1: "):
        store.load(path)


# The charts.


def drawn(records: list[Record], every_size: bool) -> tuple[list[Chart], list[str]]:
    found, reasons = charts_of(built(records, baseline=None), every_size)
    return [chart for chart in found if chart.key == "timeline"], [text for text in reasons if "over the pass" in text]


def test_a_page_has_a_chart_per_case_the_highest_peak_first() -> None:
    found, reasons = drawn(records_of_passes(3), every_size=True)
    assert [chart.size for chart in found] == ["m3: 12.0 MiB", "m2: 8.00 MiB", "m1: 4.00 MiB"]
    assert reasons == ["Memory over the pass: 1 case holds no timeline."]
    assert found[0].facts == (
        ("Made by", "Submodule", "Phase", "Storages", "MiB"),
        ("bmm", "head", "forward", "1", "6.00"),
        ("softmax", "-", "forward", "1", "6.00"),
    )


def test_cases_of_one_label_are_told_apart() -> None:
    both = [passed(record("a", side, counts(1, side * 2**20), mode)) for side in (8, 16) for mode in MODES]
    names = [chart.size for chart in drawn(both, every_size=True)[0]]
    assert names[:2] == ["a, 16x16, inference: 16.0 MiB", "a, 16x16, training: 16.0 MiB"]


def test_bars_are_the_moments_and_the_mark_is_at_the_peak() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    (chart, *_), _ = drawn(records_of_passes(1), every_size=True)
    (panel,) = chart.draw(CANVAS)
    datasets = spec_of(panel, CANVAS, "x")["datasets"].values()
    bars = next(list(rows) for rows in datasets if "end" in next(iter(rows)))
    assert [(row["begin"], row["end"]) for row in bars] == [(i, i + 1) for i in range(6)]
    assert [row["bytes"] for row in bars] == [2**20, 2**21, 2**22, 2**21, 2**20, 0]
    assert [row["phase"] for row in bars] == ["forward"] * 4 + ["backward"] * 2
    mark = next(list(rows) for rows in datasets if "top" in next(iter(rows)))[0]
    assert (mark["at"], mark["bytes"]) == (2.5, 2**22)
    assert mark["text"].splitlines() == ["peak 4.00 MiB", "bmm 50 %", "softmax 50 %"]
    assert mark["bytes"] < mark["foot"] < mark["top"]
    assert [row["at"] for rows in datasets for row in rows if set(row) == {"at"}] == [4]  # where the backward pass begins
    assert "the peak is 4.00 MiB, at softmax (forward); held by bmm 50 %, softmax 50 %." in panel.said


@pytest.mark.parametrize(
    ("share", "turns", "side"),
    [
        (0.5, [], "center"),
        (0.1, [], "left"),
        (0.9, [], "right"),
        (0.5, [0.55], "right"),
        (0.5, [0.45], "left"),
        (0.4, [0.3], "left"),
        (0.6, [0.65], "right"),
        (0.1, [0.2], "left"),  # no place is clear of the line: inside of the plot at least
    ],
)
def test_the_text_at_the_peak_stands_clear_of_where_the_pass_turns(share: float, turns: list[float], side: str) -> None:
    assert passes.side_of(share, 0.3, turns) == side


def test_the_text_at_the_peak_is_drawn_on_the_side_that_is_clear() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    found = records_of_passes(1)[0]
    assert found.memory_timeline is not None
    late = replace(found.memory_timeline, bytes=(2**20, 2**20, 2**21, 2**22, 2**21, 0))
    (chart, *_), _ = drawn([replace(found, memory_timeline=late)], every_size=True)
    datasets = spec_of(chart.draw(CANVAS)[0], CANVAS, "x")["datasets"].values()
    mark = next(list(rows) for rows in datasets if "top" in next(iter(rows)))[0]
    assert (mark["at"], mark["side"]) == (3.5, "right")  # the backward pass begins at 4 of 6


def test_records_without_timelines_give_a_sentence() -> None:
    found, reasons = drawn([record("old", 8, counts(1, 64))], every_size=True)
    assert found == []
    assert len(reasons) == 1
    assert "no record holds a timeline" in reasons[0]


def test_a_figure_has_the_largest_few_and_says_how_many_it_leaves_out() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    found, _ = drawn(records_of_passes(9), every_size=False)
    assert len(found) == 1
    panels = found[0].draw(CANVAS)
    assert [panel.title for panel in panels] == ["m9", "m8", "m7", "m6", "m5", "m4"]
    assert found[0].foot == "4 of 10 cases are not drawn"
    assert together(found[0], CANVAS)["title"]["text"] == found[0].foot


def test_what_a_page_holds_is_bounded() -> None:
    pytest.importorskip("altair", reason="the extra 'plots' is not installed")
    found, reasons = drawn(records_of_passes(passes.MOST_ON_PAGE + 50), every_size=True)
    assert len(found) == passes.MOST_ON_PAGE
    assert f"of {passes.MOST_ON_PAGE + 50} cases, the {passes.MOST_ON_PAGE} with the highest peaks are drawn" in reasons[-1]
    specs = [spec_of(panel, CANVAS, "x") for chart in found[:20] for panel in chart.draw(CANVAS)]
    shared, panels = packed(specs)
    assert len(shared) == 1  # and a case brings no more than its rows
    assert len(panels) == 20
    assert max(len(json.dumps(panel)) for panel in panels) < 0.3 * len(json.dumps(shared[0]))


def test_packed_charts_are_those_that_were_packed() -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {"a": 3, "b": "y"}]
    mixed = [{"a": 1}, {"b": 2}]
    specs = [
        {"mark": "bar", "data": {"name": "data-1"}, "datasets": {"data-1": rows}, "description": "one"},
        {"mark": "bar", "data": {"name": "data-2"}, "datasets": {"data-2": rows[:1]}, "description": "two"},
        {"mark": "line", "data": {"name": "data-3"}, "datasets": {"data-3": mixed}},
    ]
    shared, panels = packed(specs)
    assert shared == [{"mark": "bar", "data": {"name": "rows0"}}, {"mark": "line", "data": {"name": "rows0"}}]
    assert [(panel["spec"], panel["said"]) for panel in panels] == [(0, "one"), (0, "two"), (1, "")]
    assert panels[0]["rows"] == {"rows0": {"a": [1, 2, 3], "b": {"of": ["x", "y"], "at": [0, 0, 1]}}}
    assert panels[1]["rows"] == {"rows0": {"a": [1], "b": ["x"]}}
    assert panels[2]["rows"] == {"rows0": mixed}
