"""The files that a user's file imports, found in its text: nobody's module runs for it.

What Python's own rules find on the import path, else beside the file, with the packages on the way; not the standard library,
installed packages (their versions are told elsewhere) or attnprof itself. Names that are computed are unknown.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_SUFFIXES = tuple(importlib.machinery.all_suffixes())


@dataclass(frozen=True)
class _Import:
    """`from {level dots}module import names`; of `import module` the names are empty."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Text:
    """A file as it was at (time of change, size)."""

    stamp: tuple[int, int]
    content: bytes


_texts: dict[str, _Text] = {}
_parsed: dict[str, tuple[_Text, tuple[_Import, ...]]] = {}


def content(file: Path) -> bytes:
    """What a file holds, read once while its time of change and size stay as they are. Raises OSError."""
    return _text(file).content


def search_path() -> tuple[str, ...]:
    """Where this process looks for modules, the current folder by name."""
    return tuple(str(Path(entry).absolute()) for entry in sys.path)


def imported_by(files: Iterable[Path], path: tuple[str, ...]) -> list[Path]:
    """The user's files that these import, and those import in turn: each once, in the order in which they are found."""
    given = [file.absolute() for file in files]
    known, waiting = {os.path.realpath(file) for file in given}, list(given)
    for file in waiting:  # grows
        for one in _imports(file):
            for imported in _targets(file, one, path):
                if os.path.realpath(imported) not in known:
                    known.add(os.path.realpath(imported))
                    waiting.append(imported)
    return waiting[len(given) :]


def _text(file: Path) -> _Text:
    there = file.stat()
    stamp = (there.st_mtime_ns, there.st_size)
    known = _texts.get(str(file))
    if known is None or known.stamp != stamp:
        known = _texts[str(file)] = _Text(stamp, file.read_bytes())
    return known


def _imports(file: Path) -> tuple[_Import, ...]:
    """The imports of a file, wherever in it they stand; none of one that cannot be parsed."""
    try:
        text = _text(file)
    except OSError:
        return ()
    before = _parsed.get(str(file))
    if before is None or before[0] is not text:
        before = _parsed[str(file)] = (text, tuple(_parse(text.content)) if file.suffix == ".py" else ())
    return before[1]


def _parse(text: bytes) -> list[_Import]:
    try:
        with warnings.catch_warnings():  # of the user's own strings: said when the file runs
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: list[_Import] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [_Import(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(_Import(node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return list(dict.fromkeys(found))


def _targets(file: Path, one: _Import, path: tuple[str, ...]) -> Iterator[Path]:
    """The user's files that an import in a file runs."""
    parts = one.module.split(".") if one.module else []
    if one.level:
        folder = file.parents[min(one.level, len(file.parents)) - 1]
        folders = [str(folder)]
        package = folder / "__init__.py"
        if package.is_file() and not _is_others(package):
            yield package
    else:
        if _outside(parts[0], path):
            return
        folders = [*path, str(file.parent)]  # which many a file adds to the path itself
    for part in parts:
        found, folders = _find(part, folders)
        if found is not None:
            if _is_others(found):
                return
            yield found
    for name in one.names:
        found, _ = _find(name, folders)
        if found is not None and not _is_others(found):
            yield found


@cache
def _outside(name: str, path: tuple[str, ...]) -> bool:
    """Whether a top module is nobody's own: what every file imports (torch, math) is looked for once."""
    found = None if name in sys.builtin_module_names else _find(name, path)[0]
    return name in sys.builtin_module_names or (found is not None and _is_others(found))


def _find(name: str, folders: Sequence[str]) -> tuple[Path | None, list[str]]:
    """(the file of a module, the folders of its submodules): Python's order; without a file, a package of folders alone."""
    portions: list[str] = []
    for folder in folders:
        base = f"{folder}{os.sep}{name}"
        is_folder = os.path.isdir(base)  # noqa: PTH112  a Path for each would take longer than the look
        for suffix in (f"{os.sep}__init__.py", *_SUFFIXES) if is_folder else _SUFFIXES:
            if os.path.isfile(base + suffix):  # noqa: PTH113
                inside = [base] if suffix.startswith(os.sep) else []
                return Path(base + suffix), inside
        if is_folder:
            portions.append(base)
    return None, portions


def _is_others(file: Path) -> bool:
    """Of the standard library, installed, or attnprof's own."""
    real = Path(os.path.realpath(file))
    return not _INSTALLED.isdisjoint(file.parts) or any(real.is_relative_to(root) for root in _roots())


@cache
def _roots() -> tuple[str, ...]:
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), str(Path(__file__).parent.parent)]
    return tuple(os.path.realpath(folder) for folder in folders)
