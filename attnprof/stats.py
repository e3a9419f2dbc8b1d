"""Statistics of latency samples: median, its interval, and the interval of a ratio of paired samples. Pure Python.

Source of the protocol: medians with order-statistic intervals (David & Nagaraja, Order Statistics, section 7.1); ratios as the
median log ratio over rounds in which both members were timed, with an interval of the same kind that allows for rounds that
are disturbed together; over several processes the t-interval over their medians. What these cover on a real machine, and
what a bootstrap over rounds would, is shown in reports/interval_honesty.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WITHIN_ONE = "within one process"


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval, the number of pairs, what the interval covers, and over how many processes."""

    value: float
    low: float
    high: float
    pairs: int
    covers: str = WITHIN_ONE
    processes: int = 1


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
    rank = _left_out(n, confidence)
    return ordered[rank], ordered[n - 1 - rank]


def _left_out(n: int, confidence: float) -> int:
    """How many of n order statistics may be left out on either side, the rest still covering the median."""
    rank, tail = max(0, n // 2 - 10 * math.isqrt(n)), 0.0  # what is skipped below weighs less than 1e-80
    whole = math.lgamma(n + 1) - n * math.log(2)
    while rank < (n - 1) // 2:
        tail += math.exp(whole - math.lgamma(rank + 1) - math.lgamma(n - rank + 1))
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    return max(rank - 1, 0)


def relative_half_width(samples: Sequence[float]) -> float:
    """Half the width of the median's interval over the median."""
    low, high = median_interval(samples)
    centre = median(samples)
    return (high - low) / 2 / centre if centre > 0 else math.inf


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Median of first/second over pairs taken in the same round, with its 95 % interval.

    The interval is the pair of order statistics of the log ratios that encloses the median, its ranks moved outwards by the
    square root of `correlation_time` (between two ranks in proportion): neighbours that come and go disturb several rounds
    alike, and an interval for independent rounds (a bootstrap over rounds is one too) is then too narrow.

    95 % is what it covers where the rounds are independent or nearly so, whatever their distribution. Where a disturbance lasts
    for a good part of them it covers less, since no interval within the range of so few independent values could. Simulated,
    the share of 1000 intervals that cover (normal unless said otherwise; AR(p): each round carries p of the one before):

        rounds                                     10     20     40     70    200
        independent: normal, Cauchy, skewed   .98-.99    .97    .98    .97    .97
        AR(0.3)                                   .97    .96    .95    .96    .95
        AR(0.6)                                   .91    .91    .92    .94    .95
        AR(0.9)                                   .62    .68    .78    .84    .91
        two levels, 5 % of rounds switch          .35    .45    .55    .64    .78
        ten rounds at a time shifted alike        .33    .73    .88    .93    .95

    The remedy is not a wider interval (the whole range of 10 rounds of AR(0.9) covers .60) but more rounds, or processes.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"pairs wanted, got {len(first)} and {len(second)} samples")
    logs = [math.log(a / b) for a, b in zip(first, second, strict=True)]
    centre, ordered, n = median(logs), sorted(logs), len(logs)
    reach = (n - 1) / 2 - _left_out(n, 0.95)
    rank = max((n - 1) / 2 - reach * math.sqrt(correlation_time(logs)), 0.0)
    below, part = int(rank), rank % 1
    low = ordered[below] + part * (ordered[min(below + 1, n - 1)] - ordered[below])
    high = ordered[n - 1 - below] - part * (ordered[n - 1 - below] - ordered[max(n - 2 - below, 0)])
    return Ratio(math.exp(centre), math.exp(low), math.exp(high), n)


def correlation_time(series: Sequence[float]) -> float:
    """How many successive values tell as much about the median as one independent value would; 1 for independent ones.

    1 + 2 x the sum of the autocorrelations of the values' signs about their median, to the first pair of lags that adds
    nothing (Geyer 1992, initial positive sequence), each raised by 1/n, its bias. Never below 1.
    """
    n, centre = len(series), median(series)
    signs = [(value > centre) - (value < centre) for value in series]
    power = sum(map(abs, signs))
    if not power:
        return 1.0

    def correlation(lag: int) -> float:
        return sum(a * b for a, b in zip(signs, signs[lag:], strict=False)) / power + 1 / n

    total = 1 + correlation(1)
    lag = 2
    while lag + 1 < n // 2:
        more = correlation(lag) + correlation(lag + 1)
        if more <= 0:
            break
        total, lag = total + more, lag + 2
    return max(2 * total - 1, 1.0)


def ratio_over_processes(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float = 0.95) -> Ratio:
    """Ratio of paired samples from one process or several: (samples of the first, samples of the second) of each.

    One: `paired_ratio`. Several: the mean of the processes' median log ratios with the t-interval over them (one degree of
    freedom less than there are processes): it covers what varies from process to process as well, with that `confidence`.
    Raises ValueError for none.
    """
    found = [paired_ratio(first, second) for first, second in pairs]
    if not found:
        raise ValueError("ratio over no processes")
    if len(found) == 1:
        return found[0]
    value, low, high = (math.exp(x) for x in mean_interval([math.log(ratio.value) for ratio in found], confidence))
    return Ratio(value, low, high, sum(ratio.pairs for ratio in found), f"over {len(found)} processes", len(found))


def median_over_processes(samples: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """(median of the processes' medians, low, high): the t-interval over their logarithms, widened to hold the median."""
    medians = [median(own) for own in samples]
    value = median(medians)
    if len(medians) < 2 or min(medians) <= 0:
        return value, min(medians), max(medians)
    _, low, high = mean_interval([math.log(each) for each in medians])
    return value, min(math.exp(low), value), max(math.exp(high), value)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high): Student's interval with n - 1 degrees of freedom. Raises ValueError for fewer than two values."""
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over processes wants two or more, got {n}")
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = t_quantile(n - 1, confidence) * error
    return mean, mean - reach, mean + reach


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t that Student's distribution stays within, on both sides, with this probability (12.71 at one degree of freedom).

    By halving the closed form of the distribution for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4).
    """
    if freedom < 1:
        raise ValueError(f"degrees of freedom: a whole number from 1, not {freedom}")
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(freedom))
    while high - low > 1e-14:
        middle = (low + high) / 2
        if _within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= t) for t = tan(angle) * sqrt(freedom)."""
    square, odd = math.cos(angle) ** 2, freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term, total = (math.cos(angle), math.cos(angle)) if odd else (1.0, 1.0)
    for k in range(2 + odd, freedom, 2):
        term *= square * (k - 1) / k
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
