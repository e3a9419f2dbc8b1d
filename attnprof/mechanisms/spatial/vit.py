"""Vision Transformer encoder block (ViT).

Paper     Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021,
          arXiv:2010.11929, section 3.1
Idea      An image is a sequence of patches; in every layer all patches attend to all, then each passes through an MLP.
Formula   z = x + MSA(LN(x));  y = z + W_2 gelu(W_1 LN(z) + b_1) + b_2;  MSA = W_o [head_1, ..., head_h] + b_o with
          head_m = softmax(q_m k_m^T / sqrt(C/h)) v_m
Shapes    x: B N C -> y: B N C, with N = H*W patches (and a class token, which is the host's)
Params    12*C*C + 13*C
          LN 4C, attention 4C^2 + 4C, MLP 2*r*C^2 + (r + 1)*C with r = 4
Cost      12*N*C^2 + 2*N^2*C MACs per image, whatever the number of heads; h*N^2 elements where the scores are materialised
          (the math kernel), the 4*N*C of the MLP if fused
Defaults  mlp_ratio r = 4; heads: the most of at least 64 channels each that divide C, as in the paper's models (table 1: 12 at
          768, 16 at 1024; Huge, 16 at 1280, has fewer); one head below 128 channels
Differs   nothing in the layers. q, k and v come from one projection, LN has eps 1e-6 and GELU is exact, as in timm (the
          official JAX code takes GELU's tanh form). No dropout (the paper trains with 0.1 but on JFT) and no
          stochastic depth. Patch embedding, class token, position embedding and the last LN are the host's: ViT-B/16 has twelve
          such blocks at C = 768, N = 197
Survey    domain: spatial; g: divide into groups (patches), dot product between query and key, softmax; f: matmul; tasks: Cls;
          kind: soft; goal: I, IV, VII; stage: 4
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class ViT(nn.Module):
    """Pre-norm attention and MLP, each with a residual: x (B, N, C) -> (B, N, C)."""

    def __init__(self, channels: int, heads: int | None = None, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.heads = usual_heads(channels) if heads is None else heads
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {self.heads} heads")
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.GELU(), nn.Linear(mlp_ratio * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))  # B N C
        return x + self.mlp(self.norm2(x))  # B N C

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head attention of x on itself: B N C -> B N C."""
        batch, positions, channels = x.shape
        qkv = self.qkv(x).view(batch, positions, 3, self.heads, channels // self.heads)  # B N 3 h C/h
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # B h N C/h
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).reshape(batch, positions, channels))  # B N C


def usual_heads(channels: int) -> int:
    """The most heads of at least 64 channels each that divide the channels; one where there are fewer."""
    return next((heads for heads in range(channels // 64, 0, -1) if channels % heads == 0), 1)


def params(channels: int, heads: int | None = None, mlp_ratio: int = 4) -> int:
    """Closed form of the parameter count."""
    mlp = 2 * mlp_ratio * channels**2 + (mlp_ratio + 1) * channels
    return 4 * channels + 4 * channels**2 + 4 * channels + mlp


def macs(shape: Shape, heads: int | None = None, mlp_ratio: int = 4) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    return shape.batch * ((4 + 2 * mlp_ratio) * positions * channels**2 + 2 * positions**2 * channels)


MECHANISM = Mechanism(
    name="vit",
    family="spatial",
    layout="BNC",
    paper="Dosovitskiy et al., ICLR 2021",
    build=ViT,
    params=params,
    macs=macs,
    natural=Shape(1, 768, 14, 14),
)
