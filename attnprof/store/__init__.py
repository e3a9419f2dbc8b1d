"""The store: DIR/NAME.jsonl, append-only, one JSON object per line, one write and one fsync per line.

Lines are {"schema": N, "kind": "run", "name", "baseline", "metrics", "keys", "source", "commit"}, of a shard's run with
"shard", "of" and "shards" as well, and {"schema": N, "kind": "record", "record": Record as JSON}. One run writes a store at a
time (a lock on it says so), files may be concatenated: the last record of a key wins. A torn last line (a writer was killed) is
dropped and said, as is a damaged one. What a record was made with stands in its environment under `provenance`.

reading.py reads, writer.py writes, lines.py knows what a line is, merging.py makes one store of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnprof.errors import UsageError
from attnprof.profiling.provenance import PROVENANCE
from attnprof.records import NOT_CALIBRATED, NOT_MEASURED_BUDGET, NOT_MEASURED_MEMORY, Case, Record
from attnprof.store.lines import Run
from attnprof.store.reading import Lines, Place, Stored, load
from attnprof.store.writer import Writer, append, write_atomically, writing

__all__ = ["Run", "Stored", "Writer", "append", "counted", "load", "reusable", "shard_name", "write_atomically", "writing"]


def shard_name(name: str, shard: int | None, of: int | None) -> str:
    """What a shard's store and reports are called: 'survey.shard-3-of-16'; the name itself for no shard."""
    return name if shard is None else f"{name}.shard-{shard}-of-{of}"


def reusable(stored: Stored, case: Case, provenance: Mapping[str, Any], calibrated: bool = False) -> Record | None:
    """The stored record of a case where running it again would find the same.

    Status ok, made from the same source by the same versions; and, where the case has a device, measured or left out because
    of memory, and `calibrated` or with the reason why not, where that is wanted. What a budget left out is tried again, and
    what stands in a line that turns out to be damaged.
    """
    place = _place(stored, case.key)
    if place is None or not _holds(place, case, provenance, calibrated):
        return None
    try:
        return stored.records[case.key]
    except UsageError:
        return None


def counted(stored: Stored, case: Case, provenance: Mapping[str, Any] | None) -> Record | None:
    """The stored record of a case whose counts still hold, whatever became of measuring it: it need not be counted again.

    Without a provenance, the record of a case that was counted by whatever code.
    """
    place = _place(stored, case.key)
    if place is None or not place.counted or (provenance is not None and dict(place.provenance) != dict(provenance)):
        return None
    try:
        return stored.records[case.key]
    except UsageError:
        return None


def _place(stored: Stored, key: str) -> Place | None:
    if isinstance(stored.records, Lines):
        return stored.records.places.get(key)
    record = stored.records.get(key)
    if record is None:
        return None
    there = (record.counts is not None, record.timing is not None, record.calibrated is not None)
    host = None if record.case.host is None else record.case.host.host
    module = (record.case.mechanism, host)
    return Place(0, 0, 0, record.status, *there, record.detail, record.environment.get(PROVENANCE, {}), module)


def _holds(place: Place, case: Case, provenance: Mapping[str, Any], calibrated: bool) -> bool:
    if place.status != "ok" or dict(place.provenance) != dict(provenance):
        return False
    if case.device == "none":
        return place.counted
    if calibrated and not place.calibrated and NOT_CALIBRATED not in place.detail:
        return False
    left_out = place.detail.startswith(NOT_MEASURED_MEMORY)
    return left_out or (place.timed and NOT_MEASURED_BUDGET not in place.detail)
