"""Which columns a report shows: METRIC, METRIC.value, METRIC.delta, METRIC.ratio; ratio or delta for all that are named.

A metric alone is its value. Nothing here knows a table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from attnprof.errors import UsageError
from attnprof.report.metrics import METRICS, metric

KINDS = ("value", "delta", "ratio")
_FOR_ALL = ("delta", "ratio")


def chosen_metrics(columns: Iterable[str]) -> tuple[str, ...]:
    """The metrics that the words name, in their order, once each. Raises UsageError with the nearest name."""
    return tuple(dict.fromkeys(key for key, _ in _read(columns) if key))


def picked(columns: Iterable[str], metrics: Sequence[str], baseline: str | None) -> frozenset[tuple[str, str]]:
    """{(metric, kind of column)} that the words ask for; empty for no words: everything.

    Raises UsageError for a word that means nothing, and for a ratio or delta without a baseline.
    """
    words = _read(columns)
    compared = next((kind for _, kind in words if kind in _FOR_ALL), None)
    if compared and baseline is None:
        raise UsageError(f"there is no {compared} column: the run has no baseline. Name one in the spec: `baseline: NAME`.")
    return frozenset((key, kind) for each, kind in words for key in ([each] if each else metrics))


def _read(columns: Iterable[str]) -> list[tuple[str, str]]:
    """(metric, kind) of every word; the metric is '' where the word is about all of them."""
    out = []
    for word in columns:
        name, dot, kind = word.partition(".")
        if word in _FOR_ALL:
            out.append(("", word))
        elif dot and kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            advice = f"did you mean '{name}.{near[0]}'?" if near else f"a metric has {', '.join(KINDS)}."
            raise UsageError(f"no column is called '{word}': {advice}")
        else:
            out.append((_metric(word, name), kind or "value"))
    return out


def _metric(word: str, name: str) -> str:
    try:
        return metric(name).key
    except UsageError:
        near = difflib.get_close_matches(name, [*METRICS, *_FOR_ALL], n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join((*METRICS, *_FOR_ALL))}."
        raise UsageError(f"no column is called '{word}': {advice}") from None
