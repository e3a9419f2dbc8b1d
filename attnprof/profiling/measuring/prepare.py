"""A case made ready to run: module, inputs and settings on their device, and the pass that timing and memory both execute.

inference = forward in eval mode without autograd. training = forward in train mode and backward from a dense gradient of each
output's shape, gradients for parameters and floating inputs. Everything a case's settings ask for is done here or refused
with UnsupportedError: never left out silently.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnprof import mechanisms
from attnprof.errors import AttnprofError
from attnprof.profiling import instantiate, loading
from attnprof.profiling.measuring import device as devices
from attnprof.records import Case, TensorSpec

_KNOWN: Mapping[str, tuple[Any, ...]] = {
    "sdpa": (None, "auto", "math", "fused"),
    "memory_format": (None, "contiguous", "channels_last"),
    "autocast": (None, "none", "bfloat16", "float16"),
    "compile": (None, False, True, "default", "reduce-overhead", "max-autotune"),
    "cache": (None, "cold", "warm"),
    "tf32": (None, False, True),
    "target": (None, "cuda", "cpu"),  # for the tracer: whose attention kernels are counted
}
_engine = torch.autograd.Variable._execution_engine
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)


class UnsupportedError(AttnprofError):
    """The case asks for what measuring cannot do here."""

    exit_code = 5


class InvalidOutputError(AttnprofError):
    """A pass returned nothing, or numbers that are not finite."""

    exit_code = 5


@dataclass(frozen=True)
class Prepared:
    """A module that is ready to run, with its inputs."""

    case: Case
    module: nn.Module
    inputs: tuple[Tensor, ...]
    objective: Any = None
    autocast: torch.dtype | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def training(self) -> bool:
        """Whether a pass has a backward."""
        return self.case.mode == "training"


def check_settings(case: Case) -> None:
    """Raise UnsupportedError for a setting that measuring does not know, or a device that this torch cannot use."""
    for name, value in case.settings.items():
        if name == "threads":
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UnsupportedError(f"threads={value!r}: measuring wants a whole number from 1")
        elif name not in _KNOWN:
            raise UnsupportedError(f"the setting '{name}' is not known to measuring")
        elif value not in _KNOWN[name]:
            raise UnsupportedError(f"{name}={value!r} is not supported: {', '.join(map(repr, _KNOWN[name][1:]))}")
    usable, reason = devices.usable(case.device)
    if not usable:
        raise UnsupportedError(reason)


def configure(case: Case) -> None:
    """Set every process-wide flag that a timing depends on, explicitly."""
    threads = int(case.settings.get("threads") or 1)
    torch.set_num_threads(threads)
    devices.pin_cores(threads)
    tf32 = bool(case.settings.get("tf32"))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    if case.device.startswith("cuda"):
        torch.cuda.set_device(case.device)


def prepare(case: Case, seed: int) -> Prepared:
    """Build the module of a case and its seeded inputs. Raises UnsupportedError, and whatever the user's module raises."""
    check_settings(case)
    configure(case)
    mechanism = loading.load(case)
    dtype = _dtype(case.dtype)
    torch.manual_seed((int(case.key, 16) + seed) % 2**63)
    module = mechanisms.build(mechanism, case.shape, case.args)
    module = module.to(device=case.device, dtype=dtype).train(case.mode == "training")
    inputs = tuple(_input(spec, case) for spec in mechanisms.input_specs(mechanism, case.shape, case.args))
    if case.settings.get("memory_format") == "channels_last":
        module, inputs = _channels_last(module, inputs)
    if case.mode == "training":
        inputs = tuple(tensor.requires_grad_() if tensor.is_floating_point() else tensor for tensor in inputs)
    compiled = case.settings.get("compile")
    if compiled:
        module = torch.compile(module, mode=None if compiled is True else compiled)
    autocast = case.settings.get("autocast") or "none"
    return Prepared(case, module, inputs, mechanism.objective, None if autocast == "none" else _dtype(autocast))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _input(spec: TensorSpec, case: Case) -> Tensor:
    return instantiate.real_input(spec, _dtype(case.dtype)).to(case.device)


