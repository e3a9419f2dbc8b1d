"""Ratios of latencies -> Rows: what was found of a case, what the baseline holds of it, and what follows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from attnprof import stats
from attnprof.gate.baseline import Baseline, Point, point_of_case
from attnprof.gate.ratios import METRIC, PASSED, REGRESSED, Held, Pair, lower
from attnprof.gate.rows import RATIO, Outcome, Reason, Row
from attnprof.profiling.measuring.contention import BUSY
from attnprof.records import NOT_MEASURED_BUDGET

_DETAIL = 160  # characters of a failure
Places = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Found:
    """What was measured of a pair.

    failed: (label, status, detail) of the one that failed; why: why there is no ratio, where none failed. again: of a fresh
    measurement of what came out as regressed. threads: that both were timed with. busy: other work had the core meanwhile.
    """

    verdict: str
    ratio: stats.Ratio | None = None
    failed: tuple[str, str, str] | None = None
    why: str = ""
    again: Found | None = None
    threads: int | None = None
    busy: bool = False


def mismatched(pairs: Iterable[Pair], reason: Reason, why: str, places: Places) -> list[Row]:
    """A row for every pair that cannot be compared; a single one where there is none."""
    rows = [_row(pair, reason, Outcome.MISMATCH, f"ratio not compared: {why}", places) for pair in pairs]
    return rows or [Row(RATIO, reason, Outcome.MISMATCH, f"no ratio is compared: {why}", metric=METRIC)]


def new(pair: Pair, places: Places) -> Row:
    """Of a pair that the baseline has no ratio of: it is not measured."""
    return _row(pair, Reason.NEW_POINT, Outcome.WARN, f"the baseline has no ratio to {pair.reference.label} of it", places)


def vanished(point: Point, held: Held, fails: bool) -> Row:
    """Of a ratio whose case is no case of the spec any more."""
    outcome = Outcome.REGRESSED if fails else Outcome.WARN
    told = f"{point.name}: vanished, its ratio to {held.against} is in the baseline only"
    which: dict[str, Any] = {"mechanism": point.mechanism, "label": point.label, "point": point.text, "key": point.key}
    return Row(RATIO, Reason.VANISHED, outcome, told, **which, metric=METRIC, before=held.ratio)


def other_reference(pair: Pair, held: Held, places: Places) -> Row:
    """Of a pair whose ratio in the baseline is to another case."""
    told = f"ratio not compared: the baseline has it to {held.against}, and the spec's reference is {pair.reference.label}"
    return _row(pair, Reason.ENV_MISMATCH, Outcome.MISMATCH, told, places)


def judged(pair: Pair, held: Held, found: Found, options: Any, places: Places) -> Row:
    """Of a pair that was measured. options: timing.Options."""
    inconclusive = {"fail": Outcome.INCONCLUSIVE, "warn": Outcome.WARN, "pass": Outcome.PASS}[options.on_inconclusive]
    reason, outcome, told = _finding(pair, held, found, options, inconclusive)
    detail = {"against": held.against, "tolerance": options.tolerance, "confidence": options.confidence}
    detail |= {"held": asdict(held), "found": _data(found)}
    return _row(pair, reason, outcome, told, places, held.ratio, found.ratio.value if found.ratio else None, detail)


def differences(before: Baseline, after: Baseline) -> list[Row]:
    """A row per ratio of either baseline; two that were not measured on the same device are compared all the same."""
    old, new_ = ({} if each.ratios is None else each.ratios.points for each in (before, after))
    out = []
    for key in dict.fromkeys([*old, *new_]):
        point = (after if key in new_ else before).points[key]
        was, now = old.get(key), new_.get(key)
        outcome, reason, told = Outcome.WARN, Reason.NEW_POINT, "latency ratio: new, not in the first"
        if was is not None and now is None:
            reason, told = Reason.VANISHED, "latency ratio: in the first only"
        elif was is not None and now is not None:
            reason, outcome = Reason.WITHIN_TOL, Outcome.PASS
            told = f"latency / {was.against} {was.ratio:.3g} ({was.bounds}) -> {now.ratio:.3g} ({now.bounds})"
            if was.against != now.against:
                reason, told = Reason.ENV_MISMATCH, f"latency ratio to {was.against} -> to {now.against}"
            elif now.low > was.high:
                reason, outcome = Reason.CLEAR_GAP, Outcome.REGRESSED
            elif now.high < was.low:
                reason, outcome = Reason.LOWER, Outcome.IMPROVED
            elif was != now:
                told += ", the intervals overlap"
        which: dict[str, Any] = {"mechanism": point.mechanism, "label": point.label, "point": point.text, "key": key}
        ends = (None if was is None else was.ratio, None if now is None else now.ratio)
        out.append(Row(RATIO, reason, outcome, f"{point.name}: {told}", **which, metric=METRIC, before=ends[0], after=ends[1]))
    return out


def _finding(pair: Pair, held: Held, found: Found, options: Any, inconclusive: Outcome) -> tuple[Reason, Outcome, str]:
    if found.failed is not None:
        label, status, detail = found.failed
        return Reason.FAILED, Outcome.FAILED, f"{label}: {status}: {' '.join(detail.split())[:_DETAIL]} (it was timed before)"
    if found.ratio is None:
        reason = Reason.BUDGET if NOT_MEASURED_BUDGET in found.why else Reason.NOT_MEASURED
        return reason, inconclusive, f"ratio not measured: {' '.join(found.why.split())[:_DETAIL]}"
    if found.threads is not None and found.threads != held.threads:
        told = f"ratio not compared: timed with {found.threads} threads, in the baseline with {held.threads}"
        return Reason.ENV_MISMATCH, Outcome.MISMATCH, told
    disturbed = f"; {BUSY}" if found.busy or (found.again is not None and found.again.busy) else ""
    said, allowed = change(held, found.ratio), f"{100 * options.tolerance:g} %"
    most = held.high * (1 + options.tolerance)
    limit = f"{most:.3g}, the stored upper bound and {allowed} ({100 * (most / held.ratio - 1):+.0f} %)"
    if found.verdict == REGRESSED:
        if not options.confirm:
            return Reason.CLEAR_GAP, Outcome.REGRESSED, f"{said}, above {limit}"
        if found.again is not None and found.again.failed is not None:
            label, status, detail = found.again.failed
            more = f"measured again, {label}: {status}: {' '.join(detail.split())[:_DETAIL]}"
            return Reason.FAILED, Outcome.FAILED, f"{said}, and {more}"
        again = found.again.ratio if found.again is not None else None
        if found.again is not None and again is not None and found.again.verdict == REGRESSED:
            told = f"{said}, above {limit}, confirmed by {again.processes} more processes ({again.value:.3g})"
            return Reason.CLEAR_GAP, Outcome.REGRESSED, told
        second = "could not be measured again" if again is None else f"measured again {_interval(again)}"
        return Reason.NOT_CONFIRMED, inconclusive, f"{said}, not confirmed: {second}{disturbed}"
    if found.verdict == PASSED:
        if lower(found.ratio, held, options.tolerance):
            return Reason.LOWER, Outcome.IMPROVED, f"{said}, lower"
        return Reason.WITHIN_TOL, Outcome.PASS, f"{said}, not above {limit}"
    return Reason.CI_TOO_WIDE, inconclusive, f"{said}, undecided: the interval holds {limit}{disturbed}"


def change(held: Held, found: stats.Ratio) -> str:
    """'latency / nonlocal 0.153 (0.151 to 0.156) -> 0.171 (0.169 to 0.174, 5 processes) (+11.8 %)'."""
    share = f"{100 * (found.value / held.ratio - 1):+.1f} %"
    return f"latency / {held.against} {held.ratio:.3g} ({held.bounds}) -> {_interval(found)}, {share}"


def _interval(found: stats.Ratio) -> str:
    return f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g}, {found.processes} processes)"


def _data(found: Found) -> dict[str, Any]:
    out: dict[str, Any] = {"verdict": found.verdict, "ratio": None if found.ratio is None else asdict(found.ratio)}
    if found.failed is not None:
        out["failed"] = dict(zip(("label", "status", "detail"), found.failed, strict=True))
    out |= {"why": found.why} if found.why else {}
    return out | ({"again": _data(found.again)} if found.again is not None else {})


def _row(
    pair: Pair,
    reason: Reason,
    outcome: Outcome,
    told: str,
    places: Places,
    before: float | None = None,
    after: float | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Row:
    point, (line, column) = point_of_case(pair.case), places.get(pair.case.label, (0, 0))
    return Row(
        RATIO,
        reason,
        outcome,
        f"{point.name}: {told}",
        mechanism=point.mechanism,
        label=point.label,
        point=point.text,
        metric=METRIC,
        key=pair.key,
        before=before,
        after=after,
        line=line,
        column=column,
        detail=detail or {},
    )
