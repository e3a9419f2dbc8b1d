"""Ctrl-C, SIGTERM, SIGHUP: the first ends the work in order, the second leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_OF_A_RUN = "What was written is kept: run it again with --resume (without --fresh)."
# Ctrl-C, a scheduler's time limit, a terminal that is gone
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_undivided = False
_waiting = 0  # signals that came while something was written undivided
_first_came = False
_left = ""  # what is said where the process ends at once


@contextlib.contextmanager
def twice_leaves(kept: str = _OF_A_RUN) -> Iterator[None]:
    """In here the first signal raises KeyboardInterrupt; another one, while that is dealt with, ends the process.

    `kept`: what is said then of the work that was done. Children end with the process (`attnprof.execute.server`). Nothing is
    torn: what goes to the store is written undivided. A signal that is ignored (nohup) stays so.
    """
    global _first_came, _left
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _first_came, _left = False, f"attnprof: interrupted twice: left at once. {kept}\n"
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _came)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A signal waits until this is through.

    No mask of signals would do: one that is sent to the process is taken by another thread (a progress bar has one), and Python
    calls the handler in the main thread all the same.
    """
    global _undivided, _waiting
    _undivided = True
    try:
        yield
    finally:
        _undivided = False
        came, _waiting = _waiting, 0
        if came:
            _act(came)


def _came(number: int, frame: FrameType | None) -> None:
    global _waiting
    if _undivided:
        _waiting += 1
    else:
        _act(1)


def _act(times: int) -> NoReturn:
    global _first_came
    if _first_came or times > 1:
        os.write(2, _left.encode())
        os._exit(130)
    _first_came = True
    raise KeyboardInterrupt
