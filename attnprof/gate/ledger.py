"""A baseline that changes: saved anew it keeps its ledger of accepted changes, and accepting adds to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from attnprof.errors import NothingSelectedError
from attnprof.gate.baseline import Accepted, Baseline, Point
from attnprof.gate.rows import POINT


def merged(old: Baseline | None, new: Baseline) -> Baseline:
    """A baseline that is saved anew keeps the ledger of the old one, but for what is of no point any more or gone no more.

    So it does the ratios, where none were measured for the new one.
    """
    if old is None:
        return new
    accepted = tuple(each for each in old.accepted if (each.key in new.points) != (each.metric == POINT))
    return _of_points(replace(new, accepted=accepted, ratios=new.ratios or old.ratios))


def _of_points(baseline: Baseline) -> Baseline:
    """Without ratios of what is no point of it any more."""
    held = baseline.ratios
    kept = {} if held is None else {key: each for key, each in held.points.items() if key in baseline.points}
    return replace(baseline, ratios=replace(held, points=kept) if held is not None and kept else None)


def accept(baseline: Baseline, changes: Iterable[Accepted]) -> Baseline:
    """The baseline with changes accepted: values changed, points gone, and a line each in the ledger; what was is left alone.

    Raises NothingSelectedError where a point does not have the value that a change begins with: the gate saw another file.
    """
    points, ledger = dict(baseline.points), list(baseline.accepted)
    for change in changes:
        point = points.get(change.key)
        known = _known(point, change.metric)
        if known == change.after:
            continue  # accepted before
        if point is None or known != change.before:
            have = "not there" if known is None else f"{known:,}"
            raise NothingSelectedError(
                f"{change.label} {change.point}: {change.metric} is {have} in the baseline, not {change.before:,}: "
                "the gate's report is about another baseline. Run the gate again."
            )
        if change.metric == POINT:
            del points[change.key]
        else:
            points[change.key] = replace(point, metrics={**point.metrics, change.metric: change.after})
        ledger.append(change)
    return _of_points(replace(baseline, points=points, accepted=tuple(ledger)))


def _known(point: Point | None, metric: str) -> int | None:
    """What a baseline has of a point: a number, or under POINT whether it is there."""
    if metric == POINT:
        return 0 if point is None else 1
    return None if point is None else point.metrics.get(metric)
