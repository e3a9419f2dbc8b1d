"""The notes under a report, generated from its records: conventions, where it was measured, what is missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attnprof.records import ALONE, Record
from attnprof.report.blocks import argument_text
from attnprof.report.bounding import bound_notes
from attnprof.report.devices import Device, device_notes
from attnprof.report.kernels import kernel_notes, named
from attnprof.report.memory import memory_notes
from attnprof.report.metrics import METRICS, Metric, assumption, why_missing
from attnprof.report.ratios import ratio_of
from attnprof.report.text import clean, clip, first_clauses

_CONVENTIONS = {
    "macs": "MACs: multiply-accumulates of convolution, matmul and attention that are executed.",
    "flops": "FLOPs: 2 per MAC, plus element-wise, softmax, normalisation, pooling, interpolation and sampling.",
    "bytes_moved": "Moved: each op's inputs read once and outputs written once, unfused.",
    "activation_memory": "Activations: what autograd keeps for backward (training), the sum of op outputs (inference).",
    "resident_memory": "Resident: parameters, buffers and inputs.",
    "peak_memory": "Peak: the most tensor storage alive above parameters, buffers and inputs.",
    "peak_cuda_memory": "Peak CUDA: the traced pass as CUDA's allocator would see it (a model, not a measurement).",
    "measured_memory": "Peak meas.: {how} peak above parameters, buffers and inputs.",
    "calibrated_memory": (
        "Peak calib.: the largest sum of the bytes alive before an op and that op's own peak, run alone on this machine."
    ),
    "latency": (
        "Latency: median; ± is the larger side of its 95 % interval by order statistics (below 6 samples: the range), which"
        " stands as [low, high] where one side is over 1.5 times the other."
    ),
    "throughput": "Throughput: batch / median latency; ± and [low, high] as for latency.",
    "energy": "Energy: joules per pass, one reading.",
    "bound": (
        "Bound: what no pass beats: the longer of reading parameters, buffers and inputs once from memory (as far as no op"
        " gathers from them; taken for granted: none is unused, or used as a slice only) and of the traced MACs at the dtype's"
        " peak (Winograd, FFT and causal kernels execute fewer MACs than are traced)."
    ),
    "unfused": (
        "Unfused: an estimate: op after op at the device's best rates, nothing kept in a cache between ops, no two at once."
    ),
    "bound_ratio": "Latency/bound: median latency / bound.",
}
_OVER_PROCESSES = (
    "Latency: median of the processes' medians; ± is the larger side of the 95 % t-interval over their logarithms, which"
    " covers what varies between processes too; [low, high] where one side is over 1.5 times the other."
)
# Environment keys that a reader of the table needs, and how they are introduced; others stay in the JSON.
# Keys of the mappings in _NESTED are looked up like those beside them.
_ENVIRONMENT = {
    "device": "device",
    "gpu": "gpu",
    "cpu": "cpu",
    "cores": "cores",
    "driver": "driver",
    "cuda": "cuda",
    "torch": "torch",
    "threads": "threads",
    "matmul_tf32": "matmul tf32",
    "cudnn_tf32": "cudnn tf32",
    "attnprof": "attnprof",
}
_NESTED = ("provenance", "flags")
# profiling/measuring/measure.py warns in these words where Timing.warmup_converged is False; the note says it.
UNSTEADY = "the warm-up did not reach a steady state"
_AUTOCAST = (
    "Autocast follows the CPU's rules: CUDA's give softmax, normalisation, exponentials and sums in float32, which move and"
    " keep more bytes."
)
_BOUNDED = {"bound", "unfused", "bound_ratio"}


def notes_of(
    records: Sequence[Record],
    metrics: Sequence[Metric],
    baseline: str | None,
    inverse: bool,
    letters: Mapping[Device, str],
) -> tuple[str, ...]:
    """All notes of a report, in reading order. `letters`: of the devices, where there are several."""
    shown = {metric.key for metric in metrics}
    processes = _processes(records)
    out = conventions(metrics, records)
    if any(metric.kind == "bytes" for metric in metrics):
        out.append("1 MiB = 2^20 bytes, 1 KiB = 2^10 bytes.")
    if baseline:
        timed = bool({"latency", "throughput"} & shown) and _paired(records)
        out += _ratio_notes(
            "the network alone" if baseline == ALONE else clean(baseline), inverse, processes[-1] if timed else 0, records
        )
        out += _apart(records, baseline) if timed else []
    if shown & _BOUNDED:
        out += bound_notes(records)
    out += (
        _placed(records)
        + settings_notes(records)
        + kernel_notes(records)
        + device_notes(records, letters)
        + environment_notes(records)
        + _timing(records)
        + memory_notes(records)
    )
    out += _coverage(records, metrics)
    return tuple(out + _counting(records))


def conventions(metrics: Sequence[Metric], records: Sequence[Record]) -> list[str]:
    """What each of these metrics counts, a sentence each; of the measured ones those that have a value."""
    shown = {metric.key for metric in metrics}
    found = {metric.key for metric in METRICS.values() if any(metric.read(record) is not None for record in records)}
    said = [key for key in _CONVENTIONS if key in shown and (METRICS[key].traced or key in found)]
    processes = _processes(records)
    several = {"latency": _OVER_PROCESSES} if processes and processes[-1] > 1 else {}
    return [several.get(key, _CONVENTIONS[key]).format(how=_how_measured(records)) for key in said]


def unsteady(records: Sequence[Record]) -> list[str]:
    """Whose warm-up did not reach a steady state."""
    timings = [(record.case.label, record.timing) for record in records if record.timing is not None and record.timing.n]
    labels = [label for label, timing in timings if not timing.warmup_converged]
    return [f"Warm-up did not reach a steady state: {named(labels)}."] if labels else []


def _ratio_notes(baseline: str, inverse: bool, timed: int, records: Sequence[Record]) -> list[str]:
    """`timed`: by how many processes; 0 where no latency has a ratio."""
    meaning = f"value of {baseline} / value" if inverse else f"value / value of {baseline}"
    out = [f"ratio: {meaning}, of the unrounded values."]
    medians = "; that of a latency is of the medians, only where both were timed side by side" if timed else ""
    if not inverse and any(record.case.host is not None for record in records):
        ratio = f"ratio (in md and csv): value / value of {baseline}, of the unrounded values."
        out = [f"delta: value - value of {baseline}{medians}.", ratio]
    elif not inverse:
        out.append(f"delta (in md and csv): value - value of {baseline}, in the column's unit{medians}.")
    if timed:
        median = "median over rounds in which both were timed side by side"
        if timed > 1:
            out.append(
                f"Latency ratio: mean over {timed} processes of the logarithm of the {median}, with its 95 % t-interval over"
                f" the processes ({timed - 1} d.o.f.), which covers what varies between processes too."
            )
        else:
            out.append(
                f"Latency ratio: {median}, with its 95 % interval by order statistics, wider where rounds were disturbed"
                " together; it covers what varies within one process only, and less than 95 % where a disturbance lasted for"
                " a good part of the rounds."
            )
    return out


def _paired(records: Sequence[Record]) -> bool:
    """Whether any two records were timed in one block, without which no latency has a ratio."""
    blocks = Counter(record.timing.block for record in records if record.timing is not None and record.timing.n)
    return any(count > 1 for block, count in blocks.items() if block)


def _apart(records: Sequence[Record], baseline: str) -> list[str]:
    """Where the quotient of two printed medians is not in the interval of the ratio that is printed beside them."""
    bases = {
        record.timing.block: record
        for record in reversed(records)
        if record.timing is not None and (record.case.alone if baseline == ALONE else record.case.label == baseline)
    }
    labels = []
    for record in records:
        base = bases.get(record.timing.block) if record.timing is not None and record.timing.block else None
        ratio = None if base is None else ratio_of(record, base, METRICS["latency"])
        if base is None or ratio is None or ratio.low is None or ratio.high is None or not record.timing or not base.timing:
            continue
        median = base.timing.median_s
        if median > 0 and not ratio.low <= record.timing.median_s / median <= ratio.high:
            labels.append(record.case.label)
    if not labels:
        return []
    told = "The quotient of the medians is outside the interval of the latency ratio"
    why = "a median is of all of a case's rounds, the ratio of those that both were in, and latencies moved from some to others"
    return [f"{told}: {why} (other work, or cases that had left the block): {named(labels)}."]


def _processes(records: Sequence[Record]) -> list[int]:
    """The numbers of processes that timings come from, ascending."""
    return sorted({record.timing.k for record in records if record.timing is not None and record.timing.n})


def _how_measured(records: Iterable[Record]) -> str:
    """'measured', 'calibrated' or 'measured or calibrated': the sources that occur."""
    calibrated = {record.memory.source == "calibrated" for record in records if record.memory is not None}
    return " or ".join(word for word, of in (("measured", False), ("calibrated", True)) if of in calibrated)


def _placed(records: Sequence[Record]) -> list[str]:
    """Where mechanisms stand in a network, in the words of the spec."""
    found: dict[str, list[str]] = {}
    for record in records:
        case = record.case
        if case.host is not None and not case.alone and record.counts is not None:
            how = "instead of" if case.host.how == "instead" else case.host.how
            found.setdefault(f"{how} {clean(case.host.at)} of {clean(case.host.text)}", []).append(case.label)
    lines = [f"Placed {where}: {named(labels)}." for where, labels in found.items()]
    if any(where.startswith("instead of") for where in found):
        lines.append(
            "Instead of a submodule that strides, a mechanism without a stride of its own works at the submodule's input size "
            "and is pooled after it: more MACs than a strided one would have."
        )
    if any(where.startswith("around") for where in found):
        lines.append("Around: beside the submodule, on its input; both outputs are added.")
    return lines


def settings_notes(records: Sequence[Record]) -> list[str]:
    """Settings that all cases share."""
    every = [dict(record.case.settings) for record in records]
    shared = {key: value for key, value in every[0].items() if all(one.get(key) == value for one in every)} if every else {}
    texts = [f"{clean(key)}={clean(argument_text(value))}" for key, value in shared.items()]
    return [f"Settings: {', '.join(texts)}."] if texts else []


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    """An environment with the keys of its nested mappings beside its own, which go first."""
    out: dict[str, Any] = {}
    for name in _NESTED:
        nested = environment.get(name)
        out |= nested if isinstance(nested, Mapping) else {}
    return out | dict(environment)


def _environment_text(record: Record) -> str:
    flat = _flat(record.environment)
    values = {name: flat[key] for key, name in _ENVIRONMENT.items() if flat.get(key) not in (None, "")}
    said = {
        name: ("on" if value else "off") if isinstance(value, bool) else argument_text(value) for name, value in values.items()
    }
    return ", ".join(f"{name} {clean(text)}" for name, text in said.items())


def environment_notes(records: Sequence[Record]) -> list[str]:
    """Each environment once, of the measured cases where there are any; several are said: their numbers do not compare."""
    seen: Counter[str] = Counter()
    measured = [record for record in records if record.timing is not None or record.memory is not None]
    for record in measured or records:
        text = _environment_text(record)
        if text:
            seen[text] += 1
    if len(seen) <= 1:
        return [f"Environment: {text}." for text in seen]
    return [f"{len(seen)} environments; measured numbers compare only within one."] + [
        f"Environment of {count} case{'s' if count > 1 else ''}: {text}." for text, count in seen.items()
    ]


def _timing(records: Sequence[Record]) -> list[str]:
    timings = [(record.case.label, record.timing) for record in records if record.timing is not None and record.timing.n]
    if not timings:
        return []
    counts = sorted(timing.n for _, timing in timings)
    n = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    processes = _processes(records)
    out = [f"n = {n} samples per latency, none dropped; intervals cover what varies within one process."]
    if processes[-1] > 1:
        several = " to ".join(str(k) for k in dict.fromkeys((processes[0], processes[-1])))
        out = [f"n = {n} samples per latency from {several} processes, none dropped."]
    out += unsteady(records)
    ended = [label for label, timing in timings if timing.stopped_by == "budget"]
    if ended:
        out.append(f"Sampling ended by the budget, not by the interval: {named(ended)}.")
    warned: dict[str, list[str]] = {}
    for label, timing in timings:
        for warning in timing.warnings:
            if warning == UNSTEADY and not timing.warmup_converged:
                continue
            warned.setdefault(clip(clean(warning), 160), []).append(label)
    return out + [f"Warning: {warning} ({named(labels)})." for warning, labels in warned.items()]


def _coverage(records: Sequence[Record], metrics: Sequence[Metric]) -> list[str]:
    """'Latency: 70 of 72 cases have a value; 2 not measured (budget).' Metrics with the same gaps share a line."""
    heads: dict[str, list[str]] = {}
    for metric in metrics:
        missing = Counter(_short(record, metric) for record in records if metric.read(record) is None)
        if not metric.traced or missing:
            found = f"{len(records) - missing.total()} of {len(records)} cases have a value"
            gaps = (f"{count} {reason}" for reason, count in missing.items())
            heads.setdefault("; ".join([found, *gaps]), []).append(metric.head)
    return [f"{', '.join(names)}: {text}." for text, names in heads.items()]


def _short(record: Record, metric: Metric) -> str:
    return record.status if record.status != "ok" else first_clauses(why_missing(record, metric), 60)


def _counting(records: Sequence[Record]) -> list[str]:
    """Ops without a formula, ops counted on an assumption, and cases that were not traced on meta."""
    out = []
    ops: dict[tuple[str, str], list[str]] = {}
    for record in records:
        counts = record.counts
        if counts is not None:
            for ledger, text in ((counts.uncounted, "not counted"), (counts.assumed, assumption(counts))):
                for op in ledger:
                    ops.setdefault((text, clean(op)), []).append(record.case.label)
    out += [f"{text[0].upper()}{text[1:]}: {op} ({named(labels)})." for (text, op), labels in ops.items()]
    by: dict[str, list[str]] = {}
    for record in records:
        if record.counts is not None and record.counts.traced_by != "meta":
            by.setdefault(clean(record.counts.traced_by), []).append(record.case.label)
    return out + [traced_by_text(how, f": {named(labels)}") for how, labels in by.items()]


def traced_by_text(how: str, whom: str = "") -> str:
    """'Traced by fake tensors instead of meta.', and what that means for the numbers. `whom`: ': a and b'."""
    text = f"Traced by {how} tensors instead of meta{whom}."
    return f"{text} {_AUTOCAST}" if how == "fake" else text
