"""Ask one counter about one module, whatever it does: it may crash, print, warn, exit, or not be there."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnprof import mechanisms, units
from attnprof.errors import UsageError
from attnprof.profiling import instantiate, loading
from attnprof.profiling.counting.trace import count_real, trace_module
from attnprof.profiling.crosscheck import explain
from attnprof.profiling.crosscheck.counters import ASK
from attnprof.profiling.crosscheck.explain import Item, Ran, Tally
from attnprof.profiling.crosscheck.names import EVERY, OWN, WITHOUT_DATA, expand, needed_bytes
from attnprof.records import Case, Counts, Opinion, TensorSpec

_HERE = Path(__file__).parent
_LINES = 20
_WIDTH = 300


def ask_case(case: Case, counter: str, counts: Counts, usable_bytes: int | None = None) -> Opinion:
    """What `counter` says of a case's forward pass; `counts`: what its trace says. Builds a fresh module; never raises.

    A real pass that is predicted to need more than `usable_bytes` is not run.
    """
    needed = needed_bytes(counts)
    if usable_bytes is not None and needed > usable_bytes and counter not in WITHOUT_DATA:
        room = f"about {units.format_bytes(needed)}, {units.format_bytes(usable_bytes)} are free"
        return explain.failed(counter, "not run", f"not run: it runs the real forward pass, which needs {room}")
    try:
        module, inputs = _made(case, counter in WITHOUT_DATA)
    except Exception as error:  # noqa: BLE001 the trace could build it on meta; a real one may not fit
        return explain.failed(counter, "crashed", f"the module could not be built: {type(error).__name__}: {error}"[:_WIDTH])
    return _ask(counter, module, inputs, counts.macs)


def _made(case: Case, on_meta: bool) -> tuple[nn.Module, tuple[Any, ...]]:
    """The module of a case in evaluation, and inputs, with data or without."""
    mechanism, dtype = loading.load(case), instantiate.DTYPES[case.dtype]
    torch.manual_seed(0)
    module: nn.Module = mechanisms.build(mechanism, case.shape, case.args).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    specs = mechanisms.input_specs(mechanism, case.shape, case.args)
    if on_meta:
        return module, tuple(instantiate.meta_input(spec, dtype, requires_grad=False) for spec in specs)
    return module, tuple(instantiate.real_input(spec, dtype, generator) for spec in specs)


def crosscheck_module(
    module: nn.Module, inputs: Sequence[Any], counters: Sequence[str] = EVERY, dtype: str = "float32"
) -> tuple[Opinion, ...]:
    """What every counter says of a module that is there, each on a copy of its own; `inputs` are tensors or TensorSpecs.

    In this process: what ends a process ends this one; `attnprof crosscheck ./mine.py:Mine` gives each counter a child. Raises
    UsageError for a counter that is unknown, and whatever tracing the module raises.
    """
    chosen = expand(counters)
    with instantiate.random_state_kept():
        generator = torch.Generator().manual_seed(0)
        wanted = instantiate.DTYPES[dtype]
        real = tuple(
            instantiate.real_input(value, wanted, generator) if isinstance(value, TensorSpec) else value for value in inputs
        )
        if not real or not isinstance(real[0], Tensor):
            raise UsageError("the first input must be a tensor, or a TensorSpec.")
        ours = trace_module(copy.deepcopy(module).eval(), real, "inference", dtype=dtype).macs
        return tuple(_ask(name, copy.deepcopy(module).eval(), _copies(real), ours) for name in chosen)


def _copies(inputs: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in inputs)


def _ask(counter: str, module: nn.Module, inputs: tuple[Any, ...], ours: int) -> Opinion:
    began = time.perf_counter()
    said: list[str] = []
    try:
        with instantiate.random_state_kept(), _captured(said):
            torch.manual_seed(0)
            if counter == OWN:
                tally, rows = _own(module, inputs, ours)
            else:
                tally, rows = ASK[counter](module, inputs)
    except ImportError as error:
        if _absent(error):
            return explain.failed(counter, "not installed", "not installed: pip install 'attnprof[crosscheck]'")
        return _crash(counter, error, said, began)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 a counter may raise anything, SystemExit too
        return _crash(counter, error, said, began)
    seconds = time.perf_counter() - began
    opinion = explain.judge(counter, ours, rows, tally, seconds)
    return Opinion(**{**vars(opinion), "warnings": _worth(said)})


def _absent(error: ImportError) -> bool:
    return isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ("fvcore", "ptflops", "iopath")


def _crash(counter: str, error: BaseException, said: list[str], began: float) -> Opinion:
    text = " ".join(str(error).split())
    cause = next((line for line in reversed(said) if "Error" in line and ":" in line), "") if text == "no result" else ""
    sentence = f"crashed: {cause}" if cause else f"crashed: {type(error).__name__}: {text}".rstrip(": ") + _place(error)
    return explain.failed(counter, "crashed", _cut(sentence), _worth(said), time.perf_counter() - began)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _place(error: BaseException) -> str:
    """' in bmm_flop_jit (jit_handles.py): assert ...': where it was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent != _HERE]
    if not frames:
        return ""
    last = frames[-1]
    return f", in {last.name} ({Path(last.filename).name}): {last.line}" if last.line else f", in {last.name}"


def _own(module: nn.Module, inputs: tuple[Any, ...], ours: int) -> tuple[Tally, tuple[Ran, ...]]:
    """The same counter on a real run: what is counted without data must be what happens with data.

    Held together by submodule: the CPU runs some as one op of its own (an LSTM) where the trace has several.
    """
    real, on_meta = count_real(module, inputs), trace_module(module, inputs, target="cpu")
    rows = tuple(Ran(row.op, row.module, "", row.calls, row.macs) for row in on_meta.ops if row.macs)
    items = _items(real)
    return Tally(
        real.macs,
        items,
        group=lambda row: row.module,
        reason=lambda row: "",
        name=lambda row: f"aten::{row.op}",
        general="" if on_meta.macs == real.macs == ours else "the trace and a real run differ",
    ), rows


def _items(counts: Counts) -> tuple[Item, ...]:
    return tuple(Item(row.module, f"aten::{row.op}", row.macs) for row in counts.ops if row.macs)


class _Lines(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _captured(said: list[str]) -> Iterator[None]:
    """Within: whatever is printed, warned or logged is kept in `said` and shown nowhere."""
    out, root = io.StringIO(), logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("fvcore", "fvcore.nn.jit_analysis", "ptflops"))]
    before = [(each.handlers[:], each.propagate) for each in loggers]
    handler = _Lines(said)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for each in loggers:
                each.handlers[:] = [handler] if each is root else []
                each.propagate = True
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                yield
        finally:
            for each, (handlers, propagate) in zip(loggers, before, strict=True):
                each.handlers[:], each.propagate = handlers, propagate
            said += out.getvalue().splitlines()
            said += [f"{warning.category.__name__}: {warning.message}" for warning in warned]


def _worth(said: Sequence[str]) -> tuple[str, ...]:
    """Each line once, cut to a readable length."""
    lines = dict.fromkeys(_cut(" ".join(line.split())) for line in said if line.strip())
    return tuple(lines)[:_LINES]
