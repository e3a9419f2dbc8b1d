"""`report`: the tables of a run, written again from its store."""

from __future__ import annotations

from pathlib import Path

import click

from attnprof.cli.progress import say
from attnprof.errors import NothingSelectedError, UsageError


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "formats", default="md", show_default=True, metavar="F,...", help="md, csv, json.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to write.  [default: the run's folder]")
def report_command(run: Path, formats: str, out: Path | None) -> None:
    """Write NAME.md, NAME.csv ... for RUN, the folder of a `run` or its store."""
    from attnprof import report, store

    chosen = report.check_formats(word.strip() for word in formats.split(",") if word.strip())
    paths = _stores(run)
    for path in paths:
        stored = store.load(path)
        for warning in stored.warnings:
            say(f"warning: {warning}")
        if not stored.runs:
            raise NothingSelectedError(f"{path}: the store holds no run.")
        last = stored.runs[-1]
        records = [stored.records[key] for key in last.keys if key in stored.records]
        if not records:
            raise NothingSelectedError(f"{path}: the last run of the store has no record yet.")
        folder = out or path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {folder}: {error.strerror or error}.") from error
        meta = report.Meta(last.name, last.baseline, last.metrics or report.Meta("").metrics)
        for file in report.write(records, meta, chosen, folder):
            click.echo(str(file))


def _stores(run: Path) -> list[Path]:
    if run.is_file():
        return [run]
    if not run.is_dir():
        raise UsageError(f"{run}: there is no such folder or store.")
    found = sorted(run.glob("*.jsonl"))
    if not found:
        raise UsageError(f"{run}: there is no store (*.jsonl) in this folder: `attnprof run SPEC --out {run}` makes one.")
    return found


COMMANDS = {"report": report_command}
