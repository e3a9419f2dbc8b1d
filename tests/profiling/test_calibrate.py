"""Calibrated peaks: ops run alone, remembered on disk, added up; against the allocator of real passes, what may go wrong."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from attnprof import store
from attnprof.errors import UntraceableError
from attnprof.execute import Calibrated, Options, calibrate_all, run_cases
from attnprof.profiling.calibrating import calibrate, probes, recorder
from attnprof.profiling.calibrating.allocator import Event, profiled
from attnprof.profiling.calibrating.cache import VARIABLE, Cache, cache_folder
from attnprof.profiling.calibrating.probes import Probe, probe, probe_of
from attnprof.profiling.calibrating.recorder import Call, Hole
from attnprof.profiling.measuring import device, peak
from attnprof.profiling.measuring.prepare import UnsupportedError
from attnprof.records import MODES, NOT_CALIBRATED, Case, Memory, Record, Shape, TensorSpec, record_from_json, to_json
from tests.catalogue import one_thread
from tests.makers import memory_page

FAULTY = str(Path(__file__).parents[1] / "faulty.py")
SHAPE = Shape(1, 64, 33, 33)
aten = torch.ops.aten


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own and one thread for every test here."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(device, "pin_cores", lambda threads: None)  # this process goes on to other tests
    with one_thread():
        yield tmp_path / "cache"


def case(name: str, mode: str = "inference", shape: Shape = SHAPE, **more: Any) -> Case:
    return Case(name, name.rpartition(":")[2], {}, shape, "float32", mode, "cpu", **more)


def calibrated(*cases: Case, **options: Any) -> dict[str, Calibrated]:
    found = calibrate_all(cases, Options(**options), lambda _: None)
    return {f"{one.label} {one.mode}": what for one, what in found}


# --- against real passes ----------------------------------------------------------------------------------------------


def test_equal_to_the_allocator_where_the_trace_is_not() -> None:
    """Kernels that take scratch, and one that does not: each number from a process of its own."""
    names = ("conv3x3", "scnet", "danet", "se")
    cases = [case(name, mode) for name in names for mode in MODES]
    found = calibrated(*cases)
    raised = 0
    for one in cases:
        measured, reason = memory_page.measure(one, Options())
        assert measured is not None, reason
        what = found[f"{one.label} {one.mode}"]
        assert what.memory is not None, what.reason
        assert what.memory.peak_bytes == pytest.approx(measured, rel=0.01), one
        assert what.memory.source == "calibrated"
        raised += what.memory.peak_bytes > 1.05 * what.facts["traced_bytes"]
    assert raised >= 4


def test_without_its_scratch_the_peak_is_seen_to_be_wrong(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The comparison has teeth."""
    one = case("conv3x3")
    measured = peak.measure_peak(one, 0).peak_bytes
    assert calibrate.calibrate_case(one, folder).memory.peak_bytes == pytest.approx(measured, rel=0.01)
    monkeypatch.setattr(calibrate, "probe", lambda call, device: Probe(0))
    assert calibrate.calibrate_case(one, None).memory.peak_bytes < 0.9 * measured


def test_a_second_time_nothing_is_run(folder: Path) -> None:
    one = case("pam", "training")
    first, second = calibrate.calibrate_case(one, folder), calibrate.calibrate_case(one, folder)
    assert first.probed == first.distinct > 5
    assert second.probed == 0
    assert replace(second, probed=first.probed) == first
    assert first.memory.at_op == "_softmax_backward_data (backward)"
    assert first.memory.scratch_bytes == first.scratch["clone"] == (33 * 33) ** 2 * 4
    assert first.memory.absolute_bytes == first.memory.peak_bytes + recorder.record(one, "cpu").counts.resident_bytes


def test_another_size_is_another_probe(folder: Path) -> None:
    """Nothing is fitted: what was found at one size is not used at another."""
    calibrate.calibrate_case(case("conv3x3"), folder)
    other = calibrate.calibrate_case(case("conv3x3", shape=Shape(1, 64, 16, 16)), folder)
    assert other.probed >= 1


