"""`run`: the main job. spec -> plan -> execute -> store -> report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo, echo_json
from attnprof.cli.bounding import bounded, check
from attnprof.cli.crosschecking import cross_checked
from attnprof.cli.executing import EXECUTORS, execution, joined
from attnprof.cli.interrupts import twice_leaves
from attnprof.cli.made_from import commit_of, source_of
from attnprof.cli.options import jobs_option, timeout_option
from attnprof.cli.progress import say
from attnprof.cli.reporting import write_reports
from attnprof.cli.resuming import CALIBRATED, execute, reuse
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import NOT_MEASURED_BUDGET, SCHEMA_VERSION, Case, Record, to_json

if TYPE_CHECKING:
    from attnprof.store import Run


@click.command("run")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--device", help="auto, cpu, cuda, cuda:N, or none to trace only.  [default: the spec's]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Store and reports.  [default: reports/NAME]")
@click.option(
    "--format", "formats", default="md,csv", show_default=True, metavar="F,...", help="md, csv, json, latex, html, figure."
)
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a value: --set input.hw=[33x33].")
@click.option("--only", multiple=True, metavar="GLOB", help="Only these mechanisms or labels (repeatable).")
@click.option("--resume", is_flag=True, help="Re-run nothing that the store holds and that is ok.")
@click.option("--fresh", is_flag=True, help="Forget what the store holds.")
@timeout_option
@jobs_option
@click.option(
    "--allow-import", multiple=True, metavar="PATTERN", help="Let `import:` entries run code: matched with module:Class."
)
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts, whole blocks each; `attnprof merge` joins the stores.")
@click.option(
    "--executor", default="local", show_default=True, type=click.Choice(EXECUTORS), help="This machine, or a Ray cluster."
)
@click.option("--ray-address", metavar="ADDRESS", help="HOST:PORT or auto.  [default: RAY_ADDRESS, else a Ray on this machine]")
@click.option("--dry-run", is_flag=True, help="List the cases and stop.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of tables.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def run_command(specs: tuple[str, ...], **options: Any) -> int:
    """Trace every case of SPEC..., measure within the budget, write tables to DIR and stdout.

    Exit code 5: a case failed (its row says how); 130: interrupted, `--resume` goes on.
    """
    from attnprof import plan, report
    from attnprof.spec import check_import_permission, parse_file

    if options["resume"] and options["fresh"]:
        raise UsageError("--resume and --fresh contradict each other.")
    formats = report.check_formats(word.strip() for word in options["formats"].split(",") if word.strip())
    parsed = [parse_file(path, options["overrides"]) for path in specs]
    _refuse_same_names([spec.name for spec in parsed])
    for spec in parsed:
        check_import_permission(spec, options["allow_import"])
    if options["shard"]:
        options["shard"] = plan.parse_shard(options["shard"])
    records: list[Record] = []
    with joined(options["executor"], options["ray_address"], options["quiet"]):
        planned = _planned(parsed, options)
        if options["dry_run"]:
            own = [(spec, _own(cases, options)) for spec, cases in planned]
            _list(own, options["as_json"])
            if not any(cases for _, cases in own):
                say("no block falls to this shard: it would do nothing.")
            return 0
        for spec, cases in planned:
            report.check_size(formats, len(cases))
            _check_places(spec, cases)
        with twice_leaves():
            try:
                for spec, cases in planned:
                    records += _run_one(spec, cases, options, formats)
            except KeyboardInterrupt:  # not while cases were run: a cross-check, a report
                say("interrupted: what was finished is in the store. Run it again with --resume (without --fresh) to go on.")
                raise click.exceptions.Exit(130) from None
    if options["as_json"]:
        from attnprof.report import json

        echo_json(json.data(records, parsed[0].name if len(parsed) == 1 else ""))
    return 5 if any(record.status != "ok" for record in records) else 0


def _own(cases: Sequence[Case], options: dict[str, Any]) -> tuple[Case, ...]:
    """The cases of the shard that was asked for, or all."""
    from attnprof import plan

    return plan.shard(cases, *options["shard"]) if options["shard"] else tuple(cases)


def _check_places(spec: Any, cases: Sequence[Case]) -> None:
    """Places in networks of the user's own, known once they are built; those of the hosts are checked with the spec."""
    from attnprof.cli.hosting import check_own_places

    try:
        check_own_places(cases)
    except UsageError as error:
        line = next((network.line for network in spec.hosts if network.imported), 0)
        raise UsageError(f"{spec.source}:{line}: {error}" if line else str(error)) from error


