"""The machine: which device, how much memory, how fast, what it is called.

Importing this module imports no torch: the parent asks NVML and the kernel. Functions that need torch say so and are called
in children only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from attnprof.errors import UsageError
from attnprof.profiling.measuring import gpu

_DEFAULT_CACHE = 16 * 2**20
_LARGEST_FLUSH = 256 * 2**20  # on the CPU: 0.02 to 0.05 s before every sample


def resolve_device(wanted: str) -> str:
    """'auto', 'cpu', 'cuda', 'cuda:N', 'none' -> a concrete name, by NVML alone: torch in a child has the last word."""
    if wanted in ("none", "cpu"):
        return wanted
    if wanted == "cuda":
        return "cuda:0"
    if re.fullmatch(r"cuda:\d+", wanted):
        return wanted
    if wanted == "auto":
        return "cuda:0" if gpu.count() > 0 else "cpu"
    raise UsageError(f"there is no device '{wanted}': auto, cpu, cuda:0 or none.")


def usable(device: str) -> tuple[bool, str]:
    """(whether this torch can use it, why not). Imports torch."""
    if not device.startswith("cuda"):
        return device == "cpu", "" if device == "cpu" else f"'{device}' is no device to measure on"
    import torch

    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ": this torch is built without CUDA"
        return False, f"torch cannot use {device}{built}"
    count = torch.cuda.device_count()
    index = int(device.partition(":")[2] or 0)
    return index < count, "" if index < count else f"there is no {device}: torch sees {count} CUDA device(s)"


def available_bytes() -> int:
    """Main memory that can be had without swapping, within the control group's limit."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        facts = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        available = facts["MemAvailable"]
    except (OSError, KeyError):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for limit, used in _limits():
        with contextlib.suppress(OSError, ValueError):
            left = int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
            available = min(available, max(left, 0))
    return available


def _limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[tuple[Path, Path]]:
    """(limit, use) of memory of this process's control group and of all above it: a Slurm job has one of its own."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = own.read_text(encoding="utf-8").splitlines()
    for line in lines or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        newer = not controllers
        if not newer and "memory" not in controllers.split(","):
            continue
        top = root if newer else root / "memory"
        names = ("memory.max", "memory.current") if newer else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == top or top in folder.parents:
                yield folder / names[0], folder / names[1]


def free_bytes(device: str) -> int:
    """Memory of a device that is free now. Imports torch for CUDA."""
    if not device.startswith("cuda"):
        return available_bytes()
    if not usable(device)[0]:
        return 0
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def cache_bytes(device: str = "cpu") -> int:
    """Size of the last cache before memory: L2 of a GPU (imports torch), the last level of the CPU."""
    if device.startswith("cuda"):
        import torch

        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 64 * 2**20
    sizes = [_DEFAULT_CACHE]
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            text = entry.read_text(encoding="ascii").strip()
            sizes.append(int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]])
    return max(sizes)


def flush_bytes(device: str = "cpu") -> int:
    """What is written to flush the caches: twice the last one; 0 where that would take too long before every sample."""
    size = 2 * cache_bytes(device)
    return size if device.startswith("cuda") or size <= _LARGEST_FLUSH else 0


_pinned: set[int] | None = None


def pin_cores(threads: int) -> None:
    """Keep this process on `threads` cores that no other measurement has, where there are as many; once per process."""
    global _pinned
    if _pinned is not None or not hasattr(os, "sched_setaffinity"):
        return
    _pinned = set()
    for core in sorted(os.sched_getaffinity(0), reverse=True):
        if len(_pinned) < threads and gpu.lock(f"cpu{core}", wait=False) is not None:
            _pinned.add(core)
    if len(_pinned) == threads:
        os.sched_setaffinity(0, _pinned)
    else:
        _pinned = set()


def environment(device: str) -> dict[str, Any]:
    """What a timing depends on: versions, machine, flags. No user or host name. Imports torch."""
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "os": f"{platform.system()} {platform.release()}",
        "machine": hashlib.sha256(platform.node().encode()).hexdigest()[:12],
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
    }
    if device.startswith("cuda") and usable(device)[0]:
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_uuid": gpu.uuid(properties),
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": gpu.driver(),
        }
    return facts


def model(device: str) -> str:
    """The name of a usable GPU, or of the CPU. Imports torch for CUDA."""
    if not device.startswith("cuda"):
        return _cpu_model()
    import torch

    return str(torch.cuda.get_device_properties(device).name)


def flags() -> dict[str, Any]:
    """The process-wide flags as they are set now. Imports torch."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "pinned_cores": sorted(_pinned or ()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def probe(device: str, dtypes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Rates per dtype for a roofline: MACs and bytes per second, seconds per op. About 0.2 s each. Imports torch."""
    import torch

    cuda = device.startswith("cuda")
    if not cuda:
        torch.set_num_threads(1)
        pin_cores(1)
    size = 4096 if cuda else 256
    rates: dict[str, dict[str, float]] = {}
    for name in dtypes:
        dtype = getattr(torch, name)
        matrix = torch.ones(size, size, device=device, dtype=dtype)
        block = torch.ones((256 if cuda else 16) * 2**20 // dtype.itemsize, device=device, dtype=dtype)
        dot = torch.ones(8, device=device, dtype=dtype)
        product = _seconds(lambda m=matrix: m @ m, cuda)  # type: ignore[misc]
        copy = _seconds(lambda b=block: b + 1, cuda)  # type: ignore[misc]
        tiny = _seconds(lambda d=dot: d + 1, cuda)  # type: ignore[misc]
        rates[name] = {
            "macs_per_s": size**3 / product,
            "bytes_per_s": 2 * block.numel() * dtype.itemsize / copy,
            "op_s": tiny,
        }
    return rates


def _seconds(work: Callable[[], Any], cuda: bool, repeats: int = 5) -> float:
    import torch

    samples = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        samples.append(time.perf_counter() - began)
    return max(statistics.median(samples[2:]), 1e-9)
