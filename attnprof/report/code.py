"""Which rows of a report are from different code: a run was killed after an edit, and nobody has gone on with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnprof.profiling.provenance import CODE, PROVENANCE, is_of_two
from attnprof.records import Record
from attnprof.report.text import clean


def comparable(members: Iterable[Record]) -> bool:
    """Whether one of these rows can be the best of them: all were come to, and those of a module are from one code."""
    every = list(members)
    return not any(record.status == "interrupted" for record in every) and not _mixed(every)


def different_code(records: Iterable[Record]) -> list[str]:
    """A sentence where rows of one module are from different code."""
    named = ", ".join(clean(name) for name in _mixed(records))
    return [f"Rows of {named} are from different code: the same `attnprof run` with --resume renews them."] if named else []


def _mixed(records: Iterable[Record]) -> Sequence[str]:
    """The mechanisms, once each."""
    found: dict[tuple[str, str | None], set[tuple[str, ...]]] = {}
    for record in records:
        if record.counts is not None or record.status == "ok":
            made = record.environment.get(PROVENANCE, {})
            host = None if record.case.host is None else record.case.host.host
            found.setdefault((record.case.mechanism, host), set()).add(tuple(str(made.get(name)) for name in CODE))
    return list(
        dict.fromkeys(mechanism for (mechanism, _), codes in found.items() if len(codes) > 1 or is_of_two(next(iter(codes))[0]))
    )
