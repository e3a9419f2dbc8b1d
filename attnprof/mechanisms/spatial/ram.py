"""Recurrent attention model (RAM).

Paper     Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014, arXiv:1406.6247, sections 3, 4
Idea      Look at a few small patches one after the other; a recurrent network chooses where to look next, by reinforcement
          learning. The arithmetic does not grow with the image.
Formula   p = retina(x, l);  g = relu(W_gg relu(W_g p) + W_gl relu(W_l l));  h = relu(W_i g + W_h h);
          next l ~ N(tanh(W_m h), std^2);  after the last glimpse log softmax(W_a h);  baseline b = W_b h
Shapes    x: B C H W -> log_probs: B classes, log_pi and baselines: B (T - 1), locations: B T 2, with T glimpses
Params    s*p**2*C*g + g + 3*l + (g + l + 2)*(g + l) + (g + l + h + 2)*h + (h + 1)*(c + 3)
          glimpse network with s scales, patch p, g = glimpse_hidden, l = location_hidden; core with h = hidden; action,
          location and baseline networks with c = classes
Cost      T*(s p^2 C g + 2 l + (g + l)^2 + (g + l) h + h^2) + 3 (T - 1) h + h c MACs per image, whatever its size; the
          largest tensor is the widest patch, C (4 p)^2 elements, and in training the gradient of x
Defaults  glimpse_hidden = location_hidden = 128, so that g has 256, hidden = 256 (section 4); 6 glimpses (two or more) of
          12 x 12 at 3 scales, each twice as wide (scale): 60 x 60 cluttered MNIST (section 4.1; 28 x 28 MNIST: 8 x 8, 1 scale);
          std = 0.05 and 10 classes (kevinzakka/recurrent-visual-attention; the paper tunes std, others take up to 0.25)
Differs   the paper has no public code. As in kevinzakka/recurrent-visual-attention: tanh on the mean, samples clamped to
          [-1, 1], patches cut around the pixel floor((l + 1) size / 2) with zeros outside, average pooling of the larger
          ones, location and baseline networks trained on a detached h (section 3: f_l is always trained with REINFORCE).
          The location that would follow the last glimpse is not predicted. Eval mode takes the mean policy: it starts in
          the centre, where training draws the first location from U(-1, 1), and log_pi is that of the mean
Survey    domain: spatial; g: use RNN to recurrently predict important regions; f: crop; tasks: Cls; kind: hard;
          goal: I, II; stage: 1
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


class RAM(nn.Module):
    """Recurrent glimpses: x (B, C, H, W) -> class log-probabilities and what REINFORCE needs."""

    def __init__(
        self,
        channels: int,
        patch: int = 12,
        scales: int = 3,
        scale: int = 2,
        glimpse_hidden: int = 128,
        location_hidden: int = 128,
        hidden: int = 256,
        glimpses: int = 6,
        classes: int = 10,
        std: float = 0.05,
    ) -> None:
        super().__init__()
        if glimpses < 2:
            raise ValueError(f"it takes two glimpses or more, not {glimpses}: the policy chooses where the second one looks")
        self.patch, self.scales, self.scale = patch, scales, scale
        self.glimpses, self.std = glimpses, std
        merged = glimpse_hidden + location_hidden
        self.what = nn.Linear(scales * channels * patch**2, glimpse_hidden)
        self.where = nn.Linear(2, location_hidden)
        self.merge_what = nn.Linear(glimpse_hidden, merged)
        self.merge_where = nn.Linear(location_hidden, merged)
        self.input = nn.Linear(merged, hidden)
        self.recur = nn.Linear(hidden, hidden)
        self.locate = nn.Linear(hidden, 2)
        self.baseline = nn.Linear(hidden, 1)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        location = x.new_zeros(x.shape[0], 2)  # x and y in [-1, 1]
        if self.training:
            location = 2 * torch.rand(x.shape[0], 2, dtype=x.dtype, device=x.device) - 1
        h = x.new_zeros(x.shape[0], self.recur.in_features)  # B R
        locations, log_pi, baselines = [location], [], []
        for step in range(self.glimpses):
            h = (self.input(self.glimpse(x, location)) + self.recur(h)).relu()  # B R
            if step < self.glimpses - 1:
                mean = self.locate(h.detach()).tanh()  # B 2
                sample = mean.detach()
                if self.training:
                    sample = sample + self.std * torch.randn_like(mean)
                log_pi.append(self.log_density(sample, mean))
                baselines.append(self.baseline(h.detach()).squeeze(1))
                location = sample.clamp(-1, 1)
                locations.append(location)
        return {
            "log_probs": self.classify(h).log_softmax(dim=1),
            "log_pi": torch.stack(log_pi, dim=1),
            "baselines": torch.stack(baselines, dim=1),
            "locations": torch.stack(locations, dim=1),
        }

    def glimpse(self, x: Tensor, location: Tensor) -> Tensor:
        """What is seen around a location, and where that is: B (hg + hl)."""
        what = self.what(self.retina(x, location)).relu()  # B hg
        where = self.where(location).relu()  # B hl
        return (self.merge_what(what) + self.merge_where(where)).relu()

    def retina(self, x: Tensor, location: Tensor) -> Tensor:
        """Patches of growing width around a location, each pooled to patch x patch: B (k C g g)."""
        patches = []
        for index in range(self.scales):
            factor = self.scale**index
            patches.append(F.avg_pool2d(self.crop(x, location, self.patch * factor), factor))  # B C g g
        return torch.stack(patches, dim=1).flatten(1)

    def crop(self, x: Tensor, location: Tensor, size: int) -> Tensor:
        """The size x size pixels around a location, zeros outside of the image: B C size size."""
        batch, channels, height, width = x.shape
        steps = torch.arange(size, device=x.device) - size // 2
        columns = (0.5 * (location[:, :1] + 1) * width).floor().long() + steps  # B size
        rows = (0.5 * (location[:, 1:] + 1) * height).floor().long() + steps  # B size
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]  # B size size
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]  # B size size
        pixels = x.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))  # B C size*size
        return pixels.view(batch, channels, size, size) * inside[:, None].to(x.dtype)

    def log_density(self, sample: Tensor, mean: Tensor) -> Tensor:
        """Log density of a location under the Gaussian policy: B."""
        exponent = ((sample - mean) / self.std).square().sum(dim=1)
        return -0.5 * exponent - 2 * math.log(self.std) - math.log(2 * math.pi)


def objective(outputs: dict[str, Tensor]) -> Tensor:
    """The hybrid loss for class 0: cross-entropy, REINFORCE with reward 1 for a hit, regression of the baseline."""
    log_probs, baselines = outputs["log_probs"], outputs["baselines"]
    reward = (log_probs.argmax(dim=1, keepdim=True) == 0).to(log_probs.dtype)  # B 1
    reinforce = -(outputs["log_pi"] * (reward - baselines.detach())).sum(dim=1).mean()
    return -log_probs[:, 0].mean() + reinforce + (baselines - reward).square().mean()


def params(
    channels: int,
    patch: int = 12,
    scales: int = 3,
    scale: int = 2,
    glimpse_hidden: int = 128,
    location_hidden: int = 128,
    hidden: int = 256,
    glimpses: int = 6,
    classes: int = 10,
    std: float = 0.05,
) -> int:
    """Closed form of the parameter count."""
    hg, hl = glimpse_hidden, location_hidden
    glimpse = scales * patch**2 * channels * hg + hg + 3 * hl + (hg + hl + 2) * (hg + hl)
    return glimpse + (hg + hl + hidden + 2) * hidden + (hidden + 1) * (classes + 3)


def macs(
    shape: Shape,
    patch: int = 12,
    scales: int = 3,
    scale: int = 2,
    glimpse_hidden: int = 128,
    location_hidden: int = 128,
    hidden: int = 256,
    glimpses: int = 6,
    classes: int = 10,
    std: float = 0.05,
) -> int:
    """Multiply-accumulates of one forward pass."""
    hg, hl = glimpse_hidden, location_hidden
    glimpse = scales * patch**2 * shape.channels * hg + 2 * hl + (hg + hl) ** 2
    core = (hg + hl) * hidden + hidden**2
    return shape.batch * (glimpses * (glimpse + core) + 3 * (glimpses - 1) * hidden + hidden * classes)


MECHANISM = Mechanism(
    name="ram",
    family="spatial",
    layout="BCHW",
    paper="Mnih et al., NIPS 2014",
    build=RAM,
    params=params,
    macs=macs,
    objective=objective,
    natural=Shape(1, 1, 60, 60),
)
