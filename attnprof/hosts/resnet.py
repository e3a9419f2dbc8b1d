"""ResNet, ResNeXt: He et al., "Deep Residual Learning", CVPR 2016; Xie et al., "Aggregated Residual ...", CVPR 2017.

Every residual block is relu(shortcut(x) + body(x)): `layer[1-4].*.body` ends before the addition, `layer[1-4].*` after it.
stride_in: '1x1' strides in the first 1x1 of a bottleneck, as in the paper and the Caffe models; '3x3' in its 3x3, as
torchvision and most code since.
output_stride: 16 and 8 keep the resolution of the last one or two stages and dilate their 3x3 convolutions instead (Chen et
al., "Rethinking Atrous Convolution", 2017); all blocks of such a stage have its dilation.
deep_stem: three 3x3 convolutions in place of the 7x7, to so many channels and half of them before (0: the 7x7). 128 in PSPNet's
and CCNet's code, 64 in "Bag of Tricks for Image Classification", CVPR 2019 (there ResNet-C).
classes: 0 leaves pooling and classifier out: the network ends with the feature map of the last stage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

NATURAL = (3, 224, 224)
VARIANTS = {
    "resnet18": {"depth": 18},
    "resnet34": {"depth": 34},
    "resnet50": {"depth": 50},
    "resnet101": {"depth": 101},
    "resnet152": {"depth": 152},
    "resnet50-caffe": {"depth": 50, "stride_in": "1x1"},
    "resnet101-caffe": {"depth": 101, "stride_in": "1x1"},
    "resnet50-d8": {"depth": 50, "output_stride": 8, "deep_stem": 128, "classes": 0},
    "resnet101-d8": {"depth": 101, "output_stride": 8, "deep_stem": 128, "classes": 0},
    "resnet101-d16": {"depth": 101, "output_stride": 16, "deep_stem": 128, "classes": 0},
    "resnext50": {"depth": 50, "groups": 32, "group_width": 4},
}
PARAMS = {  # torchvision's
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50-caffe": 25_557_032,
    "resnet101-caffe": 44_549_160,
    "resnext50": 25_028_904,
}
SITES = {
    "body": "layer[1-4].*.body",
    "block": "layer[1-4].*",
    "stage": "layer[1-4]",
    "stem": "stem",
    "last": "layer4",
    "conv3x3": "layer[1-4].*.body.conv2",
    "shortcut": "layer[1-4].*.shortcut",
}
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_STRIDES = {32: (1, 2, 2, 2), 16: (1, 2, 2, 1), 8: (1, 2, 1, 1)}


class Residual(nn.Module):
    """relu(shortcut(x) + body(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H/stride, W/stride)."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Stem, four stages, and where there are classes average pooling and a linear classifier."""

    def __init__(self, stem: nn.Module, stages: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.head = stem, head
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes), or (B, C', H/output_stride, W/output_stride) without classes."""
        x = self.stem(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.head(x)
        return out


def build(
    depth: int,
    channels: int = 3,
    stride_in: str = "3x3",
    output_stride: int = 32,
    deep_stem: int = 0,
    groups: int = 1,
    group_width: int = 64,
    classes: int = 1000,
) -> ResNet:
    """The network; weights as in "Delving Deep into Rectifiers" (fan out), as torchvision draws them."""
    if output_stride not in _STRIDES:
        raise ValueError(f"output_stride={output_stride}: 8, 16 or 32")
    if stride_in not in ("1x1", "3x3"):
        raise ValueError(f"stride_in={stride_in!r}: '1x1' or '3x3'")
    inputs, stages, dilation = deep_stem or 64, [], 1
    for number, (blocks, stride) in enumerate(zip(_BLOCKS[depth], _STRIDES[output_stride], strict=True)):
        dilation *= 1 if number == 0 or stride == 2 else 2
        base = 64 * 2**number
        width, outputs = (base, base) if depth < 50 else (groups * group_width * 2**number, 4 * base)
        made = []
        for index in range(blocks):
            step = stride if index == 0 else 1
            body = (
                _basic(inputs, width, step, dilation)
                if depth < 50
                else (_bottleneck(inputs, width, outputs, step, dilation, groups, stride_in))
            )
            made.append(Residual(body, _shortcut(inputs, outputs, step)))
            inputs = outputs
        stages.append(nn.Sequential(*made))
    head: nn.Module = nn.Identity()
    if classes:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(inputs, classes))
    network = ResNet(_stem(channels, deep_stem), list(stages), head)
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return network


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=False)


def _stem(channels: int, deep: int) -> nn.Module:
    """(B, channels, H, W) -> (B, 64 or `deep`, H/4, W/4)."""
    relu: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True)  # noqa: E731
    if not deep:
        first: tuple[nn.Module, ...] = (_conv(channels, 64, 7, 2), nn.BatchNorm2d(64), relu())
    else:
        half = deep // 2
        first = (
            *(_conv(channels, half, 3, 2), nn.BatchNorm2d(half), relu()),
            *(_conv(half, half, 3), nn.BatchNorm2d(half), relu()),
            *(_conv(half, deep, 3), nn.BatchNorm2d(deep), relu()),
        )
    return nn.Sequential(*first, nn.MaxPool2d(3, 2, 1))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a strided 1x1 convolution where shapes differ."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _basic(inputs: int, width: int, stride: int, dilation: int) -> nn.Module:
    """Two 3x3 convolutions."""
    return _body(_conv(inputs, width, 3, stride, dilation), _conv(width, width, 3, 1, dilation))


def _bottleneck(inputs: int, width: int, outputs: int, stride: int, dilation: int, groups: int, stride_in: str) -> nn.Module:
    """1x1, 3x3, 1x1 convolutions."""
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    middle = _conv(width, width, 3, second, dilation, groups)
    return _body(_conv(inputs, width, 1, first), middle, _conv(width, outputs, 1))


def _body(*convs: nn.Conv2d) -> nn.Module:
    """conv1, bn1, relu1, conv2, bn2 ...: no ReLU after the last, which comes after the addition."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number, conv in enumerate(convs, 1):
        parts[f"conv{number}"], parts[f"bn{number}"] = conv, nn.BatchNorm2d(conv.out_channels)
        if number < len(convs):
            parts[f"relu{number}"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)
