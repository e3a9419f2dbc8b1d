"""What an attention does to its scores and probabilities between its two products, and what that is to a fused attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_FACTORS = frozenset(
    {Tensor.mul, Tensor.mul_, Tensor.div, Tensor.div_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__truediv__}
    | {Tensor.__itruediv__, torch.mul, torch.div}
)
_SUMS = frozenset({Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, torch.add})
_FILLS = frozenset({Tensor.masked_fill, Tensor.masked_fill_, torch.masked_fill})
SOFTMAXES = frozenset({torch.softmax, functional.softmax, Tensor.softmax})
_DROPOUTS = frozenset({functional.dropout, torch.dropout})
_CASTS = frozenset({Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type_as})
_VIEWS = frozenset(
    {Tensor.view, Tensor.reshape, torch.reshape, Tensor.contiguous, Tensor.flatten, torch.flatten, Tensor.unflatten}
    | {Tensor.unsqueeze, torch.unsqueeze, Tensor.squeeze, torch.squeeze}
)
_TURNS = frozenset({Tensor.transpose, torch.transpose, Tensor.permute, torch.permute})
_MT = Tensor.mT.__get__  # type: ignore[attr-defined]
_CLOSED = -1e4  # a mask fills with this or less: what is left of it after the softmax is nothing
HARMLESS = object()


@dataclass(frozen=True)
class Map:
    """Scores or probabilities: who attends to whom, and where they are on the way to the second product.

    bias: what a fused attention is given as its mask, in the order of the scores: added (float), or True where it lets pass.
    """

    number: int  # of the product that made the scores
    left: Tensor  # (..., N, d): what the scores are the products of
    right: Tensor  # (..., d, M)
    line: str = ""
    turned: bool = False  # the last two dimensions have changed places
    keys_last: bool | None = None  # after the softmax: was it over the last dimension, as the map lies now?
    dropout: float = 0.0
    bias: Tensor | None = None


def followed(func: Any, args: Any, kwargs: Any, held: Map, out: Any) -> Any:
    """The map after a call on it that gave `out`; HARMLESS for a question about it; None where an attention does no such thing.

    Ops on the bias (a mask turned round, two biases summed, one copied into another layout) run here.
    """
    if func == _MT:
        return _turned(held, [*range(out.dim() - 2), out.dim() - 1, out.dim() - 2])
    if getattr(func, "__name__", "") == "__get__" or func in (Tensor.size, Tensor.dim, Tensor.stride, Tensor.numel):
        return HARMLESS
    if not isinstance(out, Tensor):
        return None
    before = held.keys_last is None and not held.turned  # what is done to the scores is done to the bias
    if func in _FACTORS:
        plain = held.bias is None or held.bias.dtype == torch.bool
        return held if not isinstance(args[1], Tensor) and held.keys_last is None and plain else None
    if func in _SUMS and before and len(args) == 2:
        one, other = args
        return _added(held, other if one.shape == out.shape and one.dim() == out.dim() else one, out, other is one)
    if func in _FILLS and before and not kwargs and len(args) == 3:
        return _masked(held, args[1], args[2], out)
    if func in SOFTMAXES and held.keys_last is None:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        last = out.dim() - 1
        if dim in (-1, last) and kwargs.get("dtype") is None:
            return replace(held, keys_last=True)
        return replace(held, keys_last=False) if dim in (-2, last - 1) and kwargs.get("dtype") is None else None
    if func in _DROPOUTS and held.keys_last is not None:
        names = ("input", "p", "training")
        given = dict(zip(names, args, strict=False)) | kwargs
        return replace(held, dropout=float(given.get("p", 0.5)) if given.get("training", True) else 0.0)
    if func in _CASTS:
        return held if out.is_floating_point() else None
    if func in _TURNS:
        return _turned(held, _order(func, args, kwargs, out.dim()))
    if func in _VIEWS:
        return _viewed(held, args[0], out)
    return None


def _added(held: Map, added: Any, scores: Tensor, itself: bool) -> Map | None:
    """Something added to the scores, as a bias of them."""
    if itself or not _broadcasts(added, scores) or not added.is_floating_point():
        return None
    if held.bias is None:
        return replace(held, bias=added)
    if held.bias.dtype == torch.bool:
        return replace(held, bias=added.masked_fill(~held.bias, -torch.inf))
    return replace(held, bias=held.bias + added)


def _masked(held: Map, mask: Any, value: Any, scores: Tensor) -> Map | None:
    """Scores filled so low that nothing of them is left, as a mask of what lets pass."""
    if not _broadcasts(mask, scores) or mask.dtype != torch.bool or isinstance(value, Tensor) or value > _CLOSED:
        return None
    if held.bias is None:
        return replace(held, bias=~mask)
    if held.bias.dtype == torch.bool:
        return replace(held, bias=held.bias & ~mask)
    return replace(held, bias=held.bias.masked_fill(mask, -torch.inf))


def _broadcasts(tensor: Any, scores: Tensor) -> bool:
    """Is this something for all scores, with a number for every key?"""
    if not isinstance(tensor, Tensor) or not 2 <= tensor.dim() <= scores.dim() or tensor.shape[-1] != scores.shape[-1]:
        return False
    return all(a in (1, b) for a, b in zip(tensor.shape, scores.shape[-tensor.dim() :], strict=True))


def _order(func: Any, args: Any, kwargs: Any, dims: int) -> list[int]:
    """The order of dimensions that a transpose or a permute asks for."""
    order = list(range(dims))
    if "transpose" in func.__name__:
        first, second = args[1:] if len(args) > 2 else (kwargs.get("dim0"), kwargs.get("dim1"))
        order[first], order[second] = order[second], order[first]
        return order
    given = args[1:] if len(args) > 1 else (kwargs["dims"],)
    return [int(dim) % dims for dim in (given[0] if isinstance(given[0], (list, tuple)) else given)]


def _turned(held: Map, order: list[int]) -> Map | None:
    """The map with its dimensions in another order: the last two stay the last two, as they lie or the other way round."""
    rows, columns = len(order) - 2, len(order) - 1
    if held.bias is not None and held.bias.dim() > 2 and order[:-2] != list(range(rows)):
        return None
    if order[-2:] == [rows, columns]:
        return held
    if order[-2:] != [columns, rows]:
        return None
    return replace(held, turned=not held.turned, keys_last=None if held.keys_last is None else not held.keys_last)


def _viewed(held: Map, before: Tensor, after: Tensor) -> Map | None:
    """The map after a change of its leading dimensions; its bias follows, as a view where one does."""
    if after.dim() < 3 or tuple(after.shape[-2:]) != tuple(before.shape[-2:]):
        return None
    if held.bias is None or held.bias.dim() == 2 or before.shape == after.shape:
        return held
    last = (before.shape[-1], before.shape[-2]) if held.turned else before.shape[-2:]
    whole = held.bias.expand(*before.shape[:-2], *last)
    try:
        laid = whole.view(*after.shape[:-2], *last)
    except RuntimeError:
        return replace(held, bias=whole.reshape(*after.shape[:-2], *last))
    for dim in range(laid.dim() - 1):
        if laid.stride(dim) == 0:
            laid = laid.narrow(dim, 0, 1)
    return replace(held, bias=laid)
