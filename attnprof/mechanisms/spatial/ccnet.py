"""Recurrent criss-cross attention, as lean in memory as the paper's kernels.

Paper     Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv:1811.11721, sections 3.2, 3.3
Idea      Every position gathers from its own row and column; a second pass with the same weights reaches all positions.
Formula   A_u = softmax over the H+W-1 positions of u's row and column of q_u . k;  y_u = gamma * sum_i A_iu v_i + x_u;  R times
Shapes    x: B C H W -> y: B C H W
Params    (2*max(C//reduction, 1) + C)*(C + 1) + 1
Cost      R*N*(C*(2*(C//8) + C) + (H+W)*(C//8 + C)) MACs per image; a pass keeps x, and makes N*(H+W) + N*C/4 elements beside y
Defaults  recurrence R = 2 (section 3.3); reduction r = 8 for queries and keys and gamma = 0 at the start (official code)
Differs   matrix products on strided views replace the paper's kernels; all but x is computed again in the backward pass, and
          counts there; a position's own logit is computed twice, once masked; channels-last output; no second derivatives (the
          same function with them: spatial/ccnet_bmm). Biases and gamma as in the official code; at least one query channel.
Survey    domain: spatial; g: dot product between query and key on the criss-cross path, softmax; f: weighted sum, residual;
          tasks: SSeg, ISeg; kind: soft; goal: I, IV; stage: 4 (no row in the survey)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class CrissCross(nn.Module):
    """Attention along rows and columns, R times: x (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, recurrence: int = 2, reduction: int = 8) -> None:
        super().__init__()
        if recurrence < 1:
            raise ValueError(f"recurrence={recurrence}: at least one pass")
        self.recurrence = recurrence
        self.query, self.key = (nn.Conv2d(channels, max(channels // reduction, 1), 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        tensors: list[Tensor] = [self.gamma, *self.query.parameters(), *self.key.parameters(), *self.value.parameters()]
        if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):  # as convolutions do
            x, *tensors = (tensor.to(torch.get_autocast_dtype(x.device.type)) for tensor in (x, *tensors))
        for _ in range(self.recurrence):
            x = _Pass.apply(x, *tensors)  # type: ignore[no-untyped-call]
        return x


class _Pass(torch.autograd.Function):
    """One pass. Keeps its inputs for the backward pass, which computes everything else again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, *projections: Tensor) -> Tensor:
        ctx.save_for_backward(x, gamma, *projections)
        out = x.new_empty((x.shape[0], *x.shape[2:], x.shape[1]))  # B H W C
        for source, image in zip(x.permute(0, 2, 3, 1), out, strict=True):  # H W C
            attention = _attend(source, *projections[:4])[2]  # H W H+W
            for part, weight, bias in zip(image.chunk(4, 2), projections[4].chunk(4), projections[5].chunk(4), strict=True):
                _gather(attention, _project(source, weight, bias), part)
            image.mul_(gamma).add_(source)
        return out.permute(0, 3, 1, 2)  # B C H W

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("ccnet has no second derivative (create_graph=True): use ccnet_bmm, which is the same function")
        x, gamma, *projections = ctx.saved_tensors
        grad_gamma, *grads = (torch.zeros_like(parameter) for parameter in (gamma, *projections))
        values = [tensor.chunk(4) for tensor in (*projections[4:], grads[4].flatten(1), grads[5])]
        grad_x = None
        for image, (source, above) in enumerate(zip(x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1), strict=True)):  # H W C
            query, key, attention = _attend(source, *projections[:4])
            slope = torch.zeros_like(attention)  # gradient of the attention, then of the logits
            for part, weight, bias, _, _ in zip(above.chunk(4, 2), *values, strict=True):
                _compare(part, _project(source, weight, bias), slope)
            total = slope.mul_(attention).sum(dim=2, keepdim=True)  # H W 1
            grad_gamma += total.sum()  # the sum of A * (g v^T) is that of g * (A v): the output is not needed
            slope.addcmul_(attention, total, value=-1).mul_(gamma)
            grad_query = _gather(slope, key)  # H W C/r
            grad_key = _gather(slope, query, back=True)  # H W C/r
            del query, key, slope
            if grad_x is None and ctx.needs_input_grad[0]:  # in x's layout, if that makes a matrix of an image
                grad_x = torch.empty_like(x) if x.is_contiguous() else torch.empty_like(x, memory_format=torch.channels_last)
            into = None if grad_x is None else grad_x[image].permute(1, 2, 0).copy_(above).flatten(0, 1)  # N C
            _unproject(grad_query, source, into, projections[0], grads[0].flatten(1), grads[1])
            _unproject(grad_key, source, into, projections[2], grads[2].flatten(1), grads[3])
            del grad_query, grad_key
            attention.mul_(gamma)
            for part, weight, _, to_weight, to_bias in zip(above.chunk(4, 2), *values, strict=True):
                _unproject(_gather(attention, part, back=True), source, into, weight, to_weight, to_bias)
        return grad_x, grad_gamma, *grads


def _project(source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution: H W C -> H W c."""
    return torch.addmm(bias, source.flatten(0, 1), weight.flatten(1).t()).unflatten(0, source.shape[:2])


def _unproject(grad: Tensor, source: Tensor, into: Tensor | None, weight: Tensor, to_weight: Tensor, to_bias: Tensor) -> None:
    """The backward pass of `_project`: adds to the gradients of its source (`into`), weight and bias."""
    if into is not None:
        torch.addmm(into, grad.flatten(0, 1), weight.flatten(1), out=into)
    torch.addmm(to_weight, grad.flatten(0, 1).t(), source.flatten(0, 1), out=to_weight)
    to_bias += grad.sum(dim=(0, 1))


def _attend(source: Tensor, *query_and_key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys (H W C/r) and attention (H W H+W: first to the own column, then to the own row)."""
    query, key = _project(source, *query_and_key[:2]), _project(source, *query_and_key[2:])
    logits = source.new_zeros((*source.shape[:2], sum(source.shape[:2])))
    _compare(query, key, logits)
    logits.diagonal(dim1=0, dim2=2).fill_(float("-inf"))
    return query, key, torch.softmax(logits, dim=2, out=logits)


def _compare(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Add to `out` (H W H+W) the dot products of each position of `left` with its column and row of `right` (H W c)."""
    columns, rows = out[..., : len(out)].transpose(0, 1), out[..., len(out) :]  # W H H, H W W
    torch.baddbmm(columns, left.transpose(0, 1), right.permute(1, 2, 0), out=columns)
    torch.baddbmm(rows, left, right.transpose(1, 2), out=rows)


def _gather(weights: Tensor, values: Tensor, out: Tensor | None = None, back: bool = False) -> Tensor:
    """Sum the values (H W c) of each position's column and row, by its weights for them or (back) by theirs for it."""
    columns, rows = weights[..., : len(weights)].transpose(0, 1), weights[..., len(weights) :]  # W H H, H W W
    columns, rows = (columns.transpose(1, 2), rows.transpose(1, 2)) if back else (columns, rows)
    out = torch.bmm(rows, values, out=values.new_empty(values.shape) if out is None else out)
    turned = out.transpose(0, 1)  # W H c
    torch.baddbmm(turned, columns, values.transpose(0, 1), out=turned)
    return out


def params(channels: int, recurrence: int = 2, reduction: int = 8) -> int:
    """Closed form of the parameter count."""
    return (2 * max(channels // reduction, 1) + channels) * (channels + 1) + 1


def macs(shape: Shape, recurrence: int = 2, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass; the masked position is computed too."""
    width = max(shape.channels // reduction, 1)
    per_position = shape.channels * (2 * width + shape.channels) + (shape.height + shape.width) * (width + shape.channels)
    return shape.batch * recurrence * shape.height * shape.width * per_position


MECHANISM = Mechanism(
    name="ccnet",
    family="spatial",
    layout="BCHW",
    paper="Huang et al., ICCV 2019",
    build=CrissCross,
    params=params,
    macs=macs,
    natural=Shape(1, 512, 97, 97),
    exempt={
        "every_parameter_gets_a_finite_gradient:key.bias": "softmax is blind to a shift of all logits of a row",
    },
)