def _refuse_same_names(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two specs are called '{twice}': their stores would mix. Rename one, or run them one by one.")


def _planned(specs: Sequence[Any], options: dict[str, Any]) -> list[tuple[Any, tuple[Case, ...]]]:
    """Each spec with its cases, all before the first is run. Of several, those in which --only matches nothing are left out."""
    planned, refusals = [], []
    for spec in specs:
        try:
            planned.append((spec, _cases(spec, options)))
        except NothingSelectedError as error:
            refusals.append(NothingSelectedError(f"{spec.name}: {error}" if len(specs) > 1 else str(error)))
    if not planned:
        raise refusals[0]
    for refusal in refusals if not options["quiet"] else ():
        say(f"warning: {refusal} This spec is left out.")
    return planned


def _cases(spec: Any, options: dict[str, Any]) -> tuple[Case, ...]:
    from attnprof import plan

    check(spec)
    wanted = options["device"] or spec.measure.device
    device, warning = execution(options["executor"]).resolve_device(wanted)
    if warning and not options["quiet"]:
        say(f"warning: {warning}")
    return plan.select(plan.expand(spec, device), options["only"])


def _list(planned: Iterable[tuple[Any, Iterable[Case]]], as_json: bool) -> None:
    if as_json:
        cases = [to_json(case) | {"spec": spec.name, "key": case.key} for spec, members in planned for case in members]
        echo_json({"schema": SCHEMA_VERSION, "cases": cases})
        return
    for spec, members in planned:
        for case in members:
            echo(f"{spec.name} {case.key} {case.label} {case.shape.text()} {case.dtype} {case.mode} {case.device}")


def _run_one(spec: Any, cases: Sequence[Case], options: dict[str, Any], formats: Sequence[str]) -> list[Record]:
    """One spec: reuse what the store holds, run the rest, write each record at once, then the reports."""
    from attnprof import plan, report, store
    from attnprof.report import console

    shard, of = options["shard"] or (None, None)
    name = store.shard_name(spec.name, shard, of)
    stem = report.file_stem(name)
    folder: Path = options["out"] or Path("reports") / report.file_stem(spec.name)
    path = _prepare(folder, stem)
    asked = plan.shards(cases, of) if of else dict.fromkeys((case.key for case in cases), 0)
    asked = {case.key: asked[case.key] for case in cases}  # in the order of the plan
    every, cases = cases, _own(cases, options)
    made_from = source_of(spec.source, options["overrides"]), commit_of(spec.source)
    cut = (shard, of, tuple(asked.values())) if of else ()
    run = store.Run(spec.name, tuple(asked), spec.baseline, tuple(spec.metrics), *made_from, *cut)
    with store.writing(path, fresh=options["fresh"]) as writer:
        stored = store.load(path)
        kept, counted = reuse(stored, path, cases, options, CALIBRATED in spec.metrics)
        larger = len(stored.records.keys() | set(run.own)) if stored.records.keys() - set(run.own) else 0
        writer.append(run)
        if not cases:
            blocks = len(plan.blocks(every))
            say(
                f"no block of {spec.name} falls to shard {shard}/{of} (blocks in all: {blocks}): there is nothing to do, and "
                f"{path} says so."
            )
            return []
        todo = [case for case in cases if case.key not in kept]
        found, interrupted = execute(spec, todo, options, writer, counted)
        by_key = kept | counted | found
        if spec.counters and not interrupted:
            by_key |= cross_checked(by_key, spec.counters, writer, options)
        records = bounded([by_key[key] for key in run.own if key in by_key], spec, writer)
    meta = report.Meta(name, spec.baseline, spec.metrics, source=run.source, commit=run.commit, missing=_missing(run, by_key))
    stale = [name for name in report.there(folder, stem) if name not in formats]
    try:
        written = write_reports(records, meta, (*formats, *(name for name in stale if name != "figure")), folder)
    finally:  # a file that cannot be written costs nobody the table
        if not options["as_json"]:
            click.echo(console.render(report.build_as(records, meta)), nl=False)
    if not options["quiet"]:
        say("wrote " + ", ".join(str(file) for file in [*written, path]))
        if "figure" in stale:
            say(f"the figures in {folder} are of an earlier run: `attnprof report {folder} --format figure` renews them.")
        if larger:
            say(
                f"the reports show the {len(run.own)} cases of this run; the store holds {larger}: "
                f"`attnprof report {folder} --all` writes them all."
            )
        _say_what_the_budget_left_out(records, spec)
    if interrupted:
        done = len(kept) + sum(record.status != "interrupted" for record in found.values())
        counted_only = len(records) - done
        more = f" (of {counted_only} more the counts are there)" if counted_only else ""
        said = f"interrupted: {done} of {len(run.own)} cases are done{more}."
        say(f"{said} Run it again with --resume (without --fresh) to go on.")
        raise click.exceptions.Exit(130)
    return records


def _missing(run: Run, by_key: Mapping[str, Record]) -> list[str]:
    """What the tables of a run lack that was interrupted."""
    from attnprof.store.merging import lacks

    statuses = [by_key[key].status if key in by_key else "" for key in run.own]
    return [f"{text}." for text in lacks(statuses)]


def _say_what_the_budget_left_out(records: Sequence[Record], spec: Any) -> None:
    left = sum(record.detail.startswith(NOT_MEASURED_BUDGET) for record in records)
    if left and spec.measure.run_budget_s is not None:
        say(
            f"{left} of {len(records)} cases are not measured: measuring had {spec.measure.run_budget_s:g} s. Run it again "
            "with --resume and more: --set measure.run_budget_s=SECONDS (null: no bound)."
        )


def _prepare(folder: Path, stem: str) -> Path:
    """The store's path in a folder that is there and can be written."""
    path = folder / f"{stem}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # it can be written
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror or error}: give --out a folder that can be written.") from error
    return path


COMMANDS = {"run": run_command}
