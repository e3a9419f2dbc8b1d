"""Which device a row was measured on, and which readings may be held against each other.

A count is the same everywhere. What was measured or calibrated belongs to the device it was found on, and a bound to the rates
it was made of: readings that differ in these are never compared, ranked, fitted or put on one front. Where a report holds
measurements of several devices (shards that were merged, nodes of a cluster), each has a letter; with one, nothing is said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attnprof.profiling.bounds import RATES
from attnprof.records import Record
from attnprof.report.metrics import METRICS, Metric
from attnprof.report.text import clean, letter

MEASURED_ON = "measured_on"  # the key of the column
DIFFERENT = "measured on different devices"
_APART = (
    "Measured numbers of different devices do not compare: no ratio, delta, interval, fit or mark (best, second) is taken"
    " across them, and a column of a table that holds several devices has no marks."
)
_FROM_RATES = ("bound", "unfused")
_SHORT = 6  # digits of a hash that people read
_UUID = 12  # of a GPU's: 'GPU-' and eight digits


@dataclass(frozen=True)
class Device:
    """Where something was measured: torch's name for it, its model, a GPU's UUID, hashes of the host and a cluster's node."""

    name: str
    model: str = ""
    uuid: str = ""
    host: str = ""
    node: str = ""

    @property
    def text(self) -> str:
        """'cpu, AMD EPYC 7B13, host 3f2a91, node 9c1d04'."""
        host = f"host {self.host[:_SHORT] or 'unknown'}"
        parts = [self.name, self.model, self.uuid[:_UUID], host, self.node and f"node {self.node[:_SHORT]}"]
        return ", ".join(clean(part) for part in parts if part)


def device_of(record: Record) -> Device | None:
    """Where the record's measurements come from; None where nothing was measured or calibrated."""
    timed = record.timing is not None and record.timing.n
    if not timed and record.memory is None and record.calibrated is None and record.energy_j is None:
        return None
    found = record.environment
    name = str(found.get("device") or record.case.device)
    of_gpu = {"model": "gpu", "uuid": "gpu_uuid"}
    keys = {**(of_gpu if name.startswith("cuda") else {"model": "cpu"}), "host": "machine", "node": "node"}
    return Device(name, **{field: str(found.get(key) or "") for field, key in keys.items()})


def lettered(records: Iterable[Record]) -> dict[Device, str]:
    """A, B, C, ... in the order in which devices first come; none where all measurements are of one device."""
    every = (device_of(record) for record in records)
    found = list(dict.fromkeys(device for device in every if device is not None))
    return {device: letter(number).upper() for number, device in enumerate(found, 1)} if len(found) > 1 else {}


def letter_of(record: Record, letters: Mapping[Device, str]) -> str:
    """The letter of the record's device; '' where nothing was measured, or there is one device."""
    device = device_of(record) if letters else None
    return letters.get(device, "") if device is not None else ""


def tied(key: str) -> bool:
    """Whether the metric of this key belongs to a device."""
    return key in METRICS and (not METRICS[key].traced or key in _FROM_RATES)


def place_of(record: Record, metric: Metric) -> object:
    """What two readings of a metric must have in common to be compared: their device, a bound's rates, for a count nothing."""
    if metric.key in _FROM_RATES:
        rates = record.environment.get(RATES)
        named = {key: value for key, value in rates.items() if key != "own"} if isinstance(rates, Mapping) else {}
        return json.dumps(named, sort_keys=True, default=str)
    return None if metric.traced else device_of(record)


def by_place(records: Iterable[Record], *metrics: Metric) -> list[list[Record]]:
    """Records whose readings of all these metrics may be compared together, in the order in which they come."""
    found: dict[object, list[Record]] = {}
    for record in records:
        found.setdefault(tuple(place_of(record, metric) for metric in metrics), []).append(record)
    return list(found.values())


def device_notes(records: Sequence[Record], letters: Mapping[Device, str]) -> list[str]:
    """What the letters stand for, of the devices that these records were measured on, and what is not done across them."""
    rows = Counter(device for record in records if (device := device_of(record)) in letters)
    shown = [(sign, device, rows[device]) for device, sign in letters.items() if device in rows]
    texts = [f"{sign}: {device.text} ({count} row{'s' if count > 1 else ''})" for sign, device, count in shown]
    return [f"Measured on {'; '.join(texts)}.", _APART] if texts else []
