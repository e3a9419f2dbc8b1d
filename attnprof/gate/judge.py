"""The exact gate: the points of now against those of a baseline, integer by integer. Pure.

An increase beyond the tolerance is a regression, a decrease an improvement that passes; where the direction of a metric is
'equal' (--strict), any difference beyond the tolerance is a regression. Points are matched by case key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attnprof.gate.baseline import SPEC, Accepted, Baseline, Made, Point, remake
from attnprof.gate.rows import EXACT, POINT, Outcome, Reason, Row
from attnprof.report.text import clean
from attnprof.spec.quantities import NONE, Tolerance
from attnprof.spec.values import EXACT_METRICS

LOWER, EQUAL = "lower", "equal"
_DETAIL = 160  # characters of a failure


@dataclass(frozen=True)
class Rules:
    """How strictly. directions: {metric: 'lower' or 'equal'}, 'lower' where nothing is said; missing_fails: vanished points."""

    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    directions: Mapping[str, str] = field(default_factory=dict)
    missing_fails: bool = True


def judge(
    baseline: Baseline, points: Sequence[Point], rules: Rules | None = None, places: Mapping[str, tuple[int, int]] | None = None
) -> list[Row]:
    """A row per metric of every point of now, one for each new, failed or vanished point. `places`: {label: (line, column)}."""
    rules, places = rules or Rules(), places or {}
    now = {point.key: point for point in points}
    ledger = {(each.key, each.metric): each for each in baseline.accepted}
    rows: list[Row] = []
    for point in now.values():
        before = baseline.points.get(point.key)
        place = places.get(point.label, (0, 0))
        rows += _failure(before, point, place) or _point(before, point, rules, ledger, place)
    rows += [_vanished(point, rules) for key, point in baseline.points.items() if key not in now]
    return rows


def mismatch(baseline: Baseline, made: Made, file: str, spec: str = SPEC) -> str:
    """Why nothing can be compared with a baseline: '' where it can. `spec`: the file of the spec, for the advice."""
    if baseline.made.torch == made.torch:
        return ""
    return (
        f"{file} was made with torch {baseline.made.torch}, and here is {made.torch}: what an op is made of may differ. "
        f"Make it anew with `{remake(file, spec)}`, or install torch {baseline.made.torch}."
    )


def other_code(baseline: Baseline, made: Made) -> str:
    """A sentence where the numbers of the baseline were counted by other code of attnprof; '' otherwise."""
    if baseline.made.counting == made.counting:
        return ""
    return (
        f"The baseline was counted by attnprof {baseline.made.attnprof} ({baseline.made.counting}), now it is "
        f"{made.attnprof} ({made.counting}): a difference may come from that."
    )


def mismatched(points: Iterable[Point], reason: Reason, why: str, places: Mapping[str, tuple[int, int]]) -> list[Row]:
    """A row for every point that cannot be compared; a single one where there is no point."""
    rows = [
        _row(point, reason, Outcome.MISMATCH, f"{point.name}: not compared: {why}", places.get(point.label, (0, 0)))
        for point in points
    ]
    return rows or [Row(EXACT, reason, Outcome.MISMATCH, why)]


def _failure(before: Point | None, point: Point, place: tuple[int, int]) -> list[Row]:
    """The row of a point that failed, now or before; none where it did neither."""
    if point.status != "ok":
        detail = clean(point.detail)[:_DETAIL] if point.detail else ""
        what = f"{point.name}: {point.status}" + (f": {detail}" if detail else "")
        if before is not None and before.status != "ok":
            return [_row(point, Reason.FAILED_BEFORE, Outcome.PASS, f"{what} (as in the baseline: {before.status})", place)]
        known = "is not in the baseline" if before is None else "was counted in the baseline"
        return [_row(point, Reason.FAILED, Outcome.FAILED, f"{what} (it {known})", place)]
    if before is not None and before.status != "ok":
        told = f"{point.name}: counted now, in the baseline it was {before.status}"
        return [_row(point, Reason.RECOVERED, Outcome.IMPROVED, told, place)]
    return []


def _point(
    before: Point | None, point: Point, rules: Rules, ledger: Mapping[tuple[str, str], Accepted], place: tuple[int, int]
) -> list[Row]:
    if before is None:
        return [_row(point, Reason.NEW_POINT, Outcome.WARN, f"{point.name}: new, not in the baseline", place)]
    return [
        _metric(before, point, metric, rules, ledger.get((point.key, metric)), place)
        for metric in EXACT_METRICS
        if metric in point.metrics and metric in before.metrics
    ]


def _metric(before: Point, point: Point, metric: str, rules: Rules, accepted: Accepted | None, place: tuple[int, int]) -> Row:
    old, new = before.metrics[metric], point.metrics[metric]
    tolerance = rules.tolerances.get(metric, NONE)
    told = f"{point.name}: {change(metric, old, new)}"
    if new == old and accepted is not None and accepted.after == new:
        reason, outcome = Reason.ACCEPTED, Outcome.PASS
        told += f" (accepted {accepted.when[:10]}: {accepted.reason})"
    elif new == old:
        reason, outcome = Reason.EQUAL, Outcome.PASS
    elif tolerance.allows(old, new):
        reason, outcome = Reason.WITHIN_TOL, Outcome.PASS
        told += f", within {tolerance.text}"
    elif new > old:
        reason, outcome = Reason.HIGHER, Outcome.REGRESSED
        told += f", more than {tolerance.text} allows" if tolerance.text else ""
    elif rules.directions.get(metric, LOWER) == EQUAL:
        reason, outcome = Reason.LOWER, Outcome.REGRESSED
        told += ", lower, where equality is asked for"
    else:
        reason, outcome = Reason.LOWER, Outcome.IMPROVED
    return _row(point, reason, outcome, told, place, metric, old, new)


def _vanished(point: Point, rules: Rules) -> Row:
    outcome = Outcome.REGRESSED if rules.missing_fails else Outcome.WARN
    return _row(
        point, Reason.VANISHED, outcome, f"{point.name}: vanished, it is in the baseline only", (0, 0), before=1, after=0
    )


def change(metric: str, before: int, after: int) -> str:
    """'macs 1,234,567 -> 1,300,000 (+5.3 %, +65,433)'; 'macs 1,234,567' where nothing changed."""
    if before == after:
        return f"{metric} {after:,}"
    share = f"{_percent(100 * (after - before) / before)} %, " if before else ""
    return f"{metric} {before:,} -> {after:,} ({share}{after - before:+,})"


def _percent(value: float) -> str:
    """'+5.3'; with as many digits as it takes to be seen ('+0.0012')."""
    return f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.2g}"


def _row(
    point: Point,
    reason: Reason,
    outcome: Outcome,
    sentence: str,
    place: tuple[int, int],
    metric: str = POINT,
    before: int | None = None,
    after: int | None = None,
) -> Row:
    return Row(
        EXACT,
        reason,
        outcome,
        sentence,
        mechanism=point.mechanism,
        label=point.label,
        point=point.text,
        metric=metric,
        key=point.key,
        before=before,
        after=after,
        line=place[0],
        column=place[1],
    )
