"""Cost formulas by kind of op, functions of shapes alone. Which op uses which, and the convention: `counting/flops.py`.

A rule takes an op's arguments, keyword arguments and result and gives its `Cost`. The dispatcher hands positional arguments
positionally and drops trailing defaults, so rules read them by position through `argument`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Cost(NamedTuple):
    """What one call of an op computes: multiply-accumulates, and all operations (2 * macs + the rest)."""

    macs: int
    flops: int


Rule = Callable[[Args, Kwargs, Any], Cost]

NOTHING = Cost(0, 0)


def free(_args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Views, moving data, filling: no arithmetic."""
    return NOTHING


def first(out: Any) -> Any:
    """The only or the first tensor of a result."""
    return out[0] if isinstance(out, (tuple, list)) else out


def argument(args: Args, index: int, default: Any) -> Any:
    """A positional argument; the dispatcher drops trailing defaults."""
    return args[index] if len(args) > index else default
