"""Scaling of raw numbers for people. Records hold base units (bytes, seconds, operations); only reports call this."""

from __future__ import annotations

import math

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_DECIMAL = (("", 1), ("K", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12), ("P", 10**15), ("E", 10**18))
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def format_bytes(value: float) -> str:
    """1536 -> '1.50 KiB' (binary prefixes: 1 KiB = 1024 B)."""
    size, unit = float(value), _BINARY[0]
    for unit in _BINARY:
        if abs(size) < 1023.5 or unit == _BINARY[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{_digits(size)} {unit}"


def format_count(value: float) -> str:
    """8269080832 -> '8.269 G' (decimal prefixes)."""
    prefix, scale = _DECIMAL[0]
    for candidate, factor in _DECIMAL:
        if abs(float(f"{value:.3e}")) >= factor:  # rounded first: 999,999,999 is 1.000 G
            prefix, scale = candidate, factor
    if scale == 1:
        return f"{value:.0f}" if math.isfinite(value) and value == int(value) else f"{value:.4g}"
    return f"{_digits(value / scale, 4)} {prefix}"


def with_word(value: float, word: str) -> str:
    """8269080832, 'MACs' -> '8.269 GMACs'; 192 -> '192 MACs'."""
    text = format_count(value)
    return f"{text} {word}" if text[-1].isdigit() else text + word


def format_seconds(value: float) -> str:
    """0.01234 -> '12.3 ms'."""
    for unit, scale in _SECONDS:
        if abs(float(f"{value:.2e}")) >= scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{value / 1e-9:.3g} ns"


def format_ratio(value: float) -> str:
    """6.5412 -> '6.54'; 0.1529 -> '0.153'."""
    return _digits(value)


def _digits(value: float, significant: int = 3) -> str:
    """`significant` digits without an exponent: 12.34 -> '12.3', 1234.5 -> '1234', 0.00012 -> '0.00012'."""
    if value == 0 or not math.isfinite(value):
        return str(value) if value else "0"
    exponent = int(f"{value:.{significant - 1}e}".partition("e")[2])  # of the rounded value: 9.999 is a 10.0
    text = f"{value:.{max(significant - 1 - exponent, 0)}f}"
    return text.rstrip("0") if exponent < 0 else text


_COLUMN_UNITS = {
    "count": (("M", 1e6), ("K", 1e3), ("", 1.0)),
    "operations": (("G", 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0)),
    "bytes": (("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)),
    "seconds": (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)),
    "joules": (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)),
    "rate": (("1/s", 1.0),),
    "ratio": (("", 1.0),),
}


def column_unit(kind: str, largest: float) -> tuple[str, float]:
    """(unit, divisor) for a whole column whose largest value is `largest`: the papers' unit unless all would read below 0.1."""
    candidates = _COLUMN_UNITS[kind]
    for unit, divisor in candidates:
        if largest == 0 or abs(largest) >= 0.1 * divisor:
            return (unit, divisor) if largest else candidates[0]
    return candidates[-1]
