"""Which submodule runs: told to a counter by torch's global hooks, so that the module itself gets none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from attnprof.profiling import instantiate


class Counter(Protocol):
    """What is told: `module` is the dotted path of the running submodule, '' for the root."""

    module: str


@contextmanager
def told_to(counter: Counter, root: nn.Module) -> Iterator[None]:
    """Within: `counter.module` follows the submodules of `root` as they are entered and left, by an exception too."""
    names, stack = instantiate.names_of(root), list[str]()

    def enter(part: nn.Module, args: Any) -> None:
        stack.append(counter.module)
        counter.module = names.get(id(part), counter.module)

    def leave(part: nn.Module, args: Any, out: Any) -> None:
        counter.module = stack.pop()

    hooks = torch.nn.modules.module
    handles = [hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
