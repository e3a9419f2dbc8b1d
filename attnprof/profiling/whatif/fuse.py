"""matmul -> softmax -> matmul found in a running module, and run as one fused attention instead.

`Fusing` follows the maps that a matmul makes through what an attention does to them (a factor, a bias, a softmax, dropout, a
transpose, a reshape that keeps the last two dimensions) to the matmul that consumes them. Without `targets` it notes in `found`
which matmuls begin such a chain (and holds the maps, so that memory is not to be read off such a pass). With `targets` the
chain is not counted, and its last matmul becomes F.scaled_dot_product_attention on the same queries, keys and values, which is.
What an attention does not do to a map ends its chain: with `targets` by NotFusableError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnprof.profiling.counting.tracer import Tracer, tensors_of

_MATMULS = frozenset({torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm})
_FACTORS = frozenset(
    {Tensor.mul, Tensor.mul_, Tensor.div, Tensor.div_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__, Tensor.__truediv__}
    | {Tensor.__itruediv__, torch.mul, torch.div}
)
_SUMS = frozenset({Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, torch.add})
_SOFTMAXES = frozenset({torch.softmax, functional.softmax, Tensor.softmax})
_DROPOUTS = frozenset({functional.dropout, torch.dropout})
_LAYOUTS = frozenset(
    {Tensor.transpose, torch.transpose, Tensor.permute, torch.permute, Tensor.view, Tensor.reshape, torch.reshape}
    | {Tensor.contiguous, Tensor.flatten, Tensor.unflatten, Tensor.unsqueeze, Tensor.squeeze}
)


class NotFusableError(Exception):
    """A map is used in a way that a fused attention has no place for."""


@dataclass(frozen=True)
class _Map:
    """Scores or probabilities: who attends to whom, and where they are on the way to the second matmul."""

    number: int  # of the matmul that made the scores
    left: Tensor  # (..., N, d): what the scores are the products of
    right: Tensor  # (..., d, M)
    turned: bool = False  # the last two dimensions have changed places
    keys_last: bool | None = None  # after the softmax: was it over the last dimension, as the map lies now?
    dropout: float = 0.0
    bias: Tensor | None = None


class Fusing(TorchFunctionMode):
    """The mode. `tracer` counts the pass; `targets` are numbers of matmuls that an observing pass found."""

    def __init__(self, tracer: Tracer, targets: frozenset[int] | None = None) -> None:
        super().__init__()
        self.tracer = tracer
        self.targets = targets
        self.found: set[int] = set()
        self.maps: dict[int, tuple[Tensor, _Map | None]] = {}  # id: (what keeps the id, the map; None once consumed)
        self.matmuls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_matmul = func in _MATMULS and len(args) == 2 and not kwargs
        self.matmuls += is_matmul
        known = [tensor for tensor in tensors_of((args, kwargs)) if id(tensor) in self.maps]
        if is_matmul and not known:
            return self._scores(func, args)
        if not known:
            return func(*args, **kwargs)
        held = self.maps[id(known[0])][1]
        if is_matmul and len(known) == 1 and held is not None:
            return self._consume(func, args, held, args[0] is known[0])
        after = held if len(known) != 1 or held is None else _followed(func, args, kwargs, held)
        if len(known) != 1 or held is None or not isinstance(after, _Map):
            if after is not _HARMLESS:
                self._end(func, known)
            return func(*args, **kwargs)
        out = self._uncounted(func, args, kwargs) if self.targets is not None else func(*args, **kwargs)
        if isinstance(out, Tensor):
            if out.shape[-2:].numel() != known[0].shape[-2:].numel():
                self._end(func, known)
                return out
            self.maps[id(out)] = (out, after)
        return out

    def finish(self, outputs: Any) -> None:
        """Look at what the module returns: a map among it was needed after all."""
        if self.targets is not None and any(id(tensor) in self.maps for tensor in tensors_of(outputs)):
            raise NotFusableError("the module returns the map")
        self.maps.clear()

    def _scores(self, func: Any, args: Any) -> Any:
        number = self.matmuls
        if self.targets is not None and number not in self.targets:
            return func(*args)
        out = self._uncounted(func, args, {}) if self.targets is not None else func(*args)
        if isinstance(out, Tensor) and out.dim() >= 3 and args[0].dim() == args[1].dim() == out.dim():
            nothing = torch.empty(0, device="meta") if self.targets is None else None  # an observer keeps no tensor alive
            held = _Map(number, *(args if nothing is None else (nothing, nothing)))
            self.maps[id(out)] = (out, held)
        return out

    def _consume(self, func: Any, args: Any, held: _Map, on_the_left: bool) -> Any:
        """The second matmul: the map times the values, or the values times the map."""
        fits = held.keys_last is not None and held.keys_last == on_the_left
        if self.targets is None:
            if fits:
                self.found.add(held.number)
            return func(*args)
        if not fits:
            raise NotFusableError("the softmax is not over what the second matmul sums over")
        left_asks = held.turned != on_the_left  # the rows of the first matmul are the queries
        query = held.left if left_asks else held.right.transpose(-2, -1)
        key = held.right.transpose(-2, -1) if left_asks else held.left
        value = args[1] if on_the_left else args[0].transpose(-2, -1)
        self._forget(held.number)
        if held.bias is not None and not left_asks:
            raise NotFusableError("the bias lies across")
        out = _attend(query, key, value, held)
        return out if on_the_left else out.transpose(-2, -1)

    def _forget(self, number: int) -> None:
        """The chain is done: its queries and keys are no longer held, and its maps may not be used again."""
        for name, (kept, held) in list(self.maps.items()):
            if held is not None and held.number == number:
                self.maps[name] = (kept, None)

    def _end(self, func: Any, known: Iterable[Tensor]) -> None:
        if self.targets is not None:
            raise NotFusableError(f"{getattr(func, '__name__', func)} of the map")
        for tensor in known:
            self.maps.pop(id(tensor), None)

    def _uncounted(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        counting, self.tracer.counting = self.tracer.counting, False
        try:
            with torch.no_grad():
                return func(*args, **kwargs)
        finally:
            self.tracer.counting = counting


_HARMLESS = object()


def _followed(func: Any, args: Any, kwargs: Any, held: _Map) -> Any:
    """The map after a call on it; _HARMLESS for a question about it (its shape); None where an attention does no such thing."""
    name = getattr(func, "__name__", "")
    if name == "__get__" or func in (Tensor.size, Tensor.dim, Tensor.stride, Tensor.numel):
        return _HARMLESS
    if func in _FACTORS:
        return held if not isinstance(args[1], Tensor) and held.keys_last is None else None
    if func in _SUMS and held.keys_last is None and held.bias is None and not held.turned and len(args) == 2:
        bias = _bias(args[0], args[1])
        return None if bias is None else replace(held, bias=bias)
    if func in _SOFTMAXES and held.keys_last is None:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        last = args[0].dim() - 1
        if dim in (-1, last) and kwargs.get("dtype") is None:
            return replace(held, keys_last=True)
        return replace(held, keys_last=False) if dim in (-2, last - 1) and kwargs.get("dtype") is None else None
    if func in _DROPOUTS and held.keys_last is not None:
        names = ("input", "p", "training")
        given = dict(zip(names, args, strict=False)) | kwargs
        return replace(held, dropout=float(given.get("p", 0.5)) if given.get("training", True) else 0.0)
    if func in _LAYOUTS:
        return _laid_out(func, args, kwargs, held)
    return None


def _bias(scores: Tensor, added: Any) -> Tensor | None:
    """What is added to the scores, as a mask of the fused op: (batch, heads, tokens, tokens); None where it is none."""
    if not isinstance(added, Tensor) or not 2 <= added.dim() <= scores.dim() or added.shape[-2:] != scores.shape[-2:]:
        return None
    return added.unsqueeze(1) if scores.dim() == added.dim() == 3 else added


def _laid_out(func: Any, args: Any, kwargs: Any, held: _Map) -> _Map | None:
    """The map after a change of layout, which is seen on an index of its last two dimensions."""
    rows, columns = args[0].shape[-2:]
    probe = torch.arange(2).view(*(1,) * (args[0].dim() - 2), 1, 2)
    name = func.__name__
    if name in ("transpose", "permute"):
        turned = getattr(probe, name)(*args[1:], **kwargs)
        if turned.shape[-1] == 2:
            return held
        if turned.shape[-2] == 2 and all(extent == 1 for extent in turned.shape[:-2]):
            keys = None if held.keys_last is None else not held.keys_last
            swapped = getattr(torch.empty(*(1,) * (args[0].dim() - 2), 2, 1), name)(*args[1:], **kwargs)
            return replace(held, turned=not held.turned, keys_last=keys) if swapped.shape[-1] == 2 else None
        return None
    with torch.no_grad():
        shape = getattr(torch.empty(args[0].shape, device="meta"), name)(*args[1:], **kwargs).shape
    return held if tuple(shape[-2:]) == (rows, columns) else None


def _attend(query: Tensor, key: Tensor, value: Tensor, held: _Map) -> Tensor:
    """Fused attention over (..., tokens, size), copied where the last dimension does not lie dense."""
    batch = query.shape[:-2]
    four = [t.reshape(-1, 1, *t.shape[-2:]) if t.dim() != 4 else t for t in (query, key, value)]
    queries, keys, values = (_dense(tensor) for tensor in four)
    bias = None if held.bias is None else _dense(held.bias)
    out: Tensor = functional.scaled_dot_product_attention(queries, keys, values, bias, held.dropout)
    return out.reshape(*batch, *out.shape[-2:])


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
