"""`gate --dry-run`: what would be gated, and about how long that would take. Nothing is traced or measured; without torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attnprof.cli import echo, echo_json
from attnprof.cli.timing import measured_options

if TYPE_CHECKING:
    from attnprof.gate.forecast import Forecast
    from attnprof.gate.ratios import Pair
    from attnprof.gate.run import Asked, Plan
    from attnprof.records import Case


def dry_run(asked: Asked, chosen: Plan, options: Mapping[str, Any]) -> None:
    """Print it, or the same as JSON."""
    from attnprof.gate import points
    from attnprof.gate.baseline import point_of_case

    began = time.perf_counter()
    counted = chosen.counted
    known = points.known(counted)
    known_s = time.perf_counter() - began
    named = [point_of_case(case) for case in (() if chosen.refusal else chosen.exact)]
    refused = chosen.refusal[1] if chosen.refusal else None
    claims = [(promise.text, len(found)) for promise, found in chosen.claims]
    pairs = _ratios(asked, chosen)
    timed = _timed(asked, chosen)
    forecasts = _forecasts(asked, options, pairs, timed, (known, known_s, len(counted) - known))
    if options["as_json"]:
        echo_json(
            {
                "classes": list(asked.classes),
                "points": [{"key": point.key, "label": point.label, "point": point.text} for point in named],
                "claims": [{"claim": text, "cases": count} for text, count in claims],
                "ratios": [
                    {
                        "key": pair.key,
                        "label": pair.case.label,
                        "against": pair.reference.label,
                        "point": point_of_case(pair.case).text,
                    }
                    for pair in pairs
                ],
                "time": [{"label": case.label, "point": point_of_case(case).text} for case in timed],
                "refused": refused,
                "to_trace": len(counted) - known,
                "seconds": {
                    name: {"least": each.least_s, "most": each.most_s, "from": each.basis} for name, each in forecasts.items()
                },
            }
        )
        return
    for point in named:
        echo(f"exact {point.key} {point.name}")
    for pair in pairs:
        echo(f"ratio {pair.key} {point_of_case(pair.case).name} / {pair.reference.label}")
    for text, count in claims:
        echo(f"claim {text} ({count} {'time' if count == 1 else 'times'})")
    for case in timed:
        echo(f"time {point_of_case(case).name}")  # its key depends on the device
    if refused and "exact" in asked.classes:
        echo(f"exact: nothing: {refused}")
    if "ratio" in asked.classes and not pairs:
        why = "the baseline holds no ratio of a case of the spec" if chosen.baseline is not None else refused
        echo(f"ratio: nothing: {why}")
    if {"exact", "claims"} & set(asked.classes):
        echo(f"{len(counted)} cases: {known} by kept closed forms, {len(counted) - known} to trace.")
    for name, each in forecasts.items():
        echo(f"{name}: {each.text}.")


def _ratios(asked: Asked, chosen: Plan) -> list[Pair]:
    """The pairs that would be measured: those that the baseline has."""
    from attnprof.gate import ratio_class

    held = chosen.baseline.ratios if chosen.baseline is not None else None
    if "ratio" not in asked.classes or held is None:
        return []
    pairs = ratio_class.chosen_pairs(chosen.cases, asked.spec.baseline, asked.match)
    return [pair for pair in pairs if pair.key in held.points]


def _timed(asked: Asked, chosen: Plan) -> list[Case]:
    """The cases that the time class chooses from: of these it measures those that run code of the repository."""
    from attnprof import plan
    from attnprof.errors import NothingSelectedError

    if "time" not in asked.classes:
        return []
    try:
        return list({case.key: case for case in plan.select(chosen.cases, asked.match)}.values())
    except NothingSelectedError:
        return []


def _forecasts(
    asked: Asked, options: Mapping[str, Any], pairs: list[Pair], timed: list[Case], counting: tuple[int, float, int]
) -> dict[str, Forecast]:
    """{what it is of: how long}."""
    from attnprof.gate import forecast

    found = {"counting": forecast.of_counting(*counting)} if {"exact", "claims"} & set(asked.classes) else {}
    if pairs:
        limits = measured_options(options, asked.rules.tolerances)
        found["ratio"] = forecast.of_ratio(pairs, asked.spec.measure.budget_s, limits)
    if "time" in asked.classes:
        found["time"] = forecast.of_time(len(timed), measured_options(options, asked.rules.tolerances))
    return found
