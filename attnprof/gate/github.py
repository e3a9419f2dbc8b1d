"""Rows -> GitHub workflow commands: an error or a warning at the line of the spec that a row is about.

GitHub shows ten of each kind per step; the tenth says how many there are beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnprof.gate.outputs import Result
from attnprof.gate.rows import Outcome, Row
from attnprof.report.text import clean

MOST = 10
_KINDS = {
    "error": (Outcome.REGRESSED, Outcome.MISMATCH, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.INTERRUPTED),
    "warning": (Outcome.WARN,),
}


def render(result: Result, root: Path | None = None) -> list[str]:
    """The lines. `root`: the checkout that paths are relative to, where the spec is inside it."""
    file = _relative(result.file, root)
    out = []
    for kind, outcomes in _KINDS.items():
        rows = result.of(*outcomes)
        shown = rows if len(rows) <= MOST else rows[: MOST - 1]
        out += [_command(kind, file, row) for row in shown]
        if len(shown) < len(rows):
            more = f"{result.spec}: {len(rows) - len(shown):,} more; {result.verdict}"
            out.append(f"::{kind} file={_property(file)}::{_data(more)}")
    return out


def _command(kind: str, file: str, row: Row) -> str:
    place = f",line={row.line}" if row.line else ""
    place += f",col={row.column}" if row.line and row.column else ""
    return f"::{kind} file={_property(file)}{place}::{_data(row.sentence)}"


def _relative(file: str, root: Path | None) -> str:
    """The path from the root of the checkout, with forward slashes."""
    path = Path(file)
    if root is not None:
        absolute, above = path.resolve(), root.resolve()
        if absolute.is_relative_to(above):
            path = absolute.relative_to(above)
    return path.as_posix()


def _data(text: str) -> str:
    """A sentence as the value of a command: in one line, of characters that print."""
    return clean(text).replace("%", "%25")


def _property(text: str) -> str:
    """A path: only what would end the command or cannot be written as UTF-8 is other."""
    printed = "".join(char if char.isprintable() else "?" for char in text)
    return printed.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def wanted(choice: str, environment: Mapping[str, str]) -> bool:
    """Whether `--annotations` asks for them: auto does inside a GitHub workflow."""
    return choice == "github" or (choice == "auto" and environment.get("GITHUB_ACTIONS") == "true")
