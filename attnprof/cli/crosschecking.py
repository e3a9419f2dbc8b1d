"""`crosscheck`: the same module through every counter, and what each one missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo_json
from attnprof.cli.interrupts import undivided
from attnprof.cli.options import Seconds, check_entry, frames_of, name_and_args, shape_options
from attnprof.cli.progress import progress
from attnprof.records import Case, Record, Shape

if TYPE_CHECKING:
    from attnprof.store import Writer


@click.command("crosscheck")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@shape_options
@click.option("--counters", metavar="C,...", help="attnprof, fvcore, ptflops, torch.  [default: all]")
@click.option("--timeout", default=120.0, show_default=True, type=Seconds(), help="Seconds per counter before it is killed.")
@click.option("--strict", is_flag=True, help="Exit code 4 where a difference stays unexplained.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def crosscheck_command(
    names: tuple[str, ...],
    hw: str,
    channels: int,
    frames: int | None,
    batch: int,
    dtype: str,
    counters: str | None,
    timeout: float,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """One forward pass of each NAME, counted by attnprof, fvcore, ptflops and torch; every difference with its reason.

    NAME is a mechanism (ccnet, spatial/ccnet, ccnet[recurrence=1]) or a class of your own (./mine.py:Mine). Counters other than
    the trace run the module for real, each in a child process. Exit code 5: a module could not be traced; 4, with --strict: a
    difference is unexplained.
    """
    from attnprof import spec
    from attnprof.execute import Options
    from attnprof.execute.crosscheck import crosscheck_cases
    from attnprof.profiling.crosscheck.names import EVERY, expand
    from attnprof.report import crosscheck

    words = [word.strip() for word in counters.split(",") if word.strip()] if counters else []
    chosen = expand(words) if counters else EVERY
    height, width = spec.parse_hw(hw)
    parsed = [(name, *name_and_args(name)) for name in names]
    for _, plain, args in parsed:
        check_entry(plain, args)
    entries = [(name, spec.make_entry(plain, args), args) for name, plain, args in parsed]
    shape = Shape(batch, channels, height, width, frames_of(frames, [entry.mechanism for _, entry, _ in entries]))
    cases = [
        Case(entry.mechanism, name if args else entry.label, args, shape, dtype, settings={"sdpa": "auto"})
        for name, entry, args in entries
    ]
    with progress(quiet) as listener:
        records = list(crosscheck_cases(cases, chosen, Options(timeout_s=timeout), listener))
    if as_json:
        echo_json(crosscheck.data(records))
    else:
        click.echo(crosscheck.render(records), nl=False)
    if any(record.counts is None for record in records):
        return 5
    open_ones = any(opinion.status == "unexplained" for record in records for opinion in record.crosscheck)
    return 4 if strict and open_ones else 0


def cross_checked(
    records: Mapping[str, Record], counters: Sequence[str], writer: Writer, options: Mapping[str, Any]
) -> dict[str, Record]:
    """For `run`: {key: record with opinions} of the records that want them, each written to the store at once."""
    from attnprof.execute import Options
    from attnprof.execute.crosscheck import attach, crosscheck_cases
    from attnprof.profiling.crosscheck.names import expand

    chosen = expand(counters)
    found: dict[str, Record] = {}
    wanted = attach([record for record in records.values() if record.counts is not None], chosen)
    with progress(options["quiet"]) as listener:
        answers = crosscheck_cases([record.case for record in wanted], chosen, Options(timeout_s=options["timeout"]), listener)
        for record, answer in zip(wanted, answers, strict=True):
            found[record.case.key] = dataclasses.replace(record, crosscheck=answer.crosscheck)
            with undivided():
                writer.append(found[record.case.key])
    return found


COMMANDS = {"crosscheck": crosscheck_command}
