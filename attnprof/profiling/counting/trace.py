"""Count a module without running it.

    trace_case(case)                    -> Counts     a catalogue mechanism or an import path, built without data
    trace_module(module, inputs, ...)   -> Counts     a module that is there; it is left as it was found
    follow_case, follow_module          -> Traced     the same, with the lifetimes of every storage

One pass on meta tensors under the `Tracer`. What needs data (`.item()`, boolean masks, data-dependent sizes) is assumed first
and booked in `Counts.assumed`; then, where the assumed cost says that this machine can bear it, the module is run for real
under the same counter, on values and initial weights drawn from a fixed seed (`traced_by: real`; `assumed` still names the ops
whose result depends on them). Fake tensors answer none of these questions; they serve autocast, which has no
effect on meta tensors (`traced_by: fake`).

Inference: the forward pass without gradients. Training: forward, then backward from a dense gradient of the output's shape,
gradients for inputs and parameters accumulated into `.grad`; outputs, inputs and that gradient stay alive to the end.

A pass that makes parameters, buffers or other tensors of the module (layers built on first use, a bias for this size) is not
like those after it: the next one is counted, which finds them there, as a measured one does after its warm-up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attnprof import mechanisms
from attnprof.errors import AttnprofError, UntraceableError
from attnprof.profiling import instantiate, loading
from attnprof.profiling.counting import attention, autograd, built, flex, submodules
from attnprof.profiling.counting.lifetimes import Lifetimes
from attnprof.profiling.counting.tracer import DATA_OPS, Tracer, tensors_of
from attnprof.records import Case, Counts, Mechanism, OpCost, TensorSpec

_REAL_MACS_LIMIT = 2 * 10**12  # about a minute on one core
_REAL_MEMORY_SHARE = 0.5
_SMALL_INPUTS = 1 << 14  # elements; squared, a gibibyte
_META_LIMITS = ("meta", "data-dependent", "no storage", "cannot access storage", "unbacked", "no rule registered")
_engine = torch.autograd.Variable._execution_engine


@dataclass(frozen=True)
class Traced:
    """What a trace found: the counts, and the lifetimes that its peaks follow from."""

    counts: Counts
    lifetimes: Lifetimes


def trace_case(case: Case) -> Counts:
    """Counts of a case: see `follow_case`."""
    return follow_case(case).counts


def trace_module(module: nn.Module, inputs: Sequence[Any], mode: str = "inference", **options: Any) -> Counts:
    """Counts of one pass of `module` over `inputs`: see `follow_module`."""
    return follow_module(module, inputs, mode, **options).counts


def follow_case(
    case: Case,
    make_tracer: Callable[..., Tracer] = Tracer,
    change: Callable[[nn.Module], object] | None = None,
    *,
    mechanism: Mechanism | None = None,
    allow_real: bool = True,
) -> Traced:
    """Counts and lifetimes of a case. Raises UsageError for wrong arguments, UntraceableError where no way of counting works.

    The kernel target is `case.settings['target']` ('cuda' unless set); `case.settings['sdpa']` is auto, math or fused.
    `change` alters the module that was built before it is followed: for what-ifs (never run on data then).
    `mechanism` is the case's, where it is loaded already; without `allow_real` nothing is run on data.
    """
    if mechanism is None:
        mechanism = loading.load(case)
    with instantiate.random_state_seeded():
        module = instantiate.build_on_meta(mechanism, case, Tracer())
    if change is not None:
        change(module)
    specs = mechanisms.input_specs(mechanism, case.shape, case.args)
    return follow_module(
        module,
        specs,
        case.mode,
        dtype=case.dtype,
        target=case.settings.get("target", "cuda"),
        sdpa=case.settings.get("sdpa", "auto"),
        channels_last=case.settings.get("memory_format") == "channels_last",
        autocast=case.settings.get("autocast"),
        objective=mechanism.objective,
        rebuild=lambda: mechanisms.build(mechanism, case.shape, case.args).to(instantiate.DTYPES[case.dtype]),
        allow_real=allow_real and change is None,
        make_tracer=make_tracer,
    )


def follow_module(
    module: nn.Module,
    inputs: Sequence[Tensor | TensorSpec | Any],
    mode: str = "inference",
    *,
    dtype: str = "float32",
    target: str = "cuda",
    sdpa: str = "auto",
    channels_last: bool = False,
    autocast: str | None = None,
    objective: Callable[[Any], Any] | None = None,
    rebuild: Callable[[], nn.Module] | None = None,
    allow_real: bool = True,
    make_tracer: Callable[..., Tracer] = Tracer,
) -> Traced:
    """One pass of `module` over `inputs` (tensors, TensorSpecs, or anything the forward takes), followed without data.

    The module's own train/eval state is used. `rebuild` makes the module with data, for a real run of one built on meta.
    `make_tracer(real=...)` makes the counter, where it is to remember more than a Tracer does.
    """
    wanted = instantiate.DTYPES[dtype]
    training = mode == "training"
    built.refuse_lazy(module)

    memo: dict[int, Any] = {}  # a tensor that is passed twice is one input

    def as_meta(value: Any) -> Any:
        if isinstance(value, TensorSpec):
            return instantiate.meta_input(value, wanted, training, channels_last)
        if isinstance(value, Tensor):
            if id(value) not in memo:
                memo[id(value)] = instantiate.to_meta(value).requires_grad_(training and instantiate.differentiable(value))
            return memo[id(value)]
        return instantiate.rebuilt(value, as_meta)

    pass_ = _Pass(training, target, sdpa, autocast, objective, make_tracer)
    with instantiate.random_state_seeded():
        meta_inputs = tuple(as_meta(value) for value in inputs)
        as_it_is = not training and instantiate.without_data(module)  # in training its parameters would get gradients
        with instantiate.attributes_kept(module) if as_it_is else instantiate.swapped(module, instantiate.to_meta):
            traced, failure = _attempt(pass_, module, meta_inputs)
        if traced is not None and not depends_on_data(traced.counts):
            return traced
        if allow_real and (_bearable(traced.counts) if traced is not None else _small(meta_inputs)):
            real = _in_place_of(failure, lambda: _run_real(pass_, module, meta_inputs, inputs, rebuild))
            if real is not None:
                assumed = {} if traced is None else traced.counts.assumed
                return replace(real, counts=replace(real.counts, assumed={**assumed, **real.counts.assumed}))
    if traced is None:
        assert failure is not None
        raise failure
    return traced


def depends_on_data(counts: Counts) -> bool:
    """Whether the pass asked for values that a trace does not have: another input, another count."""
    return any(op in DATA_OPS for op in counts.assumed)


def _in_place_of(failure: Exception | None, run: Callable[[], Traced | None]) -> Traced | None:
    """A real run where tracing failed or assumed. Where the run fails as well, and the trace had, that says so of both."""
    try:
        return run()
    except (AttnprofError, MemoryError):
        raise
    except Exception as error:
        if failure is None:
            raise
        raise UntraceableError(f"{failure} A run on values fails too ({type(error).__name__}: {error}).") from error


def count_real(
    module: nn.Module, inputs: Sequence[Any], mode: str = "inference", objective: Callable[[Any], Any] | None = None
) -> Counts:
    """The same counter on a real run: what a trace with target 'cpu' predicts. The module is left as it was found."""
    pass_ = _Pass(mode == "training", "cpu", "auto", None, objective)
    inputs = _private_inputs(inputs, pass_.training)
    built.refuse_lazy(module)
    with instantiate.random_state_kept(), instantiate.swapped(module, instantiate.private_copy):
        return _settled(pass_, module, inputs, Tracer(real=True)).counts


@dataclass(frozen=True)
class _Pass:
    """How a pass is run: mode, kernel target, SDPA choice."""

    training: bool
    target: str
    sdpa: str
    autocast: str | None
    objective: Callable[[Any], Any] | None
    make_tracer: Callable[..., Tracer] = Tracer

    def count(self, module: nn.Module, inputs: tuple[Any, ...], tracer: Tracer, traced_by: str) -> Traced:
        """Run the pass under the tracer. Whatever the module raises goes through."""
        with ExitStack() as stack:
            autocast = self.autocast not in (None, "none")
            tracer.real = tracer.real or autocast  # fake tensors take the ops themselves
            stack.enter_context(attention.overrides(self.target, self.sdpa, tracer.real, autocast, tracer.on_math))
            stack.enter_context(flex.followed(type(tracer)))
            if autocast:
                traced_by = "fake"
                inputs = _enter_autocast(stack, module, inputs, str(self.autocast))
            params, resident = _reside(tracer, module, inputs)
            made = built.state_of(module, registered=True) if autocast else []
            autograd.prepare()
            stack.enter_context(tracer)
            if self.training:
                _calibrate(tracer)
            stack.enter_context(submodules.told_to(tracer, module))
            tracer.counting = True
            if self.training:
                kept = self._train(module, inputs, tracer)
            else:
                with torch.no_grad():
                    outputs = module(*inputs)
                kept = sum(tracer.ledger.sizes) - tracer.ledger.passing_bytes
                tracer.ledger.close()
                del outputs
            tracer.counting = False
            if autocast and built.has_grown(module, made, registered=True):
                raise UntraceableError("its first pass makes parameters or buffers, which cannot be followed under autocast.")
        return _summary(tracer, params, resident, kept, traced_by)

    def _train(self, module: nn.Module, inputs: tuple[Any, ...], tracer: Tracer) -> int:
        """Forward and backward; returns what autograd kept in between, in bytes."""
        outputs = module(*inputs)
        roots = list(tensors_of(outputs if self.objective is None else self.objective(outputs)))
        roots = [tensor for tensor in roots if tensor.requires_grad]
        if not roots:
            raise UntraceableError("no output depends on the inputs or parameters: there is nothing to train.")
        held = [tensor for tensor in built.tensors_held(module) if tensor.layout is torch.strided]
        results = (*tensors_of(outputs), *roots, *held)
        kept = tracer.ledger.live_bytes - autograd.only_outputs_bytes(results, tracer.ledger.knows)
        del held, results
        tracer.phase, tracer.module = "backward", ""
        tracer.counting = False
        gradients = [torch.empty_like(root) for root in roots]
        for gradient in gradients:
            tracer.ledger.book(gradient, "gradient of output", "", "backward")
        tracer.counting = True
        _engine.run_backward(tuple(roots), tuple(gradients), False, False, (), allow_unreachable=True, accumulate_grad=True)
        tracer.ledger.close()
        return kept


def _settled(pass_: _Pass, module: nn.Module, inputs: tuple[Any, ...], tracer: Tracer) -> Traced:
    """The pass; where it made state of the module, the next one, which finds it there."""
    real, before = tracer.real, built.state_of(module)
    by = "real" if real else "meta"
    traced = pass_.count(module, inputs, tracer, by)
    if not built.has_grown(module, before):
        return traced
    del before
    for tensor in (*module.parameters(), *tensors_of(inputs)):
        tensor.grad = None
    return pass_.count(module, inputs, pass_.make_tracer(real=real), by)


def _attempt(pass_: _Pass, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Traced | None, Exception | None]:
    """What a pass on meta finds, or the reason why that did not work."""
    tracer, ready = pass_.make_tracer(real=False), flex.is_loaded()
    try:
        return _settled(pass_, module, inputs, tracer), None
    except (AttnprofError, MemoryError):
        raise
    except Exception as error:
        if flex.is_loaded() and not ready:  # the forward imported it
            return _attempt(pass_, module, inputs)
        if tracer.assumed or _is_meta_limit(error):
            reason = f"{type(error).__name__}: {error}"
            return None, UntraceableError(f"the module cannot be traced without data ({reason}).")
        raise


def _is_meta_limit(error: Exception) -> bool:
    """Errors that meta tensors raise where real ones would not."""
    if isinstance(error, NotImplementedError):
        return True
    text = str(error).lower()
    return "modified by an inplace operation" not in text and any(word in text for word in _META_LIMITS)


def _bearable(counts: Counts) -> bool:
    """May the pass be run for real here, judged by its assumed cost?"""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return counts.macs <= _REAL_MACS_LIMIT and counts.peak_bytes + counts.resident_bytes <= _REAL_MEMORY_SHARE * memory


def _small(inputs: Sequence[Any]) -> bool:
    """Inputs so small that even a map of their elements squared fits: what could not be costed may still be run."""
    return sum(tensor.numel() for tensor in tensors_of(inputs)) <= _SMALL_INPUTS


def _run_real(
    pass_: _Pass,
    module: nn.Module,
    meta_inputs: tuple[Any, ...],
    inputs: Sequence[Any],
    rebuild: Callable[[], nn.Module] | None,
) -> Traced | None:
    """The module on data under the same counter; None where it has no data to run on."""
    if any(parameter.is_meta for parameter in module.parameters()):
        if rebuild is None:
            return None
        module = rebuild().train(module.training)
    given = [made if isinstance(value, TensorSpec) else value for value, made in zip(inputs, meta_inputs, strict=True)]
    real_inputs = _private_inputs(instantiate.materialise(given), pass_.training)
    with instantiate.swapped(module, instantiate.private_copy):
        return _settled(pass_, module, real_inputs, pass_.make_tracer(real=True))


def _private_inputs(inputs: Sequence[Any], training: bool) -> tuple[Any, ...]:
    """Copies of every tensor, in containers too, with gradients wanted in training; one that is passed twice stays one."""
    memo: dict[int, Tensor] = {}

    def private(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in memo:
                memo[id(value)] = value.detach().clone().requires_grad_(training and instantiate.differentiable(value))
            return memo[id(value)]
        return instantiate.rebuilt(value, private)

    return tuple(private(value) for value in inputs)


def _enter_autocast(stack: ExitStack, module: nn.Module, inputs: tuple[Any, ...], dtype: str) -> tuple[Any, ...]:
    """Fake CPU tensors under torch.autocast: autocast has no effect on meta tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))

    def as_fake(tensor: Tensor) -> Tensor:
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        return made.requires_grad_(tensor.requires_grad) if tensor.is_leaf else made

    stack.enter_context(instantiate.swapped(module, as_fake))
    stack.enter_context(torch.autocast("cpu", dtype=instantiate.DTYPES[dtype]))
    return tuple(as_fake(value) if isinstance(value, Tensor) else value for value in inputs)


