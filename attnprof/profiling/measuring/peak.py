"""Peak memory as an allocator saw it: a pass of its own, after a warm-up pass, above what was allocated before.

CPU: the running sum of the allocator events of torch's profiler (source 'cpu_allocator'); what a maths library allocates
without torch's allocator is not in it. CUDA: max_memory_allocated (source 'cuda_allocator'). The incoming gradient is
allocated inside the pass, the outputs live until it ends, as the tracer counts them.
"""

from __future__ import annotations

import gc
import itertools

import torch

from attnprof.profiling.measuring.prepare import Prepared, UnsupportedError, backward, conditions, forward, prepare, reset
from attnprof.records import Case, Memory


def measure_peak(case: Case, seed: int) -> Memory:
    """Build a case, warm it up, and measure the peak of one pass."""
    prepared = prepare(case, seed)
    with conditions(case):
        _one_pass(prepared)
        reset(prepared)
        gc.collect()
        return _cuda(prepared) if case.device.startswith("cuda") else _cpu(prepared)


def _one_pass(prepared: Prepared) -> None:
    outputs = forward(prepared)
    if prepared.training:
        backward(prepared, outputs)


def _cuda(prepared: Prepared) -> Memory:
    device = prepared.case.device
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _one_pass(prepared)
    torch.cuda.synchronize(device)
    highest = torch.cuda.max_memory_allocated(device)
    return Memory(highest - before, "cuda_allocator", highest)


def _cpu(prepared: Prepared) -> Memory:
    # not torch.profiler.profile, the same thing in a coat: it imports torch's compiler first (2 s)
    with torch.autograd.profiler.profile(profile_memory=True) as profiled:
        _one_pass(prepared)
    results = profiled.kineto_results
    if results is None:
        raise UnsupportedError("this torch's profiler reports no allocator events")
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    peak = max(itertools.accumulate((event.nbytes() for event in events), initial=0))
    return Memory(peak, "cpu_allocator", peak + _resident(prepared))


def _resident(prepared: Prepared) -> int:
    """Bytes of parameters, buffers and inputs, each storage once."""
    tensors = (*prepared.module.parameters(), *prepared.module.buffers(), *prepared.inputs)
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
