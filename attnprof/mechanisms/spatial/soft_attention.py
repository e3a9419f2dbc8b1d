"""Soft attention of Show, Attend and Tell: one step of the decoder.

Paper     Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015,
          arXiv:1502.03044, sections 3.1.2, 4.2 and 4.2.1
Idea      Before each word, weigh all positions of the feature map by how well they go with the decoder's state, and pass on
          their mean.
Formula   e_i = w . tanh(W_a a_i + W_h h) + c;  alpha = softmax_i(e);  z = beta * sum_i alpha_i a_i;
          beta = 1 (gate "none"), or sigmoid(W_b h), a number (gate "scalar") or one per channel (gate "channel")
Shapes    features a: B N D with D = C, state h: B hidden -> z: B D, alpha: B N
Params    2*C**2 + 3*C + 1
          D A + R A + 3A + 1 with R = hidden and A = attention, both D by default; a gate adds R + 1 or (R + 1) D
Cost      N D A + R A + N A + N D MACs per image and step, plus the gate's R or R D; an N x A map
Defaults  hidden = attention = D (attention as in the official code; both 512 at D = 512 in sgrvinod's tutorial; the official
          state has 1000); tanh (official code); the paper's features are 196 x 512, of VGG; no gate: section 4.2 without 4.2.1
Differs   W_a and W_h have a bias each, as in the tutorial; the official code has one for both. The tutorial has a ReLU
          (activation "relu") and gate "channel"; section 4.2.1 has gate "scalar" (the official code's selector, off by
          default). The doubly stochastic penalty (1 - sum_t alpha_ti)^2 is the training loop's: alpha is an output. A step
          projects the features anew; a decoder may keep W_a a over its steps
Survey    domain: spatial; g: compute similarity between visual features and previous hidden state, interpret attention weight;
          f: weighted sum; tasks: ICap; kind: soft; goal: I; stage: 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape, TensorSpec


class SoftAttention(nn.Module):
    """Expectation over positions: features (B, N, D), state (B, hidden) -> z (B, D), alpha (B, N)."""

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        attention: int | None = None,
        gate: str = "none",
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation is 'tanh' or 'relu', not {activation!r}")
        hidden, attention = hidden or channels, attention or channels
        self.features = nn.Linear(channels, attention)
        self.state = nn.Linear(hidden, attention)
        self.activation = nn.Tanh() if activation == "tanh" else nn.ReLU()
        self.score = nn.Linear(attention, 1)
        self.gate = nn.Linear(hidden, gate_width(channels, gate)) if gate != "none" else None

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        joint = self.activation(self.features(features) + self.state(state).unsqueeze(1))  # B N A
        alpha = self.score(joint).squeeze(2).softmax(dim=1)  # B N
        z = torch.bmm(alpha.unsqueeze(1), features).squeeze(1)  # B D
        if self.gate is not None:
            z = self.gate(state).sigmoid() * z
        return z, alpha


def gate_width(channels: int, gate: str) -> int:
    """How many numbers the gate has."""
    numbers = {"none": 0, "scalar": 1, "channel": channels}
    if gate not in numbers:
        raise ValueError(f"gate is 'none', 'scalar' or 'channel', not {gate!r}")
    return numbers[gate]


def params(
    channels: int,
    hidden: int | None = None,
    attention: int | None = None,
    gate: str = "none",
    activation: str = "tanh",
) -> int:
    """Closed form of the parameter count."""
    r, a = hidden or channels, attention or channels
    return channels * a + r * a + 3 * a + 1 + (r + 1) * gate_width(channels, gate)


def macs(
    shape: Shape,
    hidden: int | None = None,
    attention: int | None = None,
    gate: str = "none",
    activation: str = "tanh",
) -> int:
    """Multiply-accumulates of one forward pass."""
    d, n = shape.channels, shape.height * shape.width
    r, a = hidden or d, attention or d
    return shape.batch * (n * d * a + r * a + n * a + n * d + r * gate_width(d, gate))


def inputs(shape: Shape, hidden: int | None = None, **_: object) -> tuple[TensorSpec, ...]:
    """The features of all positions and the decoder's state."""
    features = TensorSpec((shape.batch, shape.height * shape.width, shape.channels), "features")
    return features, TensorSpec((shape.batch, hidden or shape.channels), "state")


MECHANISM = Mechanism(
    name="soft_attention",
    family="spatial",
    layout="BNC",
    paper="Xu et al., ICML 2015",
    build=SoftAttention,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 512, 14, 14),
    rows={"gate": ("none", "channel")},
    exempt={
        "every_parameter_gets_a_finite_gradient:score.bias": "softmax is blind to a shift of all logits of a row",
    },
)
