"""`formula`: exact closed forms, from what is kept beside the catalogue where that is true, else found by tracing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from attnprof.cli import echo_json
from attnprof.cli.options import Seconds, check_entry, frames_of, modes_of, name_and_args
from attnprof.cli.progress import say
from attnprof.errors import UntraceableError, told
from attnprof.profiling.forms import Forms
from attnprof.records import SCHEMA_VERSION, Case, Shape

FINDER = "attnprof.profiling.forms.find:find_forms"  # imports torch
_CHANNELS, _SIDE = 64, 16  # where a search begins that is not told a size


@click.command("formula")
@click.argument("name")
@click.option("--mode", help="inference, training, or both with a comma (the default).")
@click.option("--channels", type=click.IntRange(min=1), help="Evaluate the forms at these channels (512 where --hw is given).")
@click.option("--hw", metavar="HxW", help="Evaluate the forms at this resolution (65x65 where --channels is given).")
@click.option("--frames", type=click.IntRange(min=1), help="Frames T of a video; default 8 for video mechanisms.")
@click.option("--timeout", default=300.0, show_default=True, type=Seconds(), help="Seconds per mode for a class of your own.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def formula_command(
    name: str,
    mode: str | None,
    channels: int | None,
    hw: str | None,
    frames: int | None,
    timeout: float,
    as_json: bool,
) -> None:
    """What NAME costs as exact expressions in C, H, W (T): parameters, MACs, FLOPs, bytes and peak memory.

    NAME is a mechanism (ccnet, spatial/ccnet, ccnet[recurrence=1]) or a class of your own (./mine.py:Mine), which is run.
    """
    from attnprof import spec
    from attnprof.report import formula

    modes = modes_of(mode)
    plain, args = name_and_args(name)
    check_entry(plain, args)
    entry = spec.make_entry(plain, args)
    height, width = spec.parse_hw(hw) if hw else (65, 65)
    asked = channels is not None or hw is not None
    shape = Shape(1, channels or 512, height, width, frames_of(frames, [entry.mechanism]))
    begin = shape if asked else replace(shape, channels=_CHANNELS, height=_SIDE, width=_SIDE)
    values = {key: each[0] for key, each in entry.args.items()}
    label = name if args else entry.label
    cases = [Case(entry.mechanism, label, values, begin, mode=each, settings={"sdpa": "auto"}) for each in modes]
    found, source = _forms(cases, timeout)
    at = shape if asked else None
    if as_json:
        first, *others = (formula.data(forms, at) for forms in found)
        head: dict[str, Any] = {"schema": SCHEMA_VERSION, "name": entry.mechanism, "args": values, "mode": modes[0]}
        where = {"source": source, **({"shape": shape.text()} if asked else {})}
        echo_json(head | where | first | dict(zip(modes[1:], others, strict=True)))
        return
    click.echo(formula.render(label, found, source, at), nl=False)


def _forms(cases: list[Case], timeout: float) -> tuple[list[Forms], str]:
    """The forms of every mode, and where they are from in a sentence."""
    from attnprof.profiling.forms import kept

    answered = [kept.forms_for(case) for case in cases]
    known = [forms for forms in answered if forms is not None]
    if len(known) == len(cases):
        return known, "Kept beside the catalogue; what they were made from is unchanged, so nothing was traced."
    why = kept.why_not(cases[0])
    return [_find(case, timeout) for case in cases], f"Found now from traces{why}."


def _find(case: Case, timeout: float) -> Forms:
    """Forms from traces. Raises UntraceableError where there is not a single one."""
    say(f"[formula] {case.label} {case.mode}: looking for its forms by tracing; that takes seconds to minutes")
    forms = _search(case, timeout)
    if not forms.forms:
        reasons = "; ".join(dict.fromkeys(forms.missing.values()))
        by_data = "its cost depends on data" in reasons
        advice = " A size that it takes, given with --channels and --hw, may help." if case.imported and not by_data else ""
        raise UntraceableError(f"{case.label}, {case.mode}: no closed form: {reasons}.{advice}")
    return forms


def _search(case: Case, timeout: float) -> Forms:
    """What the finder says: of a catalogue mechanism in this process, of other people's code in a child."""
    from attnprof.profiling.forms import kept

    if case.imported:
        from attnprof.execute import Options
        from attnprof.execute.asking import ask

        return kept.forms_from_json(ask(FINDER, case, Options(timeout_s=timeout))["forms"])
    from attnprof import mechanisms
    from attnprof.profiling.forms import find

    natural = mechanisms.load(case.mechanism).natural
    begin = case.shape if natural is None else replace(natural, batch=1)
    try:
        return find.find_forms(replace(case, shape=begin)).forms
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise UntraceableError(f"{case.label}: {told(error)}") from error


COMMANDS = {"formula": formula_command}
