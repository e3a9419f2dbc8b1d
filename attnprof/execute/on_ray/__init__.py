"""Running cases on a Ray cluster: the same phases, every piece of work a Ray task, the driver the only one that writes.

    with connected(address):                     # None: RAY_ADDRESS, or a Ray started on this machine alone
        device, warning = resolve_device("auto")
        for record in run_cases(cases, options, progress): ...

A task runs the isolated runner of `attnprof.execute` on its node: a module runs in a child of the Ray worker.
Traces go anywhere, a chunk per task. Measuring has one lane per GPU, or one per host on CPUs, and a lane one block at a time.
What the cluster loses (a worker, a node) is tried again, at most twice; what a mechanism does is a result. Ray is called in
`connecting` and `crew` alone, and imported when they are called: it is an extra, `attnprof[ray]`.
"""

from __future__ import annotations

from attnprof.execute.on_ray.connecting import connected
from attnprof.execute.on_ray.phases import resolve_device, run_cases

__all__ = ["connected", "resolve_device", "run_cases"]
