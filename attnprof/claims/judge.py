"""Paper -> Verdicts. For every table each convention that its source leaves open is tried on all its rows; one that explains
every row speaks for all of them, the stated one before others; where none does, the stated one stands.

Who counts is passed in: `count(case, fused)` -> (Counts, bytes of the inputs), `outputs(case)` -> Outputs, `time(cases)` ->
seconds per case. Rows that
were only remembered, and numbers that stand there once more (`again`), do not vote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from attnprof.claims import Claim, Paper, Table, Verdict
from attnprof.claims.conventions import RATIOS, Convention, candidates, has_base, stated
from attnprof.claims.expression import ExpressionError, Value
from attnprof.claims.laws import PRODUCTS, SLACK, Growth
from attnprof.claims.reading import (
    alike,
    default_tolerance,
    difference,
    holds_in_part,
    is_exact,
    is_near,
    same_side,
    sign,
    within_factor,
)
from attnprof.errors import AttnprofError, UsageError
from attnprof.records import Case, Counts, Outputs

Counter = Callable[[Case, bool], tuple[Counts, int]]
Timer = Callable[[Sequence[Case]], Mapping[str, float]]  # {case.key: seconds}
_KEPT = "not measured: the verdict on record stands"


@dataclass(frozen=True)
class Tools:
    """What counts and what measures; `grow` answers order tables, `time` is None where nothing is measured."""

    count: Counter
    grow: Callable[[Table, Case], Growth]
    outputs: Callable[[Case], Outputs]
    time: Timer | None = None


def judge(paper: Paper, tools: Tools, only: Callable[[Claim], bool] = lambda _: True) -> list[Verdict]:
    """Verdicts in the order of the file. A table is judged whole, whichever of its rows are asked for."""
    by_claim: dict[str, Verdict] = {}
    for table in paper.tables.values():
        rows = [claim for claim in paper.claims if claim.table == table]
        asked = [claim for claim in rows if only(claim)]
        if asked:
            by_claim |= {verdict.claim.name: verdict for verdict in _judge_table(paper, table, rows, asked, tools)}
    return [by_claim[claim.name] for claim in paper.claims if only(claim)]


def _judge_table(paper: Paper, table: Table, rows: Sequence[Claim], asked: Sequence[Claim], tools: Tools) -> list[Verdict]:
    """Verdicts of the rows that are asked for; every row votes for the convention of counted tables."""
    if table.metric == "latency":
        return [_timed(paper, claim, tools) for claim in asked]
    if table.metric == "order":
        return [_grown(paper, claim, tools) for claim in asked]
    counted = [claim for claim in rows if claim.value is not None]
    amounts = _Amounts(paper, tools)
    failed: dict[str, str] = {}
    for claim in counted:
        try:
            amounts.of(claim, stated(table.metric, table.says, table.unit))
        except (UsageError, ExpressionError) as error:
            raise UsageError(f"{paper.file}:{claim.line}: {claim.name}: {error}") from error
        except AttnprofError as error:
            failed[claim.name] = str(error).split("\n")[0]
    counted = [claim for claim in counted if claim.name not in failed]
    lost = sum(claim.seen and not claim.again for claim in rows if claim.name in failed)
    choice = choose(table, counted, amounts.of, lost)
    return [
        _absent(paper, claim, failed.get(claim.name, ""))
        if claim not in counted
        else _verdict(paper, claim, choice, counted, amounts.of)
        for claim in asked
    ]


@dataclass(frozen=True)
class Choice:
    """The convention chosen for a table, among how many, and how many of the voting rows it explains."""

    convention: Convention
    stated: Convention
    tried: tuple[Convention, ...]
    explained: int
    rows: int


Reader = Callable[[Claim, Convention], float]


def choose(table: Table, claims: Sequence[Claim], read: Reader, lost: int = 0) -> Choice:
    """The convention that explains all voting rows, the stated one first, then that with more exact rows; else the stated.

    lost: voting rows that could not be counted; no convention explains them.
    """
    scaled = any(has_base(table.metric, claim.unit) for claim in claims)
    tried = candidates(table.metric, table.says, table.fixed if scaled else (*table.fixed, "base"), table.unit)
    voting = [claim for claim in claims if claim.seen and not claim.again] or [claim for claim in claims if not claim.again]

    def score(convention: Convention) -> tuple[int, bool, int]:
        values = [(claim, read(claim, convention)) for claim in voting]
        near = sum(explains(claim, convention, value) for claim, value in values)
        return near, convention == tried[0], sum(is_exact(claim.published, value) for claim, value in values)

    best = max(tried, key=score)
    if score(best)[0] < len(voting) + lost:  # what leaves rows unexplained explains none by right: the stated one stands
        best = tried[0]
    return Choice(best, tried[0], tried, score(best)[0], len(voting) + lost)


def explains(claim: Claim, convention: Convention, value: float) -> bool:
    """Whether a value is the printed one within the tolerance of the claim."""
    mebibyte = 2**20 / convention.scale(claim.unit) if claim.unit not in RATIOS else 0.0
    tolerance = claim.tolerance or default_tolerance(convention.metric, convention.mode, mebibyte)
    return is_near(claim.published, value, tolerance)


class _Amounts:
    """The value of a claim under a convention; every case is counted once per mode."""

    def __init__(self, paper: Paper, tools: Tools) -> None:
        self.paper, self.tools = paper, tools

    def of(self, claim: Claim, convention: Convention) -> float:
        """In the unit of the claim."""
        assert claim.value is not None
        scale = 1.0 if claim.unit in RATIOS else convention.scale(claim.unit)
        return _evaluate(claim.value, claim.unit, {name: self._amount(name, convention) / scale for name in claim.value.names})

    def _amount(self, name: str, convention: Convention) -> float:
        case = replace(self.paper.cases[name], mode=convention.mode)
        if convention.metric == "activations":
            return convention.elements(self.tools.outputs(case))
        return convention.amount(*self.tools.count(case, name in self.paper.fused))


def _evaluate(value: Value, unit: str, values: Mapping[str, float]) -> float:
    return value(values) * (100 if unit == "%" else 1)


def _verdict(paper: Paper, claim: Claim, choice: Choice, rows: Sequence[Claim], read: Reader) -> Verdict:
    value = read(claim, choice.convention)
    found, nearest = _judged(claim, choice, rows, read), None
    if not explains(claim, choice.convention, value) and len(choice.tried) > 1:
        near = min(choice.tried, key=lambda each: abs(read(claim, each) - claim.published.middle))
        if near != choice.convention:
            nearest = (near.text(claim.unit), read(claim, near))
    return Verdict(
        claim,
        paper.name,
        verdict=found if claim.seen else "unverifiable",
        why=claim.why,
        reproduced=value,
        difference=difference(claim.published, value),
        convention=choice.convention.text(claim.unit),
        stated=choice.stated.text(claim.unit),
        tried=len(choice.tried),
        explained=choice.explained,
        rows=choice.rows,
        arithmetic="" if claim.seen else found,
        nearest=nearest,
    )


def _judged(claim: Claim, choice: Choice, rows: Sequence[Claim], read: Reader) -> str:
    value = read(claim, choice.convention)
    if explains(claim, choice.convention, value):
        at = claim.published.decimals
        if choice.convention != choice.stated and round(read(claim, choice.stated), at) != round(value, at):
            return "convention"
        return "exact" if is_exact(claim.published, value) else "close"
    if claim.unit in RATIOS:
        return "direction" if holds_in_part(claim.published, value, claim.unit) else "contradicted"
    if not within_factor(claim.published, value):
        return "contradicted"
    return "direction" if _in_order(claim, value, choice.convention, rows, read) else "contradicted"


def _in_order(claim: Claim, value: float, convention: Convention, rows: Sequence[Claim], read: Reader) -> bool:
    """Whether a size stands among the other sizes of its table as printed. Not asked: those that are off by a factor, and those
    that are printed alike, which may stand either way.
    """
    own = claim.again or claim.name
    for other in rows:
        if other.name == own or other.again or other.unit != claim.unit or alike(claim.published, other.published):
            continue
        found = read(other, convention)
        printed = sign(claim.published.middle - other.published.middle)
        if within_factor(other.published, found) and sign(value - found) != printed:
            return False
    return True


def _absent(paper: Paper, claim: Claim, failure: str) -> Verdict:
    why = f"{claim.why} (not counted: {failure})" if failure else claim.why
    return Verdict(claim, paper.name, verdict="unverifiable", why=why)


def _grown(paper: Paper, claim: Claim, tools: Tools) -> Verdict:
    """The exponent of N in the kept closed form. Where none is kept that holds, the verdict on record stands; see the slope.

    Of products alone the fitted slope is judged.
    """
    if claim.value is None:
        return _absent(paper, claim, "")
    try:
        found = tools.grow(claim.table, paper.cases[claim.value.text])
    except AttnprofError as error:
        return _absent(paper, claim, str(error).split("\n")[0])
    if found.exponent is None and claim.table.of != PRODUCTS:
        why = f"{claim.why} (no closed form is kept that holds: the verdict on record stands)"
        return Verdict(claim, paper.name, claim.verdict, why, found.slope, kept=True, convention=found.text())
    value = found.slope if found.exponent is None else found.exponent
    edge = min(max(value, claim.published.low), claim.published.high)
    verdict = "exact" if abs(value - edge) <= (SLACK if found.exponent is None else 0) else "contradicted"
    return Verdict(
        claim,
        paper.name,
        verdict=verdict if claim.seen else "unverifiable",
        why=claim.why,
        reproduced=value,
        difference=difference(claim.published, value),
        convention=found.text(),
        tried=1,
        arithmetic="" if claim.seen else verdict,
    )


def _timed(paper: Paper, claim: Claim, tools: Tools) -> Verdict:
    """A ratio of latencies where it is measured; else the verdict on record, marked so.

    What is on record as unverifiable (hardware that is not here) stays so: what was measured is shown beside it.
    """
    if claim.value is None:
        return _absent(paper, claim, "")
    cases = {name: replace(paper.cases[name], mode=claim.table.mode) for name in claim.value.names}
    seconds = tools.time(list(cases.values())) if tools.time is not None else {}
    if any(case.key not in seconds for case in cases.values()):
        return Verdict(claim, paper.name, verdict=claim.verdict, why=f"{claim.why} ({_KEPT})", kept=True)
    value = _evaluate(claim.value, claim.unit, {name: seconds[case.key] for name, case in cases.items()})
    found = "contradicted"
    if within_factor(claim.published, value) and same_side(claim.published, value, claim.unit):
        found = "close"
    elif same_side(claim.published, value, claim.unit):
        found = "direction"
    shown = not claim.seen or claim.verdict == "unverifiable"
    return Verdict(
        claim,
        paper.name,
        verdict="unverifiable" if shown else found,
        why=claim.why,
        reproduced=value,
        difference=difference(claim.published, value),
        convention="measured",
        arithmetic=found if shown else "",
    )


def tally(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """{"claims", "seen", "remembered", "again", "own", "orders", then every verdict}: rows, numbers seen in a source, numbers
    only remembered, rows that are a number once more; of the numbers seen, how many are arithmetic on the paper's own digits,
    how many are orders of growth, how many have each verdict; "exact_orders", "exact_own" ...: how many of those are such.
    """
    from attnprof.claims import VERDICTS

    rows = list(verdicts)
    seen = [each for each in rows if each.claim.seen and not each.claim.again]
    counts = {name: sum(each.verdict == name for each in seen) for name in VERDICTS}
    for kind, members in (("orders", _orders(seen)), ("own", _own_digits(seen))):
        counts |= {f"{name}_{kind}": sum(each.verdict == name for each in members) for name in VERDICTS}
    remembered = sum(not each.claim.seen and not each.claim.again for each in rows)
    again = sum(bool(each.claim.again) for each in rows)
    own, orders = len(_own_digits(seen)), len(_orders(seen))
    heads = {"claims": len(rows), "seen": len(seen), "remembered": remembered, "again": again, "own": own, "orders": orders}
    return heads | counts


def _orders(seen: Sequence[Verdict]) -> list[Verdict]:
    return [each for each in seen if each.claim.table.metric == "order"]


def _own_digits(seen: Sequence[Verdict]) -> list[Verdict]:
    """What follows from other numbers of the same paper: no case is counted."""
    return [each for each in seen if each.claim.value is not None and not each.claim.value.names]
