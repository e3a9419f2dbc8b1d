"""The board: a page of shared memory on which a child says which member it is working on, and for how long it has.

A line per turn would wake the parent in the middle of a measurement; the board costs the child two stores. The parent reads
it when a deadline may have passed or the child has died, so that a hang or a crash is charged to the member in progress.
Layout, doubles: [current member or -1, since when (monotonic), seconds spent by member 0, 1, ...].
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass

_HEAD = 2


@dataclass(frozen=True)
class Board:
    """One side's view of the page."""

    cells: memoryview[float]

    def turn_to(self, member: int) -> None:
        """Charge the time so far to the member before, and start the clock of `member` (-1: nobody's)."""
        cells, now = self.cells, time.monotonic()
        current = int(cells[0])
        if current >= 0:
            cells[_HEAD + current] += now - cells[1]
        cells[1] = now
        cells[0] = member

    def spent_s(self, member: int) -> float:
        """Seconds charged to a member, its running turn included."""
        running = time.monotonic() - self.cells[1] if int(self.cells[0]) == member else 0.0
        return float(self.cells[_HEAD + member]) + running

    @property
    def idle_s(self) -> float:
        """Seconds for which nobody has had a turn."""
        return time.monotonic() - float(self.cells[1]) if self.current < 0 else 0.0

    @property
    def current(self) -> int:
        """The member in progress, -1 for none."""
        return int(self.cells[0])


def create(descriptor: int, members: int) -> Board:
    """Lay the page out in an empty file and map it."""
    os.ftruncate(descriptor, 8 * (_HEAD + members))
    board = attach(descriptor)
    board.cells[0], board.cells[1] = -1.0, time.monotonic()
    return board


def attach(descriptor: int) -> Board:
    """Map a page that the other side has laid out."""
    return Board(memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("d"))
