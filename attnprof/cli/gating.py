"""`gate`: is it worse than before? Exact and ratios against a baseline file, the spec's own claims, time against a checkout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo_json
from attnprof.cli.dry_run import dry_run
from attnprof.cli.interrupts import twice_leaves, undivided
from attnprof.cli.options import Seconds
from attnprof.cli.progress import coloured, progress, say
from attnprof.cli.ratio import ratios
from attnprof.cli.timing import time_options, timer
from attnprof.errors import UsageError

if TYPE_CHECKING:
    from attnprof.gate.outputs import Result
    from attnprof.gate.run import Asked
    from attnprof.spec import Spec

_CLASSES = ("exact", "ratio", "time", "claims")
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("gate")
@click.argument("spec", metavar="SPEC")
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="A file, or NAME in baselines/: what exact and ratio compare with."
)
@click.option(
    "--only",
    metavar="C,...",
    help="exact, ratio, time, claims.  [default: what the options and the spec make possible; ratio only here]",
)
@click.option("--match", multiple=True, metavar="GLOB", help="Only these mechanisms or labels (repeatable).")
@click.option("--tol", multiple=True, metavar="METRIC=T", help="How much more is allowed: flops=5%, peak_bytes=+16MiB.")
@click.option("--strict", is_flag=True, help="A decrease is a regression as well: the numbers are to be equal.")
@click.option("--on-missing", default="fail", show_default=True, type=click.Choice(("fail", "warn")), help="Vanished points.")
@time_options
@click.option("--report-json", type=_FILE, metavar="FILE", help="All rows, for other tools.")
@click.option("--junit", type=_FILE, metavar="FILE", help="JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="The summary, as Markdown.")
@click.option(
    "--annotations",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "github", "none")),
    help="On the spec's lines.",
)
@click.option(
    "--summary", default="auto", show_default=True, type=click.Choice(("auto", "none")), help="Append to $GITHUB_STEP_SUMMARY."
)
@click.option("--explain", is_flag=True, help="Every row, with the code of its reason.")
@click.option("--dry-run", is_flag=True, help="List what would be gated, say how long it would take, and stop.")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a value of the spec, as in `run`.")
@click.option("--timeout", default=300.0, show_default=True, type=Seconds(), help="Seconds per case before it is killed.")
@click.option(
    "--allow-import", multiple=True, metavar="PATTERN", help="Let `import:` entries run code: matched with module:Class."
)
@click.option("--json", "as_json", is_flag=True, help="The JSON report on stdout.")
@click.option("--no-color", is_flag=True, help="No colour on a terminal; nor has it any with NO_COLOR set.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def gate_command(spec: str, **options: Any) -> int:
    """Compare what SPEC costs now with what it did, and hold it to its own claims.

    Exit code 1: a regression or a false claim; 3: nothing comparable; 5: a point failed that did not before; 0: none of these.
    """
    from attnprof.gate import outputs, run

    began = datetime.now(UTC)
    asked = _asked(spec, options)
    _check_files(options)
    chosen = run.planned(asked)
    if options["dry_run"]:
        dry_run(asked, chosen, options)
        return 0
    with twice_leaves("No report is written."):
        with progress(options["quiet"]) as listener:
            measured = {}
            if "ratio" in asked.classes:
                measured["ratio"] = ratios(asked, chosen, options, listener)
            if "time" in asked.classes:
                measured["time"] = timer(asked.spec, options, asked.rules.tolerances, listener)
            result = run.run(asked, chosen, listener, measured)
        with undivided():
            _write(result, options, began)
    if options["as_json"]:
        echo_json(outputs.data(result))
    else:
        colour = not options["no_color"] and coloured()
        click.echo(outputs.console(result, options["explain"], colour), nl=False, color=colour)
    return result.code


def _asked(path: str, options: dict[str, Any]) -> Asked:
    from attnprof.gate import naming
    from attnprof.gate.judge import EQUAL, Rules
    from attnprof.gate.run import Asked
    from attnprof.spec import check_import_permission, parse_file
    from attnprof.spec.values import EXACT_METRICS

    spec = parse_file(path, options["overrides"])
    check_import_permission(spec, options["allow_import"])
    tolerances = {**spec.tolerances, **_tolerances(options["tol"])}
    directions = dict.fromkeys(EXACT_METRICS, EQUAL) if options["strict"] else {}
    rules = Rules(tolerances, directions, options["on_missing"] == "fail")
    baseline = None if options["baseline"] is None else naming.file_of(str(options["baseline"]))
    return Asked(spec, _classes(spec, options), baseline, options["match"], rules, options["timeout"])


def _classes(spec: Spec, options: dict[str, Any]) -> tuple[str, ...]:
    """The classes of --only, or those that there is something for."""
    possible = {"exact": options["baseline"] is not None, "time": options["base_ref"] is not None, "claims": bool(spec.claims)}
    possible["ratio"] = False  # it measures for minutes: nobody's exact gate shall begin to, when the baseline gains ratios
    if options["only"] is None:
        return tuple(name for name in _CLASSES if possible[name])
    chosen = [word.strip() for word in options["only"].split(",") if word.strip()]
    for name in chosen:
        if name not in _CLASSES:
            from attnprof.spec.values import nearest

            raise UsageError(f"--only: '{name}' is no class of gates: {nearest(name, _CLASSES) or ', '.join(_CLASSES)}")
    if "time" in chosen and not possible["time"]:
        raise UsageError("--only time compares with another checkout: give --base-ref REF.")
    return tuple(name for name in _CLASSES if name in chosen)


def _tolerances(given: Sequence[str]) -> dict[str, Any]:
    from attnprof.spec.quantities import TIMED, gated_metric, parse_tolerance

    found = {}
    for text in given:
        name, equals, amount = text.partition("=")
        if not equals or not amount.strip():
            raise UsageError(f"--tol {text}: write METRIC=5% or METRIC=+16MiB.")
        try:
            metric = gated_metric(name.strip(), TIMED)
            found[metric] = parse_tolerance(metric, amount)
        except UsageError as error:
            raise UsageError(f"--tol {text}: {error}.") from error
    return found


def _check_files(options: dict[str, Any]) -> None:
    """Raises UsageError at once where a file cannot be written: not after minutes."""
    for name in ("report_json", "junit", "markdown"):
        path: Path | None = options[name]
        if path is None:
            continue
        folder = path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            why = "the folder cannot be written" if folder.is_dir() else f"there is no folder {folder}"
            raise UsageError(f"--{name.replace('_', '-')} {path}: {why}.")


def _write(result: Result, options: dict[str, Any], began: datetime) -> None:
    """Every file that is asked for, then what GitHub reads."""
    from attnprof.gate import github, junit, outputs, summary

    seconds = (datetime.now(UTC) - began).total_seconds()
    if options["report_json"]:
        import json

        put(options["report_json"], json.dumps(outputs.data(result), indent=1, allow_nan=False) + "\n")
    if options["junit"]:
        put(options["junit"], junit.render(result, began, seconds))
    if options["markdown"]:
        put(options["markdown"], summary.render(result, summary.COMMENT))
    step = os.environ.get("GITHUB_STEP_SUMMARY")
    if step and options["summary"] == "auto":
        _append(Path(step), result)
    if github.wanted(options["annotations"], os.environ):
        root = os.environ.get("GITHUB_WORKSPACE")
        for line in github.render(result, Path(root) if root else Path.cwd()):
            say(line)


def _append(path: Path, result: Result) -> None:
    """The summary after what stands in the file already; what GitHub would refuse as a whole is not written."""
    from attnprof.gate import summary

    try:
        size = path.stat().st_size if path.exists() else 0
        room = summary.LIMIT - size
        if room < summary.LEAST:
            say(f"warning: {path} holds {size:,} bytes already: the step summary of this gate is left out.")
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(summary.render(result, room))
    except OSError as error:
        say(f"warning: {path}: the step summary cannot be written: {error.strerror or error}.")


def put(path: Path, content: str | bytes) -> None:
    """Write a file whole; UsageError where that fails."""
    from attnprof.store import write_atomically

    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}.") from error


COMMANDS = {"gate": gate_command}
