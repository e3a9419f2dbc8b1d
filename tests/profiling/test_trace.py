"""The trace against a real run under the same counter, and what it must leave untouched."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attnprof import mechanisms
from attnprof.errors import UntraceableError
from attnprof.profiling.counting.trace import count_real, trace_case, trace_module
from attnprof.records import MODES, Case, Counts, Shape, TensorSpec
from tests.catalogue import NAMES, make_inputs, shape_like, small_shape, variants
from tests.observer import observe

X = TensorSpec((2, 8, 5, 7))


def numbers(counts: Counts) -> dict[str, Any]:
    """What must agree between a trace and a real run."""
    names = ("params", "macs", "flops", "bytes_moved", "activation_bytes", "resident_bytes", "peak_bytes", "uncounted")
    return {name: getattr(counts, name) for name in names}


def real_and_traced(module: nn.Module, inputs: list[Tensor], mode: str, objective: Any = None) -> tuple[Counts, Counts]:
    return (
        count_real(module, inputs, mode, objective),
        trace_module(module, inputs, mode, target="cpu", objective=objective, allow_real=False),
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_trace_equals_a_real_run_to_the_byte(name: str, mode: str) -> None:
    """Kernel target cpu: every count, of every variant on an odd batch of two, of the defaults on one square image too."""
    mechanism = mechanisms.load(name)
    for args in variants(name):
        for shape in (small_shape(name), *(() if args else (shape_like(name, 1, 64, 12, 12),))):
            torch.manual_seed(0)
            module = mechanisms.build(mechanism, shape, args).train(mode == "training")
            inputs = make_inputs(mechanism, shape, args, torch.float32)
            real, traced = real_and_traced(module, inputs, mode, mechanism.objective)
            assert numbers(traced) == numbers(real), f"{shape.text()} {args}"
            assert traced.traced_by == "meta"
            assert not traced.uncounted
            assert not traced.assumed


@pytest.mark.parametrize("name", NAMES)
def test_macs_equal_the_formula(name: str) -> None:
    """The forward MACs are those that the mechanism's file derives by hand (of inference), at the size of the papers too."""
    mechanism = mechanisms.load(name)
    assert mechanism.macs is not None, "MECHANISM has no macs="
    for args in variants(name):
        for shape in (small_shape(name), shape_like(name, 1, 512, 97, 97)):
            full = mechanisms.complete_args(mechanism, shape, args)
            counts = trace_case(Case(name, name, args, shape))
            assert counts.macs == mechanism.macs(shape, **full), f"{shape.text()} {args}"
            assert mechanism.params is not None
            assert counts.params == mechanism.params(shape.channels, **full)


class Branch(nn.Module):
    """Uses the value of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 1e9 else x + 1


class Masked(nn.Module):
    """Its sizes depend on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum() * x


class Reads(nn.Module):
    """numpy() has no answer without data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().numpy().max())


@pytest.mark.parametrize("module", [Branch(), Masked(), Reads()])
def test_what_needs_data_is_run_for_real(module: nn.Module) -> None:
    counts = trace_module(module, [X], "inference")
    assert counts.traced_by == "real"
    assert numbers(counts) == numbers(count_real(module, [seeded()], "inference"))


def seeded() -> Tensor:
    """The values that a real run fills in for X."""
    return torch.randn(X.shape, generator=torch.Generator().manual_seed(0))


class Selects(nn.Module):
    """A layer over the places that score above 0: what it costs depends on weights and input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score, self.layer = nn.Linear(channels, 1), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)[0]
        return torch.as_tensor(self.layer(rows[self.score(rows)[:, 0] > 0]))


def test_what_depends_on_data_is_the_same_every_time_and_says_so(tmp_path: Path) -> None:
    """Weights and input come from a fixed seed; the ops whose result depends on them stay in `assumed`."""
    file = tmp_path / "selects.py"
    file.write_text("import torch\nfrom torch import Tensor, nn\n\n" + inspect.getsource(Selects))
    case = Case(f"{file}:Selects", "selects", {}, Shape(1, 8, 9, 9))
    found = []
    for seed in (1, 2, 3):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(trace_case(case))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1] == found[2]
    assert found[0].traced_by == "real"
    assert found[0].assumed == {"index": 1}
    assert 81 * 8 < found[0].macs < 81 * 8 + 81 * 64  # some places, not all: (macs - score) / 64 of them
    assert (found[0].macs - 81 * 8) % 64 == 0


