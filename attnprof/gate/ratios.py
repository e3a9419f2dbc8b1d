"""The ratios of latencies that a baseline holds: of cases to the reference of their block, on one kind of device. Pure.

A ratio of two modules that are timed side by side in the same processes moves far less from day to day than either latency
does, so that one that was measured once can be held against one of now, where device, torch and threads are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnprof import stats
from attnprof.plain import json_text
from attnprof.records import Case, Record
from attnprof.report.blocks import by_block, find

METRIC = "latency_ratio"
REGRESSED, PASSED, UNDECIDED = "regressed", "passed", "undecided"
_DIGITS = 6


@dataclass(frozen=True)
class Held:
    """latency(case) / latency(the case labelled `against`), with its 95 % interval over processes."""

    against: str
    ratio: float
    low: float
    high: float
    processes: int
    pairs: int
    threads: int

    @property
    def bounds(self) -> str:
        """'0.0831 to 0.0852'."""
        return f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Ratios:
    """What was measured on one device (its model, as its driver or the system names it) with one torch (major.minor).

    points: by the key of the traced case, which is the same whatever the device.
    """

    device: str
    torch: str
    points: Mapping[str, Held]


@dataclass(frozen=True)
class Pair:
    """Two cases of one block. `key` is that of the first without its device: a point of the baseline."""

    key: str
    case: Case
    reference: Case


def pairs_of(cases: Sequence[Case], baseline: str, keys: Mapping[str, str]) -> list[Pair]:
    """Every case with the reference of its block: the one that the reports give ratios to. keys: {case key: traced key}.

    A block without the reference has no pair.
    """
    found = []
    for members in by_block([Record(case) for case in cases]):
        reference = find(members, baseline)
        if reference is not None:
            found += [Pair(keys[each.case.key], each.case, reference.case) for each in members if each is not reference]
    return found


def held(found: stats.Ratio, against: str, threads: int) -> Held:
    """A ratio as it is stored: to six digits."""
    value, low, high = (float(f"{number:.{_DIGITS}g}") for number in (found.value, found.low, found.high))
    return Held(against, value, low, high, found.processes, found.pairs, threads)


def decide(found: stats.Ratio, stored: Held, tolerance: float) -> str:
    """REGRESSED where the whole interval is above the stored upper bound x (1 + tolerance), PASSED where none of it is."""
    limit = stored.high * (1 + tolerance)
    if found.low > limit:
        return REGRESSED
    return PASSED if found.high <= limit else UNDECIDED


def lower(found: stats.Ratio, stored: Held, tolerance: float) -> bool:
    """Whether the interval of now is below the stored one by more than the tolerance."""
    return found.high < stored.low / (1 + tolerance)


def mismatch(stored: Ratios, device: str, torch: str, file: str) -> str:
    """Why nothing measured here can be held against what is stored: '' where it can."""
    again = f"Measure anew with `attnprof baseline save SPEC -o {file}`, or gate"
    if stored.torch != torch:
        return f"the ratios of {file} were measured with torch {stored.torch}, and here is {torch}. {again} with that torch."
    if stored.device != device:
        return f"the ratios of {file} were measured on {stored.device}, and here is {device}. {again} on such a device."
    return ""


def text(ratios: Ratios, order: Iterable[str]) -> str:
    """The section of the file, a line per ratio in the order of the keys, with the comma that follows it."""
    lines = ",\n".join(f"      {_line(key)}: {_line(asdict(ratios.points[key]))}" for key in order if key in ratios.points)
    head = f'  "ratios": {{\n    "device": {_line(ratios.device)}, "torch": {_line(ratios.torch)},\n'
    return f'{head}    "points": {{\n{lines}\n    }}\n  }},\n'


def _line(value: Any) -> str:
    return json_text(value)


def from_json(content: Any) -> Ratios:
    """Raises KeyError, TypeError or ValueError for what is none."""
    points = {}
    for key, line in content["points"].items():
        whole = {name: _number(line[name], int) for name in ("processes", "pairs", "threads")}
        real = {name: _number(line[name], (int, float)) for name in ("ratio", "low", "high")}
        if not 0 < real["low"] <= real["ratio"] <= real["high"] or whole["processes"] < 2:
            raise ValueError(f"the ratio of {key} is none")
        points[key] = Held(_text(line["against"]), **real, **whole)
    return Ratios(_text(content["device"]), _text(content["torch"]), points)


def _number(value: Any, kind: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
