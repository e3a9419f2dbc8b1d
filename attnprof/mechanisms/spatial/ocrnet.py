"""Object-contextual representations (OCR).

Paper     Yuan, Chen, Wang, "Object-Contextual Representations for Semantic Segmentation", ECCV 2020,
          arXiv:1909.11065, section 3
Idea      A coarse segmentation gathers one feature per class; each pixel attends to these class features, not to all pixels.
Formula   m_k = softmax over positions of the logits of class k;  f_k = sum_i m_ki x_i;
          w_ik = softmax_k(phi(x_i) . psi(f_k) / sqrt(K));  y_i = g([rho(sum_k w_ik delta(f_k)), x_i])
Shapes    x: B C H W, logits: B classes H W -> y: B C H W
Params    4*C*(K := C//2) + 2*K**2 + 15*K + 2*C**2 + 6*C
          4CK + 2K^2 + 15K + 2C^2 + 6C at K = C/2, whatever the number of classes
Cost      N*(2CK + K^2 + 2C^2) + M*(2CK + K^2) + N*M*(C + 2K) MACs per image with M classes and K key channels: linear in N
Defaults  num_classes 19 (Cityscapes); key_channels K = C/2 (official code: 256 of 512); dropout 0.05 (official code)
Differs   follows the official code: phi and psi are two layers of 1x1 convolution, BN, ReLU, the other transforms one; biases
          before BN; similarity scaled by K^-0.5 (the paper has no scale); dropout after the fusion (training only). The head
          that predicts the logits is outside: they are an input
Survey    domain: spatial; g: class regions, softmax; f: matmul; tasks: SSeg; kind: soft;
          goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape, TensorSpec


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution with bias, BN, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class OCRNet(nn.Module):
    """Object-contextual block: x (B, C, H, W), logits (B, classes, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, num_classes: int = 19, key_channels: int | None = None, dropout: float = 0.05) -> None:
        super().__init__()
        keys = channels // 2 if key_channels is None else key_channels
        self.num_classes = num_classes
        self.key_channels = keys
        self.phi = nn.Sequential(*conv_bn_relu(channels, keys), *conv_bn_relu(keys, keys))
        self.psi = nn.Sequential(*conv_bn_relu(channels, keys), *conv_bn_relu(keys, keys))
        self.delta = conv_bn_relu(channels, keys)
        self.rho = conv_bn_relu(keys, channels)
        self.g = conv_bn_relu(2 * channels, channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        regions = logits.flatten(2).softmax(dim=2)  # B M N
        objects = torch.matmul(regions, x.flatten(2).transpose(1, 2))  # B M C
        objects = objects.transpose(1, 2).unsqueeze(3)  # B C M 1
        query = self.phi(x).flatten(2).transpose(1, 2)  # B N K
        key = self.psi(objects).flatten(2)  # B K M
        value = self.delta(objects).flatten(2).transpose(1, 2)  # B M K
        attention = torch.matmul(query, key)  # B N M
        attention = self.key_channels**-0.5 * attention
        attention = attention.softmax(dim=-1)
        context = torch.matmul(attention, value)  # B N K
        context = context.transpose(1, 2).contiguous().view(batch, self.key_channels, height, width)  # B K H W
        y = torch.cat([self.rho(context), x], dim=1)  # B 2C H W
        return self.dropout(self.g(y))  # B C H W


def params(
    channels: int,
    num_classes: int = 19,
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    k = channels // 2 if key_channels is None else key_channels
    return 4 * channels * k + 2 * k**2 + 15 * k + 2 * channels**2 + 6 * channels


def macs(
    shape: Shape,
    num_classes: int = 19,
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n, m = shape.channels, shape.height * shape.width, num_classes
    k = c // 2 if key_channels is None else key_channels
    pixels = n * (2 * c * k + k**2 + 2 * c**2)  # phi, rho, g
    classes = m * (2 * c * k + k**2)  # psi, delta
    return shape.batch * (pixels + classes + n * m * (c + 2 * k))


def inputs(
    shape: Shape,
    num_classes: int = 19,
    key_channels: int | None = None,
    dropout: float = 0.05,
) -> tuple[TensorSpec, ...]:
    """Features and the coarse segmentation's class logits."""
    features = TensorSpec((shape.batch, shape.channels, *shape.hw), "x")
    return features, TensorSpec((shape.batch, num_classes, *shape.hw), "logits")


MECHANISM = Mechanism(
    name="ocrnet",
    family="spatial",
    layout="BCHW",
    paper="Yuan et al., ECCV 2020",
    build=OCRNet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    inputs=inputs,
)
