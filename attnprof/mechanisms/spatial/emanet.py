"""Expectation-Maximization Attention Unit (EMAU).

Paper     Li, Zhong, Wu, Yang, Lin, Liu, "Expectation-Maximization Attention Networks for Semantic Segmentation", ICCV 2019,
          arXiv:1907.13426, section 3
Idea      EM finds a few bases for the features of an image and rebuilds the map from them: attention to K bases.
Formula   f = W1 x;  T times: z = softmax_k(f^T mu), mu = normalise(f z / (1e-6 + sum_n z));
          y = relu(x + BN(W2 relu(mu z^T)))
Shapes    x: B C H W -> y: B C H W
Params    2*C**2 + 3*C
          W1 with bias, W2 without, BN; the C x K bases are a buffer
Cost      2*N*C^2 + (2T + 1)*N*K*C MACs per image; N x K maps
Defaults  bases K = 64, iterations T = 3 (section 4); no temperature (lambda = 1, official code)
Differs   follows the official code: EM runs without gradients, so W1, which only feeds it, never learns: it is frozen here, the
          official optimiser lists it and it gets no gradient; W1 has a bias; the z that rebuilds the map is from before the
          last update of mu. The unit returns y alone: the official one returns mu too, for the moving average of the bases
          (momentum 0.9) that its training loop keeps
Survey    domain: spatial; g: EM, softmax over bases; f: matmul; tasks: SSeg; kind: soft;
          goal: I, IV, V; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class EMANet(nn.Module):
    """Expectation-maximization attention: x (B, C, H, W) -> (B, C, H, W)."""

    mu: Tensor

    def __init__(self, channels: int, bases: int = 64, iterations: int = 3) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"EM takes one iteration or more, not {iterations}")
        self.iterations = iterations
        mu = torch.randn(1, channels, bases) * math.sqrt(2.0 / bases)
        self.register_buffer("mu", self.normalise(mu))
        self.conv1 = nn.Conv2d(channels, channels, 1).requires_grad_(False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    @staticmethod
    def normalise(mu: Tensor) -> Tensor:
        """Unit length for each basis."""
        return mu / (1e-6 + mu.norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        mu = self.mu.repeat(batch, 1, 1)  # B C K
        with torch.no_grad():
            f = self.conv1(x).view(batch, channels, height * width)  # B C N
            for _ in range(self.iterations):
                z = torch.bmm(f.transpose(1, 2), mu)  # B N K
                z = z.softmax(dim=2)
                weights = z / (1e-6 + z.sum(dim=1, keepdim=True))
                mu = torch.bmm(f, weights)  # B C K
                mu = self.normalise(mu)
        y = torch.matmul(mu, z.transpose(1, 2))  # B C N
        y = y.view(batch, channels, height, width).relu_()  # B C H W
        y = self.bn(self.conv2(y)) + x
        return y.relu_()


def params(channels: int, bases: int = 64, iterations: int = 3) -> int:
    """Closed form of the parameter count."""
    return 2 * channels**2 + 3 * channels


def macs(shape: Shape, bases: int = 64, iterations: int = 3) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    return shape.batch * (2 * n * c**2 + (2 * iterations + 1) * n * bases * c)


MECHANISM = Mechanism(
    name="emanet",
    family="spatial",
    layout="BCHW",
    paper="Li et al., ICCV 2019",
    build=EMANet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:conv1.weight": "frozen: the official code runs EM without gradients",
        "every_parameter_gets_a_finite_gradient:conv1.bias": "frozen: the official code runs EM without gradients",
    },
)
