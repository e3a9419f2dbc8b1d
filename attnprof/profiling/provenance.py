"""What a record's numbers come from: versions, and hashes of the source that was counted and of the code that counts.

Found without importing torch or anybody's module: the parent asks this before it decides whether a stored record still holds.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from attnprof import mechanisms
from attnprof.errors import AttnprofError
from attnprof.profiling.sources import content, imported_by, search_path
from attnprof.records import Case

PROVENANCE = "provenance"  # the key in Record.environment
CODE = ("source", "counting", "torch")  # of it, what the rows of one module must share
_BOTH = "+"  # between the hashes of a file that was edited in the meantime: no file has such a hash
_PACKAGE = Path(__file__).parent.parent
_PLACING = ("placing.py", "visiting.py")


def provenance(case: Case, source: str | None = None) -> dict[str, str]:
    """{'attnprof', 'torch', 'python': versions, 'source', 'counting': hashes} of a case, now.

    source: the hash of what was loaded, where whoever loaded it said so.
    """
    return {
        "attnprof": _version("attnprof"),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "source": source_hash(case.mechanism, _host(case)) if source is None else source,
        "counting": counting_hash(),
    }


def remembering() -> Callable[[Case], dict[str, str]]:
    """`provenance` that reads the files of a mechanism and network once: for many cases at one moment."""
    found: dict[tuple[str, str | None], dict[str, str]] = {}

    def remembered(case: Case) -> dict[str, str]:
        made_of = case.mechanism, None if case.host is None else case.host.host
        if made_of not in found:
            found[made_of] = provenance(case)
        return found[made_of]

    return remembered


def code() -> dict[str, str]:
    """{'torch': version, 'attnprof': hash of the whole package}: whether two machines run the same code."""
    return {"torch": _version("torch"), "attnprof": _hash(sorted(_PACKAGE.rglob("*.py")))}


@cache
def torch_release() -> str:
    """Major and minor version of the torch that is installed (2.13), read from its version.py: importlib.metadata takes a fifth
    of the time that a command without torch has.
    """
    file = _module_file("torch")
    version = file.with_name("version.py") if file is not None else None
    text = version.read_text(encoding="utf-8") if version is not None and version.is_file() else ""
    said = re.search(r"^__version__ *= *['\"](\d+\.\d+)", text, re.MULTILINE)
    return said[1] if said else ".".join(_version("torch").split(".")[:2])


@cache
def _version(package: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


@cache
def counting_hash() -> str:
    """Hash of the code that counts."""
    profiling = _PACKAGE / "profiling"
    return _hash([*sorted((profiling / "counting").rglob("*.py")), profiling / "instantiate.py"])


def source_hash(mechanism: str, host: str | None = None) -> str:
    """Hash of the file that defines a mechanism, and of the user's own files that it imports; '' where there is no such file.

    With a host, of the hosts' files and the code that places as well, and of the user's own network's file, with its imports,
    where `host` is its import path.
    """
    there, own = _source_files(mechanism, host)
    return _hash([*there, *imported_by(own, search_path())]) if there else ""


@dataclass
class Loading:
    """What a process has loaded: a module, once imported, stays as its file was then.

    edited: whether a file is now another one than when it was first asked for here. Where files lie is found before any of them
    runs, which may change the import path and the current folder.
    """

    edited: bool = False
    _path: tuple[str, ...] = field(default_factory=search_path)
    _folder: Path = field(default_factory=Path.cwd)
    _files: dict[tuple[str, str | None], tuple[list[Path], list[Path]]] = field(default_factory=dict)
    _first: dict[Path, bytes] = field(default_factory=dict)

    def source(self, case: Case) -> str:
        """The source hash of a case now, before it is loaded or after; '' where its files cannot be read."""
        try:
            made_of = case.mechanism, _host(case)
            if made_of not in self._files:
                there, own = _source_files(*made_of)
                self._files[made_of] = [self._folder / file for file in there], [self._folder / file for file in own]
            there, own = self._files[made_of]
            files = [*there, *imported_by(own, self._path)]
            for file in files:
                now = content(file)
                self.edited = self.edited or self._first.setdefault(file, now) != now
            return _hash(files) if files else ""
        except (OSError, ValueError):
            return ""

    def loaded(self, before: str, case: Case) -> str:
        """The hash of what was loaded for a case since its hash was `before`; of no file, where one was edited meanwhile."""
        after = self.source(case)
        return both(before, "edited" if self.edited and after == before else after)


def both(first: str, then: str) -> str:
    """The hash of what came of two sources: theirs where they are one, else one that no file has."""
    return _BOTH.join(dict.fromkeys((*first.split(_BOTH), *then.split(_BOTH))))


def is_of_two(source: str) -> bool:
    """Whether a hash says that a file was edited while the numbers were found."""
    return _BOTH in source


def _host(case: Case) -> str | None:
    return None if case.host is None else case.host.host


def _source_files(mechanism: str, host: str | None) -> tuple[list[Path], list[Path]]:
    """(the files that a case is made of, the user's own of them)."""
    file: Path | None
    if ":" in mechanism:
        file = _imported_file(mechanism)
    else:
        try:
            file = _PACKAGE / "mechanisms" / f"{mechanisms.resolve(mechanism)}.py"
        except AttnprofError:
            file = None
    files, own = [file], [file] if ":" in mechanism else []
    if host is not None:
        files += [*_hosts(), *(_PACKAGE / "profiling" / name for name in _PLACING)]
        if ":" in host:
            own.append(_imported_file(host))
            files.append(own[-1])
    return _there(files), _there(own)


def _there(files: Iterable[Path | None]) -> list[Path]:
    return [file for file in files if file is not None and file.is_file()]


@cache
def _hosts() -> tuple[Path, ...]:
    return tuple(sorted((_PACKAGE / "hosts").rglob("*.py")))


def _imported_file(path: str) -> Path | None:
    """The file of an import path."""
    where = path.rpartition(":")[0]
    return Path(where) if where.endswith(".py") else _module_file(where)


def _module_file(dotted: str) -> Path | None:
    """The source file of 'pkg.mod' on the import path, without running any package's code."""
    search: list[str] | None = None
    spec = None
    parts = dotted.split(".")
    for end in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:end]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin else None


def _hash(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(content(file) + b"\0")
    return digest.hexdigest()[:16]
