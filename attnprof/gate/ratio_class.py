"""The ratio class of one gate: which ratios of the baseline can be held against this machine, and a row for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from attnprof import plan
from attnprof.gate import ratio_rows
from attnprof.gate.baseline import Baseline, Point
from attnprof.gate.ratio_run import Sampler, judge
from attnprof.gate.ratios import Held, Pair, mismatch, pairs_of
from attnprof.gate.rows import Reason, Row
from attnprof.gate.timing import Options
from attnprof.records import Case

NO_REFERENCE = "the spec names no `baseline:`, the mechanism that ratios are to"


def traced_keys(cases: Sequence[Case]) -> dict[str, str]:
    """{key of a case on a device: key of the same case traced}, which is its point's in a baseline."""
    return {case.key: replace(case, device="none").key for case in cases}


def chosen_pairs(cases: Sequence[Case], reference: str | None, match: Sequence[str]) -> list[Pair]:
    """The pairs whose first case --match names; the reference itself need not be named."""
    found = pairs_of(cases, reference, traced_keys(cases)) if reference is not None else []
    return [pair for pair in found if _about(pair.case.label, pair.case.mechanism, pair.key, match)]


def rows(
    pairs: Sequence[Pair],
    baseline: Baseline,
    file: str,
    here: Callable[[], tuple[str, str, str]],
    sample: Sampler,
    options: Options,
    match: Sequence[str] = (),
    missing_fails: bool = True,
    places: Mapping[str, tuple[int, int]] | None = None,
) -> list[Row]:
    """A row per ratio. here: (model of the device, torch, '' or why the device cannot be used), asked only where it matters.

    Nothing is measured where the device or torch is another: every row says so.
    """
    places, stored = places or {}, baseline.ratios
    if stored is None:
        why = f"{file} holds no ratios: `attnprof baseline save SPEC -o {file}`, on a machine like this one, measures them."
        return ratio_rows.mismatched(pairs, Reason.NO_BASELINE, why, places)
    gone = {key: held for key, held in stored.points.items() if key not in {pair.key for pair in pairs}}
    gone = {key: held for key, held in gone.items() if _of(baseline.points[key], match)}
    if not pairs and not gone:
        why = "no ratio is about what --match names" if match else NO_REFERENCE
        return ratio_rows.mismatched([], Reason.NOTHING_SELECTED, why, places)
    known = [pair for pair in pairs if pair.key in stored.points]
    same = [pair for pair in known if stored.points[pair.key].against == pair.reference.label]
    out = {pair.key: ratio_rows.new(pair, places) for pair in pairs if pair not in known}
    out |= {pair.key: ratio_rows.other_reference(pair, stored.points[pair.key], places) for pair in known if pair not in same}
    if same:
        out |= _measured(
            same, stored.points, here, sample, options, places, lambda device, torch: mismatch(stored, device, torch, file)
        )
    vanished = [ratio_rows.vanished(baseline.points[key], held, missing_fails) for key, held in gone.items()]
    return [*(out[pair.key] for pair in pairs), *vanished]


def _measured(
    pairs: Sequence[Pair],
    stored: Mapping[str, Held],
    here: Callable[[], tuple[str, str, str]],
    sample: Sampler,
    options: Options,
    places: Mapping[str, tuple[int, int]],
    mismatched: Callable[[str, str], str],
) -> dict[str, Row]:
    device, torch, unusable = here()
    why = unusable or mismatched(device, torch)
    if why:
        refused = ratio_rows.mismatched(pairs, Reason.ENV_MISMATCH, why, places)
        return dict(zip([pair.key for pair in pairs], refused, strict=True))
    found = judge(pairs, stored, sample, options)
    return {pair.key: ratio_rows.judged(pair, stored[pair.key], found[pair.key], options, places) for pair in pairs}


def _of(point: Point, match: Sequence[str]) -> bool:
    return _about(point.label, point.mechanism, point.key, match)


def _about(label: str, mechanism: str, key: str, match: Sequence[str]) -> bool:
    return not match or any(plan.matches(label, mechanism, key, glob) for glob in match)
