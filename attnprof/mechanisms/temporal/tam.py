"""Temporal adaptive module.

Paper     Liu, Wang, Wu, Qian, Lu, "TAM: Temporal Adaptive Module for Video Recognition", ICCV 2021, arXiv:2005.06803,
          section 3
Idea      Each video predicts, for each channel, its own temporal kernel from the averages of all frames, and for each frame
          and channel a gate from the averages of the near frames: the gated features are convolved over time with that kernel.
Formula   p = GAP(x);  V = sigmoid(conv_1(relu(BN(conv_k(p)))));  Theta_c = softmax(W2 relu(BN(W1 p_c)));
          y_c = Theta_c * (V_c x_c), a convolution over time with zero padding
Shapes    x: B T C H W -> y: B T C H W
Params    2*T**2 + 4*T + 2*T*k + (k + 1)*C*(C//4) + 2*(C//4)
          alpha T^2 + 2 alpha T + alpha T k of the global branch, (k + 1) C^2/beta + 2C/beta of the local one
Cost      k*N*T*C + (k + 1)*T*C^2/beta + C*(alpha T^2 + alpha T k) MACs per clip; the largest tensors have the size of x
Defaults  kernel size k = 3, alpha = 2 (hidden units alpha T), beta = 4 (hidden channels C/beta) (section 3; official code);
          frames T from the case
Differs   follows the official code: no biases; BN of the global branch over the rows of all clips and channels. Its tensors
          hold all frames of all clips in one dimension, here B T; its copies to B C T H W and back are kept. A kernel size is
          odd
Survey    domain: temporal; g: a) local, global spatial average pooling and 1D convolutions, b) global, global spatial average
          pooling and MLP; f: scale, adaptive convolution; tasks: Action; kind: soft; goal: II, III; stage: 3
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class TAM(nn.Module):
    """Gate per frame and kernel per clip and channel: x (B, T, C, H, W) -> (B, T, C, H, W)."""

    def __init__(self, channels: int, frames: int, kernel_size: int = 3, alpha: int = 2, beta: int = 4) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel's size must be odd, not {kernel_size}")
        self.kernel_size = kernel_size
        hidden = channels // beta
        self.globally = nn.Sequential(
            nn.Linear(frames, alpha * frames, bias=False),
            nn.BatchNorm1d(alpha * frames),
            nn.ReLU(inplace=True),
            nn.Linear(alpha * frames, kernel_size, bias=False),
        )
        self.locally = nn.Sequential(
            nn.Conv1d(channels, hidden, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, channels, height, width = x.shape
        x = x.transpose(1, 2).contiguous()  # B C T H W
        pooled = x.mean(dim=(3, 4))  # B C T
        kernel = self.globally(pooled.flatten(0, 1)).softmax(dim=-1)  # BC k
        gate = self.locally(pooled).sigmoid()  # B C T
        x = x * gate[:, :, :, None, None]
        y = F.conv2d(
            x.view(1, batch * channels, frames, height * width),
            kernel.view(batch * channels, 1, self.kernel_size, 1),
            padding=(self.kernel_size // 2, 0),
            groups=batch * channels,
        )  # 1 BC T N
        y = y.view(batch, channels, frames, height, width)
        return y.transpose(1, 2).contiguous()  # B T C H W


def params(channels: int, frames: int, kernel_size: int = 3, alpha: int = 2, beta: int = 4) -> int:
    """Closed form of the parameter count."""
    hidden, units = channels // beta, alpha * frames
    globally = frames * units + 2 * units + units * kernel_size
    return globally + kernel_size * channels * hidden + 2 * hidden + hidden * channels


def macs(shape: Shape, frames: int, kernel_size: int = 3, alpha: int = 2, beta: int = 4) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, hidden, units = shape.channels, shape.channels // beta, alpha * frames
    globally = channels * (frames * units + units * kernel_size)
    locally = frames * (kernel_size * channels * hidden + hidden * channels)
    convolution = kernel_size * frames * channels * shape.height * shape.width
    return shape.batch * (globally + locally + convolution)


MECHANISM = Mechanism(
    name="tam",
    family="temporal",
    layout="BTCHW",
    paper="Liu et al., ICCV 2021",
    build=TAM,
    params=params,
    macs=macs,
    natural=Shape(1, 256, 14, 14, 8),
)
