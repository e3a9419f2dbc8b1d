"""Errors of a counted module without the frames of attnprof and torch: what is left are the test's line and the module's own.

An error keeps its type, so that `pytest.raises` finds it, and gets a note: what was counted, and the module's line.
"""

from __future__ import annotations

import linecache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attnprof.errors import AttnprofError, UsageError

if TYPE_CHECKING:
    from torch import nn

_OWN = Path(__file__).resolve().parent.parent


def bare(error: Exception, label: str) -> None:
    """Leave an error, and what it was raised from, the module's own frames only. label: what was counted."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        seen.append(each)
        each.__traceback__ = _own_frames(each.__traceback__)
        each.__suppress_context__ = True  # other attempts at the trace
        each = each.__cause__
    if not isinstance(error, AttnprofError):
        line = _line(error.__traceback__)
        error.add_note(f"{label}: {line}" if line else f"counted: {label}")


def asked(module: nn.Module | str, inputs: Any, mode: str) -> str:
    """'Mine, 1x64x33x33, inference' of what could not be counted."""
    from attnprof import profiled

    name = module if isinstance(module, str) else type(module).__name__
    try:
        shapes = [tuple(value.shape) for value in profiled._inputs(inputs) if hasattr(value, "shape")]
    except UsageError:
        shapes = []
    return ", ".join([name, *("x".join(map(str, shape)) for shape in shapes), mode])


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The frames that are neither torch's nor attnprof's; mechanism files are a user's, as `attnprof run` has it."""
    import torch

    torch_root, mechanisms = str(Path(torch.__file__).parent), _OWN / "mechanisms"
    kept = []
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        path = Path(file)
        ours = path.is_relative_to(_OWN) and (mechanisms not in path.parents or path.parent == mechanisms)
        if not ours and not file.startswith((torch_root, "<")):
            kept.append(trace)
        trace = trace.tb_next
    found: TracebackType | None = None
    for each in reversed(kept):
        found = TracebackType(found, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return found


def _line(trace: TracebackType | None) -> str:
    """'mine.py:47: return self.c(x)' of the innermost frame; '' where there is none."""
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return f"{Path(file).name}:{trace.tb_lineno}: {linecache.getline(file, trace.tb_lineno).strip()}"
