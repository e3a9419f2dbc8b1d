"""How each counter is asked, and what it can tell of its own count. fvcore and ptflops are imported here, when they are asked.

Each function takes (module, inputs) and gives (Tally, rows of what ran). The total is that of a run on which nothing of ours
looked on; the items come from a second one. Read in the counters' sources: torch.utils.
flop_counter of torch 2.13, fvcore 0.1.5.post20221221 (nn/jit_handles.py), ptflops 0.7.5 (aten_ops.py, pytorch_ops.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.profiling import instantiate
from attnprof.profiling.counting.submodules import told_to
from attnprof.profiling.crosscheck.explain import PRODUCTS, Item, Ran, Tally
from attnprof.profiling.crosscheck.reference import Recorder, Watched, run_reference

Answer = tuple[Tally, tuple[Ran, ...]]
_AT = "torch.Tensor.matmul"
_SCRIPTED = ("prim::CallFunction", "prim::CallMethod")  # calls that stand in a traced graph as one node
_FVCORE_PRODUCTS = frozenset(("addmm", "bmm", "einsum", "matmul", "mm", "linear"))


class CounterError(Exception):
    """A counter gave no number; the message is what it said."""


def ask_torch(module: nn.Module, inputs: tuple[Any, ...], on_meta: bool = False) -> Answer:
    """torch.utils.flop_counter.FlopCounterMode without gradients, on a real run or on meta tensors."""
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    recorder = Recorder()
    if on_meta:
        inputs = tuple(instantiate.to_meta(value) if isinstance(value, Tensor) else value for value in inputs)
        module = module.to("meta")
    with FlopCounterMode(display=False) as alone, torch.no_grad():
        module(*inputs)
    macs = sum(alone.get_flop_counts().get("Global", {}).values()) // 2
    with FlopCounterMode(display=False) as counter, torch.no_grad(), recorder, told_to(recorder, module):
        module(*inputs)
    counts = {str(op).rpartition(".")[2]: int(flops) // 2 for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    known = {str(op).rpartition(".")[2] for op in flop_registry}
    return _by_op(macs, counts, known, recorder), recorder.rows()


def ask_torch_meta(module: nn.Module, inputs: tuple[Any, ...]) -> Answer:
    """The same on meta tensors."""
    return ask_torch(module, inputs, on_meta=True)


def _by_op(macs: int, counts: Mapping[str, int], known: set[str], recorder: Recorder) -> Tally:
    biases: dict[str, int] = {}
    for row in recorder.rows():
        biases[row.op] = biases.get(row.op, 0) + row.bias
    items = tuple(Item(op, f"aten::{op}", amount, biases.get(op, 0)) for op, amount in counts.items())
    return Tally(
        macs,
        items,
        group=lambda row: row.op,
        reason=lambda row: "" if row.op in known else "has no formula for",
        name=lambda row: f"aten::{row.op}",
    )


def ask_fvcore(module: nn.Module, inputs: tuple[Any, ...]) -> Answer:
    """fvcore.nn.FlopCountAnalysis: traces the module with torch.jit, gradients on."""
    from fvcore.nn import FlopCountAnalysis

    rows = run_reference(module, inputs)
    analysis = FlopCountAnalysis(module, inputs).uncalled_modules_warnings(False)
    macs = int(analysis.total())
    unsupported = {name.removeprefix("aten::") for name in analysis.unsupported_ops()}
    functions = sorted(name for name in unsupported if name.startswith("prim::PythonOp"))
    scripted = sorted(name for name in unsupported if name in _SCRIPTED)
    items = []
    for name, amount in analysis.by_operator().items():
        kind = "convolution" if name == "conv" else "product" if name in _FVCORE_PRODUCTS else name
        items.append(Item(kind, name, int(amount), known=name == "conv" or name in _FVCORE_PRODUCTS))

    def reason(row: Ran) -> str:
        asked = row.caller.rpartition(".")[2]
        if asked in unsupported or row.op in unsupported:
            return "has no formula for"
        closed = [f"the autograd.Function {', '.join(functions)}"] if functions else []
        if scripted and not row.caller:  # no Python function of torch asked for it: the interpreter of TorchScript did
            closed.append(f"code compiled by torch.jit.script ({', '.join(scripted)})")
        if closed:
            return f"does not enter {' or '.join(closed)}, which runs"
        return "" if row.op in PRODUCTS or row.op == "convolution" else "has no formula for"

    def group(row: Ran) -> str:
        return "convolution" if row.op == "convolution" else "product" if row.op in PRODUCTS else row.op

    return Tally(macs, tuple(items), group, reason, _op_and_caller, prunes=True), rows


def _op_and_caller(row: Ran) -> str:
    asked = row.caller.removeprefix("torch.nn.functional.").removeprefix("torch.functional.").removeprefix("torch.")
    return row.op if not asked or asked.rpartition(".")[2] == row.op else f"{asked} ({row.op})"


def ask_ptflops_aten(module: nn.Module, inputs: tuple[Any, ...]) -> Answer:
    """ptflops.get_model_complexity_info(backend='aten'); each op's formula is wrapped to see what it gave."""
    from ptflops.aten_ops import ATEN_OPS_MAPPING

    recorder, counts = Recorder(), dict[str, int]()

    def wrapped(name: str, formula: Callable[..., Any]) -> Callable[..., Any]:
        def count(args: Any, outputs: Any) -> Any:
            amount = formula(args, outputs)
            counts[name] = counts.get(name, 0) + int(amount)
            return amount

        return count

    hooks = {op: wrapped(str(op).rpartition(".")[2], formula) for op, formula in ATEN_OPS_MAPPING.items()}
    macs = _ptflops(Watched(module, inputs, None), inputs[0], "aten", {})
    _ptflops(Watched(module, inputs, recorder), inputs[0], "aten", hooks)
    return _by_op(macs, counts, {str(op).rpartition(".")[2] for op in ATEN_OPS_MAPPING}, recorder), recorder.rows()


