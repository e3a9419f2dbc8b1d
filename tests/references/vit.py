"""Vision Transformer encoder block, head by head and query by query (Dosovitskiy et al., section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"heads": 4}, {"heads": 2, "mlp_ratio": 2})
SHAPE = (128, 3, 5)  # two heads by default


def reference(p: Params, x: Tensor, *, training: bool, heads: int | None = None, mlp_ratio: int = 4) -> Tensor:
    """z = x + MSA(LN(x)); y = z + MLP(LN(z))."""
    channels = x.shape[2]
    if heads is None:
        heads = max([h for h in range(1, channels + 1) if channels % h == 0 and channels >= 64 * h], default=1)
    z = x + _attend(p, _normalise(p, "norm1", x), heads)
    hidden = _linear(p, "mlp.0", _normalise(p, "norm2", z))
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return z + _linear(p, "mlp.2", hidden)


def _attend(p: Params, x: Tensor, heads: int) -> Tensor:
    channels = x.shape[2]
    size = channels // heads
    projected = _linear(p, "qkv", x)
    concatenated = []
    for m in range(heads):
        q, k, v = (projected[:, :, part * channels + m * size :][:, :, :size] for part in range(3))
        outputs = []
        for i in range(x.shape[1]):
            weights = ((k * q[:, i : i + 1]).sum(dim=2) / size**0.5).exp()
            outputs.append((weights[:, :, None] * v).sum(dim=1) / weights.sum(dim=1, keepdim=True))
        concatenated.append(torch.stack(outputs, dim=1))
    return _linear(p, "out", torch.cat(concatenated, dim=2))


def _normalise(p: Params, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=2, keepdim=True)
    deviation = ((centred**2).mean(dim=2, keepdim=True) + 1e-6).sqrt()
    return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]


def _linear(p: Params, name: str, x: Tensor) -> Tensor:
    return torch.einsum("oc,bnc->bno", p[f"{name}.weight"], x) + p[f"{name}.bias"]
