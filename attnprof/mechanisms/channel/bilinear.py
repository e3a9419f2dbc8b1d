"""Bilinear attention (Bi-attention with attention in attention, BAT-net).

Paper     Fang, Zhou, Roy, Petersson, Harandi, "Bilinear Attention Networks for Person Retrieval", ICCV 2019. Not the Bilinear
          Attention Networks for visual question answering (NeurIPS 2018)
Idea      Attend by local second-order statistics: at every position the products of all pairs of a few channels, weighed by
          an inner attention from the same products averaged over the image.
Formula   u = phi(x);  t_i = the upper triangle of u_i u_i^T;  y = sigmoid(omega(GAP(t)) * psi(t)) * x;
          phi: C -> c, psi and omega: c(c + 1)/2 -> C, each relu(BN(W .))
Shapes    x: B C H W -> y: B C H W
Params    C*(c := max(C//r, 1)) + 3*c + C*c*(c + 1) + 6*C
          C*c + c + 2*c and twice D*C + C + 2*C, with c = C/r and D = c(c + 1)/2, diagonal included
Cost      N*C*c + N*D*C + D*C MACs per image: the products are element-wise (see FLOPs); maps of N*c^2 and N*D elements, of
          N*C^2/r^2 and about half of it
Defaults  reduction r = 16: c = 30 at the 480 channels where the paper's network has it (official code)
Differs   follows the official code for what the formula leaves open: phi, psi and omega are 1x1 convolutions with bias, BN and
          ReLU; omega is one such layer without a gate of its own, straight to C channels, so that it scales psi(t). The code
          takes the triangle diagonal by diagonal from batched matrix products (c^2*N MACs); here by rows from an outer product:
          the same function with its weights in another order. One channel is kept where C < r. In training, torch's BatchNorm2d
          refuses one value per channel (omega at batch 1): here it is normalised all the same, to BN's shift, the branch's
          other parts get a zero gradient, and the running statistics stay as they are
Survey    domain: channel; g: bilinear pooling, convolution, inner attention, sigmoid; f: scale; tasks: ReID; kind: soft;
          goal: I, II; stage: 3 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel in training, of which there is no running variance."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return torch.batch_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, torch.backends.cudnn.enabled)
        return super().forward(x)


def conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution with bias, BN, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), BatchNorm(outputs), nn.ReLU(inplace=True))


class Bilinear(nn.Module):
    """Gate from products of channel pairs: x (B, C, H, W) -> (B, C, H, W)."""

    triangle: Tensor

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        width = max(channels // reduction, 1)
        pairs = width * (width + 1) // 2
        triangle = [row * width + column for row in range(width) for column in range(row, width)]
        self.register_buffer("triangle", torch.tensor(triangle), persistent=False)
        self.phi = conv_bn_relu(channels, width)
        self.psi = conv_bn_relu(pairs, channels)
        self.omega = conv_bn_relu(pairs, channels)

    def forward(self, x: Tensor) -> Tensor:
        u = self.phi(x)  # B c H W
        t = (u.unsqueeze(2) * u.unsqueeze(1)).flatten(1, 2)  # B c*c H W
        t = t.index_select(1, self.triangle)  # B D H W
        inner = self.omega(t.mean(dim=(2, 3), keepdim=True))  # B C 1 1
        gate = (inner * self.psi(t)).sigmoid()  # B C H W
        return x * gate


def params(channels: int, reduction: int = 16) -> int:
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    pairs = width * (width + 1) // 2
    return channels * width + 3 * width + 2 * (pairs * channels + 3 * channels)


def macs(shape: Shape, reduction: int = 16) -> int:
    """Multiply-accumulates of one forward pass."""
    width = max(shape.channels // reduction, 1)
    pairs, n = width * (width + 1) // 2, shape.height * shape.width
    return shape.batch * shape.channels * (n * width + n * pairs + pairs)


MECHANISM = Mechanism(
    name="bilinear",
    family="channel",
    layout="BCHW",
    paper="Fang et al., ICCV 2019",
    build=Bilinear,
    params=params,
    macs=macs,
    natural=Shape(1, 480, 16, 8),
)
