"""What a printed number may count: the closed list of conventions found in papers, and the value of Counts under each.

A convention is one choice per axis of its metric. compute:

    count   2mac        FLOPs = 2 x MAC (this project's own `flops` adds everything else)
            2mac+bias   the same, a bias counting as one more input channel (CCNet)
            mac         FLOPs = MAC (SENet, CBAM, EMANet, timm, torchvision ...)
            mac+other   MAC, and one per element-wise, normalisation and pooling operation (ptflops and thop, roughly)
            all         every operation: 2 x MAC + element-wise, normalisation, pooling
            mixed       layers with weights as MAC, products of two activations as 2 x MAC (the counter shipped with ANN)
            mac-layers  MAC of layers with weights only: a counter that hooks modules misses the attention products
            2mac-layers twice that
    base    decimal, binary: G is 10^9 or 2^30 (ECA-Net divides by 1024)

params: base (M is 10^6 or 2^20). memory:

    mode    inference, training (forward and backward)
    what    module          peak above parameters, buffers and inputs (what a network has more of: the difference of two such)
            +params         parameters and buffers included, inputs not (max_memory_allocated - bytes of the input)
            +params+inputs  all that is allocated
            kept            what autograd keeps for the backward pass; in inference the sum of all outputs (torchstat)
    by      tensors (storages alive), allocator (modelled: blocks of 512 bytes, temporaries inside kernels)
    base    binary (MB is 2^20), decimal

activations (elements of outputs, `profiling/outputs.py`):

    outputs     layers+products     of convolutions, linear layers and products of two activations
                layers              of layers with weights only: a counter that does not see fused attention

latency and order have no axes. The first choice of an axis is what a table means that does not say.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from attnprof.records import Counts, Outputs

AXES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "compute": {
        "count": ("2mac", "2mac+bias", "mac", "mac+other", "all", "mixed", "mac-layers", "2mac-layers"),
        "base": ("decimal", "binary"),
    },
    "params": {"base": ("decimal", "binary")},
    "memory": {
        "mode": ("inference", "training"),
        "what": ("module", "+params", "+params+inputs", "kept"),
        "by": ("tensors", "allocator"),
        "base": ("binary", "decimal"),
    },
    "activations": {"outputs": ("layers+products", "layers")},
    "latency": {},
    "order": {},
}
METRICS = tuple(AXES)
_WORDS = {
    "2mac": "2 x MAC",
    "2mac+bias": "2 x MAC with biases",
    "mac": "MAC",
    "mac+other": "MAC + other operations",
    "all": "2 x MAC + other operations",
    "mixed": "layers MAC, products 2 x MAC",
    "mac-layers": "MAC, attention products left out",
    "2mac-layers": "2 x MAC, attention products left out",
    "module": "above parameters and inputs",
    "+params": "parameters included",
    "+params+inputs": "parameters and inputs included",
    "kept": "kept for backward, or the sum of outputs",
    "tensors": "storages",
    "allocator": "modelled allocator",
    "layers+products": "layers and products",
    "layers": "attention products left out",
}
_PREFIXES = {"K": 1, "M": 2, "G": 3, "B": 3, "T": 4}  # B: billion
# Units of a metric: the power of 1000 or 1024, and the base that the unit itself settles.
UNITS: Mapping[str, Mapping[str, tuple[int, str | None]]] = {
    "compute": {
        f"{prefix}{word}": (power, None)
        for prefix, power in _PREFIXES.items()
        for word in ("FLOPs", "MACs", "")
        if word == "" or prefix != "B"
    },
    "params": {"": (0, None), "K": (1, None), "M": (2, None), "Mi": (2, "binary")},
    "memory": {"KB": (1, None), "MB": (2, None), "GB": (3, None), "MiB": (2, "binary"), "GiB": (3, "binary")},
    "activations": {"K": (1, "decimal"), "M": (2, "decimal")},
    "latency": {},
    "order": {"N^": (0, None)},
}
RATIOS = ("x", "%")
_LAYERS = ("convolution", "addmm", "mm", "linear")  # one operand is a weight
_BIASED = ("convolution", "addmm", "linear")


@dataclass(frozen=True)
class Convention:
    """One choice per axis of a metric."""

    metric: str
    choices: tuple[tuple[str, str], ...]  # in the order of AXES

    @cached_property
    def of(self) -> dict[str, str]:
        """{axis: choice}."""
        return dict(self.choices)

    @property
    def mode(self) -> str:
        """The mode that its cases are counted in."""
        return self.of.get("mode", "inference")

    def text(self, unit: str = "") -> str:
        """'2 x MAC, G = 10^9'; in the unit of a table, whose base is left out for a ratio."""
        parts = [self.of["mode"]] if "mode" in self.of else []
        parts += [
            _WORDS[self.of[axis]]
            for axis in ("count", "what", "by", "outputs")
            if axis in self.of and self.of[axis] != "tensors"
        ]
        power = UNITS[self.metric].get(unit, (0, None))[0]
        if "base" in self.of and power:
            letter = next((prefix for prefix in _PREFIXES if unit.startswith(prefix)), unit)
            parts.append(f"{letter} = {f'10^{3 * power}' if self.of['base'] == 'decimal' else f'2^{10 * power}'}")
        return ", ".join(parts)

    def scale(self, unit: str) -> float:
        """What a number in base units is divided by to be in `unit`; 1 for a ratio."""
        power, own = UNITS[self.metric].get(unit, (0, None))
        return float((1000 if (own or self.of.get("base")) == "decimal" else 1024) ** power)

    def amount(self, counts: Counts, input_bytes: int) -> float:
        """What the convention counts of a pass, in base units (operations, parameters, bytes)."""
        if self.metric == "params":
            return counts.params
        return _compute(counts, self.of["count"]) if self.metric == "compute" else self._memory(counts, input_bytes)

    def elements(self, outputs: Outputs) -> int:
        """What the convention counts of the outputs of a pass, in elements."""
        return outputs.layers + (outputs.products if self.of["outputs"] == "layers+products" else 0)

    def _memory(self, counts: Counts, input_bytes: int) -> int:
        what = self.of["what"]
        if what == "kept":
            return counts.activation_bytes
        peak = counts.peak_bytes if self.of["by"] == "tensors" else counts.peak_cuda_bytes
        held = {"module": 0, "+params": counts.resident_bytes - input_bytes, "+params+inputs": counts.resident_bytes}
        return peak + held[what]


def _compute(counts: Counts, count: str) -> int:
    macs = counts.macs
    if count in ("2mac", "mac"):
        return macs if count == "mac" else 2 * macs
    if count == "all":
        return counts.flops
    if count == "mac+other":
        return macs + counts.flops - 2 * macs
    if count == "2mac+bias":
        biased = [op for op in counts.ops if op.op in _BIASED]
        return 2 * macs + sum(2 * (op.flops - 2 * op.macs) for op in biased)
    attended = products(counts)
    if count == "mixed":
        return macs + attended
    return (macs - attended) * (2 if count == "2mac-layers" else 1)


def products(counts: Counts) -> int:
    """MACs of products of two activations: what is no layer with weights."""
    return sum(op.macs for op in counts.ops if op.op not in _LAYERS)


def has_base(metric: str, unit: str) -> bool:
    """Whether a unit is a power of 1000 or 1024: a ratio and a plain count are not."""
    return UNITS[metric].get(unit, (0, None))[0] > 0


def stated(metric: str, says: Mapping[str, str], unit: str = "") -> Convention:
    """The convention that a table states; what it does not say is the first choice, or what its unit settles."""
    own = UNITS[metric].get(unit, (0, None))[1]
    chosen = {axis: says.get(axis, own if axis == "base" and own else choices[0]) for axis, choices in AXES[metric].items()}
    return Convention(metric, tuple(chosen.items()))


def candidates(metric: str, says: Mapping[str, str], fixed: Sequence[str] = (), unit: str = "") -> tuple[Convention, ...]:
    """Every convention that a table may mean: the stated one first, then all that differ from it on an axis not fixed."""
    first = stated(metric, says, unit)
    axes = []
    for axis, choices in AXES[metric].items():
        settled = axis in fixed or (axis == "base" and UNITS[metric].get(unit, (0, None))[1])
        own = first.of[axis]
        axes.append([(axis, choice) for choice in ((own,) if settled else (own, *(one for one in choices if one != own)))])
    found = [Convention(metric, combination) for combination in itertools.product(*axes)]
    return tuple(one for one in found if one == first or (one.of.get("what"), one.of.get("by")) != ("kept", "allocator"))
