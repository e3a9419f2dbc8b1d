"""The claims that are shipped, read once per process: it takes 2 s."""

from __future__ import annotations

from functools import cache

from attnprof.claims import Paper
from attnprof.cli.verify import read


@cache
def papers_of_claims() -> tuple[Paper, ...]:
    """Every shipped paper with its claims."""
    return read(())