class Sparse(nn.Module):
    """What neither a trace nor the counter on values can follow."""

    def forward(self, x: Tensor) -> Tensor:
        index = torch.zeros((2, 1), dtype=torch.int64)
        return torch.sparse.mm(torch.sparse_coo_tensor(index, x.new_ones(1), (7, 7)), x[0, 0].t() @ x[0, 0])


def test_what_cannot_be_followed_at_all_says_so() -> None:
    with pytest.raises(UntraceableError, match=r"without data .* A run on values fails too"):
        trace_module(Sparse(), [X], "inference")


def test_what_needs_data_is_assumed_where_a_real_run_is_refused() -> None:
    counts = trace_module(Branch(), [X], "inference", allow_real=False)
    assert counts.assumed == {"_local_scalar_dense": 1}
    assert counts.traced_by == "meta"
    with pytest.raises(UntraceableError, match=r"without data"):
        trace_module(Reads(), [X], "inference", allow_real=False)


class Written(nn.Module):
    """Writes what it computes into a constant, and decides by it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        b = torch.zeros(1)
        if self.how == "add":
            b += x.sum()
        elif self.how == "copy":
            b.copy_(x.sum())
        elif self.how == "slice":
            b[:] = x.sum()
        else:
            torch.mul(x.sum().reshape(1), 2, out=b)
        return torch.matmul(x, x.transpose(2, 3)) if (b * 2).item() > 0 else x


@pytest.mark.parametrize("how", ["add", "copy", "slice", "out"])
def test_a_constant_that_data_is_written_into_is_data(how: str) -> None:
    counts = trace_module(Written(how), [torch.ones(X.shape)], "inference")
    assert counts.traced_by == "real"
    assert counts.macs == 16 * 5 * 5 * 7
    assumed = trace_module(Written(how), [X], "inference", allow_real=False)
    assert assumed.assumed


def test_a_mask_is_assumed_to_let_everything_pass_where_a_real_run_would_not_fit() -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0].sum() + (x @ x.t()).sum()

    counts = trace_module(Huge(), [TensorSpec((2_000_000, 16))], "inference")
    assert counts.traced_by == "meta"
    assert counts.assumed == {"index": 1}
    assert counts.macs == 2_000_000**2 * 16


def test_inputs_in_containers_and_inputs_passed_twice() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [nn.Linear(7, 7)]  # torch does not know of these
            self.seen: dict[str, Tensor] = OrderedDict(last=torch.zeros(1))

        def forward(self, given: list[Any], x: Tensor) -> Tensor:
            self.seen["last"] = given[0]["u"]
            return self.blocks[0](given[0]["u"] + given[1] + x)

    module, x = Nested(), torch.randn(X.shape, requires_grad=True)
    before = dict(module.seen)
    for mode in MODES:
        counts = trace_module(module, [[{"u": x}, torch.randn(X.shape)], x], mode)
        assert counts.traced_by == "meta"
        assert counts.resident_bytes == 4 * (2 * x.numel())  # x once; the hidden block's parameters are not the module's
        assert x.grad is None
        assert module.blocks[0].weight.grad is None
        assert dict(module.seen) == before


def test_constants_of_the_forward_keep_their_values() -> None:
    """A tensor made on the CPU from numbers is no data of the input: its values are known."""

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            steps = [*torch.arange(3).tolist(), int(torch.tensor([5.0, 2.0]).max().item())]
            return x * sum(steps) + torch.tensor([1.0], device=x.device)

    counts = trace_module(Constant(), [X], "inference")
    assert counts.traced_by == "meta"
    assert not counts.assumed


class Everything(nn.Module):
    """Buffers that are updated, a cache, a counter, dropout, a plain tensor attribute, nested outputs, several inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.scale = torch.ones(1)
        self.cache: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor, y: Tensor, flag: bool = True) -> dict[str, Any]:
        self.calls += 1
        self.cache = self.drop(self.norm(self.conv(x))) * self.scale
        return {"a": self.cache, "b": [y + self.cache, (x,)], "c": flag}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_the_module_is_left_as_it_was_found(mode: str, training: bool) -> None:
    module = Everything().train(training)
    parameters = dict(module.named_parameters())
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    attributes = {name: set(part.__dict__) for name, part in module.named_modules()}
    given = [torch.randn(X.shape), torch.randn(X.shape), True]
    random_state = torch.get_rng_state()
    counts = trace_module(module, [X, X, True], mode)
    count_real(module, given, mode)
    assert counts.macs >= 2 * 8 * 8 * 35
    assert module.training is training
    assert module.cache is None
    assert module.calls == 0
    assert type(module.scale) is Tensor
    assert not module.scale.is_meta
    assert {name: set(part.__dict__) for name, part in module.named_modules()} == attributes
    for name, parameter in module.named_parameters():
        assert parameter is parameters[name]
        assert parameter.grad is None
        assert not parameter._backward_hooks
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, values[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_module_that_raises_is_left_as_it_was_found_too() -> None:
    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.conv(x)
            raise ValueError("a mistake of the user's")

    module = Raises()
    with pytest.raises(ValueError, match="a mistake of the user's"):
        trace_module(module, [X], "training")
    assert not hasattr(module, "seen")
    assert not module.conv.weight.is_meta
    assert not torch.nn.modules.module._global_forward_hooks


def test_shared_weights_count_once_and_work_twice() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(8, 8, 1, bias=False)
            self.b = self.a

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    counts = trace_module(Shared(), [X], "inference")
    assert counts.params == 64
    assert counts.macs == 2 * 2 * 35 * 64
    assert counts.resident_bytes == 4 * (64 + 2 * 8 * 35)


def test_costs_are_charged_to_the_submodule_in_both_directions() -> None:
    module = nn.Sequential(nn.Conv2d(8, 4, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1)))
    counts = trace_module(module, [X], "training")
    by_place = {(row.module, row.phase): row.macs for row in counts.ops if row.macs}
    first, second = 2 * 35 * 8 * 4, 2 * 35 * 4 * 8 * 9
    assert by_place == {
        ("0", "forward"): first,
        ("1.1", "forward"): second,
        ("0", "backward"): 2 * first,
        ("1.1", "backward"): 2 * second,
    }


