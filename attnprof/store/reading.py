"""Store -> Stored: an index of the lines; a record is read from its line when it is asked for, so that memory stays small.

A damaged line is left out and said, with how to be rid of it; a file that begins with none of ours is foreign and refused.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.store.lines import START, LineError, Peek, Run, outline, peek, typed, whole

Reader = Callable[[bytes], Record]
_MOST_SAID = 5
_MOST_BYTES = 2**31  # of a line; a file of zeros without an end is no store


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands in its file, and what a resume asks of it."""

    number: int
    offset: int
    length: int
    status: str
    counted: bool
    timed: bool
    calibrated: bool
    detail: str
    provenance: Mapping[str, Any]
    module: tuple[str, str | None]  # the mechanism, and the network that it stands in


class Lines(Mapping[str, Record]):
    """{key: record} over a file: the last record of each key, in the order of the lines, read when it is asked for.

    Asking for one whose line is damaged in what the index does not look at raises UsageError.
    """

    def __init__(self, path: Path, places: Mapping[str, Place]) -> None:
        self.path = path
        self.places = places

    def __getitem__(self, key: str) -> Record:
        with opened(self.path) as file:
            return self._read(file, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def line(self, file: BinaryIO, key: str) -> bytes:
        """The bytes of a record's line."""
        place = self.places[key]
        file.seek(place.offset)
        return file.read(place.length)

    def some(self, keys: Iterable[str], read: Reader = whole) -> tuple[list[Record], tuple[str, ...]]:
        """The records of these keys as far as there are, and what is to be said of lines that turn out to be damaged."""
        said: list[str] = []
        with _uncollected():
            return list(self.each(keys, said, read)), few(said)

    def each(self, keys: Iterable[str], said: list[str], read: Reader = whole) -> Iterator[Record]:
        """The same one by one, for what is larger than memory."""
        with opened(self.path) as file:
            for key in keys:
                if key in self.places:
                    try:
                        yield self._read(file, key, read)
                    except UsageError as error:
                        said.append(str(error))

    def _read(self, file: BinaryIO, key: str, read: Reader = whole) -> Record:
        place = self.places[key]
        try:
            record = read(self.line(file, key))
        except LineError as error:
            raise UsageError(_left_out(self.path, place.number, error)) from None
        if record.case.key != key:
            raise UsageError(f"{self.path}: was written anew while it was read: run the command again.")
        return record


@dataclass(frozen=True)
class Stored:
    """A store as read: runs in the order written, the last record of each key, and what the reader has to say."""

    runs: tuple[Run, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def some(self, keys: Iterable[str], outlined: bool = False) -> tuple[list[Record], tuple[str, ...]]:
        """The records of these keys as far as there are, and warnings; `outlined`: without what tables do not show."""
        if isinstance(self.records, Lines):
            return self.records.some(keys, outline if outlined else whole)
        return [self.records[key] for key in keys if key in self.records], ()

    def each(self, keys: Iterable[str], said: list[str]) -> Iterator[Record]:
        """The same in full and one by one; what is to be said comes into `said`."""
        if isinstance(self.records, Lines):
            return self.records.each(keys, said)
        return (self.records[key] for key in keys if key in self.records)


def load(path: Path) -> Stored:
    """Read a store. Raises UsageError for a file that is not there, is no store, or was written by a newer attnprof."""
    runs: list[Run] = []
    places: dict[str, Place] = {}
    said: list[str] = []
    known: dict[frozenset[Any], Mapping[str, Any]] = {}
    offset, first = 0, True
    with opened(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            at, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                found = peek(line)
                if first and isinstance(found, Peek):
                    typed(line)
            except LineError as error:
                ended = line.endswith(b"\n")
                if not ended and error.foreign and (not first or _begins(line)):
                    said.append(f"{path.name}:{number}: the last line is torn (a writer was killed); it is left out")
                elif first or error.newer:
                    _refuse(path, number, error)
                else:
                    said.append(_left_out(path, number, error))
                continue
            first = False
            if isinstance(found, Run):
                runs.append(found)
                continue
            key = found.case.key
            places.pop(key, None)
            made = _shared(known, found.provenance)
            there = (found.counted, found.timed, found.calibrated)
            host = None if found.case.host is None else found.case.host.host
            module = (found.case.mechanism, host)
            places[key] = Place(number, at, len(line), found.status, *there, found.detail, made, module)
    return Stored(tuple(runs), Lines(path, places), few(said))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles, of which records have none and which looks through all of them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def opened(path: Path) -> BinaryIO:
    """The file, or a UsageError that says why not."""
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        while line := file.readline(_MOST_BYTES):
            yield line
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _begins(line: bytes) -> bool:
    """Whether this may be the beginning of a line of ours."""
    return line.startswith(START) or START.startswith(line)


def _shared(known: dict[frozenset[Any], Mapping[str, Any]], made: Mapping[str, Any]) -> Mapping[str, Any]:
    """Equal provenances as one object: a store has few."""
    try:
        return known.setdefault(frozenset(made.items()), made)
    except TypeError:  # not from us: a value that is a list
        return made


def _refuse(path: Path, number: int, error: LineError) -> NoReturn:
    advice = (
        "update attnprof to read it"
        if error.newer
        else "the file is no store of attnprof, or its first line is damaged: then delete that line"
    )
    raise UsageError(f"{path}:{number}: {error}: {advice}.")


def _left_out(path: Path, number: int, error: LineError) -> str:
    return (
        f"{path.name}:{number}: {error}: it is left out, and a case that it was about will run again. "
        f"`attnprof merge {path}` writes the store without such lines"
    )


def few(said: list[str]) -> tuple[str, ...]:
    """Not more than a few of many, and how many there are."""
    if len(said) <= _MOST_SAID:
        return tuple(said)
    return (*said[:_MOST_SAID], f"{len(said) - _MOST_SAID} more lines are left out")
