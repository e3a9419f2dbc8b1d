"""Several stores -> one: which record of each case is kept, what is missing, what contradicts itself.

Which source a record comes from is decided for a whole block, so that the latencies of a block stay from one machine: the
source with most cases that are ok, then with most that are timed, then the first. What it lacks comes from the others. What
an earlier merge wrote gives only what nobody else has: the stores that it was made of may have been renewed since. Sources
that were made by different code are refused: one table would hold numbers of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import Record
from attnprof.store.lines import LineError, Run, peek
from attnprof.store.reading import Lines, Stored, few, opened
from attnprof.store.writer import line_of, write_chunks

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Source:
    """A store that is merged, and the run whose records are wanted."""

    path: Path
    stored: Stored
    run: Run
    lines: Lines

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
    blocks = _blocks(sources, damaged)
    for members in blocks.values():
        # what a merge wrote before comes last; sorted() keeps ties in order
        ranked = sorted(members, key=lambda source: (not source.derived, *_worth(source, members[source])), reverse=True)
        best = ranked[0]
        own = dict.fromkeys(members[best], best)
        for other in ranked[1:]:
            taken = [
                key
                for key in members[other]
                if key not in own or (not _ok(own[key], key) and _ok(other, key) and not other.derived)
            ]
            own |= dict.fromkeys(taken, other)
            if taken:
                said.append(f"{other.path.name} has {len(taken)} of the block that is otherwise from {best.path.name}")
        chosen |= own
    _refuse_contradictions(sources, chosen)
    run = _run(sources)
    _refuse_other_code(sources, chosen, set(run.keys))
    places = {key: number for number, key in enumerate(run.keys)}
    ordered = dict(sorted(chosen.items(), key=lambda item: (places.get(item[0], len(places)), item[0])))
    warnings = said[:_NAMED] + ([f"and {len(said) - _NAMED} more blocks are from several stores"] if len(said) > _NAMED else [])
    if said:
        warnings.append("latencies of such a block are from several machines or runs: they are not compared with each other")
    return Merged(run, ordered, (*few(damaged), *warnings))


def _refuse_other_code(sources: Sequence[Source], chosen: Mapping[str, Source], wanted: AbstractSet[str]) -> None:
    """A module, and the code that counts, must be the same for all of its rows: resuming the older store renews them."""
    kept: dict[tuple[str, str | None], tuple[Source, Mapping[str, Any]]] = {}
    for source in sources:
        for key, place in source.lines.places.items():
            if key not in wanted or place.status != "ok" or (source.derived and chosen[key] is not source):
                continue
            first, made_from = kept.setdefault(place.module, (source, place.provenance))
            differ = [name for name in ("source", "counting", "torch") if made_from.get(name) != place.provenance.get(name)]
            if differ and first is not source:
                raise UsageError(
                    f"{first.path} and {source.path} have {place.module[0]} from different code ({', '.join(differ)}): one "
                    "table would hold numbers of both. Run the older one again with --resume, or leave it out."
                )


def _blocks(sources: Sequence[Source], damaged: list[str]) -> dict[Any, dict[Source, list[str]]]:
    """{block: {source: keys}}, sources in the order in which they were named; records are read in full, as they are kept."""
    found: dict[Any, dict[Source, list[str]]] = {}
    for source in sources:
        for record in source.lines.each(source.lines, damaged):
            found.setdefault(record.case.block, {}).setdefault(source, []).append(record.case.key)
    return found


def _worth(source: Source, keys: Sequence[str]) -> tuple[int, int]:
    return sum(_ok(source, key) for key in keys), sum(source.lines.places[key].timed for key in keys)


def _ok(source: Source, key: str) -> bool:
    return source.lines.places[key].status == "ok"


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
    """What has no record, a sentence per shard where the run was cut into shards."""
    lacking = {key for key in merged.run.keys if key not in merged.chosen}
    if not lacking:
        return ()
    of = merged.run.of
    if of is None:
        return (f"{len(lacking)} of {len(merged.run.keys)} cases have no record",)
    totals: dict[int, list[bool]] = {}
    for key, number in zip(merged.run.keys, merged.run.shards, strict=True):
        totals.setdefault(number, []).append(key in lacking)
    out = []
    for number, gone in sorted(totals.items()):
        if all(gone):
            out.append(f"shard {number}/{of} is missing: {_cases(len(gone))}")
        elif any(gone):
            out.append(f"shard {number}/{of} is not complete: {sum(gone)} of {_cases(len(gone))} have no record")
    return tuple(out)


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
