"""The words a spec may use (metrics, settings), sizes such as '97x97', and the nearest right word to a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from attnprof.errors import UsageError

METRICS = (
    "params",
    "macs",
    "flops",
    "bytes_moved",
    "activation_memory",
    "resident_memory",
    "peak_memory",
    "peak_cuda_memory",
    "measured_memory",
    "calibrated_memory",
    "latency",
    "throughput",
    "energy",
    "bound",
    "unfused",
    "bound_ratio",
)
BOUND_METRICS = ("bound", "unfused", "bound_ratio")
# What a gate compares exactly, by the names of Counts, and two ledgers: op calls, and calls of ops without a formula. A name
# more wants a new SCHEMA of gate/baseline.py: older files lack its numbers.
BYTES = ("bytes_moved", "activation_bytes", "resident_bytes", "peak_bytes", "peak_cuda_bytes")
EXACT_METRICS = ("params", "macs", "flops", *BYTES, "op_calls", "uncounted_calls")
GATE_ALIASES = {
    "peak": "peak_bytes",
    "peak_memory": "peak_bytes",
    "memory": "peak_bytes",
    "peak_cuda": "peak_cuda_bytes",
    "peak_cuda_memory": "peak_cuda_bytes",
    "activation_memory": "activation_bytes",
    "activations": "activation_bytes",
    "resident_memory": "resident_bytes",
    "moved": "bytes_moved",
}
DEFAULT_METRICS = ("params", "macs", "flops", "peak_memory", "latency")
SDPA = ("auto", "math", "fused")
MEMORY_FORMATS = ("contiguous", "channels_last")
AUTOCAST = ("none", "float16", "bfloat16")
COUNTERS = {  # what a spec calls a counter: the counters that it stands for
    "attnprof": ("attnprof real",),
    "fvcore": ("fvcore",),
    "ptflops": ("ptflops aten", "ptflops pytorch"),
    "torch": ("torch real", "torch meta"),
}
MAX_SIZE = 1_000_000
SYNONYMS = {
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "float": "float32",
    "single": "float32",
    "fp64": "float64",
    "double": "float64",
    "eval": "inference",
    "forward": "inference",
    "train": "training",
    "fwd": "inference",
    "gpu": "cuda",
}
_HW = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")


def parse_hw(value: Any) -> tuple[int, int]:
    """'65x97' -> (65, 97); 65 and '65' -> (65, 65). Raises UsageError for anything else, and for sizes out of range."""
    if isinstance(value, int) and not isinstance(value, bool):
        height = width = value
    elif isinstance(value, str) and (match := _HW.fullmatch(value)):
        height, width = int(match[1]), int(match[2])
    elif isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        height = width = int(value)
    else:
        shown = f"'{value[:40]}'" if isinstance(value, str) and value.isprintable() else type(value).__name__
        raise UsageError(f"a size is written HxW, such as 97x97, or as one number for a square, not {shown}")
    for size in (height, width):
        if not 1 <= size <= MAX_SIZE:
            raise UsageError(f"height and width lie between 1 and {MAX_SIZE:,}, not {str(size)[:20]}")
    return (height, width)


def nearest(word: Any, words: Iterable[str]) -> str:
    """'did you mean ...?' with the nearest of `words`, or '' where none is near."""
    asked, known = str(word)[:100].lower(), list(words)
    near = [SYNONYMS[asked]] if SYNONYMS.get(asked) in known else difflib.get_close_matches(asked, known, n=1, cutoff=0.65)
    return f"did you mean '{near[0]}'?" if near else ""
