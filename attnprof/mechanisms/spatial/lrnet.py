"""Local relation layer (LR-Net).

Paper     Hu, Zhang, Xie, Lin, "Local Relation Networks for Image Recognition", ICCV 2019, arXiv:1904.11491, the section on the
          local relation layer
Idea      A layer in place of a convolution whose weights say how well two pixels go together: by one number per pixel (a scalar
          query and key for every m channels) and by a learned prior of their relative position.
Formula   a_ij = softmax_{j in N_k(i)}(-(q_i - k_j)^2 + g(j - i)) for every m channels;  y_i = W_o sum_j a_ij x_j;  q, k = 1x1
          convolutions from C to G = C/m;  g = W_2 relu(W_1 (dy, dx) + b_1) + b_2
Shapes    x: B C H W -> y: B C H W
Params    C*C + 2*C*(C//m) + max(C//(2*m), 1)*(3 + C//m) + C//m
          query and key 2CG, geometry 2h + h + hG + G with h hidden units, output C^2
Cost      N*(C^2 + 2*C*G + k^2*C) MACs per image, and k^2*h*(2 + G) for the geometry, once for the batch; the windows of x,
          N*k^2*C elements, and logits of N*k^2*G
Defaults  kernel k = 7, share m = 8 channels, squared difference, scalar query and key (the paper's defaults)
Differs   interpretation: no official code of the paper's network. h = G/2 hidden units as in the public port; the relative
          position goes in as offsets in pixels; no bias in query, key and output; the aggregated features are x itself; m
          channels in a row share weights, as in the authors' later operator (LR-Net V2, branch LR-Net of
          microsoft/Swin-Transformer). Positions outside the image are left out of the softmax, where that operator gives them
          a logit of -100; mask_border=False has zero keys and features there, as in the port.
          similarity: absolute -|q - k| and product q*k are the paper's other two. Stride is the host's
Survey    domain: spatial; g: difference of scalar query and key, geometry prior, softmax; f: weighted sum; tasks: Cls;
          kind: soft; goal: VI; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class LRNet(nn.Module):
    """Aggregation by scalar similarity and a geometry prior: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        kernel: int = 7,
        m: int = 8,
        hidden: int | None = None,
        similarity: str = "squared",
        mask_border: bool = True,
    ) -> None:
        super().__init__()
        if channels % m:
            raise ValueError(f"{channels} channels do not divide into groups of {m}")
        if kernel % 2 == 0:
            raise ValueError(f"the window's side must be odd, not {kernel}")
        if similarity not in ("squared", "absolute", "product"):
            raise ValueError(f"similarity is squared, absolute or product, not {similarity}")
        self.kernel, self.groups, self.similarity, self.mask_border = kernel, channels // m, similarity, mask_border
        hidden = units(channels, m, hidden)
        self.query = nn.Conv2d(channels, self.groups, 1, bias=False)
        self.key = nn.Conv2d(channels, self.groups, 1, bias=False)
        self.geometry = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, self.groups))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.compare(self.query(x)[..., None, None], self.windows(self.key(x)))  # B G H W k k
        logits = logits + self.prior(x)
        if self.mask_border:
            logits = logits + self.border(x)
        weights = logits.flatten(4).softmax(dim=4)  # B G H W k^2
        values = self.windows(x).unflatten(1, (self.groups, -1)).permute(0, 1, 3, 4, 2, 5, 6)  # B G H W m k k
        values = values.reshape(-1, values.shape[4], self.kernel**2)  # B*G*N m k^2
        y = torch.bmm(values, weights.view(-1, self.kernel**2, 1))  # B*G*N m 1
        y = y.view(*weights.shape[:4], -1).permute(0, 1, 4, 2, 3).reshape(x.shape)  # B C H W
        return self.out(y)

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """How well two pixels go together, from one number each."""
        if self.similarity == "product":
            return query * key
        difference = query - key
        return -(difference.square() if self.similarity == "squared" else difference.abs())

    def prior(self, x: Tensor) -> Tensor:
        """A number for every group and offset: G 1 1 k k."""
        steps = torch.arange(self.kernel, dtype=x.dtype, device=x.device) - self.kernel // 2  # k
        rows, columns = steps[:, None].expand(-1, self.kernel), steps.expand(self.kernel, -1)
        offsets = torch.stack([rows, columns], dim=2)  # k k 2
        return self.geometry(offsets).permute(2, 0, 1)[:, None, None]

    def windows(self, x: Tensor) -> Tensor:
        """The window of every position, zeros outside the image, as a view: B C H W -> B C H W k k."""
        padded = F.pad(x, [self.kernel // 2] * 4)
        return padded.unfold(2, self.kernel, 1).unfold(3, self.kernel, 1)

    def border(self, x: Tensor) -> Tensor:
        """0 for a position of a window that is in the image, -inf for one that is not: H W k k."""
        outside = F.pad(x.new_zeros(x.shape[2:]), [self.kernel // 2] * 4, value=float("-inf"))  # H+k-1 W+k-1
        return outside.unfold(0, self.kernel, 1).unfold(1, self.kernel, 1)


def units(channels: int, m: int, hidden: int | None) -> int:
    """Hidden units of the geometry prior: half as many as groups where no number is given, at least one."""
    return max(channels // (2 * m), 1) if hidden is None else hidden


def params(
    channels: int,
    kernel: int = 7,
    m: int = 8,
    hidden: int | None = None,
    similarity: str = "squared",
    mask_border: bool = True,
) -> int:
    """Closed form of the parameter count."""
    groups, hidden = channels // m, units(channels, m, hidden)
    return 2 * channels * groups + 2 * hidden + hidden + hidden * groups + groups + channels**2


def macs(
    shape: Shape,
    kernel: int = 7,
    m: int = 8,
    hidden: int | None = None,
    similarity: str = "squared",
    mask_border: bool = True,
) -> int:
    """Multiply-accumulates of one forward pass; the geometry prior is made once for the batch."""
    channels, groups, hidden = shape.channels, shape.channels // m, units(shape.channels, m, hidden)
    per_position = channels**2 + 2 * channels * groups + kernel**2 * channels
    return shape.batch * shape.height * shape.width * per_position + kernel**2 * hidden * (2 + groups)


MECHANISM = Mechanism(
    name="lrnet",
    family="spatial",
    layout="BCHW",
    paper="Hu et al., ICCV 2019",
    build=LRNet,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:geometry.2.bias": "softmax is blind to a shift of all logits of a row",
    },
)
