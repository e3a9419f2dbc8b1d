"""Running cases: every piece of work in a child process, every failure in its own row. The parent never imports torch.

    run_cases(cases, options=Options(), progress=None, counted=Counted()) -> Iterator[Record]
        One record per distinct case key, each yielded as soon as it is final: write it to the store at once. Devices must be
        concrete ('none', 'cpu', 'cuda:0'): `resolve_device` first. Ctrl-C: the child is killed, what was traced is yielded with
        status 'interrupted', then KeyboardInterrupt is raised. `Counted` keeps counts from one run to the next.
    resolve_device(wanted) -> (device, warning)
        'auto', 'cpu', 'cuda', 'cuda:N' or 'none' -> a concrete device, asked of NVML and confirmed by torch in a child.
    calibrate_all(cases, options, progress) -> Iterator[(Case, Calibrated)]
        The calibrated peaks alone; `Calibrated.added_to(record)` puts one into a record, as a run with
        `Options(calibrate=True)` does.
    Options(budget_s=5.0, run_budget_s=None, timeout_s=None, max_rel_ci=0.01, min_samples=10, seed=0, ...)
    Progress(stage, done, total, case, text): stage is 'trace', 'calibrate', 'measure', 'memory', 'time', 'confirm' or
        'warning'; `progress` gets these.

A record that is ok and was left unmeasured has a `detail` that starts with NOT_MEASURED_BUDGET or NOT_MEASURED_MEMORY.
Record.environment holds the provenance that `attnprof.store.reusable` compares, and, once measured, the machine.
"""

from __future__ import annotations

from attnprof.execute.calibrating import Calibrated, calibrate_all
from attnprof.execute.options import Options, Progress
from attnprof.execute.run import Counted, resolve_device, run_cases

__all__ = ["Calibrated", "Counted", "Options", "Progress", "calibrate_all", "resolve_device", "run_cases"]
