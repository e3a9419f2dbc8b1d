"""Recurrent spatial-temporal attention network (RSTAN).

Paper     Du, Wang, Qiao, "Recurrent Spatial-Temporal Attention Network for Action Recognition in Videos", IEEE TIP 2018
Idea      At every step an LSTM looks at the whole video: its hidden state weighs the positions of each frame, then the frames,
          and the one vector that results is its input.
Formula   a_t(n, k) = softmax_k(g_a w_a . tanh(W_h h_{t-1} + W_x x(n, k) + b_a));  l_t(n) = sum_k a_t(n, k) x(n, k);
          b_t(n) = softmax_n(g_b w_b . tanh(V_h h_{t-1} + V_l l_t(n) + b_b));  c_t = sum_n b_t(n) l_t(n);
          h_t = LSTM(c_t, h_{t-1});  y_t = W_y h_t + b_y; two streams: y_t = W_y [h_t of appearance, h_t of motion] + b_y
Shapes    x: B T C H W (with streams = 2 a second one, motion) -> y: B T classes, a prediction at each of T steps
Params    streams*(2*a*(C + h + 2) + 4*h*(C + h + 1)) + (streams*h + 1)*classes
          attention 2(CA + hA + 2A), LSTM 4h(C + h + 1) per stream with A = attention units; (streams*h + 1)*classes
Cost      per stream T*N*C*A once; at each of T steps T*N*(A + C) + T*(C*A + A + C) + 2*h*A + 4h(C + h), and
          streams*h*classes MACs; a map of T*N*A elements per step, kept for all steps in training
Defaults  T steps; streams 1 (the paper's full model: 2); classes 101 (UCF101); sharpness g_a = g_b = 1; hidden h = attention
          A = 512
Differs   interpretation (there is no public code): h, A, the sharpness and the zero start of the states are choices; the scores
          have no bias (softmax is blind to it); the LSTM has no peepholes and one bias per gate. W_x x is computed once for all
          steps, a step only adds W_h h: the same function. Attention-driven fusion is read as two streams, each with its own
          attention and LSTM on its own features, joined at the hidden states by one classifier that trains both. The mean of
          y_t over t scores the video. The regularisation of the attention by actors' boxes is a loss of the host
Survey    domain: spatial & temporal; g: a) spatial, fuse hidden state, MLP, softmax, b) temporal, fuse hidden state, MLP,
          softmax; f: weighted sum over positions and frames; tasks: Action; kind: soft; goal: I, II; stage: 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape, TensorSpec


class Stream(nn.Module):
    """Attention over a video and the LSTM that steers it: (B, T, C, H, W) -> hidden states (B, T, h)."""

    def __init__(self, channels: int, hidden: int, attention: int, sharpness: tuple[float, float]) -> None:
        super().__init__()
        self.hidden = hidden
        self.sharpness = sharpness
        self.position_key = nn.Linear(channels, attention)
        self.position_query = nn.Linear(hidden, attention, bias=False)
        self.position_score = nn.Linear(attention, 1, bias=False)
        self.frame_key = nn.Linear(channels, attention)
        self.frame_query = nn.Linear(hidden, attention, bias=False)
        self.frame_score = nn.Linear(attention, 1, bias=False)
        self.gates = nn.Linear(channels + hidden, 4 * hidden)

    def attend(self, x: Tensor, keys: Tensor, hidden: Tensor) -> Tensor:
        """The vector of the video that the hidden state asks for; x B T C N, keys B T N A -> B C."""
        query = self.position_query(hidden)[:, None, None]  # B 1 1 A
        scores = self.position_score((keys + query).tanh())  # B T N 1
        weights = (self.sharpness[0] * scores).softmax(dim=2)
        frames = torch.matmul(x, weights).squeeze(3)  # B T C
        query = self.frame_query(hidden)[:, None]  # B 1 A
        scores = self.frame_score((self.frame_key(frames) + query).tanh())  # B T 1
        weights = (self.sharpness[1] * scores).softmax(dim=1)
        return torch.matmul(frames.transpose(1, 2), weights).squeeze(2)  # B C

    def forward(self, video: Tensor) -> Tensor:
        batch, frames = video.shape[:2]
        x = video.flatten(3)  # B T C N
        keys = self.position_key(x.transpose(2, 3))  # B T N A
        hidden = cell = video.new_zeros(batch, self.hidden)
        states = []
        for _ in range(frames):
            context = self.attend(x, keys, hidden)  # B C
            gates = self.gates(torch.cat([context, hidden], dim=1))  # B 4h
            write, forget, read, new = gates.chunk(4, dim=1)  # B h each
            cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = read.sigmoid() * cell.tanh()
            states.append(hidden)
        return torch.stack(states, dim=1)  # B T h


class RSTAN(nn.Module):
    """A prediction per step from the whole video: one or two (B, T, C, H, W) -> (B, T, classes)."""

    def __init__(
        self,
        channels: int,
        hidden: int = 512,
        attention: int = 512,
        classes: int = 101,
        streams: int = 1,
        spatial_sharpness: float = 1.0,
        temporal_sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        if streams not in (1, 2):
            raise ValueError(f"streams is 1 or 2, not {streams}")
        sharpness = (spatial_sharpness, temporal_sharpness)
        self.streams = nn.ModuleList(Stream(channels, hidden, attention, sharpness) for _ in range(streams))
        self.classify = nn.Linear(streams * hidden, classes)

    def forward(self, *videos: Tensor) -> Tensor:
        states = [stream(video) for stream, video in zip(self.streams, videos, strict=True)]  # B T h each
        return self.classify(torch.cat(states, dim=2))  # B T classes


def params(
    channels: int,
    hidden: int = 512,
    attention: int = 512,
    classes: int = 101,
    streams: int = 1,
    spatial_sharpness: float = 1.0,
    temporal_sharpness: float = 1.0,
) -> int:
    """Closed form of the parameter count."""
    c, h, a = channels, hidden, attention
    attentions = 2 * (c * a + a + h * a + a)
    return streams * (attentions + 4 * h * (c + h + 1)) + (streams * h + 1) * classes


def macs(
    shape: Shape,
    hidden: int = 512,
    attention: int = 512,
    classes: int = 101,
    streams: int = 1,
    spatial_sharpness: float = 1.0,
    temporal_sharpness: float = 1.0,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, h, a = shape.channels, hidden, attention
    frames, positions = shape.frames, shape.height * shape.width
    spatial = h * a + frames * positions * (a + c)
    temporal = h * a + frames * (c * a + a + c)
    step = spatial + temporal + 4 * h * (c + h)
    return shape.batch * frames * (streams * (positions * c * a + step) + streams * h * classes)


def inputs(shape: Shape, streams: int = 1, **_: object) -> tuple[TensorSpec, ...]:
    """The features of the frames and, with two streams, those of the optical flow."""
    size = (shape.batch, shape.frames, shape.channels, *shape.hw)
    return tuple(TensorSpec(size, name) for name in ("appearance", "motion")[:streams])


MECHANISM = Mechanism(
    name="rstan",
    family="spatial_temporal",
    layout="BTCHW",
    paper="Du et al., TIP 2018",
    build=RSTAN,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 1024, 7, 7, 25),
    rows={"streams": (1, 2)},
)
