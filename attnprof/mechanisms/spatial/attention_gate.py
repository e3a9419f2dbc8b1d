"""Attention gate of Attention U-Net.

Paper     Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018, arXiv:1804.03999, section 2
Idea      Coarse decoder features, the gating signal, say which positions of the encoder's skip connection may pass.
Formula   a = relu(W_x x + W_g g);  alpha = sigmoid(psi a);  y = alpha * x
          form "grid": W_x has stride 2, alpha is enlarged to x, y = BN(W (alpha * x));  form "unet": all at one resolution
Shapes    x: B C H W, g: B G H/2 W/2 (form "unet": B G H W) -> y: B C H W, alpha: B 1 H W
Params    C**2 + 3*C + 4*C*(F := max(C//2, 1)) + 2*C*F + 2*F + 1
          W and BN, W_x without bias, W_g, psi, with F = C/2 and G = 2C; form "unet": (G F + 3F) + (C F + 3F) + F + 3, G = C
Cost      n*(4 C F + F) + n_g*G F + N*C^2 MACs per image with n = floor(H/2) floor(W/2) positions of W_x and n_g of g;
          form "unet": N*(C F + G F + F); the largest tensors are x and y
Defaults  form "grid", stride 2 and F = C/2 (inter_channels; official code); gating_channels G = 2C, the next level of a U-Net,
          C in form "unet", where g has been enlarged already; gating_stride = 2: g is one level deeper
Differs   follows the official 2D block (ozan-oktay/Attention-Gated-Networks, mode "concatenation"), which adds W and BN to
          the paper's gate; its U-Net takes F = C. Bilinear enlarging without aligned corners, PyTorch's default since 0.4 (the
          code is older, and aligned them); none where the sizes agree. An odd last row or column is not seen by W_x, as there,
          and passes under an interpolated alpha. Form "unet" is LeeJunHyun/Image_Segmentation's: convolutions with bias, each
          followed by BN, no W; the port returns y alone
Survey    domain: spatial; g: gating signal, convolution, sigmoid; f: scale; tasks: SSeg; kind: soft; goal: I; stage: 3
          (no row in the survey)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape, TensorSpec


class AttentionGate(nn.Module):
    """Gated skip connection: x (B, C, H, W), g (B, G, h, w) -> y (B, C, H, W), alpha (B, 1, H, W)."""

    def __init__(
        self,
        channels: int,
        gating_channels: int | None = None,
        inter_channels: int | None = None,
        form: str = "grid",
        gating_stride: int = 2,
    ) -> None:
        super().__init__()
        gating, inter = widths(channels, gating_channels, inter_channels, form)
        self.grid = form == "grid"
        self.theta: nn.Module
        self.phi: nn.Module
        self.psi: nn.Module
        self.output: nn.Module
        if self.grid:
            self.theta = nn.Conv2d(channels, inter, 2, stride=2, bias=False)
            self.phi = nn.Conv2d(gating, inter, 1)
            self.psi = nn.Conv2d(inter, 1, 1)
            self.output = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        else:
            self.theta = nn.Sequential(nn.Conv2d(channels, inter, 1), nn.BatchNorm2d(inter))
            self.phi = nn.Sequential(nn.Conv2d(gating, inter, 1), nn.BatchNorm2d(inter))
            self.psi = nn.Sequential(nn.Conv2d(inter, 1, 1), nn.BatchNorm2d(1))
            self.output = nn.Identity()

    def forward(self, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        if self.grid and min(x.shape[2:]) < 2:
            raise ValueError(f"form 'grid' halves the map, which needs sides of 2 or more, not {x.shape[2]} x {x.shape[3]}")
        theta = self.theta(x)  # B F H/2 W/2
        phi = resize(self.phi(g), theta)  # B F H/2 W/2
        alpha = self.psi((theta + phi).relu()).sigmoid()  # B 1 H/2 W/2
        alpha = resize(alpha, x)  # B 1 H W
        return self.output(alpha * x), alpha


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, where the size changes."""
    size = (like.shape[2], like.shape[3])
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def widths(channels: int, gating: int | None, inter: int | None, form: str) -> tuple[int, int]:
    """Channels of the gating signal and of the sum."""
    if form not in ("grid", "unet"):
        raise ValueError(f"form is 'grid' or 'unet', not {form!r}")
    return gating or (2 * channels if form == "grid" else channels), inter or max(channels // 2, 1)


def gating_hw(shape: Shape, form: str, stride: int) -> tuple[int, int]:
    """Size of the gating signal."""
    return (max(shape.height // stride, 1), max(shape.width // stride, 1)) if form == "grid" else shape.hw


def params(
    channels: int,
    gating_channels: int | None = None,
    inter_channels: int | None = None,
    form: str = "grid",
    gating_stride: int = 2,
) -> int:
    """Closed form of the parameter count."""
    c = channels
    g, f = widths(channels, gating_channels, inter_channels, form)
    if form == "grid":
        return c**2 + 3 * c + 4 * c * f + g * f + f + f + 1
    return (g * f + 3 * f) + (c * f + 3 * f) + (f + 3)


def macs(
    shape: Shape,
    gating_channels: int | None = None,
    inter_channels: int | None = None,
    form: str = "grid",
    gating_stride: int = 2,
) -> int:
    """Multiply-accumulates of one forward pass."""
    c, n = shape.channels, shape.height * shape.width
    g, f = widths(c, gating_channels, inter_channels, form)
    height, width = gating_hw(shape, form, gating_stride)
    if form == "grid":
        coarse = (shape.height // 2) * (shape.width // 2)
        return shape.batch * (coarse * (4 * c * f + f) + height * width * g * f + n * c**2)
    return shape.batch * n * (c * f + g * f + f)


def inputs(
    shape: Shape,
    gating_channels: int | None = None,
    inter_channels: int | None = None,
    form: str = "grid",
    gating_stride: int = 2,
) -> tuple[TensorSpec, ...]:
    """The skip connection and the gating signal."""
    gating, _ = widths(shape.channels, gating_channels, inter_channels, form)
    signal = TensorSpec((shape.batch, gating, *gating_hw(shape, form, gating_stride)), "g")
    return TensorSpec((shape.batch, shape.channels, *shape.hw), "x"), signal


MECHANISM = Mechanism(
    name="attention_gate",
    family="spatial",
    layout="BCHW",
    paper="Oktay et al., MIDL 2018",
    build=AttentionGate,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 256, 64, 64),
    rows={"form": ("grid", "unet")},
)
