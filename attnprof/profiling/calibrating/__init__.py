"""Peak memory with what kernels take beside tensors: each distinct op of a trace is run once alone, on this machine.

    calibrate_case(case, cache, ...) -> Calibration      calibrate.py: trace, probe, add up
    record(case), record_module(module, ...) -> Recorded  recorder.py: a trace that remembers its calls
    probe(call, device) -> Probe                          probes.py: one op alone, its own peak
    Cache(folder, processor)                              cache.py: probes that were made before, on disk
    profiled(run) -> events                               allocator.py: what torch's CPU allocator gave and took

The peak to be expected is the largest sum of the bytes alive before a call and that call's own peak. Nothing is fitted: an op
that was not probed at exactly these sizes, strides and types has no number. The result is called calibrated, never traced: it
depends on the processor, on the versions of torch and its libraries, and on the number of threads.
"""
