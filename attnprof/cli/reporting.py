"""`report`: the tables of a run, written again from its store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli.progress import say
from attnprof.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from attnprof.records import Record
    from attnprof.report import Meta
    from attnprof.store import Run, Stored


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format", "formats", default="md", show_default=True, metavar="F,...", help="md, csv, json, latex, html, figure."
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to write.  [default: the run's folder]")
@click.option("--all", "everything", is_flag=True, help="Every case in the store, not only those of its last run.")
@click.option("--sort", metavar="METRIC", help="Rows of every table by this metric, the better first.  [default: as run]")
@click.option(
    "--columns",
    default="",
    metavar="C,...",
    help="Columns to show: METRIC, METRIC.ratio, METRIC.delta; ratio or delta: of every metric named.  [default: the spec's]",
)
@click.option(
    "--highlight",
    type=click.Choice(("significant", "best", "none")),
    default="significant",
    show_default=True,
    help="Best and second per column: where intervals tell them apart, on the values alone, or not at all.",
)
@click.option(
    "--latex",
    type=click.Choice(("booktabs", "siunitx")),
    default="booktabs",
    show_default=True,
    help="What aligns the numbers in LaTeX; siunitx marks the best only.",
)
@click.option("--standalone", is_flag=True, help="LaTeX as a document of its own, not a file to \\input.")
@click.option("--wide", is_flag=True, help="CSV with one row per case and a column per metric, for spreadsheets.")
def report_command(run: Path, formats: str, out: Path | None, everything: bool, **look: Any) -> None:
    """Write NAME.md, NAME.csv ... for RUN, the folder of a `run` or its store.

    latex is .tex, figure is one .svg, .pdf and .png per chart. CSV has every row of the metrics chosen, JSON every record.
    """
    from attnprof import report
    from attnprof.report.code import different_code
    from attnprof.store import shard_name
    from attnprof.store.merging import lacks

    chosen = report.check_formats(_words(formats))
    if not chosen:
        raise UsageError(f"--format names none: there are {', '.join(report.FORMATS)}.")
    if "latex" not in chosen and (look["standalone"] or look["latex"] != "booktabs"):
        raise UsageError("--standalone and --latex are about LaTeX files: add latex to --format.")
    if "csv" not in chosen and look["wide"]:
        raise UsageError("--wide is about CSV files: add csv to --format.")
    columns = _words(look["columns"])
    for path, stored in _stores(run):
        for warning in stored.warnings:
            say(f"warning: {warning}")
        if not stored.runs:
            raise NothingSelectedError(f"{path}: the store holds no run.")
        last = stored.runs[-1]
        wanted = tuple(stored.records) if everything else last.own
        report.check_size(chosen, len(wanted))
        records, warnings = stored.some(wanted, outlined=not set(chosen) & {"html", "figure"})
        for warning in warnings:
            say(f"warning: {warning}")
        if not records:
            raise NothingSelectedError(f"{path}: the last run of the store has no record yet.")
        there = {record.case.key: record.status for record in records}
        missing = [f"{'of the last run, ' * everything}{text}" for text in lacks([there.get(key, "") for key in last.own])]
        for text in (*(f"{text}: {_how_to_go_on(last)}." for text in missing), *different_code(records)):
            say(f"warning: {path}: {text}")
        meta = report.Meta(
            shard_name(last.name, last.shard, last.of),
            last.baseline,
            last.metrics or report.Meta("").metrics,
            columns,
            look["sort"],
            report.Look(look["highlight"], look["latex"], look["standalone"], look["wide"]),
            *(("", "") if everything else (last.source, last.commit)),
            [f"{text[0].upper()}{text[1:]}." for text in missing],
        )
        damaged: list[str] = []
        for file in write_reports(records, meta, chosen, out or path.parent, stored.each(wanted, damaged), path):
            click.echo(str(file))
        for warning in damaged if not warnings else ():
            say(f"warning: {warning}")


def write_reports(
    records: Sequence[Record],
    meta: Meta,
    formats: Iterable[str],
    folder: Path,
    whole: Iterable[Record] | None = None,
    stored: Path | None = None,
) -> list[Path]:
    """Write the reports, the JSON of `whole` where it is given; a folder or file that cannot be written is a UsageError.

    `stored`: where the records are, if not in `folder`.
    """
    from attnprof import report
    from attnprof.store.writer import NO_ROOM

    try:
        return report.write(records, meta, formats, folder, whole)
    except OSError as error:
        again = f"`attnprof report {stored or folder}"
        advice = f"once there is room, {again}`" if error.errno in NO_ROOM else f"give --out another folder: {again} --out DIR`"
        raise UsageError(
            f"{error.filename or folder}: cannot be written: {error.strerror or error}. The records are in the store: {advice} "
            "writes the reports."
        ) from error


def _how_to_go_on(run: Run) -> str:
    """What gives the missing cases their records."""
    if run.of is None:
        return "the same `attnprof run` with --resume goes on"
    shards = "this shard" if run.shard is not None else "the shards"
    return f"run {shards} again with --resume" + ("" if run.shard is not None else ", then merge")


def _words(text: str) -> tuple[str, ...]:
    """'a, b' -> ('a', 'b')."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _stores(run: Path) -> list[tuple[Path, Stored]]:
    """A store, or the stores of a folder: foreign files in it are passed over with a warning."""
    from attnprof import store

    if run.is_file():
        return [(run, store.load(run))]
    if not run.is_dir():
        raise UsageError(f"{run}: there is no such folder or store.")
    found = []
    for path in sorted(run.glob("*.jsonl")):
        try:
            found.append((path, store.load(path)))
        except UsageError as error:
            say(f"warning: {error} It is left out.")
    if not found:
        raise UsageError(f"{run}: there is no store (*.jsonl) in this folder: `attnprof run SPEC --out {run}` makes one.")
    return found


COMMANDS = {"report": report_command}