def ask_ptflops_pytorch(module: nn.Module, inputs: tuple[Any, ...]) -> Answer:
    """ptflops.get_model_complexity_info(backend='pytorch'): hooks on modules, patched functions; each formula is wrapped."""
    from ptflops import pytorch_ops

    rows = run_reference(module, inputs)
    names = {id(part): name for name, part in module.named_modules()}
    kinds = {name: type(part) for name, part in module.named_modules()}
    hooked = {name for name, kind in kinds.items() if kind in pytorch_ops.MODULES_MAPPING}
    products = set(pytorch_ops.TENSOR_OPS_MAPPING) - {torch.mul, torch.Tensor.mul, torch.add, torch.Tensor.add}
    patched = {torch.overrides.resolve_name(function): function in products for function in pytorch_ops.TENSOR_OPS_MAPPING}
    items: list[Item] = []

    def on_module(kind: type[nn.Module], hook: Callable[..., Any]) -> Callable[..., Any]:
        def count(part: Any, args: Any, out: Any) -> None:
            before = int(part.__flops__)
            hook(part, args, out)
            bias = out.numel() if isinstance(getattr(part, "bias", None), Tensor) and isinstance(out, Tensor) else 0
            name, known = f"nn.{kind.__name__}", _has_products(kind)
            items.append(Item(f"module {names.get(id(part), '')}", name, int(part.__flops__) - before, bias, known))

        return count

    def on_function(name: str, known: bool, formula: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            amount = formula(*args, **kwargs)
            bias = args[0].numel() if name.endswith("addmm") else 0
            items.append(Item(f"call {name}", name.removeprefix("torch."), int(amount), bias, known))
            return amount

        return count

    modules = {kind: on_module(kind, hook) for kind, hook in pytorch_ops.MODULES_MAPPING.items()}
    functions, tensors = pytorch_ops.FUNCTIONAL_MAPPING, pytorch_ops.TENSOR_OPS_MAPPING
    watched_functions = {f: on_function(f"torch.nn.functional.{f.__name__}", False, rule) for f, rule in functions.items()}
    watched_tensors = {
        f: on_function(torch.overrides.resolve_name(f) or f.__name__, f in products, rule) for f, rule in tensors.items()
    }
    macs = _ptflops(Watched(module, inputs, None), inputs[0], "pytorch", {})
    with _replaced(functions, watched_functions), _replaced(tensors, watched_tensors):
        _ptflops(Watched(module, inputs, None), inputs[0], "pytorch", modules)
    batch = len(inputs[0])
    hooks = sum(item.macs for item in items if item.group.startswith("module "))
    rest = sum(item.macs for item in items) - hooks
    if batch > 1 and macs == int(hooks / batch + rest):
        items.append(Item("batch", "divides what its hooks count by the batch", macs - hooks - rest, known=False))

    def reason(row: Ran) -> str:
        if row.module in hooked:
            return ""
        return (
            ""
            if patched.get(row.caller) and row.caller != _AT
            else "sees modules of torch and a few patched functions only, not"
        )

    def group(row: Ran) -> str:
        return f"module {row.module}" if row.module in hooked else f"call {row.caller}"

    def name(row: Ran) -> str:  # the method is patched, the operator is not, and the dispatcher knows them by one name
        return f"@ ({row.op})" if row.caller == _AT else _op_and_caller(row)

    return Tally(macs, tuple(items), group, reason, name), rows


def _has_products(kind: type[nn.Module]) -> bool:
    """Whether a hooked module computes products at all: pooling, activations, norms and upsampling do not."""
    return kind.__name__.startswith(("Conv", "Linear", "LSTM", "GRU", "RNN", "MultiheadAttention", "Attention", "DeformConv"))


@contextmanager
def _replaced(mapping: dict[Any, Any], values: Mapping[Any, Any]) -> Iterator[None]:
    before = dict(mapping)
    mapping.update(values)
    try:
        yield
    finally:
        mapping.clear()
        mapping.update(before)


def _ptflops(module: nn.Module, x: Tensor, backend: str, hooks: Mapping[Any, Any]) -> int:
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        module,
        tuple(x.shape[1:]),
        input_constructor=lambda shape: x,
        backend=backend,
        as_strings=False,
        print_per_layer_stat=False,
        verbose=True,
        custom_modules_hooks=dict(hooks),
    )
    if macs is None:
        raise CounterError("no result")
    return int(macs)


ASK: Mapping[str, Callable[[nn.Module, tuple[Any, ...]], Answer]] = {
    "fvcore": ask_fvcore,
    "ptflops aten": ask_ptflops_aten,
    "ptflops pytorch": ask_ptflops_pytorch,
    "torch real": ask_torch,
    "torch meta": ask_torch_meta,
}
