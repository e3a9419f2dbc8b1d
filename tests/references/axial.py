"""Axial attention: a loop over rows, then over columns, with plain attention per head (Ho et al., section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.references import Params

VARIANTS = ({"heads": 1}, {"heads": 4})


def _sequence(p: Params, name: str, x: Tensor, heads: int) -> Tensor:
    """Multi-head attention within one sequence of every image; x: B L C."""
    channels = x.shape[2]
    size = channels // heads
    query = torch.einsum("blc,oc->blo", x, p[f"{name}.to_q.weight"])
    key = torch.einsum("blc,oc->blo", x, p[f"{name}.to_kv.weight"][:channels])
    value = torch.einsum("blc,oc->blo", x, p[f"{name}.to_kv.weight"][channels:])
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        similarity = torch.einsum("bic,bjc->bij", query[..., part], key[..., part]) / math.sqrt(size)
        weights = similarity.exp() / similarity.exp().sum(dim=2, keepdim=True)
        out.append(torch.einsum("bij,bjc->bic", weights, value[..., part]))
    return torch.einsum("blc,oc->blo", torch.cat(out, dim=2), p[f"{name}.to_out.weight"]) + p[f"{name}.to_out.bias"]


def reference(p: Params, x: Tensor, *, training: bool, heads: int = 8) -> Tensor:
    """y = columns(rows(x)), one row and one column at a time."""
    _, _, height, width = x.shape
    rows = [_sequence(p, "rows", x[:, :, i].transpose(1, 2), heads) for i in range(height)]  # B W C each
    x = torch.stack(rows, dim=1)  # B H W C
    columns = [_sequence(p, "columns", x[:, :, j], heads) for j in range(width)]  # B H C each
    return torch.stack(columns, dim=2).permute(0, 3, 1, 2)
