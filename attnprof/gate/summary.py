"""Rows -> Markdown for a step summary or a pull request: what went wrong first, what passed folded, cut before it is refused.

GitHub drops a step summary of more than 1 MiB as a whole, and refuses a comment of more than 65,536
characters; the one ends at 900 KiB, the other at 58 KiB, with a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attnprof.gate.outputs import ORDER, WORDS, Result, other_notes, sentences
from attnprof.gate.rows import POINT, Outcome, Row
from attnprof.report.markdown import escape

LIMIT = 900 * 1024
COMMENT = 58 * 1024  # of the body of a pull request's comment: GitHub takes 65,536 characters
MARKER = "<!-- attnprof gate -->"
LEAST = 4096  # with less room than this there is no summary
_ROOM = 1024  # for the end
_FOLDED = (Outcome.IMPROVED, Outcome.PASS)


def render(result: Result, limit: int = LIMIT) -> str:
    """The document, at most `limit` bytes in UTF-8."""
    lines = [MARKER, f"## {escape(result.verdict)}", ""]
    lines += [f"> {escape(note)}\n" for note in other_notes(result)]
    size = sum(map(_bytes, lines))
    for outcome in ORDER:
        rows = result.of(outcome)
        if not rows:
            continue
        open_, close = _frame(outcome, len(rows))
        size += sum(map(_bytes, (*open_, *close)))
        kept = []
        for line in _lines(outcome, rows):
            if size + _bytes(line) > limit - _ROOM:
                break
            kept.append(line)
            size += _bytes(line)
        lines += [*open_, *kept, *close]
        if len(kept) < len(list(_lines(outcome, rows))):
            lines.append(_cut(result, limit))
            break
    return "\n".join(lines) + "\n"


def _frame(outcome: Outcome, count: int) -> tuple[list[str], list[str]]:
    head = f"{WORDS[outcome]}: {count:,}"
    if outcome in _FOLDED:
        return [f"<details><summary>{head}</summary>", ""], ["", "</details>", ""]
    return [f"### {head}", ""], [""]


def _lines(outcome: Outcome, rows: Sequence[Row]) -> Iterator[str]:
    """A table of what changed; sentences for what has no two numbers; a line per point for what passed."""
    if outcome is Outcome.PASS:
        yield from _passed(rows)
        return
    yield from (f"- {escape(sentence)}" for sentence in sentences(rows))


def _passed(rows: Sequence[Row]) -> Iterator[str]:
    """The metrics of a point in one line: equal ones are named only, others have their sentence."""
    equal: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        plain = row.before is not None and row.before == row.after and row.metric != POINT and row.reason.value == "EQUAL"
        if plain:
            equal.setdefault((row.label, row.point), []).append(row.metric)
        else:
            yield f"- {escape(row.sentence)}"
    for (label, point), metrics in equal.items():
        yield f"- {escape(f'{label} {point}')}: {escape(', '.join(metrics))} equal"


def _cut(result: Result, limit: int) -> str:
    return f"This summary was cut at {limit // 1024} KiB; the other of its {len(result.rows):,} rows are in the JSON report."


def _bytes(line: str) -> int:
    return len(line.encode()) + 1
