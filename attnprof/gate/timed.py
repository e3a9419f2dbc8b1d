"""What the time gate found of a point -> its Row: outcome, reason, and the sentence that a person reads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from attnprof import units
from attnprof.execute.lockstep import BASE, HEAD, Broken
from attnprof.gate.baseline import point_of_case
from attnprof.gate.latency import PASSED, REGRESSED, Estimate, Rule
from attnprof.gate.rows import TIME, Outcome, Reason, Row
from attnprof.profiling.measuring.contention import BUSY
from attnprof.records import Case

METRIC = "latency"
_DETAIL = 160  # characters of a failure
_INCONCLUSIVE = {"warn": Outcome.WARN, "fail": Outcome.INCONCLUSIVE, "pass": Outcome.PASS}


@dataclass(frozen=True)
class Judged:
    """One point: the verdict of its first measurement, what it rests on, and what the second one found.

    ratios: head / base of every pair of processes. slowed: pairs that were thrown away because the GPU's clock was held down.
    confirming: the second measurement, None where there was none; confirmed: it stands, or none was asked for.
    """

    case: Case
    verdict: str
    found: Estimate | None
    ratios: tuple[float, ...] = ()
    broken: Broken | None = None
    slowed: int = 0
    short_of_time: bool = False
    confirming: Judged | None = None
    confirmed: bool = False
    warnings: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)


def row_of(judged: Judged, rule: Rule, on_inconclusive: str, commit: str, places: Mapping[str, tuple[int, int]]) -> Row:
    """The row of a point. `commit`: of the base. on_inconclusive: warn, fail or pass."""
    reason, outcome, told = _finding(judged, rule, _INCONCLUSIVE[on_inconclusive])
    point, found = point_of_case(judged.case), judged.found
    line, column = places.get(judged.case.label, (0, 0))
    return Row(
        TIME,
        reason,
        outcome,
        f"{point.name}: {told}",
        mechanism=point.mechanism,
        label=point.label,
        point=point.text,
        metric=METRIC,
        key=point.key,
        before=None if found is None else found.base_s,
        after=None if found is None else found.head_s,
        line=line,
        column=column,
        detail=_detail(judged, rule, commit),
    )


def unmeasured(case: Case, others: bool, places: Mapping[str, tuple[int, int]]) -> Row:
    """The row of a point that runs no code of the repository. `others`: there are points that do; else nothing was compared."""
    point, (line, column) = point_of_case(case), places.get(case.label, (0, 0))
    reason, outcome = (Reason.EQUAL, Outcome.PASS) if others else (Reason.NOTHING_SELECTED, Outcome.MISMATCH)
    told = f"{point.name}: latency not measured: it runs no code of this repository, both sides are the same"
    which: dict[str, Any] = {"mechanism": point.mechanism, "label": point.label, "point": point.text, "key": point.key}
    return Row(TIME, reason, outcome, told, **which, metric=METRIC, line=line, column=column)


def _finding(judged: Judged, rule: Rule, inconclusive: Outcome) -> tuple[Reason, Outcome, str]:
    """(reason, outcome, sentence without the point's name)."""
    if judged.broken is not None:
        return _failure(judged.broken, inconclusive)
    found, allowed = judged.found, f"{100 * rule.tolerance:g} %"
    said = told(found, rule) if found is not None else "latency not measured"
    if judged.verdict == REGRESSED:
        again = None if judged.confirming is None else judged.confirming.broken
        if again is not None and HEAD in again.failures and BASE not in again.failures:
            status, detail = again.failures[HEAD]
            more = f"and fails where it is measured again: {status}: {' '.join(detail.split())[:_DETAIL]}"
            return Reason.FAILED, Outcome.FAILED, f"{said}, {more}"
        if not judged.confirmed:
            return (
                Reason.NOT_CONFIRMED,
                inconclusive,
                f"{said}, not confirmed: {_second(judged.confirming, rule)}{_disturbed(judged)}",
            )
        more = (
            ""
            if judged.confirming is None or judged.confirming.found is None
            else f", confirmed by {_again(judged.confirming)}"
        )
        return Reason.CLEAR_GAP, Outcome.REGRESSED, f"{said}, more than {allowed} slower{more}"
    if judged.verdict == PASSED:
        assert found is not None
        if found.high < 1 / (1 + rule.tolerance):
            return Reason.LOWER, Outcome.IMPROVED, f"{said}, faster"
        return Reason.WITHIN_TOL, Outcome.PASS, f"{said}, within {allowed}"
    if judged.slowed:
        times = "once" if judged.slowed == 1 else f"{judged.slowed} times"
        return Reason.THROTTLED, inconclusive, f"{said}, undecided: the GPU slowed down {times}, by heat or power"
    if judged.short_of_time:
        wanted = f"{len(judged.ratios)} pairs of processes, and the time is over: raise --budget, or gate fewer points"
        return Reason.BUDGET, inconclusive, f"{said}, undecided after {wanted}{_disturbed(judged)}"
    return Reason.CI_TOO_WIDE, inconclusive, f"{said}, undecided: the interval holds {1 + rule.tolerance:g}{_disturbed(judged)}"


def _disturbed(judged: Judged) -> str:
    """'; other work had the core ...' where that may be why nothing was decided."""
    warnings = (*judged.warnings, *(judged.confirming.warnings if judged.confirming is not None else ()))
    return f"; {BUSY}" if BUSY in warnings else ""


def _failure(broken: Broken, inconclusive: Outcome) -> tuple[Reason, Outcome, str]:
    def words(side: str) -> str:
        status, detail = broken.failures[side]
        return f"{status}: {' '.join(detail.split())[:_DETAIL]}"

    if HEAD not in broken.failures:
        if BASE in broken.absent:
            return Reason.NEW_POINT, Outcome.WARN, f"new, not in the base ({words(BASE)})"
        return Reason.BASE_FAILED, inconclusive, f"not compared, it fails in the base: {words(BASE)}"
    if BASE in broken.failures:
        return Reason.FAILED_BEFORE, Outcome.WARN, f"{words(HEAD)} (it fails in the base too: {broken.failures[BASE][0]})"
    return Reason.FAILED, Outcome.FAILED, f"{words(HEAD)} (not in the base)"


def told(found: Estimate, rule: Rule) -> str:
    """'latency +11.3 % (+8.9 to +13.8 by ... bounds, 5 pairs of processes; medians 3.21 ms -> 3.58 ms)'."""
    low, high = (f"{100 * (bound - 1):+.1f}" for bound in (found.low, found.high))
    times = f"{units.format_seconds(found.base_s)} -> {units.format_seconds(found.head_s)}"
    bounds = f"{low} to {high} by one-sided {100 * rule.confidence:g} % bounds"
    return f"latency {100 * (found.ratio - 1):+.1f} % ({bounds}, {found.processes} pairs of processes; medians {times})"


def _again(confirming: Judged) -> str:
    assert confirming.found is not None
    return f"{confirming.found.processes} more ({100 * (confirming.found.ratio - 1):+.1f} %)"


def _second(confirming: Judged | None, rule: Rule) -> str:
    """What a second measurement found that does not confirm the first."""
    if confirming is None or (confirming.found is None and confirming.broken is None):
        return "the time was over before it could be measured again"
    if confirming.broken is not None:
        side, (status, detail) = next(iter(confirming.broken.failures.items()))
        return f"measured again, {side} fails: {status}: {' '.join(detail.split())[:_DETAIL]}"
    assert confirming.found is not None
    return f"measured again, {told(confirming.found, rule)}"


def _detail(judged: Judged, rule: Rule, commit: str) -> dict[str, Any]:
    """Everything that the verdict rests on."""
    out: dict[str, Any] = {
        "verdict": judged.verdict,
        "rule": asdict(rule),
        "base_commit": commit,
        "ratios": list(judged.ratios),
    }
    out["estimate"] = None if judged.found is None else asdict(judged.found)
    if judged.broken is not None:
        out["failures"] = {side: {"status": status, "detail": text} for side, (status, text) in judged.broken.failures.items()}
    if judged.confirming is not None:
        again = _detail(judged.confirming, rule, commit)
        out["confirming"] = {name: again[name] for name in ("verdict", "estimate", "ratios")}
    return out | {"slowed": judged.slowed, "warnings": list(judged.warnings), "environment": dict(judged.environment)}
