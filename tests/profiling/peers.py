"""Twelve modules on which FLOP counters disagree, with their multiply-accumulates worked out by hand.

Each entry is made for C channels and an H x W map; N = H W. The formulas count convolution, matmul and attention of one forward
pass at batch 1. What other counters miss in them: scaled dot-product attention, einsum, `@`, functions on bare parameters,
autograd.Functions, a module reached by two names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class NonLocal(nn.Module):
    """Embedded Gaussian, C / 2 inside: theta, phi, g, output 4 N C C/2; scores and sum 2 N^2 C/2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(channels, channels // 2, 1) for _ in range(3))
        self.out = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).flatten(2) for project in (self.theta, self.phi, self.g))
        weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)
        mixed = (weights @ v.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.out(mixed)


class CrissCross(nn.Module):
    """Q and K of C / 8, twice: per round N C (2 C/8 + C), scores N (H + W) C/8, sums N (H + W) C."""

    def __init__(self, channels: int, rounds: int = 2) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((1,), 0.5))
        self.rounds = rounds

    def once(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = self.query(x), self.key(x), self.value(x)
        column = torch.einsum("bchw,bcgw->bhwg", q, k)
        itself = torch.eye(height, dtype=torch.bool, device=x.device)[None, :, None, :]
        row = torch.einsum("bchw,bchg->bhwg", q, k)
        weights = torch.cat((column.masked_fill(itself, float("-inf")), row), dim=3).softmax(dim=3)
        vertical = torch.einsum("bhwg,bcgw->bchw", weights[..., :height], v)
        horizontal = torch.einsum("bhwg,bchg->bchw", weights[..., height:], v)
        return self.gamma * (vertical + horizontal) + x

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.rounds):
            x = self.once(x)
        return x


class SqueezeExcite(nn.Module):
    """Two linear layers on the pooled vector, r = 16: 2 C C/16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // 16), nn.ReLU(inplace=True), nn.Linear(channels // 16, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x).flatten(1))[:, :, None, None]


class Attention(nn.Module):
    """Eight heads over all places: projections 4 N C^2, scores and sum 2 N^2 C. `how` is the way it is written."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # B N C
        batch, count, channels = tokens.shape
        q, k, v = self.qkv(tokens).reshape(batch, count, 3, 8, channels // 8).permute(2, 0, 3, 1, 4)
        if self.how == "sdpa":
            mixed = functional.scaled_dot_product_attention(q, k, v)
        elif self.how == "einsum":
            weights = torch.einsum("bhnd,bhmd->bhnm", q, k).mul((channels // 8) ** -0.5).softmax(-1)
            mixed = torch.einsum("bhnm,bhmd->bhnd", weights, v)
        else:
            mixed = ((q @ k.transpose(-2, -1)) * (channels // 8) ** -0.5).softmax(-1) @ v
        out: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, count, channels))
        return out.transpose(1, 2).unflatten(2, x.shape[2:])


class MultiHead(nn.Module):
    """The same in nn.MultiheadAttention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return out.transpose(1, 2).unflatten(2, x.shape[2:])


class Deformable(nn.Module):
    """Eight heads, four points each: value N C^2, offsets 64 N C, weights 32 N C, output N C^2.

    Sampling and the weighted sum of samples are element-wise: no multiply-accumulates.
    """

    heads, points = 8, 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        samples = self.heads * self.points
        self.value, self.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.offsets, self.weights = nn.Linear(channels, 2 * samples), nn.Linear(channels, samples)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        count = height * width
        tokens = x.flatten(2).transpose(1, 2)
        value = self.value(tokens).reshape(batch, count, self.heads, channels // self.heads).permute(0, 2, 3, 1)
        value = value.reshape(batch * self.heads, channels // self.heads, height, width)
        offsets = self.offsets(tokens).reshape(batch, count, self.heads, self.points, 2).transpose(1, 2)
        weights = self.weights(tokens).reshape(batch, count, self.heads, self.points).softmax(-1).transpose(1, 2)
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        places = torch.stack((columns.repeat(height), rows.repeat_interleave(width)), dim=-1).to(x.device)[None, None, :, None]
        grid = (places + offsets / width).reshape(batch * self.heads, count, self.points, 2)
        sampled = functional.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        mixed = (sampled * weights.reshape(batch * self.heads, 1, count, self.points)).sum(-1)
        mixed = mixed.reshape(batch, channels, count).transpose(1, 2)
        return x + self.output(mixed).transpose(1, 2).unflatten(2, (height, width))


class EfficientChannel(nn.Module):
    """One kernel of five over the pooled channels: 5 C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        del channels
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv(x.mean(dim=(2, 3))[:, None]).sigmoid()
        return x * gate[:, 0, :, None, None]


class Affinity(torch.autograd.Function):
    """Q K^T over the places, with its derivative written by hand."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        return torch.bmm(q, k.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ctx.saved_tensors
        return torch.bmm(grads[0], k), torch.bmm(grads[0].transpose(1, 2), q)


class ChannelLinalg(nn.Module):
    """Q, K, V 3 N C^2; C x C scores by an autograd.Function N C^2; times V by torch.linalg N C^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).flatten(2) for project in (self.q, self.k, self.v))
        q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
        weights = Affinity.apply(q, k).softmax(dim=-1)  # type: ignore[no-untyped-call]
        return x + torch.linalg.matmul(weights, v).unflatten(2, x.shape[2:])


class Functional(nn.Module):
    """F.conv2d and F.linear on bare parameters: depthwise 3 x 3 9 N C, linear N C^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Parameter(torch.randn(channels, 1, 3, 3))
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
        return functional.linear(y.flatten(2).transpose(1, 2), self.weight)


class Shared(nn.Module):
    """One convolution under two names, called by both: 2 N C^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu())
        return out


