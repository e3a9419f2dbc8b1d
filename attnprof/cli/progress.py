"""Progress on stderr: a bar with time left on a terminal, one plain line per finished case otherwise."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attnprof.plain import printable

Listener = Callable[[Any], None]


@contextmanager
def progress(quiet: bool, budget_s: float | None = None) -> Iterator[Listener]:
    """A listener for `execute.Progress` events; `budget_s` bounds the time that measuring may still take."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        with _bar() as listener:
            yield listener
    else:
        yield _plain(budget_s)


def coloured() -> bool:
    """Whether stdout takes colour: a terminal that is not dumb, without NO_COLOR (no-color.org: set and not empty)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """A line on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def _plain(budget_s: float | None) -> Listener:
    began: dict[str, float] = {}

    def listen(event: Any) -> None:
        if event.stage == "warning":
            say(f"warning: {event.text}")
            return
        now = time.monotonic()
        passed = now - began.setdefault(event.stage, now)
        what = f" {event.case.label} {event.case.shape.text()} {event.case.mode}" if event.case is not None else ""
        text = f" {event.text}" if event.text else ""
        say(f"[{event.stage} {event.done}/{event.total}]{what}{text}{_left(event, passed, budget_s)}")

    return listen


def _left(event: Any, passed: float, budget_s: float | None) -> str:
    """Time left of a stage: in proportion to what is done, and at most what the budget still allows."""
    if not 0 < event.done < event.total or passed < 1:
        return ""
    left = passed / event.done * (event.total - event.done)
    if event.stage != "trace" and budget_s is not None:
        left = min(left, max(budget_s - passed, 0.0))
    return f" (about {left:.0f} s left)"


@contextmanager
def _bar() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.fields[stage]:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def listen(event: Any) -> None:
            if event.stage == "warning":
                bar.console.print(f"warning: {printable(event.text)}", markup=False)
                return
            if event.stage not in tasks:
                tasks[event.stage] = bar.add_task("", total=event.total, stage=event.stage)
            what = f"{event.case.label} {event.case.shape.text()}" if event.case is not None else event.text
            bar.update(
                tasks[event.stage],
                completed=event.done,
                total=event.total,
                description=printable(what[:40]).replace("[", r"\["),
            )

        yield listen
