"""Charts as the page holds them: many cases drawn alike share one Vega-Lite spec, and each brings its rows, column by column.

    packed(specs) -> (shared, panels)
    shared    Vega-Lite specs without rows, each once; their data are named rows0, rows1, ...
    panels    for each spec {"spec": index into shared, "said": its description, "rows": {"rows0": {field: column}}}
    column    the values of a field; texts of which some come again as {"of": the distinct ones, "at": indices}

`page.js` puts them together again. Rows that differ in their fields stay a list of rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def packed(specs: Sequence[dict[str, Any]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The specs that are unlike, and for each given one its number among them and its rows."""
    shared: dict[str, int] = {}
    panels = []
    for spec in specs:
        bare = {key: value for key, value in spec.items() if key not in ("description", "datasets")}
        text, rows = json.dumps(bare, separators=(",", ":")), {}
        for number, (name, values) in enumerate(spec.get("datasets", {}).items()):
            text = text.replace(f'"{name}"', f'"rows{number}"')  # their names are hashes of them
            rows[f"rows{number}"] = _columns(list(values))
        said = spec.get("description", "")
        panels.append({"spec": shared.setdefault(text, len(shared)), "said": said, "rows": rows})
    return [json.loads(text) for text in shared], panels


def _columns(rows: list[Any]) -> Any:
    """{field: column} of rows that have the same fields; others as they are."""
    fields = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    if not fields or not all(isinstance(row, dict) and list(row) == fields for row in rows):
        return rows
    return {field: _column([row[field] for row in rows]) for field in fields}


def _column(values: list[Any]) -> Any:
    distinct = list(dict.fromkeys(values)) if all(isinstance(value, str) for value in values) else values
    if len(distinct) == len(values):
        return values
    numbers = {text: number for number, text in enumerate(distinct)}
    return {"of": distinct, "at": [numbers[text] for text in values]}
