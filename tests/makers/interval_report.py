"""reports/interval_honesty.md from the rows of its csv, and from a seeded simulation. See `tests.makers.interval_honesty`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from attnprof import stats

Row = dict[str, str]
Interval = tuple[float, float]
AIMS = {
    "quiet": "at least 184 of 200 cover 1; median half-width at most 3 %",
    "busy": "at least 184 of 200 cover 1",
    "crowded": "at least 184 of 200 cover 1",
    "slow": "at least 90 of 100 leave 1 out",
    "slow_busy": "none set",
}
RESAMPLES = 1000
SIMULATED = 400
CORRELATIONS = (0.0, 0.3, 0.6)
LENGTHS = (10, 40, 100)


def logs_of(row: Row) -> list[float]:
    """The log ratios of a comparison, in the order of its rounds."""
    return [int(word) / 1e4 for word in row["logs"].split()]


def bootstrap(logs: Sequence[float], seed: int = 0) -> Interval:
    """The interval that the ratio had before: percentiles of the medians of rounds drawn anew, as if they were independent."""
    drawn = np.random.default_rng(seed).choice(np.asarray(logs), (RESAMPLES, len(logs)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def independent(logs: Sequence[float]) -> Interval:
    """Order statistics as if the rounds were independent."""
    return stats.median_interval(logs)


def product(logs: Sequence[float]) -> Interval:
    """The product's interval of the log ratio."""
    ratio = stats.paired_ratio([math.exp(log) for log in logs], [1.0] * len(logs))
    return math.log(ratio.low), math.log(ratio.high)


ESTIMATORS: dict[str, Callable[[Sequence[float]], Interval]] = {
    "bootstrap over rounds": bootstrap,
    "order statistics, rounds independent": independent,
    "attnprof": product,
}


def render(rows: Sequence[Row]) -> str:
    """The whole report."""
    parts = ["# Intervals of latency ratios: do they hold what they say?", _intro(rows)]
    for condition in AIMS:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            parts.append(_condition(condition, own))
    placed = [row for row in rows if row["condition"].startswith("placement ")]
    if placed:
        parts.append(_placement(placed))
    parts.append(_simulation())
    return "\n\n".join(parts) + "\n"


INTRO = """\
Made by `python -m tests.makers.interval_honesty` from the csv beside it, which has a row per comparison with its log ratios.

Every comparison is the product's own: a child process, two members, warm-up, interleaved rounds, the ratio and the 95 %
interval that `attnprof compare` prints for one process. A against A: `ccnet` at 1x64x33x33, float32, inference. Slowed: a
criss-cross block at 1x64x17x17 applied 11 times against 10 times, a tenth more of the same work by count (the ratio of
traced MACs stands below). Busy: two neighbours, bursts of 20 to 300 ms of arithmetic or of copying 64 MiB and pauses as long,
on two cores: each works about half of the time. Crowded: the same without pauses. Sampling takes 2 s per member (`compare`
takes 5 unless told)."""


def _intro(rows: Sequence[Row]) -> str:
    measured = [row for row in rows if row["cpu"]]
    threads = {f"{row['cpu']}, {row['cores']} cores, torch {row['torch']}, threads {row['threads']}" for row in measured}
    dates = sorted({row["date"] for row in measured})
    return f"{INTRO}\n\nMachine: {'; '.join(sorted(threads)) or 'not recorded'}. Date: {', '.join(dates) or 'not recorded'}."


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(rows)


def _quantiles(values: Sequence[float], text: str) -> str:
    """5th, 50th and 95th percentile."""
    return " / ".join(format(float(x), text) for x in np.quantile(np.asarray(values), [0.05, 0.5, 0.95]))


