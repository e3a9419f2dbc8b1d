"""Probes that were made before, on disk: a line of JSON each, by op signature, in one file per processor.

`FOLDER/probes-<processor>.jsonl` is only ever appended to, a whole line under a lock, so that two processes may write at once;
lines that are torn or no probe are passed over. Without a folder, or where it cannot be written, nothing is kept and nothing
fails. No torch here: the parent process asks for the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "ATTNPROF_CACHE"
_SCHEMA = 1
_OFF = ("none", "off", "0")


def cache_folder() -> Path | None:
    """$ATTNPROF_CACHE ('none' is no cache), else attnprof in $XDG_CACHE_HOME or ~/.cache; None where there is no home."""
    named = os.environ.get(VARIABLE, "")
    if named:
        return None if named.lower() in _OFF else Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "attnprof"
    try:
        return Path.home() / ".cache" / "attnprof"
    except RuntimeError:
        return None


class Cache:
    """What is known of ops on one processor: {signature: {"peak": bytes, "scratch": {inner op: bytes}}}."""

    def __init__(self, folder: Path | None, processor: Mapping[str, Any]) -> None:
        """`processor`: everything beside the op that its scratch depends on; it names the file and stands in every line."""
        text = json.dumps({"schema": _SCHEMA, **processor}, sort_keys=True)
        self.processor = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.path = None if folder is None else folder / f"probes-{self.processor}.jsonl"
        self._described = dict(processor)
        self._known: dict[str, dict[str, Any]] = {}
        if self.path is not None:
            with contextlib.suppress(OSError):
                self._known = dict(_read(self.path.read_bytes(), self.processor))

    def get(self, signature: str) -> tuple[int, dict[str, int]] | None:
        """(peak, scratch by inner op) of an op that was probed before."""
        found = self._known.get(signature)
        return None if found is None else (found["peak"], dict(found["scratch"]))

    def put(self, signature: str, peak: int, scratch: Mapping[str, int]) -> None:
        """Remember a probe, here and on disk where that can be."""
        entry = {"peak": peak, "scratch": dict(scratch)}
        self._known[signature] = entry
        if self.path is not None:
            line = {"schema": _SCHEMA, "processor": self.processor, "op": signature, **entry}
            try:
                _append(self.path, line, {"schema": _SCHEMA, "about": self._described})
            except OSError:
                self.path = None  # a disk that is full or read-only: no line of this process comes after


def _read(data: bytes, processor: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in data.split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # torn, the empty end of the file, or nested without end
            continue
        if _is_probe(entry) and entry["schema"] == _SCHEMA and entry["processor"] == processor:
            yield entry["op"], {"peak": entry["peak"], "scratch": entry["scratch"]}


def _is_probe(entry: Any) -> bool:
    """Has a line all that a probe has, of the right kinds?"""
    if not isinstance(entry, dict) or {"schema", "processor", "op", "peak", "scratch"} - entry.keys():
        return False
    scratch = entry["scratch"]
    return isinstance(entry["op"], str) and isinstance(scratch, dict) and all(map(_is_size, (entry["peak"], *scratch.values())))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _append(path: Path, entry: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Add one line; the first of a file is preceded by what it is about, and a torn one is ended. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        line = json.dumps(entry).encode() + b"\n"
        if size == 0:
            line = json.dumps(about).encode() + b"\n" + line
        elif os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