def _channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    if not any(tensor.dim() == 4 for tensor in inputs):
        raise UnsupportedError("memory_format='channels_last' needs an input with four dimensions")
    layout = torch.channels_last
    inputs = tuple(tensor.contiguous(memory_format=layout) if tensor.dim() == 4 else tensor for tensor in inputs)
    return module.to(memory_format=layout), inputs  # type: ignore[call-overload]


@contextlib.contextmanager
def conditions(case: Case) -> Iterator[None]:
    """Autograd off for inference, attention kernels as settings and trace have them. Entered outside every timed window."""
    with contextlib.ExitStack() as stack:
        if case.mode != "training":
            stack.enter_context(torch.no_grad())
        fastpath = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention's opaque kernel: off in a trace too
        stack.callback(torch.backends.mha.set_fastpath_enabled, fastpath)
        wanted = case.settings.get("sdpa")
        if wanted in ("math", "fused"):
            stack.enter_context(sdpa_kernel([SDPBackend.MATH] if wanted == "math" else list(_FUSED)))
        yield


def forward(prepared: Prepared) -> Any:
    """The module on its inputs."""
    if prepared.autocast is None:
        return prepared.module(*prepared.inputs)
    with torch.autocast(prepared.inputs[0].device.type, prepared.autocast):
        return prepared.module(*prepared.inputs)


def dense_gradients(outputs: Any) -> list[tuple[Tensor, Tensor]]:
    """(output, gradient of its shape) for every output that autograd reaches; the gradients are new storage."""
    pairs = [(tensor, torch.ones_like(tensor)) for tensor in flatten(outputs) if tensor.requires_grad]
    if not pairs:
        raise UnsupportedError("training: no output depends on the inputs or parameters through autograd")
    return pairs


def backward(prepared: Prepared, outputs: Any, gradients: list[Tensor] | None = None) -> None:
    """From `gradients` (new dense ones when None), or from the mechanism's own objective where it has one."""
    if prepared.objective is not None:
        outputs, gradients = prepared.objective(outputs), None
    if gradients is None:
        pairs = dense_gradients(outputs)
        roots, gradients = [tensor for tensor, _ in pairs], [gradient for _, gradient in pairs]
    else:
        roots = [tensor for tensor in flatten(outputs) if tensor.requires_grad]
    # what torch.autograd.backward calls, without its checks of symbolic sizes: they import sympy (0.5 s per process)
    _engine.run_backward(tuple(roots), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True)


def reset(prepared: Prepared) -> None:
    """Drop every gradient."""
    for tensor in (*prepared.module.parameters(), *prepared.inputs):
        tensor.grad = None


def first_pass(prepared: Prepared) -> tuple[list[Tensor] | None, str]:
    """Run once and look at the outputs: (gradients for the passes to come, '' or why the output is invalid)."""
    began = time.perf_counter()
    outputs = forward(prepared)
    tensors = flatten(outputs)
    if not tensors:
        return None, "the module returned no tensor"
    invalid = not_finite(prepared, outputs)
    if invalid:
        return None, invalid
    gradients: list[Tensor] | None = None
    if prepared.training:
        if prepared.objective is None:
            gradients = [gradient for _, gradient in dense_gradients(outputs)]
        backward(prepared, outputs, gradients)
        invalid = not_finite(prepared, outputs)
    reset(prepared)
    if prepared.case.settings.get("compile"):
        prepared.facts["compile_s"] = time.perf_counter() - began
    return gradients, invalid


def not_finite(prepared: Prepared, outputs: Any) -> str:
    """What of a pass is not finite: an output, or the gradient of an input or a parameter; '' where all is well."""
    named = [(f"output {index}", tensor) for index, tensor in enumerate(flatten(outputs))]
    named += [
        (f"the gradient of input {index}", tensor.grad)
        for index, tensor in enumerate(prepared.inputs)
        if tensor.grad is not None
    ]
    named += [
        (f"the gradient of {name}", tensor.grad)
        for name, tensor in prepared.module.named_parameters()
        if tensor.grad is not None
    ]
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
            return f"{name} of shape {tuple(tensor.shape)} is not finite"
    return ""


def flatten(outputs: Any) -> list[Tensor]:
    """Every tensor of nested tuples, lists and mappings, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = outputs.values()
    elif not isinstance(outputs, (tuple, list)):
        return []
    return [tensor for item in outputs for tensor in flatten(item)]
