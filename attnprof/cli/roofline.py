"""`doctor --roofline`: what this machine reaches, beside the published peaks of its device; kept for the tables' bounds."""

from __future__ import annotations

import sys

import click

from attnprof.cli import echo_json
from attnprof.errors import UsageError


def show(device: str, as_json: bool, threads: int = 1, quiet: bool = False) -> int:
    """Measure the roofline of a concrete device ('cpu', 'cuda:0'), print it, keep it. Returns the exit code.

    Raises UsageError for a device that torch cannot use. A cache directory that cannot be written is said and does not matter.
    """
    from attnprof.profiling import rates
    from attnprof.profiling.measuring import device as devices
    from attnprof.profiling.measuring import gpu, roofline
    from attnprof.report import roofline as report

    usable, reason = devices.usable(device)
    if not usable:
        raise UsageError(f"--roofline on {device}: {reason}.")
    if not quiet:
        click.echo(f"measuring what {device} reaches: up to a minute; on a quiet machine the rates are higher", file=sys.stderr)
    with gpu.watch(device) as watched:
        found = roofline.measure(device, threads)
        warnings = watched.warnings()
    for warning in warnings:
        click.echo(f"warning: {warning}", file=sys.stderr)
    kept_at = ""
    try:
        kept_at = str(rates.keep(found))
    except OSError as error:
        click.echo(f"warning: not kept: {error.filename or rates.folder()}: {error.strerror or error}.", file=sys.stderr)
    known = rates.recognised(found["name"])
    peaks = None if known is None else known.rates
    if as_json:
        from attnprof.records import SCHEMA_VERSION

        echo_json({"schema": SCHEMA_VERSION, **report.data(found, peaks, kept_at)})
    else:
        click.echo(report.render(found, peaks, "" if known is None else known.title, kept_at), nl=False)
    return 0
