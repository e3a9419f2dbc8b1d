"""What autograd keeps of a pass, told from what only outputs or the module hold, by references to tensors and storages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor


def only_outputs_bytes(outputs: Sequence[Tensor], counts: Callable[[Tensor], bool]) -> int:
    """Bytes of the storages that nothing but outputs holds: no node of the graph has saved one, or what it is a view of.

    An output is what Python alone holds: what the module returns, and what it keeps on itself.

    `counts` says of a tensor whether its storage is among those that are summed up (it is no parameter, buffer or input).
    """
    of_storage: dict[int, dict[int, Tensor]] = {}
    for output in outputs:
        of_storage.setdefault(output.untyped_storage()._cdata, {})[id(output)] = output
    return sum(_first(held).untyped_storage().nbytes() for held in of_storage.values() if counts(_first(held)) and _alone(held))


def prepare() -> None:
    """To be called outside of a tracer, once per process at least: what references there are is found by three ops."""
    _uses()


def _alone(held: dict[int, Tensor]) -> bool:
    """Whether these outputs, which share a storage, are all that holds it. A view holds the tensor that it is a view of."""
    of_storage, of_tensor, of_base, per_view = _uses()
    views = [tensor._base for tensor in held.values() if tensor._base is not None]
    bases = {id(base): base for base in views}
    storage = _first(held).untyped_storage()._cdata
    if torch._C._storage_Use_Count(storage) > of_storage + len(held | bases) - 1:
        return False
    if any(_references(tensor) > of_tensor for key, tensor in held.items() if key not in bases):
        return False
    return all(_references(base) <= of_base + per_view * sum(view is base for view in views) for base in bases.values())


def _first(held: dict[int, Tensor]) -> Tensor:
    return next(iter(held.values()))


@cache
def _uses() -> tuple[int, int, int, int]:
    """References to a storage and to a tensor that only Python holds, to the base of views but for theirs, of a view to it."""
    with torch.enable_grad():
        base = torch.empty(2, requires_grad=True) * 1
        storage, alone = torch._C._storage_Use_Count(base.untyped_storage()._cdata), _references(base)
        first = base.view(2)
        one = _references(base)
        second = base.view(2)
        per_view = _references(base) - one
    del first, second
    return storage, alone, one - per_view, per_view


def _references(tensor: Tensor) -> int:
    count: int = tensor._use_count()  # type: ignore[attr-defined]
    return count
