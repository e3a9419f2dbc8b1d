"""Modules for tracing: built without data, or a user's own module put on meta for the length of a trace and put back.

`on_meta` swaps every parameter, buffer and tensor attribute for a meta tensor of the same size and restores each module's
attributes afterwards, so that whatever the forward assigned, updated or accumulated is gone: no hooks, buffers, grads or modes
are left behind, and the random states of torch, numpy and Python are put back.
"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnprof import mechanisms
from attnprof.errors import AttnprofError
from attnprof.profiling.holders import contents_kept
from attnprof.records import Case, Mechanism, TensorSpec

_TORCHS_OWN = frozenset(nn.Module().__dict__)  # _parameters, _modules, the hooks ...
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")}


def build_on_meta(mechanism: Mechanism, case: Case, mode: Any) -> nn.Module:
    """The case's module without data; built under `mode` (a Tracer that does not count). Falls back to real memory."""
    try:
        with mode:
            module: nn.Module = mechanisms.build(mechanism, case.shape, case.args)
    except AttnprofError:
        raise
    except Exception:  # noqa: BLE001  what the build needs data for, it gets
        module = mechanisms.build(mechanism, case.shape, case.args)
    if not isinstance(module, nn.Module):
        raise AttnprofError(f"{case.mechanism} builds a {type(module).__name__}, not a torch.nn.Module.")
    dtype = DTYPES[case.dtype]
    if dtype is not torch.float32:
        with mode:
            module = module.to(dtype=dtype)
    if case.settings.get("memory_format") == "channels_last":
        with mode:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.train(case.mode == "training")


def meta_input(spec: TensorSpec, dtype: torch.dtype, requires_grad: bool, channels_last: bool = False) -> Tensor:
    """An input without data."""
    kind = DTYPES[spec.dtype] if spec.dtype else dtype
    memory_format = torch.channels_last if channels_last and len(spec.shape) == 4 else torch.contiguous_format
    tensor = torch.empty(spec.shape, dtype=kind, device="meta", memory_format=memory_format)
    return tensor.requires_grad_(requires_grad and (kind.is_floating_point or kind.is_complex))


def real_input(spec: TensorSpec, dtype: torch.dtype, generator: torch.Generator | None = None) -> Tensor:
    """An input with the values that its spec asks for, drawn in float32 on the CPU: the same on every device."""
    kind = DTYPES[spec.dtype] if spec.dtype else dtype
    if not (kind.is_floating_point or kind.is_complex):
        return torch.randint(0, 2, spec.shape, generator=generator).to(kind)
    draw = torch.rand if spec.values == "uniform" else torch.randn
    return draw(spec.shape, generator=generator).to(kind)


def differentiable(tensor: Tensor) -> bool:
    """Floating or complex: what autograd gives gradients to."""
    return tensor.is_floating_point() or tensor.is_complex()


