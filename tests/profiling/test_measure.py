"""Timing and peak memory: what is certain about them without asserting on time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprof import stats
from attnprof.execute import Options, run_cases
from attnprof.profiling.measuring import contention, device, measure, peak, prepare
from attnprof.profiling.measuring.window import Flush, Member, Pass, flush_of, move, run_pass
from attnprof.records import NOT_MEASURED_BUDGET, Case, Record, Shape

FAULTY = str(Path(__file__).parents[1] / "faulty.py")


def case(name: str = "channel/se", **fields: Any) -> Case:
    defaults: dict[str, Any] = {"label": name, "args": {}, "shape": Shape(2, 32, 9, 7), "device": "cpu"}
    return Case(mechanism=name, **{**defaults, **fields})


@pytest.fixture(autouse=True)
def _same_process() -> Iterator[None]:
    """What measuring changes for its process is put back."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def rounds_of(cases: list[Case], plan: measure.Plan) -> dict[str, measure.Outcome]:
    spent = dict.fromkeys(range(len(cases)), 0.0)
    turns = measure.Turns(lambda _: None, lambda member: spent[member], time.monotonic())
    members = [measure.prepare_member(one, index, plan) for index, one in enumerate(cases)]
    assert all(isinstance(member, Member) for member in members)
    outcomes = measure.run_rounds([m for m in members if isinstance(m, Member)], plan, turns, lambda: ("noted",))
    return {outcome.case.label: outcome for outcome in outcomes}


def test_rounds_pair_the_members_of_a_block() -> None:
    cases = [case(label="a"), case(label="b"), case("spatial/nonlocal", label="c")]
    outcomes = rounds_of(cases, measure.Plan("block", budget_s=0.2, max_rel_ci=0.0))
    assert set(outcomes) == {"a", "b", "c"}
    for outcome in outcomes.values():
        timing = outcome.timing
        assert timing is not None
        assert timing.n == len(timing.rounds) >= 10
        assert list(timing.rounds) == list(range(timing.n)), "once per round, from the first on"
        assert timing.block == "block"
        assert timing.stopped_by in ("stable", "budget")
        assert timing.warmup >= 2
        assert "noted" in timing.warnings
        assert min(timing.latency_s) > 0
        assert outcome.extra["flags"]["threads"] == 1
        assert outcome.extra["flags"]["cudnn_benchmark"] is False


def test_the_order_within_a_round_changes() -> None:
    order: list[int] = []
    plan = measure.Plan("block", budget_s=0.1, max_rel_ci=0.0)
    members = [measure.prepare_member(case(label=str(n), settings={"cache": "warm"}), n, plan) for n in range(3)]
    turns = measure.Turns(order.append, lambda _: 0.0, time.monotonic())
    list(measure.run_rounds([m for m in members if isinstance(m, Member)], plan, turns, tuple))
    sampled = order[3:33]
    rounds = [tuple(sampled[n : n + 3]) for n in range(0, 30, 3)]
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert len(set(rounds)) > 1


def test_a_wide_interval_is_enough_where_it_is_allowed() -> None:
    budget = 0.004  # a quarter of it, after which an interval is looked at, has gone by with the tenth sample
    outcome = rounds_of([case()], measure.Plan("block", budget_s=budget, max_rel_ci=1e9))["channel/se"]
    assert outcome.timing is not None
    assert outcome.timing.stopped_by == "interval"


def test_a_deadline_gives_no_timing_rather_than_a_thin_one() -> None:
    outcome = rounds_of([case()], measure.Plan("block", deadline_s=0.0))["channel/se"]
    assert outcome.timing is None
    assert outcome.detail.startswith(NOT_MEASURED_BUDGET)


def test_enough_is_the_least_number_of_samples() -> None:
    outcome = rounds_of([case()], measure.Plan("block", max_rel_ci=0.0, enough_s=0.0, deadline_s=60.0))["channel/se"]
    assert outcome.timing is not None
    assert outcome.timing.n == 10


