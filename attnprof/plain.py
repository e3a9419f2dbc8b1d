"""Text that nothing obeys: no terminal, no editor, no reader of lines.

Names, messages and facts come from files and from other people's code. What does not print (escape sequences, characters that
turn the direction of writing, halves of characters) is shown as '?', and in JSON as the escape of the same character.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any


def printable(text: str) -> str:
    """Text as a terminal shows it, line breaks kept."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _in_place_of(char) for char in text.expandtabs(4))


def _in_place_of(char: str) -> str:
    return " " if unicodedata.category(char) == "Zs" else "?"


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON: characters of all scripts as they are, those that do not print as escapes. Raises ValueError for NaN."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
