"""One verdict: what was looked at, what it was before and is now, why that is so, and what it means for the exit code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXACT, RATIO, TIME, CLAIMS = "exact", "ratio", "time", "claims"
CLASSES = (EXACT, RATIO, TIME, CLAIMS)
POINT = "point"  # the metric of a row that is about a whole point


class Outcome(StrEnum):
    """What a row means. The exit code of each is in EXIT_CODES."""

    PASS = "pass"  # noqa: S105
    IMPROVED = "improved"
    WARN = "warn"
    INCONCLUSIVE = "inconclusive"  # only where it is asked to fail; a WARN otherwise
    FAILED = "failed"
    MISMATCH = "mismatch"
    REGRESSED = "regressed"
    INTERRUPTED = "interrupted"


EXIT_CODES = {  # in order of precedence
    Outcome.REGRESSED: 1,
    Outcome.MISMATCH: 3,
    Outcome.FAILED: 5,
    Outcome.INCONCLUSIVE: 4,
    Outcome.INTERRUPTED: 130,
}


class Reason(StrEnum):
    """Why a row has its outcome."""

    EQUAL = "EQUAL"
    LOWER = "LOWER"
    HIGHER = "HIGHER"
    WITHIN_TOL = "WITHIN_TOL"
    ACCEPTED = "ACCEPTED"
    NEW_POINT = "NEW_POINT"
    VANISHED = "VANISHED"
    FAILED = "FAILED"
    FAILED_BEFORE = "FAILED_BEFORE"
    RECOVERED = "RECOVERED"
    NO_BASELINE = "NO_BASELINE"
    ENV_MISMATCH = "ENV_MISMATCH"
    NOTHING_SELECTED = "NOTHING_SELECTED"
    CLAIM_HOLDS = "CLAIM_HOLDS"
    CLAIM_FALSE = "CLAIM_FALSE"
    # of the classes that measure: time and ratio
    CLEAR_GAP = "CLEAR_GAP"
    CI_TOO_WIDE = "CI_TOO_WIDE"
    NOT_CONFIRMED = "NOT_CONFIRMED"
    THROTTLED = "THROTTLED"
    BUDGET = "BUDGET"
    BASE_FAILED = "BASE_FAILED"
    NOT_MEASURED = "NOT_MEASURED"
    INTERRUPTED = "INTERRUPTED"


_SHORT = (Reason.BUDGET, Reason.CI_TOO_WIDE, Reason.THROTTLED)
_EMPTY = (Reason.NEW_POINT, Reason.FAILED_BEFORE, Reason.BASE_FAILED, Reason.NOT_MEASURED)


@dataclass(frozen=True)
class Row:
    """One verdict.

    point: the case without its mechanism ('1x64x33x33 inference'). before, after: the values, in the base unit of the metric;
    None where there is none. sentence: what a person reads, complete without the other fields. line, column: of the mechanism
    or claim in the spec's file, 0 where there is none. detail: what a class has beside (intervals, the text of a claim).
    """

    kind: str  # one of CLASSES
    reason: Reason
    outcome: Outcome
    sentence: str
    mechanism: str = ""
    label: str = ""
    point: str = ""
    metric: str = POINT
    key: str = ""
    before: float | None = None
    after: float | None = None
    line: int = 0
    column: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether anything was held against anything: not of a point that is new, failed on both sides, or was not measured."""
        return self.reason not in _EMPTY and not (self.reason in _SHORT and self.after is None)

    @property
    def fails(self) -> bool:
        """Whether it makes the exit code other than 0."""
        return self.outcome in EXIT_CODES


def exit_code(rows: Iterable[Row]) -> int:
    """1 a regression, else 3 nothing comparable, 5 a failed point, 4 inconclusive, 130 interrupted, 0."""
    found = {row.outcome for row in rows}
    return next((code for outcome, code in EXIT_CODES.items() if outcome in found), 0)
