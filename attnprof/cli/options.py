"""Options and argument forms that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from attnprof.errors import UsageError
from attnprof.records import DTYPES, MODES

F = TypeVar("F", bound=Callable[..., Any])


def shape_options(command: F) -> F:
    """--hw (required), --channels, --batch, --dtype, --mode."""
    for option in (
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
