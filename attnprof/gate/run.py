"""One gate from beginning to end: which cases each class is about, what was found for them, and the Result.

Effects are in `points.count` (which traces) and in what the caller passes for the time class; the rest is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from attnprof import plan
from attnprof.errors import AttnprofError, NothingSelectedError
from attnprof.execute.options import Listener
from attnprof.gate import baseline as baselines
from attnprof.gate import judge, orders, points, promises
from attnprof.gate.baseline import Baseline, Made, Point
from attnprof.gate.outputs import Result
from attnprof.gate.rows import CLAIMS, EXACT, RATIO, TIME, Outcome, Reason, Row, exit_code
from attnprof.records import Case
from attnprof.spec import Spec
from attnprof.spec.places import labels
from attnprof.spec.promises import Promise


@dataclass(frozen=True)
class Asked:
    """What a gate is asked for. `classes` in the order of rows.CLASSES; `match`: globs over mechanisms, none for all."""

    spec: Spec
    classes: tuple[str, ...]
    baseline: Path | None = None
    match: tuple[str, ...] = ()
    rules: judge.Rules = field(default_factory=judge.Rules)
    timeout_s: float = 300.0


@dataclass(frozen=True)
class Plan:
    """What will be looked at: the cases of the exact class, the applications of each claim, and all cases to count."""

    cases: tuple[Case, ...]
    exact: tuple[Case, ...]
    claims: tuple[tuple[Promise, tuple[promises.Instance, ...]], ...]
    baseline: Baseline | None = None
    refusal: tuple[Reason, str] | None = None  # why the exact class cannot compare
    made: Made = field(default_factory=baselines.made_now)

    @property
    def counted(self) -> tuple[Case, ...]:
        """Every case whose counts are wanted, in the order of the spec."""
        exact = () if self.refusal else self.exact
        of_claims = [case for _, found in self.claims for each in found for cases in each.cases.values() for case in cases]
        wanted = {case.key for case in (*exact, *of_claims)}
        return tuple(case for case in self.cases if case.key in wanted)


def planned(asked: Asked) -> Plan:
    """What a gate looks at. Raises NothingSelectedError where nothing is asked for or matched, UsageError for a bad file."""
    if not asked.classes:
        told = "there is nothing to gate: give --baseline FILE, or write `claims:` into the spec."
        raise NothingSelectedError(told)
    cases = plan.expand(asked.spec, "none")
    selected = _selected(cases, asked.match)
    baseline, refusal, made = None, None, baselines.made_now()
    if EXACT in asked.classes or RATIO in asked.classes:
        baseline, refusal = _baseline(asked, made)
    in_baseline = baseline is not None and any(_about(point, asked.match) for point in baseline.points.values())
    if not selected and not in_baseline:
        plan.select(cases, asked.match)  # raises, naming what there is
    claims = [
        (promise, tuple(each for each in found if not asked.match or _concerns(each, asked.match)), len(found))
        for promise in (asked.spec.claims if CLAIMS in asked.classes else ())
        for found in [promises.instances(promise, cases)]
    ]
    kept = tuple((promise, found) for promise, found, every in claims if found or not every)
    return Plan(cases, selected if EXACT in asked.classes else (), kept, baseline, refusal, made)


def _selected(cases: Sequence[Case], match: Sequence[str]) -> tuple[Case, ...]:
    try:
        return plan.select(cases, match)
    except NothingSelectedError:
        return ()


def _about(point: Point, match: Sequence[str]) -> bool:
    return not match or any(plan.matches(point.label, point.mechanism, point.key, glob) for glob in match)


def _concerns(instance: promises.Instance, match: Sequence[str]) -> bool:
    every = [case for cases in instance.cases.values() for case in cases]
    return any(plan.matches(case.label, case.mechanism, case.key, glob) for case in every for glob in match)


def _baseline(asked: Asked, made: Made) -> tuple[Baseline | None, tuple[Reason, str] | None]:
    """The baseline, and why nothing can be compared with it: that must not keep a claim from being judged."""
    if asked.baseline is None:
        return None, (Reason.NO_BASELINE, "no --baseline is given, which the exact and ratio classes compare with")
    try:
        found = baselines.read(asked.baseline, asked.spec.source or baselines.SPEC)
    except NothingSelectedError as error:
        reason = Reason.ENV_MISMATCH if asked.baseline.exists() else Reason.NO_BASELINE
        return None, (reason, str(error))
    why = judge.mismatch(found, made, str(asked.baseline), asked.spec.source or baselines.SPEC)
    if not found.points:
        return found, (Reason.NO_BASELINE, f"{asked.baseline}: the baseline has no points.")
    return found, (Reason.ENV_MISMATCH, why) if why else None


def run(
    asked: Asked,
    chosen: Plan,
    listener: Listener | None = None,
    measured: Mapping[str, Callable[[], Sequence[Row]]] | None = None,
) -> Result:
    """Count, and judge. `measured`: {class: what measures and gives its rows}, of ratio and time."""
    counted = points.count(chosen.counted, asked.timeout_s, listener)
    places = labels(asked.spec)
    rows: list[Row] = []
    notes: list[str] = []
    if EXACT in asked.classes:
        rows += _exact_rows(asked, chosen, counted, places)
        notes += _notes(asked, chosen, rows)
    if CLAIMS in asked.classes and not asked.spec.claims:
        rows.append(Row(CLAIMS, Reason.NOTHING_SELECTED, Outcome.MISMATCH, f"{asked.spec.name}: the spec makes no claims"))
    traced = orders.find([each for _, found in chosen.claims for each in found], counted, asked.timeout_s)
    for promise, found in chosen.claims:
        rows += promises.judge(promise, found, counted, traced)
    for kind in (RATIO, TIME):
        if kind in asked.classes and measured is not None and kind in measured:
            stopped = bool(rows) and rows[-1].reason is Reason.INTERRUPTED  # Ctrl-C ends both classes that measure
            rows += [_interrupted(kind)] if stopped else _measured(kind, measured[kind])
    notes += _ratio_notes(asked, rows)
    if rows and not exit_code(rows) and not any(row.compares for row in rows):
        told = f"{asked.spec.name}: nothing was compared: every point is new, fails on both sides, or was not measured"
        rows.append(Row(rows[0].kind, Reason.NOTHING_SELECTED, Outcome.MISMATCH, told))
    if not rows:
        raise NothingSelectedError(f"{asked.spec.name}: nothing was gated: no claim and no point is about what --match names.")
    return Result(
        spec=asked.spec.name,
        file=asked.spec.source,
        rows=tuple(rows),
        baseline=None if asked.baseline is None else str(asked.baseline),
        made=asdict(chosen.made),
        baseline_made=None if chosen.baseline is None else asdict(chosen.baseline.made),
        notes=tuple(notes),
        options=_options(asked),
    )


def _measured(kind: str, rows: Callable[[], Sequence[Row]]) -> Sequence[Row]:
    """The rows of a class that measures; where it is interrupted or cannot go on, one that says so, beside other classes'."""
    try:
        return rows()
    except KeyboardInterrupt:
        return [_interrupted(kind)]
    except AttnprofError as error:
        return [Row(kind, Reason.FAILED, Outcome.FAILED, f"latency was not measured: {error}")]


