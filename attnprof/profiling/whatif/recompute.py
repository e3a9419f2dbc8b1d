"""A submodule that keeps its inputs only and runs its forward pass again in the backward pass.

What torch.utils.checkpoint (non-reentrant, stopping as soon as the last kept tensor is there) does, without its first call's
import of torch's compiler (seconds). The tests hold the two against each other: same peak, same MACs.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class _EnoughError(Exception):
    """The last tensor that the backward pass asks for has been made again."""


class _Kept:
    """What autograd holds in the place of a tensor that the forward pass would have saved."""

    __slots__ = ("__weakref__", "call")

    def __init__(self, call: _Call) -> None:
        self.call = call


class _Call:
    """One forward call: its inputs, what autograd asked to save, in order, and the tensors once they are made again."""

    def __init__(self, forward: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.forward, self.args, self.kwargs = forward, args, kwargs
        self.kept: list[weakref.ref[_Kept]] = []
        self.made: weakref.WeakKeyDictionary[_Kept, Tensor] = weakref.WeakKeyDictionary()
        self.ran_again = False

    def pack(self, tensor: Tensor) -> _Kept:
        holder = _Kept(self)
        self.kept.append(weakref.ref(holder))
        return holder

    def unpack(self, holder: _Kept) -> Tensor:
        if not self.ran_again:
            self.ran_again = True
            self._run_again()
        return self.made[holder]

    def _run_again(self) -> None:
        number = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal number
            holder = self.kept[number]() if number < len(self.kept) else None
            number += 1
            if holder is not None:
                self.made[holder] = tensor.detach()
            if number == len(self.kept):
                raise _EnoughError
            return tensor.detach()

        try:
            with saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
                self.forward(*self.args, **self.kwargs)
        except _EnoughError:
            pass


def keep_inputs_only(part: nn.Module) -> None:
    """Let every call of `part` keep its inputs only."""
    plain = part.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        call = _Call(plain, args, kwargs)
        with saved_tensors_hooks(call.pack, lambda holder: holder.call.unpack(holder)):
            return plain(*args, **kwargs)

    part.forward = forward
