"""Where the rates of a device come from: the published peaks of `devices.yaml`, or what `doctor --roofline` measured here.

    published(name)             -> Rates     of a device of the data file, at the highest clock that is known of it
    keep(found), kept(facts)                 a measured roofline in the user's cache directory, and back
    stamped(records, wanted)    -> records   each with the rates that bound it in its environment

`wanted` is `auto` (the published peaks of the GPU that measured; else what was measured on this very machine, with this torch
and number of threads), `measured`, or a name of the data file. No torch.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from attnprof.errors import SpecError, UsageError
from attnprof.profiling import bounds
from attnprof.profiling.bounds import Rates
from attnprof.records import Record

DATA = Path(__file__).with_name("devices.yaml")
KEPT_SCHEMA = 1
_FACTS = ("machine", "name", "torch", "threads")
_TERA, _GIGA, _MIB = 1e12, 1e9, 2**20


@dataclass(frozen=True)
class Published:
    """A device of the data file: what NVML and torch call it, its peaks, and where each was read."""

    key: str
    title: str
    names: tuple[str, ...]
    rates: Rates
    sources: Mapping[str, str]  # figure, such as matmul.float16, -> title, place and address


@cache
def devices() -> Mapping[str, Published]:
    """The devices of the data file. Raises SpecError for a file that is not well-formed."""
    return read(DATA.read_text(encoding="utf-8"), str(DATA))


def read(text: str, filename: str) -> Mapping[str, Published]:
    """The devices of a text in the form of `devices.yaml`. Raises SpecError with every mistake at its place."""
    from attnprof.profiling.devices_model import check

    found, problems = check(text, filename)
    if problems:
        raise SpecError(problems)
    return {key: _published(key, device, found["sources"]) for key, device in found["devices"].items()}


def _published(key: str, device: Mapping[str, Any], titles: Mapping[str, Any]) -> Published:
    clock = device.get("clock")

    def tera(figure: Mapping[str, Any]) -> float:
        """FLOP per second without sparsity, at the device's highest clock."""
        faster = clock["mhz"] / figure["mhz"] if clock is not None and "mhz" in figure else 1.0
        return float(figure["tflops"]) * _TERA / (2 if figure.get("sparse") else 1) * faster

    figures = {f"{kind}.{name}": figure for kind in ("matmul", "vector") for name, figure in device[kind].items()}
    figures["memory"] = device["memory"]
    last = device.get("cache")
    if last is not None:
        figures["cache"] = last
    if clock is not None:
        figures["clock"] = clock
    rates = Rates(
        device=key,
        source="published",
        macs_per_s={name: tera(figure) / 2 for name, figure in device["matmul"].items()},
        flops_per_s={name: tera(figure) for name, figure in device["vector"].items()},
        bytes_per_s=float(device["memory"]["gb_per_s"]) * _GIGA,
        cache_bytes=None if last is None else int(last["mib"] * _MIB),
        clock_mhz=None if clock is None else float(clock["mhz"]),
    )
    where = {name: "{title}, {place}: {url}".format(**titles[figure["source"]]) for name, figure in figures.items()}
    return Published(key, device["title"], tuple(device["names"]), rates, where)


def published(name: str) -> Published:
    """The device called `name` in the data file. Raises UsageError with the names that begin so, or the nearest."""
    if name not in devices():
        words = [*devices(), "auto", "measured"]
        near = [word for word in words if word.startswith(name.lower())] or difflib.get_close_matches(name.lower(), words, n=1)
        named = " or ".join(f"'{word}'" for word in near)
        advice = f"did you mean {named}?" if near else f"there are {', '.join(words)}."
        raise UsageError(f"bounds: no device is called '{name}': {advice}")
    return devices()[name]


def check_wanted(wanted: str) -> None:
    """Raise UsageError for what is neither auto, measured nor a device of the data file."""
    if wanted not in ("auto", "measured"):
        published(wanted)


def at_clock(rates: Rates, mhz: float | None) -> Rates:
    """Published rates for a card that may clock up to `mhz`, where that is more than they were taken at; memory stays."""
    if not mhz or rates.clock_mhz is None or mhz <= rates.clock_mhz:
        return rates
    faster = mhz / rates.clock_mhz
    macs = {name: rate * faster for name, rate in rates.macs_per_s.items()}
    flops = {name: rate * faster for name, rate in rates.flops_per_s.items()}
    return replace(rates, macs_per_s=macs, flops_per_s=flops, clock_mhz=mhz)


