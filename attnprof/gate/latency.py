"""Is head slower than base? Estimate and verdict of one point from what its pairs of processes sampled. Pure.

Each pair of processes gives one number, the median over its rounds of log(head / base): processes carry a bias of their own, so
that rounds of one process cannot tell how far its number may be off. Over K pairs: their mean and Student's interval with K - 1
degrees of freedom, bounded on one side at a time. REGRESSED where the lower bound is above 1 + tolerance, PASS where the upper
bound is below it, undecided otherwise; a regression stands only where a fresh measurement of its point finds it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from attnprof import stats

REGRESSED, PASSED, UNDECIDED = "regressed", "passed", "undecided"


@dataclass(frozen=True)
class Pairing:
    """Latencies of one pair of processes, round by round, in seconds."""

    base_s: tuple[float, ...]
    head_s: tuple[float, ...]

    @property
    def log_ratio(self) -> float:
        """Median over the rounds of log(head / base)."""
        return stats.median([math.log(head / base) for base, head in zip(self.base_s, self.head_s, strict=True)])

    @property
    def ratio(self) -> float:
        """The median of head / base."""
        return math.exp(self.log_ratio)


@dataclass(frozen=True)
class Rule:
    """tolerance: 0.05 lets head be 5 % slower. confidence: of each one-sided bound. Pairs of processes: from least to most."""

    tolerance: float = 0.05
    confidence: float = 0.95
    min_processes: int = 5
    max_processes: int = 15


@dataclass(frozen=True)
class Estimate:
    """head / base over pairs of processes. low, high: the one-sided bounds. Medians of the processes' medians in seconds."""

    ratio: float
    low: float
    high: float
    processes: int
    rounds: int
    base_s: float
    head_s: float


def estimate(pairings: Sequence[Pairing], confidence: float) -> Estimate | None:
    """The ratio over pairs of processes; None for fewer than two, which have no interval."""
    k = len(pairings)
    if k < 2:
        return None
    logs = [each.log_ratio for each in pairings]
    mean = math.fsum(logs) / k
    error = math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (k - 1) / k)
    reach = stats.t_quantile(k - 1, 2 * confidence - 1) * error
    return Estimate(
        ratio=math.exp(mean),
        low=math.exp(mean - reach),
        high=math.exp(mean + reach),
        processes=k,
        rounds=sum(len(each.base_s) for each in pairings),
        base_s=stats.median([stats.median(each.base_s) for each in pairings]),
        head_s=stats.median([stats.median(each.head_s) for each in pairings]),
    )


def decide(found: Estimate | None, rule: Rule) -> str:
    """REGRESSED, PASSED or UNDECIDED; never decided by fewer pairs than the rule's least number."""
    if found is None or found.processes < rule.min_processes:
        return UNDECIDED
    if found.low > 1 + rule.tolerance:
        return REGRESSED
    return PASSED if found.high < 1 + rule.tolerance else UNDECIDED
