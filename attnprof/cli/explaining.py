"""`explain`: per-op and per-submodule cost, and who holds the memory at the peak."""

from __future__ import annotations

import click

from attnprof.cli import echo_json
from attnprof.cli.options import check_entry, frames_of, modes_of, name_and_args, shape_options
from attnprof.records import SCHEMA_VERSION, Case, Record, Shape, to_json


@click.command("explain")
@click.argument("name")
@shape_options
@click.option("--mode", help="inference, training, or both with a comma (the default).")
@click.option("--sdpa", default="auto", type=click.Choice(("auto", "math", "fused")), help="Attention kernel to assume.")
@click.option("--top", default=15, show_default=True, type=click.IntRange(min=1), help="Rows per table.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def explain_command(
    name: str,
    hw: str,
    channels: int,
    frames: int | None,
    batch: int,
    dtype: str,
    mode: str | None,
    sdpa: str,
    top: int,
    as_json: bool,
) -> None:
    """Where the cost of NAME goes, and who holds the memory at the peak.

    NAME is a mechanism (ccnet, spatial/ccnet, ccnet[recurrence=1]) or a class of your own (./mine.py:Mine).
    """
    from attnprof import spec
    from attnprof.cli.tracing import counts_here
    from attnprof.report import explain

    modes = modes_of(mode)
    plain, args = name_and_args(name)
    check_entry(plain, args)
    entry = spec.make_entry(plain, args)
    height, width = spec.parse_hw(hw)
    shape = Shape(batch, channels, height, width, frames_of(frames, [entry.mechanism]))
    records = []
    for each in modes:
        case = Case(entry.mechanism, name if args else entry.label, args, shape, dtype, each, settings={"sdpa": sdpa})
        records.append(Record(case, counts=counts_here(case)))
    if as_json:
        echo_json({"schema": SCHEMA_VERSION, "records": [to_json(record) for record in records]})
        return
    click.echo("\n".join(explain.render(record, top) for record in records), nl=False)


COMMANDS = {"explain": explain_command}
