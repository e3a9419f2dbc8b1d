"""What an op costs: multiply-accumulates and operations of every ATen op, by one table. This is the project's convention.

    macs     multiply-accumulates of matmul, convolution, attention and recurrent kernels: what vision papers mostly print as
             "FLOPs". A product of k factors counts k. A bias is not a MAC; neither is interpolation, pooling or scaling.
    flops    2 * macs + everything else, by the table below. Work that is executed counts: a backward kernel that recomputes
             counts it, a zero in the padding or behind a mask counts as data. Integers and booleans count as floats do.

Per element of the result unless another unit is named:

    1        each arithmetic operation, comparison, rounding, logical operation, and each evaluation of a function of the
             mathematical library (exp, log, sqrt, rsqrt, erf, tanh, sin, pow, ...); each number drawn at random
    0        moving data: views, copies, casts, cat, gather, scatter, index, pad, roll, where, masked_fill, triu; filling,
             arange; an embedding. Adding on the way costs 1 per added element: index_add, scatter_add, col2im, the
             backward of gather, index, embedding, padding, unfold, nearest upsampling
    activation   ReLU 1; leaky ReLU, PReLU 2; hardtanh (ReLU6) 2; ELU 3; sigmoid 4 (negate, exp, add, divide); hardsigmoid 4;
             SiLU, GLU, hardswish, GELU 5 (GELU by tanh 9); Mish 4; softplus 5; log-sigmoid 6. Backward: ReLU 1, leaky ReLU,
             hardtanh 2, sigmoid, tanh, hardsigmoid 3, SiLU 9, GELU 11 (by tanh 18), GLU 8, hardswish 5, softplus 6, Mish 13
    alpha, beta  of add, addmm and their like: 1 each where they are not 1; the addition of the bias in addmm, linear, conv: 1
    reduction    per element of the input: sum, max, any, cumsum 1; count 2; var 4 (sum, subtract, square, sum), 2-norm 2;
             per result: mean 1, var 2, std 3, norm 1 (root); logsumexp 4 and 2
    softmax  5 (max, subtract, exp, sum, divide), log-softmax 5 and 1 per row; backward of both 4
    sort     n ceil(log2 n) comparisons per row; topk n ceil(log2 k), at least n; median, kthvalue 2 n
    norm     batch, layer, group: statistics as var, then subtract, times rstd, weight, bias: 8, and 4 per group; running
             statistics 6 per channel. Batch norm in evaluation: 4, and 2 per channel. RMS norm: 4, and 3 per row.
             Backward: batch 9 (evaluation 1, weight 4, bias 1); layer, group 10, weight 2, bias 1; RMS 7, weight 2
    pooling  average: one addition per element of the window, 1; max: one comparison per element of the window; adaptive: the
             elements of every bin, overlaps included. Backward: average as forward, max 1 per element of the gradient
    interpolation   t taps: t multiplications, t - 1 additions: linear 3, bilinear 7, trilinear 15, bicubic 31, nearest 0; its
             weights belong to rows and columns and are left out. Backward: 2 t per element of the gradient
    grid_sample     as interpolation, and per sampled place, all channels together: bilinear 28 (per axis: unnormalise 4, floor,
             + 1, two fractions, bounds 4; four products), trilinear 52, bicubic 94, nearest 7 per axis. Backward: input 2 t,
             grid 24 (trilinear 96, bicubic 128), the places again
    attention       the score matrix: S T (d + e) MACs; per score: scale 1, softmax 5, mask 1, dropout 4. Backward of a fused
             kernel: scores again, dV, dP, dQ, dK: S T (3 d + 2 e) MACs, 2.5 times the forward's when d = e
    recurrent       per step and hidden unit, biases included: ReLU, tanh cell 4, LSTM 30, GRU 22
    Fourier  5 N log2 N per transform, half of it for real input or output; scaling 1 per real number
    linear algebra  textbook leading terms, no macs: LU, det 2/3 n^3, solve + 2 n^2 per right-hand side, inverse 2 n^3, Cholesky
             1/3 n^3, eigh 9 n^3, eig 25 n^3, SVD 6 m n^2 + 20 n^3, QR 4 m n^2 - 4/3 n^3, triangular solve n^2, exp 10 n^3
    complex  addition 2, multiplication 6, division 11, absolute value 4, a multiply-accumulate 4 MACs; other functions twice
    losses   squared error 2, Huber, smooth L1 6, binary cross-entropy 8 (of logits 9), 1 more where summed; NLL 2 per target
    distances  cdist by matmul (p = 2, more than 25 points) S T (M + 2) MACs; else 3 per pair and feature (p > 2: 4), a root
    torchvision  deformable convolution: its MACs, 7 per sampled element, 22 per offset pair; RoI align: 8 per sample

`rule_for` looks an op up: what the user registered, then the table by name and overload, then by name; in-place and foreach
forms follow their base, out forms share its name, views and `*_copy` are free. No rule means None, and the tracer says so: a
cost is never silently zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from attnprof.errors import UsageError
from attnprof.profiling.counting.formulas import Args, Cost, Kwargs, Rule, elementwise, free
from attnprof.profiling.counting.table import ALLOCATIONS, FOREACH, MAYBE_COPIES, METADATA, RULES

__all__ = [
    "Cost",
    "Rule",
    "bytes_for",
    "moves_no_data",
    "register_cost",
    "registry_version",
    "rule_for",
    "unregister_cost",
    "writes_nothing",
]

Amount = int | Callable[[Args, Kwargs, Any], int]

_registered: dict[str, tuple[Rule, Amount | None]] = {}
_version = 0


def rule_for(func: Any) -> Rule | None:
    """The rule of an overload, or None where neither the user nor the table knows it. Callers keep the answer."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return None
    name = str(schema.name)
    overload = f"{name}.{schema.overload_name or 'default'}"
    mine = _registered.get(overload) or _registered.get(name)
    if mine is not None:
        return mine[0]
    space, _, op = name.partition("::")
    rule = RULES.get(f"{op}.{schema.overload_name}" if space == "aten" else overload) or RULES.get(
        op if space == "aten" else name
    )
    if rule is None and space == "aten":
        rule = _derived(op)
    if rule is None and _is_view(schema):
        rule = free
    return rule


