"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

A block expands, convolves depthwise and projects without a ReLU; `blocks.*.body` ends before the addition, which there is only
where a block keeps its size. Width 1.0, table 2 of the paper.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

NATURAL = (3, 224, 224)
VARIANTS: dict[str, dict[str, object]] = {"mobilenetv2": {}}
PARAMS = {"mobilenetv2": 3_504_872}  # torchvision's
SITES = {"body": "blocks.*.body", "block": "blocks.*", "depthwise": "blocks.*.body.depthwise", "stem": "stem"}
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Body, with the input added where sizes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion != 1:
            parts["expand"] = _unit(inputs, hidden, 1)
        parts["depthwise"] = _unit(hidden, hidden, 3, stride, hidden)
        parts["project"], parts["bn"] = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.body = nn.Sequential(parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H/stride, W/stride)."""
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Stem, blocks, a last 1x1 convolution, pooling and a linear classifier."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = _unit(channels, 32, 3, 2)
        blocks, inputs = [], 32
        for expansion, outputs, count, stride in _STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride if index == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _unit(inputs, 1280, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes)."""
        out: Tensor = self.head(self.last(self.blocks(self.stem(x))))
        return out


def build(channels: int = 3, classes: int = 1000) -> MobileNetV2:
    """The network."""
    return MobileNetV2(channels, classes)


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution, batch normalisation, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))
