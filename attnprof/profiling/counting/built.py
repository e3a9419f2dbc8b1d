"""What a module builds on first use, and layers whose sizes are not known before: such a pass is not like the next one."""

from __future__ import annotations

from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.errors import UntraceableError

Held = list[tuple[nn.Module, tuple[dict[str, Any], ...]]]


def state_of(module: nn.Module, registered: bool = False) -> Held:
    """What every submodule holds now: parameters, buffers and, unless `registered`, its other attributes."""
    return [(part, tuple(dict(held) for held in _holds(part, registered))) for part in module.modules()]


def has_grown(module: nn.Module, before: Held, registered: bool = False) -> bool:
    """Whether a submodule is there, or a tensor by its name, shape and dtype, that was not there in `before`."""
    if len(list(module.modules())) != len(before):
        return True
    for part, held in before:
        for was, now in zip(held, _holds(part, registered), strict=True):
            if len(was) == len(now) and all(map(is_, was.values(), now.values())):
                continue
            for name, value in now.items():
                if isinstance(value, Tensor) and not _alike(value, was.get(name)):
                    return True
    return False


def refuse_lazy(module: nn.Module) -> None:
    """Raises UntraceableError, with its name, for a layer (`nn.LazyLinear`) that has not seen an input yet."""
    for path, part in module.named_modules():
        if any(map(torch.nn.parameter.is_lazy, (*part._parameters.values(), *part._buffers.values()))):
            told = f"{path or 'the module'} is a {type(part).__name__}, whose sizes are not known before a first pass on data"
            raise UntraceableError(f"{told}: give it its sizes, or run it once before `attnprof.profile(module, inputs)`.")


def _holds(part: nn.Module, registered: bool) -> tuple[dict[str, Any], ...]:
    return (part._parameters, part._buffers) if registered else (part._parameters, part._buffers, part.__dict__)


def _alike(tensor: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and tensor.shape == other.shape and tensor.dtype == other.dtype