def test_steady_means_that_two_halves_agree() -> None:
    assert measure.is_steady([1.0, 1.01, 0.99, 1.0, 1.01, 1.0, 1.01, 0.99, 1.0, 1.01])
    assert not measure.is_steady([2.0, 1.8, 1.6, 1.5, 1.4, 1.0, 1.0, 1.0, 1.0, 1.0]), "still falling"
    assert not measure.is_steady([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 0.6, 1.4, 0.7]), "another spread"


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="the system does not tell how long a thread waited"
)
def test_a_core_that_is_shared_with_other_work_is_seen() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a child's too
    other = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        long = case("spatial/nonlocal", label="long", shape=Shape(1, 64, 48, 48))  # many time slices of the scheduler
        outcome = rounds_of([long], measure.Plan("block", budget_s=1.0, max_rel_ci=0.0))["long"]
    finally:
        other.kill()
        other.communicate()
    assert outcome.timing is not None
    assert outcome.extra["waited_for_core_s"] > 0.2 * sum(outcome.timing.latency_s), "about half of the time is the other's"
    assert contention.BUSY in outcome.timing.warnings


@pytest.mark.parametrize(("waited_s", "warned"), [(0.49e-3, False), (0.51e-3, True)])
def test_waiting_for_a_core_is_a_warning_above_a_twentieth(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, warned: bool
) -> None:
    monkeypatch.setattr(measure, "time_pass", lambda _: Pass(1e-2, 1e-2, waited_s))
    outcome = rounds_of([case()], measure.Plan("block", budget_s=0.05))["channel/se"]
    assert outcome.timing is not None
    assert (contention.BUSY in outcome.timing.warnings) is warned
    assert outcome.extra["waited_for_core_s"] == pytest.approx(waited_s * outcome.timing.n)


def test_an_invalid_output_is_named() -> None:
    verdict = measure.prepare_member(case(f"{FAULTY}:GivesNan"), 0, measure.Plan("block"))
    assert verdict == "output 0 of shape (2, 32, 9, 7) is not finite"


def test_the_same_module_against_itself() -> None:
    records: list[Record] = list(
        run_cases([case(label="a"), case(label="b")], Options(budget_s=0.3, tracer="tests.faulty:count"))
    )
    first, second = (record.timing for record in records)
    assert first is not None
    assert second is not None
    assert first.block == second.block
    both = sorted(set(first.rounds) & set(second.rounds))
    ratio = stats.paired_ratio([first.latency_s[n] for n in both], [second.latency_s[n] for n in both])
    assert ratio.pairs >= 10
    assert ratio.low <= ratio.value <= ratio.high


def tensors_of(member: Member) -> list[torch.Tensor]:
    module = member.prepared.module
    return [*module.parameters(), *module.buffers(), *member.prepared.inputs, *(member.gradients or ())]


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_moved_member_is_the_same_elsewhere(mode: str) -> None:
    member = measure.prepare_member(case("spatial/nonlocal", mode=mode), 0, measure.Plan("block"))
    assert isinstance(member, Member)
    with prepare.conditions(member.case):
        output = prepare.forward(member.prepared)
        before = tensors_of(member)
        assert len(before) > 3 + (mode == "training")
        values, places = [tensor.detach().clone() for tensor in before], [tensor.untyped_storage() for tensor in before]
        needed = [tensor.requires_grad for tensor in before]
        move(member)
        after = tensors_of(member)
        assert all(old is new for old, new in zip(before, after, strict=True)), "what holds a tensor goes on holding it"
        assert all(torch.equal(old, new) for old, new in zip(values, after, strict=True))
        assert all(old.data_ptr() != new.untyped_storage().data_ptr() for old, new in zip(places, after, strict=True))
        assert [tensor.requires_grad for tensor in after] == needed
        assert torch.equal(prepare.forward(member.prepared), output)
        run_pass(member)
    if mode == "training":
        assert all(tensor.grad is not None for tensor in member.prepared.module.parameters())


def test_moved_tensors_that_share_storage_go_on_sharing_it() -> None:
    member = measure.prepare_member(case(), 0, measure.Plan("block"))
    assert isinstance(member, Member)
    whole = torch.arange(12.0)
    module = torch.nn.Module()
    module.whole = torch.nn.Parameter(whole)
    module.register_buffer("part", whole[4:10].view(2, 3).t())
    module.register_buffer("empty", torch.empty(0))
    moved = replace(member, prepared=replace(member.prepared, module=module))
    move(moved)
    parameter, part = module.get_parameter("whole"), module.get_buffer("part")
    assert parameter.data_ptr() != whole.data_ptr()
    assert torch.equal(part, torch.tensor([[4.0, 7.0], [5.0, 8.0], [6.0, 9.0]]))
    with torch.no_grad():
        parameter[4] = 99.0
    assert part[0, 0] == 99.0
    assert whole[4] == 4.0


