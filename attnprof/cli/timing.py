"""The classes that measure on the command line: their options, and what measures a gate's cases against another checkout."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli.options import F
from attnprof.cli.progress import Listener, say
from attnprof.errors import UsageError

if TYPE_CHECKING:
    from attnprof.gate.rows import Row
    from attnprof.gate.timing import Options
    from attnprof.records import Case
    from attnprof.spec import Spec

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
DEFAULT_TOLERANCE = "5%"


def _seconds(_: click.Context, __: click.Parameter, value: str) -> float:
    """'10m', '90s', '1h' or seconds -> seconds; or a usage error."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([smh]?)", value.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else math.nan
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"'{value}' is no duration: write 90s, 10m or 1h.")
    return seconds


def time_options(command: F) -> F:
    """--base-ref and what else the time class is told."""
    for option in (
        click.option(
            "--on-inconclusive",
            default="warn",
            show_default=True,
            type=click.Choice(("warn", "fail", "pass")),
            help="What an undecided point does: `fail` is exit code 4.",
        ),
        click.option(
            "--budget",
            metavar="TIME",
            default="10m",
            show_default=True,
            callback=_seconds,
            help="For the time class, and for the ratio class.",
        ),
        click.option(
            "--max-processes",
            default=15,
            show_default=True,
            type=int,
            help="Processes (time: pairs of them) per point at most.",
        ),
        click.option(
            "--min-processes",
            default=5,
            show_default=True,
            type=int,
            help="Processes (time: pairs of them) per point at least.",
        ),
        click.option("--no-confirm", is_flag=True, help="Do not measure again what came out as slower."),
        click.option("--confidence", default=0.95, show_default=True, type=float, help="Of each one-sided bound."),
        click.option("--base-ref", metavar="REF", help="Git ref whose checkout latency is measured against, in this job."),
    ):
        command = option(command)
    return command


def timer(
    spec: Spec, options: Mapping[str, Any], tolerances: Mapping[str, Any], listener: Listener
) -> Callable[[], Sequence[Row]]:
    """What gives the rows of the time class.

    Raises UsageError at once for options, a ref or a device that cannot be: what was counted meanwhile would be lost.
    """
    from attnprof.execute.checkout import commit_of
    from attnprof.gate import timing
    from attnprof.spec.places import labels

    if spec.measure.device == "none":
        raise UsageError("--base-ref measures latency, and the spec's device is none: --set measure.device=cpu.")
    chosen = measured_options(options, tolerances)
    commit_of(Path.cwd(), options["base_ref"])
    cases = measured_cases(spec, options["match"], options["quiet"])

    def rows() -> Sequence[Row]:
        return timing.time_rows(cases, options["base_ref"], Path.cwd(), chosen, listener, labels(spec))

    return rows


def measured_options(options: Mapping[str, Any], tolerances: Mapping[str, Any]) -> Options:
    """The options of the classes that measure. Raises UsageError for those under which nothing could be decided."""
    from attnprof.gate import timing
    from attnprof.spec.quantities import parse_tolerance

    tolerance = tolerances.get("latency") or parse_tolerance("latency", DEFAULT_TOLERANCE)
    if tolerance.extra:
        raise UsageError(f"the tolerance of latency is a share, such as 5%, not {tolerance.text}: what is judged is a ratio.")
    chosen = timing.Options(
        tolerance=float(tolerance.share),
        confidence=options["confidence"],
        min_processes=options["min_processes"],
        max_processes=options["max_processes"],
        budget_s=options["budget"],
        confirm=not options["no_confirm"],
        on_inconclusive=options["on_inconclusive"],
    )
    timing.check(chosen)
    return chosen


def measured_cases(spec: Spec, match: Sequence[str], quiet: bool) -> tuple[Case, ...]:
    """The cases of the spec on its device; none where nothing is matched."""
    from attnprof import plan
    from attnprof.errors import NothingSelectedError
    from attnprof.execute import resolve_device

    device, warning = resolve_device(spec.measure.device)
    if warning and not quiet:
        say(f"warning: {warning}")
    try:
        return plan.select(plan.expand(spec, device), match)
    except NothingSelectedError:
        return ()  # only the baseline has what is matched: the exact class says so
