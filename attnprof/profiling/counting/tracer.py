"""The counter: a dispatch mode that sees every ATen op of a pass, costs it and books its storages.

Each op is costed by the table in `flops`, its outputs are booked in a `memory.Ledger`, and both are charged to the submodule
that called it: forward ops by the stack of running modules, backward ops by the sequence number that autograd gave the forward
node. Gradients are accumulated as eager does it (in place where nobody else holds the buffer): under a dispatch mode torch
would accumulate out of place and read up to 25 % too high. On meta tensors outputs are made by `outputs`, or by torch's own
meta kernels; with `real` the ops run.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attnprof.profiling.counting import flops, memory, outputs, temporaries

aten = torch.ops.aten
_ADD = aten.add.Tensor
_LISTED = {aten.index_put.default}  # its indices come as a list, which makes torch hold the tensor once more
_IN_PLACE_FORMS = {
    _ADD: aten.add_.Tensor,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter.value: aten.scatter_.value,
    aten.scatter_add.default: aten.scatter_add_.default,
    aten.index_add.default: aten.index_add_.default,
    aten.index_put.default: aten.index_put_.default,
}
_ADDING_NODES = {  # their own formulas add, out of place: found by comparing with the allocator
    "VarMean", "StdMean", "Logcumsumexp", "LinalgQr", "LinalgCholeskyEx", "Cholesky", "LinalgSvd", "LinalgPinv", "LinalgLstsq",
    "LinalgLu", "LinalgLuFactorEx", "LinalgLuSolve", "LuUnpack", "TriangularSolve", "Atan2", "Aminmax", "SpecialI1E",
    "NativeGroupNorm",
}  # fmt: skip
_SMALL_CONSTANT = 1 << 20


class _Entry:
    """What the tracer needs to know of an overload, looked up once."""

    __slots__ = (
        "allocates",
        "bytes",
        "creates",
        "factory",
        "in_place",
        "in_place_form",
        "maker",
        "name",
        "out",
        "passing",
        "rule",
        "scratch",
        "tensors",
        "view",
        "whole",
    )

    def __init__(self, func: Any) -> None:
        self.name = func._schema.name.removeprefix("aten::")
        self.passing = _PASSING.get(self.name)
        self.rule = flops.rule_for(func)
        self.view = flops.moves_no_data(func)
        self.in_place = outputs.returns_self(func)
        self.in_place_form = _IN_PLACE_FORMS.get(func)
        self.out = outputs.writes_out(func)
        self.maker = outputs.maker_of(func)
        self.factory = _is_factory(func)
        self.bytes = flops.bytes_for(func)
        self.creates = self.name.startswith("new_") or self.name.endswith("_like")
        self.allocates = flops.writes_nothing(func)
        self.tensors = any("Tensor" in str(value.type) for value in func._schema.returns)
        self.whole = self.rule is None and func.namespace == "aten" and _is_composite(func)
        self.scratch = temporaries.size_for(self.name)


def _of_safe_softmax(args: tuple[Any, ...], out: Tensor) -> tuple[int, ...]:
    """Where the input is -inf, which rows are so throughout, the zero that they become (native/SoftMax.cpp)."""
    if not out.dim():
        return out.numel(), 1, out.element_size()
    return out.numel(), out.numel() // max(out.shape[args[1]], 1), out.element_size()


# Ops made of others below autograd, whose inner tensors no mode sees: the bytes of those, as (args, out) say.
_PASSING: dict[str, Callable[[tuple[Any, ...], Any], tuple[int, ...]]] = {"_safe_softmax": _of_safe_softmax}
_ENTRIES: dict[Any, _Entry] = {}
_registry = 0


def _forget_old_entries() -> None:
    """What was looked up before the user registered a cost is looked up again."""
    global _registry
    if _registry != flops.registry_version():
        _registry = flops.registry_version()
        _ENTRIES.clear()


class Tracer(TorchDispatchMode):
    """The counter. `real` runs the ops on data; otherwise outputs are made on meta."""

    def __init__(self, *, real: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _forget_old_entries()
        self.real = real
        self.counting = False
        self.phase = "forward"
        self.module = ""
        self.ledger = memory.Ledger()
        self.costs: dict[tuple[str, str, str], list[int]] = {}
        self.uncounted: dict[str, int] = {}
        self.assumed: dict[str, int] = {}
        self.math: dict[str, int] = {}  # calls of SDPA that took the math path: {what and why: how many}
        self.sequence: dict[int, str] = {}
        self.sole_owner: tuple[int, ...] | None = None
        self.calibrating = False
        self.written: dict[int, Any] = {}  # constants that data was written into: {storage: what keeps the entry true}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Private to torch: True would import torch._dynamo (1.7 s) at the first op. tests/profiling/test_trace.py holds it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        entry = _ENTRIES.get(func)
        if entry is None:
            entry = _ENTRIES[func] = _Entry(func)
        if entry.view:
            return func(*args, **kwargs)
        if self.phase == "backward" and entry.in_place_form is not None and self._in_place_in_eager(func, args):
            if self.real:
                entry.in_place_form(*args, **kwargs)
            out = args[0]
        elif self.real:
            if entry.whole:  # below autograd (inference_mode, FlexAttention) torch hands composite ops over whole
                with self:
                    return func.decompose(*args, **kwargs)
            out = func(*args, **kwargs)
        else:
            out = self._make(entry, func, args, kwargs)
            if out is _DECOMPOSED:
                return kwargs["_out"]
        if self.counting:
            self._count(entry, args, kwargs, out)
        return out

    def _make(self, entry: _Entry, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output on meta: in place, by a maker of ours, or by torch's meta kernel."""
        out = NotImplemented
        if entry.in_place:
            out = outputs.in_place(entry.maker, args, kwargs)
        elif entry.out:
            out = kwargs["out"] if not kwargs["out"].is_meta else outputs.into(entry.maker, args, kwargs)
        elif entry.factory and self.counting and _constant(args, kwargs):
            out = func(*args, **kwargs)
        elif entry.maker is not None and (not args or not isinstance(args[0], Tensor) or args[0].is_meta):
            out = entry.maker(args, kwargs)
        if out is NotImplemented:
            return self._fall_back(func, args, kwargs)
        if (entry.in_place or entry.out) and not out.is_meta:
            if not any(self._unknown(t) for t in tensors_of((args, kwargs))):
                return func(*args, **kwargs)
            self._forget_values(out)
        return out

    def _unknown(self, tensor: Tensor) -> bool:
        """True for a tensor whose values a trace does not have: on meta, or a constant that such values were written into."""
        return tensor.is_meta or tensor.untyped_storage()._cdata in self.written

    def _forget_values(self, constant: Tensor) -> None:
        storage = constant.untyped_storage()
        address = storage._cdata
        if address not in self.written:
            self.written[address] = weakref.ref(storage, lambda _: self.written.pop(address, None))

    def _fall_back(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Torch's own kernel: on constants for real, with constants moved to meta beside tensors without data."""
        found = list(tensors_of((args, kwargs)))
        if found and not any(self._unknown(t) for t in found) and self.counting:
            return func(*args, **kwargs)
        if any(not t.is_meta for t in found):
            args, kwargs = to_meta(args), to_meta(kwargs)
        elif not found and "device" in _argument_names(func):
            kwargs = {**kwargs, "device": torch.device("meta")}
        name = func._schema.name.removeprefix("aten::")
        if name in DATA_OPS and (name != "index" or _has_mask(args[1])):
            self.assumed[name] = self.assumed.get(name, 0) + 1
            return DATA_OPS[name](args, kwargs)
        if _is_composite(func):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                kwargs["_out"] = out
                return _DECOMPOSED
        return func(*args, **kwargs)

    def _in_place_in_eager(self, func: Any, args: tuple[Any, ...]) -> bool:
        """Does eager write into the first argument here, where torch avoids that under a dispatch mode?

        The engine adds in place to a gradient buffer that only it holds (input_buffer.cpp); derivative formulas scatter in
        place into zeros that they have just made (FunctionsManual.cpp, areAnyTensorSubclassLike).
        """
        if func is not _ADD:
            holders = (args[0]._use_count(), torch._C._storage_Use_Count(args[0].untyped_storage()._cdata))
            known = (self.sole_owner or (0, 0))[:2]
            return holders == known or (func in _LISTED and holders == (known[0] + 1, known[1]))
        return self._accumulates(args)

    def _accumulates(self, args: tuple[Any, ...]) -> bool:
        """Is this the engine adding to a gradient buffer that only it holds?"""
        if len(args) < 2:
            return False
        old, new = args[0], args[1]
        if not isinstance(new, Tensor) or old.shape != new.shape:
            return False
        signature = (
            old._use_count(),
            torch._C._storage_Use_Count(old.untyped_storage()._cdata),
            sys.getrefcount(old),
            old.storage_offset(),
        )
        if self.calibrating:
            self.sole_owner = signature
            return False
        if signature != self.sole_owner or not outputs.is_dense(old.shape, old.stride()):
            return False
        node = torch._C._current_autograd_node()
        return node is None or node.name().removesuffix("Backward0") not in _ADDING_NODES

    def _count(self, entry: _Entry, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        module = self._where()
        moved = 0
        for arg in () if entry.creates else args:
            if isinstance(arg, Tensor):
                moved += arg.numel() * arg.element_size()
            elif isinstance(arg, (list, tuple)):
                for item in arg:
                    if isinstance(item, Tensor):
                        moved += item.numel() * item.element_size()
        for tensor in (out,) if isinstance(out, Tensor) else tensors_of(out):
            moved += tensor.numel() * tensor.element_size()
            self.ledger.book(tensor, entry.name, module, self.phase)
        if entry.allocates:
            moved = 0
        elif entry.bytes is not None:
            moved = entry.bytes(args, kwargs, out)
        if entry.passing is not None:
            self.ledger.passing(out, [size for size in entry.passing(args, out) if size], entry.name, module, self.phase)
        if entry.scratch is not None:
            sizes = entry.scratch(args, out)
            for size in (sizes,) if isinstance(sizes, int) else sizes:
                if size:
                    self.ledger.temporary(size)
        macs = work = 0
        if entry.rule is not None:
            macs, work = entry.rule(args, kwargs, out)
        elif entry.tensors:
            self.uncounted[entry.name] = self.uncounted.get(entry.name, 0) + 1
        key = (entry.name, module, self.phase)
        row = self.costs.get(key)
        if row is None:
            self.costs[key] = [1, macs, work, moved]
        else:
            row[0] += 1
            row[1] += macs
            row[2] += work
            row[3] += moved

    def on_math(self, call: str) -> None:
        """Book a call of SDPA that takes the math path."""
        if self.counting and self.phase == "forward":
            place = f"in {self.module}: " if self.module else ""
            self.math[place + call] = self.math.get(place + call, 0) + 1

    def _where(self) -> str:
        """The submodule to charge: the running one, or the one whose forward made the running backward node.

        A forward that runs again in the backward pass is the running one's too.
        """
        if self.phase == "forward":
            self.sequence.setdefault(torch._C._autograd._get_sequence_nr() - 1, self.module)
            return self.module
        if self.module and torch.is_grad_enabled():  # a forward that runs again in the backward pass (checkpointing)
            self.sequence.setdefault(torch._C._autograd._get_sequence_nr() - 1, self.module)
            return self.module
        node = torch._C._current_autograd_node()
        return "" if node is None else self.sequence.get(node._sequence_nr(), "")


_DECOMPOSED = object()


def _is_factory(func: Any) -> bool:
    """True for empty, zeros, arange ...: a device among the arguments, and no tensor."""
    names = {argument.name for argument in func._schema.arguments}
    return "device" in names and not any("Tensor" in str(argument.type) for argument in func._schema.arguments)


def _is_composite(func: Any) -> bool:
    """True for an op that is made of others, for autograd too."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _constant(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """A small tensor that the module's forward creates on the CPU: kept real, so that its values are known."""
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == "meta":
        return False
    numel = 1
    for extent in args[0] if args and isinstance(args[0], (list, tuple)) else ():
        numel *= extent
    return numel <= _SMALL_CONSTANT


def _argument_names(func: Any) -> set[str]:
    return {argument.name for argument in func._schema.arguments}


def tensors_of(tree: Any) -> Iterable[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_of(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_of(item)
    elif hasattr(tree, "__dataclass_fields__"):
        for name in tree.__dataclass_fields__:
            yield from tensors_of(getattr(tree, name))


def to_meta(tree: Any) -> Any:
    """Every tensor in nested lists, tuples and dicts replaced by a meta tensor of its size and strides."""
    if isinstance(tree, Tensor):
        return tree if tree.is_meta else torch.empty_strided(tree.shape, tree.stride(), dtype=tree.dtype, device="meta")
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_meta(item) for item in tree)
    if isinstance(tree, dict):
        return {name: to_meta(item) for name, item in tree.items()}
    return tree


def _assume_scalar(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dtype = args[0].dtype
    return 1.0 if dtype.is_floating_point else True if dtype is torch.bool else 1


def _assume_all_nonzero(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return outputs.layout.empty((args[0].numel(), args[0].dim()), torch.int64, (1, max(args[0].numel(), 1)))


def _assume_all_selected(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return outputs.layout.empty((args[0].numel(),), args[0].dtype)


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _assume_all_masked_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x[mask]: every element of a mask selects."""
    indices: list[Tensor | None] = []
    for index in args[1]:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            indices += [outputs.layout.empty((index.numel(),), torch.int64) for _ in range(index.dim())]
        else:
            indices.append(index)
    return aten.index.Tensor(args[0], indices)


DATA_OPS: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], Any]] = {
    "_local_scalar_dense": _assume_scalar,
    "nonzero": _assume_all_nonzero,
    "index": _assume_all_masked_in,
    "masked_select": _assume_all_selected,
}