def test_the_state_of_the_random_numbers_is_left_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    calibrate.calibrate_case(case("se", "training"), folder)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["conv3x3", "pam", "ccnet"])
def test_on_a_gpu(name: str) -> None:
    """The same against max_memory_allocated."""
    one = replace(case(name, "training", Shape(1, 256, 65, 65)), device="cuda:0")
    measured, reason = memory_page.measure(one, Options())
    assert measured is not None, reason
    for probed in (True, False):
        (found,) = calibrated(one).values()
        assert found.memory is not None, found.reason
        assert found.memory.peak_bytes == pytest.approx(measured, rel=0.05)
        assert bool(found.facts["probed"]) is probed


# --- adding up --------------------------------------------------------------------------------------------------------


class Sums(nn.Module):
    """Two ops on a map of 4096 bytes, the first one's result alive to the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x.exp()
        return first * first.sigmoid()


def recorded(mode: str = "inference") -> recorder.Recorded:
    return recorder.record_module(Sums(), [TensorSpec((1, 16, 8, 8))], mode, target="cpu")


def test_the_peak_is_the_largest_sum_of_what_was_alive_and_the_ops_own() -> None:
    trace, size = recorded(), 4096
    names = [call.name for call in trace.calls]
    assert names == ["exp (forward)", "sigmoid (forward)", "mul (forward)"]
    assert [trace.live(False)[call.before] for call in trace.calls] == [0, size, 2 * size]
    plain = {call.signature: Probe(size) for call in trace.calls}
    peak_bytes, where = calibrate.highest(trace, plain, blocks=False)
    assert (peak_bytes, where) == (3 * size, trace.calls[2])
    for index, call in enumerate(trace.calls):
        greedy = plain | {call.signature: Probe(10 * size)}
        assert calibrate.highest(trace, greedy, blocks=False) == ((10 + index) * size, call)


def test_the_gradient_that_the_caller_makes_counts() -> None:
    trace = recorded("training")
    nothing = {call.signature: Probe(0) for call in trace.calls}
    kept = trace.held_by_caller(blocks=False)
    assert kept == 4 * 4096  # exp, sigmoid, the product, and its gradient
    largest = max(trace.live(False)[call.before] for call in trace.calls)
    assert calibrate.highest(trace, nothing, blocks=False)[0] == largest > kept


def test_where_the_pass_runs_no_op_the_peak_is_the_callers_gradient() -> None:
    class Turns(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2)

    trace = recorder.record_module(Turns(), [TensorSpec((1, 3, 5))], "training", target="cuda")
    nothing = {call.signature: Probe(0) for call in trace.calls}  # one of a single element, before the gradient is made
    assert calibrate.highest(trace, nothing, blocks=False) == (3 * 5 * 4, None)
    assert calibrate.highest(trace, nothing, blocks=True) == (512, None)
    inference = recorder.record_module(Turns(), [TensorSpec((1, 3, 5))], "inference", target="cpu")
    assert calibrate.highest(inference, {}, blocks=False) == (0, None)


def test_cuda_counts_whole_blocks() -> None:
    trace = recorder.record_module(Sums(), [TensorSpec((1, 1, 3, 3))], "inference", target="cuda")
    assert trace.live(False)[trace.calls[2].before] == 2 * 36
    assert trace.live(True)[trace.calls[2].before] == 2 * 512


def test_the_engines_additions_are_probed_as_they_run() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp() + x.sigmoid()

    trace = recorder.record_module(Twice(), [TensorSpec((4, 4))], "training", target="cpu")
    added = [call.op for call in trace.calls if call.name.startswith("add") and call.phase == "backward"]
    assert added == [aten.add_.Tensor]


def test_a_pass_that_needs_data_is_not_calibrated() -> None:
    class Selects(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0].sum()

    with pytest.raises(UntraceableError, match="without data"):
        recorder.record_module(Selects(), [TensorSpec((4, 4))], "inference", target="cpu")


# --- one op -----------------------------------------------------------------------------------------------------------


def call(op: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(op, args, kwargs, 0, 0, "forward", "")


def test_signatures_tell_apart_what_runs_another_kernel() -> None:
    plain, turned = Hole((4, 8), (8, 1), torch.float32), Hole((4, 8), (1, 4), torch.float32)
    texts = [
        call(aten.add.Tensor, plain, plain).signature,
        call(aten.add.Tensor, plain, turned).signature,
        call(aten.add.Tensor, plain, replace(plain, dtype=torch.float64)).signature,
        call(aten.add.Tensor, plain, replace(plain, shape=(4, 9), stride=(9, 1))).signature,
        call(aten.add.Tensor, plain, plain, alpha=2).signature,
        call(aten.add.Tensor, plain, torch.ones(2)).signature,
        call(aten.add.Tensor, plain, torch.zeros(2)).signature,
        call(aten.add.Tensor, plain, torch.ones(100)).signature,
        call(aten.add.Tensor, plain, torch.zeros(100)).signature,
        call(aten.mul.Tensor, plain, plain).signature,
    ]
    assert len(set(texts)) == len(texts)
    assert texts[0] == call(aten.add.Tensor, plain, plain).signature == "aten.add.Tensor [float32[4, 8], float32[4, 8]] {}"
    assert "float32[4, 8]/[1, 4]" in texts[1]
    one, other = (call(aten.rand.default, [4], generator=torch.Generator()).signature for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("shape", "stride", "size"),
    [
        ((4, 8), (8, 1), 128),
        ((4, 8), (1, 4), 128),
        ((4, 8), (0, 1), 32),
        ((4, 8), (16, 1), 224),
        ((0, 8), (8, 1), 0),
        ((), (), 4),
    ],
)
def test_what_a_hole_needs(shape: tuple[int, ...], stride: tuple[int, ...], size: int) -> None:
    hole = Hole(shape, stride, torch.float32)
    assert hole.bytes == size
    made = hole.fill(0.5, "cpu")
    assert (tuple(made.shape), tuple(made.stride()), made.untyped_storage().nbytes()) == (shape, stride, size)
    assert bool((made == 0.5).all())


def test_scratch_is_what_does_not_outlive_the_op() -> None:
    events = [
        Event(1, 100, 1, ("aten::op", "aten::empty")),
        Event(2, 400, 2, ("aten::op", "aten::clone", "aten::empty_like")),
        Event(3, -400, 2, ()),
        Event(4, 50, 2, ("aten::op",)),
    ]
    assert probe_of(events) == Probe(500, {"clone": 400})
    assert probe_of([]) == Probe(0, {})


def test_an_op_alone() -> None:
    """A softmax over the first axis of a transposed tensor copies it first; a product of one row does not."""
    size = 64 * 32 * 4
    found = probe(
        call(aten._softmax_backward_data.default, *[Hole((64, 32), (1, 64), torch.float32)] * 2, 1, torch.float32), "cpu"
    )
    assert found.peak > size
    assert sum(found.scratch.values()) == found.peak - size
    assert probe(call(aten.mul.Tensor, *[Hole((64, 32), (32, 1), torch.float32)] * 2), "cpu") == Probe(size, {})


class Refuses:
    """Stands for an op that takes no argument of the kind that it gets."""

    _schema = SimpleNamespace(name="aten::refuses")

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.seen: list[float] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(float(x.flatten()[0]))
        if self.errors:
            raise self.errors.pop(0)
        return x.clone()


def test_an_op_that_refuses_garbage_gets_numbers() -> None:
    hole = Hole((8,), (1,), torch.float32)
    picky = Refuses(RuntimeError("not positive"))
    assert probe(call(picky, hole), "cpu").peak == 32
    assert picky.seen[1] == 0.5
    with pytest.raises(UnsupportedError, match=r"refuses \(forward\) cannot be run alone \(RuntimeError: never\)"):
        probe(call(Refuses(RuntimeError("never"), RuntimeError("never")), hole), "cpu")
    with pytest.raises(MemoryError, match="refuses"):
        probe(call(Refuses(RuntimeError("DefaultCPUAllocator: can't allocate memory")), hole), "cpu")


def test_on_cuda_the_second_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic, with an allocator that stands for a GPU's: what a first run leaves behind is no part of the op."""
    state = {"held": 1000, "peak": 0}
    steps: list[str] = []

    def op() -> None:
        steps.append("run")
        state["held"] += 4096 if steps.count("run") == 1 else 0  # a workspace that stays
        state["peak"] = max(state["peak"], state["held"] + 700)

    def reset(device: str) -> None:
        steps.append("reset")
        state["peak"] = state["held"]

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["held"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])
    assert probes._on_cuda(op, "cuda:0") == Probe(700)
    assert steps == ["run", "reset", "run"]


