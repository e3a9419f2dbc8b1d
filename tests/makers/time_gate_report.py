"""reports/time_gate_honesty.md from the rows of its csv. See `tests.makers.time_gate_honesty`."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from tests.makers.interval_report import Row, _quantiles, _table

AIMS = {
    "same": ("regressed", "0 of 50 regressed"),
    "slow": ("regressed", "at least 45 of 50 regressed"),
    "slow_busy": ("regressed", "none set"),
}
TOLERANCE = 0.05

INTRO = """\
Made by `python -m tests.makers.time_gate_honesty` from the csv beside it, which has a row per gate with the ratio of every pair
of processes.

Every gate is the product's own, with its defaults (tolerance 5 %, 95 % one-sided bounds, 5 to 15 pairs of processes of which
each samples for 2 s, every regression confirmed by fresh processes): a scratch repository, the last commit as the base, the
working tree as head. The module is a 3x3 convolution of 16 channels at 1x16x32x32, applied 30 times in a row.
same: head differs by a comment, and a neighbour burns CPU and memory bandwidth without a pause.
slow: head applies it 33 times, a tenth more of the same work, without that neighbour. slow_busy: that beside it. What else ran
on the machine shows in the share of its processors that was not idle; a gate alone keeps about 70 % of two busy.
Other work ran beside most of the gates on record; from gate 32 of `slow` on the experiment had a higher priority (nice -15).

Before the children of a pair kept what memory their heaps once had, a pair sampling for 0.8 s, the same machine gave a standard
deviation of 6.0 % between pairs in 18 gates of `same`, and two of four gates of `slow` were undecided."""


def ratios_of(row: Row, name: str = "ratios") -> list[float]:
    """head / base of every pair of processes."""
    return [float(word) for word in row[name].split()]


def render(rows: Sequence[Row]) -> str:
    """The whole report."""
    parts = ["# The time gate: does it cry wolf, and does it see a tenth?", f"{INTRO}\n\n{_machine(rows)}", _summary(rows)]
    for condition in AIMS:
        own = [row for row in rows if row["condition"] == condition]
        if own:
            parts.append(_condition(condition, own))
    return "\n\n".join(parts) + "\n"


def _machine(rows: Sequence[Row]) -> str:
    found = sorted({f"{row['cpu']}, {row['cores']} cores, torch {row['torch']}" for row in rows if row["cpu"]})
    dates = sorted({row["date"] for row in rows})
    codes = sorted({row["code"] for row in rows})
    return (
        f"Machine: {'; '.join(found) or 'not recorded'}. Date: {', '.join(dates) or 'not recorded'}. "
        f"Code (digest of the files that measure and decide): {', '.join(codes) or 'not recorded'}."
    )


def _summary(rows: Sequence[Row]) -> str:
    lines = []
    for condition, (outcome, aim) in AIMS.items():
        own = [row for row in rows if row["condition"] == condition]
        if own:
            lines.append([condition, aim, f"{sum(row['outcome'] == outcome for row in own)} of {len(own)} {outcome}"])
    return _table(["condition", "aim", "found"], lines)


def naive(rows: Sequence[Row]) -> dict[str, int]:
    """How many of the gates other rules would have called regressed, from the same samples."""
    first = [ratios_of(row) for row in rows]
    return {
        "the ratio of one pair of processes above 1.05": sum(ratios[0] > 1 + TOLERANCE for ratios in first),
        "the mean over five pairs above 1.05": sum(_mean(ratios[:5]) > 1 + TOLERANCE for ratios in first),
        "this gate, without confirming": sum(float(row["low"]) > 1 + TOLERANCE for row in rows),
    }


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def _condition(condition: str, rows: Sequence[Row]) -> str:
    verdicts = Counter(f"{row['outcome']} ({row['reason']})" for row in rows)
    all_of_them, rows = len(rows), [row for row in rows if row["ratio"]]
    spreads = [statistics.stdev(map(math.log, ratios_of(row))) for row in rows]
    again = [row for row in rows if row["again"]]
    pairs = [len(ratios_of(row)) + len(row["again_ratios"].split()) for row in rows]
    facts = [
        ("outcomes", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())),
        ("ratio, 5 / 50 / 95 %", _quantiles([float(row["ratio"]) for row in rows], ".4f")),
        ("lower bound, 5 / 50 / 95 %", _quantiles([float(row["low"]) for row in rows], ".4f")),
        ("upper bound, 5 / 50 / 95 %", _quantiles([float(row["high"]) for row in rows], ".4f")),
        ("sd between pairs of processes, 5 / 50 / 95 %", _quantiles(spreads, ".2%")),
        ("pairs of processes per gate, 5 / 50 / 95 %", _quantiles([float(count) for count in pairs], ".0f")),
        ("measured again", f"{len(again)} of {all_of_them}"),
        ("latency of the base, median", f"{statistics.median(float(row['base_s']) for row in rows) * 1e3:.2f} ms"),
        ("processors not idle, 5 / 50 / 95 %", _quantiles([float(row["busy_share"]) for row in rows], ".0%")),
        ("seconds per gate, 5 / 50 / 95 %", _quantiles([float(row["seconds"]) for row in rows], ".0f")),
        ("seconds in all", f"{sum(float(row['seconds']) for row in rows):.0f}"),
    ]
    others = [[rule, f"{count} of {len(rows)}"] for rule, count in naive(rows).items()]
    return "\n\n".join(
        [
            f"## {condition}",
            _table(["", ""], [list(fact) for fact in facts]),
            "What other rules would call regressed, from the same samples:",
            _table(["rule", "regressed"], others),
        ]
    )
