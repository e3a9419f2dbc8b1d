"""What `doctor --aa` says: how far apart A and A seem, and the smallest difference that this machine can tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnprof import stats
from attnprof.report.text import wrap

_COARSE = 0.05  # the tolerance of a gate: what a machine should be able to tell
_BUSY = 0.25  # of the cores


@dataclass(frozen=True)
class Summary:
    """A/A ratios of one kind.

    spread: 5th, 50th and 95th percentile of the ratios. smallest_difference: a slowdown or speed-up by this factor less 1
    would have been told from none in 95 of 100 such comparisons, that is, their intervals, moved by it, would leave 1 out:
    the 95th percentile of max(1 / low, high) - 1.
    """

    covers: str
    ratios: int
    cover_1: int
    spread: tuple[float, float, float]
    median_half_width: float
    smallest_difference: float


def summary(ratios: Sequence[stats.Ratio]) -> Summary:
    """The summary of some A/A ratios. Raises ValueError for none."""
    if not ratios:
        raise ValueError("summary of no ratios")
    values = [ratio.value for ratio in ratios]
    return Summary(
        covers=ratios[0].covers,
        ratios=len(ratios),
        cover_1=sum(ratio.low <= 1 <= ratio.high for ratio in ratios),
        spread=(quantile(values, 0.05), quantile(values, 0.5), quantile(values, 0.95)),
        median_half_width=stats.median([(ratio.high - ratio.low) / 2 for ratio in ratios]),
        smallest_difference=quantile([max(1 / ratio.low, ratio.high) - 1 for ratio in ratios], 0.95),
    )


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie, between neighbours in proportion."""
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def data(summaries: Sequence[Summary], facts: Mapping[str, Any]) -> dict[str, Any]:
    """JSON: the facts of the test, and a summary per kind of interval."""
    return {"self_test": {**facts, "summaries": [asdict(each) for each in summaries]}}


def render(summaries: Sequence[Summary], facts: Mapping[str, Any]) -> str:
    """The same for people, at most 80 columns."""
    named = ", ".join(facts["mechanisms"])
    lines = wrap(
        f"A against A on {facts['device']}: {named} at {facts['shape']}, {facts['comparisons']} comparisons of "
        f"{facts['budget_s']:g} s per case and process."
    )
    for each in summaries:
        low, middle, high = each.spread
        lines += [
            "",
            each.covers,
            f"  intervals that cover 1    {each.cover_1} of {each.ratios} (95 % wanted)",
            f"  ratios, 5 / 50 / 95 %     {low:.4f} / {middle:.4f} / {high:.4f}",
            f"  half-width, median        {each.median_half_width:.2%}",
            f"  smallest difference       {each.smallest_difference:.2%}",
        ]
    several = [each.covers for each in summaries if "processes" in each.covers]
    if several and (facts["replicates"] or 0) < 4:
        lines += [
            "",
            *wrap(
                f"{several[0]}: {facts['replicates'] - 1} d.o.f., so these intervals are wide; 5 processes or more narrow them."
            ),
        ]
    lines += ["", *wrap("smallest difference: one that 95 of 100 such comparisons would tell from none.")]
    remark = load_remark(max((each.smallest_difference for each in summaries), default=0.0), facts)
    if remark:
        lines += ["", *wrap(remark)]
    return "\n".join(lines) + "\n"


def load_remark(difference: float, facts: Mapping[str, Any]) -> str:
    """What the load of the machine has to do with a smallest difference above 5 %, or with any where other work was running.

    `facts["load"]`: {"before", "after"}: the load averages of a minute; this test itself adds up to 1 to the second.
    """
    before, after, cores = facts["load"]["before"], facts["load"]["after"], facts["cores"]
    if before is None or after is None:
        return "The load of this machine is not known: repeat it when nothing else runs." if difference > _COARSE else ""
    load = f"load {before:g} before, {after:g} after, on {cores} cores (the test itself adds up to 1)"
    if max(before, after - 1) > _BUSY * (cores or 1):
        return f"Other work was running: {load}. It widens these intervals: repeat the test when the machine is idle."
    if difference > _COARSE:
        return (
            f"No other work was seen: {load}; that of neighbours on a shared machine does not show in it. A longer --budget,"
            " or --replicates 5 or more, may tell smaller differences."
        )
    return ""