def test_the_peak_is_held_by_whom_one_would_say() -> None:
    """Non-local, inference: scores and probabilities (N x N each) stand beside each other at the softmax."""
    counts = trace_case(Case("spatial/nonlocal", "nonlocal", {}, Shape(1, 512, 97, 97)))
    assert sum(holder.bytes for holder in counts.at_peak) == counts.peak_bytes
    largest = [(holder.op, holder.bytes) for holder in counts.at_peak[:2]]
    assert sorted(largest) == [("_softmax", 4 * 9409**2), ("bmm", 4 * 9409**2)]


def test_published_sizes_of_the_segmentation_family() -> None:
    """Hand-worked: pam 1.25 N C^2 + 1.125 N^2 C, ccnet R (1.25 N C^2 + 1.125 N (H+W) C) MACs at N = 97^2, C = 512."""
    shape = Shape(1, 512, 97, 97)
    n, c = 9409, 512
    pam = trace_case(Case("spatial/pam", "pam", {}, shape))
    assert (pam.macs, pam.params) == (n * c * c * 5 // 4 + n * n * c * 9 // 8, 328_321)
    for recurrence, giga in ((1, 4.135), (2, 8.269), (3, 12.404)):
        counts = trace_case(Case("spatial/ccnet", "ccnet", {"recurrence": recurrence}, shape))
        assert (round(counts.macs / 1e9, 3), counts.params) == (giga, 328_321)


@pytest.mark.parametrize(("mode", "limit"), [("inference", 70), ("training", 105)])
def test_ccnet_needs_no_more_memory_than_the_method_does(mode: str, limit: int) -> None:
    counts = trace_case(Case("spatial/ccnet", "ccnet", {"recurrence": 2}, Shape(1, 512, 97, 97), mode=mode))
    assert counts.peak_bytes <= limit * 2**20


def test_a_four_tebibyte_attention_map_is_counted_not_allocated() -> None:
    counts = trace_case(Case("spatial/nonlocal", "nonlocal", {}, Shape(1, 512, 1024, 1024)))
    n = 1024**2
    assert counts.macs == 2 * n * 512 * 512 + n * n * 512
    assert counts.peak_bytes >= 2 * 4 * n * n


def test_a_trace_imports_neither_dynamo_nor_sympy() -> None:
    """What makes the first trace fast. `_should_skip_dynamo` is private to torch: if it changes, this tells."""
    code = """
        import sys
        from attnprof.profiling.counting.trace import trace_case
        from attnprof.records import Case, Shape
        for name in ("nonlocal", "ccnet", "pam", "mhsa", "se"):
            family = "channel" if name == "se" else "spatial"
            for mode in ("inference", "training"):
                trace_case(Case(f"{family}/{name}", name, {}, Shape(1, 512, 97, 97), mode=mode))
        print([module for module in ("torch._dynamo", "sympy", "pandas", "pydantic") if module in sys.modules])
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]", out.stderr


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["spatial/nonlocal", "spatial/ccnet", "spatial/sdpa", "channel/se"])
def test_autocast_is_traced_with_fake_tensors(name: str, mode: str) -> None:
    shape = Shape(1, 64, 16, 16)
    plain = trace_case(Case(name, "plain", {}, shape, mode=mode))
    mixed = trace_case(Case(name, "mixed", {}, shape, mode=mode, settings={"autocast": "bfloat16"}))
    assert mixed.traced_by == "fake"
    assert mixed.macs == plain.macs
    assert mixed.peak_bytes != plain.peak_bytes
    assert not mixed.uncounted


def test_half_precision_halves_the_storage() -> None:
    shape = Shape(1, 64, 16, 16)
    single = trace_case(Case("spatial/nonlocal", "nonlocal", {}, shape))
    half = trace_case(Case("spatial/nonlocal", "nonlocal", {}, shape, dtype="bfloat16"))
    assert half.macs == single.macs
    assert half.peak_bytes * 2 == single.peak_bytes


def test_channels_last_is_followed() -> None:
    module = nn.Conv2d(8, 8, 3, padding=1)
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 8, 5, 7).to(memory_format=torch.channels_last)
    real, traced = real_and_traced(module, [x], "training")
    assert numbers(real) == numbers(traced)


class Twice(torch.autograd.Function):
    """A custom Function: its forward's and backward's ops are counted, and both gradients of x are accumulated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        extra = grads[0] + grads[0]
        return extra @ weight.t(), x.t() @ (extra + grads[0])


@pytest.mark.parametrize("mode", MODES)
def test_custom_functions_and_accumulation(mode: str) -> None:
    class Uses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = Twice.apply(x, self.weight)  # type: ignore[no-untyped-call]
            z: Tensor = Twice.apply(y, self.weight)  # type: ignore[no-untyped-call]
            return y * z + x + y.sigmoid() * z.exp()

    real, traced = real_and_traced(Uses(), [torch.randn(5, 6)], mode)
    assert numbers(real) == numbers(traced)


_SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gather": lambda x: x.gather(1, torch.zeros(2, 1, 5, 7, dtype=torch.int64)),
    "max": lambda x: x.max(1).values,
    "topk": lambda x: x.topk(2, dim=1).values,
    "index": lambda x: x[:, [0, 2]],
    "index_select": lambda x: x.index_select(1, torch.tensor([0, 2])),
    "median": lambda x: x.median(2).values,
    "var_mean": lambda x: torch.stack(torch.var_mean(x, 1)),
    "group norm": lambda x: functional.group_norm(x, 2),
    "leaky relu": lambda x: functional.leaky_relu(x.transpose(1, 2), 0.1) * x.transpose(1, 2).contiguous(),
}


