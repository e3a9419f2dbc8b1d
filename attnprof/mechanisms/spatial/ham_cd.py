"""Hamburger with concept decomposition.

Paper     Geng et al., "Is Attention Better Than Matrix Decomposition?", ICLR 2021, arXiv:2109.04553, section 2
Idea      Global context is the low-rank part of the features: spherical k-means finds the concepts, ridge regression on them
          rebuilds each position.
Formula   X = W_l x;  repeat: C <- softmax_r(cos(D, X) / T), D <- normalise(X C^T);  C = (D^T D + beta I)^-1 D^T X; y =
          relu(BN(W_u D C) + x)
Shapes    x: B C H W -> y: B C H W
Params    2*C*C + C + 2*C
          2CD + D + 2C for D latent channels: two 1x1 convolutions, the first with a bias, and BN
Cost      2*N*C*D + (2t + 3)*N*D*R + (N + D)*R^2 MACs per image with t steps (7 in eval), and an R x R inverse, not counted in
          them; codes of N*R elements
Defaults  latent D = C (the paper's 512 at C = 512), rank R = 64, steps t = 6 in training, eval_steps t = 7, inverse temperature
          1/T = 100, ridge beta = 0.1 (official code)
Differs   the gradient goes through the ridge regression only: the paper's one-step gradient, done as in the official code. The
          initial codes softmax(X^T D / T), which no step reads, are computed as in the official code (N*D*R MACs). Codes are
          divided by their sum + 1e-6 before the update of D, as there. Bases ~ N(0, 1), L2-normalised, drawn anew in each
          forward pass, as in the official code; it draws them per image, here one set serves the whole batch, so that an
          image's output does not depend on its place in the batch. The inverse is taken in float32 for the half types, for
          which torch has none. No ReLU after W_l (official code: for NMF only). V1 (no second 3x3 convolution, the "cheese").
          PyTorch's initialisation and BN momentum, where the official code draws from N(0, 2/fan-out) and uses 3e-4
Survey    domain: spatial; g: matrix decomposition; f: low-rank reconstruction, residual; tasks: SSeg; kind: soft; goal: I, IV;
          stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class HamCD(nn.Module):
    """Low-rank context by concept decomposition: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        latent: int | None = None,
        rank: int = 64,
        steps: int = 6,
        eval_steps: int = 7,
        inverse_temperature: float = 100.0,
        beta: float = 0.1,
    ) -> None:
        super().__init__()
        latent = channels if latent is None else latent
        self.rank, self.steps, self.eval_steps = rank, steps, eval_steps
        self.inverse_temperature, self.beta = inverse_temperature, beta
        self.lower = nn.Conv2d(channels, latent, 1)
        self.upper = nn.Conv2d(latent, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lower(x)  # B D H W
        y = self.decompose(y.flatten(2)).reshape(y.shape)  # B D H W
        y = self.bn(self.upper(y))  # B C H W
        return (y + x).relu_()

    def decompose(self, x: Tensor) -> Tensor:
        """Rebuild x (B, D, N) from R concepts."""
        with torch.no_grad():
            bases = torch.randn(1, x.shape[1], self.rank, dtype=x.dtype, device=x.device)
            bases = F.normalize(bases, dim=1).expand(x.shape[0], -1, -1)  # B D R
            codes = self.assign(x, bases)
            for _ in range(self.steps if self.training else self.eval_steps):
                codes = self.assign(F.normalize(x, dim=1), bases)  # B N R
                codes = codes / (1e-6 + codes.sum(dim=1, keepdim=True))
                bases = F.normalize(torch.bmm(x, codes), dim=1, eps=1e-6)  # B D R
        ridge = self.beta * torch.eye(self.rank, dtype=x.dtype, device=x.device)
        gram = torch.bmm(bases.transpose(1, 2), bases) + ridge  # B R R
        inverse = torch.inverse(gram.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)
        codes = torch.bmm(torch.bmm(x.transpose(1, 2), bases), inverse)  # B N R
        return torch.bmm(bases, codes.transpose(1, 2))  # B D N

    def assign(self, x: Tensor, bases: Tensor) -> Tensor:
        """Soft assignment of each position to the concepts (B, N, R)."""
        return (self.inverse_temperature * torch.bmm(x.transpose(1, 2), bases)).softmax(dim=-1)


def params(
    channels: int,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
    inverse_temperature: float = 100.0,
    beta: float = 0.1,
) -> int:
    """Closed form of the parameter count."""
    latent = channels if latent is None else latent
    return 2 * channels * latent + latent + 2 * channels


def macs(
    shape: Shape,
    latent: int | None = None,
    rank: int = 64,
    steps: int = 6,
    eval_steps: int = 7,
    inverse_temperature: float = 100.0,
    beta: float = 0.1,
) -> int:
    """Multiply-accumulates of one forward pass in eval mode, without the inverse."""
    positions, latent = shape.height * shape.width, shape.channels if latent is None else latent
    large = positions * latent * (2 * shape.channels + (2 * eval_steps + 3) * rank)
    return shape.batch * (large + (positions + latent) * rank**2)


MECHANISM = Mechanism(
    name="ham_cd",
    family="spatial",
    layout="BCHW",
    paper="Geng et al., ICLR 2021",
    build=HamCD,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
)
