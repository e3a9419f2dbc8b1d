"""The peak of a pass with what kernels take beside tensors: bytes alive before each call of a trace, plus its own peak."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from attnprof.profiling import instantiate
from attnprof.profiling.calibrating.cache import Cache
from attnprof.profiling.calibrating.probes import Probe, probe
from attnprof.profiling.calibrating.recorder import HELD_BY_CALLER, Call, Recorded, record
from attnprof.profiling.measuring import device as devices
from attnprof.profiling.measuring.prepare import UnsupportedError, check_settings, configure
from attnprof.records import Case, Memory

_ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Calibration:
    """A calibrated peak, and what it is made of.

    traced_bytes: the peak of the same trace, for the same kernels, without scratch. calls: ops of the pass; distinct: with
    another signature; probed: of those, run now (the others were known). scratch: at the peak, by inner op, in bytes.
    """

    memory: Memory
    traced_bytes: int
    calls: int
    distinct: int
    probed: int
    scratch: Mapping[str, int] = field(default_factory=dict)


def calibrate_case(case: Case, folder: Path | None, most_bytes: int | None = None) -> Calibration:
    """The calibrated peak of a case on its device, which must be concrete ('cpu', 'cuda:0').

    Every distinct op of the trace is run once in this process, unless `folder` has it from before. Raises MemoryError for an op
    that needs more than `most_bytes` or than there is, UnsupportedError for what cannot be probed, UntraceableError.
    """
    check_settings(case)
    if case.settings.get("compile"):
        raise UnsupportedError("a compiled pass runs other ops than the trace has: its peak can be measured, not calibrated")
    configure(case)
    cuda = case.device.startswith("cuda")
    recorded = record(case, "cuda" if cuda else "cpu")
    live = recorded.live(blocks=cuda)
    cache = Cache(folder, processor(case.device))
    with instantiate.random_state_kept():
        probes, made = probes_of(recorded, cache, case.device, most_bytes)
    peak, where = highest(recorded, probes, blocks=cuda)
    memory = Memory(peak, "calibrated", peak + recorded.counts.resident_bytes, HELD_BY_CALLER if peak else "", 0)
    scratch: Mapping[str, int] = {}
    if where is not None:
        found, outputs = probes[where.signature], live[where.after] - live[where.before]
        memory = replace(memory, at_op=where.name, scratch_bytes=max(found.peak - outputs, 0))
        scratch = found.scratch
    return Calibration(memory, max(live), len(recorded.calls), len(probes), made, scratch)


def probes_of(recorded: Recorded, cache: Cache, device: str, most_bytes: int | None) -> tuple[dict[str, Probe], int]:
    """(a probe per signature, how many were run now). Raises MemoryError, UnsupportedError."""
    found: dict[str, Probe] = {}
    made, live = 0, recorded.live(blocks=False)
    for call in recorded.calls:
        signature = call.signature
        if signature in found:
            continue
        known = cache.get(signature)
        if known is not None:
            found[signature] = Probe(*known)
            continue
        needed = call.argument_bytes + live[call.after] - live[call.before]
        if most_bytes is not None and needed > most_bytes:
            raise MemoryError(f"{call.name} alone needs {needed} bytes, {most_bytes} available")
        found[signature] = probe(call, device)
        cache.put(signature, found[signature].peak, found[signature].scratch)
        made += 1
    return found, made


def highest(recorded: Recorded, probes: Mapping[str, Probe], blocks: bool) -> tuple[int, Call | None]:
    """(peak, the call it lies in): the largest sum of the bytes alive before a call and its own peak.

    No call: the peak lies where the caller makes the gradients of the outputs. `blocks`: as CUDA's allocator counts.
    """
    live = recorded.live(blocks)
    best, where = recorded.held_by_caller(blocks), None
    for call in recorded.calls:
        total = live[call.before] + probes[call.signature].peak
        if total > best:
            best, where = total, call
    return best, where


def processor(device: str) -> dict[str, Any]:
    """Everything beside the op itself that its scratch depends on here."""
    facts: dict[str, Any] = {"torch": torch.__version__, "tf32": torch.backends.cuda.matmul.allow_tf32}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return facts | {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
            "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""),
        }
    return facts | {
        "cpu": devices.environment("cpu")["cpu"],
        "features": _features(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cache_bytes": devices.cache_bytes(),
        "threads": torch.get_num_threads(),
        "isa": {name: os.environ[name] for name in _ISA_VARIABLES if name in os.environ},
    }


def _features() -> str:
    """Hash of the instruction sets that the kernel lists; '' where it lists none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(" ".join(sorted(line.partition(":")[2].split())).encode()).hexdigest()[:12]
    return ""
