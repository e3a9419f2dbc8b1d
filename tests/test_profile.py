"""`attnprof.profile`, `build` and `register_cost`: the Python side, as people import it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attnprof
from attnprof.errors import UntraceableError, UsageError, told
from attnprof.profiling.counting import flops
from attnprof.records import Counts, Record, Shape, TensorSpec, record_from_json, to_json

C, N = 16, 9 * 7
SHAPES: list[Any] = [
    "1x16x9x7",
    (1, 16, 9, 7),
    [1, 16, 9, 7],
    torch.Size((1, 16, 9, 7)),
    Shape(1, 16, 9, 7),
]


OWN = """\
from torch import nn


class Own(nn.Conv2d):
    def __init__(self, dim):
        super().__init__(dim, dim, 1)
"""


class Mix(nn.Module):
    """A pointwise convolution, normalised; one or two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(C, C, 1, bias=False)
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x: Tensor, gate: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y = self.norm(self.mix(x)) * scale
        return y if gate is None else y * gate


def counts_of(record: Record) -> Counts:
    assert record.status == "ok"
    assert record.counts is not None
    return record.counts


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_a_name_at_a_shape_in_any_form(shape: Any) -> None:
    record = attnprof.profile("ccnet", shape, recurrence=1)
    assert record.case.mechanism == "spatial/ccnet"
    assert record.case.shape == Shape(1, 16, 9, 7)
    assert (record.case.mode, record.case.dtype, record.case.device) == ("inference", "float32", "none")
    assert counts_of(record).macs == N * (C * (2 * 2 + C) + (9 + 7) * (2 + C))
    assert (record.timing, record.memory) == (None, None)
    assert record_from_json(to_json(record)) == record


def test_a_name_is_what_the_command_line_counts() -> None:
    record = attnprof.profile("pam", "1x512x97x97")
    assert counts_of(record).params == 328_321
    assert counts_of(record).macs / 1e9 == pytest.approx(54.08, abs=5e-3)
    training = attnprof.profile("spatial/pam", "1x512x97x97", mode="training", dtype="bfloat16")
    assert counts_of(training).macs > 2 * counts_of(record).macs
    assert counts_of(training).resident_bytes == counts_of(record).resident_bytes / 2


@pytest.mark.parametrize("inputs", [*SHAPES, torch.zeros(1, C, 9, 7), [torch.zeros(1, C, 9, 7)], [(1, C, 9, 7)]], ids=type)
def test_a_module_with_its_input_in_any_form(inputs: Any) -> None:
    record = attnprof.profile(Mix(), inputs)
    counts = counts_of(record)
    assert (counts.params, counts.macs, counts.uncounted) == (C * C + 2 * C, N * C * C, {})
    assert record.case.shape == Shape(1, C, 9, 7)
    assert record.case.mechanism.endswith(":Mix")
    assert record_from_json(to_json(record)) == record


def test_several_inputs_of_several_kinds() -> None:
    x, gate = torch.zeros(2, C, 9, 7), torch.ones(2, C, 1, 1)
    plain = counts_of(attnprof.profile(Mix(), [x]))
    for inputs in ([x, gate], [(2, C, 9, 7), (2, C, 1, 1)], (x, TensorSpec((2, C, 1, 1))), [x, gate, 2.0]):
        gated = counts_of(attnprof.profile(Mix(), inputs))
        assert gated.macs == plain.macs
        assert gated.flops == plain.flops + 2 * C * N
        assert gated.resident_bytes == plain.resident_bytes + 2 * C * 4


def test_shapes_of_any_rank_reach_a_module_whole() -> None:
    linear = counts_of(attnprof.profile(nn.Linear(C, 3), "2x5x16"))
    assert linear.macs == 2 * 5 * C * 3
    video = counts_of(attnprof.profile(nn.Conv3d(4, 4, 1), "1x4x8x5x3"))
    assert video.macs == 8 * 5 * 3 * 4 * 4
    record = attnprof.profile(nn.Linear(C, 3), (7, C))
    assert counts_of(record).macs == 7 * C * 3


