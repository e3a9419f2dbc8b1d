"""What a real forward pass ran: every op with the multiply-accumulates that attnprof's table gives it.

No more than a ledger of the ops as they are dispatched (no traced kernels, no overrides), so that it sees what another counter
saw. Each row is charged to the submodule that ran, and to the outermost Python function of torch that asked for the op
(`torch.einsum`, `torch.nn.functional.linear`, `torch.Tensor.__matmul__`): counters that patch names depend on it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from attnprof.profiling.counting import flops
from attnprof.profiling.counting.flops import Cost
from attnprof.profiling.counting.submodules import told_to
from attnprof.profiling.counting.tracer import tensors_of
from attnprof.profiling.crosscheck.explain import Ran


class Recorder(TorchDispatchMode):
    """Notes every op with a rule, higher-order ones too; ops go on to the mode below. `flow`, if given, hears of every op."""

    supports_higher_order_operators = True

    def __init__(self, flow: Flow | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.caller = "", ""
        self.flow = flow
        self.sums: dict[tuple[str, str, str], list[int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Private to torch: True would import torch._dynamo (1.7 s) at the first op."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        rule = _flex if func.name() == "flex_attention" else flops.rule_for(func)
        macs = rule(args, kwargs, out).macs if rule is not None else 0
        key = (str(func.name()).removeprefix("aten::").partition(".")[0], self.module, self.caller)
        if self.flow is not None:
            self.flow.hear((args, kwargs), out, key, macs)
        if macs:
            row = self.sums.setdefault(key, [0, 0, 0, 0])
            for index, amount in enumerate((1, macs, _added(key[0], args, out))):
                row[index] += amount
        return out

    def rows(self) -> tuple[Ran, ...]:
        """What was noted."""
        return tuple(Ran(op, module, caller, *amounts) for (op, module, caller), amounts in self.sums.items())


def _flex(args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Cost:
    """The higher-order op flex_attention(q, k, v, ...): scores and weighted sum of every pair."""
    q, k, v = args[:3]
    macs = q.numel() // q.shape[-1] * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    return Cost(macs, 2 * macs)


def _added(op: str, args: tuple[Any, ...], out: Any) -> int:
    """Additions of a bias that an op makes: one per element of its output."""
    position = {"convolution": 2, "addmm": 0, "baddbmm": 0, "_convolution": 2}.get(op)
    biased = position is not None and len(args) > position and isinstance(args[position], Tensor)
    return out.numel() if biased and isinstance(out, Tensor) else 0


class Flow:
    """Which ops the outputs depend on, by the storages that each read and wrote. Holds every storage to the end."""

    def __init__(self) -> None:
        self.kept: list[Any] = []  # an address is not used twice while its storage lives
        self.steps: list[tuple[set[int], set[int], tuple[str, str, str], int]] = []

    def hear(self, given: Any, out: Any, key: tuple[str, str, str], macs: int) -> None:
        """Take one op in."""
        self.steps.append((self._storages(given), self._storages(out), key, macs))

    def dead(self, outputs: Any) -> dict[tuple[str, str, str], int]:
        """MACs per row of calls whose results do not reach the outputs."""
        live, found = self._storages(outputs), dict[tuple[str, str, str], int]()
        for read, written, key, macs in reversed(self.steps):
            if written & live:
                live |= read
            elif macs:
                found[key] = found.get(key, 0) + macs
        return found

    def _storages(self, tree: Any) -> set[int]:
        storages = [tensor.untyped_storage() for tensor in tensors_of(tree)]
        self.kept += storages
        return {storage._cdata for storage in storages}


class _Callers(TorchFunctionMode):
    """Tells the recorder which function of torch asked."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.recorder.caller = resolve_name(func) or getattr(func, "__name__", "")
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.recorder.caller = ""


class Watched(nn.Module):
    """A module with all inputs but the first at hand, whose forward is recorded: what a counter with one input is given."""

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...], recorder: Recorder | None) -> None:
        super().__init__()
        self.module = module
        self.rest = (inputs[1:],)
        self.recorder = recorder

    def forward(self, x: Tensor) -> Any:
        """The module's own forward."""
        if self.recorder is None:
            return self.module(x, *self.rest[0])
        with self.recorder, told_to(self.recorder, self.module):
            return self.module(x, *self.rest[0])


def run_reference(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Ran, ...]:
    """The rows of a forward pass with gradients on, callers noted."""
    flow = Flow()
    recorder = Recorder(flow)
    with recorder, _Callers(recorder), told_to(recorder, module):
        outputs = module(*inputs)
    for key, macs in flow.dead(outputs).items():
        recorder.sums[key][3] = macs
    return recorder.rows()