def _interrupted(kind: str) -> Row:
    told = f"interrupted while latency was measured: no point of the {kind} class is judged"
    return Row(kind, Reason.INTERRUPTED, Outcome.INTERRUPTED, told)


def _exact_rows(asked: Asked, chosen: Plan, counted: dict[str, Point], places: dict[str, tuple[int, int]]) -> list[Row]:
    if chosen.refusal is not None:
        reason, why = chosen.refusal
        return judge.mismatched([baselines.point_of_case(case) for case in chosen.exact], reason, why, places)
    assert chosen.baseline is not None
    now = [counted[case.key] for case in chosen.exact]
    keys = {point.key for point in now}  # --match keeps a network alone beside what is placed in it
    held = {key: point for key, point in chosen.baseline.points.items() if key in keys or _about(point, asked.match)}
    return judge.judge(replace(chosen.baseline, points=held), now, asked.rules, places)


def _notes(asked: Asked, chosen: Plan, rows: Sequence[Row]) -> list[str]:
    """What is to be said of the exact class as a whole."""
    found = []
    if chosen.refusal is None and chosen.baseline is not None:
        changed = any(row.before != row.after for row in rows)
        other = judge.other_code(chosen.baseline, chosen.made)
        found += [other] if other and changed else []
        if {row.reason for row in rows} <= {Reason.NEW_POINT, Reason.VANISHED, Reason.FAILED}:
            found.append(
                f"No point of the baseline (saved for the spec '{chosen.baseline.spec}') is a case of this one: was it saved "
                "for another spec, or from another folder, where the paths of your own code differ?"
            )
        stale = [row for row in rows if row.reason in (Reason.LOWER, Reason.NEW_POINT) and not row.fails]
        if stale and not any(row.fails for row in rows):  # saving anew would take regressions in without a reason
            only = " --exact-only" if chosen.baseline.ratios is None else ""
            found.append(
                f"The baseline does not know {len(stale):,} of these numbers yet: "
                f"`attnprof baseline save {asked.spec.source or 'SPEC'} -o {asked.baseline}{only}` takes them in."
            )
        if any(row.fails for row in rows):
            found.append(
                "Where a change is meant: `attnprof baseline accept --from FILE --reason WHY`, FILE what `--report-json` wrote."
            )
    if chosen.refusal is not None:
        found.append(chosen.refusal[1])
    return found


def _ratio_notes(asked: Asked, rows: Sequence[Row]) -> list[str]:
    """What to do about ratios that are not those of the baseline any more."""
    other = (Reason.CLEAR_GAP, Reason.LOWER, Reason.NEW_POINT, Reason.VANISHED)
    if not any(row.kind == RATIO and row.reason in other for row in rows):
        return []
    save = f"`attnprof baseline save {asked.spec.source or 'SPEC'} -o {asked.baseline}`"
    return [f"Where the ratios of now are meant: {save} measures all of them anew (and counts anew)."]


def _options(asked: Asked) -> dict[str, object]:
    return {
        "classes": list(asked.classes),
        "match": list(asked.match),
        "tol": {metric: tolerance.text for metric, tolerance in asked.rules.tolerances.items()},
        "strict": bool(asked.rules.directions),
        "on_missing": "fail" if asked.rules.missing_fails else "warn",
    }
