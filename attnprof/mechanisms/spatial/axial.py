"""Axial attention: multi-head attention along the rows, then along the columns.

Paper     Ho et al., "Axial Attention in Multidimensional Transformers", 2019, arXiv:1912.12180, section 3.1
Idea      Full attention along one axis at a time: each pass costs N*L instead of N^2, and two passes connect every pair.
Formula   per axis and head: softmax(Q K^T / sqrt(C/h)) V along that axis; heads concatenated, then W_o;  y = columns(rows(x))
Shapes    x: B C H W -> y: B C H W
Params    8*C**2 + 2*C
Cost      8*N*C^2 + 2*N*(H+W)*C MACs per image; logits and attention have h*N*W elements along the rows, h*N*H along the columns
Defaults  heads h = 8 (as the public port; the paper leaves it to the experiment)
Differs   sequential, rows first, as the paper stacks its row and column blocks: the receptive field is full after both passes.
          The public port sums both axes of the same input by default: same parameters and MACs, but each position sees its
          cross only. As in the port, biases only in the output projection, a head width of C/h, and no residual, normalisation,
          position embedding or feed-forward layer inside (the paper's blocks have them around the attention).
Survey    domain: spatial; g: dot product between query and key along one axis, softmax; f: weighted sum; tasks: Cls, SSeg;
          kind: soft; goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class _SequenceAttention(nn.Module):
    """Multi-head attention within sequences: x (S, L, C) -> (S, L, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_kv = nn.Linear(channels, 2 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        query = self._split(self.to_q(x))  # S h L C/h
        key, value = (self._split(part) for part in self.to_kv(x).chunk(2, dim=-1))  # S h L C/h
        logits = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5  # S h L L
        attention = logits.softmax(dim=-1)
        out = attention @ value  # S h L C/h
        return self.to_out(out.transpose(1, 2).reshape(x.shape))  # S L C

    def _split(self, x: Tensor) -> Tensor:
        """S L C -> S h L C/h."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Axial(nn.Module):
    """Attention along rows, then along columns: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.rows = _SequenceAttention(channels, heads)
        self.columns = _SequenceAttention(channels, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, width, channels)  # BH W C
        x = self.rows(rows).view(batch, height, width, channels)  # B H W C
        columns = x.transpose(1, 2).reshape(batch * width, height, channels)  # BW H C
        x = self.columns(columns).view(batch, width, height, channels)  # B W H C
        return x.permute(0, 3, 2, 1).contiguous()  # B C H W


def params(channels: int, heads: int = 8) -> int:
    """Closed form of the parameter count."""
    return 8 * channels**2 + 2 * channels


def macs(shape: Shape, heads: int = 8) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    projections = 2 * 4 * positions * channels**2
    attention = 2 * positions * (shape.height + shape.width) * channels
    return shape.batch * (projections + attention)


MECHANISM = Mechanism(
    name="axial",
    family="spatial",
    layout="BCHW",
    paper="Ho et al., 2019",
    build=Axial,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 56, 56),
)