def recognised(name: str | None) -> Published | None:
    """The device of the data file that NVML or torch calls `name`; None for one that it does not have (a slice, a CPU)."""
    if not name:
        return None
    return next((each for each in devices().values() if name.lower() in map(str.lower, each.names)), None)


def stamped(records: Sequence[Record], wanted: str = "auto") -> list[Record]:
    """The records, each with the rates that bound it, or without any where none are known. Raises UsageError for `wanted`."""
    check_wanted(wanted)
    out, machines = [], _machines(records)
    for record in records:
        environment = bounds.put(record.environment, _rates_for(record, machines, wanted))
        out.append(record if environment == dict(record.environment) else replace(record, environment=environment))
    return out


def _machines(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """{device: facts} of the devices that were measured on, but for those that were of several machines: none of them is it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        facts = _facts(record)
        if facts is not None and record.case.device != "none":
            found.setdefault(record.case.device, []).append(facts)
    return {name: each[0] for name, each in found.items() if len({(one["machine"], one["name"]) for one in each}) == 1}


def _rates_for(record: Record, machines: Mapping[str, dict[str, Any]], wanted: str) -> Rates | None:
    case = record.case
    facts = _facts(record)
    if facts is None:  # not measured
        facts = machines.get(case.device)
    known = None if facts is None else recognised(facts["name"])
    if wanted not in ("auto", "measured"):
        own = known is not None and known.key == wanted
        rates = published(wanted).rates
        return replace(at_clock(rates, facts["max_mhz"]) if own and facts else rates, own=own)
    if facts is None:
        return None
    facts = {**facts, "threads": _threads(record)}
    measured = kept(facts)
    if known is None or wanted == "measured":
        return measured
    return replace(at_clock(known.rates, facts["max_mhz"]), op_s=0.0 if measured is None else measured.op_s)


def _facts(record: Record) -> dict[str, Any] | None:
    """What a kept roofline goes by, as the environment of a measured record has it; None where nothing was measured."""
    found = record.environment
    if "machine" not in found:
        return None
    name = found.get("gpu") if record.case.device.startswith("cuda") else found.get("cpu")
    facts = {"machine": found["machine"], "name": name, "torch": found.get("torch"), "threads": _threads(record)}
    return {**facts, "max_mhz": _highest_clock(found.get("gpu_state"))}


def _highest_clock(states: Any) -> float | None:
    """What NVML said of the highest clock of the multiprocessors in MHz, before or after; None where it said nothing."""
    seen = [state.get("max_sm_clock_mhz") for state in states or () if isinstance(state, Mapping)]
    return max((float(mhz) for mhz in seen if isinstance(mhz, (int, float))), default=None)


def _threads(record: Record) -> int | None:
    return None if record.case.device.startswith("cuda") else int(record.case.settings.get("threads") or 1)


def folder() -> Path:
    """The user's cache directory for attnprof: below XDG_CACHE_HOME, else below ~/.cache. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "attnprof"


def _file(facts: Mapping[str, Any]) -> Path:
    text = json.dumps([facts[name] for name in _FACTS])
    return folder() / f"roofline-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def keep(found: Mapping[str, Any]) -> Path:
    """Write what was measured (`measuring.roofline.measure`) where `kept` looks for it. Raises OSError where that fails."""
    path = _file(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps({"schema": KEPT_SCHEMA, **found}, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def kept(facts: Mapping[str, Any]) -> Rates | None:
    """The rates measured on this machine and device with this torch and number of threads; None where there are none.

    `facts`: machine, name, torch, threads. A file that cannot be read, or is of another schema, counts as none.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = json.loads(_file(facts).read_text(encoding="utf-8"))
        if found["schema"] == KEPT_SCHEMA and all(found[name] == facts[name] for name in _FACTS):
            return measured_rates(found)
    return None


def measured_rates(found: Mapping[str, Any]) -> Rates:
    """The rates of a measured roofline. Bandwidth is a property of the memory: the best of all kernels and dtypes."""
    rows: Mapping[str, Mapping[str, float]] = found["dtypes"]
    speeds = [row[kind] for row in rows.values() for kind in ("copy_bytes_per_s", "triad_bytes_per_s", "read_bytes_per_s")]
    return Rates(
        device=str(found["name"]),
        source="measured",
        macs_per_s={name: float(row["macs_per_s"]) for name, row in rows.items()} | dict(found.get("tf32_macs_per_s") or {}),
        flops_per_s={name: float(row["vector_flops_per_s"]) for name, row in rows.items()},
        bytes_per_s=float(max(speeds)),
        op_s=float(min(row["op_s"] for row in rows.values())),
        cache_bytes=int(found["cache_bytes"]),
    )