def test_another_place_for_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal members: the weights of neither stay where they were from one round to the next."""
    places: dict[str, list[int]] = {"a": [], "b": []}

    def watched(member: Member) -> Pass:
        places[member.case.label].append(next(member.prepared.module.parameters()).data_ptr())
        return Pass(1e-3, 1e-3)

    monkeypatch.setattr(measure, "time_pass", watched)
    plan = measure.Plan("block", budget_s=0.05, max_rel_ci=0.0)
    rounds_of([case(label="a", settings={"cache": "warm"}), case(label="b", settings={"cache": "warm"})], plan)
    for own in places.values():
        sampled = own[-10:]
        assert all(here != there for here, there in itertools.pairwise(sampled))


@pytest.mark.parametrize(("cache", "flushed"), [(2**20, 2 * 2**20), (128 * 2**20, 256 * 2**20), (128 * 2**20 + 1, 0)])
def test_caches_are_flushed_by_a_write_of_twice_the_last_one(monkeypatch: pytest.MonkeyPatch, cache: int, flushed: int) -> None:
    monkeypatch.setattr(device, "cache_bytes", lambda *_: cache)
    filled: list[int] = []
    fill = torch.Tensor.fill_

    def watched(tensor: torch.Tensor, value: float) -> torch.Tensor:
        filled.append(tensor.nbytes)
        return fill(tensor, value)

    monkeypatch.setattr(torch.Tensor, "fill_", watched)
    cold, warm = flush_of(case()), flush_of(case(settings={"cache": "warm"}))
    assert (cold.bytes, warm.bytes, warm.warnings) == (flushed, 0, ())
    cold.run()
    warm.run()
    assert filled == ([flushed] if flushed else [])
    assert cold.warnings == (() if flushed else ("caches were warm: flushing a last cache of 128 MiB takes too long",))


@pytest.mark.parametrize("size", [64, 0])
def test_every_sample_finds_its_caches_as_it_should(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Cold: flushed just before. Warm: a brief pass is run just before, so that they hold its own data, not a neighbour's."""
    seen: list[str] = []
    monkeypatch.setattr(measure, "flush_of", lambda _: Flush(lambda: seen.append("flush"), size))
    monkeypatch.setattr(measure, "run_pass", lambda member: seen.append(f"run {member.case.label}"))
    monkeypatch.setattr(measure, "warm_up", lambda *_: None)

    def timed(member: Member) -> Pass:
        seen.append(f"time {member.case.label}")
        return Pass(1e-3, 1e-3)

    plan = measure.Plan("block", budget_s=0.05, max_rel_ci=0.0)
    members = [measure.prepare_member(case(label=name), n, plan) for n, name in enumerate(("brief", "long"))]
    for member, estimate_s in zip(members, (0.004, 0.006), strict=True):
        assert isinstance(member, Member)
        member.estimate_s = estimate_s
    monkeypatch.setattr(measure, "time_pass", timed)
    turns = measure.Turns(lambda _: None, lambda _: 0.0, time.monotonic())
    (*_, outcome) = measure.run_rounds([m for m in members if isinstance(m, Member)], plan, turns, tuple)
    assert outcome.timing is not None
    before = {"time brief": set[tuple[str, ...]](), "time long": set[tuple[str, ...]]()}
    for first, second, third in zip(seen, seen[1:], seen[2:], strict=False):
        if third.startswith("time"):
            before[third].add((first, second) if second.startswith("run") else (second,))
    assert before["time long"] == {("flush",)}
    assert before["time brief"] == ({("flush",)} if size else {("flush", "run brief")})
    assert outcome.extra["flush_bytes"] == size


def test_every_flag_is_recorded() -> None:
    prepare.configure(case())
    wanted = {"threads": 1, "matmul_tf32": False, "cudnn_tf32": False, "cudnn_benchmark": False, "cudnn_deterministic": False}
    found = device.flags()
    assert wanted.items() <= found.items()
    assert {"interop_threads", "pinned_cores", "deterministic", "float32_matmul_precision"} <= set(found)


