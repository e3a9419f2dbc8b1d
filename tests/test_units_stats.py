"""Units and statistics: numbers worked out by hand, and properties that hold for any samples."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprof import stats, units

LATENCIES = st.floats(1e-9, 1e3)
SAMPLES = st.lists(LATENCIES, min_size=1, max_size=60)


# --- units


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (units.format_bytes, 0, "0 B"),
        (units.format_bytes, 1023, "1023 B"),
        (units.format_bytes, 1024, "1.00 KiB"),
        (units.format_bytes, 1536, "1.50 KiB"),
        (units.format_bytes, 2**20 - 1, "1.00 MiB"),
        (units.format_bytes, 361 * 2**20, "361 MiB"),
        (units.format_bytes, 5 * 2**70, "5120 EiB"),
        (units.format_bytes, -2048, "-2.00 KiB"),
        (units.format_count, 0, "0"),
        (units.format_count, 999, "999"),
        (units.format_count, 999.99, "1.000 K"),
        (units.format_count, 0.5, "0.5"),
        (units.format_count, 8_269_080_832, "8.269 G"),
        (units.format_count, 999_999_999, "1.000 G"),
        (units.format_count, 12_345_678, "12.35 M"),
        (units.format_count, -1500, "-1.500 K"),
        (units.format_seconds, 0, "0 ns"),
        (units.format_seconds, 12.3456, "12.3 s"),
        (units.format_seconds, 0.01234, "12.3 ms"),
        (units.format_seconds, 0.0009999, "1.00 ms"),
        (units.format_seconds, 4.2e-6, "4.20 us"),
        (units.format_seconds, 2.5e-10, "0.25 ns"),
        (units.format_ratio, 6.5412, "6.54"),
        (units.format_ratio, 0.1529, "0.153"),
        (units.format_ratio, 0.99999, "1.00"),
        (units.format_ratio, 9.999, "10.0"),
        (units.format_ratio, 1234.5, "1234"),
        (units.format_ratio, 0.0000123, "0.0000123"),
        (units.format_ratio, math.inf, "inf"),
        (units.format_ratio, 0, "0"),
    ],
)
def test_scaled_numbers(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text


@given(st.floats(1e-6, 1e15))
def test_a_ratio_reads_back_within_three_digits(value: float) -> None:
    text = units.format_ratio(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.0051)


BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
COUNTS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@given(st.integers(0, 2**69))
def test_bytes_read_back_and_use_the_largest_unit(value: int) -> None:
    number, unit = units.format_bytes(value).split(" ")
    assert float(number) * BYTES[unit] == pytest.approx(value, rel=0.0051)
    assert float(number) < 1024
    assert unit == "B" or float(number) >= 1


@given(st.integers(0, 10**20))
def test_counts_read_back_and_use_the_largest_prefix(value: int) -> None:
    number, _, prefix = units.format_count(value).partition(" ")
    assert float(number) * COUNTS[prefix] == pytest.approx(value, rel=0.00051)
    assert float(number) < 1000
    assert not prefix or float(number) >= 1


@given(st.floats(1e-9, 999))
def test_seconds_read_back_and_use_the_largest_unit(value: float) -> None:
    number, unit = units.format_seconds(value).split(" ")
    assert float(number) * SECONDS[unit] == pytest.approx(value, rel=0.0051)
    assert 1 <= float(number) < 1000


# --- median


def test_median_by_hand() -> None:
    assert stats.median([3.0, 1.0, 2.0]) == 2.0
    assert stats.median([4.0, 1.0, 3.0, 2.0]) == 2.5
    assert stats.median([7.0]) == 7.0
    with pytest.raises(ValueError, match="no samples"):
        stats.median([])


@given(SAMPLES)
def test_median_is_that_of_the_standard_library(samples: list[float]) -> None:
    assert stats.median(samples) == statistics.median(samples)


@pytest.mark.parametrize(
    ("n", "low"),
    # the largest r for which [x(r), x(n+1-r)] covers the median with 95 %: David & Nagaraja's table, 1 - 2 P(Bin(n, 1/2) < r)
    [(6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (20, 6), (25, 8), (30, 10), (50, 18), (100, 40)],
)
def test_the_interval_takes_the_ranks_of_the_table(n: int, low: int) -> None:
    samples = [float(rank) for rank in range(n, 0, -1)]
    assert stats.median_interval(samples) == (float(low), float(n + 1 - low))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_few_samples_give_the_whole_range(n: int) -> None:
    assert stats.median_interval([float(rank) for rank in range(n)]) == (0.0, float(n - 1))


def coverage(n: int, rank: int) -> Fraction:
    """Exact probability that the order statistics with `rank` values left out on either side enclose the median."""
    return 1 - 2 * sum((Fraction(math.comb(n, k), 2**n) for k in range(rank + 1)), Fraction(0))


@given(st.integers(6, 700), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_the_tightest_that_covers(n: int, confidence: float) -> None:
    low, high = stats.median_interval([float(rank) for rank in range(n)], confidence)
    left_out = int(low)
    assert high == n - 1 - left_out
    assert left_out == 0 or coverage(n, left_out) >= confidence
    assert coverage(n, left_out + 1) < confidence


def test_many_samples_take_no_time() -> None:
    n = 100_000
    start = time.perf_counter()
    low, high = stats.median_interval(range(n))
    assert time.perf_counter() - start < 2
    assert low == pytest.approx(n / 2 - 0.98 * math.sqrt(n), abs=2)  # 1.96 standard deviations of Bin(n, 1/2)
    assert high == n - 1 - low


@given(SAMPLES)
def test_the_interval_encloses_the_median_and_scales(samples: list[float]) -> None:
    low, high = stats.median_interval(samples)
    assert min(samples) <= low <= stats.median(samples) <= high <= max(samples)
    assert stats.median_interval([2 * sample for sample in samples]) == (2 * low, 2 * high)
    assert stats.median_interval(list(reversed(samples))) == (low, high)


def test_no_samples_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no samples"):
        stats.median_interval([])


def test_relative_half_width_by_hand() -> None:
    assert stats.relative_half_width([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((5 - 1) / 2 / 3)
    assert stats.relative_half_width([2.0] * 9) == 0.0
    assert stats.relative_half_width([0.0, 0.0]) == math.inf


# --- ratio of pairs


def test_ratio_by_hand() -> None:
    ratio = stats.paired_ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert (ratio.pairs, ratio.covers) == (3, "within one process")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 3.0))


@given(st.lists(st.tuples(LATENCIES, LATENCIES), min_size=1, max_size=12))
def test_the_ratio_turned_round_is_its_inverse(pairs: list[tuple[float, float]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    ratio, turned = stats.paired_ratio(first, second), stats.paired_ratio(second, first)
    assert ratio.value * turned.value == pytest.approx(1.0)
    assert ratio.low * turned.high == pytest.approx(1.0)
    ratios = [a / b for a, b in pairs]
    for interval in (ratio, turned):
        assert interval.low <= interval.value <= interval.high
    assert min(ratios) * (1 - 1e-9) <= ratio.low
    assert ratio.high <= max(ratios) * (1 + 1e-9)


@given(st.lists(LATENCIES, min_size=1, max_size=20), st.floats(0.1, 10))
def test_a_constant_factor_has_no_width(samples: list[float], factor: float) -> None:
    ratio = stats.paired_ratio([factor * sample for sample in samples], samples)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((factor, factor, factor))


def test_the_interval_of_a_ratio_is_that_of_the_median_where_rounds_alternate() -> None:
    """Neighbouring rounds on opposite sides of the median: nothing that was disturbed together."""
    logs = [0.01 * rank * (-1) ** rank for rank in range(1, 42)]
    ratio = stats.paired_ratio([math.exp(log) for log in logs], [1.0] * 41)
    assert stats.correlation_time(logs) == 1.0
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx(stats.median_interval(logs))


def test_the_interval_of_a_ratio_widens_where_rounds_are_disturbed_together() -> None:
    """The same values, in runs of ten on one side of the median instead of alternating."""
    apart = [0.01 * rank * (-1) ** rank for rank in range(1, 101)]
    low, high = sorted(apart)[:50], sorted(apart)[50:]
    together = [log for start in range(0, 50, 10) for log in (*low[start : start + 10], *high[start : start + 10])]
    assert stats.correlation_time(together) > 3
    first, second = (stats.paired_ratio([math.exp(log) for log in logs], [1.0] * 100) for logs in (apart, together))
    assert first.value == pytest.approx(second.value)
    assert second.low < first.low < first.high < second.high


@pytest.mark.parametrize("turned", [False, True])
def test_the_ranks_move_out_by_the_square_root_of_the_correlation_time(turned: bool) -> None:
    """96 equidistant values in runs of three on one side of the median: correlation 33/96 at lag 1, the next ones negative."""
    low, high = [float(rank) for rank in range(48)], [float(rank) for rank in range(48, 96)]
    sides = (high, low) if turned else (low, high)
    together = [value / 1000 for start in range(0, 48, 3) for side in sides for value in side[start : start + 3]]
    assert stats.correlation_time(together) == pytest.approx(1 + 2 * (33 + 1) / 96)
    ratio = stats.paired_ratio([math.exp(log) for log in together], [1.0] * 96)
    reach = 47.5 - 37  # ranks 38 and 59 of 96 enclose the median with 95 %, where rounds are independent
    assert coverage(96, 37) >= 0.95 > coverage(96, 38)
    wider = reach * math.sqrt(1 + 68 / 96)
    assert (math.log(ratio.low) * 1000, math.log(ratio.high) * 1000) == pytest.approx((47.5 - wider, 47.5 + wider))
    assert math.log(ratio.value) * 1000 == pytest.approx(47.5)


def test_the_interval_ends_at_the_range() -> None:
    """Two runs of four: the ranks would move beyond the ends."""
    ratio = stats.paired_ratio([math.exp(log) for log in range(1, 9)], [1.0] * 8)
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx((1, 8))


def simulated_coverage(correlation: float, rounds: int, repeats: int) -> float:
    """Share of seeded comparisons with normal noise, each round carrying `correlation` of the one before, that cover 1."""
    rng, covering = random.Random(11), 0
    for _ in range(repeats):
        latest, logs = rng.gauss(0, 1) / math.sqrt(1 - correlation**2), []
        for _ in range(rounds):
            latest = correlation * latest + rng.gauss(0, 1)
            logs.append(0.01 * latest)
        ratio = stats.paired_ratio([math.exp(log) for log in logs], [1.0] * rounds)
        covering += ratio.low <= 1 <= ratio.high
    return covering / repeats


@pytest.mark.parametrize(
    ("correlation", "rounds", "said"),
    [(0.0, 10, 0.98), (0.0, 70, 0.97), (0.3, 70, 0.96), (0.6, 10, 0.91), (0.6, 70, 0.94), (0.9, 20, 0.68), (0.9, 70, 0.84)],
)
def test_coverage_is_what_the_docstring_says(correlation: float, rounds: int, said: float) -> None:
    """Also where that is less than 95 %: 500 comparisons, three standard errors."""
    slack = 3 * math.sqrt(said * (1 - said) / 500)
    assert simulated_coverage(correlation, rounds, 500) == pytest.approx(said, abs=slack)


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_the_interval_of_a_ratio_covers_as_it_says(correlation: float) -> None:
    """Simulated, seeded: 300 comparisons of 60 rounds with heavy-tailed noise, each 95 % interval against the true ratio."""
    rng = random.Random(7)
    covering = 0
    for _ in range(300):
        logs, latest = [], 0.0
        for _ in range(60):
            latest = correlation * latest + 0.02 * rng.gauss(0, 1) / math.sqrt(rng.uniform(0.05, 1))
            logs.append(latest)
        ratio = stats.paired_ratio([1.1 * math.exp(log) for log in logs], [1.0] * 60)
        covering += ratio.low <= 1.1 <= ratio.high
    assert covering >= 0.93 * 300


def test_correlation_time_by_hand() -> None:
    assert stats.correlation_time([1.0, 1.0, 1.0]) == 1.0, "no spread: nothing to correlate"
    assert stats.correlation_time([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]) == 1.0
    # two runs of four: correlations 5/8, 2/8 and -1/8 at lags 1 to 3, each raised by 1/8: 1 + 2 (6 + 3 + 0) / 8
    assert stats.correlation_time([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == 1 + 2 * (6 + 3 + 0) / 8


# --- over processes


@pytest.mark.parametrize(
    ("freedom", "t"),  # any table of Student's distribution, two-sided 95 %
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (14, 2.1448), (30, 2.0423), (99, 1.9842)],
)
def test_student(freedom: int, t: float) -> None:
    assert stats.t_quantile(freedom) == pytest.approx(t, abs=5e-5)


def test_student_at_another_confidence() -> None:
    assert stats.t_quantile(4, 0.9) == pytest.approx(2.1318, abs=5e-5)
    with pytest.raises(ValueError, match="degrees of freedom"):
        stats.t_quantile(0)


def test_the_interval_over_processes_by_hand() -> None:
    mean, low, high = stats.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert (high - mean, mean - low) == pytest.approx((4.302653 / math.sqrt(3), 4.302653 / math.sqrt(3)))
    with pytest.raises(ValueError, match="two or more, got 1"):
        stats.mean_interval([1.0])


def test_the_ratio_over_processes_is_of_their_medians() -> None:
    """Three processes with ratios 1, 2 and 4: the geometric mean, and a t-interval over three logarithms."""
    ratio = stats.ratio_over_processes([([2.0] * 9, [2.0] * 9), ([2.0] * 9, [1.0] * 9), ([8.0] * 30, [2.0] * 30)])
    reach = 4.302653 * math.log(2) / math.sqrt(3)
    assert ratio.value == pytest.approx(2.0)
    assert (ratio.low, ratio.high) == pytest.approx((2 / math.exp(reach), 2 * math.exp(reach)), rel=1e-5)
    assert (ratio.pairs, ratio.processes, ratio.covers) == (48, 3, "over 3 processes")


def test_the_ratio_over_one_process_is_that_within_it() -> None:
    pairs = ([1.0, 2.0, 4.0, 3.0], [1.0, 1.0, 1.0, 1.0])
    assert stats.ratio_over_processes([pairs]) == stats.paired_ratio(*pairs)
    with pytest.raises(ValueError, match="no processes"):
        stats.ratio_over_processes([])


def test_a_latency_over_processes_is_the_median_of_medians() -> None:
    value, low, high = stats.median_over_processes([[1.0, 1.0, 9.0], [2.0], [4.0, 4.0]])
    assert value == 2.0
    reach = 4.302653 * math.log(2) / math.sqrt(3)
    assert (low, high) == pytest.approx((2 / math.exp(reach), 2 * math.exp(reach)), rel=1e-5)


@given(st.lists(st.lists(LATENCIES, min_size=1, max_size=5), min_size=2, max_size=9))
def test_the_interval_over_processes_holds_the_value(samples: list[list[float]]) -> None:
    value, low, high = stats.median_over_processes(samples)
    assert 0 <= low <= value <= high


def test_the_interval_of_a_ratio_repeats_and_covers() -> None:
    second = [1.0 + 0.01 * (rank % 7) for rank in range(40)]
    first = [2.0 * sample * (1.0 + 0.02 * (rank % 5 - 2)) for rank, sample in enumerate(second)]
    ratio = stats.paired_ratio(first, second)
    assert ratio == stats.paired_ratio(first, second)
    assert ratio.low <= 2.0 <= ratio.high
    assert ratio.high - ratio.low < 0.2


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_samples_that_are_no_pairs_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="pairs wanted"):
        stats.paired_ratio(first, second)
