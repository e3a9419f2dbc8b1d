"""Window attention (Swin).

Paper     Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, arXiv:2103.14030,
          section 3.2
Idea      Multi-head attention inside windows of M x M positions, with a learned bias per relative position; in every other
          block the windows are shifted by half a window, so that neighbours meet.
Formula   head_m = softmax(q_m k_m^T / sqrt(C/h) + B_m) v_m within each window;  y = W_o [head_1, ..., head_h];
          shift s: the map is rolled by -s along both axes before, by s after; logits of pairs that were not neighbours: -100
Shapes    x: B C H W -> y: B C H W
Params    4*C**2 + 4*C + (2*window - 1)**2*max(C//32, 1)
Cost      4*P*C^2 + 2*P*M^2*C MACs per image with P = H*W after padding to whole windows; h maps of P*M^2 elements
Defaults  window M = 7, C/32 heads (section 3.3), at least one; shift s = 0 (W-MSA; SW-MSA: shift 3 = M//2)
Differs   the official code for detection and segmentation is followed in what it does with any size: zeros below and on the
          right up to whole windows, which take part as keys (their k and v are the biases), and the mask is made for the
          padded map in every call. The classification code takes whole windows only and shrinks the window to the map. Both
          take tokens: here the map itself comes in and goes out. The bias table starts at 0, theirs with a narrow normal. LN,
          MLP, residual and drop path are the host's
Survey    domain: spatial; g: dot product between query and key in a window, relative position bias, softmax; f: matmul;
          tasks: Cls, Det, ISeg, SSeg; kind: soft; goal: I, VI, VII; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class Swin(nn.Module):
    """Attention within windows: x (B, C, H, W) -> (B, C, H, W)."""

    index: Tensor

    def __init__(self, channels: int, heads: int | None = None, window: int = 7, shift: int = 0) -> None:
        super().__init__()
        self.heads = max(channels // 32, 1) if heads is None else heads
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads")
        if not 0 <= shift < window:
            raise ValueError(f"shift {shift} is not within a window of {window}")
        self.window = window
        self.shift = shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        place = torch.arange(window)
        offset = place[:, None] - place[None, :] + window - 1  # M M, from 0 to 2M - 2
        index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]  # M M M M
        self.register_buffer("index", index.flatten())

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        heads, area = self.heads, self.window**2
        x = x.permute(0, 2, 3, 1)  # B H W C
        below, right = -height % self.window, -width % self.window
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        padded = x.shape  # B H' W' C
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        x = self.windows(x).reshape(-1, area, channels)  # Bn MM C
        qkv = self.qkv(x).view(-1, area, 3, heads, channels // heads)  # Bn MM 3 h C/h
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # Bn h MM C/h
        query = query * (channels // heads) ** -0.5
        logits = torch.matmul(query, key.transpose(2, 3))  # Bn h MM MM
        logits = logits + self.bias[self.index].view(area, area, heads).permute(2, 0, 1)
        if self.shift:
            mask = self.mask(padded[1], padded[2], x)  # n 1 MM MM
            logits = (logits.view(batch, -1, heads, area, area) + mask).view(-1, heads, area, area)
        attention = logits.softmax(dim=3)
        y = torch.matmul(attention, value)  # Bn h MM C/h
        y = self.out(y.transpose(1, 2).reshape(-1, area, channels))  # Bn MM C
        y = y.view(batch, padded[1] // self.window, padded[2] // self.window, self.window, self.window, channels)
        y = y.transpose(2, 3).reshape(padded)  # B H' W' C
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        return y[:, :height, :width].permute(0, 3, 1, 2)  # B C H W

    def windows(self, x: Tensor) -> Tensor:
        """B H' W' C -> B H'/M W'/M M M C."""
        batch, height, width, channels = x.shape
        x = x.view(batch, height // self.window, self.window, width // self.window, self.window, channels)
        return x.transpose(2, 3)

    def mask(self, height: int, width: int, like: Tensor) -> Tensor:
        """-100 for pairs of a window that the roll brought together, 0 for the others: n 1 MM MM."""
        rows, columns = self.regions(height, like.device), self.regions(width, like.device)
        regions = self.windows((3 * rows[:, None] + columns)[None, :, :, None])  # 1 H'/M W'/M M M 1
        regions = regions.reshape(-1, 1, self.window**2)  # n 1 MM
        apart = regions.unsqueeze(3) != regions.unsqueeze(2)  # n 1 MM MM
        return apart.to(like.dtype) * -100.0

    def regions(self, size: int, device: torch.device) -> Tensor:
        """0 before the last window, 1 in it, 2 in its part that was rolled in from the other side."""
        place = torch.arange(size, device=device)
        return (place >= size - self.window).long() + (place >= size - self.shift).long()


def params(channels: int, heads: int | None = None, window: int = 7, shift: int = 0) -> int:
    """Closed form of the parameter count."""
    heads = max(channels // 32, 1) if heads is None else heads
    return 4 * channels**2 + 4 * channels + (2 * window - 1) ** 2 * heads


def macs(shape: Shape, heads: int | None = None, window: int = 7, shift: int = 0) -> int:
    """Multiply-accumulates of one forward pass."""
    channels = shape.channels
    positions = (-(-shape.height // window) * window) * (-(-shape.width // window) * window)
    return shape.batch * positions * (4 * channels**2 + 2 * window**2 * channels)


MECHANISM = Mechanism(
    name="swin",
    family="spatial",
    layout="BCHW",
    paper="Liu et al., ICCV 2021",
    build=Swin,
    params=params,
    macs=macs,
    natural=Shape(1, 96, 56, 56),
    rows={"shift": (0, 3)},
)