@pytest.mark.parametrize("name", _SELECTIONS)
def test_backward_formulas_write_where_eager_does(name: str) -> None:
    """The allocator's peak of a run without any mode: formulas that scatter into fresh zeros do so in place."""

    class Selects(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _SELECTIONS[name](x.mul(2.0)).sigmoid()

    x = torch.randn(2, 8, 5, 7)
    real, traced = real_and_traced(Selects(), [x], "training")
    assert numbers(traced) == numbers(real)
    seen = observe(Selects(), [x.requires_grad_()], None, training=True)[0]
    assert (
        abs(seen - traced.peak_bytes) < x.nbytes // 4
    )  # wrapped numbers and kernels' scratch; a copy would be x.nbytes or more


def test_what_autograd_keeps_by_hand() -> None:
    """relu keeps its output, which is the module's too; exp keeps its output; mul by a number keeps nothing."""
    size = 4 * 2 * 8 * 5 * 7

    class Chain(nn.Module):
        def __init__(self, *calls: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.calls = calls

        def forward(self, x: Tensor) -> Tensor:
            for call in self.calls:
                x = call(x)
            return x

    double: Callable[[Tensor], Tensor] = lambda x: x * 2.0  # noqa: E731
    assert trace_module(Chain(torch.exp, double), [X], "training").activation_bytes == size
    assert trace_module(Chain(double, torch.exp), [X], "training").activation_bytes == size
    assert trace_module(Chain(double, double), [X], "training").activation_bytes == 0


def test_the_cuda_model_rounds_every_storage_to_512_bytes() -> None:
    """x of 100 numbers: 400 bytes, a block of 512; two outputs alive."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x * 2

    counts = trace_module(Two(), [TensorSpec((100,))])
    assert (counts.peak_bytes, counts.peak_cuda_bytes) == (800, 1024)


def test_accumulation_leaves_views_and_expanded_gradients_alone() -> None:
    """Eager adds in place only to a dense buffer at the start of its storage: gradients of slices and of sums are not."""

    class Slices(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 1:].sum(1) + x[:, :-1].sum(1) + x.sum(1) + x.mean(1)

    x = torch.randn(2, 8, 5, 7, requires_grad=True)
    traced = trace_module(Slices(), [x], "training", target="cpu")
    assert abs(observe(Slices(), [x], None, training=True)[0] - traced.peak_bytes) <= 64


def test_a_hoard_without_end_runs_out_of_memory() -> None:
    class Hoards(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            hoard = []
            while True:
                hoard.append(x.new_ones(2**28))

    with pytest.raises(MemoryError, match="no end"):
        trace_module(Hoards(), [X])


def test_lstm_checkpoint_vmap_and_complex_are_traced() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 6, batch_first=True)
            self.linear = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            y, _ = self.lstm(x)
            y = torch.utils.checkpoint.checkpoint(self.linear, y, use_reentrant=False)
            return torch.vmap(torch.dot)(y.flatten(0, 1), x.flatten(0, 1)) + torch.fft.fft2(y).abs().sum()

    for mode in MODES:
        counts = trace_module(Mixed(), [TensorSpec((2, 4, 6))], mode)
        assert counts.traced_by == "meta"
        assert not counts.uncounted
        assert counts.macs > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.Fold((7, 13), 3, padding=1), (72, 91)),
        (nn.Fold((7, 13), 3, padding=1), (2, 72, 91)),
        (nn.Fold((8, 6), 2, stride=2), (2, 16, 12)),
        (nn.Unfold(3, padding=1), (2, 16, 17, 19)),
    ],
    ids=str,
)
def test_a_fold_keeps_the_storage_of_its_columns(module: nn.Module, size: tuple[int, ...], mode: str) -> None:
    x = torch.randn(size, requires_grad=mode == "training")
    real, traced = real_and_traced(module, [x], mode)
    assert numbers(traced) == numbers(real)
    if mode == "inference" and isinstance(module, nn.Fold):
        assert traced.peak_bytes == 4 * x.numel() >= 4 * module(x).numel()


def test_a_fold_that_does_not_fit_is_refused_in_torchs_words() -> None:
    with pytest.raises(RuntimeError, match=r"expected input\.size\(-1\) to be 91 but got 90"):
        trace_module(nn.Fold((7, 13), 3, padding=1), [torch.randn(2, 72, 90)])


class SafeSoftmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch._safe_softmax(x, -1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 2, 128, 256), (7,), ()], ids=str)
def test_what_a_safe_softmax_holds_inside_is_in_the_peak(size: tuple[int, ...], mode: str) -> None:
    x = torch.randn(size, requires_grad=mode == "training")
    real, traced = real_and_traced(SafeSoftmax(), [x], mode)
    assert numbers(traced) == numbers(real)
    assert traced.peak_bytes == observe(SafeSoftmax(), [x], None, training=mode == "training")[0]
    if mode == "inference":
        assert traced.peak_bytes == 5 * x.numel() + x.numel() // (size[-1] if size else 1) + 4
        assert traced.activation_bytes == 4 * x.numel()


class BuiltOnFirstUse(nn.Module):
    """A parameter, a buffer, a layer and a plain attribute for the size that comes."""

    bias: Tensor
    cached: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "parameter":
            if not hasattr(self, "weight"):
                self.weight = nn.Parameter(x.new_ones(x.shape[1:]))
            return x * self.weight
        if self.kind == "buffer":
            if not hasattr(self, "bias"):
                self.register_buffer("bias", x.new_zeros(x.shape[1:]), persistent=False)
            return x.relu() + self.bias
        if self.kind == "layer":
            if not hasattr(self, "layer"):
                self.layer = nn.Conv2d(x.shape[1], 4, 1, device=x.device)
            out: Tensor = self.layer(x)
            return out
        if not hasattr(self, "cached"):
            self.cached = torch.zeros(x.shape[1:], device=x.device)
        return x.relu() + self.cached


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "params"), [("parameter", 60), ("buffer", 0), ("layer", 16), ("attribute", 0)])
def test_what_a_first_pass_builds_is_there_in_the_one_that_is_counted(kind: str, params: int, mode: str) -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=mode == "training")
    module = BuiltOnFirstUse(kind)
    names = {*module.__dict__, *module._parameters, *module._buffers, *module._modules}
    real, traced = real_and_traced(module, [x], mode)
    assert numbers(traced) == numbers(real)
    assert {*module.__dict__, *module._parameters, *module._buffers, *module._modules} == names, "it is left as it was found"
    assert all(parameter.grad is None for parameter in module.parameters())
    module(x)
    assert numbers(trace_module(module, [x], mode, target="cpu")) == numbers(traced)
    assert traced.params == params


def test_one_on_meta_is_left_as_it_was_found_too() -> None:
    module = BuiltOnFirstUse("parameter")
    trace_module(module, [TensorSpec((2, 3, 4, 5))])
    assert not list(module.parameters())


@pytest.mark.parametrize("kind", ["parameter", "buffer", "layer"])
def test_under_autocast_what_a_first_pass_builds_is_refused(kind: str) -> None:
    with pytest.raises(UntraceableError, match="its first pass makes parameters or buffers"):
        trace_module(BuiltOnFirstUse(kind), [torch.randn(2, 3, 4, 5)], autocast="bfloat16")
    trace_module(BuiltOnFirstUse("attribute"), [torch.randn(2, 3, 4, 5)], autocast="bfloat16")


def test_a_lazy_layer_is_refused_by_name() -> None:
    module = nn.Sequential(nn.ReLU(), nn.LazyConv2d(4, 1))
    with pytest.raises(UntraceableError, match=r"1 is a LazyConv2d.* run it once before"):
        trace_module(module, [torch.randn(2, 3, 4, 5)])
    module(torch.randn(2, 3, 4, 5))
    assert trace_module(module, [torch.randn(2, 3, 4, 5)]).params == 16


def test_a_mistake_in_the_backward_pass_is_an_error_not_a_limit() -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.sigmoid()
            return y.mul_(2)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trace_module(Wrong(), [torch.randn(2, 3, requires_grad=True)], "training")
