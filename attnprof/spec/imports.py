"""Which file an `import: file.py:Class` of a spec means: the one beside the spec, else the one in the current folder."""

from __future__ import annotations

import os
from pathlib import Path

from attnprof.errors import UsageError
from attnprof.spec import Spec, imports_of, near_file


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


def check_imported_files(spec: Spec) -> None:
    """Raises UsageError for `import:` entries whose file is nowhere, each with every place where it was looked for."""
    missing = []
    for path, _, at in imports_of(spec):
        where = path.rpartition(":")[0]
        if _is_file(where) and not Path(where).is_file():
            missing.append(_sentence(spec, path, at))
    if missing:
        raise UsageError("\n".join(missing))


def _is_file(where: str) -> bool:
    return where.endswith(".py")


def _sentence(spec: Spec, path: str, at: int) -> str:
    where = path.rpartition(":")[0]
    folders = dict.fromkeys([Path(spec.source).parent, Path()])
    places = list(dict.fromkeys(Path(os.path.normpath((folder / where).absolute())) for folder in folders))
    looked = " and ".join(map(str, places))
    line = f"{spec.source}:{at}: " if at else f"{spec.source}: " if spec.source else ""
    near = next(filter(None, map(near_file, places)), "")
    return f"{line}'{path}': there is no such file: looked for {looked}.{near}"