def test_a_tensor_keeps_its_type() -> None:
    record = attnprof.profile(nn.Linear(C, 3).double(), [torch.zeros(2, C, dtype=torch.float64)])
    assert record.case.dtype == "float64"
    assert counts_of(record).resident_bytes == 8 * (C * 3 + 3 + 2 * C)
    embedding = attnprof.profile(nn.Embedding(10, C), [torch.zeros(2, 5, dtype=torch.int64)])
    assert embedding.case.dtype == "float32"
    assert counts_of(embedding).params == 10 * C


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_module_is_used_as_it_is_and_left_as_it_was(training: bool, mode: str) -> None:
    module = Mix().train(training)
    module.norm.eval()
    x = torch.randn(3, C, 9, 7)
    module.mix.weight.grad = torch.ones_like(module.mix.weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parameters, grad = list(map(id, module.parameters())), module.mix.weight.grad
    attributes = [dict(part.__dict__) for part in module.modules()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    attnprof.profile(module, [x], mode=mode)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.__dict__ for part in module.modules()] == attributes
    assert (module.training, module.mix.training, module.norm.training) == (training, training, False)
    assert list(map(id, module.parameters())) == parameters
    assert module.mix.weight.grad is grad
    assert torch.equal(grad, torch.ones_like(grad))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not x.requires_grad
    assert x.grad is None
    assert module(x).shape == x.shape


def test_the_state_of_a_module_decides_what_is_counted() -> None:
    drop = nn.Sequential(nn.Conv2d(C, C, 1), nn.Dropout(0.5))
    shape = (1, C, 9, 7)
    assert counts_of(attnprof.profile(drop.train(), shape)).flops > counts_of(attnprof.profile(drop.eval(), shape)).flops


@pytest.mark.parametrize("imported", [False, True])
def test_a_name_is_measured_on_a_device(imported: bool, tmp_path: Path) -> None:
    name = "se"
    args: dict[str, Any] = {"reduction": 4}
    if imported:
        file = tmp_path / "own_block.py"
        file.write_text(OWN)
        name, args = f"{file}:Own", {"dim": C}
    record = attnprof.profile(name, (1, C, 9, 7), device="cpu", budget_s=0.1, **args)
    assert counts_of(record).macs == counts_of(attnprof.profile(name, (1, C, 9, 7), **args)).macs > 0
    assert record.case.device == "cpu"
    assert record.case.args == args
    assert record.timing is not None
    assert record.timing.n >= 10
    assert record.memory is not None
    assert record.memory.source == "cpu_allocator"


def test_what_a_name_raises_is_raised_or_stands_in_the_record() -> None:
    with pytest.raises(ValueError, match="do not divide into 8 heads"):
        attnprof.profile("mhsa", (1, 30, 7, 7))
    record = attnprof.profile("mhsa", (1, 30, 7, 7), device="cpu")
    assert record.status == "error"
    assert "do not divide into 8 heads" in record.detail
    assert record.counts is None


def test_what_reads_values_is_counted_by_a_real_run() -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > x.mean()]

    counts = counts_of(attnprof.profile(Reads(), (1, C, 9, 7)))
    assert counts.traced_by == "real"
    assert counts.uncounted == {}


# --- build


def test_build_gives_the_module_that_is_counted() -> None:
    module = attnprof.build("ccnet", 64, recurrence=3)
    assert isinstance(module, nn.Module)
    assert module(torch.zeros(1, 64, 5, 3)).shape == (1, 64, 5, 3)
    by_module = counts_of(attnprof.profile(module.eval(), "1x64x5x3"))
    by_name = counts_of(attnprof.profile("ccnet", "1x64x5x3", recurrence=3))
    assert (by_module.params, by_module.macs, by_module.peak_bytes) == (by_name.params, by_name.macs, by_name.peak_bytes)


def test_build_passes_the_resolution_on_where_it_decides_the_parameters() -> None:
    small, large = (attnprof.build("psanet", 32, hw) for hw in ((5, 5), (9, 9)))
    sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (small, large)]
    assert sizes[0] < sizes[1]


# --- register_cost


@torch.library.custom_op("attnprof_tests::attend", mutates_args=())
def attend(q: Tensor, k: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT, -1)


@attend.register_fake
def _(q: Tensor, k: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:-1], k.shape[-2])


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return attend(x, x)


@pytest.fixture
def _unregistered() -> Iterator[None]:
    yield
    flops.unregister_cost("attnprof_tests::attend")


