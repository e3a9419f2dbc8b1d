"""Whether other work had the core while a pass was timed: how long the thread was ready to run and waited for a core.

Linux counts it per thread (`/proc/thread-self/schedstat`: nanoseconds on a core, nanoseconds waited, time slices). Not seen are
other threads of a pass, a neighbour that shares a cache or the memory's bandwidth, and, in a virtual machine, other machines.
"""

from __future__ import annotations

from pathlib import Path

_SCHEDULED = Path("/proc/thread-self/schedstat")
_BUSY_SHARE = 0.05
BUSY = f"other work had the core for over {100 * _BUSY_SHARE:g} % of the time that was measured: repeat it on an idle machine"


def waited_s() -> float:
    """Seconds since its start that this thread was ready to run and had no core; 0.0 where the system does not tell."""
    try:
        return int(_SCHEDULED.read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def is_busy(waited_s: float, timed_s: float) -> bool:
    """Whether so much waiting in so many seconds of timed passes is worth a warning."""
    return waited_s > _BUSY_SHARE * timed_s