@dataclass(frozen=True)
class Peer:
    """A module for C channels, its MACs by (C, H, W), and the same number at C = 512, 97 x 97."""

    build: Callable[[int], nn.Module]
    macs: Callable[[int, int, int], int]
    at_97: int


def _attention(c: int, h: int, w: int) -> int:
    return 4 * h * w * c**2 + 2 * (h * w) ** 2 * c


def _criss_cross(c: int, h: int, w: int) -> int:
    n = h * w
    return 2 * (n * c * (2 * c // 8 + c) + n * (h + w) * (c // 8) + n * (h + w) * c)


PEERS = {
    "nl": Peer(NonLocal, lambda c, h, w: 4 * h * w * c * (c // 2) + 2 * (h * w) ** 2 * (c // 2), 50_260_017_664),
    "cc": Peer(CrissCross, _criss_cross, 8_269_080_832),
    "se": Peer(SqueezeExcite, lambda c, h, w: 2 * c * (c // 16), 32_768),
    "sdpa": Peer(lambda c: Attention(c, "sdpa"), _attention, 100_520_035_328),
    "mha": Peer(MultiHead, _attention, 100_520_035_328),
    "einsum": Peer(lambda c: Attention(c, "einsum"), _attention, 100_520_035_328),
    "matmul": Peer(lambda c: Attention(c, "matmul"), _attention, 100_520_035_328),
    "deform": Peer(Deformable, lambda c, h, w: h * w * c * (96 + 2 * c), 5_395_496_960),
    "eca": Peer(EfficientChannel, lambda c, h, w: 5 * c, 2_560),
    "linalg": Peer(ChannelLinalg, lambda c, h, w: 5 * h * w * c**2, 12_332_564_480),
    "fn": Peer(Functional, lambda c, h, w: 9 * h * w * c + h * w * c**2, 2_509_869_568),
    "shared": Peer(Shared, lambda c, h, w: 2 * h * w * c**2, 4_933_025_792),
}
