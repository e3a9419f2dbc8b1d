"""SCA-CNN's attentions, channel by channel and position by position (Chen et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"order": "spatial-channel", "hidden": 20, "attention": 12}, {"rescale": True, "hidden": 7, "attention": 24})


def reference(
    p: Params,
    x: Tensor,
    h: Tensor,
    *,
    training: bool,
    hidden: int = 1000,
    attention: int = 512,
    order: str = "channel-spatial",
    rescale: bool = False,
) -> Tensor:
    """The second attention is computed from the map under the first; both multiply x."""
    images = []
    for image, state in zip(x, h, strict=True):
        first, second = (_channel, _spatial) if order == "channel-spatial" else (_spatial, _channel)
        weights = first(p, image, state, rescale)
        images.append(image * weights * second(p, image * weights, state, rescale))
    return torch.stack(images)


def _channel(p: Params, image: Tensor, state: Tensor, rescale: bool) -> Tensor:
    """beta_c = softmax over the channels, C 1 1."""
    scores, led = [], p["channel_state.weight"] @ state
    for channel in image:
        mean = channel.sum() / channel.numel()
        b = torch.tanh(p["channel_map.weight"][:, 0] * mean + p["channel_map.bias"] + led)
        scores.append((p["channel_score.weight"][0] * b).sum() + p["channel_score.bias"][0])
    weights = torch.exp(torch.stack(scores))
    weights = weights / weights.sum()
    return (weights * len(image) if rescale else weights)[:, None, None]


def _spatial(p: Params, image: Tensor, state: Tensor, rescale: bool) -> Tensor:
    """alpha_n = softmax over the positions, 1 H W."""
    _, height, width = image.shape
    scores, led = [], p["spatial_state.weight"] @ state
    for i in range(height):
        for j in range(width):
            a = torch.tanh(p["spatial_map.weight"].flatten(1) @ image[:, i, j] + p["spatial_map.bias"] + led)
            scores.append((p["spatial_score.weight"].flatten() * a).sum() + p["spatial_score.bias"][0])
    weights = torch.exp(torch.stack(scores))
    weights = weights / weights.sum()
    return (weights * height * width if rescale else weights).reshape(1, height, width)