def _reside(tracer: Tracer, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, int]:
    """(parameter count, bytes of parameters, buffers and inputs); books them as resident. Shared storages count once."""
    params, resident = 0, 0
    for parameter in module.parameters():
        resident += tracer.ledger.reside(parameter)
        params += parameter.numel()
    for tensor in (*module.buffers(), *tensors_of(inputs)):
        resident += tracer.ledger.reside(tensor)
    return params, resident


def _calibrate(tracer: Tracer) -> None:
    """Learn what a gradient buffer that only the engine holds looks like from here, on a graph of three ops."""
    device = "cpu" if tracer.real else "meta"
    tracer.calibrating, tracer.phase = True, "backward"
    with torch.enable_grad():
        leaf = torch.empty(2, 2, device=device).requires_grad_()
        factor = torch.empty(2, 2, device=device)
        total = leaf * factor + leaf * factor
        _engine.run_backward((total,), (factor,), False, False, (), allow_unreachable=True, accumulate_grad=True)
    tracer.calibrating, tracer.phase = False, "forward"


def _summary(tracer: Tracer, params: int, resident: int, kept: int, traced_by: str) -> Traced:
    lifetimes = tracer.ledger.lifetimes()
    peak, at = lifetimes.peak()
    rows = tuple(OpCost(op, module, phase, *row) for (op, module, phase), row in tracer.costs.items())
    counts = Counts(
        params=params,
        macs=sum(row.macs for row in rows),
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        activation_bytes=kept,
        resident_bytes=resident,
        peak_bytes=peak,
        peak_cuda_bytes=lifetimes.peak_cuda(),
        at_peak=lifetimes.holders(lifetimes.alive(at)),
        uncounted=tracer.uncounted,
        assumed=tracer.assumed,
        traced_by=traced_by,
        ops=rows,
        math_attention=tracer.math,
    )
    return Traced(counts, lifetimes)
