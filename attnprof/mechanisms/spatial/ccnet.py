"""Recurrent criss-cross attention, as lean in memory as the paper's kernels.

Paper     Huang et al., "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019, arXiv:1811.11721, sections 3.2, 3.3
Idea      Every position gathers from its own row and column; a second pass with the same weights reaches all positions.
Formula   A_u = softmax over the H+W-1 positions of u's row and column of q_u . k;  y_u = gamma * sum_i A_iu v_i + x_u;  R times
Shapes    x: B C H W -> y: B C H W
Params    2*(C*(C//8) + C//8) + C*C + C + 1
          1.25*C^2 + 1.25*C + 1 where 8 divides C, whatever the recurrence
Cost      R * (N*C*(2*(C//8) + C) + N*(H+W)*(C//8 + C)) MACs per image; a pass keeps only its input for the backward pass, and
          makes, beside its output, one image's attention (N*(H+W) elements) and a quarter of its values (N*C/4) at a time
Defaults  recurrence R = 2 (section 3.3); reduction r = 8 for queries and keys (official code); gamma starts at 0 (official code)
Differs   the paper's kernels become matrix products on strided views that write where the result is needed. Queries, keys, values
          and attention are computed again in the backward pass, and count there. H+W logits are computed: the position itself is
          masked in its column, so that it counts once. As in the official code, each pass has its own residual and gamma inside
          and the projections have biases; queries and keys keep one channel where C < r. The output is channels-last. Second
          derivatives are refused: spatial/ccnet_bmm has the same parameters, values and gradients, and them.
          In the head, 3x3 convolutions come before and after: they are the host's.
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
        width = max(channels // reduction, 1)
        self.recurrence = recurrence
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        layers = (self.query, self.key, self.value)
        projections = [parameter for layer in layers for parameter in (layer.weight.flatten(1), layer.bias)]
        for _ in range(self.recurrence):
            x = _Pass.apply(x, self.gamma, *projections)
        return x


class _Pass(torch.autograd.Function):
    """One pass. Keeps its inputs for the backward pass, which computes everything else again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, *projections: Tensor) -> Tensor:
        ctx.save_for_backward(x, gamma, *projections)
        batch, channels, height, width = x.shape
        out = x.new_empty((0, height, width, channels))
        for image in range(batch):
            source = x[image].permute(1, 2, 0)  # H W C
            attention = _attend(source, *projections[:4])[2]  # H W H+W
            if image == 0:  # only now that the queries and keys are gone
                out = x.new_empty((batch, height, width, channels))
            for part in _quarters(channels):
                _gather(attention, _project(source, *projections[4:], part), out[image, ..., part])
            out[image].mul_(gamma).add_(source)
        return out.permute(0, 3, 1, 2)  # B C H W

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("ccnet has no second derivative (create_graph=True): use ccnet_bmm, which is the same function")
        x, gamma, *projections = ctx.saved_tensors
        grad_gamma, *grads = (torch.zeros_like(parameter) for parameter in (gamma, *projections))
        grad_x = x[:0]
        for image in range(x.shape[0]):
            source, above = x[image].permute(1, 2, 0), grad[image].permute(1, 2, 0)  # H W C
            query, key, attention = _attend(source, *projections[:4])
            slope = torch.zeros_like(attention)  # gradient of the attention, then of the logits
            for part in _quarters(x.shape[1]):
                _compare(above[..., part], _project(source, *projections[4:], part), slope)
            total = slope.mul_(attention).sum(dim=2, keepdim=True)  # H W 1
            grad_gamma += total.sum()  # that of A * (g v^T) is that of g * (A v): the output is not needed
            slope.addcmul_(attention, total, value=-1).mul_(gamma)
            grad_query = _gather(slope, key, torch.empty_like(query))  # H W C/r
            grad_key = _gather(slope, query, torch.empty_like(key), back=True)  # H W C/r
            del query, key, slope
            if image == 0:  # in a layout of which each image is a matrix, and that of x where it can be
                layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
                grad_x = torch.empty_like(x, memory_format=layout)
            into = grad_x[image].permute(1, 2, 0).copy_(above)
            _unproject(grad_query, source, projections[0], grads[0], grads[1], into)
            _unproject(grad_key, source, projections[2], grads[2], grads[3], into)
            del grad_query, grad_key
            attention.mul_(gamma)
            for part in _quarters(x.shape[1]):
                grad_value = _gather(attention, above[..., part], into.new_empty(above[..., part].shape), back=True)
                _unproject(grad_value, source, projections[4][part], grads[4][part], grads[5][part], into)
                del grad_value
        return grad_x, grad_gamma, *grads


