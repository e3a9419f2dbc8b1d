"""Modules that print without end and write into descriptors that are not theirs. Imported by path, in children only."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from pathlib import Path

from torch import Tensor, nn

CHUNK = b"x" * 65536


class Good(nn.Module):
    """A pointwise convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


def descriptors() -> list[int]:
    """What this process has open, but for stdin."""
    return [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if int(entry.name) > 2]


def mode_of(descriptor: int) -> int:
    """What kind of file it is; 0 for one that is gone."""
    try:
        return os.fstat(descriptor).st_mode
    except OSError:
        return 0


def write_everywhere(data: bytes) -> None:
    """Into everything that takes it."""
    for descriptor in [1, 2, *descriptors()]:
        with contextlib.suppress(OSError):
            os.write(descriptor, data)


class PrintsForEver(Good):
    """Fast, without end and without a line break."""

    def forward(self, x: Tensor) -> Tensor:
        print("the last line that counts")
        while True:
            os.write(1, CHUNK)


class Garbles(Good):
    """Writes what is no message everywhere, and goes on as if nothing had been."""

    def forward(self, x: Tensor) -> Tensor:
        write_everywhere(b"\x00garbage \xff\n" * 100 + b"without an end")
        return super().forward(x)


class Forges(Good):
    """Writes what looks like messages."""

    def forward(self, x: Tensor) -> Tensor:
        forged: tuple[object, ...] = (
            {"event": "traced", "key": "?"},
            {"event": "end"},
            {"event": 1},
            [],
            7,
            None,
            {"pid": os.getpid(), "status": 0},
        )
        for event in forged:
            write_everywhere(json.dumps(event).encode() + b"\n")
        return super().forward(x)


class Floods(Good):
    """Without end and without a line break, where its results go."""

    def forward(self, x: Tensor) -> Tensor:
        sockets = [one for one in descriptors() if stat.S_ISSOCK(mode_of(one))]
        while True:
            for descriptor in sockets:
                os.write(descriptor, CHUNK * 16)


class Shrinks(Good):
    """Cuts every file that it finds off."""

    def forward(self, x: Tensor) -> Tensor:
        for descriptor in descriptors():
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
        return super().forward(x)


class Closes(Good):
    """Closes what is not its own."""

    def forward(self, x: Tensor) -> Tensor:
        print("closing")
        sys.stdout.flush()
        for descriptor in descriptors():
            with contextlib.suppress(OSError):  # what listed them
                os.close(descriptor)
        return super().forward(x)
