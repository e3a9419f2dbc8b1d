"""The ratio class on the command line: what measures the ratios of a spec, for `baseline save` and for `gate --only ratio`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.cli.progress import Listener, say
from attnprof.cli.timing import measured_cases, measured_options
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import NOT_MEASURED_BUDGET

if TYPE_CHECKING:
    from attnprof.gate.ratios import Ratios
    from attnprof.gate.rows import Row
    from attnprof.gate.run import Asked, Plan
    from attnprof.spec import Spec

PROCESSES = 5  # that a ratio is saved over


def ratios(asked: Asked, chosen: Plan, options: Mapping[str, Any], listener: Listener) -> Callable[[], Sequence[Row]]:
    """What gives the rows of the ratio class. Raises UsageError at once for options or a device that cannot be."""
    from attnprof.gate import ratio_class, ratio_rows, ratio_run
    from attnprof.gate.rows import Reason
    from attnprof.profiling import provenance
    from attnprof.spec.places import labels

    spec, places = asked.spec, labels(asked.spec)
    limits = measured_options(options, asked.rules.tolerances)
    if spec.measure.device == "none":
        raise UsageError("the ratio class measures latency, and the spec's device is none: --set measure.device=cpu.")
    cases = measured_cases(spec, (), options["quiet"])
    pairs = ratio_class.chosen_pairs(cases, spec.baseline, asked.match)

    def here() -> tuple[str, str, str]:
        model, unusable = ratio_run.model_of(cases[0].device)
        return model, provenance.torch_release(), unusable

    def rows() -> Sequence[Row]:
        if chosen.baseline is None:
            reason, why = chosen.refusal or (Reason.NO_BASELINE, "there is no baseline")
            return ratio_rows.mismatched(pairs, reason, why, places)
        sample = ratio_run.sampler(spec.baseline or "", spec.measure.budget_s, options["timeout"], listener)
        missing_fails = asked.rules.missing_fails
        return ratio_class.rows(
            pairs, chosen.baseline, str(asked.baseline), here, sample, limits, asked.match, missing_fails, places
        )

    return rows


def measured_ratios(spec: Spec, options: Mapping[str, Any], listener: Listener, path: Path) -> tuple[Ratios | None, bool]:
    """(the ratios of a spec, whether one is missing), for a baseline; None where it has none, which is said on stderr."""
    from attnprof.gate import forecast, ratio_class, ratio_run
    from attnprof.profiling import provenance

    cases = measured_cases(spec, (), options["quiet"])
    pairs = ratio_class.chosen_pairs(cases, spec.baseline, ())
    if not pairs:
        if not options["quiet"]:
            why = ratio_class.NO_REFERENCE if spec.baseline is None else "no block has the reference and another case"
            say(f"no ratios are measured for {path}: {why}. (--exact-only asks for none.)")
        return None, False
    device = cases[0].device
    model, unusable = ratio_run.model_of(device)
    if unusable:
        raise NothingSelectedError(f"{device}: {unusable}: no ratio can be measured; --exact-only saves the counts alone.")
    if not options["quiet"]:
        most_s = PROCESSES * spec.measure.budget_s * len({each.key for pair in pairs for each in (pair.case, pair.reference)})
        bound = forecast.spoken(min(most_s, spec.measure.run_budget_s or most_s))
        count = f"{len(pairs)} {'ratio' if len(pairs) == 1 else 'ratios'}"
        say(f"timing {count} to the baseline in {PROCESSES} processes: at most {bound} of sampling (--exact-only: none)")
    sample = ratio_run.sampler(spec.baseline or "", spec.measure.budget_s, options["timeout"], listener)
    points = ratio_run.measure(pairs, sample, PROCESSES, spec.measure.run_budget_s)
    lost = False
    for point in points.values():
        what = f"{point.pair.case.label} {point.pair.case.shape.text()} {point.pair.case.mode}"
        if point.failed is not None:
            lost = True
            label, status, detail = point.failed
            say(f"warning: {what}: no ratio: {label}: {status}: {' '.join(detail.split())[:300]}")
        elif point.ratio() is None:
            lost = True
            say(f"warning: {what}: no ratio: {point.why or 'too few processes timed it'}{_more_time(point.why, spec)}")
    found = ratio_run.section(points.values(), model, provenance.torch_release())
    return (found if found.points else None), lost


def _more_time(why: str, spec: Spec) -> str:
    """What to do about a budget that is too small: that of the run is for all processes together."""
    if NOT_MEASURED_BUDGET not in why or spec.measure.run_budget_s is None:
        return ""
    return (
        f" (--set measure.run_budget_s={PROCESSES * spec.measure.run_budget_s:g}: it is for all {PROCESSES} processes together)"
    )