def _quarters(channels: int) -> list[slice]:
    """Slices of the channels, so that the values need not exist all at once."""
    step = -(-channels // 4)
    return [slice(start, start + step) for start in range(0, channels, step)]


def _project(source: Tensor, weight: Tensor, bias: Tensor, part: slice = slice(None)) -> Tensor:
    """A 1x1 convolution: H W C -> H W c."""
    return torch.addmm(bias[part], source.flatten(0, 1), weight[part].t()).unflatten(0, source.shape[:2])


def _unproject(grad: Tensor, source: Tensor, weight: Tensor, grad_weight: Tensor, grad_bias: Tensor, into: Tensor) -> None:
    """Add the gradients of a 1x1 convolution to those of its weight, bias and input."""
    grad, into = grad.flatten(0, 1), into.flatten(0, 1)  # N c, N C
    torch.addmm(into, grad, weight, out=into)
    torch.addmm(grad_weight, grad.t(), source.flatten(0, 1), out=grad_weight)
    grad_bias += grad.sum(dim=0)


def _attend(source: Tensor, *query_key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys (H W C/r) and attention (H W H+W): first to the column, then to the row."""
    height, width, _ = source.shape
    query, key = _project(source, *query_key[:2]), _project(source, *query_key[2:])
    logits = source.new_zeros((height, width, height + width))
    _compare(query, key, logits)
    logits[..., :height].diagonal(dim1=0, dim2=2).fill_(float("-inf"))
    return query, key, torch.softmax(logits, dim=2, out=logits)


def _compare(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Add to `out` (H W H+W) the dot products of every position of `left` with its column and row of `right` (H W c)."""
    column, row = out[..., : left.shape[0]].transpose(0, 1), out[..., left.shape[0] :]  # W H H, H W W
    torch.baddbmm(column, left.transpose(0, 1), right.permute(1, 2, 0), out=column)
    torch.baddbmm(row, left, right.transpose(1, 2), out=row)


def _gather(weights: Tensor, values: Tensor, out: Tensor, back: bool = False) -> Tensor:
    """Sum the values (H W c) of every position's column and row by its weights (H W H+W), or (back) by theirs for it."""
    column, row = weights[..., : values.shape[0]].transpose(0, 1), weights[..., values.shape[0] :]  # W H H, H W W
    if back:
        column, row = column.transpose(1, 2), row.transpose(1, 2)
    torch.bmm(row, values, out=out)
    turned = out.transpose(0, 1)
    torch.baddbmm(turned, column, values.transpose(0, 1), out=turned)
    return out


def params(channels: int, recurrence: int = 2, reduction: int = 8) -> int:  # noqa: ARG001 the passes share their weights
    """Closed form of the parameter count."""
    width = max(channels // reduction, 1)
    return (2 * width + channels) * (channels + 1) + 1


def macs(shape: Shape, recurrence: int = 2, reduction: int = 8) -> int:
    """Multiply-accumulates of one forward pass; the masked position is computed too."""
    channels, positions = shape.channels, shape.height * shape.width
    width = max(channels // reduction, 1)
    projections = positions * channels * (2 * width + channels)
    attention = positions * (shape.height + shape.width) * (width + channels)
    return shape.batch * recurrence * (projections + attention)


MECHANISM = Mechanism(
    name="ccnet",
    family="spatial",
    layout="BCHW",
    paper="Huang et al., ICCV 2019",
    build=CrissCross,
    params=params,
    macs=macs,
)
