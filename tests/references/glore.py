"""Global reasoning unit, node by node (Chen et al., section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params, batch_norm, conv1x1

VARIANTS = ({"nodes": 5},)


def reference(p: Params, x: Tensor, *, training: bool, nodes: int | None = None) -> Tensor:
    """v_m = sum_i P_mi S_i;  v_m += a_m + sum_l A_ml v_l;  z_m = W_g relu(v_m);  y_i = x_i + BN(W_e sum_m P_mi z_m)."""
    count = x.shape[1] // 4 if nodes is None else nodes
    state = conv1x1(p, "state", x)
    projection = conv1x1(p, "projection", x)
    v = [(projection[:, m : m + 1] * state).sum(dim=(2, 3)) for m in range(count)]  # each B 2M
    adjacency, bias = p["adjacency.weight"][:, :, 0], p["adjacency.bias"]
    mixed = []
    for m in range(count):
        message = torch.stack([adjacency[m, other] * v[other] for other in range(count)]).sum(dim=0)
        mixed.append((v[m] + message + bias[m]).clamp(min=0))
    z = [node @ p["update.weight"][:, :, 0].T for node in mixed]
    spread = torch.stack([projection[:, m : m + 1] * z[m][:, :, None, None] for m in range(count)]).sum(dim=0)
    return x + batch_norm(p, "bn", conv1x1(p, "extend", spread), training, eps=1e-4)
