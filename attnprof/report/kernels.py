"""The notes under a report on attention: whose kernel was traced, and which calls were counted as the math path, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnprof.records import Record
from attnprof.report.blocks import argument_text
from attnprof.report.text import clean, clip

_MOST_NAMED = 6
_NAMED_OF_MANY = 3


def kernel_notes(records: Sequence[Record]) -> list[str]:
    """Whose attention kernels were traced: a traced peak is not comparable with one measured on another kind of device."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        ops = () if record.counts is None else record.counts.ops
        kernels = [op.op for op in ops if "scaled_dot_product" in op.op]
        if kernels:
            cpu = record.case.settings.get("target") == "cpu" or all("for_cpu" in kernel for kernel in kernels)
            sdpa = clean(argument_text(record.case.settings.get("sdpa", "auto")))
            found.setdefault(("CPU", "GPU", sdpa) if cpu else ("GPU", "CPU", sdpa), []).append(record.case.label)
    return [
        f"Attention ({named(labels)}) is traced as the kernel that a {target} would choose (sdpa={sdpa}), whatever device"
        f" measured: its traced memory is not what attention takes on a {other}."
        for (target, other, sdpa), labels in found.items()
    ] + _on_math(records)


def _on_math(records: Sequence[Record]) -> list[str]:
    """Attention that was counted as the math path: the calls, and the rule by which each fused kernel refused them."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in records:
        for call in {} if record.counts is None else record.counts.math_attention:
            arguments, dtype, rule = call.partition(f", {record.case.dtype}: ")
            arguments, rule = (arguments, rule) if dtype else ("", call)
            target = "CPU" if record.case.settings.get("target") == "cpu" else "GPU"
            found.setdefault((target, clean(rule)), {}).setdefault(clean(arguments), []).append(record.case.label)
    out = []
    for (target, rule), calls in found.items():
        labels = named(label for each in calls.values() for label in each)
        more = f" and {len(calls) - 1} more calls" if len(calls) > 1 else ""
        first = f" ({next(iter(calls))}{more})" if next(iter(calls)) else ""
        text = f"Attention ({labels}) is counted as the math path, which makes the whole map{first}: {rule}."
        if "was asked for" not in rule:
            other = "GPU" if target == "CPU" else "CPU"
            text += f" That is what a {target} would do; a fused kernel of a {other} may take it, and the peak there be lower."
        out.append(text)
    return out


def named(labels: Iterable[str]) -> str:
    """Labels once each; of many their number and the first few."""
    unique = list(dict.fromkeys(clip(clean(label), 40) for label in labels))
    if len(unique) <= _MOST_NAMED:
        return ", ".join(unique)
    return f"{len(unique)} labels: {', '.join(unique[:_NAMED_OF_MANY])} and {len(unique) - _NAMED_OF_MANY} more"
