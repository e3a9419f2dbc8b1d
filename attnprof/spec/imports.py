"""Which file an `import: file.py:Class` of a spec means, and whether it has that class.

It is the file beside the spec, else the one in the current folder. Files are read and never run: what they define is what their
text shows.
"""

from __future__ import annotations

import ast
import difflib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attnprof.spec import near_file
from attnprof.spec.entries import IMPORT_PATH
from attnprof.spec.finding import Finding
from attnprof.spec.yaml_loader import Path as Where

_MAX_BYTES = 2**22  # of a file that is looked into
_MADE_AS_IT_RUNS = {"globals", "locals", "vars", "exec", "setattr", "__getattr__"}  # names that no text shows
_SHOWN = 12


def located(text: str, source: str) -> str:
    """The import path, to be read from the current folder, of what a spec at `source` writes as `text`.

    'mine.py:Mine' in 'specs/own.yaml' is 'specs/mine.py:Mine' where that file is there. It stays as written where both are one
    file, where there is none beside the spec, for an absolute path and for 'package.module:Class'.
    """
    where, _, name = text.rpartition(":")
    folder, here = Path(source).parent, Path(where)
    beside = folder / here
    if not _is_file(where) or here.is_absolute() or not beside.is_file() or (here.is_file() and here.samefile(beside)):
        return text
    tidy = Path(os.path.normpath(beside))  # another file where '..' follows a link
    return f"{tidy if tidy.is_file() and tidy.samefile(beside) else beside}:{name}"


def check_imports(value: dict[str, Any], source: str) -> Iterator[Finding]:
    """What `import:` entries of a spec's mechanisms and hosts name that is not there: the file, or the class in it."""
    for path, text in _written(value):
        where, _, name = text.rpartition(":")
        if not IMPORT_PATH.fullmatch(text) or not _is_file(where):
            continue
        try:
            file = Path(located(text, source).rpartition(":")[0])
            there = file.is_file()
            names = _names(file) if there else None
        except (OSError, ValueError):  # a name that no file system takes, a file that cannot be read
            there, names = False, None
        if not there:
            yield _nowhere(path, text, source)
        elif names is not None and name not in names:
            yield Finding(path, f"'{where}' has no '{name}'", _instead(name, names))


def _instead(name: str, names: list[str]) -> str:
    """The nearest name of a file, capitals aside, or the names that it has."""
    lowered = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"did you mean '{lowered[near[0]]}'?"
    return f"it has {', '.join(names[:_SHOWN])}" if names else "it defines nothing"


def _written(value: dict[str, Any]) -> Iterator[tuple[Where, str]]:
    """(path in the spec, text) of every `import:`."""
    for key in ("mechanisms", "host"):
        given = value.get(key)
        for index, item in enumerate(given if isinstance(given, list) else [given]):
            if isinstance(item, dict) and isinstance(item.get("import"), str):
                yield (key, index, "import") if isinstance(given, list) else (key, "import"), item["import"]


def _names(file: Path) -> list[str] | None:
    """What a file has at its top level, as its text shows; None where it does not show all, or is no Python."""
    with file.open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
        every = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    hidden = any(isinstance(node, ast.Name) and node.id in _MADE_AS_IT_RUNS for node in every)
    found = dict.fromkeys(_bound(tree))
    if hidden or "*" in found or "__getattr__" in found:
        return None
    return list(found | dict.fromkeys(name for node in every if isinstance(node, ast.Global) for name in node.names))


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that the statements below a node bind in its own scope: inside `if`, `try`, `with` and loops too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield child.name
            continue
        if isinstance(child, ast.alias):
            yield child.asname or child.name.partition(".")[0]
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and child.name:
            yield child.name
        yield from _bound(child)


def _is_file(where: str) -> bool:
    return where.endswith(".py")


def _nowhere(path: Where, text: str, source: str) -> Finding:
    """With every place where the file was looked for."""
    where = text.rpartition(":")[0]
    folders = dict.fromkeys([Path(source).parent, Path()])
    places = list(dict.fromkeys(Path(os.path.normpath((folder / where).absolute())) for folder in folders))
    near = next(filter(None, map(near_file, places)), "")
    return Finding(path, f"'{text}': there is no such file", f"looked for {' and '.join(map(str, places))}.{near}")
