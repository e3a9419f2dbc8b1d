"""Relation-aware global attention, node by node (Zhang et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

SHAPE = (32, 5, 4)
VARIANTS = ({"reduction": 2}, {"order": "s"}, {"order": "cs", "reduction": 4})


def reference(p: Params, x: Tensor, *, training: bool, hw: tuple[int, int], reduction: int = 8, order: str = "sc") -> Tensor:
    """Positions as nodes for s, channels as nodes for c, one after the other."""
    batch, channels, height, width = x.shape
    for branch in order:
        if branch == "s":
            nodes = [x[:, :, i, j] for i in range(height) for j in range(width)]
            x = x * _gates(p, "spatial", nodes, training).reshape(batch, 1, height, width)
        else:
            nodes = [x[:, c].flatten(1) for c in range(channels)]
            x = x * _gates(p, "channel", nodes, training).reshape(batch, channels, 1, 1)
    return x


def _gates(p: Params, name: str, nodes: list[Tensor], training: bool) -> Tensor:
    """B V: the gate of every node from its relation vector [r_i1 .. r_iV, r_1i .. r_Vi] and its own feature."""
    stacked = torch.stack(nodes, dim=2)
    theta, phi, g = (_embed(p, f"{name}.{layer}", stacked, training) for layer in ("theta", "phi", "g"))
    vectors = []
    for i in range(len(nodes)):
        outgoing = [(theta[:, :, i] * phi[:, :, j]).sum(dim=1) for j in range(len(nodes))]
        incoming = [(theta[:, :, j] * phi[:, :, i]).sum(dim=1) for j in range(len(nodes))]
        vectors.append(torch.stack(outgoing + incoming, dim=1))
    relations = _embed(p, f"{name}.relate", torch.stack(vectors, dim=2), training)
    own = g.sum(dim=1, keepdim=True) / g.shape[1]
    hidden = torch.cat([own, relations], dim=1)
    hidden = torch.relu(batch_norm(p, f"{name}.gate.1", conv1x1(p, f"{name}.gate.0", hidden), training))
    return torch.sigmoid(batch_norm(p, f"{name}.gate.4", conv1x1(p, f"{name}.gate.3", hidden), training))[:, 0]


def _embed(p: Params, name: str, x: Tensor, training: bool) -> Tensor:
    return torch.relu(batch_norm(p, f"{name}.1", conv1x1(p, f"{name}.0", x), training))
