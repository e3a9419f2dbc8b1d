"""`--set KEY=VALUE`: changes to a Document's value before it is checked. KEY is a dotted path, VALUE is read as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof.errors import Problem
from attnprof.spec.yaml_loader import Document, Path, load


def apply(document: Document, overrides: Sequence[str]) -> tuple[dict[Path, str], list[Problem]]:
    """Writes every override into `document.value`. Gives the paths written, with the text that wrote them, and mistakes."""
    written: dict[Path, str] = {}
    mistakes: list[Problem] = []
    for text in overrides:
        key, equals, right = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            mistakes.append(_mistake(text, "write KEY=VALUE", "for example input.channels=256"))
            continue
        value = load(right, "") if right.strip() else Document("", [], None)
        if value.problems:
            mistakes.append(_mistake(text, f"the value is no YAML: {value.problems[0].what}"))
            continue
        sentence = _write(document, parts, value.value, text, written)
        if sentence:
            mistakes.append(_mistake(text, sentence))
    return written, mistakes


def _mistake(text: str, what: str, hint: str = "") -> Problem:
    return Problem(f"--set {text}", 0, 0, what, hint)


def _write(document: Document, parts: list[str], value: Any, text: str, written: dict[Path, str]) -> str:
    """Walks down to the last part, making mappings that are not there, and writes. '' or what is wrong."""
    if not isinstance(document.value, dict):
        return "the spec is no mapping"
    place: Any = document.value
    path: Path = ()
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        key: str | int = part
        if isinstance(place, list):
            if not (part.isascii() and part.isdecimal() and int(part) < len(place)):
                return f"'{'.'.join(parts[:index])}' is a list of {len(place)}: write a position from 0 to {len(place) - 1}"
            key = int(part)
        elif not isinstance(place, dict):
            return f"'{'.'.join(parts[:index])}' is a value, not a mapping"
        path = (*path, key)
        missing = isinstance(place, dict) and place.get(part) is None
        if last or missing:
            _forget(document, path, written)
            written[path] = text
            place[key] = value if last else {}
        place = place[key]
    return ""


def _forget(document: Document, path: Path, written: dict[Path, str]) -> None:
    """Drops what was known of everything at and below `path`: it is about to be replaced."""
    tables: tuple[dict[Path, Any], ...] = (document.keys, document.values, written)
    for table in tables:
        for known in [known for known in table if known[: len(path)] == path]:
            del table[known]
