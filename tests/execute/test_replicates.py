"""One block timed by several processes: what is joined and paired, what an interval covers, and what a GPU's heat costs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from attnprof import execute, report, stats
from attnprof.cli import cli
from attnprof.errors import UsageError
from attnprof.execute import Options, Progress, blocks, run_cases
from attnprof.execute.child import Ending
from attnprof.execute.predict import Predictor, Rates, block_overhead_s
from attnprof.execute.replicates import merged
from attnprof.profiling.measuring import gpu
from attnprof.records import NOT_MEASURED_BUDGET, Case, Record, Shape, Timing, record_from_json, timing_from_json, to_json
from attnprof.report import compare, ratios
from attnprof.report.metrics import METRICS
from tests.faulty import COUNTS

FAULTY = str(Path(__file__).parents[1] / "faulty.py")
LATENCY = METRICS["latency"]


def case(label: str) -> Case:
    return Case(f"{FAULTY}:Good", label, {}, Shape(1, 8, 8, 8), device="cpu", settings={"cache": "warm"})


def timing(milliseconds: float, rounds: int = 8, **more: Any) -> Timing:
    samples = tuple(milliseconds * 1e-3 * (1 + 0.01 * math.sin(i)) for i in range(rounds))
    return Timing(samples, tuple(range(rounds)), **{"block": "b", "warmup": 5, "stopped_by": "interval", **more})


def record(label: str, timed: Timing | None, **more: Any) -> Record:
    return Record(case(label), counts=COUNTS, timing=timed, **more)


def joined(label: str, *milliseconds: float) -> Record:
    return merged([[record(label, timing(value))] for value in milliseconds])[0]


def timing_of(found: Record) -> Timing:
    assert found.timing is not None
    return found.timing


# --- what is joined


def test_one_process_is_left_as_it_is() -> None:
    only = record("a", timing(1.0))
    assert merged([[only]]) == [only]
    data = to_json(only)["timing"]
    assert "process_of" not in data, "a line from one process reads as it always did"
    assert "k" not in data


def test_every_sample_is_kept_with_its_process() -> None:
    a = record("a", timing(1.0, 3, warnings=("x",), warmup_converged=False, stopped_by="budget"), energy_j=1.0)
    again = record("a", timing(2.0, 4, warnings=("y", "x"), stopped_by="stable"), energy_j=4.0)
    third = record("a", timing(3.0, 2), energy_j=2.0)
    (found,) = merged([[a], [again], [third]])
    timed = timing_of(found)
    assert timed.latency_s == timing_of(a).latency_s + timing_of(again).latency_s + timing_of(third).latency_s
    assert timed.process_of == (0, 0, 0, 1, 1, 1, 1, 2, 2)
    assert timed.rounds == (0, 1, 2, 0, 1, 2, 3, 0, 1)
    assert (timed.k, timed.n, timed.warmup) == (3, 9, 15)
    assert (timed.warmup_converged, timed.stopped_by, timed.warnings) == (False, "budget", ("x", "y"))
    assert found.energy_j == 2.0


def test_a_case_that_one_process_did_not_time_is_left_out() -> None:
    both = [record("a", timing(1.0)), record("b", timing(1.0))]
    assert [found.case.label for found in merged([both, both[:1]])] == ["a"]


def test_replicates_read_back_from_json() -> None:
    found = joined("a", 1.0, 2.0)
    data = to_json(found)
    assert data["timing"]["k"] == 2
    assert data["timing"]["process_of"] == [0] * 8 + [1] * 8
    assert record_from_json(data) == replace(found, case=found.case.public)
    old = {name: value for name, value in to_json(timing(1.0)).items() if name != "process_of"}
    assert timing_from_json(old) == timing(1.0), "a store from before replicates"


def test_a_latency_over_processes_has_the_interval_over_processes() -> None:
    timed = timing_of(joined("a", 1.0, 2.0, 4.0))
    medians = [timing_of(record("a", timing(value))).median_s for value in (1.0, 2.0, 4.0)]
    assert timed.median_s == medians[1]
    mean, low, high = stats.mean_interval([math.log(value) for value in medians])
    assert timed.ci_s == pytest.approx((math.exp(low), math.exp(high)))
    assert low < mean < high


# --- what is paired


def test_rounds_pair_within_their_process_only() -> None:
    """Round 0 of one process is not round 0 of the other: mixed up, these ratios would be 1 to 30 and not 10."""
    first, second = joined("a", 10.0, 300.0), joined("b", 1.0, 30.0)
    pairs = ratios.paired(first, second)
    assert [len(left) for left, _ in pairs] == [8, 8]
    assert all(a / b == pytest.approx(10.0) for left, right in pairs for a, b in zip(left, right, strict=True))


def test_a_round_that_only_one_of_two_has_is_no_pair() -> None:
    first = merged([[record("a", timing(1.0, 9))], [record("a", timing(1.0, 7))]])[0]
    second = merged([[record("b", timing(1.0, 8))], [record("b", timing(1.0, 8))]])[0]
    assert [len(left) for left, _ in ratios.paired(first, second)] == [8, 7]


def test_a_ratio_says_what_it_covers() -> None:
    within = ratios.ratio_of(record("a", timing(2.0)), record("b", timing(1.0)), LATENCY)
    assert (within.covers, within.processes, within.pairs) == ("within one process", 1, 8)
    over = ratios.ratio_of(joined("a", 2.0, 4.0, 8.0), joined("b", 1.0, 2.1, 4.2), LATENCY)
    assert (over.covers, over.processes, over.pairs) == ("over 3 processes", 3, 24)
    logs = [math.log(2.0), math.log(4 / 2.1), math.log(8 / 4.2)]
    assert [over.value, over.low, over.high] == pytest.approx([math.exp(x) for x in stats.mean_interval(logs)])


def test_two_processes_are_honest_and_wide() -> None:
    """One degree of freedom: t is 12.7, so ratios of 2.0 and 2.2 leave nearly everything open."""
    over = ratios.ratio_of(joined("a", 2.0, 2.2), joined("b", 1.0, 1.0), LATENCY)
    assert over.low is not None
    assert over.high is not None
    half = stats.t_quantile(1) * math.log(2.2 / 2.0) / 2
    assert math.log(over.high / over.low) / 2 == pytest.approx(half)


def test_throughputs_ratio_is_the_inverse() -> None:
    first, second = joined("a", 2.0, 2.1, 2.2), joined("b", 1.0, 1.0, 1.0)
    latency, throughput = (ratios.ratio_of(first, second, METRICS[name]) for name in ("latency", "throughput"))
    assert latency.value is not None
    assert latency.high is not None
    assert (throughput.value, throughput.low) == pytest.approx((1 / latency.value, 1 / latency.high))


def test_few_pairs_in_one_of_the_processes_give_no_interval() -> None:
    lengths = (20, 5)
    first = merged([[record("a", timing(2.0, rounds))] for rounds in lengths])[0]
    second = merged([[record("b", timing(1.0, rounds))] for rounds in lengths])[0]
    ratio = ratios.ratio_of(first, second, LATENCY)
    assert ratio.value == pytest.approx(2.0)
    assert (ratio.low, ratio.high, ratio.covers) == (None, None, "too few pairs for an interval")


def test_compare_says_over_how_many_processes() -> None:
    records = [joined("a", 2.0, 2.02, 2.04), joined("b", 1.0, 1.0, 1.0)]
    compared = compare.comparison(records, "a", ("latency",))
    assert any("over 3 processes, n=24 pairs" in sentence for sentence in compared.sentences)
    (ratio,) = compare.data(compared)["ratios"]
    assert (ratio["covers"], ratio["pairs"], ratio["processes"]) == ("over 3 processes", 24, 3)
    notes = " ".join(compared.report.notes)
    assert "t-interval over the processes (2 d.o.f.)" in notes
    assert "n = 24 samples per latency from 3 processes" in notes
    alone = report.build([record("a", timing(2.0)), record("b", timing(1.0))], baseline="a", metrics=["latency"])
    assert "it covers what varies within one process only" in " ".join(alone.notes)


# --- running them


def test_two_spawned_processes_time_the_whole_block() -> None:
    steps: list[Progress] = []
    options = Options(budget_s=0.1, tracer="tests.faulty:count", replicates=2)
    found = list(run_cases([case("a"), case("b")], options, steps.append))
    for one in found:
        timed = timing_of(one)
        assert timed.k == 2
        assert all(len(own) >= 10 for own in timed.by_process.values())
        assert one.memory is not None
    assert len({timing_of(one).block for one in found}) == 1
    measured = [step for step in steps if step.stage == "measure"]
    assert [(step.done, step.total) for step in measured] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step.text for step in measured] == ["", *["process 1 of 2"] * 2, *["process 2 of 2"] * 2]


Answers = list[Callable[[Case], dict[str, Any]]]


def timed_event(slowed: bool = False, milliseconds: float = 1.0) -> Callable[[Case], dict[str, Any]]:
    timed = to_json(timing(milliseconds))
    return lambda of: {"event": "timed", "key": of.key, "timing": timed, "energy_j": None, "slowed": slowed}


def failed_event(of: Case) -> dict[str, Any]:
    return {"event": "failed", "key": of.key, "status": "error", "detail": "no such luck"}


@contextmanager
def children(monkeypatch: pytest.MonkeyPatch, answers: list[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Children that answer from a list, one entry ({label: event}) per child that times; memory is answered as it is asked."""
    from attnprof.records import case_from_json

    asked: list[dict[str, Any]] = []

    def converse(request: dict[str, Any], **_: Any) -> Iterator[Any]:
        cases = [case_from_json(data) for data in request["cases"]]
        if request["op"] == "measure":
            asked.append(request)
            events = answers[len(asked) - 1]
            yield from (events[one.label](one) for one in cases)
        else:
            memory = {"peak_bytes": 1, "source": "cpu_allocator"}
            yield from ({"event": "memory", "key": one.key, "memory": memory} for one in cases)
        yield Ending("end")

    monkeypatch.setattr(blocks, "converse", converse)
    yield asked


