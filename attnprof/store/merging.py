"""Several stores -> one: which record of each case is kept, what is missing, what contradicts itself.

Which source a record comes from is decided for a whole block, so that the latencies of a block stay from one machine: the
source with most cases that are ok, then with most that are timed, then with most that are through, then the first. What it
lacks comes from the others. What an earlier merge wrote gives only what nobody else has: the stores that it was made of may
have been renewed since. Sources that were made by different code, or for different devices, are refused: one table would hold
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from attnprof.errors import NothingSelectedError, UsageError
from attnprof.profiling.provenance import CODE, provenance
from attnprof.records import Record
from attnprof.store.lines import LineError, Run, peek
from attnprof.store.reading import Lines, Place, Stored, few, opened
from attnprof.store.writer import line_of, write_chunks

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Source:
    """A store that is merged, and the run whose records are wanted."""

    path: Path
    stored: Stored
    run: Run
    lines: Lines

    @cached_property
    def own(self) -> frozenset[str]:
        """The keys that its run was to do."""
        return frozenset(self.run.own)

    @property
    def derived(self) -> bool:
        """Whether an earlier merge of shards wrote it."""
        return self.run.shard is None and self.run.of is not None


@dataclass(frozen=True)
class Merged:
    """What the merged store holds: its run, for each key the source that it comes from, and what is to be said."""

    run: Run
    chosen: Mapping[str, Source]
    warnings: tuple[str, ...]


def sources_of(stores: Sequence[tuple[Path, Stored]]) -> dict[str, list[Source]]:
    """{name of the run: its stores}. Raises NothingSelectedError for none, UsageError for stores that are no parts of one."""
    found: dict[str, list[Source]] = {}
    for path, stored in stores:
        if stored.runs and isinstance(stored.records, Lines):
            found.setdefault(stored.runs[-1].name, []).append(Source(path, stored, stored.runs[-1], stored.records))
    if not found:
        raise NothingSelectedError("there is nothing to merge: no store that is named holds a run.")
    single = [sources[0] for sources in found.values() if len(sources) == 1]
    if len(found) > 1 and single:
        names = ", ".join(repr(name) for name in found)
        raise UsageError(
            f"these are stores of several runs ({names}), and {single[0].path} is the only one of '{single[0].run.name}': "
            "name the stores of one run."
        )
    for name, sources in found.items():
        _refuse_other_specs(name, sources)
    return found


def _refuse_other_specs(name: str, sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if other.run.source != first.run.source and set(other.run.keys) != set(first.run.keys):
            raise UsageError(
                f"'{name}': {first.path} was run from another spec than {other.path} (hashes of their text: "
                f"{first.run.source or 'none'}, {other.run.source or 'none'}). Run the older one again, or leave it out."
            )


def merge(sources: Sequence[Source]) -> Merged:
    """Choose. Raises UsageError where traced counts of one case, made by the same code, differ."""
    chosen: dict[str, Source] = {}
    damaged: list[str] = []
    said: list[str] = []
    mixed = False
    blocks = _blocks(sources, damaged)
    _refuse_other_devices(blocks)
    for members in blocks.values():
        # what a merge wrote before comes last; sorted() keeps ties in order
        ranked = sorted(members, key=lambda source: (not source.derived, *_worth(source, members[source])), reverse=True)
        best = ranked[0]
        own = dict.fromkeys(members[best], best)
        for other in ranked[1:]:
            taken = [
                key
                for key in members[other]
                if key not in own or (_answer(own[key], key) < _answer(other, key) and not other.derived)
            ]
            own |= dict.fromkeys(taken, other)
            if taken:
                said.append(f"{other.path} has {len(taken)} of the block that is otherwise from {best.path}")
        mixed = mixed or len({source for key, source in own.items() if source.lines.places[key].timed}) > 1
        chosen |= own
    _refuse_contradictions(sources, chosen)
    run = _run(sources)
    _refuse_other_code(sources, chosen, set(run.keys))
    places = {key: number for number, key in enumerate(run.keys)}
    ordered = dict(sorted(chosen.items(), key=lambda item: (places.get(item[0], len(places)), item[0])))
    warnings = said[:_NAMED] + ([f"and {len(said) - _NAMED} more blocks are from several stores"] if len(said) > _NAMED else [])
    if mixed:
        warnings.append("latencies of such a block are from several machines or runs: they are not compared with each other")
    return Merged(run, ordered, (*few(damaged), *warnings))


def _refuse_other_code(sources: Sequence[Source], chosen: Mapping[str, Source], wanted: AbstractSet[str]) -> None:
    """A module, and the code that counts, must be the same for all of its rows: resuming the older store renews them."""
    kept: dict[tuple[str, str | None], tuple[Source, Mapping[str, Any]]] = {}
    for source in sources:
        for key, place in source.lines.places.items():
            if key not in wanted or not _says(place) or (source.derived and chosen.get(key) is not source):
                continue
            first, made_from = kept.setdefault(place.module, (source, place.provenance))
            differ = [name for name in CODE if made_from.get(name) != place.provenance.get(name)]
            if differ and first is not source:
                raise UsageError(
                    f"{first.path} and {source.path} have {place.module[0]} from different code ({', '.join(differ)}): one "
                    f"table would hold numbers of both. Run {_older(sources, key, source, wanted)} again with --resume, or "
                    "leave it out."
                )


def _says(place: Place) -> bool:
    """Whether a record has a number: what is interrupted, or failed to measure, was counted."""
    return place.counted or place.status == "ok"


def _older(sources: Sequence[Source], key: str, at: Source, wanted: AbstractSet[str]) -> str:
    """The stores that hold a module, that of a record, from other code than lies here now; no names where all or none do."""
    record = _read(at, key)
    try:
        now = {} if record is None else provenance(record.case)
    except (OSError, ValueError):  # a file that cannot be read, a name that is none
        now = {}
    module = at.lines.places[key].module
    stale: dict[Source, bool] = {}
    for source in (source for source in sources if not source.derived):  # those that can be run again
        for other, place in source.lines.places.items():
            if other in wanted and place.module == module and _says(place):
                stale[source] = stale.get(source, False) or any(now.get(name) != place.provenance.get(name) for name in CODE)
    old = [str(source.path) for source in stale if stale[source]]
    return " and ".join(old) if 0 < len(old) < len(stale) else "the older one"


def _refuse_other_devices(blocks: Mapping[Any, Mapping[Source, Sequence[str]]]) -> None:
    """A case is another one on another device: every row would be there twice."""
    found: dict[Source, dict[str, None]] = {}
    for block, members in blocks.items():
        for source, keys in members.items():  # block[3] is its device
            if not source.own.isdisjoint(keys):
                found.setdefault(source, {})[block[3]] = None
    for (one, there), (other, where) in combinations(found.items(), 2):
        if there.keys().isdisjoint(where):
            raise UsageError(
                f"{one.path} was {_devices(there)}, {other.path} {_devices(where)}: a table of both would have every row "
                "twice. Name one, or run both with the same --device."
            )


def _devices(names: Iterable[str]) -> str:
    measured = " and ".join(name for name in names if name != "none")
    return f"measured on {measured}" if measured else "traced only"


def _blocks(sources: Sequence[Source], damaged: list[str]) -> dict[Any, dict[Source, list[str]]]:
    """{block: {source: keys}}, sources in the order in which they were named; records are read in full, as they are kept."""
    found: dict[Any, dict[Source, list[str]]] = {}
    for source in sources:
        for record in source.lines.each(source.lines, damaged):
            found.setdefault(record.case.block, {}).setdefault(source, []).append(record.case.key)
    return found


def _worth(source: Source, keys: Sequence[str]) -> tuple[int, int, int]:
    answers = [_answer(source, key) for key in keys]
    return answers.count(2), sum(source.lines.places[key].timed for key in keys), len(answers) - answers.count(0)


def _answer(source: Source, key: str) -> int:
    """2: ok; 1: a failure, which is an answer too; 0: counted, and the run went no further."""
    return {"ok": 2, "interrupted": 0}.get(source.lines.places[key].status, 1)


def _refuse_contradictions(sources: Sequence[Source], chosen: Mapping[str, Source]) -> None:
    """Counts of tensors without data are the same everywhere: two that differ are a defect, and neither can be believed."""
    for key, kept in chosen.items() if len(sources) > 1 else ():
        others = [source for source in sources if source is not kept and key in source.lines]
        for other in others:
            if kept.lines.places[key].provenance == other.lines.places[key].provenance:
                _compare(kept, _read(kept, key), other, _read(other, key))


def _read(source: Source, key: str) -> Record | None:
    try:
        return source.lines[key]
    except UsageError:
        return None  # said when the merged store is read


def _compare(source: Source, record: Record | None, other: Source, others: Record | None) -> None:
    if record is None or others is None or record.counts is None or others.counts is None:
        return
    a, b = record.counts, others.counts
    if a == b or not a.traced_by == b.traced_by == "meta":
        return
    names = [name for name in vars(a) if name != "math_attention" and getattr(a, name) != getattr(b, name)]
    shown = [name for name in names if isinstance(getattr(a, name), int)]
    texts = [f"{name} {getattr(a, name)} and {getattr(b, name)}" for name in shown[:_NAMED]] or [f"{', '.join(names)} differ"]
    raise UsageError(
        f"{source.path} and {other.path} contradict each other on {record.case.label} {record.case.shape.text()} "
        f"{record.case.mode} (key {record.case.key}), traced by the same code: {'; '.join(texts)}. Traced counts are the same "
        "everywhere, so one of the files was changed, or this is a defect of attnprof: leave one out, or run the case again "
        "with `attnprof run --fresh`."
    )


def _run(sources: Sequence[Source]) -> Run:
    """The run of all sources: every key once, in the order of the plan; no commit where they differ."""
    widest = max(sources, key=lambda source: len(source.run.keys)).run
    keys = tuple(dict.fromkeys(key for run in (widest, *(source.run for source in sources)) for key in run.keys))
    cut = {(run.of, run.shards) for source in sources if (run := source.run).of is not None and run.keys == keys}
    of, shards = cut.pop() if len(cut) == 1 else (None, ())
    commits = {source.run.commit for source in sources}
    commit = commits.pop() if len(commits) == 1 else ""
    return replace(widest, keys=keys, commit=commit, shard=None, of=of, shards=shards)


def missing(merged: Merged) -> tuple[str, ...]:
    """What has no record, or no final one: a sentence per shard where the run was cut into shards."""
    run = merged.run
    states = [_state(merged, key) for key in run.keys]
    if run.of is None:
        return tuple(lacks(states))
    totals: dict[int, list[str]] = {}
    for state, number in zip(states, run.shards, strict=True):
        totals.setdefault(number, []).append(state)
    out = []
    for number, own in sorted(totals.items()):
        said = lacks(own)
        if own.count("") == len(own):
            out.append(f"shard {number}/{run.of} is missing: {_cases(len(own))}")
        elif said:
            out.append(f"shard {number}/{run.of} is not complete: {', '.join(said)}: run it again with --resume")
    return tuple(out)


def _state(merged: Merged, key: str) -> str:
    return merged.chosen[key].lines.places[key].status if key in merged.chosen else ""


def lacks(states: Sequence[str]) -> list[str]:
    """What is said of cases without a record (status '') and of those whose run did not come to measuring them."""
    gone, waiting = states.count(""), states.count("interrupted")
    out = [f"{gone} of {_cases(len(states))} have no record yet"] if gone else []
    return out + ([f"{waiting} of {_cases(len(states))} are counted and not measured yet"] if waiting else [])


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def write(merged: Merged, path: Path) -> None:
    """Put the merged store in its place, whole or not at all: the run, then the lines of its records as they were read."""
    write_chunks(path, _lines(merged))


def _lines(merged: Merged) -> Iterator[bytes]:
    yield line_of(merged.run)
    files = {source.path: opened(source.path) for source in dict.fromkeys(merged.chosen.values())}
    try:
        for key, source in merged.chosen.items():
            line = source.lines.line(files[source.path], key)
            if not _is_of(line, key):
                raise UsageError(f"{source.path}: it was written anew while it was read: merge again.")
            yield line if line.endswith(b"\n") else line + b"\n"
    finally:
        for file in files.values():
            file.close()


def _is_of(line: bytes, key: str) -> bool:
    """Whether the line is still the one that the index knows."""
    try:
        found = peek(line.rstrip(b"\n"))
    except LineError:
        return False
    return not isinstance(found, Run) and found.case.key == key
