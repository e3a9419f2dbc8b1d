"""Deep recurrent attention model (DRAM), with its glimpse network.

Paper     Ba, Mnih, Kavukcuoglu, "Multiple Object Recognition with Visual Attention", ICLR 2015, arXiv:1412.7755, section 3
Idea      Glimpses as in RAM for a sequence of objects: a convolutional glimpse network whose features are multiplied by those
          of the location, two LSTMs, and a coarse view of the whole image that says where to begin.
Formula   g = relu(fc(convs(patches at l))) * relu(W_l l);  r1 = LSTM1(g);  r2 = LSTM2(r1), r2_0 = context(coarse image);
          next l ~ N(tanh(W_e r2), std^2);  after every N glimpses log softmax(W_o relu(W_c r1));  baseline b = W_b r2
Shapes    x: B C H W -> log_probs: B S classes, log_pi and baselines: B T, locations: B T 2, with T = S N glimpses, S targets
Params    1600*C*(s + 1) + 221696 + 2052*f + 2049*h + 4*h*(f + 3*h + 2) + 3*(h + 1) + (h + 1)*f + (f + 1)*c
          s scales, f features, h hidden, c classes, patch 12: glimpse and context network (110848 are those of the second and
          third convolution and of the first bias; 2048 features reach their fc), two LSTMs, emission, baseline, classifier
Cost      T*(1600 s C a^2 + v + 2048 f + 2 f + 4 h (f + h) + 3 h) + 8 (T - 1) h^2 + S (h f + f c) + 1600 C a^2 + v + 2048 h MACs
          per image, whatever its size, a = 8 and v = 36864*6^2 + 73728*4^2 (patch 12); the largest tensor is a patch of
          C (2*12)^2 elements, and in training the gradient of x
Defaults  6 targets (five digits and an end) of 3 glimpses each, 11 classes: multi-digit SVHN (section 4); 2 scales, the second
          patch twice as wide (scale) and pooled; convolutions 5 x 5, 3 x 3, 3 x 3 with 64, 64, 128 filters and no pooling;
          features = 1024, hidden = 512; patch = 12 (9 or more; see Differs); std = 0.1 (google-research/saccader; the paper
          tunes it)
Differs   interpretation: the paper has no public code and does not fix everything. The convolutions are not padded: with
          patches of 12 x 12 that is 0.19 GMACs and 9 M parameters for a 54 x 54 colour image, where the paper counts 0.2 G and
          14 M. ReLU everywhere but in the LSTMs (no peepholes, one bias) and on the outputs; the context network is a copy of
          the convolutions and an fc on the whole image pooled to patch x patch, its output is the hidden state of LSTM2, the
          cell starts at 0; tanh on the mean, samples clamped to [-1, 1], patches around the pixel floor((l + 1) size / 2) with
          zeros outside, as common for RAM; the baseline sees a detached r2. LSTM2 does not run after the last glimpse. Rewards
          add up over targets (section 3), but the gradient is not cut at the first wrong one. Eval mode takes the mean policy;
          log_pi is that of the mean
Survey    domain: spatial; g: glimpse network, stacked RNN; f: crop; tasks: Cls; kind: hard; goal: I, II; stage: 1
          (no row in the survey)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnprof.records import Mechanism, Shape


def conv_net(inputs: int, patch: int, outputs: int) -> nn.Sequential:
    """Three convolutions without padding and a fully-connected layer on a patch x patch map."""
    return nn.Sequential(
        nn.Conv2d(inputs, 64, 5),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * (patch - 8) ** 2, outputs),
    )


class LSTM(nn.Module):
    """One step of an LSTM: input (B, inputs), state (B, hidden) twice -> new state."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 4 * hidden)
        self.recur = nn.Linear(hidden, 4 * hidden, bias=False)

    def forward(self, x: Tensor, r: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, new = (self.input(x) + self.recur(r)).chunk(4, dim=1)  # B R each
        cell = f.sigmoid() * cell + i.sigmoid() * new.tanh()
        return o.sigmoid() * cell.tanh(), cell


class DRAM(nn.Module):
    """Recurrent glimpses for a sequence of targets: x (B, C, H, W) -> class log-probabilities and what REINFORCE needs."""

    def __init__(
        self,
        channels: int,
        patch: int = 12,
        scales: int = 2,
        scale: int = 2,
        features: int = 1024,
        hidden: int = 512,
        targets: int = 6,
        glimpses: int = 3,
        classes: int = 11,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        if patch < 9:
            raise ValueError(f"three convolutions without padding need a patch of 9 x 9 or more, not {patch} x {patch}")
        self.patch, self.scales, self.scale = patch, scales, scale
        self.targets, self.glimpses, self.std, self.hidden = targets, glimpses, std, hidden
        self.what = conv_net(scales * channels, patch, features)
        self.where = nn.Linear(2, features)
        self.lower = LSTM(features, hidden)
        self.upper = LSTM(hidden, hidden)
        self.context = conv_net(channels, patch, hidden)
        self.emit = nn.Linear(hidden, 2)
        self.baseline = nn.Linear(hidden, 1)
        self.classify = nn.Sequential(nn.Linear(hidden, features), nn.ReLU(), nn.Linear(features, classes))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        r1 = cell1 = cell2 = x.new_zeros(x.shape[0], self.hidden)  # B R
        r2 = self.context(F.adaptive_avg_pool2d(x, self.patch))  # B R
        locations, log_pi, baselines, log_probs = [], [], [], []
        steps = self.targets * self.glimpses
        for step in range(1, steps + 1):
            mean = self.emit(r2).tanh()  # B 2: x and y in [-1, 1]
            sample = mean.detach()
            if self.training:
                sample = sample + self.std * torch.randn_like(mean)
            location = sample.clamp(-1, 1)
            locations.append(location)
            log_pi.append(self.log_density(sample, mean))
            baselines.append(self.baseline(r2.detach()).squeeze(1))
            g = self.what(self.retina(x, location)).relu() * self.where(location).relu()  # B F
            r1, cell1 = self.lower(g, r1, cell1)
            if step < steps:
                r2, cell2 = self.upper(r1, r2, cell2)
            if step % self.glimpses == 0:
                log_probs.append(self.classify(r1).log_softmax(dim=1))
        return {
            "log_probs": torch.stack(log_probs, dim=1),
            "log_pi": torch.stack(log_pi, dim=1),
            "baselines": torch.stack(baselines, dim=1),
            "locations": torch.stack(locations, dim=1),
        }

    def retina(self, x: Tensor, location: Tensor) -> Tensor:
        """Patches of growing width around a location, each pooled to patch x patch: B kC g g."""
        factors = [self.scale**index for index in range(self.scales)]
        return torch.cat([F.avg_pool2d(self.crop(x, location, self.patch * factor), factor) for factor in factors], dim=1)

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
    """The hybrid loss where every target is class 0: cross-entropy, REINFORCE with the hits so far, baseline regression."""
    log_probs, baselines = outputs["log_probs"], outputs["baselines"]
    hits = (log_probs.argmax(dim=2) == 0).to(log_probs.dtype).cumsum(dim=1)  # B S
    reward = hits.repeat_interleave(baselines.shape[1] // hits.shape[1], dim=1)  # B T
    reinforce = -(outputs["log_pi"] * (reward - baselines.detach())).sum(dim=1).mean()
    return -log_probs[:, :, 0].sum(dim=1).mean() + reinforce + (baselines - reward).square().mean()


def params(
    channels: int,
    patch: int = 12,
    scales: int = 2,
    scale: int = 2,
    features: int = 1024,
    hidden: int = 512,
    targets: int = 6,
    glimpses: int = 3,
    classes: int = 11,
    std: float = 0.1,
) -> int:
    """Closed form of the parameter count."""
    flat = 128 * (patch - 8) ** 2
    convs = 25 * 64 * channels * (scales + 1) + 2 * (64 + 9 * 64 * 64 + 64 + 9 * 64 * 128 + 128)
    dense = (flat + 1) * (features + hidden) + 3 * features
    recurrent = 4 * hidden * (features + hidden + 1) + 4 * hidden * (2 * hidden + 1)
    return convs + dense + recurrent + 3 * (hidden + 1) + (hidden + 1) * features + (features + 1) * classes


def macs(
    shape: Shape,
    patch: int = 12,
    scales: int = 2,
    scale: int = 2,
    features: int = 1024,
    hidden: int = 512,
    targets: int = 6,
    glimpses: int = 3,
    classes: int = 11,
    std: float = 0.1,
) -> int:
    """Multiply-accumulates of one forward pass."""
    steps = targets * glimpses
    first = 25 * 64 * shape.channels * (patch - 4) ** 2
    others = 9 * 64 * 64 * (patch - 6) ** 2 + 9 * 64 * 128 * (patch - 8) ** 2
    flat = 128 * (patch - 8) ** 2
    glimpse = scales * first + others + flat * features + 2 * features
    lower = 4 * hidden * (features + hidden)
    upper = 8 * hidden**2
    classify = hidden * features + features * classes
    context = first + others + flat * hidden
    total = steps * (glimpse + lower + 3 * hidden) + (steps - 1) * upper + targets * classify + context
    return shape.batch * total


MECHANISM = Mechanism(
    name="dram",
    family="spatial",
    layout="BCHW",
    paper="Ba et al., ICLR 2015",
    build=DRAM,
    params=params,
    macs=macs,
    objective=objective,
    natural=Shape(1, 3, 54, 54),
)