def test_the_profilers_two_accounts_agree() -> None:
    events, out = profiled(lambda: torch.empty(1000).exp())
    assert sum(event.bytes for event in events) == out.numel() * 4


# --- the cache --------------------------------------------------------------------------------------------------------

CPU = {"cpu": "a", "threads": 1}


def test_a_probe_is_found_again_on_the_same_processor_only(tmp_path: Path) -> None:
    Cache(tmp_path, CPU).put("op", 10, {"clone": 4})
    assert Cache(tmp_path, CPU).get("op") == (10, {"clone": 4})
    assert Cache(tmp_path, CPU).get("other") is None
    assert Cache(tmp_path, {**CPU, "threads": 2}).get("op") is None
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text(encoding="utf-8").splitlines()[0])["about"] == CPU


def test_threads_make_another_processor() -> None:
    one = calibrate.processor("cpu")
    torch.set_num_threads(2)
    assert calibrate.processor("cpu") != one


def test_the_processor_is_all_that_scratch_depends_on_beside_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fact changed alone makes another file, so that no probe of one is taken for a probe of the other."""

    def key() -> str:
        return Cache(None, calibrate.processor("cpu")).processor

    found, keys = calibrate.processor("cpu"), [key()]
    for owner, name, other in (
        (torch, "__version__", "0.0"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
        (torch, "get_num_threads", lambda: 77),
        (device, "cache_bytes", lambda: 12345),
        (device, "environment", lambda name: {"cpu": "Slate 9"}),
        (calibrate, "_features", lambda: "beads"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, other)
            keys.append(key())
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "SSE41")
            keys.append(key())
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = not before
    keys.append(key())
    torch.backends.cuda.matmul.allow_tf32 = before
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
    assert found["kernels"] == torch.backends.cpu.get_cpu_capability()


DAMAGE = (
    b"[" * 100_000 + b"\n",
    b'{"schema": 1, "op": ' * 100_000 + b"\n",
    b"9" * 100_000 + b"\n",
    b"\x00" * 100 + b"\n",
    b"\xff\xfe garbage\n",
    b"[1, 2]\n",
    b'{"schema": 1, "processor": "x", "op": "op", "peak": 99, "scratch": {}}\n',
    b'{"schema": 1, "processor": "%s", "op": "op", "peak": -1, "scratch": {}}\n',
    b'{"schema": 1, "processor": "%s", "op": "op", "peak": true, "scratch": {}}\n',
    b'{"schema": 1, "processor": "%s", "op": "op", "peak": 99, "scratch": {"clone": "4"}}\n',
    b'{"schema": 1, "processor": "%s", "op": "op", "peak": 99}\n',
    b'{"schema": 2, "processor": "%s", "op": "op", "peak": 99, "scratch": {}}\n',
    b'{"schema": 1, "processor": "%s", "op": "torn", "pe',
)


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    cache = Cache(tmp_path, CPU)
    cache.put("op", 10, {})
    assert cache.path is not None
    with cache.path.open("ab") as file:
        for line in DAMAGE:
            file.write(line.replace(b"%s", cache.processor.encode()))
    again = Cache(tmp_path, CPU)
    assert again.get("op") == (10, {})
    again.put("torn", 20, {})  # on a line of its own
    last = Cache(tmp_path, CPU)
    assert (last.get("op"), last.get("torn")) == ((10, {}), (20, {}))


def test_a_line_is_written_under_the_lock_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found at the end of the file must still be there when the line is written: nobody may be between."""
    steps: list[str] = []
    write, lock = os.write, fcntl.flock

    def locked(descriptor: int, how: int) -> None:
        steps.append("lock" if how == fcntl.LOCK_EX else "other")
        lock(descriptor, how)

    def written(descriptor: int, data: bytes) -> int:
        other = os.open(next(tmp_path.iterdir()), os.O_RDWR)
        with pytest.raises(BlockingIOError):
            lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        steps.append("write")
        return write(descriptor, data)

    monkeypatch.setattr(fcntl, "flock", locked)
    monkeypatch.setattr(os, "write", written)
    for op in ("one", "two"):
        Cache(tmp_path, CPU).put(op, 10, {})
    assert steps == ["lock", "write"] * 2
    assert [Cache(tmp_path, CPU).get(op) for op in ("one", "two")] == [(10, {})] * 2


