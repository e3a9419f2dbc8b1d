"""Which cases stand in one table, what such a table is called, and which arguments vary as an ablation axis."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attnprof.records import Case, Record
from attnprof.report.text import clean

_ALWAYS = ("size", "channels", "frames", "batch", "dtype", "mode", "device", "host")


def by_block(records: Iterable[Record]) -> list[list[Record]]:
    """Records of equal Case.block together (one list is one table), in the order in which they come."""
    blocks: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        blocks.setdefault(record.case.block, []).append(record)
    return list(blocks.values())


def by_kind(records: Sequence[Record]) -> list[list[Record]] | None:
    """Records that differ in their shape alone together, where no label stands at two shapes; None where one does.

    That is a survey: each mechanism at its own size, nothing to be read against its neighbour in a block.
    """
    kinds: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        kinds.setdefault(record.case.block[1:], []).append(record)
    shapes = {record.case.shape for record in records}
    alone = all(len({record.case.label for record in members}) == len(members) for members in kinds.values())
    return list(kinds.values()) if alone and len(shapes) > 1 else None


def titles(cases: Sequence[Case]) -> list[str]:
    """'97x97, 512 channels, batch 1, float32, inference, device cpu', with the settings that differ between the cases."""
    parts = [_parts(case) for case in cases]
    varying = _varying(parts)
    return [", ".join(text for key, text in part.items() if key in _ALWAYS or key in varying) for part in parts]


def title_of_kind(cases: Sequence[Case]) -> str:
    """The title of a table whose cases differ in their shape: what they have in common."""
    parts = [_parts(case) for case in cases]
    varying = _varying(parts)
    return ", ".join(
        ["each at its own size", *(text for key, text in parts[0].items() if key in _ALWAYS and key not in varying)]
    )


def distinctions(cases: Sequence[Case]) -> list[str]:
    """Only what tells the cases apart: 'inference', '97x97, training'; '' for a single case."""
    parts = [_parts(case) for case in cases]
    varying = _varying(parts)
    return [", ".join(text for key, text in part.items() if key in varying) for part in parts]


def axes(records: Sequence[Record]) -> tuple[str, ...]:
    """Arguments that differ between cases of one mechanism, in the order in which they first appear."""
    values: dict[str, dict[str, set[str | None]]] = {}  # {argument: {mechanism: values}}
    cases: dict[str, int] = {}
    set_in: dict[tuple[str, str], int] = {}
    for record in records:
        mechanism = record.case.mechanism
        cases[mechanism] = cases.get(mechanism, 0) + 1
        for name, value in arguments_of(record.case).items():
            values.setdefault(name, {}).setdefault(mechanism, set()).add(argument_text(value))
            set_in[name, mechanism] = set_in.get((name, mechanism), 0) + 1

    def varies(name: str, mechanism: str, found: set[str | None]) -> bool:
        return len(found) > 1 or set_in[name, mechanism] < cases[mechanism]  # some case leaves it out

    return tuple(name for name, own in values.items() if any(varies(name, *item) for item in own.items()))


def set_by(records: Iterable[Record]) -> dict[str, set[str]]:
    """{argument: the mechanisms of which some case sets it}."""
    found: dict[str, set[str]] = {}
    for record in records:
        for name in arguments_of(record.case):
            found.setdefault(name, set()).add(record.case.mechanism)
    return found


def axis_text(case: Case, name: str, setters: Mapping[str, Collection[str]]) -> str:
    """An argument's value; 'default' where another case of the mechanism sets it (`set_by`), 'n/a' where none does."""
    found = arguments_of(case)
    if name in found:
        return clean(argument_text(found[name]))
    return "default" if case.mechanism in setters.get(name, ()) else "n/a"


def arguments_of(case: Case) -> dict[str, Any]:
    """The arguments of a case's mechanism, and `at` and `how` of what stands in a network: an ablation may be about these."""
    placed = {} if case.host is None or case.alone else {"at": case.host.at, "how": case.host.how}
    return {**case.args, **placed}


def argument_text(value: Any) -> str:
    """An argument as people write it: text bare, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def find(records: Sequence[Record], label: str | None) -> Record | None:
    """The record with this label, else the only one of the mechanism with this name; None where there is none."""
    exact = [record for record in records if record.case.label == label]
    if exact:
        return exact[0]
    named = [record for record in records if label in (record.case.mechanism, record.case.mechanism.rpartition("/")[2])]
    return named[0] if len(named) == 1 else None


def _parts(case: Case) -> dict[str, str]:
    shape = case.shape
    parts = {"size": f"{shape.height}x{shape.width}", "channels": f"{shape.channels} channels"}
    if shape.frames != 1:
        parts["frames"] = f"{shape.frames} frames"
    parts |= {"batch": f"batch {shape.batch}", "dtype": case.dtype, "mode": case.mode}
    parts["device"] = "traced only" if case.device == "none" else f"device {clean(case.device)}"
    if case.host:
        parts["host"] = f"inside {clean(case.host.text)}"
    return parts | {f"setting {key}": f"{clean(key)}={clean(argument_text(value))}" for key, value in case.settings.items()}


def _varying(parts: Sequence[Mapping[str, str]]) -> set[str]:
    keys = {key for part in parts for key in part}
    return {key for key in keys if len({part.get(key) for part in parts}) > 1}
