"""Exponents p of cost ~ N**p from a few sizes: the fit, what the readings' intervals leave of it, and when there is none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnprof.report.metrics import Metric

if TYPE_CHECKING:
    from attnprof.report.charts.data import Line, Point

LEAST_SIZES = 3  # of a measured cost with an exponent


def exponent(points: Sequence[Point]) -> float | None:
    """The slope of log(value) over log(N), least squares; None with fewer than two sizes."""
    if sizes_of(points) < 2:
        return None
    slope = statistics.linear_regression(
        [math.log(point.n) for point in points], [math.log(point.reading.value) for point in points]
    ).slope
    return 0.0 if abs(slope) < 1e-9 else slope


def exponent_ends(points: Sequence[Point]) -> tuple[float, float] | None:
    """The least and the largest slope with every value inside its interval; None where a reading has none, or one down to 0.

    The slope is a weighted sum of the logarithms of the values, so that each end is that of all intervals' ends.
    """
    logs = [math.log(point.n) for point in points]
    middle = statistics.fmean(logs)
    spread = sum((each - middle) ** 2 for each in logs)
    weights = [(each - middle) / spread for each in logs]
    ends = [0.0, 0.0]
    for point, weight in zip(points, weights, strict=True):
        low, high = point.reading.low, point.reading.high
        if not low or not high:
            return None
        for i, value in enumerate((low, high) if weight > 0 else (high, low)):
            ends[i] += weight * math.log(value)
    return ends[0], ends[1]


def sizes_of(points: Sequence[Point]) -> int:
    """At how many sizes the points are."""
    return len({point.n for point in points})


def few_for(metric: Metric, points: Sequence[Point]) -> bool:
    """Whether a measured cost has too few sizes for an exponent: two noisy values give one that nothing checks."""
    return not metric.traced and sizes_of(points) < LEAST_SIZES


def exponent_text(line: Line, metric: Metric) -> str:
    """'1.983' of a count; '1.9 [1.7, 2.2]' of what was measured; '-' without one, with the reason where that is the sizes."""
    if line.exponent is None:
        return f"- (below {LEAST_SIZES} sizes)" if few_for(metric, line.points) else "-"
    if metric.traced:
        return f"{line.exponent:.3f}"
    ends = "" if line.ends is None else f" [{_two_digits(line.ends[0])}, {_two_digits(line.ends[1])}]"
    return _two_digits(line.exponent) + ends


def _two_digits(value: float) -> str:
    """'1.9', '0.93', '-0.04': two digits at most, none beyond the second decimal."""
    text = f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2f}"
    return text.lstrip("-") if not float(text) else text


def short_exponent(line: Line, metric: Metric) -> str:
    """'1.95' of a count, '1.9' of what was measured. The line has an exponent."""
    assert line.exponent is not None
    return f"{line.exponent:.2f}" if metric.traced else _two_digits(line.exponent)
