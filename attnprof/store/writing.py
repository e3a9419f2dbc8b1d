"""Writing a store: one line at a time, durably; derived files whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
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


def append(path: Path, entry: Record | Run) -> None:
    """Add one line, durably: a torn line that an earlier writer left is closed first."""
    line = line_of(entry)
    try:
        descriptor = _locked(path)
    except OSError as error:
        raise UsageError(_not_written(path, error)) from error
    try:
        _mend(path, descriptor)
        written = os.write(descriptor, line)
        if written != len(line):
            raise UsageError(f"{path}: the disk took {written} of {len(line)} bytes: {_make_room(path)}")
        os.fsync(descriptor)
    except OSError as error:
        raise UsageError(_not_written(path, error)) from error
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """The store's file, opened and locked: mending and writing must not meet another writer's.

    While one waits for the lock, a merge may put another file in this one's place.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _not_written(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {error.strerror or error}: {_make_room(path)}"


def _make_room(path: Path) -> str:
    return f"what it holds is kept; make room in {path.parent} or let it be written to, then run again with --resume."


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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody appends to the store meanwhile; one that is not there is not held."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
