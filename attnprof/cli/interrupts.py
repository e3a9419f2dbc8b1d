"""Ctrl-C: the first ends the work in order, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_LEFT = b"attnprof: interrupted twice: left at once. What was written is kept: run it again with --resume (without --fresh).\n"


@contextlib.contextmanager
def twice_leaves() -> Iterator[None]:
    """In here the first Ctrl-C raises KeyboardInterrupt, as ever; another one, while that is dealt with, ends the process.

    Children end with it (`attnprof.execute.server`). Nothing is torn: what goes to the store is written undivided.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, _first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Ctrl-C waits until this is through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _second)
    raise KeyboardInterrupt


def _second(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, _LEFT)
    os._exit(130)
