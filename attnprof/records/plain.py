"""Any value as the types that JSON has, as it would come back from a file."""

from __future__ import annotations

import json
from typing import Any

_SAME = frozenset((str, int, float, bool, type(None)))


def plain(value: Any) -> Any:
    """The value after a round trip through JSON: tuples are lists, mappings dicts with text as keys."""
    kind = type(value)
    if kind in _SAME:
        return value
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: plain(item) for key, item in value.items()}
    return json.loads(json.dumps(value, default=dict))
