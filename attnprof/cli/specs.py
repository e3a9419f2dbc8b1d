"""`validate` and `schema`."""

from __future__ import annotations

import click

from attnprof.cli import echo_json


@click.command("validate")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a value, as in `run`.")
def validate_command(specs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check specs: every mistake at its place. Nothing is imported or run."""
    from attnprof import plan
    from attnprof.cli.bounding import check
    from attnprof.errors import UsageError
    from attnprof.spec import parse_file

    mistakes = []
    for path in specs:
        try:
            spec = parse_file(path, overrides)
            check(spec)
        except UsageError as error:
            mistakes.append(str(error))
        else:
            cases = plan.expand(spec, "none")
            click.echo(f"{path}: fine, {len(cases)} cases in {len(plan.blocks(cases))} blocks.")
    if mistakes:
        raise UsageError("\n".join(mistakes))


@click.command("schema")
def schema_command() -> None:
    """The JSON Schema of spec files, for editors."""
    from attnprof.spec import json_schema

    echo_json(json_schema())


COMMANDS = {"validate": validate_command, "schema": schema_command}
