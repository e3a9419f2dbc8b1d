"""What the sweeps share: every mechanism, its declared variants, and modules filled away from their initial values."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnprof import mechanisms
from attnprof.profiling import instantiate
from attnprof.records import Mechanism, Shape

NAMES = [f"{family}/{name}" for family, members in mechanisms.names().items() for name in members]
_TWICE = [name for name in NAMES if [other.split("/")[1] for other in NAMES].count(name.split("/")[1]) > 1]
assert not _TWICE, f"a name stands in one family only, because specs and references use it alone: {', '.join(_TWICE)}"


def reference_of(name: str) -> Any:
    """The module tests/references/<name>.py; None where it is missing, which `equals_reference` reports."""
    wanted = f"tests.references.{name.split('/')[1]}"
    return importlib.import_module(wanted) if importlib.util.find_spec(wanted) else None


def variants(name: str) -> list[dict[str, Any]]:
    """Argument sets to test: the defaults, and what the reference declares as VARIANTS."""
    return [{}, *getattr(reference_of(name), "VARIANTS", ())]


def exemptions() -> list[tuple[str, str, str]]:
    """(mechanism, check, reason) of every exemption that a mechanism's file declares."""
    return [(name, check, reason) for name in NAMES for check, reason in mechanisms.load(name).exempt.items()]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread, its random state put back: kernels take scratch for every thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with instantiate.random_state_kept():
            yield
    finally:
        torch.set_num_threads(threads)


def small_shape(name: str, batch: int = 2) -> Shape:
    """A small, odd, non-square shape; the reference may declare another as SHAPE = (C, H, W) or, with frames, (C, H, W, T)."""
    channels, height, width, *frames = getattr(reference_of(name), "SHAPE", (32, 5, 7))
    layout = mechanisms.load(name).layout
    assert frames or not layout.startswith("BT"), f"{name} takes {layout}: its reference needs SHAPE = (C, H, W, T), T > 1"
    return Shape(batch, channels, height, width, *frames)


def shape_like(name: str, batch: int, channels: int, height: int, width: int) -> Shape:
    """Another size, with the frames of `small_shape`."""
    return Shape(batch, channels, height, width, small_shape(name).frames)


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter and running statistic away from its initial value, in place: many blocks start as the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            if name.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise.abs())
            elif name.endswith("running_mean"):
                tensor.copy_(0.3 * noise)
            elif isinstance(tensor, nn.Parameter):
                fan_in = max(tensor[0].numel(), 1) if tensor.dim() > 1 else 4
                scale = 1.0 / fan_in**0.5
                tensor.copy_(scale * noise + (1.0 if name.endswith("weight") and tensor.dim() == 1 else 0.0))
    return module


def make(mechanism: Mechanism, shape: Shape, args: dict[str, Any], dtype: torch.dtype = torch.float64) -> nn.Module:
    """A filled module in `dtype`."""
    torch.default_generator.manual_seed(0)
    module: nn.Module = mechanisms.build(mechanism, shape, args)
    return fill(module.to(dtype))


def make_inputs(mechanism: Mechanism, shape: Shape, args: dict[str, Any], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Seeded inputs with the values that the mechanism asks for, gradients wanted."""
    generator = torch.Generator().manual_seed(1)
    specs = mechanisms.input_specs(mechanism, shape, args)
    inputs = [instantiate.real_input(spec, dtype, generator) for spec in specs]
    return [tensor.requires_grad_() if tensor.is_floating_point() else tensor for tensor in inputs]


def flatten(outputs: Any) -> list[Tensor]:
    """Every tensor of a nested output, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [tensor for value in values for tensor in flatten(value)]
