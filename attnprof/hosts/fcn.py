"""FCN-style segmentation network: a dilated ResNet, a reduction, a slot, a classifier; after Long et al., "FCN", CVPR 2015.

As torchvision's fcn_resnet50 and fcn_resnet101 without their auxiliary classifier: `backbone` to output stride 8, `reduce` (3x3
convolution without bias, BN, ReLU) to `width` channels, dropout, 1x1 convolution to the classes, bilinear upsampling to the
input. `slot` stands between reduction and classifier: there segmentation papers put their mechanism.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from attnprof.hosts import resnet

NATURAL = (3, 520, 520)
VARIANTS = {"fcn-resnet50": {"depth": 50}, "fcn-resnet101": {"depth": 101}}
PARAMS = {  # torchvision's 35,322,218 and 54,314,346 less 2,365,205 of the auxiliary classifier
    "fcn-resnet50": 32_957_013,
    "fcn-resnet101": 51_949_141,
}
SITES = {
    "slot": "slot",
    "reduce": "reduce",
    "backbone": "backbone",
    "stem": "backbone.stem",
    "body": "backbone.layer[1-4].*.body",
    "block": "backbone.layer[1-4].*",
    "stage": "backbone.layer[1-4]",
}


class FCN(nn.Module):
    """Backbone, reduction, slot, classifier, upsampling."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        convolution = nn.Conv2d(2048, width, 3, padding=1, bias=False)
        self.reduce = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.slot = nn.Identity()
        self.classify = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, classes, H, W)."""
        maps = self.classify(self.slot(self.reduce(self.backbone(x))))
        return functional.interpolate(maps, size=x.shape[2:], mode="bilinear", align_corners=False)


def build(
    depth: int,
    channels: int = 3,
    width: int = 512,
    output_stride: int = 8,
    deep_stem: int = 0,
    stride_in: str = "3x3",
    classes: int = 21,
) -> FCN:
    """The network."""
    backbone = resnet.build(depth, channels, stride_in, output_stride, deep_stem, classes=0)
    return FCN(backbone, width, classes)
