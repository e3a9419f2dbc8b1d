"""What the caller may choose about a run, and what it is told while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attnprof.records import Case

LONGEST_S = 300.0


@dataclass(frozen=True)
class Options:
    """Budgets and bounds of a run. Seconds and bytes.

    budget_s: sampling time per case. run_budget_s: the whole measuring phase, None for no bound. timeout_s: per case and child,
    start of the child excluded; None: what is measured gets 20 times what it is predicted to take, at least a minute, and
    everything else LONGEST_S. min_samples: fewer than these are no measurement. memory_bytes: what a child on the CPU may
    allocate, None for what the machine has available. start: 'fork' (from the preloaded server), 'spawn' (a fresh
    interpreter) or 'auto'. first: the label that is measured first in its block (the baseline: ratios need it). calibrate:
    find the calibrated peak of every case that has a device, too. replicates: how many processes time each block, each with
    its own budget_s; from two on they are spawned, since forks share one memory layout. tracer: where a child finds the
    function Case -> Counts, or -> Record with the timeline of memory beside them. jobs: children that count at once, None for
    one per core.
    """

    budget_s: float = 5.0
    run_budget_s: float | None = None
    timeout_s: float | None = None
    max_rel_ci: float = 0.01
    min_samples: int = 10
    seed: int = 0
    first: str | None = None
    memory_bytes: int | None = None
    start: str = "auto"
    calibrate: bool = False
    replicates: int = 1
    tracer: str = "attnprof.profiling.timeline:trace_record"
    jobs: int | None = None

    @property
    def bound_s(self) -> float:
        """Seconds that a case may take where nothing predicts them."""
        return LONGEST_S if self.timeout_s is None else self.timeout_s

    @property
    def spawn(self) -> bool:
        """Whether a child that times is a fresh interpreter."""
        return self.start == "spawn" or (self.start == "auto" and self.replicates > 1)


@dataclass(frozen=True)
class Progress:
    """One step of a run: `done` of `total` cases of this stage are through; `case` is the latest; `text` is for people.

    left_s: seconds that the rest of the stage is predicted to take; None where nothing predicts them.
    """

    stage: str  # trace, calibrate, measure, memory, time, confirm, warning
    done: int = 0
    total: int = 0
    case: Case | None = None
    text: str = ""
    left_s: float | None = None


Listener = Callable[[Progress], None]
