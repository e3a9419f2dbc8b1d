"""Vision Transformer: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Touvron et al., "DeiT", ICML 2021.

Sizes B and L are the first paper's, Ti and S the second's.
Patches of 16x16 and a class token are (B, N, C) tokens, N = H*W/256 + 1. A block is x + attention(norm1(x)), then
x + mlp(norm2(x)): `blocks.*.attention` and `blocks.*.mlp` end before the additions, `blocks.*` after both. Attention is one
call of F.scaled_dot_product_attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NATURAL = (3, 224, 224)
VARIANTS = {
    "vit-ti16": {"width": 192, "depth": 12, "heads": 3},
    "vit-s16": {"width": 384, "depth": 12, "heads": 6},
    "vit-b16": {"width": 768, "depth": 12, "heads": 12},
    "vit-l16": {"width": 1024, "depth": 24, "heads": 16},
}
PARAMS = {  # timm's vit_tiny_patch16_224 and vit_small_patch16_224, torchvision's vit_b_16 and vit_l_16
    "vit-ti16": 5_717_416,
    "vit-s16": 22_050_664,
    "vit-b16": 86_567_656,
    "vit-l16": 304_326_632,
}
SITES = {"attention": "blocks.*.attention", "mlp": "blocks.*.mlp", "block": "blocks.*", "patches": "patches"}
_PATCH = 16


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        batch, count, width = x.shape
        q, k, v = (
            self.qkv(x).reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )  # B heads N C/heads
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return out


class Block(nn.Module):
    """Pre-norm attention and MLP, a residual around each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ViT(nn.Module):
    """Patches, class token, position embedding, blocks, and a linear classifier on the class token."""

    def __init__(self, channels: int, hw: tuple[int, int], width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        count = (hw[0] // _PATCH) * (hw[1] // _PATCH) + 1
        self.patches = nn.Conv2d(channels, width, _PATCH, _PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, count, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)  # B N C
        tokens = torch.cat((self.token.expand(len(x), -1, -1), tokens), dim=1) + self.position
        out: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return out


def build(width: int, depth: int, heads: int, channels: int = 3, hw: tuple[int, int] = (224, 224), classes: int = 1000) -> ViT:
    """The network for images of `hw`, a multiple of 16 each."""
    if hw[0] % _PATCH or hw[1] % _PATCH:
        raise ValueError(f"an image of {hw[0]}x{hw[1]} is no whole number of {_PATCH}x{_PATCH} patches")
    return ViT(channels, (hw[0], hw[1]), width, depth, heads, classes)
