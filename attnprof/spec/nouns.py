"""What a spec is made of: Spec, Input, Entry, Measure. Every field that is a tuple is an axis of the sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attnprof.records import MODES
from attnprof.spec.networks import Network
from attnprof.spec.values import DEFAULT_METRICS

if TYPE_CHECKING:
    from attnprof.spec.promises import Promise
    from attnprof.spec.quantities import Tolerance


@dataclass(frozen=True)
class Input:
    """Sizes of the feature map, an axis each: every combination is a shape."""

    channels: tuple[int, ...]
    hw: tuple[tuple[int, int], ...]
    batch: tuple[int, ...] = (1,)
    frames: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Entry:
    """One line of `mechanisms:`. `args`: for each argument the tuple of its values, an axis where it holds more than one.

    `input`: the axes of Input that this entry has of its own, in place of those of the spec. `written`: the import path as the
    spec has it, where that is relative to the spec's folder and `mechanism` therefore another text.
    """

    mechanism: str  # "family/name", or the import path
    label: str
    args: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    imported: bool = False
    line: int = 0  # in the spec file; 0: not from a file
    input: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    written: str = ""
    column: int = 0  # in the line

    @property
    def text(self) -> str:
        """The name or import path as it was written."""
        return self.written or self.mechanism


@dataclass(frozen=True)
class Measure:
    """How to time: seconds per cell, seconds for the whole run (None: no limit), and the device."""

    budget_s: float = 5.0
    run_budget_s: float | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Spec:
    """A parsed spec. `baseline` is a label; `threads` None measures with one; `counters` to cross-check with.

    With hosts the inputs are those of the networks; each stands alone in a row of its own, which ALONE names as the baseline.
    claims, tolerances: what `gate` holds true, and how much more than a baseline it allows.
    """

    inputs: tuple[Input, ...]
    entries: tuple[Entry, ...]
    name: str = "spec"
    dtype: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = MODES
    baseline: str | None = None
    metrics: tuple[str, ...] = DEFAULT_METRICS
    counters: tuple[str, ...] = ()
    measure: Measure = Measure()
    sdpa: tuple[str, ...] = ("auto",)
    memory_format: tuple[str, ...] = ("contiguous",)
    compile: tuple[bool, ...] = (False,)
    autocast: tuple[str, ...] = ("none",)
    threads: tuple[int | None, ...] = (None,)
    source: str = ""
    bounds: str = "auto"
    hosts: tuple[Network, ...] = ()
    claims: tuple[Promise, ...] = ()
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
