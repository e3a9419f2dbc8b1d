"""Report -> JSON: the records themselves, with the schema's number; what `--json` prints and other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from attnprof.records import SCHEMA_VERSION, Record, to_json
from attnprof.report.table import Report


def data(records: Sequence[Record], name: str = "", missing: Sequence[str] = ()) -> dict[str, Any]:
    """{"schema", "name", "missing", "records"}; `missing`: sentences on cases that are not there."""
    return _head(name, missing) | {"records": [to_json(record) for record in records]}


def _head(name: str, missing: Sequence[str]) -> dict[str, Any]:
    return {"schema": SCHEMA_VERSION, "name": name, "missing": list(missing)}


def render(report: Report) -> str:
    """The report's records as JSON text."""
    return "".join(chunks(report.records, report.name, report.missing))


def chunks(records: Iterable[Record], name: str, missing: Sequence[str] = ()) -> Iterator[str]:
    """The same in pieces, a record at a time: of many records the text is larger than memory.

    Each is what json.dumps with indent=1 writes, which takes ten times as long.
    """
    head = json.dumps(_head(name, missing), indent=1)
    yield head.removesuffix("\n}") + ',\n "records": ['
    between = "\n  "
    for record in records:
        yield between + _indented(to_json(record)).replace("\n", "\n  ")
        between = ",\n  "
    yield "]\n}\n" if between == "\n  " else "\n ]\n}\n"


def _indented(content: dict[str, Any]) -> str:
    try:
        return msgspec.json.format(json.dumps(content), indent=1)
    except msgspec.DecodeError:  # NaN and Infinity, which JSON has not and Python writes
        return json.dumps(content, indent=1)
