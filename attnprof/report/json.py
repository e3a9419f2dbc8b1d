"""Report -> JSON: the records themselves, with the schema's number; what `--json` prints and other tools read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attnprof.records import SCHEMA_VERSION, Record, to_json
from attnprof.report.table import Report


def data(records: Sequence[Record], name: str = "") -> dict[str, Any]:
    """{"schema", "name", "records"}."""
    return {"schema": SCHEMA_VERSION, "name": name, "records": [to_json(record) for record in records]}


def render(report: Report) -> str:
    """The report's records as JSON text."""
    return json.dumps(data(report.records, report.name), indent=1) + "\n"
