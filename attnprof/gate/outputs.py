"""Rows -> what the console shows (at most 80 columns), and the JSON report that is the contract for other tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from attnprof.gate.rows import POINT, Outcome, Row, exit_code
from attnprof.report.text import WIDTH, wrap

SCHEMA = 1
# 1  2026-11  first: spec, baseline, made, exit_code, counts, notes, options, rows
KIND = "attnprof gate"
ORDER = (
    Outcome.REGRESSED,
    Outcome.MISMATCH,
    Outcome.FAILED,
    Outcome.INCONCLUSIVE,
    Outcome.INTERRUPTED,
    Outcome.WARN,
    Outcome.IMPROVED,
    Outcome.PASS,
)
WORDS: Mapping[Outcome, str] = {
    Outcome.REGRESSED: "regressed",
    Outcome.MISMATCH: "not comparable",
    Outcome.FAILED: "failed",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.INTERRUPTED: "interrupted",
    Outcome.WARN: "warned",
    Outcome.IMPROVED: "improved",
    Outcome.PASS: "passed",
}
_VERDICTS = {
    0: "passed",
    1: "regressed",
    3: "nothing comparable",
    4: "inconclusive",
    5: "a point failed",
    130: "interrupted",
}
_GREEN, _YELLOW, _RED = "32", "33", "31"
_COLOURS = dict.fromkeys(ORDER, _RED) | {Outcome.WARN: _YELLOW, Outcome.IMPROVED: _GREEN, Outcome.PASS: _GREEN}
_MOST = 50  # sentences of one kind on the console; the files have them all


@dataclass(frozen=True)
class Result:
    """All rows of one gate, and what they were made from. notes: sentences that are about no single row."""

    spec: str
    file: str
    rows: tuple[Row, ...]
    baseline: str | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    baseline_made: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The exit code."""
        return exit_code(self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """{outcome: rows}, every outcome."""
        found = Counter(row.outcome for row in self.rows)
        return {outcome.value: found[outcome] for outcome in ORDER}

    def of(self, *outcomes: Outcome) -> list[Row]:
        """The rows with one of the outcomes, in the order of ORDER."""
        return [row for outcome in ORDER if outcome in outcomes for row in self.rows if row.outcome == outcome]

    @property
    def verdict(self) -> str:
        """One sentence: 'segmentation: regressed (exit code 1): 2 regressed, 1 improved, 2,178 passed.'"""
        code, counts = self.code, self.counts
        numbers = ", ".join(f"{counts[outcome]:,} {WORDS[outcome]}" for outcome in ORDER if counts[outcome])
        return f"{self.spec}: {_VERDICTS[code]} (exit code {code}): {numbers or 'no row'}."


def console(result: Result, explain: bool = False, colour: bool = False) -> str:
    """A sentence per row that did not simply pass (every row with `explain`, with its reason), then the verdict.

    colour: of the heads and the verdict, by escape codes that take no room.
    """
    lines: list[str] = []
    for outcome in ORDER:
        rows = result.of(outcome)
        if not rows or (outcome is Outcome.PASS and not explain):
            continue
        lines.append(_painted(f"{WORDS[outcome]}:", _COLOURS[outcome], colour))
        lines += [f"  {line}" for sentence in _sentences(rows, explain) for line in wrap(sentence, WIDTH - 2, "  ")]
        lines.append("")
    for note in other_notes(result):
        lines += [*wrap(note), ""]
    worst = next((_COLOURS[outcome] for outcome in ORDER if result.counts[outcome]), _GREEN)
    return "\n".join([*lines, *(_painted(line, worst, colour) for line in wrap(result.verdict))]) + "\n"


def sentences(rows: Sequence[Row]) -> list[str]:
    """The sentences of rows of one outcome; points that are not compared for the same reason are one sentence."""
    refusals = [_refusal(row) for row in rows]
    counts, said, out = Counter(refusals), set(), []
    for row, why in zip(rows, refusals, strict=True):
        if not why or counts[why] == 1:
            out.append(row.sentence)
        elif why not in said:
            said.add(why)
            out.append(f"{counts[why]:,} points: {why}")
    return out


def _refusal(row: Row) -> str:
    """Why a whole point is not compared, without its name; '' for other rows."""
    name = f"{row.label} {row.point}: "
    refused = row.outcome is Outcome.MISMATCH and row.metric == POINT and row.sentence.startswith(name)
    return row.sentence.removeprefix(name) if refused else ""


def other_notes(result: Result) -> list[str]:
    """The notes that no refused point says already."""
    refusals = [row.sentence for row in result.of(Outcome.MISMATCH)]
    return [note for note in result.notes if not any(sentence.endswith(note) for sentence in refusals)]


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def _sentences(rows: Sequence[Row], explain: bool) -> Iterator[str]:
    if explain:
        yield from (f"[{row.reason}] {row.sentence}" for row in rows)
        return
    every = sentences(rows)
    yield from every[:_MOST]
    if len(every) > _MOST:
        yield f"and {len(every) - _MOST:,} more (--explain, --markdown and --report-json have them all)"


def data(result: Result) -> dict[str, Any]:
    """The whole result as plain JSON types."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "spec": result.spec,
        "file": result.file,
        "baseline": result.baseline,
        "baseline_made": None if result.baseline_made is None else dict(result.baseline_made),
        "made": dict(result.made),
        "options": dict(result.options),
        "exit_code": result.code,
        "verdict": result.verdict,
        "counts": result.counts,
        "notes": list(result.notes),
        "rows": [row_data(row) for row in result.rows],
    }


def row_data(row: Row) -> dict[str, Any]:
    """A row as plain JSON types; `before` and `after` are `from` and `to`."""
    fields = asdict(row)
    named = {"class": fields.pop("kind"), "from": fields.pop("before"), "to": fields.pop("after")}
    return {**named, **fields, "reason": row.reason.value, "outcome": row.outcome.value, "detail": dict(row.detail)}
