"""What a module builds on first use, and layers whose sizes are not known before: such a pass is not like the next one."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from operator import is_
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.errors import UntraceableError

Kinds = list[tuple[torch.Size, torch.dtype]]
Held = list[tuple[nn.Module, tuple[dict[str, Any], ...], Kinds]]
_TORCHS_OWN = frozenset(nn.Module().__dict__)  # _parameters, _modules, the hooks ...
_FLAT = frozenset((NoneType, bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size))
_CLOSED = (nn.Module, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
_DEPTH = 5
_MOST_ITEMS = 1 << 12
_CONTAINERS: tuple[tuple[Any, Any], ...] = (
    (tuple, tuple.__iter__),
    (list, list.__iter__),
    (dict, dict.values),
    (set, set.__iter__),
    (deque, deque.__iter__),
)


def state_of(module: nn.Module, registered: bool = False) -> Held:
    """What every submodule holds now: parameters, buffers and, unless `registered`, the tensors in its other attributes."""
    return [(part, tuple(map(dict, _registered(part))), [] if registered else _kinds(part)) for part in module.modules()]


def has_grown(module: nn.Module, before: Held, registered: bool = False) -> bool:
    """Whether a submodule is there, or a tensor, that was not there in `before`.

    Parameters and buffers are told by name, shape and dtype, other tensors by how many of a shape and dtype there are.
    """
    if len(list(module.modules())) != len(before):
        return True
    for part, held, kinds in before:
        for was, now in zip(held, _registered(part), strict=True):
            if len(was) == len(now) and all(map(is_, was.values(), now.values())):
                continue
            if any(isinstance(value, Tensor) and not _alike(value, was.get(name)) for name, value in now.items()):
                return True
        if not registered and (found := _kinds(part)) != kinds and Counter(found) - Counter(kinds):
            return True
    return False


def tensors_held(module: nn.Module) -> Iterator[Tensor]:
    """The tensors that its submodules hold: buffers and what is in their attributes; parameters apart."""
    for part in module.modules():
        yield from (buffer for buffer in part._buffers.values() if buffer is not None)
        yield from _inside(part)


def refuse_lazy(module: nn.Module) -> None:
    """Raises UntraceableError, with its name, for a layer (`nn.LazyLinear`) that has not seen an input yet."""
    for path, part in module.named_modules():
        if any(map(torch.nn.parameter.is_lazy, (*part._parameters.values(), *part._buffers.values()))):
            told = f"{path or 'the module'} is a {type(part).__name__}, whose sizes are not known before a first pass on data"
            raise UntraceableError(f"{told}: give it its sizes, or run it once before `attnprof.profile(module, inputs)`.")


def _registered(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return part._parameters, part._buffers


def _kinds(part: nn.Module) -> Kinds:
    return [(tensor.shape, tensor.dtype) for tensor in _inside(part)] if _attributes(part) else []


def _attributes(part: nn.Module) -> list[Any]:
    """The values of the attributes that may hold a tensor."""
    return [value for name, value in part.__dict__.items() if type(value) not in _FLAT and name not in _TORCHS_OWN]


def _inside(part: nn.Module) -> Iterator[Tensor]:
    """The tensors in the attributes of one submodule, in containers and plain objects too; none of their own code is run."""
    level = [_attributes(part)]
    seen, left = set[int](), _MOST_ITEMS
    for _ in range(_DEPTH):
        below: list[list[Any]] = []
        for items in level:
            for item in items:
                kind = type(item)
                if kind in _FLAT:
                    continue
                if issubclass(kind, Tensor):
                    yield item
                elif (kind is tuple or kind is list) and _FLAT.issuperset(map(type, item)):  # sizes
                    continue
                elif not issubclass(kind, _CLOSED) and id(item) not in seen:
                    seen.add(id(item))
                    for more in _contents(item, kind):
                        left -= len(more)
                        if left >= 0:
                            below.append(more)
        level = below
        if not level:
            return


def _contents(item: Any, kind: type) -> list[list[Any]]:
    """What a container holds, and what an object has as attributes."""
    found = []
    for sort, values in _CONTAINERS:
        if issubclass(kind, sort):
            if sort.__len__(item) <= _MOST_ITEMS:
                found.append(list(values(item)))
            if kind is sort:
                return found
            break
    slot = next((base.__dict__["__dict__"] for base in kind.__mro__ if "__dict__" in base.__dict__), None)
    if isinstance(slot, (GetSetDescriptorType, MemberDescriptorType)):  # not a property, as proxies have
        found.append(list(dict.values(slot.__get__(item))))
    return found


def _alike(tensor: Tensor, other: Any) -> bool:
    return isinstance(other, Tensor) and tensor.shape == other.shape and tensor.dtype == other.dtype
