"""A commit of the user's repository beside the working tree: a git worktree in a temporary folder, gone after use.

    with checkouts(repository, "origin/main") as (base, head): ...

`head` is the working tree as it stands, with what is not committed. `base` is the commit; it is removed in every case, on
Ctrl-C and on SIGTERM too. Git's hooks are not run. Submodules and what git ignores are not in a worktree.

No other worktree of the repository is touched: the folder of one may be absent for a while (a disk that is not mounted), so
`git worktree prune` is never called. What is killed outright leaves `attnprof-base-*` in the temporary folder and git's record
of it: `git worktree remove --force FOLDER/base` takes both away; once the folder is gone, the next gate drops the record.
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

_PREFIX, _NAME = "attnprof-base-", "base"  # of the temporary folder, and of the worktree in it
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True)
class Checkout:
    """One side's files: its top folder, that of the working tree (the same one for head), and the commit ('' for head).

    submodules: folders of `tree` that the commit fills from another repository, and that are empty there (none for head).
    """

    tree: Path
    home: Path
    commit: str = ""
    submodules: tuple[Path, ...] = ()

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
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
        tree = folder / _NAME
        try:
            _git(home, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", "--force", str(tree), commit)
            yield Checkout(tree, home, commit, _submodules(tree, commit)), Checkout(home, home)
        finally:
            with _undisturbed():
                _git(home, "worktree", "remove", "--force", "--force", str(tree), check=False)
                shutil.rmtree(folder, ignore_errors=True)
                _forget(home, tree)


def _forget(home: Path, tree: Path) -> None:
    """Drop git's record of our worktree where git has not, and those of killed gates whose folders are gone; no others."""
    common = _git(home, "rev-parse", "--git-common-dir", check=False).removesuffix("\n")
    if not common:
        return
    records = home / common / "worktrees"
    for file in records.glob("*/gitdir"):
        with contextlib.suppress(OSError):
            text = file.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n")
            folder = (file.parent / text).parent.resolve()  # recent gits can write it relative to the record
            killed = folder.name == _NAME and folder.parent.name.startswith(_PREFIX) and not folder.exists()
            if folder == tree or killed:
                shutil.rmtree(file.parent)
    with contextlib.suppress(OSError):
        records.rmdir()  # as git does with the last one


def _submodules(tree: Path, commit: str) -> tuple[Path, ...]:
    """Where a commit has submodules, as folders of its worktree."""
    entries = _git(tree, "ls-tree", "-r", "-z", "--full-tree", commit).split("\0")
    return tuple(tree / entry.partition("\t")[2] for entry in entries if entry.startswith("160000 "))


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


def _git(repository: Path, *words: str, check: bool = True) -> str:
    """What git answers. Raises UsageError with git's own last line where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK} | {"LC_ALL": "C"}
    command = ["git", "-C", str(repository), *words]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise UsageError("--base-ref needs git, and there is none on the PATH.") from error
    if check and done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(f"--base-ref: git {words[0]}: {said}")
    return done.stdout


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """A cancelled CI job gets SIGTERM: leave through every `finally` then. Only the main thread may say so.

    Where somebody hears it already (the command line), so be it.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
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
    """Ctrl-C and SIGTERM wait until this is through.

    The mask is for git, which inherits it; in this process another thread (a progress bar has one) would take the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers, came = (signal.SIGINT, signal.SIGTERM), list[int]()
    handlers = {number: signal.signal(number, lambda got, _: came.append(got)) for number in numbers}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def orders(base: Checkout, head: Checkout) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a child of either side is told: its folder, its import path, and where code of the other side would come from.

    What git ignores (a virtual environment, built extensions) is in no worktree: both sides import it from where it is.
    """
    entries = [Path(entry).resolve() for entry in import_path()]
    inside = [entry for entry in entries if entry.is_relative_to(head.home)]
    prefix = Path(sys.prefix).resolve()
    kept = [*ignored(head.home, inside), *(entry for entry in inside if entry.is_relative_to(prefix))]
    found = []
    for side in (base, head):
        path = [str(entry if entry in kept else side.moved(entry)) for entry in entries]
        order = {"cwd": str(_folder(side)), "path": path, "home": str(side.home), "tree": str(side.tree)}
        found.append(order | {"kept": [*map(str, kept)], "submodules": [*map(str, side.submodules)]})
    return found[0], found[1]


def ignored(repository: Path, paths: Sequence[Path]) -> list[Path]:
    """Those of the paths that git ignores; asked one by one, for git answers nothing more after a path in a submodule."""
    return [path for path in paths if _git(repository, "check-ignore", str(path), check=False)]


def _folder(side: Checkout) -> Path:
    """Where a side's child runs: in the current folder's place in its checkout, at the top where the current folder is outside.

    That place is made where the commit has no such folder: '../mine.py' is then the same file in both, by the same words. Where
    it cannot be made (the commit has a file there, or a link that leads out), the child runs at the top.
    """
    here = Path.cwd().resolve()
    if not here.is_relative_to(side.home):
        return side.tree
    folder = side.moved(here).resolve()
    if folder.is_relative_to(side.tree):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    return folder if folder.is_dir() else side.tree


def localised(case: Case, side: Checkout) -> Case:
    """The case with files of the repository named from the folder that this side's child runs in."""
    host = None if case.host is None else replace(case.host, host=_from_here(case.host.host, side))
    return replace(case, mechanism=_from_here(case.mechanism, side), host=host)


def _from_here(path: str, side: Checkout) -> str:
    where, _, name = path.rpartition(":")
    file = Path(where).resolve() if where.endswith(".py") else None
    if file is None or not file.is_relative_to(side.home):
        return path if file is None else f"{file}:{name}"
    return f"{os.path.relpath(side.moved(file), _folder(side))}:{name}"
