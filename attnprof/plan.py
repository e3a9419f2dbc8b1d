"""Spec -> Cases, in a stable order; choosing among them; grouping them into blocks. Pure.

Order: the inputs of the spec (in each: batch, channels, frames, hw), then the sizes that only single entries have, dtype,
settings, mode, hosts from outer to inner, the entries, their arguments and places innermost (after the network alone, where
there is one), so that the members of a block (cases that are timed interleaved) stand together.

A case's settings hold `sdpa` always, because it decides how attention is counted, and the others only where they differ from
their default: a spec that spells a default out asks the same question, and has the same key, as one that does not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import ALONE, Case, Placement, Shape, public_import
from attnprof.spec import Input, Network, Spec, inputs_of, label_of, size_problem, variants
from attnprof.spec.networks import label_at, placements

DEFAULT_SETTINGS = {"memory_format": "contiguous", "compile": False, "autocast": "none", "threads": None}
_KEY_PREFIX = 6  # characters of a key that select by it; fewer may be a word
_NAMED = 20
Member = tuple[frozenset[Shape], str, str, dict[str, Any], Placement | None]  # shapes, mechanism, label, args, host


def expand(spec: Spec, device: str) -> tuple[Case, ...]:
    """Every case of a spec on one device. Raises UsageError where the sweep is too large, before anything is expanded."""
    sentence = size_problem(spec)
    if sentence:
        raise UsageError(sentence)
    _refuse_twins(spec.hosts)
    shapes = [frozenset(_shapes(inputs_of(spec, entry))) for entry in spec.entries]
    every = dict.fromkeys(shape for entry in spec.entries for shape in _shapes(inputs_of(spec, entry)))
    ordered = dict.fromkeys([*(shape for shape in _shapes(spec.inputs) if shape in every), *every])
    members = [
        (own, entry.mechanism, label, _plain(args), None)
        for own, entry in zip(shapes, spec.entries, strict=True)
        for label, args in variants(entry)
    ]
    groups = [members] if not spec.hosts else list(_placed(spec.hosts, members, ordered))
    return tuple(
        Case(mechanism, label, args, shape, dtype, mode, device, host, settings)
        for shape, dtype, settings, mode in itertools.product(ordered, spec.dtype, _settings(spec), spec.modes)
        for group in groups
        for own, mechanism, label, args, host in group
        if shape in own
    )


def _refuse_twins(given: Sequence[Network]) -> None:
    """Two networks of one file name, by absolute paths: a record holds no folder, so one would be taken for the other."""
    seen: dict[str, str] = {}
    for network in given:
        name = public_import(network.host)
        if seen.setdefault(name, network.host) != network.host:
            raise UsageError(f"{seen[name]} and {network.host} would both be {name} in the records: rename one of the files.")


def _placed(given: Sequence[Network], members: Sequence[Member], shapes: Iterable[Shape]) -> Iterator[list[Member]]:
    """For every network: it alone, then with each mechanism at each place."""
    for alone, places in placements(given):
        yield [
            (frozenset(shapes), ALONE, alone.text, {}, _plain_host(alone)),
            *(
                (own, mechanism, label_at(label, suffix), args, _plain_host(place))
                for own, mechanism, label, args, _ in members
                for place, suffix in places
            ),
        ]


def _plain_host(placement: Placement) -> Placement:
    return replace(placement, args=_plain(dict(placement.args)))


def _shapes(inputs: Sequence[Input]) -> Iterator[Shape]:
    for given in inputs:
        for batch, channels, frames, (height, width) in itertools.product(given.batch, given.channels, given.frames, given.hw):
            yield Shape(batch, channels, height, width, frames)


def _settings(spec: Spec) -> list[dict[str, Any]]:
    """The settings of every combination: `sdpa`, and what differs from its default."""
    found = []
    for sdpa, *values in itertools.product(spec.sdpa, *(getattr(spec, name) for name in DEFAULT_SETTINGS)):
        pairs = zip(DEFAULT_SETTINGS, values, strict=True)
        found.append({"sdpa": sdpa, **{name: value for name, value in pairs if value != DEFAULT_SETTINGS[name]}})
    return found


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a case equals what is read back from its JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def select(cases: Sequence[Case], only: Sequence[str]) -> tuple[Case, ...]:
    """The cases that any of the globs matches: label (with or without its [arguments]), name, family/name, or start of the key.

    No globs: all cases. A network alone stays where a mechanism placed in it does. Raises NothingSelectedError, naming what
    there is, where nothing matches.
    """
    kept = [case for case in cases if not only or any(_matches(case, glob) for glob in only)]
    if any(case.alone for case in cases) and only:
        chosen_keys, homes = {id(case) for case in kept}, {case.block for case in kept}
        kept = [case for case in cases if id(case) in chosen_keys or (case.alone and case.block in homes)]
    chosen = tuple(kept)
    if not chosen:
        labels = list(dict.fromkeys(case.label for case in cases))
        named = ", ".join(labels[:_NAMED]) + (f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else "")
        wanted = " or ".join(repr(glob) for glob in only) or "an empty plan"
        raise NothingSelectedError(f"nothing matches {wanted}: there is {named or 'no case'}.")
    return chosen


def _matches(case: Case, glob: str) -> bool:
    return matches(case.label, case.mechanism, case.key, glob)


def matches(label: str, mechanism: str, key: str, glob: str) -> bool:
    """Whether a glob names a case: by label (with or without its [arguments]), name, family/name, or the start of the key."""
    names = (label, label.partition("[")[0], mechanism, label_of(mechanism))
    if any(name == glob or fnmatchcase(name, glob) for name in names):
        return True
    return len(glob) >= _KEY_PREFIX and set(glob) <= set("0123456789abcdef") and key.startswith(glob)


def blocks(cases: Sequence[Case]) -> tuple[tuple[Case, ...], ...]:
    """Cases grouped by `Case.block`, in the order in which each block is first met."""
    found: dict[Any, list[Case]] = {}
    for case in cases:
        found.setdefault(case.block, []).append(case)
    return tuple(tuple(members) for members in found.values())


def shards(cases: Sequence[Case], of: int) -> dict[str, int]:
    """{key of a case: the shard, from 1 to `of`, that it falls to}: whole blocks, whose members are timed against each other.

    Blocks are dealt in the order of their content hashes, each to the shard that has the fewest cases: the same on every
    machine, in whatever order the cases are given. The device is left out: machines that resolve `auto` to others still agree.
    """
    members: dict[str, list[str]] = {}
    for case in cases:
        members.setdefault(_hash_of_block(case), []).append(case.key)
    loads = [0] * of
    found = {}
    for _, keys in sorted(members.items()):
        number = loads.index(min(loads))
        loads[number] += len(keys)
        found.update(dict.fromkeys(keys, number + 1))
    return found


def _hash_of_block(case: Case) -> str:
    shape, dtype, mode, _, network, settings = case.block
    sizes = [shape.batch, shape.channels, shape.height, shape.width, shape.frames]
    text = json.dumps([sizes, dtype, mode, network, settings], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def shard(cases: Sequence[Case], index: int, of: int) -> tuple[Case, ...]:
    """The cases of shard `index` of `of`, in their order."""
    found = shards(cases, of)
    return tuple(case for case in cases if found[case.key] == index)


def parse_shard(text: str) -> tuple[int, int]:
    """'3/16' -> (3, 16). Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if found is None:
        raise UsageError(f"--shard {text!r}: write I/N, such as 3/16: the third of sixteen.")
    index, of = int(found[1]), int(found[2])
    if of == 0:
        raise UsageError(f"--shard {text}: there is no shard of none; write I/N, such as 1/4.")
    if index == 0:
        raise UsageError(f"--shard {text}: shards count from 1; with Slurm use --array=1-{of}.")
    if index > of:
        raise UsageError(f"--shard {text}: of {of} shards the last is {of}/{of}; with Slurm use --array=1-{of}.")
    return index, of
