"""What is measured first, what fits into a budget, and what a run pays for finding out."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from attnprof import worker
from attnprof.execute import Options, Progress, blocks, measuring
from attnprof.execute.board import Board
from attnprof.execute.on_ray.tasks import predictor_from_json
from attnprof.execute.predict import Predictor, Rates, block_overhead_s, choose, split_by_memory
from attnprof.execute.waiting import Waiting
from attnprof.profiling.measuring import device
from attnprof.profiling.measuring.window import Flush
from attnprof.records import NOT_MEASURED_BUDGET, Case, Counts, OpCost, Record, Shape, Timing

RATES = {"float32": Rates(1e9, 1e9, 0.0)}


def record(
    label: str, macs: int = 0, resident: int = 0, peak: int = 0, side: int = 1, mechanism: str = "m", setting: int = 0
) -> Record:
    counts = Counts(0, macs, 0, 0, 0, resident, peak, 0)
    case = Case(mechanism, label, {}, Shape(1, 1, side, side), device="cpu", settings={"threads": setting})
    return Record(case, counts=counts)


def timed(one: Record, seconds: float) -> Record:
    return replace(one, timing=Timing((seconds,) * 10))


def labels(groups: Sequence[Sequence[Record]]) -> list[list[str]]:
    return [[one.case.label for one in group] for group in groups]


def test_blocks_are_split_where_their_members_do_not_fit_together() -> None:
    a, b, c, d = (record(name, resident=size, peak=1) for name, size in (("a", 40), ("b", 50), ("c", 60), ("d", 100)))
    groups, too_large = split_by_memory([a, b, c, d], 100)
    assert labels(groups) == [["a", "b"], ["c"]]
    assert too_large == [d]


def test_cells_are_chosen_cheapest_first_within_the_budget() -> None:
    predictor = Predictor(RATES, 0)
    cheap, middling, dear = (record(name, macs=macs) for name, macs in (("a", 10**6), ("b", 10**8), ("c", 10**10)))
    assert choose([[dear, cheap], [middling]], predictor, 10, 1e9) == [[middling], [dear, cheap]]
    assert choose([[dear, cheap], [middling]], predictor, 10, 10.0) == [[cheap], [middling]]
    assert choose([[dear, cheap], [middling]], predictor, 10, 1.0) == [[cheap]]
    assert choose([[dear, cheap], [middling]], predictor, 10, 0.0) == []


def test_the_smallest_resolution_is_measured_whole_before_the_next_begins() -> None:
    predictor = Predictor(RATES, 0)
    small = [record("a", 10**6, side=65), record("b", 10**9, side=65), record("c", 10**12, side=65)]
    large = [record("a", 2 * 10**6, side=97), record("b", 4 * 10**9, side=97), record("c", 10**13, side=97)]
    chosen = choose([large, small], predictor, 10, 60.0)
    assert labels(chosen) == [["a", "b"], ["a"]], "c does not fit: what is left goes to the next resolution"
    assert chosen[0][0].case.shape.height == 65


def test_a_resumed_run_begins_with_the_smallest_resolution_that_is_not_whole() -> None:
    predictor = Predictor(RATES, 0)
    new = [record(name, 10**9, side=9) for name in "abcd"]
    rest = [record("d", 10**9, side=17)]
    costs_s = [sum(predictor.cell_s(one, 10) for one in group) for group in (rest, new)]
    assert costs_s[0] < costs_s[1], "what is left of 17x17 costs less than all of 9x9"
    left_s = costs_s[1] + block_overhead_s() + 1e-6
    assert choose([rest, new], predictor, 10, left_s) == [new]
    coming = Waiting([rest, new], predictor, Options()).take(math.inf)
    assert coming is not None
    assert coming.group == new


def test_shapes_are_in_order_of_elements_then_of_their_numbers() -> None:
    shapes = [Shape(1, 4, 2, 2, 2), Shape(2, 2, 2, 2, 2), Shape(1, 4, 4, 2), Shape(1, 4, 2, 4), Shape(2, 3, 2, 2)]
    groups = [[replace(record("a"), case=Case("m", "a", {}, shape, device="cpu"))] for shape in shapes]
    found = [group[0].case.shape for group in choose(groups, Predictor(RATES, 0), 10, math.inf)]
    assert found == [shapes[4], shapes[0], shapes[3], shapes[2], shapes[1]]


def test_predictions_follow_what_was_seen() -> None:
    predictor = Predictor(RATES, 0)
    seen, alike, other = record("a", 10**9), record("b", 10**9), record("c", 10**9, mechanism="other")
    assert predictor.pass_s(other) == pytest.approx(1.0)
    predictor.learn(timed(seen, 3.0))
    assert predictor.pass_s(other) == pytest.approx(3.0), "of another mechanism nothing was seen: what all took"
    predictor.learn(timed(other, 0.5))
    predictor.learn(timed(alike, 9.0))
    predictor.learn(timed(seen, 5.0))
    assert [predictor.pass_s(one) for one in (alike, other)] == pytest.approx([5.0, 0.5]), "the median of its own"
    assert predictor.pass_s(record("d", 10**9, mechanism="third")) == pytest.approx(math.sqrt(3.0 * 5.0)), "of all four"


def test_what_a_node_is_told_predicts_the_same() -> None:
    predictor = Predictor(RATES, 7, 0.5, 2)
    for number, mechanism in enumerate("aabbbc"):
        predictor.learn(timed(record("x", 10**9, mechanism=mechanism), 1.0 + number))
    asked = [record("y", 10**8, mechanism=mechanism) for mechanism in ("a", "unseen")]
    told = predictor_from_json(asdict(predictor.about(asked)))
    assert [told.cell_s(one, 10) for one in asked] == pytest.approx([predictor.cell_s(one, 10) for one in asked])
    assert sum(map(len, told.seen.values())) == 2, "as little after a thousand blocks"


def by_the_book(
    waiting: Sequence[Sequence[Record]], predictor: Predictor, options: Options, left_s: float
) -> tuple[list[Record], tuple[float, float], float] | None:
    """What comes next, its share and the seconds expected in all, with every cell looked at."""
    samples = options.min_samples

    def size(one: Record) -> tuple[int, int]:
        return (one.case.shape.height * one.case.shape.width, one.case.shape.height)

    def cost(one: Record) -> float:
        return predictor.cell_s(one, samples)

    cells = [
        (size(one), one.case.label != options.first, cost(one), home) for home, group in enumerate(waiting) for one in group
    ]
    members = [one for group in waiting for one in group]
    rest_s, chosen, opened = left_s, set(), set()
    for index in sorted(range(len(cells)), key=lambda index: cells[index]):
        needed = cells[index][2] + (0.0 if cells[index][3] in opened else block_overhead_s())
        if needed <= rest_s:
            rest_s -= needed
            chosen.add(members[index].case.key)
            opened.add(cells[index][3])
    kept = [[one for one in group if one.case.key in chosen] for group in waiting]
    kept = sorted((group for group in kept if group), key=lambda group: (size(group[0]), sum(map(cost, group))))
    if not kept:
        return None
    costs = [block_overhead_s() + sum(map(cost, group)) for group in kept]
    fair = costs[0] + len(kept[0]) * (max(left_s - sum(costs), 0.0) / sum(map(len, kept)))
    expected_s = sum(max(cost(one), options.budget_s) for group in kept for one in group)
    return kept[0], (min(fair, left_s), min(max(fair, 3 * costs[0]), left_s)), expected_s


@pytest.mark.parametrize(("budget_s", "spent"), [(math.inf, 1.0), (4000.0, 1.0), (200.0, 1.0), (200.0, 0.1), (60.0, 3.0)])
def test_what_comes_next_is_what_a_look_at_every_cell_finds(budget_s: float, spent: float) -> None:
    draw = random.Random(7)
    waiting = [
        [
            record(f"{number}.{index}", draw.randrange(10**6, 10**9), side=draw_side, mechanism=draw.choice("abcdef"))
            for index in range(draw.randrange(1, 4))
        ]
        for number in range(60)
        for draw_side in [draw.randrange(1, 12)]
    ]
    predictor, options = Predictor(RATES, 0), Options(budget_s=3.0, first="7.1")
    queue, left_s, taken = Waiting(waiting, predictor, options), budget_s, 0
    while queue:
        wanted = by_the_book(waiting, predictor, options, left_s)
        coming = queue.take(left_s)
        if wanted is None or coming is None:
            assert wanted is None
            assert coming is None
            break
        group, share, expected_s = wanted
        assert labels([coming.group]) == labels([group])
        assert coming.share == pytest.approx(share)
        assert coming.expected_s == pytest.approx(expected_s)
        keys = {one.case.key for one in group}
        waiting = [[one for one in each if one.case.key not in keys] for each in waiting]
        for one in group:
            left_s -= spent * predictor.cell_s(one, 10)
            predictor.learn(timed(one, predictor.roofline_s(one) * draw.uniform(0.5, 4.0)))
        taken += 1
    assert {one.case.key for one in queue.records()} == {one.case.key for group in waiting for one in group}
    assert taken > 2


@pytest.mark.parametrize("run_budget_s", [None, 100.0])
def test_choosing_takes_a_run_of_a_thousand_blocks_little(monkeypatch: pytest.MonkeyPatch, run_budget_s: float | None) -> None:
    ops = tuple(OpCost("mm", str(number), "forward", 1, 1, 1, 1) for number in range(40))
    records = [
        record("a", 10**6 * (1 + number * 7919 % 100), side=number, mechanism=f"m{number % 9}") for number in range(1000)
    ]
    records = [replace(one, counts=replace(one.counts, ops=ops)) for one in records if one.counts is not None]
    now, steps = [0.0], list[Progress]()

    def measured(group: Sequence[Record], _: tuple[float, float], phase: blocks.Phase) -> Iterator[Record]:
        now[0] += 0.5
        yield from (timed(one, phase.predictor.roofline_s(one) * (1.0 + now[0] % 1.5)) for one in group)

    monkeypatch.setattr(measuring, "measure_block", measured)
    monkeypatch.setattr(measuring, "predictor_of", lambda *_: (Predictor(RATES, 1), ""))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    began = time.process_time()
    found = list(measuring.measure_all(records, "cpu", Options(run_budget_s=run_budget_s), steps.append, 0.0))
    assert time.process_time() - began < 10.0  # with a look at every cell after every block: a minute and more
    sides = [one.case.shape.height for one in found if one.timing]
    assert sides == sorted(sides)
    if run_budget_s is None:
        assert all(one.timing for one in found)
        assert [step.left_s for step in steps if step.left_s is not None][-1] == 0.0
    else:
        assert all(one.timing or one.detail.startswith(NOT_MEASURED_BUDGET) for one in found)
        assert sum(one.timing is not None for one in found) > 20


def test_a_flush_is_paid_for_where_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds as the probe timed it, and in memory; none where the last cache is too large, or caches are to be warm."""
    answer = {"usable": True, "rates": {"float32": asdict(RATES["float32"])}, "free_bytes": 10**6, "flush_s": 0.03}
    monkeypatch.setattr(measuring, "probe", lambda *_: answer)
    monkeypatch.setattr(measuring, "flush_bytes", lambda _: 10**5)
    cold = record("a")
    warm = replace(cold, case=replace(cold.case, settings={"cache": "warm"}))
    found = [measuring.predictor_of("cpu", each, Options())[0] for each in ([cold], [warm], [warm, cold])]
    assert [each and (each.flush_s, each.free_bytes) for each in found] == [(0.03, 900_000), (0.0, 10**6), (0.03, 900_000)]


@pytest.mark.parametrize(("size", "dtypes", "timed"), [(64, ["float32"], True), (0, ["float32"], False), (64, [], False)])
def test_the_probe_times_a_flush(monkeypatch: pytest.MonkeyPatch, size: int, dtypes: list[str], timed: bool) -> None:
    monkeypatch.setattr(worker, "flush", lambda _: Flush(lambda: time.sleep(0.01), size))
    monkeypatch.setattr(device, "probe", lambda _, dtypes: {name: {} for name in dtypes})
    said: list[dict[str, Any]] = []
    worker._probe({"device": "cpu", "dtypes": dtypes}, Board(memoryview(bytearray(24)).cast("d")), said.append)
    assert (said[0]["flush_s"] >= 0.01) is timed
    assert timed or said[0]["flush_s"] == 0.0
