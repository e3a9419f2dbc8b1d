"""`merge`: one store of several, such as the shards of a run, and its reports. Neither torch nor anybody's code is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attnprof.cli import echo_json
from attnprof.cli.progress import say
from attnprof.cli.reporting import write_reports
from attnprof.errors import UsageError

if TYPE_CHECKING:
    from attnprof.records import Record
    from attnprof.store import Run, Stored


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Store and reports.  [default: the first DIR]")
@click.option(
    "--format", "formats", default="md,csv", show_default=True, metavar="F,...", help="md, csv, json, latex, html, figure."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of tables.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def merge_command(runs: tuple[Path, ...], out: Path | None, formats: str, as_json: bool, quiet: bool) -> int:
    """Write NAME.jsonl of all stores in DIR... (or of stores named), then its reports.

    The members of a block come from one store: that with most cases that are ok. Exit code 5: a case failed or has no record;
    3: there is nothing to merge.
    """
    from attnprof import report

    chosen = report.check_formats(word.strip() for word in formats.split(",") if word.strip())
    folder = out or (runs[0] if runs[0].is_dir() else runs[0].parent)
    merged = _merge(runs, folder, quiet)
    records: list[Record] = []
    lacking: list[str] = []
    for path, (_, missing) in merged.items():
        sentences = [f"{text}." for text in missing]
        records += _report(path, sentences, chosen, as_json, quiet)
        lacking += sentences
    if as_json:
        from attnprof.report import json

        echo_json(json.data(records, "" if len(merged) > 1 else next(iter(merged.values()))[0].name, lacking))
    there = {record.case.key for record in records}
    complete = all(key in there for run, _ in merged.values() for key in run.keys)
    return 0 if complete and all(record.status == "ok" for record in records) else 5


def _merge(runs: Sequence[Path], folder: Path, quiet: bool) -> dict[Path, tuple[Run, tuple[str, ...]]]:
    """Write one store per name of a run. What lies at its place already is one of the sources, the last one."""
    from attnprof import report
    from attnprof.store import merging
    from attnprof.store.writer import held

    paths = _paths(runs)
    written = {}
    with ExitStack() as stack:
        # what is appended to a file that is then replaced would be lost with it; the others may be written on meanwhile
        there = {path.resolve() for path in folder.glob("*.jsonl")}
        busy = {path for path in sorted(there) if not stack.enter_context(held(path))}
        stores = _loaded(paths, quiet)
        for name in dict.fromkeys(stored.runs[-1].name for _, stored in stores if stored.runs):
            path = folder / f"{report.file_stem(name)}.jsonl"
            if path.is_file() and path.resolve() not in {own.resolve() for own, _ in stores}:
                stores += _loaded([path], quiet)
        stores.sort(key=lambda item: item[0].resolve().parent == folder.resolve() and _is_target(item))
        for name, sources in merging.sources_of(stores).items():
            merged = merging.merge(sources)
            missing = merging.missing(merged)
            for text in (*merged.warnings, *missing) if not quiet else ():
                say(f"warning: {text}.")
            path = folder / f"{report.file_stem(name)}.jsonl"
            if path.resolve() in busy:
                raise UsageError(f"{path}: a run is writing this store: merge when it is through, or give another --out.")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                merging.write(merged, path)
            except OSError as error:
                raise UsageError(f"{path}: cannot be written: {error.strerror or error}: give another --out.") from error
            written[path] = (merged.run, missing)
    return written


def _is_target(item: tuple[Path, Stored]) -> bool:
    from attnprof import report

    path, stored = item
    return bool(stored.runs) and path.name == f"{report.file_stem(stored.runs[-1].name)}.jsonl"


def _paths(runs: Iterable[Path]) -> list[Path]:
    """The stores named and those in the folders named, once each, in this order."""
    found: dict[Path, Path] = {}
    for run in runs:
        if not run.exists():
            raise UsageError(f"{run}: there is no such folder or store.")
        for path in sorted(run.glob("*.jsonl")) if run.is_dir() else [run]:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _loaded(paths: Iterable[Path], quiet: bool) -> list[tuple[Path, Stored]]:
    """What can be read, with warnings; a store of a newer attnprof or a foreign file is left out."""
    from attnprof import store

    found = []
    for path in paths:
        try:
            stored = store.load(path)
        except UsageError as error:
            say(f"warning: {error} It is left out.")
            continue
        for warning in stored.warnings if not quiet else ():
            say(f"warning: {warning}.")
        found.append((path, stored))
    return found


def _report(path: Path, missing: Sequence[str], formats: Sequence[str], as_json: bool, quiet: bool) -> list[Record]:
    """Write the reports of a merged store, print its tables."""
    from attnprof import report, store
    from attnprof.report import console
    from attnprof.report.code import different_code

    stored = store.load(path)
    run = stored.runs[-1]
    report.check_size(formats, len(run.keys))
    records, _ = stored.some(run.keys, outlined=not as_json and not {"html", "figure"} & {*formats})
    metrics = run.metrics or report.Meta("").metrics
    for text in different_code(records) if not quiet else ():
        say(f"warning: {text}")
    meta = report.Meta(run.name, run.baseline, metrics, source=run.source, commit=run.commit, missing=missing)
    written = write_reports(records, meta, formats, path.parent, stored.each(run.keys, []), path)
    if not as_json:
        table = report.build_as(records, meta)
        click.echo(console.render(table), nl=False)
    if not quiet:
        say("wrote " + ", ".join(str(file) for file in [*written, path]))
    return records


COMMANDS = {"merge": merge_command}
