"""What this machine reaches: memory bandwidth out of cache, matmul and element-wise rates, and the time of an empty call.

Every figure is the best of several runs, in rounds some seconds apart: it stands for what cannot be beaten. Bandwidth counts
the bytes that the kernel asks for: copy reads and writes n, triad (a = b + s c) reads 2 n and writes n, read sums n; where a
write first fetches its cache line, more than that moves. Imports torch when called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attnprof.profiling.measuring import device as devices
from attnprof.records import DTYPES

_KERNEL_S = 0.12  # for one kernel at one size, about
_ROUNDS = 3
_REPEATS = 5
_CALLS = 1000
_CACHES = {"cpu": 4, "cuda": 16}  # the arrays of the bandwidth kernels are so many times the last cache
_MEMORY_SHARE = 0.1  # of the free memory, for one array
_LARGEST = {"cpu": 2048, "cuda": 8192}
_VECTOR_SIZES = tuple(2**power for power in range(10, 18))
_VECTOR_SIZES_CUDA = tuple(2**power for power in range(18, 26, 2))


def measure(device: str, threads: int = 1) -> dict[str, Any]:
    """The roofline of a device: facts about it, and rates by dtype in base units (JSON types only).

    Keys: device, name, machine, torch, threads (CPU), flags, cache_bytes, array_bytes, tf32_macs_per_s (CUDA), and `dtypes`:
    {dtype: {copy_bytes_per_s, triad_bytes_per_s, read_bytes_per_s, macs_per_s, matmul_size, vector_flops_per_s, op_s}}.
    Threads and flags of the process are set, and put back. The device must be usable.
    """
    import torch

    cuda = device.startswith("cuda")
    facts = devices.environment(device)
    cache = devices.cache_bytes(device)
    array = min(_CACHES["cuda" if cuda else "cpu"] * cache, int(devices.free_bytes(device) * _MEMORY_SHARE))
    with _flags_set(threads), torch.no_grad():
        flags = devices.flags()
        rounds = [{name: _of_dtype(device, getattr(torch, name), array) for name in DTYPES} for _ in range(_ROUNDS)]
        found: dict[str, Any] = {
            "device": device,
            "name": facts["gpu"] if cuda else facts["cpu"],
            "machine": facts["machine"],
            "torch": facts["torch"],
            "threads": None if cuda else threads,
            "flags": flags,
            "cache_bytes": cache,
            "array_bytes": array,
            "load_1m": facts["load_1m"],
            "dtypes": {name: best_of([each[name] for each in rounds]) for name in DTYPES},
        }
        if cuda and torch.cuda.get_device_capability(device)[0] >= 8:
            torch.backends.cuda.matmul.allow_tf32 = True
            found["tf32_macs_per_s"] = {"tf32": _matmul(device, torch.float32)[0]}
    return found


def best_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One row of the best figures of several: the most per second, the least seconds; a matmul's size goes with its rate."""
    best = {key: (min if key == "op_s" else max)(row[key] for row in rows) for key in rows[0]}
    return best | {"matmul_size": max(rows, key=lambda row: row["macs_per_s"])["matmul_size"]}


@contextmanager
def _flags_set(threads: int) -> Iterator[None]:
    """The flags that measuring sets for a case that asks for nothing special."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (torch.get_num_threads(), matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    torch.set_num_threads(threads)
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before[1:]


def _of_dtype(device: str, dtype: Any, array_bytes: int) -> dict[str, float]:
    macs, size = _matmul(device, dtype)
    return _bandwidth(device, dtype, array_bytes) | {
        "macs_per_s": macs,
        "matmul_size": size,
        "vector_flops_per_s": _vector(device, dtype),
        "op_s": _call(device, dtype),
    }


def _bandwidth(device: str, dtype: Any, array_bytes: int) -> dict[str, float]:
    import torch

    count = array_bytes // dtype.itemsize
    a, b, c = (torch.ones(count, device=device, dtype=dtype) for _ in range(3))
    size = count * dtype.itemsize
    return {
        "copy_bytes_per_s": 2 * size / best_s(lambda: a.copy_(b), device),
        "triad_bytes_per_s": 3 * size / best_s(lambda: torch.add(b, c, alpha=3, out=a), device),
        "read_bytes_per_s": size / best_s(b.sum, device),
    }


def _matmul(device: str, dtype: Any) -> tuple[float, int]:
    """(MACs per second, size) of the square matmul that reaches most; sizes double until the time is used up."""
    import torch

    largest = _LARGEST["cuda" if device.startswith("cuda") else "cpu"]
    best, best_size, size, began = 0.0, 0, 128, time.perf_counter()
    while size <= largest:
        left, right, out = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(3))
        seconds = best_s(lambda a=left, b=right, c=out: torch.mm(a, b, out=c), device)  # type: ignore[misc]
        if size**3 / seconds > best:
            best, best_size = size**3 / seconds, size
        size *= 2
        if time.perf_counter() - began + 8 * seconds * _REPEATS > 6 * _KERNEL_S:
            break
    return best, best_size


def _vector(device: str, dtype: Any) -> float:
    """FLOPs per second of a + b c, two per element, on arrays that lie in a cache."""
    import torch

    best = 0.0
    for count in _VECTOR_SIZES_CUDA if device.startswith("cuda") else _VECTOR_SIZES:
        a, b, c, out = (torch.ones(count, device=device, dtype=dtype) for _ in range(4))
        seconds = best_s(lambda a=a, b=b, c=c, out=out: torch.addcmul(a, b, c, out=out), device, calls=20)  # type: ignore[misc]
        best = max(best, 2 * count / seconds)
    return best


def _call(device: str, dtype: Any) -> float:
    """Seconds from one call of a tiny op to the next, many of them in a row: on CUDA without waiting for each."""
    import torch

    tiny = torch.ones(8, device=device, dtype=dtype)
    return best_s(lambda: tiny + tiny, device, calls=_CALLS)


def best_s(work: Callable[[], Any], device: str, calls: int = 1, repeats: int = _REPEATS) -> float:
    """The least seconds of one call, of `repeats` runs of `calls` calls each; at most `_KERNEL_S` in all, but once at least.

    A first run warms up and is not counted, unless it alone takes that long.
    """
    cuda = device.startswith("cuda")
    began = time.perf_counter()
    warmup = _run_s(work, cuda, calls)
    samples: list[float] = []
    while len(samples) < repeats and time.perf_counter() - began < _KERNEL_S:
        samples.append(_run_s(work, cuda, calls))
    return max(min(samples, default=warmup), 1e-9) / calls


def _run_s(work: Callable[[], Any], cuda: bool, calls: int) -> float:
    """Wall time of `calls` calls, on CUDA up to the end of the last."""
    if cuda:
        import torch

        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls):
        work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