@pytest.mark.usefixtures("_unregistered")
def test_a_custom_op_is_uncounted_until_its_cost_is_given() -> None:
    before = counts_of(attnprof.profile(Attends(), (2, 10, C)))
    (name,) = before.uncounted
    assert "attnprof_tests::attend" in name
    assert before.uncounted[name] == 1
    assert (before.macs, before.flops) == (0, 0)

    attnprof.register_cost("attnprof_tests::attend", macs=lambda args, kwargs, out: out.numel() * args[0].shape[-1])
    after = counts_of(attnprof.profile(Attends(), (2, 10, C)))
    assert after.uncounted == {}
    assert (after.macs, after.flops) == (2 * 10 * 10 * C, 2 * 2 * 10 * 10 * C)
    assert after.bytes_moved == before.bytes_moved == 4 * (2 * 2 * 10 * C + 2 * 10 * 10)

    attnprof.register_cost(torch.ops.attnprof_tests.attend, macs=7, flops=20, bytes=30)
    numbers = counts_of(attnprof.profile(Attends(), (2, 10, C)))
    assert (numbers.macs, numbers.flops, numbers.bytes_moved) == (7, 20, 30)


# --- what is refused


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("nonlocl", "1x16x9x9"), {}, "'nonlocal'"),
    (("ccnet", "1x16x9x9"), {"recurence": 1}, "'recurrence'"),
    (("ccnet", "1x16x9x9"), {"recurence": 1, "device": "cpu"}, "'recurrence'"),
    (("ccnet", "1x16x9x9"), {"recurrence": "x"}, "is int"),
    (("./no/such.py:Mine", "1x16x9x9"), {}, "there is no such file"),
    (("ccnet", "16x9x9"), {}, "BxCxHxW"),
    (("ccnet", "1x16x9xW"), {}, "whole numbers from 1"),
    (("ccnet", (1, 16, 9.5, 9)), {}, "whole numbers from 1"),
    (("ccnet", (0, 16, 9, 9)), {}, "whole numbers from 1"),
    (("ccnet", 16), {}, "whole numbers from 1"),
    (("ccnet", None), {}, "whole numbers from 1"),
    (("ccnet", "1x16x9x9"), {"mode": "sideways"}, "inference and training"),
    (("ccnet", "1x16x9x9"), {"dtype": "float8"}, "bfloat16"),
    (("ccnet", "1x16x9x9"), {"device": "tpu"}, "'tpu'"),
    ((nn.ReLU(), "1x16x9x9"), {"mode": "sideways"}, "inference and training"),
    ((nn.ReLU(), "1x16x9x9"), {"dtype": "float8"}, "bfloat16"),
    ((nn.ReLU(), "1x16x9x9"), {"device": "cpu"}, "import path"),
    ((nn.ReLU(), "1x-16x9x9"), {}, "whole numbers from 1"),
    ((nn.ReLU(), (1, 0, 9, 9)), {}, "whole numbers from 1"),
    ((nn.ReLU(), []), {}, "inputs are a shape, a tensor, or a list of them"),
    ((nn.ReLU(), None), {}, "inputs are a shape, a tensor, or a list of them"),
    ((nn.ReLU(), 16), {}, "inputs are a shape, a tensor, or a list of them"),
    ((nn.ReLU, "1x16x9x9"), {}, "a module (torch.nn.Module)"),
    ((torch.relu, "1x16x9x9"), {}, "a module (torch.nn.Module)"),
    ((nn.ReLU(), "1x16x9x9"), {"reduction": 4}, "reduction"),
]


@pytest.mark.parametrize(("args", "kwargs", "words"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_a_wrong_argument_is_a_usage_error(args: tuple[Any, ...], kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        attnprof.profile(*args, **kwargs)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_wrong_names_and_arguments_of_build_and_register_cost() -> None:
    with pytest.raises(UsageError, match="'ccnet'"):
        attnprof.build("ccnt", 16)
    with pytest.raises(UsageError, match="'recurrence'"):
        attnprof.build("ccnet", 16, recurence=1)
    with pytest.raises(UsageError, match="give macs, flops or bytes"):
        attnprof.register_cost("attnprof_tests::attend")


def test_importing_attnprof_imports_nothing_heavy() -> None:
    code = "import attnprof, sys; print([name for name in ('torch', 'numpy', 'click', 'yaml') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_more_bytes_than_torch_can_describe_is_a_sentence() -> None:
    for size in ("100000x100000", "1000000x1000000"):
        with pytest.raises(UntraceableError, match=r"more than 2\^63 bytes") as caught:
            attnprof.profile("nonlocal", f"1x512x{size}")
        assert "frame #" not in str(caught.value)


def test_frames_of_cpp_are_no_part_of_a_message() -> None:
    error = ValueError("what is wrong\nException raised from f at g.h:1\nframe #0: h")
    assert told(error) == "ValueError: what is wrong"
    assert told(KeyError()) == "KeyError"
