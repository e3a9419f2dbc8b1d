"""Element-wise ops, reductions, losses, and what scatters or indexes."""

from __future__ import annotations

from math import ceil, inf, log2, prod
from typing import Any

from attnprof.profiling.counting.formulas import NOTHING, Args, Cost, Kwargs, Rule, argument, first

# Element-wise ---------------------------------------------------------------------------------------------------------------


def per_output(amount: int, complex_amount: int | None = None) -> Rule:
    """`amount` per element of the (first) result; twice that for complex numbers unless stated."""
    complex_amount = 2 * amount if complex_amount is None else complex_amount

    def rule(_args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        tensor = out[0] if isinstance(out, (tuple, list)) else out
        return Cost(0, (complex_amount if tensor.is_complex() else amount) * tensor.numel())

    return rule


def per_argument(amount: int, index: int = 0) -> Rule:
    """`amount` per element of one argument."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, amount * args[index].numel())

    return rule


def add(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """Sum of x and alpha * y: the multiplication counts unless alpha is 1."""
    amount = 1 if kwargs.get("alpha", 1) == 1 else 2
    return Cost(0, amount * out.numel() * (2 if out.is_complex() else 1))


def div(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """One division, and one more operation where it is rounded. Complex: 6 + 3 multiply-adds and 2 divisions."""
    amount = 11 if out.is_complex() else 1
    return Cost(0, (amount + (kwargs.get("rounding_mode") is not None)) * out.numel())


def absolute(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """One operation; of a complex number two squares, a sum and a root."""
    return Cost(0, (4 if args[0].is_complex() else 1) * out.numel())


def addc(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """addcmul, addcdiv: one product or quotient, one addition, and `value` where it is not 1."""
    return Cost(0, (2 if kwargs.get("value", 1) == 1 else 3) * out.numel())


def clamp(args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """One comparison per bound that is given."""
    lower = argument(args, 1, kwargs.get("min"))
    upper = argument(args, 2, kwargs.get("max"))
    return Cost(0, ((lower is not None) + (upper is not None)) * out.numel())


def elu(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Compare, expm1, times alpha; times scale and input_scale where they are not 1 (SELU, CELU)."""
    return Cost(0, (3 + (argument(args, 2, 1) != 1) + (argument(args, 3, 1) != 1)) * out.numel())


def elu_backward(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Compare, times gradient; from the result one addition, from the input exp and times alpha; scales as in `elu`."""
    return Cost(0, (2 + (1 if args[4] else 2) + (args[2] != 1) + (args[3] != 1)) * out.numel())


def gelu(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """erf: x/sqrt2, erf, +1, /2, *x. tanh: x^2, x^3, *c, +x, *k, tanh, +1, /2, *x."""
    return Cost(0, (9 if kwargs.get("approximate") == "tanh" else 5) * out.numel())


def gelu_backward(_args: Args, kwargs: Kwargs, out: Any) -> Cost:
    """erf: cdf 4, pdf 4, x * pdf, +, * grad. tanh: forward's tanh 6, then 12 for the product rule."""
    return Cost(0, (18 if kwargs.get("approximate") == "tanh" else 11) * out.numel())


def dropout(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Draw, compare, apply the mask, scale; nothing in evaluation (train=False)."""
    trains = argument(args, 2, True)
    return Cost(0, 4 * out[0].numel()) if trains is not False else NOTHING


def foreach(amount: int) -> Rule:
    """A list form: `amount` per element of every tensor of the first list."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, amount * sum(tensor.numel() for tensor in args[0]))

    return rule


# Reductions -----------------------------------------------------------------------------------------------------------------


def reduction(per_input: int, per_result: int = 0) -> Rule:
    """From n elements to m: `per_input` * n + `per_result` * m; a sum of n is n additions."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        flops = per_input * args[0].numel()
        if per_result:
            flops += per_result * first(out).numel()
        return Cost(0, flops * (2 if args[0].is_complex() else 1))

    return rule


def extremum(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """max, min: of two tensors element-wise, else over the input; one comparison each."""
    binary = len(args) > 1 and hasattr(args[1], "numel")
    return Cost(0, out.numel() if binary else args[0].numel())


def vector_norm(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Order 2: square, add, one root; order 0, 1, inf: compare or abs, then add or compare. Else abs, power, add, one root."""
    order = argument(args, 1, 2)
    order = 2 if order is None else order
    if order in (0, 1, inf, -inf):
        return Cost(0, 2 * args[0].numel())
    return Cost(0, (2 if order == 2 else 3) * args[0].numel() + out.numel())


def distance(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """torch.dist: subtract, then the vector norm of the difference."""
    norm = vector_norm((args[0], argument(args, 2, 2)), {}, out)
    return Cost(0, norm.flops + args[0].numel())


def log_softmax(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """Max, subtract, exp, sum, subtract per element; one logarithm per row."""
    size = out.shape[args[1]] if out.dim() else 1
    return Cost(0, 5 * out.numel() + out.numel() // max(size, 1))


def sort(args: Args, kwargs: Kwargs, _out: Any) -> Cost:
    """As many as n ceil(log2 n) comparisons per row of n; in the stable form `dim` is a keyword."""
    size = args[0].shape[kwargs.get("dim", argument(args, 1, -1))] if args[0].dim() else 1
    return Cost(0, args[0].numel() * ceil(log2(max(size, 1))))


def topk(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """A heap of k: n max(1, ceil(log2 k)) comparisons per row of n."""
    return Cost(0, args[0].numel() * max(1, ceil(log2(max(args[1], 1)))))


def searchsorted(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(sorted, values): ceil(log2(n + 1)) comparisons per value among n."""
    return Cost(0, out.numel() * ceil(log2(args[0].shape[-1] + 1)))


def bucketize(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """ceil(log2(n + 1)) comparisons per value, n boundaries."""
    return Cost(0, out.numel() * ceil(log2(args[1].shape[-1] + 1)))


# Losses: per element, and one addition per element where they are reduced -----------------------------------------------------


def loss(amount: int, reduction_index: int) -> Rule:
    """`amount` per element, one more where the elements are summed (reduction is not none)."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, (amount + (argument(args, reduction_index, 1) != 0)) * args[0].numel())

    return rule


# Scattering -----------------------------------------------------------------------------------------------------------------


def index_add(args: Args, kwargs: Kwargs, _out: Any) -> Cost:
    """(x, dim, index, source): one addition per source element; alpha where it is not 1."""
    return Cost(0, (1 if kwargs.get("alpha", 1) == 1 else 2) * args[3].numel())


def index_put(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, indices, values, accumulate): one addition per written element where it accumulates."""
    if not argument(args, 3, False):
        return NOTHING
    return Cost(0, _indexed(args[0], args[1]))


def _indexed(x: Any, indices: Any) -> int:
    """Elements an index list selects: the broadcast of the indices times the axes that are not indexed."""
    sizes: list[int] = []
    for index in indices:
        if index is not None:
            shape = list(index.shape)
            width = max(len(sizes), len(shape))
            padded = [[1] * (width - len(part)) + part for part in (sizes, shape)]
            sizes = [max(pair) if 0 not in pair else 0 for pair in zip(*padded, strict=True)]
    rest = [size for axis, size in enumerate(x.shape) if axis >= len(indices) or indices[axis] is None]
    return int(prod(sizes) * prod(rest))


def accumulate_put(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_unsafe_masked_index_put_accumulate: (x, mask, indices, values): one addition per value."""
    return Cost(0, args[3].numel())


def scatter(args: Args, kwargs: Kwargs, _out: Any) -> Cost:
    """(x, dim, index, source): moving data; one operation per index with a reduction."""
    return Cost(0, args[2].numel()) if kwargs.get("reduce") is not None else NOTHING


def scatter_add(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """scatter_add, scatter_reduce, index_reduce: one operation per index (a mean divides once per result more)."""
    mean = argument(args, 4, "") == "mean"
    return Cost(0, args[2].numel() + (args[0].numel() if mean else 0))


def index_reduce(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, dim, index, source, reduce): one operation per source element, one division per result for a mean."""
    return Cost(0, args[3].numel() + (args[0].numel() if args[4] == "mean" else 0))


def embedding_bag(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(weight, indices, offsets, ...): one addition per looked-up element; one product with per-sample weights."""
    weighted = argument(args, 6, None) is not None
    return Cost(0, (1 + weighted) * args[1].numel() * args[0].shape[1])


def embedding_bag_backward(weights: int) -> Rule:
    """(g, indices, ...): one addition per looked-up element; one product with per-sample weights, at position `weights`."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        weighted = argument(args, weights, None) is not None
        return Cost(0, (1 + weighted) * args[1].numel() * args[0].shape[1])

    return rule


def embedding_bag_weights_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, weight, indices, ...): a dot product per index, element-wise: 2 per looked-up element."""
    return Cost(0, 2 * args[2].numel() * args[0].shape[1])


def put(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, index, source, accumulate): one addition per element where it accumulates."""
    return Cost(0, args[2].numel()) if argument(args, 3, False) else NOTHING


def rescale_qkv(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """(qkv, bias, heads) -> (q, k, v): the bias on all three, the scale on q."""
    return Cost(0, args[0].numel() + out[0].numel())


def unique(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """A sort of everything: n ceil(log2 n)."""
    return Cost(0, args[0].numel() * ceil(log2(max(args[0].numel(), 1))))


def embedding_renorm(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(weight, indices, ...): norm and product, 3 per looked-up element."""
    return Cost(0, 3 * args[1].numel() * args[0].shape[1])


def isin(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """A search in the m sorted test elements: ceil(log2(m + 1)) comparisons per element."""
    tests = args[1].numel() if hasattr(args[1], "numel") else 1
    return Cost(0, out.numel() * ceil(log2(tests + 1)))
