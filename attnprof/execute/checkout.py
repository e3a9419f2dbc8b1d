"""A commit of the user's repository beside the working tree: a git worktree in a temporary folder, gone after use.

    with checkouts(repository, "origin/main") as (base, head): ...

`head` is the working tree as it stands, with what is not committed. `base` is the commit; it is removed in every case, on
Ctrl-C and on SIGTERM too. Git's hooks are not run. Submodules and what git ignores are not in a worktree.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from attnprof.errors import UsageError
from attnprof.execute.server import import_path
from attnprof.records import Case

_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True)
class Checkout:
    """One side's files: its top folder, that of the working tree (the same one for head), and the commit ('' for head)."""

    tree: Path
    home: Path
    commit: str = ""

    def moved(self, path: Path) -> Path:
        """Where a path of the working tree lies in this checkout; a path outside of it stays as it is."""
        return self.tree / path.relative_to(self.home) if path.is_relative_to(self.home) else path


@contextlib.contextmanager
def checkouts(repository: Path, ref: str) -> Iterator[tuple[Checkout, Checkout]]:
    """(base, head) of the repository that holds a folder, for as long as the context lasts.

    Raises UsageError where there is no git, no repository, or no such commit.
    """
    home = _top_folder(repository)
    commit = commit_of(home, ref)
    with _termination_unwinds():
        folder = Path(tempfile.mkdtemp(prefix="attnprof-base-")).resolve()
        tree = folder / "base"
        try:
            _git(home, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", "--force", str(tree), commit)
            yield Checkout(tree, home, commit), Checkout(home, home)
        finally:
            with _undisturbed():
                _git(home, "worktree", "remove", "--force", "--force", str(tree), check=False)
                shutil.rmtree(folder, ignore_errors=True)
                _git(home, "worktree", "prune", check=False)


def _top_folder(repository: Path) -> Path:
    try:
        return Path(_git(repository, "rev-parse", "--show-toplevel").strip()).resolve()
    except UsageError as error:
        if "not a git repository" not in str(error):
            raise
        raise UsageError(
            f"--base-ref: {repository.absolute()} is in no git repository: there is no base to check out."
        ) from error


def commit_of(repository: Path, ref: str) -> str:
    """The full hash of a ref. Raises UsageError for one that names no commit here, and where there is no repository."""
    _top_folder(repository)
    try:
        return _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").strip()
    except UsageError as error:
        shallow = _git(repository, "rev-parse", "--is-shallow-repository", check=False).strip() == "true"
        advice = (
            "this clone is shallow: fetch it first (actions/checkout: fetch-depth: 0)" if shallow else "`git fetch` it first"
        )
        raise UsageError(f"--base-ref: '{ref}' names no commit of this repository: check the name, or {advice}.") from error


def _git(repository: Path, *words: str, check: bool = True, told: str = "") -> str:
    """What git answers; `told` is its input. Raises UsageError with git's own last line where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK} | {"LC_ALL": "C"}
    command = ["git", "-C", str(repository), *words]
    try:
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, errors="surrogateescape", env=environment, check=False
        )
    except FileNotFoundError as error:
        raise UsageError("--base-ref needs git, and there is none on the PATH.") from error
    if check and done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(f"--base-ref: git {words[0]}: {said}")
    return done.stdout


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """A cancelled CI job gets SIGTERM: leave through every `finally` then. Only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: Any) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this is through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def orders(base: Checkout, head: Checkout) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a child of either side is told: its folder, its import path, and where code of the other side would come from.

    Both run in the current folder's place in their checkout, or at its top where the current folder is outside. What git
    ignores (a virtual environment, built extensions) is in no worktree: both sides import it from where it is.
    """
    entries = [Path(entry).resolve() for entry in import_path()]
    inside = [entry for entry in entries if entry.is_relative_to(head.home)]
    prefix = Path(sys.prefix).resolve()
    kept = [*ignored(head.home, inside), *(entry for entry in inside if entry.is_relative_to(prefix))]
    found = []
    for side in (base, head):
        path = [str(entry if entry in kept else side.moved(entry)) for entry in entries]
        folder = side.moved(_folder(head))
        order = {"cwd": str(folder if folder.is_dir() else side.tree), "path": path}
        found.append(order | {"home": str(side.home), "tree": str(side.tree), "kept": [str(entry) for entry in kept]})
    return found[0], found[1]


def ignored(repository: Path, paths: Sequence[Path]) -> list[Path]:
    """Those of the paths that git ignores."""
    if not paths:
        return []
    said = _git(repository, "check-ignore", "-z", "--stdin", check=False, told="\0".join(map(str, paths)))
    return [Path(text) for text in said.split("\0") if text]


def _folder(head: Checkout) -> Path:
    here = Path.cwd().resolve()
    return here if here.is_relative_to(head.home) else head.home


def localised(case: Case, head: Checkout) -> Case:
    """The case with files of the repository named from the folder that the children run in: the same words on both sides."""
    host = None if case.host is None else replace(case.host, host=_from_here(case.host.host, head))
    return replace(case, mechanism=_from_here(case.mechanism, head), host=host)


def _from_here(path: str, head: Checkout) -> str:
    where, _, name = path.rpartition(":")
    file = Path(where).resolve() if where.endswith(".py") else None
    if file is None or not file.is_relative_to(head.home):
        return path if file is None else f"{file}:{name}"
    return f"{os.path.relpath(file, _folder(head))}:{name}"