def rebuilt(value: Any, change: Callable[[Any], Any]) -> Any:
    """A list, tuple, named tuple or dict of any kind with its items changed; anything else as it is."""
    if isinstance(value, tuple):
        items = [change(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, list):
        return [change(item) for item in value]
    if isinstance(value, dict):
        out = copy.copy(value)  # an OrderedDict or defaultdict stays one
        for name, item in value.items():
            out[name] = change(item)
        return out
    return value


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random states of torch's CPU generator, of numpy (where loaded) and of Python."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy = sys.modules.get("numpy.random")  # not imported for this
    numpy_state = numpy.get_state() if numpy is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        if numpy is not None:
            numpy.set_state(numpy_state)


@contextmanager
def random_state_seeded() -> Iterator[None]:
    """Draw from fixed seeds, so that what depends on draws is the same every time; the states are put back afterwards."""
    with random_state_kept():
        torch.default_generator.manual_seed(0)
        random.seed(0)
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed(0)
        yield


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Put back every submodule's attributes afterwards, for a module whose tensors need no swapping (all on meta already)."""
    saved = [
        (held, dict(held))
        for part in module.modules()
        for held in (part.__dict__, part._buffers, part._parameters, part._modules)
    ]
    try:
        with contents_kept(module):
            yield
    finally:
        for held, before in saved:
            held.clear()
            held.update(before)


def without_data(module: nn.Module) -> bool:
    """True where every parameter, buffer and tensor attribute is on meta."""
    return all(
        tensor.is_meta
        for part in _parts(module)
        for tensor in (*part._parameters.values(), *part._buffers.values(), *part.__dict__.values())
        if isinstance(tensor, Tensor)
    )


@contextmanager
def swapped(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Every parameter, buffer and tensor attribute replaced (shared ones once); all attributes put back afterwards."""
    saved = [(part, dict(part.__dict__)) for part in _parts(module)]
    memo: dict[int, Tensor] = {}

    def swap(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in memo:
                memo[id(value)] = _same_kind(value, replace(value))
            return memo[id(value)]
        return rebuilt(value, swap)

    compiled: list[tuple[Any, str, Tensor]] = [
        (part._c, name, tensor) for part in _parts(module) for name, tensor in _script_tensors(part)
    ]
    try:
        for inside, name, tensor in compiled:
            inside.setattr(name, swap(tensor))
        for part, attributes in saved:
            for name, value in attributes.items():
                if isinstance(part, torch.jit.ScriptModule) and name in ("_modules", "_parameters", "_buffers"):
                    continue  # views of what is compiled
                if name == "_modules":
                    part.__dict__[name] = dict(value)
                elif name in ("_parameters", "_buffers"):
                    part.__dict__[name] = {key: swap(tensor) for key, tensor in value.items()}
                elif isinstance(value, (Tensor, list, tuple, dict)) and not name.startswith("_forward") and "hooks" not in name:
                    part.__dict__[name] = swap(value)
        with contents_kept(module):
            yield
    finally:
        for inside, name, tensor in compiled:
            inside.setattr(name, tensor)
        for part, attributes in saved:
            part.__dict__.clear()
            part.__dict__.update(attributes)


def _script_tensors(part: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of a scripted submodule: its code reads them from where Python's attributes do not reach."""
    if not isinstance(part, torch.jit.ScriptModule) or not hasattr(part, "_c"):
        return []
    held = (*part._parameters.items(), *part._buffers.items())
    return [(name, tensor) for name, tensor in held if isinstance(tensor, Tensor)]


def _parts(module: nn.Module) -> list[nn.Module]:
    """Every submodule, those in plain lists, tuples and dicts included, which torch does not know of."""
    found: dict[int, nn.Module] = {}

    def look(value: Any) -> None:
        if isinstance(value, nn.Module):
            for part in value.modules():
                if id(part) not in found:
                    found[id(part)] = part
                    for name, attribute in part.__dict__.items():
                        if name not in _TORCHS_OWN and isinstance(attribute, (list, tuple, dict)):
                            look(attribute)
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            for item in value.values():
                look(item)

    look(module)
    return list(found.values())


def _same_kind(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new.requires_grad_(old.requires_grad) if new.is_leaf and old.is_leaf else new


def to_meta(tensor: Tensor) -> Tensor:
    """A meta tensor of the same size, strides and dtype."""
    if tensor.is_meta:
        return tensor.detach()
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def private_copy(tensor: Tensor) -> Tensor:
    """For a real run: the same values in tensors that the run may change without touching the user's."""
    return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def names_of(module: nn.Module) -> dict[int, str]:
    """{id(submodule): dotted path}; a module reached twice keeps its first name."""
    return {id(part): name for name, part in module.named_modules()}


def materialise(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Real inputs for meta ones: seeded normal values (ones where the dtype has no others)."""
    generator = torch.Generator().manual_seed(0)

    def real(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_meta:
            filled = torch.randn(value.shape, generator=generator).to(value.dtype)
            return filled.requires_grad_(value.requires_grad)
        return rebuilt(value, real)

    return tuple(real(value) for value in inputs)
