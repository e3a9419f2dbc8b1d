"""Context encoding module (EncNet).

Paper     Zhang, Dana, Shi, Zhang, Wang, Tyagi, Agrawal, "Context Encoding for Semantic Segmentation", CVPR 2018,
          arXiv:1803.08904, section 2
Idea      Describe an image by its residuals to K learned codewords, and gate the channels by that description; an extra loss
          asks it which classes are in the image.
Formula   h = relu(BN(W1 x));  a_ik = softmax_k(s_k |h_i - d_k|^2);  e_k = sum_i a_ik (h_i - d_k);  e = mean_k relu(BN(e_k));
          g = sigmoid(W2 e);  y = relu(x + g * x);  SE-loss: binary cross-entropy of W3 e and the classes present
Shapes    x: B C H W -> y: B C H W; with classes > 0: (y, logits: B classes)
Params    2*C**2 + codes*C + 3*C + 3*codes + classes*(C + 1)
          W1 and its BN C^2 + 2*C, codewords K*C and scales K, BN over codewords 2*K, W2 with bias C^2 + C, W3 with bias
Cost      N*C^2 + 2*N*K*C + C^2 + classes*C MACs per image; maps of N*C elements, assignments N*K
Defaults  codes K = 32 (official code); classes 0: no layer for the SE-loss (official code: as many as the data set has, the
          loss weighs 0.2)
Differs   follows the official code: e is the mean over the codewords, where the paper sums; y = relu(x + g*x), where the paper
          has g*x; s_k is negative at the start (uniform in -1..0), the paper writes -s_k. Distances as |h|^2 - 2 h.d + |d|^2,
          residuals as sum_i a_ik h_i - (sum_i a_ik) d_k: matrix products, and no N x K x C tensor, as in the official CUDA
          kernels; a port that makes that tensor does the 2*N*K*C multiply-accumulates element by element. With
          classes, the backward pass starts from y and from 0.2 times the SE-loss with every class present: labels are data
Survey    domain: channel; g: encoder, MLP, sigmoid; f: scale, residual; tasks: SSeg; kind: soft; goal: I, II; stage: 3
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class EncNet(nn.Module):
    """Channel gate from an encoding of the image: x (B, C, H, W) -> (B, C, H, W), and logits (B, classes) where wanted."""

    def __init__(self, channels: int, codes: int = 32, classes: int = 0) -> None:
        super().__init__()
        bound = (codes * channels) ** -0.5
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.codewords = nn.Parameter(torch.empty(codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codes).uniform_(-1, 0))
        self.code_bn = nn.BatchNorm1d(codes)
        self.gate = nn.Linear(channels, channels)
        self.presence = nn.Linear(channels, classes) if classes else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        e = self.encode(self.bn(self.conv(x)).relu_().flatten(2))  # B K C
        e = self.code_bn(e).relu_().mean(dim=1)  # B C
        gate = self.gate(e).sigmoid()[:, :, None, None]  # B C 1 1
        y = (x + x * gate).relu_()  # B C H W
        return y if self.presence is None else (y, self.presence(e))

    def encode(self, h: Tensor) -> Tensor:
        """Residuals to the codewords, summed over the positions with soft assignments: B C N -> B K C."""
        products = torch.matmul(self.codewords, h)  # B K N
        lengths = self.codewords.square().sum(dim=1).unsqueeze(1)  # K 1
        distances = h.square().sum(dim=1, keepdim=True) - 2 * products + lengths  # B K N
        assigned = (self.scale.unsqueeze(1) * distances).softmax(dim=1)  # B K N
        sums = torch.bmm(assigned, h.transpose(1, 2))  # B K C
        return sums - assigned.sum(dim=2, keepdim=True) * self.codewords


def objective(outputs: Tensor | tuple[Tensor, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
    """y, and with classes 0.2 times the SE-loss: a binary cross-entropy with every class present, since labels are data."""
    if isinstance(outputs, Tensor):
        return outputs
    y, logits = outputs
    return y, 0.2 * F.softplus(-logits).mean()


def params(channels: int, codes: int = 32, classes: int = 0) -> int:
    """Closed form of the parameter count."""
    encoding = channels**2 + 2 * channels + codes * channels + codes + 2 * codes
    return encoding + channels**2 + channels + classes * (channels + 1)


def macs(shape: Shape, codes: int = 32, classes: int = 0) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    return shape.batch * (n * c**2 + 2 * n * codes * c + c**2 + classes * c)


MECHANISM = Mechanism(
    name="encnet",
    family="channel",
    layout="BCHW",
    paper="Zhang et al., CVPR 2018",
    build=EncNet,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 60, 60),
    rows={"classes": (0, 150)},
    objective=objective,
)
