"""Fast outputs against the real kernels: sizes, strides and dtype of every maker, over layouts that are not contiguous."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from attnprof.profiling.counting import outputs
from attnprof.profiling.counting.trace import trace_module
from attnprof.records import TensorSpec

aten = torch.ops.aten


def layouts(shape: tuple[int, ...]) -> list[Tensor]:
    """The same sizes stored in many ways: every order of dimensions, sliced, expanded."""
    found = []
    for order in itertools.permutations(range(len(shape))):
        stored = torch.randn([shape[dim] for dim in order])
        found.append(stored.permute([order.index(dim) for dim in range(len(shape))]))
    found.append(torch.randn([extent + 1 for extent in shape])[tuple(slice(extent) for extent in shape)])
    found.append(torch.randn([shape[0], *[1] * (len(shape) - 1)]).expand(shape))
    return found


def described(tree: Any) -> Any:
    """Size, strides (of dimensions that have any extent: the others depend on the number of threads) and dtype."""
    if isinstance(tree, Tensor):
        strides = tuple(step for step, extent in zip(tree.stride(), tree.shape, strict=True) if extent != 1)
        return tuple(tree.shape), strides, tree.dtype
    if isinstance(tree, (list, tuple)):
        return [described(item) for item in tree]
    return tree


def to_meta(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return torch.empty_strided(tree.shape, tree.stride(), dtype=tree.dtype, device="meta")
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_meta(item) for item in tree)
    return tree


def agree(op: Any, *args: Any, **kwargs: Any) -> None:
    """The maker's output has the sizes, strides and dtype of the CPU kernel's."""
    made = outputs.MAKERS[op](tuple(to_meta(arg) for arg in args), kwargs)
    assert made is not NotImplemented
    real = op(*args, **kwargs)
    assert described(made) == described(real), f"{op} on {described(args)}"


FOUR = (2, 3, 4, 5)
_UNARY = [aten.relu.default, aten.sigmoid.default, aten.exp.default, aten.neg.default, aten.tanh.default, aten.gelu.default]


@pytest.mark.parametrize("op", _UNARY)
def test_unary(op: Any) -> None:
    for shape in (FOUR, (1, 3, 1, 5), (3, 1), (4,), ()):
        for x in layouts(shape) if shape else [torch.randn(())]:
            agree(op, x)


@pytest.mark.parametrize("op", [aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.gt.Tensor])
def test_binary_over_pairs_of_layouts(op: Any) -> None:
    for x, y in itertools.product(layouts((2, 3, 4)), repeat=2):
        agree(op, x, y)
    for x in layouts(FOUR):
        agree(op, x, torch.randn(3, 1, 1))
        agree(op, torch.randn(2, 3, 1, 1), x)
        agree(op, x, torch.randn(()))


@given(st.data())
@settings(max_examples=200)
def test_binary_with_any_broadcast(data: Any) -> None:
    rank = data.draw(st.integers(1, 4))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))

    def operand() -> Tensor:
        sizes = [extent if data.draw(st.booleans()) else 1 for extent in shape]
        order = data.draw(st.permutations(range(rank)))
        stored = torch.randn([sizes[dim] for dim in order]).permute([order.index(dim) for dim in range(rank)])
        drop = data.draw(st.integers(0, rank - 1))
        return stored[(0,) * drop] if drop else stored

    agree(aten.mul.Tensor, operand(), operand())
    agree(aten.addcmul.default, operand(), operand(), operand())


@pytest.mark.parametrize("dims", [[0], [1], [2, 3], [-1], [0, 2], []])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions(dims: list[int], keepdim: bool) -> None:
    for x in layouts(FOUR):
        agree(aten.sum.dim_IntList, x, dims, keepdim)
        agree(aten.mean.dim, x, dims, keepdim)
        if dims:
            agree(aten.amax.default, x, dims, keepdim)
        agree(aten.var.correction, x, dims, correction=0, keepdim=keepdim)
    for x in layouts((3, 4)):
        agree(aten.max.dim, x, 1, keepdim)


@pytest.mark.parametrize("memory_format", [None, torch.contiguous_format, torch.channels_last, torch.preserve_format])
def test_copies(memory_format: torch.memory_format | None) -> None:
    for x in layouts(FOUR):
        agree(aten.clone.default, x, memory_format=memory_format)
        agree(aten.empty_like.default, x, memory_format=memory_format)


def test_matrix_products() -> None:
    for a, b in itertools.product(layouts((3, 4)), layouts((4, 5))):
        agree(aten.mm.default, a, b)
        agree(aten.addmm.default, torch.randn(5), a, b)
    for a, b in itertools.product(layouts((2, 3, 4)), layouts((2, 4, 5))):
        agree(aten.bmm.default, a, b)
        agree(aten.baddbmm.default, torch.randn(2, 3, 5), a, b)
    agree(aten.mv.default, torch.randn(3, 4), torch.randn(4))


_CONVOLUTIONS = [
    ((6, 4, 1, 1), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    ((6, 4, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    ((6, 4, 3, 3), [2, 2], [1, 1], [2, 2], False, [0, 0], 1),
    ((4, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    ((4, 6, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    ((4, 3, 2, 2), [2, 2], [0, 0], [1, 1], True, [0, 0], 2),
]


@pytest.mark.parametrize("settings_", _CONVOLUTIONS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_convolution_and_its_backward(settings_: tuple[Any, ...], channels_last: bool) -> None:
    size, *rest = settings_
    for hw in ((9, 8), (2, 2), (1, 5)) if size[2] == 1 else ((9, 8),):
        x = torch.randn(2, 4, *hw)
        weight = torch.randn(size)
        if channels_last:
            x = x.to(memory_format=torch.channels_last)
        bias = torch.randn(size[1] * rest[-1] if rest[3] else size[0])
        agree(aten.convolution.default, x, weight, bias, *rest)
        out = aten.convolution.default(x, weight, bias, *rest)
        for mask in ([True, True, True], [False, True, False], [True, False, False]):
            agree(aten.convolution_backward.default, torch.randn_like(out), x, weight, [len(bias)], *rest, mask)


def test_softmax() -> None:
    for x in layouts((2, 3, 4)):
        for dim in (0, 1, -1):
            agree(aten._softmax.default, x, dim, False)
            agree(aten._log_softmax.default, x, dim, False)
            for grad in layouts((2, 3, 4)):
                agree(aten._softmax_backward_data.default, grad, torch.softmax(x, dim), dim, torch.float32)


def test_joining() -> None:
    for x, y in itertools.product(layouts((2, 3, 4, 5))[:8], repeat=2):
        agree(aten.cat.default, [x, y], 1)
        agree(aten.cat.default, [x, y], -1)
    agree(aten.stack.default, [torch.randn(2, 3), torch.randn(2, 3)], 1)


@pytest.mark.parametrize("training", [False, True])
def test_normalisation(training: bool) -> None:
    for x in layouts(FOUR):
        channel = [torch.rand(3) + 1 for _ in range(4)]
        agree(aten.native_batch_norm.default, x, *channel, training, 0.1, 1e-5)
        saved = [torch.rand(3), torch.rand(3)] if training else [torch.empty(0), torch.empty(0)]
        gradient = torch.randn_like(x)
        args = (gradient, x, channel[0], channel[2], channel[3], *saved, training, 1e-5, [True, True, True])
        agree(aten.native_batch_norm_backward.default, *args)
    x = torch.randn(2, 3, 4)
    agree(aten.native_layer_norm.default, x, [4], torch.ones(4), torch.zeros(4), 1e-5)


def test_pooling_and_interpolation() -> None:
    for x in (torch.randn(2, 3, 7, 9), torch.randn(2, 3, 7, 9).to(memory_format=torch.channels_last)):
        agree(aten._adaptive_avg_pool2d.default, x, [3, 2])
        agree(aten._adaptive_avg_pool2d_backward.default, torch.randn(2, 3, 3, 2).contiguous(), x)
        agree(aten.upsample_bilinear2d.default, x, [14, 11], True, None, None)
        agree(aten.upsample_bilinear2d_backward.default, torch.randn(2, 3, 14, 11), [14, 11], [2, 3, 7, 9], True, None, None)


@pytest.mark.parametrize("masks", [[True, True], [False, True]])
def test_sampling(masks: list[bool]) -> None:
    for x in (
        torch.randn(2, 3, 7, 9),
        torch.randn(2, 3, 7, 9).to(memory_format=torch.channels_last),
        torch.randn(2, 7, 9, 3).permute(0, 3, 1, 2),
    ):
        for grid in (torch.randn(2, 4, 5, 2), torch.randn(2, 2, 4, 5).permute(0, 2, 3, 1)):
            agree(aten.grid_sampler_2d.default, x, grid, 0, 0, False)
            agree(aten.grid_sampler_2d_backward.default, torch.randn(2, 3, 4, 5), x, grid, 0, 0, False, masks)


def test_arithmetic_of_indices() -> None:
    i, j = torch.randint(0, 9, (2, 3, 4)), torch.randint(0, 9, (4, 3)).t()
    for op in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.maximum.default, aten.bitwise_and.Tensor):
        agree(op, i, j)
        agree(op, i.transpose(0, 1), i.transpose(0, 1))
    agree(aten.add.Tensor, i, 3)
    agree(aten.clamp.default, j, 0, 5)
    agree(aten.remainder.Scalar, j, 3)
    agree(aten.floor_divide.default, j, torch.tensor(3))
    agree(aten.remainder.Scalar, torch.randn(3, 4).t(), 3)
    agree(aten.clamp.default, torch.randn(3, 4), 0, 5)
    agree(aten.bitwise_and.Tensor, i > 3, j > 3)
    meta = to_meta(i)
    assert outputs.MAKERS[aten.add.Tensor]((meta, 0.5), {}) is NotImplemented
    assert outputs.MAKERS[aten.add.Tensor]((meta, to_meta(torch.randn(4))), {}) is NotImplemented
    assert outputs.MAKERS[aten.sub.Tensor]((meta > 3, meta), {}) is NotImplemented


def test_backward_of_activations() -> None:
    for grad, x in itertools.product(layouts((2, 3, 4)), repeat=2):
        agree(aten.elu_backward.default, grad, 1.0, 1.0, 1.0, False, x)
        agree(aten.softplus_backward.default, grad, x, 1.0, 20.0)
        agree(aten.hardswish_backward.default, grad, x)


def test_group_norm() -> None:
    x, grad, weight = torch.randn(2, 6, 4, 5), torch.randn(2, 6, 4, 5), torch.randn(6)
    for scale in (weight, None):
        agree(aten.native_group_norm.default, x, scale, scale, 2, 6, 20, 3, 1e-5)
        saved = (torch.randn(2, 3), torch.rand(2, 3))
        mask = [True, scale is not None, scale is not None]
        agree(aten.native_group_norm_backward.default, grad, x, *saved, scale, 2, 6, 20, 3, mask)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cumsum(dim: int) -> None:
    for x in layouts((2, 3, 4)):
        agree(aten.cumsum.default, x, dim)


def test_rare_forms() -> None:
    agree(aten.repeat.default, torch.randn(2, 3), [4, 1, 2])
    agree(aten.diag_embed.default, torch.randn(2, 3))
    agree(aten.eye.default, 5)
    agree(aten.eye.m, 5, 3)
    agree(aten.arange.default, 5)
    agree(aten.arange.start, 2, 7, dtype=torch.float32)
    assert outputs.MAKERS[aten.arange.default]((2.5,), {}) is NotImplemented
    agree(aten.masked_fill.Scalar, torch.randn(2, 3).t(), torch.ones(2, dtype=torch.bool), 0.0)
    agree(aten.where.self, torch.randn(2, 3) > 0, torch.randn(2, 3), torch.randn(3))
    agree(aten.select_backward.default, torch.randn(3), [2, 3], 0, 1)
    agree(aten.linalg_vector_norm.default, torch.randn(2, 3, 4), 2, [1], True)
    agree(aten.scatter.src, torch.randn(2, 3), 1, torch.zeros(2, 1, dtype=torch.int64), torch.randn(2, 1))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_cpu_attention(order: tuple[int, ...], causal: bool) -> None:
    def heads() -> Tensor:
        return torch.randn([(2, 3, 6, 8)[dim] for dim in order]).permute([order.index(dim) for dim in range(4)])

    q, k, v = heads(), heads(), heads()
    op = aten._scaled_dot_product_flash_attention_for_cpu.default
    agree(op, q, k, v, 0.0, causal)
    out, logsumexp = op(q, k, v, 0.0, causal)
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    agree(backward, torch.randn_like(out), q, k, v, out, logsumexp, 0.0, causal)


def test_what_a_maker_does_not_know_it_leaves_to_torch() -> None:
    whole, half = torch.empty(3, device="meta"), torch.empty(3, device="meta", dtype=torch.float16)
    number = torch.empty(3, device="meta", dtype=torch.int64)
    makers: dict[Any, Callable[..., Any]] = outputs.MAKERS
    assert makers[aten.add.Tensor]((whole, half), {}) is NotImplemented
    assert makers[aten.sigmoid.default]((number,), {}) is NotImplemented
    assert makers[aten.sum.dim_IntList]((number, [0]), {}) is NotImplemented


class Wrong(nn.Module):
    """A call that torch refuses: the trace must refuse it too, not make something up."""

    def __init__(self, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


_WRONG: dict[str, Callable[[Tensor], Any]] = {
    "mm": lambda x: x[0, 0] @ x[0, 0],
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 0]),
    "addmm": lambda x: torch.addmm(x[0, 0, 0, :3], x[0, 0].t(), x[0, 0]),
    "broadcast": lambda x: x + x[..., :2],
    "in place": lambda x: x[:, :1].clone().add_(x),
    "in place product": lambda x: x[0].clone().baddbmm_(x[0], x[0]),
    "cat": lambda x: torch.cat([x, x[:, :, 1:]], 1),
    "conv": lambda x: functional.conv2d(x, x.new_empty(4, 2, 1, 1)),
    "conv bias": lambda x: functional.conv2d(x, x.new_empty(4, 3, 1, 1), x.new_empty(3)),
    "softmax": lambda x: x.softmax(4),
    "sum": lambda x: x.sum(dim=(1, 7)),
    "stack": lambda x: torch.stack([x, x[1:]]),
    "batch norm": lambda x: functional.batch_norm(x, x.new_empty(4), x.new_empty(4)),
    "layer norm": lambda x: functional.layer_norm(x, [4], x.new_empty(4)),
    "dtype": lambda x: x[0, 0].t() @ x[0, 0].double(),
}


@pytest.mark.parametrize("name", _WRONG)
def test_what_torch_refuses_is_refused(name: str) -> None:
    module = Wrong(_WRONG[name])
    with pytest.raises(Exception, match=r".") as real:
        module(torch.randn(2, 3, 4, 5))
    with pytest.raises(type(real.value)):
        trace_module(module, [TensorSpec((2, 3, 4, 5))])


def test_in_place_and_out_forms_are_told_apart() -> None:
    assert outputs.returns_self(aten.add_.Tensor)
    assert outputs.returns_self(aten.baddbmm_.default)
    for other in (aten.add.Tensor, aten.t_.default, aten.squeeze_.dim, aten.resize_.default, aten.set_.source_Tensor):
        assert not outputs.returns_self(other), other
    assert outputs.writes_out(aten.bmm.out)
    assert not outputs.writes_out(aten.bmm.default)
