"""`explain NAME`: where the cost of one case goes, per submodule and per op, and who holds the memory at its peak.

Takes a Record with traced Counts; gives text of at most 80 columns. Long lists end in a row for the rest, so that every column
still adds up to the total of the record; where it does not, a line says by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attnprof import units
from attnprof.records import Counts, OpCost, Record
from attnprof.report.blocks import titles
from attnprof.report.metrics import METRICS, why_missing
from attnprof.report.text import WIDTH, clean, fit, grid, wrap

_ITSELF = "(the module itself)"


def render(record: Record, top: int = 15) -> str:
    """The explanation of one case; at most `top` rows per table."""
    lines = [*wrap(f"{clean(record.case.label)}: {titles([record.case])[0]}"), ""]
    counts = record.counts
    if counts is None:
        return "\n".join(lines + wrap(why_missing(record, METRICS["macs"]))) + "\n"
    lines += _summary(counts)
    if counts.ops:
        phases = len({op.phase for op in counts.ops}) > 1
        lines += _costs("Per submodule", "Submodule", counts, lambda op: _name(op.module, op.phase, phases), top)
        lines += _costs("Per op", "Op", counts, lambda op: _name(op.op, op.phase, phases), top)
    else:
        lines += ["Per op: not recorded for this case.", ""]
    lines += _holders(counts, top)
    lines += _ledger("Not counted (no formula), calls", counts.uncounted)
    lines += _ledger("Counted on an assumption, calls", counts.assumed)
    if counts.traced_by != "meta":
        lines.append(f"Traced by {clean(counts.traced_by)} tensors instead of meta.")
    return "\n".join(lines).rstrip() + "\n"


def _summary(counts: Counts) -> list[str]:
    numbers = (
        f"{counts.params:,} parameters, {units.with_word(counts.macs, 'MACs')}, {units.with_word(counts.flops, 'FLOPs')},"
        f" {units.format_bytes(counts.bytes_moved)} moved, peak {units.format_bytes(counts.peak_bytes)} above"
        f" {units.format_bytes(counts.resident_bytes)} of parameters, buffers and inputs;"
        f" activations {units.format_bytes(counts.activation_bytes)}."
    )
    return [*wrap(numbers), ""]


def _name(text: str, phase: str, phases: bool) -> str:
    name = clean(text) if text else _ITSELF
    return f"{name} [{clean(phase)}]" if phases else name


def _costs(title: str, head: str, counts: Counts, key: Callable[[OpCost], str], top: int) -> list[str]:
    """Calls, MACs, FLOPs and bytes moved per key, the largest share of FLOPs first, with a row for the rest and the total."""
    sums: dict[str, list[int]] = {}
    for op in counts.ops:
        row = sums.setdefault(key(op), [0, 0, 0, 0])
        for i, amount in enumerate((op.calls, op.macs, op.flops, op.bytes_moved)):
            row[i] += amount
    ordered = sorted(sums.items(), key=lambda item: (-item[1][2], -item[1][3], item[0]))
    rows = ordered[:top]
    if ordered[top:]:
        rows.append(
            (f"{len(ordered) - top} more", [sum(column) for column in zip(*(r for _, r in ordered[top:]), strict=True)])
        )
    total = [sum(column) for column in zip(*sums.values(), strict=True)]
    texts = [_cost_row(name, row, total) for name, row in [*rows, ("total", total)]]
    heads = [(head, "calls", "MACs", "%", "FLOPs", "%", "moved", "%")]
    lines = [title, "", *_layout(heads, texts)]
    for name, found, said in zip(("MACs", "FLOPs", "bytes moved"), total[1:], _totals(counts), strict=True):
        if found != said:
            lines += wrap(f"The {name} of these ops sum to {found:,}, the record says {said:,}.")
    return [*lines, ""]


def _totals(counts: Counts) -> tuple[int, int, int]:
    return counts.macs, counts.flops, counts.bytes_moved


def _cost_row(name: str, row: Sequence[int], total: Sequence[int]) -> tuple[str, ...]:
    calls, macs, flops, moved = row
    shares = [_share(part, whole) for part, whole in zip(row[1:], total[1:], strict=True)]
    macs_text, flops_text = (units.format_count(value).rstrip() for value in (macs, flops))
    return (name, str(calls), macs_text, shares[0], flops_text, shares[1], units.format_bytes(moved), shares[2])


def _holders(counts: Counts, top: int) -> list[str]:
    """Who holds the memory at the peak, the largest first."""
    if not counts.at_peak:
        return ["Who holds the memory at the peak: not recorded for this case.", ""]
    total = sum(holder.bytes for holder in counts.at_peak)
    ordered = sorted(counts.at_peak, key=lambda holder: -holder.bytes)
    texts = [
        (
            clean(holder.op),
            clean(holder.module) if holder.module else _ITSELF,
            clean(holder.phase),
            "x".join(map(str, holder.shape)) or "scalar",
            units.format_bytes(holder.bytes),
            _share(holder.bytes, total),
        )
        for holder in ordered[:top]
    ]
    if ordered[top:]:
        rest = sum(holder.bytes for holder in ordered[top:])
        texts.append((f"{len(ordered) - top} more", "-", "-", "-", units.format_bytes(rest), _share(rest, total)))
    texts.append(("total", "-", "-", "-", units.format_bytes(total), _share(total, total)))
    heads = [("made by", "in submodule", "phase", "shape", "bytes", "%")]
    lines = ["Who holds the memory at the peak (above parameters, buffers and inputs)", "", *_layout(heads, texts, left=4)]
    if total != counts.peak_bytes:
        lines += wrap(f"These sum to {total:,} bytes, the record's peak is {counts.peak_bytes:,} bytes.")
    return [*lines, ""]


def _ledger(title: str, ops: Mapping[str, int]) -> list[str]:
    if not ops:
        return []
    texts = (f"{clean(op)} {count}" for op, count in sorted(ops.items(), key=lambda item: (-item[1], item[0])))
    return [*wrap(f"{title}: {', '.join(texts)}", indent="  "), ""]


def _share(part: int, whole: int) -> str:
    """Percent of the whole with one decimal; '<0.1' for what is there but smaller."""
    if whole == 0:
        return "0" if part == 0 else "-"
    percent = 100 * part / whole
    return "<0.1" if 0 < percent < 0.05 else f"{percent:.1f}"


def _layout(heads: Sequence[Sequence[str]], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """A grid of at most 80 columns: the flush-left columns share what the numbers leave them."""
    rows = list(rows)
    columns = list(zip(*heads, *rows, strict=True))
    wanted = fit(columns, [WIDTH] * len(columns))
    room = WIDTH - 2 * (len(columns) - 1) - sum(wanted[left:])
    while sum(wanted[:left]) > room and max(wanted[:left]) > 4:
        wanted[wanted.index(max(wanted[:left]))] -= 1
    return grid(heads, rows, wanted, left)
