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


def whole_characters(value: Any) -> Any:
    """Plain JSON types without halves of surrogate pairs, which JSON can hold and UTF-8 cannot: they become '?'."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {whole_characters(name): whole_characters(each) for name, each in value.items()}
    return [whole_characters(each) for each in value] if isinstance(value, list) else value
