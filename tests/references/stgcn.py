"""STGCN, node by node (Yang et al.)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

SHAPE = (64, 5, 3, 3)  # eight structural channels: a layer norm over few has next to no gradient
VARIANTS = ({"patches": 2, "layers": 1}, {"patches": 3, "layers": 2, "width": 12})


def _adjacency(nodes: list[Tensor], phi: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2, A the squared similarities divided by the sum of their row."""
    seen = torch.stack([phi @ x for x in nodes])
    squares = torch.stack([torch.stack([(a * b).sum() ** 2 for b in seen]) for a in seen])
    loops = squares / squares.sum(dim=1)[:, None] + torch.eye(len(nodes), dtype=phi.dtype)
    degree = torch.diag(loops.sum(dim=1) ** -0.5)
    return degree @ loops @ degree


def _norm(p: Params, name: str, x: Tensor) -> Tensor:
    """Layer norm of each node."""
    centred = x - x.mean(dim=1, keepdim=True)
    deviation = ((centred**2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]


def _convolve(p: Params, branch: str, x: Tensor, adjacency: Tensor, weights: list[Tensor]) -> Tensor:
    """The layers of a branch on the nodes of one graph, then the maximum of each channel."""
    for layer, weight in enumerate(weights):
        y = _norm(p, f"{branch}_norm.{layer}", adjacency @ x @ weight)
        y = torch.where(y > 0, y, 0.01 * y)
        x = y if layer == 0 else x + y
    return torch.stack([column.max() for column in x.T])


def reference(
    p: Params, x: Tensor, *, training: bool, frames: int, patches: int = 4, layers: int = 3, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """One graph over the stripes of all frames; a graph over the stripes of each frame."""
    height = x.shape[3]
    temporal, structural = [], []
    for b in range(x.shape[0]):
        stripes = []
        for t in range(frames):
            rows = [slice(i * height // patches, -(-(i + 1) * height // patches)) for i in range(patches)]
            stripes.append([x[b, t, :, cut].mean(dim=(1, 2)) for cut in rows])
        every = [node for stripe in stripes for node in stripe]
        weights = [p[f"temporal.{layer}.weight"].T for layer in range(layers)]
        adjacency = _adjacency(every, p["temporal_phi.weight"])
        temporal.append(_convolve(p, "temporal", torch.stack(every), adjacency, weights))
        of_frames = []
        for t in range(frames):
            weights = [p[f"structural.{layer}"][t] for layer in range(layers)]
            adjacency = _adjacency(stripes[t], p["structural_phi.weight"])
            of_frames.append(_convolve(p, "structural", torch.stack(stripes[t]), adjacency, weights))
        structural.append(torch.cat(of_frames))
    return torch.stack(temporal), torch.stack(structural)
