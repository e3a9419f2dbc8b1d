"""FlexAttention while a trace runs: counted as eager runs it, without data.

`torch.nn.attention.flex_attention.flex_attention` refuses meta tensors, refuses backward on the CPU, and sends its one higher-
order op through torch.compile. Within `followed` it takes both and calls the op, whose dense form (torch/_higher_order_ops/
flex_attention.py) runs under the tracer: the scores of every pair, the modification, softmax, the weighted sum; in backward the
scores again and four products. A block mask hides pairs and skips none, as in eager; a compiled kernel skips blocks that are
empty, which depends on data and is not counted: `MASKED` in Counts.assumed says so. A function that torch.compile has wrapped
runs in eager meanwhile.

Nothing happens where FlexAttention is not imported: importing it takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_API = "torch.nn.attention.flex_attention"
_OPS = "torch._higher_order_ops.flex_attention"
MASKED = "flex_attention with a block mask: every pair counted, a compiled kernel skips empty blocks"
_NO_BLOCKS = 1 << 29
_taught: set[type] = set()


def is_loaded() -> bool:
    """Whether FlexAttention is imported."""
    return _API in sys.modules


@contextmanager
def followed(mode: type[TorchDispatchMode]) -> Iterator[None]:
    """Within: FlexAttention runs under `mode` on tensors of any device. Torch's own functions are put back afterwards."""
    if not is_loaded():
        yield
        return
    ops = sys.modules[_OPS]  # its name in its package is that of the op
    _teach(mode, ops)
    api, graphs = sys.modules[_API], ops.create_fw_bw_graph

    def graph_apart(*args: Any) -> Any:
        with _disable_current_modes():  # tracing the modification's derivative is no part of the pass
            return graphs(*args)

    changes: tuple[tuple[Any, str, Any], ...] = (
        (api, "_validate_device", lambda query, key, value: None),
        (api, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True),
        (ops, "create_fw_bw_graph", graph_apart),
    )
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for place, name, value in changes:
                setattr(place, name, value)
            yield
        finally:
            for place, name, value in before:
                setattr(place, name, value)


def _skips_blocks(args: tuple[Any, ...]) -> bool:
    """Whether a call has a block mask of the caller's: the one that stands for none has a single block of 2^30."""
    masks = (item for item in args if isinstance(item, tuple) and len(item) > 3)
    return any(all(not isinstance(x, int) or x < _NO_BLOCKS for x in mask) for mask in masks)


def _teach(mode: type[TorchDispatchMode], ops: Any) -> None:
    """Register, once per class of mode, that the two ops run their dense form under it."""
    if mode in _taught:
        return
    _taught.add(mode)

    def forward(running: Any, *args: Any) -> Any:
        if _skips_blocks(args):
            running.assumed[MASKED] = running.assumed.get(MASKED, 0) + 1
        with running:
            return ops.sdpa_dense(*args)

    def backward(running: Any, *args: Any) -> Any:
        with running:
            return ops.sdpa_dense_backward(*args)

    ops.flex_attention.py_impl(mode)(forward)
    ops.flex_attention_backward.py_impl(mode)(backward)