def measure(labels: str, replicates: int, steps: list[Progress], left_s: float = math.inf) -> dict[str, Record]:
    phase = blocks.Phase(
        "cpu", Options(replicates=replicates), steps.append, time.monotonic(), Predictor({}, 1), len(labels) * replicates
    )
    group = [record(label, None) for label in labels]
    return {found.case.label: found for found in blocks.measure_block(group, (left_s, left_s), phase)}


def test_a_member_that_fails_in_a_later_process_costs_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, fails = {"a": timed_event(), "b": timed_event()}, {"a": timed_event(), "b": failed_event}
    with children(monkeypatch, [fine, fails, {"a": timed_event()}]) as asked:
        found = measure("ab", 3, [])
    assert [request["plan"]["seed"] for request in asked] == [0, 1, 2]
    assert [len(request["cases"]) for request in asked] == [2, 2, 1]
    assert (found["b"].status, found["b"].detail, found["b"].timing) == ("error", "no such luck", None)
    assert timing_of(found["a"]).k == 3


def test_a_block_that_a_hot_gpu_slowed_down_is_timed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Progress] = []
    with children(monkeypatch, [{"a": timed_event(slowed=True, milliseconds=9.0)}, {"a": timed_event()}]) as asked:
        found = measure("a", 1, steps)
    assert len(asked) == 2
    assert timing_of(found["a"]).median_s == pytest.approx(1e-3, rel=0.02)
    said = [step.text for step in steps if step.stage == "warning" and "another run is timing" not in step.text]
    assert said == ["the GPU slowed down: the block is timed once more (0 s)"]


