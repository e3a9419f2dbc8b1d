"""Outputs of the hot ops on meta tensors, from shapes and strides alone: what makes a trace take milliseconds.

torch's own meta kernels are right but slow to reach: the first `mul` on a meta tensor imports torch._dynamo (1.7 s), the first
`bmm` sympy (0.7 s). For the ops that attention networks consist of the output is computed here with `empty_strided`, following
torch's stride rules (`layout`); every other op, and every call whose arguments do not fit, goes to torch's meta kernel, which
raises what a real call would. `tests/profiling/test_outputs.py` sweeps each maker against the real CPU kernel (sizes, strides,
dtype).

A maker takes (args, kwargs) of the ATen overload and returns the output, or NotImplemented where it does not know the case.
In-place and out= forms are made by their base's maker, to check the sizes, and return the tensor they were given.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attnprof.profiling.counting.outputs import creation, layout, pointwise, products, reductions
from attnprof.profiling.counting.outputs.layout import Maker, broadcast, is_dense

__all__ = ["MAKERS", "in_place", "into", "is_dense", "layout", "maker_of", "returns_self", "writes_out"]

aten = torch.ops.aten

_CHANGES_METADATA = {
    f"aten::{name}_"
    for name in "resize resize_as set as_strided transpose unsqueeze squeeze t swapdims swapaxes rename detach".split()  # noqa: SIM905
}


def _table() -> dict[Any, Maker]:
    """OpOverload -> maker, for the overloads that this torch has."""
    table: dict[Any, Maker] = {}
    for named in (pointwise.MAKERS, products.MAKERS, reductions.MAKERS, creation.MAKERS):
        for name, maker in named.items():
            packet, _, overload = name.partition(".")
            op = getattr(getattr(aten, packet, None), overload or "default", None)
            if op is not None:
                table[op] = maker
    return table


MAKERS = _table()


def writes_out(func: Any) -> bool:
    """True for `out=` overloads with a single result: they return the tensor they were given."""
    arguments = func._schema.arguments
    return bool(arguments) and arguments[-1].name == "out" and len(func._schema.returns) == 1


def returns_self(func: Any) -> bool:
    """True for `add_`-like ops that write to their first argument and return it, leaving its sizes and strides alone."""
    schema = func._schema
    if not schema.name.endswith("_") or schema.name.endswith("__") or not schema.arguments or len(schema.returns) != 1:
        return False
    info, back = schema.arguments[0].alias_info, schema.returns[0].alias_info
    return bool(info and info.is_write and back and back.is_write) and schema.name not in _CHANGES_METADATA


def maker_of(func: Any) -> Maker | None:
    """The maker of an overload, or of the base of an in-place or out= form."""
    own = MAKERS.get(func)
    if own is not None or not func._schema.name.startswith("aten::"):
        return own
    name, overload = func._schema.name.removeprefix("aten::"), func._schema.overload_name
    if returns_self(func):
        name = name.removesuffix("_")
    elif writes_out(func):
        overload = overload.removesuffix("out").removesuffix("_")
        name = {"softmax": "_softmax"}.get(name, name)
        overload = "" if name == "_softmax" else overload
    return MAKERS.get(getattr(getattr(aten, name, None), overload or "default", None))


def in_place(maker: Maker | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an in-place form: its first argument, where the base's result has that size; else NotImplemented."""
    target = args[0]
    others = [arg for arg in args[1:] if isinstance(arg, Tensor)]
    if not others:
        return target
    if maker is not None:
        made = maker(args, kwargs)
        return target if isinstance(made, Tensor) and made.shape == target.shape else NotImplemented
    fits = broadcast([target.shape, *(other.shape for other in others)]) == list(target.shape)
    return target if fits else NotImplemented


def into(maker: Maker | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an out= form: `out` where the base's result has its size and dtype; anything else is left to torch."""
    out = kwargs["out"]
    if maker is None or not out.is_meta:
        return NotImplemented
    if maker is reductions.MAKERS["_softmax"]:
        args = (*args[:2], False)
    made = maker(args, {name: value for name, value in kwargs.items() if name != "out"})
    fits = isinstance(made, Tensor) and made.shape == out.shape and made.dtype == out.dtype
    return out if fits else NotImplemented
