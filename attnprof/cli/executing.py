"""`--executor`: on this machine, or on a Ray cluster that the command joins for as long as it runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from attnprof.cli.progress import say
from attnprof.errors import UsageError

EXECUTORS = ("local", "ray")


def joined(executor: str, address: str | None, quiet: bool) -> AbstractContextManager[None]:
    """Within it, the cluster is there."""
    if executor == "ray":
        from attnprof.execute.on_ray import connected

        return connected(address, (lambda _: None) if quiet else say)
    if address is not None:
        raise UsageError("--ray-address belongs to --executor ray.")
    return nullcontext()


def execution(executor: str) -> Any:
    """The module that has `run_cases` and `resolve_device`."""
    from attnprof import execute
    from attnprof.execute import on_ray

    return on_ray if executor == "ray" else execute
