"""X-volution: pixel shift self-attention beside a convolution, merged into one operator.

Paper     Chen, Wang, Ni, "X-volution: On the Unification of Convolution and Self-attention", 2021, arXiv:2106.02253, section 3
Idea      Global attention is approximated by products of the map with shifted copies of itself and a convolution over them
          (PSSA), which has the form of a convolution and merges with one after training.
Formula   z = x * sum_d shift_d(x), depth times over;  y = BN(W_A z) + BN(W_c x), both W k x k convolutions
          merged: y_i = sum_{j in N_k(i)} (W_A' diag(a_j) + W_c') x_j + b' with a = sum_d shift_d(x): a static kernel and one
          that depends on the map; W' = W gamma/sigma, b' = sum over both of beta - mu gamma/sigma
Shapes    x: B C H W -> y: B C H W
Params    2*kernel**2*C*C + 4*C
          deploy: 2 k^2 C^2 + C
Cost      2*N*k^2*C^2 MACs per image in either form; maps of N*C elements, merged one of 2*N*C. Shifts, products and sums are
          element-wise: depth * (directions * N * C) operations
Defaults  kernel k = 3, that of the convolution it replaces in ResNet's third stage; directions 8 (2: left and right; 4: up and
          down too; 8: diagonals too), shift L = 1 pixel and depth 1 are choices made here
Differs   interpretation: no public code. The shifted products are summed over the directions, so the product is taken once (a
          concatenation would hold directions * N * C elements); their weighted sum is the convolution W_A, which stands for
          the 1x1 transforms of query, key and value too; no softmax, as in the paper. Zeros come in at the border. With
          depth > 1 shift and product are stacked and only the last is weighted: the paper leaves out the weights in a stack.
          deploy=True is the module after merging, with parameters of its own: one convolution of [z, x], no batch norms. With
          W' and b' it is the function of the two branches in eval. In training it does the same as in eval, where the two
          branches normalise by the batch and cannot merge. `merged(module)` makes it from a trained one. Only what is static
          merges: z still depends on x
Survey    domain: spatial; g: product of the map with its shifted copies, convolution; f: add to a convolution;
          tasks: Cls, Det, ISeg; kind: soft; goal: I, IV, VI; stage: 4 (no row in the survey)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape

_STEPS = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # rows, columns


class XVolution(nn.Module):
    """Shift-product attention and a convolution, side by side or merged: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        kernel: int = 3,
        directions: int = 8,
        shift: int = 1,
        depth: int = 1,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        if directions not in (2, 4, 8):
            raise ValueError(f"directions are 2, 4 or 8, not {directions}")
        if kernel % 2 == 0:
            raise ValueError(f"the kernel's side must be odd, not {kernel}")
        self.steps, self.shift, self.depth, self.deploy = _STEPS[:directions], shift, depth, deploy
        if deploy:
            self.merged = nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2)
        else:
            self.attention = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            self.attention_norm = nn.BatchNorm2d(channels)
            self.convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            self.convolution_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        z = x
        for _ in range(self.depth):
            z = z * self.neighbours(z)  # B C H W
        if self.deploy:
            return self.merged(torch.cat([z, x], dim=1))
        return self.attention_norm(self.attention(z)) + self.convolution_norm(self.convolution(x))

    def neighbours(self, x: Tensor) -> Tensor:
        """The sum of the maps shifted in every direction: B C H W."""
        height, width = x.shape[2:]
        padded = F.pad(x, [self.shift] * 4)
        total: Tensor | None = None
        for down, right in self.steps:
            top, left = self.shift * (1 + down), self.shift * (1 + right)
            shifted = padded[:, :, top : top + height, left : left + width]
            total = shifted if total is None else total + shifted
        assert total is not None
        return total


def merged(trained: XVolution) -> XVolution:
    """The deployed form of a module with two branches: the same function in eval, each batch norm folded into its kernel."""
    if trained.deploy:
        raise ValueError("it is merged already")
    out, _, kernel, _ = trained.convolution.weight.shape
    deployed = XVolution(out, kernel, len(trained.steps), trained.shift, trained.depth, deploy=True)
    kernels, biases = [], []
    for conv, norm in (
        (trained.attention, trained.attention_norm),
        (trained.convolution, trained.convolution_norm),
    ):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # C
        kernels.append(conv.weight * scale[:, None, None, None])
        biases.append(norm.bias - norm.running_mean * scale)
    with torch.no_grad():
        deployed.to(kernels[0]).merged.weight.copy_(torch.cat(kernels, dim=1))  # C 2C k k, as [z, x]
        assert deployed.merged.bias is not None
        deployed.merged.bias.copy_(biases[0] + biases[1])
    return deployed.train(trained.training)


def params(channels: int, kernel: int = 3, directions: int = 8, shift: int = 1, depth: int = 1, deploy: bool = False) -> int:
    """Closed form of the parameter count."""
    return 2 * kernel**2 * channels**2 + (channels if deploy else 4 * channels)


def macs(shape: Shape, kernel: int = 3, directions: int = 8, shift: int = 1, depth: int = 1, deploy: bool = False) -> int:
    """Multiply-accumulates of one forward pass."""
    return shape.batch * shape.height * shape.width * 2 * kernel**2 * shape.channels**2


MECHANISM = Mechanism(
    name="xvolution",
    family="spatial",
    layout="BCHW",
    paper="Chen et al., 2021",
    build=XVolution,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14),
    rows={"directions": (8, 4, 2), "deploy": (False, True)},
)
