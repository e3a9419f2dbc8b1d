"""The store: DIR/NAME.jsonl, append-only, one JSON object per line, one write and one fsync per line.

Lines are {"schema": N, "kind": "run", "name", "baseline", "metrics", "keys", "source", "commit"} and {"schema": N, "kind":
"record", "record": Record as JSON}. One run writes a store at a time (a lock on it says so), and files may be
concatenated: the last record of a key wins. A
torn last line (a writer was killed) is dropped and said. What a record was made with stands in its environment under
`provenance`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attnprof.errors import UsageError
from attnprof.profiling.provenance import PROVENANCE
from attnprof.records import (
    NOT_CALIBRATED,
    NOT_MEASURED_BUDGET,
    NOT_MEASURED_MEMORY,
    SCHEMA_VERSION,
    Case,
    Record,
    record_from_json,
    to_json,
)


@dataclass(frozen=True)
class Run:
    """What was asked for: the cases of a run in their order, and how its tables are to be drawn."""

    name: str
    keys: tuple[str, ...]
    baseline: str | None = None
    metrics: tuple[str, ...] = ()
    source: str = ""  # hash of the spec's text
    commit: str = ""  # of the repository that the spec lies in


@dataclass(frozen=True)
class Stored:
    """A store as read: runs in the order written, the last record of each key, and what the reader has to say."""

    runs: tuple[Run, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load(path: Path) -> Stored:
    """Read a store. Raises UsageError for a file that is not there, is no store, or was written by a newer attnprof."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}.") from error
    runs: list[Run] = []
    records: dict[str, Record] = {}
    warnings: list[str] = []
    lines = text.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                warnings.append(f"{path.name}:{number}: the last line is torn (a writer was killed); it is left out")
                continue
            raise UsageError(f"{path}:{number}: this line is no JSON: the file is no store of attnprof, or damaged.") from error
        _take(data, f"{path}:{number}", runs, records)
    return Stored(tuple(runs), records, tuple(warnings))


def _take(data: Any, where: str, runs: list[Run], records: dict[str, Record]) -> None:
    """Add one line's content to what was read."""
    if not isinstance(data, dict) or "schema" not in data or "kind" not in data:
        raise UsageError(f"{where}: this is no line of an attnprof store (no 'schema' and 'kind').")
    if not isinstance(data["schema"], int) or data["schema"] > SCHEMA_VERSION:
        raise UsageError(f"{where}: schema {data['schema']} is newer than {SCHEMA_VERSION}: a newer attnprof wrote this.")
    try:
        if data["kind"] == "run":
            fields = {name: data[name] for name in ("name", "keys", "baseline", "metrics", "source")}
            fields["commit"] = data.get("commit", "")  # stores that are older lack it
            runs.append(Run(**{**fields, "keys": tuple(fields["keys"]), "metrics": tuple(fields["metrics"])}))
        elif data["kind"] == "record":
            record = record_from_json(data["record"])
            records.pop(record.case.key, None)
            records[record.case.key] = record
        else:
            raise UsageError(f"{where}: a line of kind {data['kind']!r} is unknown.")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{where}: this line lacks or misnames a field: {error!r}.") from error


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
        if isinstance(entry, Record):
            content: dict[str, Any] = {"kind": "record", "record": to_json(entry)}
        else:
            content = {"kind": "run", **asdict(entry)}
        line = json.dumps({"schema": SCHEMA_VERSION, **content}, separators=(",", ":")).encode() + b"\n"
        try:
            if os.fstat(self.descriptor).st_nlink == 0:
                raise UsageError(f"{self.path}: the file was removed or replaced while it was written to. {_GO_ON}")
            if not self.mended:
                self.mended = True
                _mend(self.descriptor)
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


_GO_ON = "What was written before is kept: run it again with --resume."


def _advice(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "Make room on the disk, or give another --out. " if full else ""


@contextlib.contextmanager
def writing(path: Path, fresh: bool = False, wait: bool = False) -> Iterator[Writer]:
    """A store to append to, for as long as the run lasts; made where it is not there, emptied where it is to be `fresh`.

    The lock is the file's own and ends with this process, however that ends. Raises UsageError where another run has it (unless
    this is to `wait`), or the file cannot be written.
    """
    new = not path.exists()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}. Give another --out.") from error
    try:
        try:
            _lock(descriptor, path, wait)
            if fresh:
                os.ftruncate(descriptor, 0)
            if new:
                _sync_folder(path.parent)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}. {_advice(error)}") from error
        yield Writer(path, descriptor)
    finally:
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


def _mend(descriptor: int) -> None:
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
    except ValueError:
        os.ftruncate(descriptor, size - len(line))
    else:
        os.write(descriptor, b"\n")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a derived file so that a reader sees the old one or the new one, never half of either."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
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


def reusable(stored: Stored, case: Case, provenance: Mapping[str, Any], calibrated: bool = False) -> Record | None:
    """The stored record of a case where running it again would find the same.

    Status ok, made from the same source by the same versions; and, where the case has a device, measured or left out because
    of memory, and `calibrated` or with the reason why not, where that is wanted. What a budget left out is tried again.
    """
    record = stored.records.get(case.key)
    if record is None or record.status != "ok" or dict(record.environment.get(PROVENANCE, {})) != dict(provenance):
        return None
    if case.device == "none":
        return record if record.counts is not None else None
    if calibrated and record.calibrated is None and NOT_CALIBRATED not in record.detail:
        return None
    left_out = record.detail.startswith(NOT_MEASURED_MEMORY)
    return record if left_out or (record.timing is not None and NOT_MEASURED_BUDGET not in record.detail) else None
