"""What `doctor --roofline` prints: the measured rates of a device, beside its published peaks where there are any. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attnprof import units
from attnprof.profiling.bounds import Rates
from attnprof.report.text import clean, fit, grid, wrap

_HEADS = ("dtype", "matmul", "size", "a + b c", "copy", "triad", "read", "call")
_UNITS = ("", "GMAC/s", "", "GFLOP/s", "GB/s", "GB/s", "GB/s", "us")
_BANDWIDTHS = ("copy_bytes_per_s", "triad_bytes_per_s", "read_bytes_per_s")


def render(found: Mapping[str, Any], published: Rates | None, title: str = "", kept_at: str = "") -> str:
    """Measured rates by dtype, then each published peak with the share of it that was reached; at most 80 columns."""
    threads = "" if found["threads"] is None else f", {found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    lines = wrap(f"roofline   {clean(found['device'])}: {clean(found['name'])}{threads}, torch {clean(found['torch'])}")
    rows = [_row(name, row) for name, row in found["dtypes"].items()]
    for name, rate in (found.get("tf32_macs_per_s") or {}).items():
        rows.append((name, _digits(rate / 1e9), *["-"] * (len(_HEADS) - 2)))
    columns = list(zip(_HEADS, _UNITS, *rows, strict=True))
    lines += ["", *grid([_HEADS, _UNITS], rows, fit(columns, [20] * len(columns))), ""]
    if published is None:
        lines += wrap("published  none for this device in attnprof/profiling/devices.yaml.", indent=" " * 11)
    else:
        lines += [*_against(found, published, title), ""]
    cache, array = units.format_bytes(found["cache_bytes"]), units.format_bytes(found["array_bytes"])
    lines += wrap(f"Best of several runs. Bandwidth out of the last cache ({cache}) on arrays of {array}; 1 GB is 10^9 bytes.")
    lines += wrap("1 MAC is 2 FLOPs. call: from one call of a tiny op to the next.")
    if kept_at:
        lines += wrap(f"Kept for the tables' bounds: {kept_at}", indent="  ")
    return "\n".join(lines).rstrip() + "\n"


def data(found: Mapping[str, Any], published: Rates | None, kept_at: str = "") -> dict[str, Any]:
    """JSON: what was measured, and under `published` the peaks with the share of each that was reached (null without any)."""
    peaks = None
    if published is not None:
        keys = ("figure", "measured", "published", "share")
        figures = [dict(zip(keys, (*pair, pair[1] / pair[2]), strict=True)) for pair in _pairs(found, published)]
        peaks = {"device": published.device, "figures": figures}
    return {**found, "published": peaks, "kept_at": kept_at or None}


def _row(name: str, row: Mapping[str, float]) -> tuple[str, ...]:
    numbers = (_digits(row["macs_per_s"] / 1e9), str(row["matmul_size"]), _digits(row["vector_flops_per_s"] / 1e9))
    speeds = (_digits(row[key] / 1e9) for key in _BANDWIDTHS)
    return (name, *numbers, *speeds, _digits(row["op_s"] * 1e6))


def _pairs(found: Mapping[str, Any], published: Rates) -> list[tuple[str, float, float]]:
    """(figure, measured, published) in base units, where both are known."""
    measured = {name: row["macs_per_s"] for name, row in found["dtypes"].items()} | dict(found.get("tf32_macs_per_s") or {})
    best = max(row[key] for row in found["dtypes"].values() for key in _BANDWIDTHS)
    pairs = [(f"matmul {name}", measured[name], peak) for name, peak in published.macs_per_s.items() if name in measured]
    return [*pairs, ("bandwidth", best, published.bytes_per_s)]


def _against(found: Mapping[str, Any], published: Rates, title: str) -> list[str]:
    rows = []
    for name, got, peak in _pairs(found, published):
        unit = "GB/s" if name == "bandwidth" else "GMAC/s"
        rows.append((name, unit, _digits(got / 1e9), _digits(peak / 1e9), f"{100 * got / peak:.1f}"))
    heads = [("published", "", "measured", "peak", "% of it")]
    columns = list(zip(*heads, *rows, strict=True))
    clock = "" if published.clock_mhz is None else f", at {published.clock_mhz:g} MHz"
    return [
        *wrap(f"Published peaks of {clean(title or published.device)}{clock}:"),
        "",
        *grid(heads, rows, fit(columns, [20] * 5), 2),
    ]


def _digits(value: float) -> str:
    return units.format_ratio(value)
