"""RSTAN: step by step, frame by frame, position by position, gate by gate (Du et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = (
    {"hidden": 10, "attention": 6, "classes": 7},
    {"streams": 2, "hidden": 20, "attention": 12},
    {"hidden": 16, "attention": 24, "spatial_sharpness": 2.5, "temporal_sharpness": 0.4},
)
SHAPE = (32, 2, 3, 3)


def weigh(p: Params, name: str, vectors: list[Tensor], hidden: Tensor, sharpness: float) -> Tensor:
    """Softmax average of vectors, scored by w . tanh(W_h h + W_x x + b)."""
    asked = p[f"{name}_query.weight"] @ hidden + p[f"{name}_key.bias"]
    scores = [p[f"{name}_score.weight"][0] @ torch.tanh(p[f"{name}_key.weight"] @ x + asked) for x in vectors]
    weights = [torch.exp(sharpness * score) for score in scores]
    return sum((w * x for w, x in zip(weights, vectors, strict=True)), torch.zeros_like(vectors[0])) / sum(weights)


def stream(p: Params, video: Tensor, size: int, sharpness: tuple[float, float]) -> list[Tensor]:
    """The hidden states of all steps; video T C H W."""
    hidden = cell = torch.zeros(size, dtype=video.dtype)
    states = []
    for _ in range(video.shape[0]):
        frames = [weigh(p, "position", list(frame.flatten(1).T), hidden, sharpness[0]) for frame in video]
        context = weigh(p, "frame", frames, hidden, sharpness[1])
        parts = []
        for gate in range(4):
            rows = p["gates.weight"][gate * size : (gate + 1) * size]
            value = rows[:, : len(context)] @ context + rows[:, len(context) :] @ hidden
            parts.append(value + p["gates.bias"][gate * size : (gate + 1) * size])
        write, forget, read, new = parts
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(new)
        hidden = torch.sigmoid(read) * torch.tanh(cell)
        states.append(hidden)
    return states


def reference(
    p: Params,
    *videos: Tensor,
    training: bool,
    hidden: int = 512,
    attention: int = 512,
    classes: int = 101,
    streams: int = 1,
    spatial_sharpness: float = 1.0,
    temporal_sharpness: float = 1.0,
) -> Tensor:
    """y_t = W [h_t of each stream] + b."""
    sharpness = (spatial_sharpness, temporal_sharpness)
    sequences = []
    for b in range(videos[0].shape[0]):
        all_states = []
        for number, video in enumerate(videos):
            own = {name.removeprefix(f"streams.{number}."): tensor for name, tensor in p.items()}
            all_states.append(stream(own, video[b], hidden, sharpness))
        steps = [p["classify.weight"] @ torch.cat(step) + p["classify.bias"] for step in zip(*all_states, strict=True)]
        sequences.append(torch.stack(steps))
    return torch.stack(sequences)
