"""product -> softmax -> product found in a running module, and run as one fused attention instead.

`Fusing` follows the maps that a product (matmul, bmm, @, einsum) makes through what an attention does to them (`maps`: a
factor, bias, mask, softmax, dropout, a change of layout that keeps the last two dimensions) to the product that consumes them.
Without `targets` it notes in `found` which products begin such a chain (and holds the maps, so that memory is not to be read
off such a pass). With `targets` the chain is not counted, and its last product becomes F.scaled_dot_product_attention of the
same queries, keys and values as (batch, heads, tokens, size), those copied whose last dimension is not contiguous: `attend`.
What an attention does not do to a map ends its chain: with `targets` by NotFusableError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnprof.profiling.counting.tracer import tensors_of
from attnprof.profiling.whatif import einsum
from attnprof.profiling.whatif.follow import Follower, line_of
from attnprof.profiling.whatif.maps import HARMLESS, SOFTMAXES, Map, followed

_Three = tuple[Tensor, Tensor, Tensor]
_MATMULS = frozenset({torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm})


class NotFusableError(Exception):
    """A map is used in a way that a fused attention has no place for."""


class Chain(NamedTuple):
    """Where the first and the second product of an attention are."""

    begins: str
    ends: str


class Fusing(TorchFunctionMode):
    """The mode. `tracer` counts the pass; `targets` are the chains that an observing pass found, by number. A forward that
    runs again in the backward pass (checkpointing) is numbered otherwise: there they are known by their lines.

    found: {number of a product that begins a chain: the chain}. softmaxes: where any softmax is. ended: {number: what an
    attention does not do, and where}. refused: {target: why no fused kernel takes it}. laid: {target: its q, k, v in words}.
    """

    def __init__(self, tracer: Follower, targets: Mapping[int, Chain] | None = None) -> None:
        super().__init__()
        self.tracer = tracer
        self.targets = targets
        self.found: dict[int, Chain] = {}
        self.softmaxes: list[str] = []
        self.ended: dict[int, str] = {}
        self.refused: dict[int, str] = {}
        self.laid: dict[int, str] = {}
        self.maps: dict[int, tuple[Tensor, Map | None]] = {}  # id: (what keeps the id, the map; None once consumed)
        self.products = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        pair = _pair(func, args, kwargs)
        self.products += pair is not None
        if func in SOFTMAXES:
            self.softmaxes.append(line_of(sys._getframe()))
        known = [tensor for tensor in tensors_of((args, kwargs)) if id(tensor) in self.maps]
        if not known:
            return func(*args, **kwargs) if pair is None else self._scores(func, args, pair)
        held = self.maps[id(known[0])][1]
        if len(known) != 1 or held is None:
            self._end(func, known)
            return func(*args, **kwargs)
        if pair is not None:
            return self._consume(func, args, pair, held, known[0])
        out = self._uncounted(lambda: func(*args, **kwargs)) if self.targets is not None else func(*args, **kwargs)
        after = (
            followed(func, args, kwargs, held, out)
            if self.targets is not None
            else self._uncounted(lambda: followed(func, args, kwargs, held, out))
        )
        if isinstance(after, Map):
            self.maps[id(out)] = (out, after)
        elif after is not HARMLESS:
            self._end(func, known)
        return out

    def finish(self, outputs: Any) -> None:
        """Look at what the module returns: a map among it was needed after all."""
        if self.targets is not None and any(id(tensor) in self.maps for tensor in tensors_of(outputs)):
            raise NotFusableError("the module returns the map")
        self.maps.clear()

    def _is_target(self, number: int, line: str) -> bool:
        targets = self.targets or {}
        return number in targets if self.tracer.phase == "forward" else any(line == chain.begins for chain in targets.values())

    def _scores(self, func: Any, args: Any, pair: tuple[str, Tensor, Tensor]) -> Any:
        number, (equation, left, right) = self.products, pair
        line = line_of(sys._getframe())
        if self.targets is not None and not self._is_target(number, line):
            return func(*args)
        out = self._uncounted(lambda: func(*args)) if self.targets is not None else func(*args)
        sides: tuple[Tensor, Tensor] | None = (left, right)
        if equation:
            sides = einsum.scores(equation, left, right)
        elif not (isinstance(out, Tensor) and out.dim() >= 3 and left.dim() == right.dim() == out.dim()):
            sides = None
        if sides is not None:
            if self.targets is None:  # an observer keeps no tensor alive
                sides = torch.empty(0, device="meta"), torch.empty(0, device="meta")
            self.maps[id(out)] = (out, Map(number, *sides, line))
        return out

    def _consume(self, func: Any, args: Any, pair: tuple[str, Tensor, Tensor], held: Map, known: Tensor) -> Any:
        """The second product: the map times the values, or the values times the map."""
        of_map = 0 if pair[1] is known else 1
        read = _values(pair, of_map)
        fits = read is not None and held.keys_last is not None and held.keys_last == read[0]
        if self.targets is None:
            if fits:
                self.found[held.number] = Chain(held.line, line_of(sys._getframe()))
            else:
                self._end(func, [known])
            return func(*args)
        if read is None or not fits:
            raise NotFusableError("the softmax is not over what the second product sums over")
        last, value, order = read
        rows_ask = held.turned != last  # the rows of the first product are the queries
        query = held.left if rows_ask else held.right.transpose(-2, -1)
        key = held.right.transpose(-2, -1) if rows_ask else held.left
        bias = held.bias if held.bias is None or rows_ask else held.bias.transpose(-2, -1)
        self._forget(held.number)
        math = dict(self.tracer.math)
        four, bias = _four(query, key, value, bias)
        self.laid[held.number] = _in_words(four, bias)
        out = attend(*four, bias, held.dropout).reshape(*value.shape[:-2], query.shape[-2], value.shape[-1])
        for call, times in self.tracer.math.items():
            if times != math.get(call):
                self.refused[held.number] = call
        return out.permute(order)

    def _forget(self, number: int) -> None:
        """The chain is done: its queries and keys are no longer held, and its maps may not be used again."""
        for name, (kept, held) in list(self.maps.items()):
            if held is not None and held.number == number:
                self.maps[name] = (kept, None)

    def _end(self, func: Any, known: Iterable[Tensor]) -> None:
        what = getattr(func, "__name__", str(func))
        if self.targets is not None:
            raise NotFusableError(f"{what} of the map")
        for tensor in known:
            _, held = self.maps.pop(id(tensor), (None, None))
            if held is not None:
                self.ended.setdefault(held.number, f"{what} ({line_of(sys._getframe())})")

    def _uncounted(self, call: Callable[[], Any]) -> Any:
        counting, self.tracer.counting = self.tracer.counting, False
        try:
            with torch.no_grad():
                return call()
        finally:
            self.tracer.counting = counting


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Fused attention over (batch, heads, tokens, size), copied where the last dimension is not contiguous."""
    masks = None if bias is None else _dense(bias)
    return functional.scaled_dot_product_attention(_dense(query), _dense(key), _dense(value), masks, dropout)


