"""Inputs of a module at a multiple of their size: which axes are N, H, W, B and T is told by the number of axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attnprof.records import TensorSpec

AXES: Mapping[int, Mapping[str, tuple[int, ...]]] = {  # rank of an input: {variable: its axes}
    2: {"B": (0,), "N": (1,)},
    3: {"B": (0,), "N": (1,)},
    4: {"B": (0,), "H": (2,), "W": (3,), "N": (2, 3)},
    5: {"B": (0,), "T": (1,), "H": (3,), "W": (4,), "N": (3, 4)},
}


def larger(value: Any, variable: str, multiple: int, rank: int) -> Any:
    """An input at a multiple: a tensor without data, or a description of one; what holds tensors, with them larger."""
    from torch import Tensor

    from attnprof.profiling.instantiate import rebuilt

    if isinstance(value, TensorSpec):
        return replace(value, shape=scaled(value.shape, variable, multiple, rank))
    if isinstance(value, Tensor):
        return value.new_empty(scaled(tuple(value.shape), variable, multiple, rank), device="meta")
    return rebuilt(value, lambda item: larger(item, variable, multiple, rank))


def scaled(sizes: tuple[int, ...], variable: str, multiple: int, rank: int) -> tuple[int, ...]:
    """Sizes of an input at a multiple. rank: of the first input; beside a map tokens grow as its N, vectors do not."""
    axes = AXES.get(len(sizes), {}).get(variable, ())
    beside_a_map = variable == "N" and len(sizes) < 4 <= rank
    if beside_a_map and len(sizes) == 2:
        return sizes
    factor = multiple**2 if beside_a_map else multiple
    return tuple(size * factor if axis in axes else size for axis, size in enumerate(sizes))
