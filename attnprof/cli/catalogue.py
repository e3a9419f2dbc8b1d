"""`list` and `show`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from attnprof import mechanisms
from attnprof.cli import echo_json
from attnprof.cli.options import check_entry, frames_of, name_and_args
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.mechanisms import survey
from attnprof.records import MODES, SCHEMA_VERSION, Case, Shape, to_json

if TYPE_CHECKING:
    from attnprof.claims import Published
    from attnprof.profiling.forms import Forms

_CLAIMS = 5  # printed


@click.command("list")
@click.option("--family", help="Only this family: channel, spatial ...")
@click.option("--task", help="Only what was tried on this task: Cls, Det, SSeg ...")
@click.option("--kind", help="Only soft or hard attention.")
@click.option("--goal", help="Only this goal, a roman numeral of the survey's table for the family.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def list_command(as_json: bool, **wanted: str | None) -> None:
    """The catalogue of mechanisms; tasks, kinds and goals are the survey's (`show NAME` has them)."""
    rows = []
    for family, members in mechanisms.names().items():
        for name in members:
            title, headings = mechanisms.headings_of(f"{family}/{name}")
            paper = " ".join(headings["Paper"].split())
            rows.append((family, name, title, paper, survey.read(headings["Survey"])))
    chosen = [row for row in rows if all(word is None or _has(row, key, word) for key, word in wanted.items())]
    for key, word in wanted.items():
        if word is not None and not any(_has(row, key, word) for row in rows):
            every = dict.fromkeys(value for row in rows for value in _values(row, key))
            raise UsageError(f"--{key}: there is no '{word}': {', '.join(sorted(every))}.")
    if not chosen:
        raise NothingSelectedError("no mechanism has all of these.")
    if as_json:
        keys = ("family", "name", "title", "paper", "survey")
        listed = [dict(zip(keys, (*row[:4], to_json(row[4])), strict=True)) for row in chosen]
        echo_json({"schema": SCHEMA_VERSION, "mechanisms": listed})
        return
    from attnprof.report import catalogue

    click.echo(catalogue.list_text([row[:4] for row in chosen]), nl=False)


_ALIASES = {"KP": "KD", "Dec": "Det", "Seg": "SSeg"}  # the survey's tables against its own list of words


def _has(row: tuple[str, str, str, str, survey.Survey], key: str, word: str) -> bool:
    word = _ALIASES.get(word, word)
    if key == "family":
        word = word.replace(" and ", "_").replace(" & ", "_")
    return word.strip("()").casefold() in [value.casefold() for value in _values(row, key)]


def _values(row: tuple[str, str, str, str, survey.Survey], key: str) -> tuple[str, ...]:
    """What a row has under a filter."""
    columns = row[4]
    return {"family": (row[0],), "task": columns.tasks, "kind": columns.kind, "goal": columns.goals}[key]


