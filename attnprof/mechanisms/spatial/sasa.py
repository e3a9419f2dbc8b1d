"""Stand-alone self-attention (SASA).

Paper     Ramachandran, Parmar, Vaswani, Bello, Levskaya, Shlens, "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019,
          arXiv:1906.05909, the section on the stand-alone self-attention layer
Idea      A layer in place of a k x k convolution: each position attends to the k x k positions around it, by content and by
          relative position.
Formula   y_i = sum_{j in N_k(i)} softmax_j(q_i . k_j + q_i . r_{j-i}) v_j in every head;  q, k, v = W_q x, W_k x, W_v x;
          r_{j-i} = [row embedding of the row offset, column embedding of the column offset]
Shapes    x: B C H W -> y: B C H W
Params    3*C*C + kernel*C*relative
          3C^2 + kC: per head k row and k column embeddings, each of half the head's channels
Cost      N*(3*C^2 + 2*k^2*C + k*C) MACs per image, the last term for the relative part; keys and then values of all
          windows, maps of N*k^2*C elements: both are kept in training
Defaults  kernel k = 7, heads h = 8 (the paper's ImageNet models), relative positions
Differs   relative: q . r is computed for k rows and k columns, then added up per offset: N*k*C MACs, not N*k^2*C. Border: the
          paper does not say; positions outside the image are left out of the softmax. mask_border=False has zero keys and
          values there, which take part in the softmax: the rule of the public ports. Those take the softmax of q*(k + r)
          channel by channel instead of the dot product over a head's channels: not followed. No 1/sqrt(d), no bias, as in the
          equations. Own tables for every head. Stride (a 2 x 2 average pool after it) and the stem with spatially
          mixed values are the host's
Survey    domain: spatial; g: dot product between query and key in a window, softmax; f: weighted sum; tasks: Cls, Det;
          kind: soft; goal: I, V; stage: 4
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class SASA(nn.Module):
    """Attention within the window around each position: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, kernel: int = 7, heads: int = 8, relative: bool = True, mask_border: bool = True) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        if kernel % 2 == 0:
            raise ValueError(f"the window's side must be odd, not {kernel}")
        self.kernel, self.heads, self.relative, self.mask_border = kernel, heads, relative, mask_border
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        if relative:
            size = channels // heads
            self.rows = nn.Parameter(torch.randn(heads, size // 2, kernel))
            self.columns = nn.Parameter(torch.randn(heads, size - size // 2, kernel))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        heads, size, points = self.heads, channels // self.heads, self.kernel**2
        query = self.query(x).view(batch, heads, size, height * width).transpose(2, 3)  # B h N d
        logits = torch.bmm(query.reshape(-1, 1, size), self.windows(self.key(x)))  # B*h*N 1 k^2
        logits = logits.view(batch, heads, -1, points)  # B h N k^2
        if self.relative:
            logits = logits + self.positions(query)
        if self.mask_border:
            logits = logits + self.border(x)
        attention = logits.softmax(dim=-1)
        y = torch.bmm(self.windows(self.value(x)), attention.view(-1, points, 1))  # B*h*N d 1
        y = y.view(batch, heads, -1, size)  # B h N d
        return y.transpose(2, 3).reshape(batch, channels, height, width)  # B C H W

    def windows(self, x: Tensor) -> Tensor:
        """The window of every position, zeros outside the image: B C H W -> B*h*N d k^2."""
        padded = F.pad(x, [self.kernel // 2] * 4).unflatten(1, (self.heads, -1))  # B h d H+k-1 W+k-1
        windows = padded.unfold(3, self.kernel, 1).unfold(4, self.kernel, 1)  # B h d H W k k
        return windows.permute(0, 1, 3, 4, 2, 5, 6).reshape(-1, windows.shape[2], self.kernel**2)

    def positions(self, query: Tensor) -> Tensor:
        """Query times embedding, for every offset: B h N d -> B h N k^2."""
        half = query.shape[3] // 2
        rows = torch.matmul(query[..., :half], self.rows)  # B h N k
        columns = torch.matmul(query[..., half:], self.columns)  # B h N k
        return (rows[..., :, None] + columns[..., None, :]).flatten(3)

    def border(self, x: Tensor) -> Tensor:
        """0 for a position of a window that is in the image, -inf for one that is not: N k^2."""
        outside = F.pad(x.new_zeros(x.shape[2:]), [self.kernel // 2] * 4, value=float("-inf"))  # H+k-1 W+k-1
        windows = outside.unfold(0, self.kernel, 1).unfold(1, self.kernel, 1)  # H W k k
        return windows.reshape(-1, self.kernel**2)


def params(channels: int, kernel: int = 7, heads: int = 8, relative: bool = True, mask_border: bool = True) -> int:
    """Closed form of the parameter count."""
    return 3 * channels**2 + (kernel * channels if relative else 0)


def macs(shape: Shape, kernel: int = 7, heads: int = 8, relative: bool = True, mask_border: bool = True) -> int:
    """Multiply-accumulates of one forward pass."""
    channels = shape.channels
    per_position = 3 * channels**2 + 2 * kernel**2 * channels + (kernel * channels if relative else 0)
    return shape.batch * shape.height * shape.width * per_position


MECHANISM = Mechanism(
    name="sasa",
    family="spatial",
    layout="BCHW",
    paper="Ramachandran et al., NeurIPS 2019",
    build=SASA,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14),
)
