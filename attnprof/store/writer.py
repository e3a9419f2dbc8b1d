"""Writing a store: one line at a time, durably; derived files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnprof.errors import UsageError
from attnprof.records import SCHEMA_VERSION, Record, to_json
from attnprof.store.lines import START, Run


def line_of(entry: Record | Run) -> bytes:
    """An entry as its line."""
    if isinstance(entry, Record):
        content: dict[str, Any] = {"kind": "record", "record": to_json(entry)}
    else:
        content = {"kind": "run", **asdict(entry)}
        for name in ("shard", "of", "shards"):  # most runs have none
            if not content[name]:
                del content[name]
    return json.dumps({"schema": SCHEMA_VERSION, **content}, separators=(",", ":")).encode() + b"\n"


@dataclass
class Writer:
    """A store that is open for writing, with the lock that keeps other runs out. What `append` returned from is on the disk."""

    path: Path
    descriptor: int
    mended: bool = False

    def append(self, entry: Record | Run) -> None:
        """Add one line, durably; a torn line that an earlier writer left is cut off before the first.

        Raises UsageError where the disk does not take all of it; none of it is left then.
        """
        line = line_of(entry)
        try:
            if os.fstat(self.descriptor).st_nlink == 0:
                raise UsageError(f"{self.path}: the file was removed or replaced while it was written to. {_GO_ON}")
            if not self.mended:
                self.mended = True
                _mend(self.path, self.descriptor)
            there, written = os.fstat(self.descriptor), 0
            try:
                while written < len(line):
                    written += os.write(self.descriptor, line[written:])
                os.fsync(self.descriptor)
            except BaseException:
                if written:
                    os.ftruncate(self.descriptor, there.st_size)
                raise
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror or error}. {_advice(error)}{_GO_ON}") from error


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GO_ON = "What was written before is kept: run it again with --resume."


def _advice(error: OSError) -> str:
    return "Make room on the disk, or give another --out. " if error.errno in NO_ROOM else ""


@contextlib.contextmanager
def writing(path: Path, fresh: bool = False, wait: bool = False) -> Iterator[Writer]:
    """A store to append to, for as long as the run lasts; made where it is not there, emptied where it is to be `fresh`.

    The lock is the file's own and ends with this process, however that ends. Raises UsageError where another run has it (unless
    this is to `wait`), or the file cannot be written.
    """
    try:
        descriptor = _locked(path, wait)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}. {_advice(error) or _ELSEWHERE}") from error
    try:
        if fresh:
            os.ftruncate(descriptor, 0)
        yield Writer(path, descriptor)
    finally:
        os.close(descriptor)


_ELSEWHERE = "Give another --out."


def _locked(path: Path, wait: bool) -> int:
    """The store's file, opened and locked.

    While one waits for the lock, a merge may put another file in this one's place.
    """
    while True:
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if new:
                _sync_folder(path.parent)
            _lock(descriptor, path, wait)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise UsageError(
            f"{path}: another run is writing this store. Wait until it is through, or give --out another folder; "
            "to share the work, give each its --shard I/N."
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
            raise


def append(path: Path, entry: Record | Run) -> None:
    """Add one line, durably; another writer is waited for."""
    with writing(path, wait=True) as writer:
        writer.append(entry)


def _mend(path: Path, descriptor: int) -> None:
    """Cut a torn last line off, or end one that lacks only its newline, so that what is appended stands on its own line."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        step = min(65536, start)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    line = tail[tail.rfind(b"\n") + 1 :]
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        if len(line) == size and not (line.startswith(START) or START.startswith(line)):
            raise UsageError(f"{path}: is no store of attnprof; nothing was written to it. Give another --out.") from None
        os.ftruncate(descriptor, size - len(line))
    else:
        os.write(descriptor, b"\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a derived file so that a reader sees the old one or the new one, never half of either."""
    write_chunks(path, [content.encode() if isinstance(content, str) else content])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """The same for content that comes in pieces."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Nobody appends to the store meanwhile. False where a run is writing it; one that is not there needs no holding."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # an exclusive lock on NFS wants a file that is open for writing
    except OSError:
        yield True
        return
    try:
        try:
            _lock(descriptor, path, wait=False)
        except UsageError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