@click.command("show")
@click.argument("name")
@click.option("--channels", type=click.IntRange(min=1), help="Evaluate the parameter count for these channels.")
@click.option("--hw", metavar="HxW", help="Count the cost at this resolution (512 channels unless told).")
@click.option("--frames", type=click.IntRange(min=1), help="Frames T of a video; default 8 for video mechanisms.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def show_command(name: str, channels: int | None, hw: str | None, frames: int | None, as_json: bool) -> None:
    """One mechanism: paper, formula, shapes, parameters, cost."""
    plain, args = name_and_args(name)
    entry = mechanisms.describe(plain)
    if args:
        check_entry(plain, args)
    numbers = _numbers(entry, args, channels, hw, frames) if channels or hw or args else {}
    found = _forms(entry.qualified, args)
    shape = _shape(entry, channels, hw, frames) if channels or hw else None
    from attnprof import claims
    from attnprof.report import catalogue, formula

    published = claims.about(entry.qualified)
    if as_json:
        arguments = [{"name": a.name, "default": a.default, "type": a.annotation} for a in entry.arguments]
        head = {"schema": SCHEMA_VERSION, "name": entry.name, "family": entry.family, "title": entry.title}
        texts = {"params_formula" if key == "Params" else key.lower(): text for key, text in entry.headings.items()}
        forms = {each.mode: formula.data(each, shape) for each in found}
        rows = {"claims": [asdict(row) for row in published]}
        echo_json({**head, **texts, "arguments": arguments, "forms": forms, **numbers, **rows})
        return
    costs = formula.short_texts(found, shape) | {key: _text(key, value) for key, value in numbers.items()}
    pairs = [(argument.name, argument.default) for argument in entry.arguments]
    click.echo(catalogue.show_text(entry.qualified, entry.title, entry.headings, pairs, costs), nl=False)
    if published:
        click.echo(_published(published))


def _published(rows: Sequence[Published]) -> str:
    """How many published numbers there are about a mechanism, by verdict, and the first of them."""
    from attnprof.report.text import wrap

    verdicts = Counter(row.verdict for row in rows)
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    ids = ", ".join(dict.fromkeys(row.claim.partition(".")[0] + ".*" for row in rows))
    texts = [*(row.text() for row in rows[:_CLAIMS]), f"reasons: `attnprof verify --only '{ids}'`"]
    lines = [
        *wrap(f"Published numbers with it: {len(rows)} ({said})"),
        *(f"  {line}" for text in texts for line in wrap(text, 78, "  ")),
    ]
    return "\n" + "\n".join(lines)


def _forms(qualified: str, args: dict[str, Any]) -> list[Forms]:
    """The kept closed forms of both modes; none for other arguments than the defaults, and where none are true."""
    from attnprof.profiling.forms import kept

    cases = (Case(qualified, qualified, args, Shape(1, 1, 1, 1), mode=mode) for mode in MODES)
    return [forms for forms in map(kept.forms_for, cases) if forms is not None]


def _numbers(
    entry: mechanisms.Entry, args: dict[str, Any], channels: int | None, hw: str | None, frames: int | None
) -> dict[str, Any]:
    """{'params': n} for the channels; with a resolution the counts of both modes as well."""
    from attnprof.profiling.forms import kept

    shape = _shape(entry, channels, hw, frames)
    case = Case(entry.qualified, entry.qualified, args, shape)
    counts = kept.counts_of(case)
    by_shape = any(each.name in ("hw", "frames") and each.name not in args for each in entry.arguments)
    found: dict[str, Any] = {"shape": shape.text()} if hw or by_shape else {}
    found["params"] = _params(case) if counts is None else counts.params
    if hw:
        from attnprof.cli.tracing import counts_here

        for mode in MODES:
            counts = counts_here(replace(case, mode=mode))
            found[mode] = {"macs": counts.macs, "flops": counts.flops, "peak_bytes": counts.peak_bytes}
    return found


def _shape(entry: mechanisms.Entry, channels: int | None, hw: str | None, frames: int | None) -> Shape:
    """The shape that was asked for: 512 channels and 65x65 where nothing else is said."""
    from attnprof.spec import parse_hw

    height, width = parse_hw(hw) if hw else (65, 65)
    return Shape(1, channels or 512, height, width, frames_of(frames, [entry.qualified]))


def _params(case: Case) -> int:
    """The parameter count by the mechanism's own closed form; imports torch. Raises UsageError where it cannot be had."""
    mechanism = mechanisms.load(case.mechanism)
    assert mechanism.params is not None
    full = mechanisms.complete_args(mechanism, case.shape, case.args)
    try:
        return mechanism.params(case.shape.channels, **full)
    except (ValueError, ArithmeticError, LookupError) as error:
        raise UsageError(
            f"{case.mechanism} cannot be had at {case.shape.channels} channels with these arguments: {error}."
        ) from error


def _text(key: str, value: Any) -> str:
    from attnprof.units import format_bytes, with_word

    if isinstance(value, dict):
        peak = format_bytes(value["peak_bytes"])
        macs, flops = (with_word(value[key], word) for key, word in (("macs", "MACs"), ("flops", "FLOPs")))
        return f"{macs}, {flops}, peak memory {peak}"
    if isinstance(value, str):
        return value
    return f"{value:,}"


COMMANDS = {"list": list_command, "show": show_command}
