"""Progress on stderr: a bar with time left on a terminal, one plain line per finished case otherwise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Listener = Callable[[Any], None]


@contextmanager
def progress(quiet: bool) -> Iterator[Listener]:
    """A listener for `execute.Progress` events."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        with _bar() as listener:
            yield listener
    else:
        yield _plain(time.monotonic())


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _plain(start: float) -> Listener:
    def listen(event: Any) -> None:
        if event.stage == "warning":
            say(f"warning: {event.text}")
            return
        left = ""
        passed = time.monotonic() - start
        if 0 < event.done < event.total:
            left = f" (about {passed / event.done * (event.total - event.done):.0f} s left)" if event.stage == "measure" else ""
        what = f" {event.case.label} {event.case.shape.text()} {event.case.mode}" if event.case is not None else ""
        text = f" {event.text}" if event.text else ""
        say(f"[{event.stage} {event.done}/{event.total}]{what}{text}{left}")

    return listen


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.fields[stage]:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def listen(event: Any) -> None:
            if event.stage == "warning":
                bar.console.print(f"warning: {event.text}", markup=False)
                return
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task("", total=event.total, stage=event.stage)
            what = f"{event.case.label} {event.case.shape.text()}" if event.case is not None else event.text
            bar.update(tasks[event.stage], completed=event.done, total=event.total, description=what[:40].replace("[", r"\["))

        yield listen
