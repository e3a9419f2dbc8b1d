"""One thing wrong at a path of a spec's value: in our words, and at its place in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attnprof.errors import Problem
from attnprof.spec.model import shown
from attnprof.spec.yaml_loader import Document, Path

_SENTENCES = {
    "int_type": "a whole number is wanted, not {shown}",
    "float_type": "a number is wanted, not {shown}",
    "bool_type": "true or false is wanted, not {shown}",
    "string_type": "text is wanted, not {shown}",
    "list_type": "a list is wanted, not {shown}",
    "model_type": "a mapping of keys to values is wanted, not {shown}",
    "dict_type": "a mapping of keys to values is wanted, not {shown}",
    "too_short": "the list is empty",
    "greater_than": "must be more than {gt}, not {shown}",
    "greater_than_equal": "must be at least {ge}, not {shown}",
    "less_than_equal": "must be at most {le}, not {shown}",
    "finite_number": "a finite number is wanted, not {shown}",
    "string_pattern_mismatch": "{shown} cannot be used as a name: it is long, or holds / \\ : or other special characters",
}


@dataclass(frozen=True)
class Finding:
    """Something wrong at a path of the value; `key`: with the key itself rather than with what stands behind it.

    offset: at which character of a text that stands there.
    """

    path: Path
    what: str
    hint: str = ""
    key: bool = False
    offset: int = 0


def from_pydantic(error: Mapping[str, Any], key_hint: Callable[[Path], str]) -> Finding:
    """A pydantic error in our words; `key_hint` says what an unknown key may have meant."""
    path, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "attnprof":
        return Finding(path, context["what"], context["hint"])
    if kind == "extra_forbidden":
        return Finding(path, f"unknown key '{path[-1]}'", key_hint(path), key=True)
    if kind == "missing":
        return Finding(path[:-1], f"the key '{path[-1]}' is missing")
    if kind == "model_type" and path[0:1] == ("mechanisms",):
        return Finding(path, f"a mechanism is a name or a mapping such as {{name: se}}, not {shown(error['input'])}")
    sentence = _SENTENCES.get(kind)
    if sentence is None:
        return Finding(path, str(error["msg"]))
    limits = {name: f"{limit:,.12g}" for name, limit in context.items() if isinstance(limit, (int, float))}
    return Finding(path, sentence.format(shown=shown(error["input"]), **limits))


def place(document: Document, overridden: dict[Path, str], finding: Finding) -> Problem:
    """A Problem at the nearest place that is known: the path of the finding, or what encloses it."""
    path = finding.path
    while True:
        if path in overridden:
            return Problem(f"--set {overridden[path]}", 0, 0, finding.what, finding.hint)
        table = document.keys if finding.key and path in document.keys else document.values
        if path in table or not path:
            break
        path = path[:-1]
    prefix = ".".join(str(part) for part in (path[:-1] if finding.key and path == finding.path else path))
    what = f"{prefix}: {finding.what}" if prefix else finding.what
    position = table.get(path, (1, 1))
    return document.problem(_inside(document, position, finding.offset), what, finding.hint)


def _inside(document: Document, position: tuple[int, int], offset: int) -> tuple[int, int]:
    """The place of a character of a text that begins at `position`, where that is on one line and written as it is read."""
    line, column = position
    source = document.lines[line - 1] if 0 < line <= len(document.lines) else ""
    begin = source[column - 1 : column]
    moved = column + offset + (begin in ("'", '"'))
    return position if not offset or begin in ("|", ">", "&", "*") or moved > len(source) + 1 else (line, moved)
