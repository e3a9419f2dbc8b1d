"""`explain NAME`: where the cost of one case goes, per submodule and per op, who holds the memory at its peak, and what would
lower it.

Takes a Record with traced Counts and, where there is one, the Explanation; gives text of at most 80 columns. Long lists end in
a row for the rest, so that every column still adds up to the total of the record; where it does not, a line says by how much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attnprof import units
from attnprof.profiling.forms import Forms
from attnprof.profiling.whatif import Counterfactual, Explanation
from attnprof.records import Counts, Holder, OpCost, Record
from attnprof.report import formula, memory, timeline
from attnprof.report.blocks import titles
from attnprof.report.metrics import METRICS, assumption, why_missing
from attnprof.report.notes import traced_by_text
from attnprof.report.text import WIDTH, clean, fit, grid, wrap

_ITSELF = "(the module itself)"
_CHANGES = 6
_KINDS = {"free": "Freeing", "fuse": "Fused attention", "recompute": "Recomputing", "kernel": "Kernels"}


def render(
    record: Record, top: int = 15, explanation: Explanation | None = None, plain: bool = False, forms: Forms | None = None
) -> str:
    """The explanation of one case; at most `top` rows per table. `plain`: the drawing in ASCII."""
    lines = [*wrap(f"{clean(record.case.label)}: {titles([record.case])[0]}"), ""]
    counts = record.counts
    if counts is None:
        return "\n".join(lines + wrap(why_missing(record, METRICS["macs"]))) + "\n"
    lines += _summary(counts)
    if record.calibrated is not None:
        lines += [*(line for text in memory.calibrated_lines(record) for line in wrap(text)), ""]
    if record.detail:
        lines += [*wrap(clean(record.detail)), ""]
    if forms is not None and (said := formula.summary_lines(forms, record.case.shape)):
        lines += ["Closed forms, and how they grow with N = H*W", "", *said, ""]
    if counts.ops:
        phases = len({op.phase for op in counts.ops}) > 1
        lines += _costs("Per submodule", "Submodule", counts, lambda op: _name(op.module, op.phase, phases), top)
        lines += _costs("Per op", "Op", counts, lambda op: _name(op.op, op.phase, phases), top)
    else:
        lines += ["Per op: not recorded for this case.", ""]
    lines += _holders(counts, top)
    if explanation is not None:
        lines += _by_line(counts, top)
        lines += _timeline(explanation, plain)
        lines += _on_cuda(counts)
        lines += _changes(explanation)
    lines += _ledger("Not counted (no formula), calls", counts.uncounted)
    lines += _ledger(f"{assumption(counts)}, calls", counts.assumed)
    if counts.traced_by != "meta":
        lines += wrap(traced_by_text(clean(counts.traced_by)))
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
    lined = any(holder.line for holder in ordered)
    texts = [_holder_row(holder, total, lined) for holder in ordered[:top]]
    unknown = ("-",) * (3 + lined)
    if ordered[top:]:
        rest = sum(holder.bytes for holder in ordered[top:])
        texts.append((f"{len(ordered) - top} more", *unknown, units.format_bytes(rest), _share(rest, total)))
    texts.append(("total", *unknown, units.format_bytes(total), _share(total, total)))
    heads = [("made by", *(("at",) if lined else ()), "in submodule", "phase", "shape", "bytes", "%")]
    layout = _layout(heads, texts, left=4 + lined, firm=(1,) if lined else ())
    lines = ["Who holds the memory at the peak (above parameters, buffers and inputs)", "", *layout]
    if total != counts.peak_bytes:
        lines += wrap(f"These sum to {total:,} bytes, the record's peak is {counts.peak_bytes:,} bytes.")
    return [*lines, ""]


def _holder_row(holder: Holder, total: int, lined: bool) -> tuple[str, ...]:
    place = (clean(holder.line) if holder.line else "-",) if lined else ()
    module = clean(holder.module) if holder.module else "-" if lined else _ITSELF
    shape = "x".join(map(str, holder.shape)) or "scalar"
    size = units.format_bytes(holder.bytes)
    return (clean(holder.op), *place, module, clean(holder.phase), shape, size, _share(holder.bytes, total))


def _by_line(counts: Counts, top: int) -> list[str]:
    """The same bytes by source line."""
    sums: dict[str, list[int]] = {}
    for holder in counts.at_peak:
        row = sums.setdefault(holder.line or "(the caller)", [0, 0])
        row[0] += 1
        row[1] += holder.bytes
    if len(sums) < 2:
        return []
    total = sum(size for _, size in sums.values())
    ordered = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))
    rows = [(clean(line), str(number), units.format_bytes(size), _share(size, total)) for line, (number, size) in ordered[:top]]
    if ordered[top:]:
        number, size = (sum(column) for column in zip(*(row for _, row in ordered[top:]), strict=True))
        rows.append((f"{len(ordered) - top} more", str(number), units.format_bytes(size), _share(size, total)))
    return ["By source line", "", *_layout([("asked for at", "storages", "bytes", "%")], rows), ""]


def _timeline(explanation: Explanation, plain: bool) -> list[str]:
    drawn = timeline.draw(explanation.timeline, plain)
    if not drawn:
        return []
    peak = max(explanation.timeline, key=lambda moment: moment.bytes)
    inside = f" in {clean(peak.module)}" if peak.module else ""
    head = f"Live bytes over the pass; the peak is {units.format_bytes(peak.bytes)}, at {clean(peak.op)}{inside} ({peak.phase})"
    return [*wrap(head), "", *drawn, ""]


def _on_cuda(counts: Counts) -> list[str]:
    more = counts.peak_cuda_bytes - counts.peak_bytes
    text = (
        f"As CUDA's allocator would see it (a model): {units.format_bytes(counts.peak_cuda_bytes)}, "
        f"{units.format_bytes(more)} more for whole 512-byte blocks and for what kernels hold beside tensors."
    )
    return [*wrap(text), ""]


def _changes(explanation: Explanation) -> list[str]:
    """What would lower the peak, the largest saving first; what the pass has the better of already comes last."""
    notes = [line for note in explanation.notes for line in ("", *wrap(clean(note)))]
    saving = [change for change in explanation.counterfactuals if change.saves_bytes > 0]
    costing = [change for change in explanation.counterfactuals if change.saves_bytes <= 0]
    lines = ["What would lower the peak", ""]
    for number, change in enumerate(saving[:_CHANGES], 1):
        lines += wrap(f"{number}. {_change(change)}", indent="   ")
    if saving[_CHANGES:]:
        lines += wrap(f"{len(saving) - _CHANGES} more, which save less, stand in --json.")
    if not saving and explanation.tried:
        lines += wrap(f"Nothing that was tried lowers it: {'; '.join(clean(each) for each in explanation.tried)}.")
    for change in costing:
        lines += wrap(f"Saved already: {_sizes(change)} with {change.what}.")
    how = dict.fromkeys(f"{_KINDS[change.kind]}: {change.confirmed}." for change in (*saving[:_CHANGES], *costing))
    if how:
        lines += ["", *wrap(f"How that was confirmed. {' '.join(how)}")]
    return [*lines, *notes, ""]


def _change(change: Counterfactual) -> str:
    saved = units.format_bytes(change.saves_bytes)
    macs = f", for {units.with_word(change.extra_macs, 'MACs')} more" if change.extra_macs > 0 else ""
    return f"{_first_large(change.what)} saves {saved}: {_sizes(change)}{macs}."


def _first_large(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sizes(change: Counterfactual) -> str:
    return f"peak {units.format_bytes(change.from_peak_bytes)} -> {units.format_bytes(change.peak_bytes)}"


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


def _layout(
    heads: Sequence[Sequence[str]], rows: Iterable[Sequence[str]], left: int = 1, firm: Sequence[int] = ()
) -> list[str]:
    """A grid of at most 80 columns: the flush-left columns share what the numbers leave them; `firm` ones give way last."""
    rows = list(rows)
    columns = list(zip(*heads, *rows, strict=True))
    wanted = fit(columns, [WIDTH] * len(columns))
    room = WIDTH - 2 * (len(columns) - 1) - sum(wanted[left:])
    while sum(wanted[:left]) > room and max(wanted[:left]) > 4:
        soft = [i for i in range(left) if i not in firm and wanted[i] > 9] or range(left)
        widest = max(soft, key=lambda i: wanted[i])
        wanted[widest] -= 1
    return grid(heads, rows, wanted, left)
