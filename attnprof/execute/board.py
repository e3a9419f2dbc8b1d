"""The board: a page of shared memory on which a child says which member it is working on, and for how long it has.

A line per turn would wake the parent in the middle of a measurement; the board costs the child two stores. The parent reads
it when a deadline may have passed or the child has died, so that a hang or a crash is charged to the member in progress.
Layout, doubles: [current member or -1, since when (monotonic), seconds spent by member 0, 1, ...].

Whatever a user's module writes into the descriptors that it finds, the page is not among it: Linux seals it once the child has
mapped it. Elsewhere a page that holds nonsense names nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO

_HEAD = 2
_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE of Linux 5.1: what is mapped stays writable, nothing else is


@dataclass(frozen=True)
class Board:
    """One side's view of the page."""

    cells: memoryview[float]

    def turn_to(self, member: int) -> None:
        """Charge the time so far to the member before, and start the clock of `member` (-1: nobody's)."""
        cells, now, current = self.cells, time.monotonic(), self.current
        if current >= 0:
            cells[_HEAD + current] += now - cells[1]
        cells[1] = now
        cells[0] = member

    def spent_s(self, member: int) -> float:
        """Seconds charged to a member, its running turn included."""
        running = time.monotonic() - self.cells[1] if self.current == member else 0.0
        spent = float(self.cells[_HEAD + member]) + running
        return math.inf if math.isnan(spent) else spent

    @property
    def idle_s(self) -> float:
        """Seconds for which nobody has had a turn."""
        return time.monotonic() - float(self.cells[1]) if self.current < 0 else 0.0

    @property
    def current(self) -> int:
        """The member in progress, -1 for none."""
        member = float(self.cells[0])
        return int(member) if 0 <= member < len(self.cells) - _HEAD else -1


def page() -> IO[bytes]:
    """An empty file for a board, in memory where that can be had."""
    if sys.platform != "linux":
        return tempfile.TemporaryFile()
    return os.fdopen(os.memfd_create("attnprof board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+b")


def create(descriptor: int, members: int) -> Board:
    """Lay the page out in an empty file and map it."""
    os.ftruncate(descriptor, 8 * (_HEAD + members))
    board = _mapped(descriptor)
    board.cells[0], board.cells[1] = -1.0, time.monotonic()
    return board


def attach(descriptor: int) -> Board:
    """Map a page that the other side has laid out; from now on it can be changed through the two maps only."""
    board = _mapped(descriptor)
    if sys.platform == "linux":
        for seals in (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, _FUTURE_WRITE):  # older kernels lack the second
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return board


def _mapped(descriptor: int) -> Board:
    return Board(memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("d"))
