"""attnprof: what attention costs, counted without running it and measured where it can be believed.

    record = attnprof.profile("ccnet", "1x512x97x97", mode="training")
    record = attnprof.profile(my_module, [x])
    module = attnprof.build("ccnet", 512, recurrence=3)
    attnprof.register_cost("mylib::my_op", macs=lambda args, kwargs, out: args[0].numel() * 64)

Importing attnprof imports no torch; the functions do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from attnprof.records import Record

__all__ = ["build", "profile", "register_cost"]


def profile(
    module_or_name: nn.Module | str,
    shape_or_inputs: Any,
    device: str = "none",
    mode: str = "inference",
    dtype: str = "float32",
    *,
    budget_s: float = 5.0,
    **args: Any,
) -> Record:
    """The Record of one case: counts always, timing and measured memory where `device` is not 'none'.

    module_or_name: a name of the catalogue ('ccnet'), an import path ('mine.py:Mine'), or a module of your own, whose train or
        eval state is used as it is and left as it was.
    shape_or_inputs: 'BxCxHxW' or (B, C, H, W); for a module also the list of its inputs (tensors, shapes, anything it takes).
    args: build arguments of a name.

    Raises UsageError for wrong names and shapes, UntraceableError for what cannot be counted, and whatever the module raises.
    """
    from attnprof.profiled import by_module, by_name

    if isinstance(module_or_name, str):
        return by_name(module_or_name, shape_or_inputs, device, mode, dtype, budget_s, args)
    return by_module(module_or_name, shape_or_inputs, device, mode, dtype, args)


def build(name: str, channels: int, hw: tuple[int, int] = (65, 65), **args: Any) -> nn.Module:
    """The nn.Module of a catalogue name. `hw` matters only to mechanisms whose parameters depend on the resolution."""
    from attnprof import mechanisms
    from attnprof.records import Shape

    module: nn.Module = mechanisms.build(mechanisms.load(name), Shape(1, channels, *hw), args)
    return module


def register_cost(
    op: Any,
    *,
    macs: int | Callable[..., int] | None = None,
    flops: int | Callable[..., int] | None = None,
    bytes: int | Callable[..., int] | None = None,  # noqa: A002
) -> None:
    """Give a custom or Triton op its cost: 'lib::name' and numbers, or functions of (args, kwargs, out).

    `flops` is everything, 2 * macs included, and is 2 * macs where it is not given; without `bytes` the op counts as reading
    its inputs and writing its outputs once.
    """
    from attnprof.profiling.counting import flops as table

    table.register_cost(op, macs=macs, flops=flops, bytes=bytes)
