"""What a record's numbers come from: versions, and hashes of the source that was counted and of the code that counts.

Found without importing torch or anybody's module: the parent asks this before it decides whether a stored record still holds.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from attnprof import mechanisms
from attnprof.errors import AttnprofError
from attnprof.records import Case

PROVENANCE = "provenance"  # the key in Record.environment
CODE = ("source", "counting", "torch")  # of it, what the rows of one module must share
_PACKAGE = Path(__file__).parent.parent
_PLACING = ("placing.py", "visiting.py")


def provenance(case: Case) -> dict[str, str]:
    """{'attnprof', 'torch', 'python': versions, 'source', 'counting': hashes} of a case, now."""
    return {
        "attnprof": _version("attnprof"),
        "torch": _version("torch"),
        "python": platform.python_version(),
        "source": source_hash(case.mechanism, None if case.host is None else case.host.host),
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
    """Hash of the file that defines a mechanism; '' where there is no such file.

    With a host, of the hosts' files and the code that places as well, and of the user's own network's file where `host` is its
    import path.
    """
    file: Path | None
    if ":" in mechanism:
        file = _imported_file(mechanism)
    else:
        try:
            file = _PACKAGE / "mechanisms" / f"{mechanisms.resolve(mechanism)}.py"
        except AttnprofError:
            file = None
    files = [file]
    if host is not None:
        files += [*sorted((_PACKAGE / "hosts").rglob("*.py")), *(_PACKAGE / "profiling" / name for name in _PLACING)]
        files += [_imported_file(host)] if ":" in host else []
    there = [file for file in files if file is not None and file.is_file()]
    return _hash(there) if there else ""


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
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
