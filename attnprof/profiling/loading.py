"""Which module a case asks for: the Mechanism of its name, or of its import path; with a host, the whole network."""

from __future__ import annotations

from attnprof import mechanisms
from attnprof.records import Case, Mechanism


def load(case: Case) -> Mechanism:
    """The Mechanism of a case: from the catalogue, or the user's own class (runs the user's code).

    That of a case with a host builds the network, with what the case places in it.
    """
    if case.host is not None:
        from attnprof.profiling import placing

        return placing.network_of(case)
    return mechanisms.load_imported(case.mechanism) if case.imported else mechanisms.load(case.mechanism)
