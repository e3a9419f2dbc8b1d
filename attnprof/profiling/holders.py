"""Lists, dicts, sets and plain objects that a module holds: what a pass puts into them is taken out again."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_TORCHS_OWN = frozenset(nn.Module().__dict__)
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_OPAQUE = (Tensor, nn.Module, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, torch.Generator)
_FLAT = frozenset((type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size))
_DEPTH = 5
_MOST_ITEMS = 1 << 12


@contextmanager
def contents_kept(module: nn.Module) -> Iterator[None]:
    """Put back, item by item, what these hold, in attributes of submodules and nested; none of their own code is run.

    Lists, dicts, sets and deques themselves, no classes made from them; of other objects the attributes. Not looked into are
    those below the fifth level, and more than 4,096 items of a submodule.
    """
    saved = [(holder, list(holder.items() if isinstance(holder, dict) else holder)) for holder in _holders(module)]
    try:
        yield
    finally:
        for holder, before in saved:
            _put_back(holder, before)


def _put_back(holder: Any, before: list[Any]) -> None:
    if isinstance(holder, dict):
        now = list(holder.items())
        if len(now) != len(before) or any(a is not c or b is not d for (a, b), (c, d) in zip(now, before, strict=True)):
            holder.clear()
            dict.update(holder, before) if type(holder) is Counter else holder.update(before)
    elif len(holder) != len(before) or any(a is not b for a, b in zip(holder, before, strict=True)):
        holder.clear()
        holder.update(before) if isinstance(holder, set) else holder.extend(before)


def _holders(module: nn.Module) -> Iterator[Any]:
    seen = set[int]()
    for part in module.modules():
        level = [value for name, value in part.__dict__.items() if type(value) not in _FLAT and name not in _TORCHS_OWN]
        left = _MOST_ITEMS
        for _ in range(_DEPTH):
            below: list[Any] = []
            for item in level:
                if type(item) in _FLAT or issubclass(type(item), _OPAQUE) or id(item) in seen:
                    continue
                seen.add(id(item))
                holder = item if type(item) in (list, set, deque, tuple, *_DICTS) else _attributes(item)
                if holder is None or len(holder) > left:
                    continue
                left -= len(holder)
                if type(holder) is not tuple:
                    yield holder
                below += holder.values() if isinstance(holder, dict) else holder
            level = below


def _attributes(item: Any) -> dict[str, Any] | None:
    """The `__dict__` of a plain object, where it is not a property, as proxies have."""
    slot = next((base.__dict__["__dict__"] for base in type(item).__mro__ if "__dict__" in base.__dict__), None)
    found = slot.__get__(item) if isinstance(slot, (GetSetDescriptorType, MemberDescriptorType)) else None
    return found if type(found) is dict else None