WRITER = """
import sys
from pathlib import Path
from attnprof.profiling.calibrating.cache import Cache
for number in range(200):
    Cache(Path(sys.argv[1]), {"cpu": "a"}).put(f"{sys.argv[2]} {number} " + "x" * 5000, number, {"clone": number})
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    cache = Cache(tmp_path, {"cpu": "a"})
    assert all(
        cache.get(f"{name} {number} " + "x" * 5000) == (number, {"clone": number}) for name in "ab" for number in range(200)
    )


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    for place in (None, file, file / "below", Path("/proc/nowhere")):
        cache = Cache(place, CPU)
        cache.put("op", 10, {})
        assert cache.get("op") == (10, {})
        assert cache.path is None


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.setenv(VARIABLE, "none")
    assert cache_folder() is None
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/attnprof")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by the XDG base directory specification
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/attnprof")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_what_goes_wrong_costs_its_own_case() -> None:
    """A module that never ends, one that dies, an op that does not fit: each gets its reason, the others their peaks."""
    shape = Shape(1, 8, 8, 8)
    found = calibrated(
        case(f"{FAULTY}:Loops", shape=shape),
        case("nonlocal", shape=Shape(1, 64, 200, 200)),
        case(f"{FAULTY}:Segfaults", shape=shape),
        case(f"{FAULTY}:Raises", shape=shape),
        case("se", settings={"compile": True}),
        case(f"{FAULTY}:Good", shape=shape),
        timeout_s=3.0,
        memory_bytes=2**30,
    )
    reasons = {name.partition(" ")[0]: what.reason for name, what in found.items()}
    assert reasons.pop("Good") == ""
    words = {
        "Loops": "killed after 3 s",
        "nonlocal": "alone needs",
        "Segfaults": "SIGSEGV",
        "Raises": "no such luck",
        "se": "compiled",
    }
    assert reasons.keys() == words.keys()
    for name, word in words.items():
        assert word in reasons[name], (name, reasons[name])


def test_a_run_puts_the_three_side_by_side(folder: Path) -> None:
    cases = [case("conv3x3"), case("se", shape=Shape(1, 16, 5, 5), settings={"cache": "warm"})]
    options = Options(budget_s=0.05, calibrate=True, memory_bytes=2**30)
    stages: list[str] = []
    records = {one.case.label: one for one in run_cases(cases, options, lambda event: stages.append(event.stage))}
    for one in records.values():
        assert one.status == "ok"
        assert one.counts is not None
        assert one.memory is not None
        assert one.calibrated is not None
        assert (one.memory.source, one.calibrated.source) == ("cpu_allocator", "calibrated")
        assert one.calibrated.peak_bytes == pytest.approx(one.memory.peak_bytes, rel=0.01)
        assert record_from_json(to_json(one)) == one
    assert stages.count("calibrate") == 2
    assert len(list(folder.iterdir())) == 1


def test_without_a_device_or_unasked_nothing_is_probed(folder: Path) -> None:
    (untouched,) = run_cases([replace(case("se"), device="none")], Options(calibrate=True))
    assert untouched.counts is not None
    assert untouched.calibrated is None
    (unasked,) = run_cases([case("se", shape=Shape(1, 16, 5, 5))], Options(budget_s=0.05))
    assert unasked.calibrated is None
    assert not folder.exists()


def test_a_missing_peak_leaves_the_record_as_it_is() -> None:
    one = Record(case("se"), detail="not measured (budget): 3 s")
    without = Calibrated(None, "it was too large").added_to(one)
    assert without == replace(one, detail=f"not measured (budget): 3 s\n{NOT_CALIBRATED}: it was too large")
    with_peak = Calibrated(Memory(5, "calibrated"), environment={"cpu": "a", "load": 1}).added_to(
        replace(one, environment={"load": 2})
    )
    assert with_peak.calibrated == Memory(5, "calibrated")
    assert with_peak.environment == {"cpu": "a", "load": 2}
    assert with_peak.detail == one.detail


def test_old_stores_load_and_are_run_again_where_calibration_is_wanted(tmp_path: Path) -> None:
    one = Record(replace(case("se"), device="cpu"), environment={"provenance": {}}, detail="not measured (memory): large")
    data: dict[str, Any] = to_json(one)
    assert "calibrated" not in data
    assert record_from_json(data) == one
    stored = store.Stored(records={one.case.key: one})
    assert store.reusable(stored, one.case, {}) == one
    assert store.reusable(stored, one.case, {}, calibrated=True) is None
    for done in (
        replace(one, calibrated=Memory(5, "calibrated")),
        replace(one, detail=f"{one.detail}\n{NOT_CALIBRATED}: large"),
    ):
        path = tmp_path / f"{len(done.detail)}.jsonl"
        store.append(path, done)
        assert store.reusable(store.load(path), done.case, {}, calibrated=True) == done


SPEC = """\
name: small
input: {channels: 16, hw: 9x9}
modes: inference
mechanisms: [conv3x3]
metrics: [peak_memory, calibrated_memory]
measure: {budget_s: 0.05}
"""


def printed(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "attnprof", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_from_the_command_line(tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    arguments = ["run", str(spec), "--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    code, out, _ = printed(*arguments)
    (found,) = json.loads(out)["records"]
    assert code == 0
    assert found["calibrated"]["source"] == "calibrated"
    assert "Peak calib." in (tmp_path / "out" / "small.md").read_text(encoding="utf-8")
    code, out, err = printed(*arguments, "--resume")
    assert (code, json.loads(out)["records"]) == (0, [found])
    assert "[calibrate" not in err
    code, _, err = printed("compare", "se", "eca", "--hw", "5x5", "--calibrated", "--device", "none")
    assert code == 2
    assert "--calibrated runs every op on a device" in err


# --- the page ---------------------------------------------------------------------------------------------------------


def row(name: str, calibrated_bytes: int | None, measured: int | None, **more: Any) -> memory_page.Row:
    fields: Mapping[str, Any] = {"mode": "training", "size": "natural", "shape": "1x8x5x5", "traced": 1000, **more}
    return memory_page.Row(name, calibrated=calibrated_bytes, measured=measured, again=calibrated_bytes, **fields)


def test_what_the_page_says_of_its_rows() -> None:
    rows = [
        row("a/equal", 1000, 1000, probed=3, calls=5),
        row("a/close", 1009, 1000, op="mul (forward)", op_scratch=9, scratch={"clone": 9}, probed=1, calls=5),
        row("a/far", 1200, 1000, op="mul (forward)", op_scratch=300, seen_in="aten::conv", probed_again=2, calls=2),
        row("a/missing", None, None, note="not run: 5 bytes needed"),
    ]
    said = memory_page.summary(rows)
    assert said[0].startswith("4 rows, 3 with both numbers: calibrated within 1 % of measured in 2 (66.7 %;")
    assert said[0].endswith("equal to the byte in 1.")
    assert "+20.0000 %, a/far training" in said[1]
    assert "3 of 3" in said[2]
    assert "the same number in 3 of 3 rows, 2 ops run. The first time 4 were run, of 12 calls." in said[3]
    assert said[-1] == "a/missing training at 1x8x5x5: not run: 5 bytes needed."
    lines = [memory_page.line(each) for each in rows]
    assert lines[0].endswith("| 0 |  |")
    assert lines[1].endswith("| +0.9000 | mul (forward): +9; clone 9 |")
    assert (
        "(the peak moves here; 300 above its outputs); calibrated in mul (forward), the allocator's peak in aten::conv"
        in lines[2]
    )
    assert lines[3].endswith("| - | not run: 5 bytes needed |")


def test_a_small_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory_page, "shape_of", lambda name, size: Shape(1, 16, 9, 9) if size == "natural" else Shape(1, 16, 4, 4)
    )
    out, rows = tmp_path / "memory.md", tmp_path / "rows.jsonl"
    memory_page.main(["conv3x3", "--out", str(out), "--rows", str(rows)])
    text = out.read_text(encoding="utf-8")
    assert text.count("2 rows, 2 with both numbers: calibrated within 1 % of measured in 2 (100.0 %;") == 2
    assert "| context/conv3x3 | 1x16x9x9 | training |" in text
    assert "| context/conv3x3 | 1x16x4x4 | inference |" in text
    assert text.count("0 ops run. The first time") == 2
    monkeypatch.setattr(memory_page, "row_of", lambda *_: pytest.fail("the rows are there"))
    memory_page.main(["conv3x3", "--out", str(out), "--rows", str(rows)])
    assert out.read_text(encoding="utf-8") == text
