"""Which module a case asks for: the Mechanism of its name, or of its import path."""

from __future__ import annotations

from attnprof import mechanisms
from attnprof.records import Case, Mechanism


def load(case: Case) -> Mechanism:
    """The Mechanism of a case: from the catalogue, or the user's own class (runs the user's code)."""
    return mechanisms.load_imported(case.mechanism) if case.imported else mechanisms.load(case.mechanism)
