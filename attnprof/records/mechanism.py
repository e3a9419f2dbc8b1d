"""What a mechanism's file declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnprof.records.case import Shape


@dataclass(frozen=True)
class TensorSpec:
    """One input of a module, without data. `dtype` None means the case's dtype.

    `values` is what a real run fills in: "normal" (standard normal), "uniform" (in [0, 1): coordinates, boxes, scores); an
    integer or boolean input gets zeros and ones.
    """

    shape: tuple[int, ...]
    name: str = "x"
    dtype: str | None = None
    values: str = "normal"


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism (or baseline) of the catalogue; a file `mechanisms/<family>/<name>.py` declares one.

    build(channels, **args) -> nn.Module. A parameter named `hw` or `frames` gets the case's (H, W) or T unless it is given.
    params(channels, **args) -> int: the closed form of the parameter count; gets `hw`/`frames` where build does.
    macs(shape, **args) -> int: multiply-accumulates of one forward pass (convolution, matmul, attention), by hand.
    inputs(shape, **args) -> the module's inputs, the batch first in each; None means one tensor in `layout`.
    objective(outputs) -> what the backward pass starts from, where the outputs alone would leave parameters without a gradient:
    a loss, or tensors that each get a dense gradient.
    natural: a shape that the mechanism is used at, in its paper or in a network: where specs/survey.yaml puts it.
    rows: {argument: values} in wide use beside the defaults: rows of their own in specs/survey.yaml, the default first.
    exempt: {check name: reason} for common checks that do not apply; "check:part" for a part of it (one parameter).
    """

    name: str
    family: str
    layout: str  # of the (first) input: BCHW, BNC, and with frames BTCHW, BTC
    paper: str
    build: Callable[..., Any]
    params: Callable[..., int] | None = None
    macs: Callable[..., int] | None = None
    inputs: Callable[..., tuple[TensorSpec, ...]] | None = None
    objective: Callable[[Any], Any] | None = None
    natural: Shape | None = None
    rows: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
