"""The command line: each command parses, calls one layer, prints. stdout carries the result, stderr everything else.

Heavy imports (torch, pydantic, pandas, rich) stand inside the functions that need them: `--help` costs little more than click.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from attnprof.plain import json_text, printable

# command -> (module, line of help): a command's module is imported when the command is called.
_COMMANDS = {
    "run": ("running", "Trace and measure every case of SPEC..., write tables."),
    "compare": ("comparing", "Mechanisms side by side, with ratios."),
    "explain": ("explaining", "Where the cost goes, and who holds the memory at the peak."),
    "list": ("catalogue", "The catalogue of mechanisms."),
    "show": ("catalogue", "One mechanism: paper, formula, shapes, parameters, cost."),
    "report": ("reporting", "Write the reports of a run again."),
    "merge": ("merging", "One store of several: the shards of a run."),
    "validate": ("specs", "Check a spec: every mistake at its place."),
    "schema": ("specs", "The JSON Schema of spec files."),
    "formula": ("formulas", "Exact closed forms of the cost, with their domain and order."),
    "sites": ("sites", "Where in a network a mechanism can stand."),
    "verify": ("verify", "Published numbers, counted again: verdict and reason."),
    "crosscheck": ("crosschecking", "Every counter on the same module, and what each one missed."),
    "baseline": ("baselines", "The traced numbers that a gate compares with: save, show, diff, accept."),
    "gate": ("gating", "Is it worse than before? Exit code 1, with a sentence per regression."),
    "doctor": ("doctor", "What this machine can do, and what is missing."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"attnprof.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            advice = f"Did you mean '{near[0]}'?" if near else f"There are {', '.join(_COMMANDS)}."
            raise click.UsageError(f"no command is called '{args[0]}'. {advice}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"attnprof {version('attnprof')}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version.")
def cli() -> None:
    """What attention costs: counted without running it, measured where it can be believed.

    \b
    attnprof run specs/quickstart.yaml
    attnprof compare nonlocal ccnet --hw 97x97
    attnprof explain ccnet --hw 97x97 --mode training
    """


def echo_json(data: Any) -> None:
    """JSON on stdout, as one document."""
    click.echo(json_text(data, indent=2))


def echo(text: str) -> None:
    """A line on stdout that may quote anything."""
    click.echo(printable(text))
