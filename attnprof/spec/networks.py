"""`host:` of a spec: the networks that mechanisms are placed in, and where; each list is an axis."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprof.errors import UsageError
from attnprof.records import Placement, to_json
from attnprof.spec.scalars import format_scalar


@dataclass(frozen=True)
class Network:
    """One entry of `host:`. `args`: for each build argument the tuple of its values. `at` and `how` are axes as well.

    `written`: the import path as the spec has it, where that is relative to the spec's folder and `host` is another text.
    """

    host: str  # a name of attnprof/hosts, or the import path
    args: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    at: tuple[str, ...] = ("",)
    how: tuple[str, ...] = ("after",)
    line: int = 0  # in the spec file; 0: not from a file
    written: str = ""

    @property
    def imported(self) -> bool:
        """True for a network of the user's own."""
        return ":" in self.host

    @property
    def text(self) -> str:
        """The name or import path as it was written."""
        return self.written or self.host


def make_network(text: str, args: Mapping[str, Any], at: str | None, how: str) -> Network:
    """A Network from what is typed on the command line. Raises UsageError for a name or argument that there is not."""
    from attnprof import hosts

    host = hosts.resolve(text)
    hosts.check_arguments(host, args)
    place = at or hosts.describe(host).site
    if not place:
        raise UsageError(f"{text}: where in it? Give --at with the name of a submodule (`attnprof sites {text}` lists them).")
    hosts.check_place(Placement(host, dict(args), place, how))
    return Network(host, {name: (value,) for name, value in args.items()}, (place,), (how,))


def placements(given: Sequence[Network]) -> list[tuple[Placement, list[tuple[Placement, str]]]]:
    """For every network, alone: each place in it, with what a label adds to tell it from the others ('at=body,how=before').

    Entries that differ in `at` and `how` only are one network.
    """
    found: dict[str, tuple[Placement, dict[tuple[str, str], None]]] = {}
    for network in given:
        for values in itertools.product(*network.args.values()):
            alone = Placement(network.host, dict(zip(network.args, values, strict=True)))
            _, places = found.setdefault(json.dumps(to_json(alone), sort_keys=True), (alone, {}))
            places |= dict.fromkeys(itertools.product(network.at, network.how))
    return [(alone, _labelled(alone, list(places))) for alone, places in found.values()]


def _labelled(alone: Placement, places: Sequence[tuple[str, str]]) -> list[tuple[Placement, str]]:
    varying = [name for name, axis in zip(("at", "how"), zip(*places, strict=True), strict=True) if len(set(axis)) > 1]
    out = []
    for at, how in places:
        words = {"at": at, "how": how}
        suffix = ",".join(f"{name}={format_scalar(words[name])}" for name in varying)
        out.append((Placement(alone.host, alone.args, at, how), suffix))
    return out


def label_at(label: str, suffix: str) -> str:
    """The label of a placed mechanism: 'se' -> 'se[at=body]', 'se[reduction=4]' -> 'se[reduction=4,at=body]'."""
    if not suffix:
        return label
    return f"{label[:-1]},{suffix}]" if label.endswith("]") else f"{label}[{suffix}]"


def channels_of(given: Sequence[Network]) -> int:
    """The channels of the input where a spec does not say: those that the first network has in its paper."""
    from attnprof import hosts

    return hosts.describe(given[0].host).natural.channels
