"""From readings to the text of a column: fixed decimals, intervals, and which cells are best.

Digits follow the interval: the last one shown is not below a tenth of the half-width, two to four significant; without
an interval three significant digits. A column takes the (lower) median of what its cells ask for; a value that this would
show with fewer than two significant digits keeps two of its own, one from a thousand on has no decimals, and one below a
thousandth of the column's unit reads '<0.001', so that nothing small reads as zero. CSV and JSON keep the raw values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from attnprof import units
from attnprof.report.metrics import Reading

_MOST_DECIMALS = 6
_SMALLEST = 1e-3
_SKEW = 1.5


def half_width(reading: Reading) -> float | None:
    """The larger side of the interval; None without one."""
    if reading.low is None or reading.high is None:
        return None
    return max(reading.value - reading.low, reading.high - reading.value)


def decimals(readings: Sequence[Reading], divisor: float) -> int:
    """Decimals for a column of these readings, shown divided by `divisor`."""
    wanted = []
    for reading in readings:
        value = abs(reading.value) / divisor
        if value == 0 or not math.isfinite(value):
            continue
        whole = math.floor(math.log10(value)) + 1
        half, significant = (half_width(reading) or 0) / divisor, 3
        if 0 < half < math.inf:
            significant = min(max(math.floor(1 - math.log10(half)) + whole, 2), 4)
        wanted.append(min(max(significant - whole, 0), _MOST_DECIMALS))
    return sorted(wanted)[(len(wanted) - 1) // 2] if wanted else 0


def number(value: float, places: int) -> str:
    """`value` >= 0 with `places` decimals, none from a thousand on, two significant digits where that would leave fewer.

    An exact zero is '0'; what is smaller than a thousandth is '<0.001'; what is no number, or has no end, reads so.
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if value < _SMALLEST:
        return f"<{_SMALLEST}"
    if float(f"{value:.{places}f}") >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(places, 1 - math.floor(math.log10(value)))}f}"


def delta_text(delta: float, places: int, divisor: float, exact: bool = True) -> str:
    """A signed difference: '+1.25', '-0.30', '-<0.001'; a zero is '0'. One that is not exact has no more than `places`."""
    sign, size = "+" if delta > 0 else "-" if delta < 0 else "", abs(delta) / divisor
    if exact or size == 0:
        return sign + number(size, places)
    text = f"{size:.{places}f}"
    return sign + (text if float(text) else f"<{10**-places:.{places}f}")


def signed(delta: float, kind: str) -> str:
    """A signed difference with a unit of its own: '+2.515 M', '-3.1 MiB', '+86'; a zero is '0'."""
    forms = {"bytes": units.format_bytes, "seconds": units.format_seconds}
    text = forms.get(kind, units.format_count)(abs(delta))
    return "0" if delta == 0 else ("+" if delta > 0 else "-") + text


def value_text(reading: Reading, places: int, divisor: float) -> str:
    """'12.41'; with an interval '12.41 ± 0.08', or '12.41 [12.38, 12.60]' where one side is over 1.5 times the other."""
    text = number(reading.value / divisor, places)
    half = half_width(reading)
    if half is None or text.startswith("<"):
        return text
    shown = len(text.partition(".")[2])
    if _skewed(reading) and half / divisor >= 10**-shown:
        low, high = (f"{end / divisor:.{shown}f}" for end in (reading.low, reading.high) if end is not None)
        return f"{text} [{low}, {high}]"
    margin = f"{half / divisor:.{shown}f}"
    if half > 0 and float(margin) == 0:
        margin = f"<{10**-shown:.{shown}f}"
    return f"{text} ± {margin}"


def _skewed(reading: Reading) -> bool:
    """Whether one side of the interval is so much longer that a single ± would misstate the other."""
    if reading.low is None or reading.high is None:
        return False
    shorter, longer = sorted((reading.value - reading.low, reading.high - reading.value))
    return longer > _SKEW * shorter


Worse = Callable[[int, int], bool | None]  # (best, other) -> whether the other is worse; None where that is not known


def ranks(
    readings: Sequence[Reading | None], higher_is_better: bool, highlight: str = "significant", worse: Worse | None = None
) -> list[int]:
    """1 for the best and for all that are not told from it, 2 for the next such set, else 0.

    `worse` tells two apart, by their indices; where it does not know, or is not there, intervals that do not meet do.
    `highlight` "best" asks neither, "none" ranks nothing. Judged on unrounded values. One value alone is not the best of
    anything, and a second is named among three or more.
    """
    out = [0] * len(readings)
    if highlight == "none":
        return out
    left = [(i, reading) for i, reading in enumerate(readings) if reading is not None]
    if highlight == "best":
        left, worse = [(i, Reading(reading.value)) for i, reading in left], None
    count = len(left)
    for rank, fewest in ((1, 2), (2, 3)):
        if not left or count < fewest:
            break
        first, best = (max if higher_is_better else min)(left, key=lambda item: item[1].value)
        tied = set()
        for i, reading in left:
            told = worse(first, i) if worse is not None else None
            tied |= {i} if (_meet(best, reading) if told is None else not told) else set()
        for i in tied:
            out[i] = rank
        left = [(i, reading) for i, reading in left if i not in tied]
    return out


def _meet(a: Reading, b: Reading) -> bool:
    a_low, a_high = (a.value, a.value) if a.low is None or a.high is None else (a.low, a.high)
    b_low, b_high = (b.value, b.value) if b.low is None or b.high is None else (b.low, b.high)
    return a_low <= b_high and b_low <= a_high


def ratio_text(value: float, low: float | None, high: float | None) -> str:
    """'0.32', or '0.32 [0.31, 0.33]' where the interval has a width."""
    text = factor_text(value)
    if low is None or high is None or math.isclose(low, high):
        return text
    return f"{text} [{factor_text(low)}, {factor_text(high)}]"


def factor_text(value: float) -> str:
    """Three significant digits, with an exponent from a hundred thousand on and below a ten-thousandth."""
    return f"{value:.2e}" if value >= 1e5 or 0 < value < 1e-4 else units.format_ratio(value)
