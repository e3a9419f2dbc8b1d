"""Options and argument forms that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from attnprof.errors import UsageError
from attnprof.records import DTYPES, MODES

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """More than none, and finite."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or a usage error for nan and inf as well."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no number of seconds.", param, ctx)
        return number


VIDEO_FRAMES = 8
_TIMEOUT = (
    "Seconds per case before it is killed.  [default: 300 for counting; for measuring 20 times what it is predicted to take, "
    "at least 60]"
)


def timeout_option(command: F) -> F:
    """--timeout of commands that measure."""
    return click.option("--timeout", type=Seconds(), help=_TIMEOUT)(command)


def jobs_option(command: F) -> F:
    """--jobs of commands that count many cases."""
    text = "Processes that count cases at once; measuring has the machine to itself.  [default: one per core]"
    return click.option("--jobs", type=click.IntRange(min=1), help=text)(command)


def frames_of(given: int | None, names: Sequence[str]) -> int:
    """--frames, or what stands for it: 8 where a catalogue mechanism takes frames, 1 otherwise.

    Raises UsageError for frames that nothing here takes.
    """
    from attnprof import mechanisms

    video = any(mechanisms.uses_frames(name) for name in names if ":" not in name)
    if not video and (given or 1) > 1:
        raise UsageError(f"--frames {given}: {', '.join(names)} {'takes' if len(names) == 1 else 'take'} single images.")
    return (given or VIDEO_FRAMES) if video else 1


def shape_options(command: F) -> F:
    """--hw (required), --channels, --frames, --batch, --dtype."""
    for option in (
        click.option(
            "--frames", type=click.IntRange(min=1), help=f"Frames T of a video; default {VIDEO_FRAMES} for video mechanisms."
        ),
        click.option("--dtype", default="float32", show_default=True, type=click.Choice(DTYPES), help="Type of the tensors."),
        click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Batch size."),
        click.option("--channels", default=512, show_default=True, type=click.IntRange(min=1), help="Channels of the input."),
        click.option("--hw", required=True, metavar="HxW", help="Resolution of the feature map, such as 97x97."),
    ):
        command = option(command)
    return command


def modes_of(text: str | None) -> tuple[str, ...]:
    """'inference,training' -> both; None -> both. Raises UsageError for another word."""
    modes = tuple(word.strip() for word in text.split(",")) if text else MODES
    for mode in modes:
        if mode not in MODES:
            raise UsageError(f"--mode: '{mode}' is no mode: {' or '.join(MODES)}, or both with a comma.")
    return tuple(dict.fromkeys(modes))


def name_and_args(text: str) -> tuple[str, dict[str, Any]]:
    """'ccnet' or 'ccnet[recurrence=1]' -> (name, arguments): the form in which tables label an ablation."""
    if not text.endswith("]") or "[" not in text:
        return text, {}
    name, _, inside = text[:-1].partition("[")
    from attnprof.spec.scalars import parse_scalar

    args: dict[str, Any] = {}
    for pair in inside.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"'{text}': write arguments as name[argument=value,...].")
        args[key.strip()] = parse_scalar(value.strip())
    return name, args


def check_entry(name: str, args: Mapping[str, Any]) -> None:
    """Raises UsageError for what a typed name gets wrong, as far as its source text says; nothing is imported or run."""
    if ":" in name:
        where = name.rpartition(":")[0]
        if where.endswith(".py") and not Path(where).is_file():
            raise UsageError(f"{where}: there is no such file (for '{name}'; looked for {Path(where).absolute()}).")
        if where.endswith(".py"):
            _check_class(Path(where), name.rpartition(":")[2])
        return
    if not args:  # `check_item` imports pydantic
        from attnprof import mechanisms

        mechanisms.resolve(name)
        return
    from attnprof.spec.entries import check_item

    for finding in check_item((), {"name": name, "args": dict(args)}):
        raise UsageError(f"{finding.what}: {finding.hint}" if finding.hint else f"{finding.what}.")


def _check_class(file: Path, wanted: str) -> None:
    """Raises UsageError where the file's source text has no such name at its top level; nothing is run."""
    import ast

    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return  # the child says it with the line
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif not isinstance(node, ast.Expr):
            return  # assignments and branches may define anything
    if wanted not in names and "*" not in names:
        import difflib

        near = difflib.get_close_matches(wanted, names, n=1)
        advice = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{file} has no '{wanted}'.{advice}")
