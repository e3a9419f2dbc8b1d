"""Modules that are harder to count, with their multiply-accumulates worked out by hand, forward and backward.

Made for C channels (a multiple of 16) and an H x W map, batch 1; N = H W. A product of A and B has two derivatives of its own
cost each where both A and B want a gradient; every exception is said. FLOPs, where they are given, are those of one forward
pass: 2 per multiply-accumulate, and the table of attnprof.profiling.counting.flops for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attnprof.records import TensorSpec

HEADS = 4


class NestedEinsum(nn.Module):
    """An einsum whose operands are einsums, and one of three operands.

    Three operands x (N, C), w (C, C), x (N, C): whichever pair is taken first, N C^2 + N^2 C. Weighted sum of values that an
    einsum makes: N C^2 + N^2 C. No product is free of a gradient: backward is twice the forward.
    FLOPs: softmax 5 per element of its map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.between = nn.Parameter(torch.randn(channels, channels))
        self.value = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        scores = torch.einsum("bnc,cd,bmd->bnm", tokens, self.between, tokens)
        return torch.einsum("bnm,bmd->bnd", scores.softmax(-1), torch.einsum("bmc,cd->bmd", tokens, self.value))


class GroupedQuery(nn.Module):
    """Four query heads on one key and one value head, causal: Q and output N C^2 each, K and V N C C/4 each, attention 2 N^2 C.

    A causal mask counts as if nothing were skipped. With enable_gqa the kernel for float32 repeats K and V (no MACs) and is
    torch's math path, whose backward is plain: twice the forward.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.key, self.value = (nn.Linear(channels, channels // HEADS) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q = self.query(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k, v = (project(tokens)[:, None] for project in (self.key, self.value))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Masked(nn.Module):
    """Attention under a float mask, then a causal one, on shared projections: 4 N C^2 and twice 2 N^2 C.

    Both kernels are fused: their backward computes the scores again, 5 N^2 C each. The gradient of
    the mask is that of the scores: no product of its own.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        mixed = functional.scaled_dot_product_attention(mixed, k, v, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _distance(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return score - (q - k).abs()


class Flex(nn.Module):
    """FlexAttention with a score modification, as it runs without torch.compile: QKV 3 N C^2, the whole maps 2 N^2 C.

    Its backward computes the scores again: 5 N^2 C, and 6 N C^2 for the projection.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        from torch.nn.attention.flex_attention import flex_attention

        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = flex_attention(q, k, v, score_mod=_distance)
        assert isinstance(mixed, Tensor)
        return mixed.transpose(1, 2).flatten(2)


class Volume(nn.Module):
    """3 x 3 x 3 to C/2 channels with stride 1, padding 1, over 4 frames: 4 N 27 C C/2. FLOPs: a bias, 1 per result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Convolutions(nn.Module):
    """Transposed 4 x 4, stride 2: every input meets 16 C C/2. Then on 2H x 2W: grouped by 4, 3 x 3, dilated by 2, C/2 to C:
    4 N 9 C/8 C; depthwise 5 x 1: 4 N 5 C. FLOPs: no biases, so 2 per MAC.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.up = nn.ConvTranspose2d(channels, half, 4, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(half, channels, 3, padding=2, dilation=2, groups=4, bias=False)
        self.depthwise = nn.Conv2d(channels, channels, (5, 1), padding=(2, 0), groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.depthwise(self.grouped(self.up(x)))
        return out


class Recurrent(nn.Module):
    """A bidirectional LSTM and GRU of two layers, hidden size h = C/2, over N tokens.

    Per direction and token 4 h (C + h) and 3 h (C + h); the second layers read 2 h = C channels, so all four alike:
    N (4 + 3) h (C + h) 2 2. Backward is twice that, but the first state of each direction wants no gradient: 4 h h and 3 h h
    less, 4 times.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "batch_first": True}
        self.lstm = nn.LSTM(channels, channels // 2, **options)
        self.gru = nn.GRU(channels, channels // 2, **options)

    def forward(self, x: Tensor) -> Tensor:
        tokens, _ = self.lstm(x.flatten(2).transpose(1, 2))
        out, _ = self.gru(tokens)
        return out


class Checkpointed(nn.Module):
    """Two linear layers and a GELU between, C to 4 C to C, recomputed in backward: 8 N C^2 forward.

    Backward 16 N C^2, and the first layer again, 4 N C^2: recomputation ends once everything that was saved is there, and the
    second layer saves only its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def inside(self, tokens: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(tokens)))

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        tokens = x.flatten(2).transpose(1, 2).contiguous()
        out: Tensor = checkpoint(self.inside, tokens, use_reentrant=False)
        return out


class Spectral(nn.Module):
    """A complex linear layer on the spectrum: N C^2 complex multiply-accumulates, 4 N C^2 real ones; backward twice that.

    FLOPs: 2 per MAC; two complex transforms of N points per channel, 5 N log2 N each, the inverse scaled by 1/N, 2 per
    complex element.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(x.to(torch.complex64)).flatten(2).transpose(1, 2)
        mixed = (spectrum @ self.weight).transpose(1, 2).unflatten(2, x.shape[2:])
        return torch.fft.ifft2(mixed).real


class PerSample(nn.Module):
    """vmap of a matrix times a token: N C^2; then vmap of the gradient of ||W t||^2 / 2 in t: W t, and W^T (W t), 2 N C^2.

    Backward of the first: 2 N C^2. Of the second y = W^T W t: each of its two products has two derivatives, 4 N C^2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(channels, channels))
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[0]
        mixed = torch.func.vmap(lambda token: self.matrix @ token)(tokens)
        slope = torch.func.grad(lambda token: 0.5 * (self.weight @ token).square().sum())
        out: Tensor = torch.func.vmap(slope)(mixed)
        return out


class Scripted(nn.Module):
    """A scripted two-layer perceptron between two plain 1 x 1 convolutions: 2 N C^2 and 2 N C^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.inside = torch.jit.script(nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        out: Tensor = self.last(self.inside(tokens).transpose(1, 2).unflatten(2, x.shape[2:]))
        return out


class InPlace(nn.Module):
    """baddbmm_ on a view N^2 C, addmm_ N C^2, index_put_ none, then the map times the tokens N^2 C. Backward twice that."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        count = tokens.shape[1]
        scores = tokens.new_zeros(2, count, count)
        scores[1:].baddbmm_(tokens, tokens.transpose(1, 2))
        first = torch.arange(count, device=x.device)
        scores = scores.index_put_((torch.zeros_like(first), first, first), tokens[0, :, 0], accumulate=True)
        mixed = tokens.new_zeros(count, tokens.shape[2])
        mixed.addmm_(tokens[0], self.weight)
        return scores[1].softmax(-1) @ mixed


class Branching(nn.Module):
    """A branch on .item() and a boolean mask: every second token, ceil(N / 2), through two layers, C to 2 C to C: 4 C^2 each.

    The flag is 1, so that the other branch (C^2) is not run. What the mask lets through is known with data alone: traced real.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.short = nn.Linear(channels, channels)
        self.long = nn.Sequential(nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels))
        self.register_buffer("flag", torch.ones(()))
        self.register_buffer("every", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[0]
        places = torch.arange(tokens.shape[0], device=x.device) % self.get_buffer("every") == 0
        chosen = tokens[places]
        out: Tensor = self.long(chosen) if self.get_buffer("flag").item() > 0 else self.short(chosen)
        return out


Macs = Callable[[int, int, int], int]


def _map(c: int, h: int, w: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec((1, c, h, w)),)


@dataclass(frozen=True)
class Harder:
    """A module for C channels; its forward and backward MACs and forward FLOPs by (C, H, W); its inputs; how it is traced."""

    build: Callable[[int], nn.Module]
    forward: Macs
    backward: Macs
    flops: Macs | None = None
    inputs: Callable[[int, int, int], tuple[TensorSpec, ...]] = _map
    traced_by: str = "meta"


def _twice(forward: Macs) -> Macs:
    return lambda c, h, w: 2 * forward(c, h, w)


def _einsum(c: int, h: int, w: int) -> int:
    return 2 * (h * w * c * c + (h * w) ** 2 * c)


def _grouped(c: int, h: int, w: int) -> int:
    return h * w * (2 * c * c + 2 * c * (c // HEADS)) + 2 * (h * w) ** 2 * c


def _volume(c: int, h: int, w: int) -> int:
    return 4 * h * w * 27 * c * (c // 2)


def _convolutions(c: int, h: int, w: int) -> int:
    return h * w * 16 * c * (c // 2) + 4 * h * w * (9 * (c // 8) * c + 5 * c)


def _recurrent(c: int, h: int, w: int) -> int:
    hidden = c // 2
    return h * w * 7 * hidden * (c + hidden) * 4


def _in_place(c: int, h: int, w: int) -> int:
    return 2 * (h * w) ** 2 * c + h * w * c * c


def _fft_flops(c: int, h: int, w: int) -> int:
    n = h * w
    return 2 * 4 * n * c * c + 2 * math.ceil(5 * n * c * math.log2(n)) + 2 * n * c


def _chosen(c: int, h: int, w: int) -> int:
    return -(-h * w // 2) * 4 * c * c


HARDER: dict[str, Harder] = {
    "nested_einsum": Harder(NestedEinsum, _einsum, _twice(_einsum), lambda c, h, w: 2 * _einsum(c, h, w) + 5 * (h * w) ** 2),
    "grouped_query": Harder(GroupedQuery, _grouped, _twice(_grouped)),
    "masked": Harder(
        Masked,
        lambda c, h, w: 4 * h * w * c * c + 4 * (h * w) ** 2 * c,
        lambda c, h, w: 8 * h * w * c * c + 10 * (h * w) ** 2 * c,
        inputs=lambda c, h, w: (TensorSpec((1, c, h, w)), TensorSpec((h * w, h * w), "mask")),
    ),
    "flex": Harder(
        Flex,
        lambda c, h, w: 3 * h * w * c * c + 2 * (h * w) ** 2 * c,
        lambda c, h, w: 6 * h * w * c * c + 5 * (h * w) ** 2 * c,
    ),
    "volume": Harder(
        Volume,
        _volume,
        _twice(_volume),
        lambda c, h, w: 2 * _volume(c, h, w) + 4 * h * w * (c // 2),
        lambda c, h, w: (TensorSpec((1, c, 4, h, w)),),
    ),
    "convolutions": Harder(Convolutions, _convolutions, _twice(_convolutions), _twice(_convolutions)),
    "recurrent": Harder(Recurrent, _recurrent, lambda c, h, w: 2 * _recurrent(c, h, w) - 4 * 7 * (c // 2) ** 2),
    "checkpointed": Harder(Checkpointed, lambda c, h, w: 8 * h * w * c * c, lambda c, h, w: 20 * h * w * c * c),
    "spectral": Harder(Spectral, lambda c, h, w: 4 * h * w * c * c, lambda c, h, w: 8 * h * w * c * c, _fft_flops),
    "per_sample": Harder(PerSample, lambda c, h, w: 3 * h * w * c * c, lambda c, h, w: 6 * h * w * c * c),
    "scripted": Harder(Scripted, lambda c, h, w: 4 * h * w * c * c, lambda c, h, w: 8 * h * w * c * c),
    "in_place": Harder(InPlace, _in_place, _twice(_in_place)),
    "branching": Harder(Branching, _chosen, _twice(_chosen), traced_by="real"),
}
