"""What a failed comparison says: what was counted, by how much it is off, and who holds it. At most eight short lines, which
pytest prints whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite

from attnprof import units
from attnprof.complexity import budget
from attnprof.complexity.counted import METRICS, Amount, Order
from attnprof.records import Counts
from attnprof.report.text import clean, clip

_OPERATORS = ("<", "<=", ">", ">=", "==", "!=")
_COSTS = ("macs", "flops", "bytes_moved")
_NAMED = 3
_LABEL, _LINE = 60, 76


def compared(op: str, left: object, right: object) -> list[str] | None:
    """The lines for `left op right` where one of them is an Amount or an Order; None for what is not ours."""
    if op not in _OPERATORS:
        return None
    turned = not isinstance(left, (Amount, Order)) and isinstance(right, (Amount, Order))
    if turned:
        left, right = right, left
    if isinstance(left, Order) and isinstance(right, (int, float)):
        return _order(op, left, float(right), turned)
    if isinstance(left, Amount) and isinstance(right, (int, float, str)):
        return _amount(op, left, right, turned)
    return None


def _sides(ours: str, op: str, other: str, turned: bool) -> str:
    """The comparison as it is written. turned: ours stands on the right."""
    return f"{other} {op} {ours}" if turned else f"{ours} {op} {other}"


def _amount(op: str, left: Amount, right: float | str, turned: bool) -> list[str]:
    limit, value = budget.number(right, left.metric), int(left)
    written = right.strip() if isinstance(right, str) else _written(float(limit), left.metric)
    ours = _written(value, left.metric)
    if ours == written and value != limit:
        word = METRICS[left.metric] if left.metric in ("macs", "flops") else "" if left.metric == "params" else "B"
        ours, written = f"{value:,} {word}".rstrip(), f"{_exact(limit)} {word}".rstrip()
    noun = "" if left.metric in ("macs", "flops") else f"{METRICS[left.metric]} "
    lines = [_sides(f"{noun}{ours}", op, written, turned)]
    against = f" of {_label(right)}" if isinstance(right, Amount) else ""
    lines.append(f"{_label(left)}: {value:,}, {_difference(value, limit, left.metric)} {_exact(limit)}{against}")
    if left.metric == "params":
        return lines + _parameters(left)
    return lines + _holders(left.of.counts, left.metric)


def _difference(value: int, limit: float | Fraction, metric: str) -> str:
    """'7.85 MiB (12.4 %) over', 'equal to'."""
    if value == limit:
        return "equal to"
    share = ""
    if limit > 0:
        ratio = float(value / limit)
        share = f" ({units.format_ratio(ratio)} times)" if ratio >= 2 else f" ({100 * abs(ratio - 1):.3g} %)"
    return f"{_written(abs(float(value - limit)), metric)}{share} {'over' if value > limit else 'under'}"


def _exact(value: float | Fraction) -> str:
    """Every digit of a whole number, ten of another."""
    return f"{int(value):,}" if isfinite(value) and value == int(value) else f"{float(value):,.10g}"


def _order(op: str, left: Order, right: float, turned: bool) -> list[str]:
    name, found, metric = left.variable, left.growth, left.metric
    grows = "does not grow" if not left else f"grows as {name}" if left == 1 else f"grows as {name}**{left:.3g}"
    first, last = (left.of.size(name, found.sizes[at]) for at in (0, -1))
    how = "exact" if found.exact else "fitted slope"
    counts = left.of.counts
    lines = [
        f"order of {METRICS[metric]} in {name}: {_sides(f'{left:.3g}', op, f'{right:.3g}', turned)}",
        f"{_label(left)}: {_written(getattr(counts, metric), metric)}, and it {grows}",
        f"{how}: {len(found.sizes)} sizes, {first} to {last}",
    ]
    return lines + (_holders(counts, metric) if metric != "params" else [])


def _label(of: Amount | Order) -> str:
    return clip(clean(of.of.label), _LABEL)


def _written(value: float, metric: str) -> str:
    if metric in ("macs", "flops"):
        return units.with_word(value, METRICS[metric])
    return units.format_count(value).rstrip() if metric == "params" else units.format_bytes(value)


def _holders(counts: Counts, metric: str) -> list[str]:
    """Who is alive at the peak, or which ops have the cost, the largest first; nothing where that is not recorded."""
    sums: dict[str, int] = {}
    if metric in _COSTS:
        head, total = "by op:", getattr(counts, metric)
        for row in counts.ops:
            name = _place(row.op, row.module, row.phase)
            sums[name] = sums.get(name, 0) + getattr(row, metric)
    elif metric in ("peak_bytes", "peak_cuda_bytes"):
        head, total = "alive at the peak:", sum(holder.bytes for holder in counts.at_peak)
        for holder in counts.at_peak:
            name = f"{_place(holder.op, holder.module, holder.phase)}, {'x'.join(map(str, holder.shape)) or 'scalar'}"
            sums[name] = sums.get(name, 0) + holder.bytes
    else:
        return []
    return _table(head, sums, total, metric)


def _place(op: str, module: str, phase: str) -> str:
    inside = f" in {clean(module)}" if module else ""
    return f"{clean(op)}{inside}{' (backward)' if phase == 'backward' else ''}"


def _parameters(left: Amount) -> list[str]:
    """The largest parameters, where the module is at hand."""
    if left.of.module is None:
        return []
    sums = {clean(name): parameter.numel() for name, parameter in left.of.module.named_parameters()}
    return _table("the largest:", sums, int(left), "params")


def _table(head: str, sums: Mapping[str, int], total: int, metric: str) -> list[str]:
    ordered = sorted(((name, part) for name, part in sums.items() if part), key=lambda item: (-item[1], item[0]))
    if not ordered or not total:
        return []
    rows = [f"  {100 * part / total:5.1f} %  {_written(part, metric):>12}  {name}" for name, part in ordered[:_NAMED]]
    rest = len(ordered) - _NAMED
    return [head, *(clip(row, _LINE) for row in rows), *([f"  and {rest} more"] if rest > 0 else [])]
