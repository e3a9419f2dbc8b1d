"""Slow, obvious forms of the mechanisms, written from the papers: what the catalogue is compared with.

A file `references/<name>.py` has one function

    reference(p, *inputs, training, **args) -> Tensor (or a tuple)

where `p` maps the names of the module's parameters and buffers to tensors, and `args` are the build arguments of the case.
It imports nothing from attnprof, uses loops or plain einsum where the module is clever, and is differentiable in `p` and in
the inputs. Optional: VARIANTS, a tuple of further argument sets to test; SHAPE, (C, H, W) where (32, 5, 7) does not suit, or
(C, H, W, T) with frames. What is random is drawn from torch's generator, in the order in which the module draws it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Params = Mapping[str, Tensor]


def conv1x1(p: Params, name: str, x: Tensor) -> Tensor:
    """A 1x1 convolution as a sum over channels; x: B C ..., bias where `p` has one."""
    weight = p[f"{name}.weight"].flatten(1)
    out = torch.einsum("oc,bc...->bo...", weight, x)
    bias = p.get(f"{name}.bias")
    return out if bias is None else out + bias.reshape(1, -1, *[1] * (x.dim() - 2))


def batch_norm(p: Params, name: str, x: Tensor, training: bool, eps: float = 1e-5) -> Tensor:
    """Batch normalisation over every dimension but the second: batch statistics in training, running ones otherwise."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    if training:
        dims = [0, *range(2, x.dim())]
        mean, var = x.mean(dims), x.var(dims, unbiased=False)
    else:
        mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    out = (x - mean.reshape(shape)) / (var.reshape(shape) + eps).sqrt()
    if f"{name}.weight" in p:
        out = out * p[f"{name}.weight"].reshape(shape) + p[f"{name}.bias"].reshape(shape)
    return out
