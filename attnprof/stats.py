"""Statistics of latency samples: median, its interval, and the interval of a ratio of paired samples. Pure Python.

Source of the protocol: medians with order-statistic intervals (David & Nagaraja, Order Statistics, section 7.1); ratios as the
bootstrap interval of the median log ratio over rounds in which both members were timed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval, the number of pairs, and what the interval covers."""

    value: float
    low: float
    high: float
    pairs: int
    covers: str = "within one process"


def median(samples: Sequence[float]) -> float:
    """The middle value (mean of the two middle ones for an even count). Raises ValueError for no samples."""
    if not samples:
        raise ValueError("median of no samples")
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the median: the tightest symmetric pair of order statistics with that coverage.

    With fewer than six samples no pair reaches 95 %: the whole range is given.
    """
    ordered = sorted(samples)
    n = len(ordered)
    if n == 0:
        raise ValueError("interval of no samples")
    rank, tail = max(0, n // 2 - 10 * math.isqrt(n)), 0.0  # what is skipped below weighs less than 1e-80
    whole = math.lgamma(n + 1) - n * math.log(2)
    while rank < (n - 1) // 2:
        tail += math.exp(whole - math.lgamma(rank + 1) - math.lgamma(n - rank + 1))
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[n - 1 - rank]


def relative_half_width(samples: Sequence[float]) -> float:
    """Half the width of the median's interval over the median."""
    low, high = median_interval(samples)
    centre = median(samples)
    return (high - low) / 2 / centre if centre > 0 else math.inf


def paired_ratio(first: Sequence[float], second: Sequence[float], resamples: int = 1000, seed: int = 0) -> Ratio:
    """Median of first/second over pairs taken in the same round, with a bootstrap 95 % interval (seeded: repeatable)."""
    if len(first) != len(second) or not first:
        raise ValueError(f"pairs wanted, got {len(first)} and {len(second)} samples")
    logs = [math.log(a / b) for a, b in zip(first, second, strict=True)]
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(logs, k=len(logs))) for _ in range(resamples))
    low, high = medians[int(0.025 * resamples)], medians[min(int(0.975 * resamples), resamples - 1)]
    return Ratio(math.exp(median(logs)), math.exp(low), math.exp(high), len(logs))
