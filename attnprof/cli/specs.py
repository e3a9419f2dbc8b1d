"""`validate` and `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from attnprof.cli import echo, echo_json

if TYPE_CHECKING:
    from attnprof.records import Case
    from attnprof.spec import Spec


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
            empty = _empty_claims(spec, cases)
            if empty:
                mistakes += empty
                continue
            echo(f"{path}: fine, {len(cases)} cases in {len(plan.blocks(cases))} blocks.")
    if mistakes:
        raise UsageError("\n".join(mistakes))


def _empty_claims(spec: Spec, cases: Sequence[Case]) -> list[str]:
    """Claims whose condition no case meets: a gate would say nothing of them."""
    if not spec.claims:
        return []
    from attnprof.gate import promises

    return [
        f"{spec.source}:{promise.line}:{promise.column}: no case of this spec is what the claim '{promise.text}' is about"
        for promise in spec.claims
        if not promises.instances(promise, cases)
    ]


@click.command("schema")
def schema_command() -> None:
    """The JSON Schema of spec files, for editors."""
    from attnprof.spec import json_schema

    echo_json(json_schema())


COMMANDS = {"validate": validate_command, "schema": schema_command}