def _condition(condition: str, rows: Sequence[Row]) -> str:
    lows, highs = [float(row["low"]) for row in rows], [float(row["high"]) for row in rows]
    inside = sum(low <= 1 <= high for low, high in zip(lows, highs, strict=True))
    halves = [(high - low) / 2 for low, high in zip(lows, highs, strict=True)]
    slow = condition.startswith("slow")
    told = sum(low > 1 for low in lows)
    found = f"{told} of {len(rows)} intervals lie above 1" if slow else f"{inside} of {len(rows)} intervals cover 1"
    true = float(rows[0]["macs_ratio"])
    facts = [
        ("aim", AIMS[condition]),
        ("found", found),
        ("half-width, median", f"{statistics.median(halves):.2%}"),
        ("half-width, 5 / 50 / 95 %", _quantiles(halves, ".2%")),
        ("ratio, 5 / 50 / 95 %", _quantiles([float(row["ratio"]) for row in rows], ".4f")),
        ("ratio of traced MACs", f"{true:g}"),
        ("pairs, 5 / 50 / 95 %", _quantiles([float(row["pairs"]) for row in rows], ".0f")),
        ("latency of the first, median", f"{statistics.median(float(row['first_s']) for row in rows) * 1e3:.2f} ms"),
        ("rounds disturbed together: correlation time, 5 / 50 / 95 %", _quantiles([_time(row) for row in rows], ".2f")),
        ("processors not idle, 5 / 50 / 95 %", _quantiles([float(row["busy_share"]) for row in rows], ".0%")),
        ("seconds per comparison, median", f"{statistics.median(float(row['seconds']) for row in rows):.1f}"),
    ]
    if slow:
        covering = sum(low <= true <= high for low, high in zip(lows, highs, strict=True))
        facts.insert(2, (f"intervals that cover {true:g}", f"{covering} of {len(rows)}"))
    lines = []
    for name, estimator in ESTIMATORS.items():
        ends = [estimator(logs_of(row)) for row in rows]
        width = statistics.median((math.exp(high) - math.exp(low)) / 2 for low, high in ends)
        right = sum(low > 0 for low, _ in ends) if slow else sum(low <= 0 <= high for low, high in ends)
        lines.append([name, f"{right} of {len(rows)}", f"{width:.2%}"])
    verdict = "above 1" if slow else "cover 1"
    return "\n\n".join(
        [
            f"## {condition}",
            _table(["", ""], [list(fact) for fact in facts]),
            "From the same log ratios, rounded to 1e-4:",
            _table(["interval", verdict, "half-width, median"], lines),
        ]
    )


def _time(row: Row) -> float:
    return stats.correlation_time(logs_of(row))


PLACEMENT = """\
Does it matter where tensors lie? The product moves them before every sample. A process per row, two equal members in each,
their tensors left where they are (still), moved, or one member under two labels (shared), which no placement can tell apart.
A bias that lasts for a process shows as a larger spread of the medians than in `shared`, and as halves that correlate."""


def _placement(rows: Sequence[Row]) -> str:
    """What moving the tensors does, per arm."""
    lines = []
    for arm in ("still", "moved", "shared"):
        own = [logs_of(row) for row in rows if row["condition"] == f"placement {arm}"]
        if len(own) < 3:
            continue
        medians = [stats.median(logs) for logs in own]
        ends = [product(logs) for logs in own]
        halves = [(stats.median(logs[: len(logs) // 2]), stats.median(logs[len(logs) // 2 :])) for logs in own]
        between = statistics.correlation([a for a, _ in halves], [b for _, b in halves])
        covering = sum(low <= 0 <= high for low, high in ends)
        width = statistics.median((high - low) / 2 for low, high in ends)
        lines.append([arm, f"{covering} of {len(own)}", f"{statistics.stdev(medians):.2%}", f"{width:.2%}", f"{between:.2f}"])
    head = ["tensors", "intervals that cover 1", "sd of the medians", "half-width, median", "correlation of the halves"]
    return "\n\n".join(["## placement", PLACEMENT, _table(head, lines)])


def _simulation() -> str:
    """Share of intervals that cover the true median, noise as given: Student's t with 2 d.o.f., AR(1) over rounds."""
    rng = np.random.default_rng(0)
    lines = []
    for length in LENGTHS:
        for correlation in CORRELATIONS:
            covering = dict.fromkeys(ESTIMATORS, 0)
            for _ in range(SIMULATED):
                logs = _series(rng, length, correlation)
                for name, estimator in ESTIMATORS.items():
                    low, high = estimator(logs)
                    covering[name] += low <= 0 <= high
            shares = [f"{count / SIMULATED:.1%}" for count in covering.values()]
            lines.append([str(length), f"{correlation:g}", *shares])
    error = math.sqrt(0.95 * 0.05 / SIMULATED)
    text = (
        f"Share of {SIMULATED} intervals that cover the true median; a share of 95 % has a standard error of {error:.1%}. Noise"
        "\nwith heavy tails (Student's t, 2 d.o.f.), each value with the given part of the one before it."
    )
    return "\n\n".join(["## simulated", text, _table(["rounds", "correlation", *ESTIMATORS], lines)])


def _series(rng: np.random.Generator, length: int, correlation: float) -> list[float]:
    noise: NDArray[np.float64] = rng.standard_t(2, length + 50)
    out = [0.0]
    for value in noise:
        out.append(correlation * out[-1] + float(value))
    return out[-length:]
