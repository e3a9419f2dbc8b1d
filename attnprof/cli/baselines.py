"""`baseline`: save, show, diff, accept: the committed file that the exact gate compares with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo, echo_json
from attnprof.cli.gating import put
from attnprof.cli.options import Seconds
from attnprof.cli.progress import progress, say
from attnprof.cli.ratio import measured_ratios
from attnprof.errors import NothingSelectedError, UsageError

if TYPE_CHECKING:
    from attnprof.gate.baseline import Accepted, Baseline

_PATH = click.Path(path_type=Path)


@click.group("baseline")
def baseline_group() -> None:
    """The traced numbers of a spec in a file to commit: what `gate` compares with."""


@baseline_group.command("save")
@click.argument("spec", metavar="SPEC")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file.  [default: baselines/NAME.json]")
@click.option("--name", help="Save it as baselines/NAME.json.")
@click.option("--exact-only", is_flag=True, help="Count only: measure no ratios, and leave those that the file holds.")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a value of the spec, as in `run`.")
@click.option("--timeout", default=300.0, show_default=True, type=Seconds(), help="Seconds per case before it is killed.")
@click.option(
    "--allow-import", multiple=True, metavar="PATTERN", help="Let `import:` entries run code: matched with module:Class."
)
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def save_command(spec: str, **options: Any) -> int:
    """Count every case of SPEC, measure latency ratios to its `baseline:`, and write the file.

    The counts are the same on every machine, the ratios are of this one. Nothing is measured under --exact-only, where the spec
    has the device none, or where it has no `baseline:`. Exit code 5: a case failed.
    """
    from attnprof import plan, report
    from attnprof.gate import baseline, ledger, naming, points
    from attnprof.spec import check_import_permission, parse_file

    parsed = parse_file(spec, options["overrides"])
    check_import_permission(parsed, options["allow_import"])
    if options["out"] and options["name"]:
        raise UsageError("-o and --name both say where the baseline goes: give one.")
    path: Path = options["out"] or naming.new_file(options["name"] or report.file_stem(parsed.name))
    old = _old(path, options["quiet"])
    with progress(options["quiet"]) as listener:
        found = points.count(plan.expand(parsed, "none"), options["timeout"], listener)
        measures = not options["exact_only"] and parsed.measure.device != "none"
        ratios, lost = measured_ratios(parsed, options, listener, path) if measures else (None, False)
    saved = ledger.merged(old, baseline.Baseline(parsed.name, baseline.made_now(), found, ratios=ratios))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent}: cannot be made: {error.strerror or error}.") from error
    put(path, baseline.write(saved))
    click.echo(str(path))
    _dearer(old, saved)
    failed = [point for point in found.values() if point.status != "ok"]
    for point in failed:
        say(f"warning: {point.name}: {point.status}: {' '.join(point.detail.split())[:300]}: it is recorded as failing.")
    return 5 if failed or lost else 0


def _dearer(old: Baseline | None, saved: Baseline) -> None:
    """Say where a file that was replaced had lower numbers, or points that are gone: nothing in the new one says why."""
    from attnprof.gate import judge

    rows = [] if old is None else judge.judge(old, list(saved.points.values()))
    worse = [row for row in rows if row.fails]
    if worse:
        told = "1 number is" if len(worse) == 1 else f"{len(worse):,} numbers are"
        say(f"warning: {told} higher than in the file that was there, or gone: `baseline accept` would have written down why.")


def _old(path: Path, quiet: bool) -> Baseline | None:
    """The file that will be replaced, for its ledger; None where there is none that can be read."""
    from attnprof.gate import baseline

    if not path.exists():
        return None
    try:
        return baseline.read(path)
    except (NothingSelectedError, UsageError) as error:
        if not quiet:
            say(f"warning: {error} It is replaced; what it says of accepted changes is lost.")
        return None


@baseline_group.command("show")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def show_command(name: str | None, as_json: bool) -> None:
    """What NAME (baselines/NAME.json, or a path) holds: points, ratios, changes. Without NAME: what baselines/ holds."""
    from attnprof.gate import baseline, listing, naming

    if name is None:
        found = naming.listed()
        if as_json:
            echo_json({"baselines": [listing.listed_data(each) for each in found]})
        else:
            click.echo(listing.render_listed(found), nl=False)
        return
    held = naming.read(name)
    if as_json:
        echo_json(baseline.data(held))
    else:
        click.echo(listing.render(held), nl=False)


@baseline_group.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--format", "form", default="table", show_default=True, type=click.Choice(("table", "markdown", "json")))
def diff_command(a: str, b: str, form: str) -> None:
    """What is other in B than in A (names or paths). The exit code is 0 whatever that is: `gate` judges."""
    from attnprof.gate import difference, naming

    found = difference.between(naming.file_of(a), naming.file_of(b), naming.read(a), naming.read(b))
    if form == "json":
        echo_json(difference.data(found))
    else:
        click.echo(difference.markdown(found) if form == "markdown" else difference.table(found), nl=False)


@baseline_group.command("accept")
@click.option("--from", "source", required=True, type=_PATH, metavar="GATE.json", help="What `gate --report-json` wrote.")
@click.option("--metric", "metrics", multiple=True, help="Only this metric (repeatable); `point` for vanished points.")
@click.option("--match", multiple=True, metavar="GLOB", help="Only these mechanisms or labels (repeatable).")
@click.option("--reason", required=True, help="Why: it is written into the baseline, with the date.")
@click.option("--who", default="", help="Who stands for it.")
@click.option("--baseline", metavar="PATH", help="The file to change, or its name.  [default: the one that the gate read]")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def accept_command(source: Path, **options: Any) -> None:
    """Take changes that a gate reported into the baseline, with the reason for it."""
    from attnprof.gate import baseline, ledger, naming
    from attnprof.gate.rows import POINT
    from attnprof.spec.quantities import gated_metric

    if not options["reason"].strip():
        raise UsageError("--reason: say why, for whoever reads the baseline later.")
    report = _report(source)
    given = options["baseline"] or report.get("baseline")
    path = naming.file_of(given) if given else None
    if path is None:
        raise UsageError(f"{source}: this gate read no baseline: give --baseline FILE.")
    metrics = {name if name == POINT else gated_metric(name, (POINT,)) for name in options["metrics"]}
    changes = _changes(report["rows"], metrics, options)
    if not changes:
        raise NothingSelectedError(f"{source}: no change of a point in it matches: nothing is accepted.")
    before = baseline.read(path)
    _check_made(report, before, source, path)
    changed = ledger.accept(before, changes)
    new = changed.accepted[len(before.accepted) :]
    if not new:
        echo(f"nothing was to change: {path} has all that matches already.")
        return
    put(path, baseline.write(changed))
    for change in new:
        echo(f"accepted: {change.label} {change.point}: {change.metric} {change.before:,} -> {change.after:,}")
    if not options["quiet"]:
        say(f"wrote {path}: commit it.")


def _report(path: Path) -> Mapping[str, Any]:
    """The JSON report of a gate. Raises UsageError."""
    import json

    from attnprof.gate import outputs

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: this is no JSON: {error}.") from error
    if not isinstance(found, dict) or found.get("kind") != outputs.KIND or not isinstance(found.get("rows"), list):
        raise UsageError(f"{path}: this is no report of a gate: `attnprof gate SPEC --report-json {path}` writes one.")
    if found.get("schema") != outputs.SCHEMA:
        raise UsageError(f"{path}: its schema is {found.get('schema')}, not {outputs.SCHEMA}: run the gate again.")
    return found


def _check_made(report: Mapping[str, Any], held: Baseline, source: Path, path: Path) -> None:
    """Raises NothingSelectedError where the numbers of the report were counted with another torch than those of the file."""
    from attnprof.gate import baseline

    made = report.get("made")
    torch = made.get("torch") if isinstance(made, dict) else None
    if not isinstance(torch, str):
        raise UsageError(f"{source}: the report does not say which torch it was made with: run the gate again.")
    if torch != held.made.torch:
        spec = report.get("file")
        again = baseline.remake(path, spec) if isinstance(spec, str) and spec else baseline.remake(path)
        raise NothingSelectedError(
            f"{source} was counted with torch {torch}, and {path} with {held.made.torch}: "
            f"one file holds the numbers of one torch. Run the gate again with torch {held.made.torch}, "
            f"or make the whole file anew: `{again}`."
        )


def _changes(rows: Sequence[Mapping[str, Any]], metrics: set[str], options: Mapping[str, Any]) -> list[Accepted]:
    """The rows of the exact class whose value changed, as changes to accept."""
    from attnprof import plan
    from attnprof.gate.baseline import Accepted

    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = []
    for row in rows:
        try:
            known = row["class"] == "exact" and isinstance(row["from"], int) and isinstance(row["to"], int)
            if not known or row["from"] == row["to"] or (metrics and row["metric"] not in metrics):
                continue
            if options["match"] and not any(
                plan.matches(row["label"], row["mechanism"], row["key"], glob) for glob in options["match"]
            ):
                continue
            which = {name: str(row[name]) for name in ("metric", "key", "label", "point")}
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"a row of the report is damaged ({type(error).__name__}: {error}): run the gate again."
            ) from error
        why = {"reason": options["reason"].strip(), "when": when, "who": options["who"].strip()}
        found.append(Accepted(**which, before=row["from"], after=row["to"], **why))
    return found


COMMANDS = {"baseline": baseline_group}