def _derived(op: str) -> Rule | None:
    """The rule of an in-place, dunder in-place, foreach or copying form, from its base."""
    if op.startswith("_foreach_"):
        base = op.removeprefix("_foreach_").removesuffix("_")
        amount = FOREACH.get(base)
        return elementwise.foreach(amount) if amount is not None else None
    if op.startswith("__i") and op.endswith("__"):
        return RULES.get(f"__{op[3:]}")
    if op.endswith("_copy"):
        packet = getattr(torch.ops.aten, op.removesuffix("_copy"), None)
        if packet is not None and any(_is_view(getattr(packet, name)._schema) for name in packet.overloads()):
            return free
    return RULES.get(op.removesuffix("_"))


def _is_view(schema: Any) -> bool:
    """True where the result aliases an argument that is not written."""
    aliases = [argument.alias_info for argument in schema.arguments if argument.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases) and schema.returns[0].alias_info is not None


def moves_no_data(func: Any) -> bool:
    """Views and metadata: no new memory, no operations, no bytes."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return False
    space, _, op = str(schema.name).partition("::")
    if space == "aten" and (op in METADATA or op in MAYBE_COPIES):
        return op in METADATA
    return _is_view(schema)


def writes_nothing(func: Any) -> bool:
    """True of empty and its like: new memory, and no bytes moved into it."""
    schema = getattr(func, "_schema", None)
    space, _, op = str(getattr(schema, "name", "")).partition("::")
    return space == "aten" and op.removesuffix("_") in ALLOCATIONS


def register_cost(
    op: str | OpOverload | OpOverloadPacket,
    *,
    macs: Amount | None = None,
    flops: Amount | None = None,
    bytes: Amount | None = None,  # noqa: A002
) -> None:
    """Give an op of one's own (custom, Triton) a cost, or an op of the table another; the last registration counts.

    op: 'lib::name' for all overloads, 'lib::name.overload' for one, or the op itself. Each cost is a number or a function of
    (args, kwargs, out). `flops` is everything, 2 * macs included, and is 2 * macs where it is not given; without `bytes` the
    op counts as reading its inputs and writing its outputs once.
    """
    if macs is None and flops is None and bytes is None:
        raise UsageError(f"register_cost({_key(op)!r}): give macs, flops or bytes")
    global _version
    _version += 1
    _registered[_key(op)] = (_registered_rule(_key(op), macs, flops), bytes)


def unregister_cost(op: str | OpOverload | OpOverloadPacket) -> None:
    """Forget a registration; the table's rule, if it has one, counts again."""
    global _version
    _version += 1
    _registered.pop(_key(op), None)


def registry_version() -> int:
    """Grows with every change of the registrations: who keeps rules asks again when it has."""
    return _version


def bytes_for(func: Any) -> Callable[[Args, Kwargs, Any], int] | None:
    """The user's own count of bytes moved by this op, or None."""
    schema = getattr(func, "_schema", None)
    if schema is None or not _registered:
        return None
    name = str(schema.name)
    mine = _registered.get(f"{name}.{schema.overload_name or 'default'}") or _registered.get(name)
    amount = mine[1] if mine is not None else None
    if amount is None:
        return None
    return lambda args, kwargs, out: _value(amount, args, kwargs, out)


def _key(op: str | OpOverload | OpOverloadPacket) -> str:
    """'lib::name' or 'lib::name.overload'."""
    if isinstance(op, str):
        if "::" not in op:
            raise UsageError(f"no such op: {op!r}; write it as 'library::name' or 'library::name.overload'")
        return op
    if isinstance(op, OpOverload):
        return f"{op._schema.name}.{op._schema.overload_name or 'default'}"
    return str(op._qualified_op_name)


def _value(amount: Amount, args: Args, kwargs: Kwargs, out: Any) -> int:
    return amount(args, kwargs, out) if callable(amount) else amount


def _registered_rule(op: str, macs: Amount | None, flops: Amount | None) -> Rule:
    def rule(args: Args, kwargs: Kwargs, out: Any) -> Cost:
        products = _value(macs or 0, args, kwargs, out)
        total = 2 * products if flops is None else _value(flops, args, kwargs, out)
        if total < 2 * products:
            raise UsageError(f"cost of {op}: {total} flops are fewer than 2 * {products} macs; flops include them")
        return Cost(products, total)

    return rule