def test_a_gpu_that_stays_hot_is_believed_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"a": timed_event(slowed=True, milliseconds=9.0)}
    with children(monkeypatch, [slow, slow]) as asked:
        found = measure("a", 1, [])
    assert len(asked) == 2
    assert timing_of(found["a"]).median_s == pytest.approx(9e-3, rel=0.02)


def test_no_time_left_is_said_for_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with children(monkeypatch, []) as asked:
        found = measure("ab", 2, [], left_s=0.0)
    assert asked == []
    assert all(one.detail.startswith(NOT_MEASURED_BUDGET) for one in found.values())
    assert all(one.timing is None for one in found.values())


def test_replicates_are_spawned_and_paid_for() -> None:
    assert not Options().spawn
    assert Options(replicates=2).spawn
    assert not Options(replicates=2, start="fork").spawn
    rates = {"float32": Rates(1e9, 1e9, 1e-6)}
    one, three = (Predictor(rates, 1, processes=number) for number in (1, 3))
    cell = record("a", None)
    timed = one.cell_s(cell, 10) - one.memory_s(cell)
    assert three.cell_s(cell, 10) == pytest.approx(3 * timed + one.memory_s(cell))
    assert block_overhead_s(2) < block_overhead_s(3)


def test_there_is_nothing_to_replicate_without_a_device() -> None:
    arguments = ["compare", "nonlocal", "ccnet", "--hw", "9x9", "--device", "none", "--replicates", "2"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert "--replicates" in str(result.exception)


def test_compare_takes_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []

    def run_cases(cases: list[Case], options: Options, _: Any) -> Iterator[Record]:
        seen.append(options)
        for one, value in zip(cases, (2.0, 1.0), strict=True):
            yield replace(joined("a", value, value * 1.01, value * 1.02), case=one)

    monkeypatch.setattr(execute, "run_cases", run_cases)
    arguments = ["compare", "nonlocal", "ccnet", "--hw", "9x9", "--device", "cpu", "--mode", "inference", "--replicates", "3"]
    result = CliRunner().invoke(cli, [*arguments, "--json", "-q"], standalone_mode=False)
    assert result.return_value == 0, result.output
    assert seen[0].replicates == 3
    data = json.loads(result.stdout)
    (ratio,) = (entry for entry in data["ratios"] if entry["metric"] == "latency")
    assert (ratio["covers"], ratio["processes"], ratio["value"]) == ("over 3 processes", 3, pytest.approx(2.0))
    assert [entry["timing"]["k"] for entry in data["records"]] == [3, 3]


# --- NVML, as far as it can be told without a GPU


class _Nvml:
    """An NVML with one GPU, whose clock is held down for these reasons and which so many processes use."""

    NVMLError = RuntimeError
    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    def __init__(self, reasons: int, processes: int) -> None:
        self.nvmlDeviceGetCurrentClocksEventReasons = lambda _: reasons
        self.nvmlDeviceGetComputeRunningProcesses = lambda _: [object()] * processes
        self.nvmlDeviceGetHandleByUUID = str
        self.nvmlDeviceGetClockInfo = self.nvmlDeviceGetMaxClockInfo = lambda *_: 1000
        self.nvmlDeviceGetTemperature = lambda *_: 50
        self.nvmlDeviceGetPowerUsage = self._refuse

    def _refuse(self, _: Any) -> int:
        raise self.NVMLError("not supported")


@pytest.mark.parametrize(
    ("reasons", "processes", "slowed", "warnings"),
    [
        (0x1, 1, False, ()),  # idle
        (0x4, 1, False, ("the GPU's clock was held by its power cap",)),
        (0x8, 1, True, ("the GPU slowed down: hardware slowdown",)),
        (0x20, 0, True, ("the GPU slowed down: software thermal slowdown",)),
        (0x44, 1, True, ("the GPU slowed down: hardware thermal", "the GPU's clock was held by its power cap")),
        (0x80, 3, True, ("the GPU slowed down: power brake", "another process was using the GPU")),
    ],
)
def test_what_disturbed_a_gpu(
    monkeypatch: pytest.MonkeyPatch, reasons: int, processes: int, slowed: bool, warnings: tuple[str, ...]
) -> None:
    @contextmanager
    def nvml() -> Iterator[Any]:
        yield _Nvml(reasons, processes)

    monkeypatch.setattr(gpu, "_nvml", nvml)
    watched = gpu.Watch("cuda:0", "GPU-1")
    watched.look()
    assert watched.slowed() is slowed
    assert watched.warnings() == warnings
    before, after = watched.facts()["gpu_state"]
    assert before == after
    assert "power_w" not in before, "a question that this GPU does not answer"
    assert before["sm_clock_mhz"] == 1000


def test_a_driver_from_before_the_new_name() -> None:
    old = SimpleNamespace(nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 0x8)
    assert gpu._clock_reasons(old, None) == 0x8


def test_without_a_driver_nothing_is_seen() -> None:
    watched = replace(gpu.Watch("cpu"))
    assert (watched.warnings(), watched.slowed(), watched.facts()) == ((), False, {})
