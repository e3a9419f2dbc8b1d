"""What `doctor --aa` says: how far apart A and A seem, and the smallest difference that this machine can tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnprof import stats
from attnprof.report.text import wrap


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
    return "\n".join(lines) + "\n"