def test_inputs_and_modules_follow_the_key() -> None:
    first, again, other = (prepare.prepare(one, 0) for one in (case(), case(), case(shape=Shape(2, 32, 7, 9))))
    assert torch.equal(first.inputs[0], again.inputs[0])
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), again.module.parameters(), strict=True))
    assert not torch.equal(first.inputs[0].flatten(), other.inputs[0].flatten())


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_pass_is_what_its_mode_says(mode: str) -> None:
    ready = prepare.prepare(case(mode=mode), 0)
    assert ready.module.training == (mode == "training")
    with prepare.conditions(ready.case):
        outputs = prepare.forward(ready)
        assert outputs.requires_grad == (mode == "training")
        if mode == "training":
            prepare.backward(ready, outputs)
            assert ready.inputs[0].grad is not None
            assert all(parameter.grad is not None for parameter in ready.module.parameters())
            prepare.reset(ready)
    assert all(tensor.grad is None for tensor in (*ready.module.parameters(), *ready.inputs))


def test_backward_equals_torchs_own() -> None:
    ready, twin = prepare.prepare(case(mode="training"), 0), prepare.prepare(case(mode="training"), 0)
    prepare.backward(ready, prepare.forward(ready))
    outputs = prepare.forward(twin)
    outputs.backward(torch.ones_like(outputs))
    for mine, theirs in zip(
        (*ready.module.parameters(), *ready.inputs), (*twin.module.parameters(), *twin.inputs), strict=True
    ):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


class _Known(torch.nn.Module):
    """Forward: a (n floats) and b (2 n floats) together, then a sum; nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x + 1
        b = torch.cat([a, a])
        del a
        return b[:2] * 2


def test_the_peak_of_a_known_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprof import mechanisms

    monkeypatch.setattr(mechanisms, "build", lambda *_: _Known())
    x = 2 * 32 * 9 * 7 * 4
    memory = peak.measure_peak(case(), 0)
    scalars = memory.peak_bytes - 3 * x  # the constants 1 and 2 become tensors of a few bytes
    assert 0 <= scalars < 64
    assert memory.source == "cpu_allocator"
    assert memory.absolute_bytes == memory.peak_bytes + x
    # training: the output (x), its gradient (x), the gradient of b (2 x) before it is folded into that of a
    assert peak.measure_peak(case(mode="training"), 0).peak_bytes >= 4 * x


def test_device_names() -> None:
    assert device.resolve_device("cuda") == "cuda:0"
    assert device.resolve_device("auto") in ("cpu", "cuda:0")
    assert device.usable("none")[0] is False
    assert device.available_bytes() > 0
    assert device.cache_bytes() >= 2**20
    facts = device.environment("cpu")
    assert {"device", "torch", "python", "cpu", "cores", "machine"} <= set(facts)
    assert len(facts["machine"]) == 12


def test_the_probe_gives_rates_per_dtype() -> None:
    rates = device.probe("cpu", ["float32", "bfloat16"])
    assert set(rates) == {"float32", "bfloat16"}
    assert all(value > 0 for rate in rates.values() for value in rate.values())


_no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@_no_gpu
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_on_a_gpu(mode: str) -> None:
    cases = [case(name, device="cuda:0", mode=mode, shape=Shape(2, 64, 33, 33)) for name in ("channel/se", "spatial/nonlocal")]
    for record in run_cases(cases, Options(budget_s=0.5)):
        assert record.status == "ok", record.detail
        assert record.timing is not None
        assert record.timing.n >= 10
        assert record.memory is not None
        assert record.memory.source == "cuda_allocator"
        assert record.environment["gpu"]


@pytest.mark.gpu
@_no_gpu
def test_a_gpu_that_runs_out_of_memory_costs_one_row() -> None:
    cases = [case(f"{FAULTY}:{name}", label=name, device="cuda:0") for name in ("Good", "AllocatesOnDevice")]
    found = {record.case.label: record for record in run_cases(cases, Options(budget_s=0.2, tracer="tests.faulty:count"))}
    assert found["AllocatesOnDevice"].status == "oom"
    assert found["Good"].timing is not None
