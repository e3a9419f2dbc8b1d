"""Deep recurrent attention model, with patches cut image by image from a zero-padded image (Ba et al., section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (32, 9, 13)
VARIANTS = [
    {"targets": 1, "glimpses": 4, "features": 24, "hidden": 16, "std": 0.5},
    {"patch": 9, "scales": 3, "scale": 3, "features": 40, "hidden": 24, "targets": 2, "glimpses": 2, "classes": 5},
    {"scales": 1, "features": 16, "hidden": 40, "targets": 3, "glimpses": 1},
]


def linear(p: Params, name: str, v: Tensor) -> Tensor:
    """W v + b for every row v."""
    return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def convolve(p: Params, name: str, images: Tensor) -> Tensor:
    """The map shifted by every point of the kernel, a sum over points and channels, then ReLU."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    size = images.shape[2] - weight.shape[2] + 1
    points = [(i, j) for i in range(weight.shape[2]) for j in range(weight.shape[3])]
    shifted = torch.stack([images[:, :, i : i + size, j : j + size] for i, j in points], dim=1)
    weights = torch.stack([weight[:, :, i, j] for i, j in points], dim=1)
    return torch.relu(torch.einsum("opc,bpcyx->boyx", weights, shifted) + bias[:, None, None])


def network(p: Params, name: str, images: Tensor) -> Tensor:
    """Convolutions 0, 2 and 4, then layer 7 on all their values."""
    for layer in (0, 2, 4):
        images = convolve(p, f"{name}.{layer}", images)
    return linear(p, f"{name}.7", images.reshape(len(images), -1))


def lstm(p: Params, name: str, x: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates in the order input, forget, output, candidate."""
    gates = linear(p, f"{name}.input", x) + state @ p[f"{name}.recur.weight"].T
    size = state.shape[1]
    i, f, o = (1 / (1 + torch.exp(-gates[:, k * size : (k + 1) * size])) for k in range(3))
    cell = f * cell + i * torch.tanh(gates[:, 3 * size :])
    return o * torch.tanh(cell), cell


def coarse(image: Tensor, size: int) -> Tensor:
    """Means of the cells of a size x size grid, which overlap where the sides do not divide."""
    _, height, width = image.shape
    rows = [(i * height // size, -(-(i + 1) * height // size)) for i in range(size)]
    columns = [(j * width // size, -(-(j + 1) * width // size)) for j in range(size)]
    cells = [image[:, top:bottom, left:right].mean(dim=(1, 2)) for top, bottom in rows for left, right in columns]
    return torch.stack(cells, dim=1).reshape(-1, size, size)


def retina(image: Tensor, place: list[float], patch: int, scales: int, scale: int) -> Tensor:
    """Every scale's patch as the means of its cells, from an image with a wide frame of zeros."""
    channels, height, width = image.shape
    seen = []
    for index in range(scales):
        factor = scale**index
        size = patch * factor
        padded = image.new_zeros(channels, height + 2 * size, width + 2 * size)
        padded[:, size : size + height, size : size + width] = image
        left = math.floor((place[0] + 1) / 2 * width) - size // 2 + size
        top = math.floor((place[1] + 1) / 2 * height) - size // 2 + size
        cut = padded[:, top : top + size, left : left + size]
        seen.append(torch.stack([cut[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]).mean(dim=0))
    return torch.cat(seen)


def reference(
    p: Params,
    x: Tensor,
    *,
    training: bool,
    patch: int = 12,
    scales: int = 2,
    scale: int = 2,
    features: int = 1024,
    hidden: int = 512,
    targets: int = 6,
    glimpses: int = 3,
    classes: int = 11,
    std: float = 0.1,
) -> dict[str, Tensor]:
    """Step by step; a cut for every image."""
    nothing = torch.zeros(len(x), hidden, dtype=x.dtype)
    lower, upper = (nothing, nothing), (network(p, "context", torch.stack([coarse(image, patch) for image in x])), nothing)
    log_probs, log_pi, baselines, places = [], [], [], []
    for step in range(1, targets * glimpses + 1):
        mean = torch.tanh(linear(p, "emit", upper[0]))
        drawn = mean.detach() + (std * torch.randn(len(x), 2, dtype=x.dtype) if training else 0)
        density = torch.exp(-((drawn - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi))
        log_pi.append(torch.log(density[:, 0]) + torch.log(density[:, 1]))
        baselines.append(linear(p, "baseline", upper[0].detach())[:, 0])
        place = torch.minimum(torch.maximum(drawn, -torch.ones(2)), torch.ones(2))
        places.append(place)
        seen = torch.stack([retina(image, xy.tolist(), patch, scales, scale) for image, xy in zip(x, place, strict=True)])
        lower = lstm(p, "lower", torch.relu(network(p, "what", seen)) * torch.relu(linear(p, "where", place)), *lower)
        upper = lstm(p, "upper", lower[0], *upper)
        if step % glimpses == 0:
            scores = linear(p, "classify.2", torch.relu(linear(p, "classify.0", lower[0])))
            log_probs.append(scores - torch.log(torch.exp(scores).sum(dim=1, keepdim=True)))
    outputs = {"log_probs": log_probs, "log_pi": log_pi, "baselines": baselines, "locations": places}
    return {name: torch.stack(values, dim=1) for name, values in outputs.items()}