def _pair(func: Any, args: Any, kwargs: Any) -> tuple[str, Tensor, Tensor] | None:
    """(equation, left, right) of a product of two tensors, the equation empty for a matmul; None for any other call."""
    if kwargs:
        return None
    if func in _MATMULS and len(args) == 2:
        return "", args[0], args[1]
    if func is torch.einsum and isinstance(args[0], str):
        operands = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        if len(operands) == 2:
            return args[0], operands[0], operands[1]
    return None


def _values(pair: tuple[str, Tensor, Tensor], of_map: int) -> tuple[bool, Tensor, tuple[int, ...]] | None:
    """What `einsum.values` says of a second product, a matmul too."""
    equation, *operands = pair
    if equation:
        return einsum.values(equation, operands, of_map)
    dims = tuple(range(operands[of_map].dim()))
    if operands[1 - of_map].dim() != len(dims):
        return None
    if of_map == 0:
        return True, operands[1], dims
    return False, operands[0].transpose(-2, -1), (*dims[:-2], dims[-1], dims[-2])


def _four(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
    """Queries, keys, values and bias as (batch, heads, tokens, size): one head where there is one batch dimension or many."""
    batch = value.shape[:-2]
    if query.shape[:-2] == key.shape[:-2] == batch and len(batch) == 2:
        return (query, key, value), bias
    if query.shape[:-2].numel() != batch.numel():
        raise NotFusableError("the map is not of the batch of its values")
    if bias is not None and bias.dim() > 2:
        alone = bias.shape[:-2].numel() == 1
        bias = (bias if alone else bias.expand(*batch, *bias.shape[-2:])).reshape(-1, 1, *bias.shape[-2:])
    query, key, value = (t.reshape(-1, 1, *t.shape[-2:]) for t in (query, key, value))
    return (query, key, value), bias


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _in_words(four: _Three, bias: Tensor | None) -> str:
    """'q, k, v 1x1x9409x128 copied by .contiguous()', those of a kind together."""
    named = dict(zip(("q", "k", "v"), four, strict=True)) | ({} if bias is None else {"attn_mask": bias})
    kinds: dict[str, list[str]] = {}
    for name, tensor in named.items():
        copied = "" if tensor.stride(-1) == 1 else " copied by .contiguous()"
        kinds.setdefault(f"{'x'.join(map(str, tensor.shape))}{copied}", []).append(name)
    return "; ".join(f"{', '.join(names)} {kind}" for kind, names in kinds.items())
