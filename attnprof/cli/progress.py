"""Progress on stderr: a bar with time left on a terminal, one plain line per finished case otherwise.

Time left is what the executor predicts; a stage that predicts nothing goes by what has passed. Of a stage
with many cases a line per second is said, not one per case.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attnprof.plain import printable

Listener = Callable[[Any], None]
_MANY = 200  # cases of a stage, from which not each is said
_EVERY_S = 1.0


@contextmanager
def progress(quiet: bool, budget_s: float | None = None) -> Iterator[Listener]:
    """A listener for `execute.Progress` events; `budget_s` bounds the time that measuring may still take."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        with _bar(budget_s) as listener:
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
    said: dict[str, float] = {}

    def listen(event: Any) -> None:
        if event.stage == "warning":
            say(f"warning: {event.text}")
            return
        now = time.monotonic()
        passed = now - began.setdefault(event.stage, now)
        if event.total > _MANY and event.done < event.total and now - said.get(event.stage, 0.0) < _EVERY_S:
            return
        said[event.stage] = now
        what = f" {event.case.label} {event.case.shape.text()} {event.case.mode}" if event.case is not None else ""
        text = f" {event.text}" if event.text else ""
        left = time_left(event, passed, budget_s)
        say(f"[{event.stage} {event.done}/{event.total}]{what}{text}" + (f" ({left} left)" if left else ""))

    return listen


def time_left(event: Any, passed: float, budget_s: float | None = None) -> str:
    """'about 8 s' of a stage: as predicted, else in proportion to what is done; at most what the budget still allows."""
    left = seconds_left(event, passed, budget_s)
    return "" if left is None else _about(left)


def seconds_left(event: Any, passed: float, budget_s: float | None = None) -> float | None:
    """The same in seconds; None where nothing is known yet, or nothing is left."""
    if not event.done < event.total:
        return None
    left: float | None = event.left_s
    if left is None or event.stage == "trace":
        if event.done == 0 or passed < 1:
            return None
        left = passed / event.done * (event.total - event.done) if left is None else left
    if event.stage != "trace" and budget_s is not None:
        left = min(left, max(budget_s - passed, 0.0))
    return left


def _about(left: float) -> str:
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if left >= 1.5 * seconds:
            return f"about {left / seconds:.2g} {unit}"
    return f"about {left:.0f} s"


@contextmanager
def _bar(budget_s: float | None) -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        """Time left, counted down from the latest prediction: a block says nothing before it is through."""

        def render(self, task: Task) -> Text:
            due: float | None = task.fields["due"]
            return Text(f"{'' if due is None else _about(max(due - time.monotonic(), 0.0)):>14}")

    columns = (TextColumn("{task.fields[stage]:<8}"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}
        began: dict[str, float] = {}

        def listen(event: Any) -> None:
            if event.stage == "warning":
                bar.console.print(f"warning: {printable(event.text)}", markup=False)
                return
            now = time.monotonic()
            if event.stage not in tasks:
                began[event.stage] = now
                tasks[event.stage] = bar.add_task("", total=event.total, stage=event.stage, due=None)
            what = f"{event.case.label} {event.case.shape.text()}" if event.case is not None else event.text
            left = seconds_left(event, now - began[event.stage], budget_s)
            due = None if left is None else now + left
            what = printable(what[:40]).replace("[", r"\[")
            bar.update(tasks[event.stage], completed=event.done, total=event.total, description=what, due=due)

        yield listen
