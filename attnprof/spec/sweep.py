"""What a Spec expands to: the variants and inputs of its entries, its axes, and whether they are too many. Nothing is built."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from attnprof.errors import UsageError
from attnprof.spec.nouns import Entry, Input, Spec
from attnprof.spec.scalars import format_scalar

MAX_POINTS = 100_000
_SIZES = ("batch", "channels", "hw", "frames")
_REST = ("dtype", "modes", "sdpa", "memory_format", "compile", "autocast", "threads")


def variants(entry: Entry) -> Iterator[tuple[str, dict[str, Any]]]:
    """(label, args) for every combination of the entry's argument axes; the label names the axes that vary.

    'ccnet' with recurrence 1, 2 -> 'ccnet[recurrence=1]', 'ccnet[recurrence=2]'.
    """
    varying = [name for name, values in entry.args.items() if len(values) > 1]
    for combination in itertools.product(*entry.args.values()):
        args = dict(zip(entry.args, combination, strict=True))
        suffix = ",".join(f"{name}={format_scalar(args[name])}" for name in varying)
        yield f"{entry.label}[{suffix}]" if suffix else entry.label, args


def inputs_of(spec: Spec, entry: Entry) -> tuple[Input, ...]:
    """The inputs of one entry: the spec's, with the axes that the entry has of its own put in their place; no two alike.

    Frames stay 1 for what takes images: an image mechanism, and an imported class.
    """
    inputs = [dataclasses.replace(given, **entry.input) for given in spec.inputs]
    if any(given.frames != (1,) for given in inputs) and not _uses_frames(entry):
        inputs = [dataclasses.replace(given, frames=(1,)) for given in inputs]
    return tuple(dict.fromkeys(inputs))


def _uses_frames(entry: Entry) -> bool:
    from attnprof import mechanisms

    try:
        return not entry.imported and mechanisms.uses_frames(entry.mechanism)
    except UsageError:
        return True  # no name of the catalogue: said elsewhere


def axes(spec: Spec) -> dict[str, int]:
    """The length of every axis of the sweep; `mechanisms` counts each combination of arguments.

    Where the input is a list, or an entry has sizes of its own, the axes of the input are one with `mechanisms`.
    """
    rest = {name: len(getattr(spec, name)) for name in _REST}
    if spec.hosts:
        axes_of = ((*map(len, each.args.values()), len(each.at), len(each.how)) for each in spec.hosts)
        rest |= {"hosts and their sites": sum(map(math.prod, axes_of))}
    counts = [math.prod(len(values) for values in entry.args.values()) for entry in spec.entries]
    plain = len(spec.inputs) == 1 and all(inputs_of(spec, entry) == spec.inputs for entry in spec.entries)
    if plain:
        sizes = {name: len(getattr(spec.inputs[0], name)) for name in _SIZES}
        return sizes | rest | {"mechanisms": sum(counts)}
    shapes = [
        sum(math.prod(len(getattr(given, name)) for name in _SIZES) for given in inputs_of(spec, entry))
        for entry in spec.entries
    ]
    return {"mechanisms at their sizes": sum(map(math.prod, zip(counts, shapes, strict=True))), **rest}


def size_problem(spec: Spec) -> str:
    """A sentence where the sweep has more than MAX_POINTS points, '' otherwise. Nothing is expanded to find out."""
    lengths = axes(spec)
    points = math.prod(lengths.values())
    if points <= MAX_POINTS:
        return ""
    named = " x ".join(f"{name} {length:,}" for name, length in lengths.items() if length > 1)
    return f"the sweep has {points:,} points, more than {MAX_POINTS:,}: {named}"
