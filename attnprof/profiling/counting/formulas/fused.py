"""Kernels that hold a whole block: attention, recurrent layers, deformable convolution.

A causal or boolean mask counts as if nothing were skipped, variable lengths as if all were the longest.
"""

from __future__ import annotations

from math import prod
from typing import Any

from attnprof.profiling.counting.formulas import Args, Cost, Kwargs, Rule, argument
from attnprof.profiling.counting.formulas.contractions import taps

# Attention: q (.., S, d), k (.., T, d), v (.., T, e) ------------------------------------------------------------------------


def _attend(pairs: int, d: int, e: int, masked: bool, dropped: bool) -> Cost:
    """Per pair d + e; scale 1, softmax 5, an added mask 1, dropout 4."""
    macs = pairs * (d + e)
    return Cost(macs, 2 * macs + pairs * (6 + masked + 4 * dropped))


def _attend_backward(pairs: int, d: int, e: int, results: int, masked: bool, dropped: bool) -> Cost:
    """Scores again d; dV, dP: e each; dQ, dK: d each. Per pair: scale, subtract lse, exp, subtract, times P, scale; mask 1,
    dropout drawn again and applied to P and dP 6. Per result: the sum of g * out, 2.
    """
    macs = pairs * (3 * d + 2 * e)
    return Cost(macs, 2 * macs + pairs * (6 + masked + 6 * dropped) + 2 * results)


def _mask(args: Args, kwargs: Kwargs, index: int | None) -> bool:
    mask = kwargs.get("attn_mask") if index is None else argument(args, index, None)
    return mask is not None and mask.numel() > 0


def sdpa(mask: int | None, dropout: int) -> Rule:
    """Fused forward, (B, h, S, d): positions of the mask (None: keyword attn_mask) and of the dropout probability."""

    def rule(args: Args, kwargs: Kwargs, _out: Any) -> Cost:
        q, k, v = args[:3]
        pairs = q.numel() // max(q.shape[-1], 1) * k.shape[-2]
        dropped = argument(args, dropout, 0.0) > 0
        return _attend(pairs, q.shape[-1], v.shape[-1], _mask(args, kwargs, mask), dropped)

    return rule


def sdpa_backward(mask: int | None, dropout: int) -> Rule:
    """Fused backward: (g, q, k, v, ...)."""

    def rule(args: Args, kwargs: Kwargs, _out: Any) -> Cost:
        grad, q, k, v = args[:4]
        pairs = q.numel() // max(q.shape[-1], 1) * k.shape[-2]
        masked, dropped = _mask(args, kwargs, mask), args[dropout] > 0
        return _attend_backward(pairs, q.shape[-1], v.shape[-1], grad.numel(), masked, dropped)

    return rule


def _packed_pairs(q: Any, k: Any, lengths: Any, longest_q: Any, longest_k: Any) -> int:
    """(B, S, h, d); with cumulated lengths all sequences lie in one row and count as long as the longest."""
    if lengths is None:
        return int(q.numel() // max(q.shape[-1], 1) * k.shape[1])
    sequences = lengths.numel() - 1
    return int(q.shape[-2] * sequences * longest_q * longest_k)


def packed_attention(mask: int | None, dropout: int) -> Rule:
    """_flash_ and _efficient_attention_forward: lengths at 3 or 4, longest two after."""
    at = 3 if mask is None else 4

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        q, k, v = args[:3]
        pairs = _packed_pairs(q, k, args[at], args[at + 2], args[at + 3])
        return _attend(pairs, q.shape[-1], v.shape[-1], mask is not None and args[mask] is not None, args[dropout] > 0)

    return rule


def packed_attention_backward(mask: int | None, lengths: int, dropout: int) -> Rule:
    """_flash_ and _efficient_attention_backward: (g, q, k, v, ...)."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        grad, q, k, v = args[:4]
        cumulated = args[lengths]
        if cumulated is not None and cumulated.numel() == 0:
            cumulated = None
        pairs = _packed_pairs(q, k, cumulated, args[lengths + 2], args[lengths + 3])
        masked = mask is not None and args[mask] is not None
        return _attend_backward(pairs, q.shape[-1], v.shape[-1], grad.numel(), masked, args[dropout] > 0)

    return rule


def _self_attention(rows: int, pairs: int, width: int, heads: int, masked: bool) -> Cost:
    """Projections 4 e^2 and their biases 4 e per row; attention of all heads over rows * tokens pairs."""
    inner = _attend(pairs * heads, width // heads, width // heads, masked, False)
    macs = 4 * rows * width * width + inner.macs
    return Cost(macs, 2 * macs + 4 * rows * width + inner.flops - 2 * inner.macs)


def multi_head(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_native_multi_head_attention: (q, k, v, width, heads, ...), q = k = v of (B, S, width)."""
    batch, tokens, width = args[0].shape
    masked = argument(args, 9, None) is not None
    return _self_attention(batch * tokens, batch * tokens * tokens, width, args[4], masked)


def encoder_layer(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_transformer_encoder_layer_fwd: self-attention, two linear layers with bias, ReLU or GELU, two layer norms, two sums."""
    x, width, heads, hidden = args[0], args[1], args[2], args[14].shape[0]
    rows = x.numel() // width
    inner = _self_attention(rows, rows * x.shape[-2], width, heads, argument(args, 18, None) is not None)
    macs = inner.macs + 2 * rows * width * hidden
    others = inner.flops - 2 * inner.macs
    others += rows * (hidden + width) + rows * hidden * (5 if args[7] else 1)
    others += 2 * (8 * rows * width + 4 * rows) + 2 * rows * width
    return Cost(macs, 2 * macs + others)


# Recurrent kernels: per step, sequence and hidden unit ------------------------------------------------------------------------

_GATES = {0: 1, 1: 1, 2: 4, 3: 3}  # mode: 0 ReLU, 1 tanh, 2 LSTM, 3 GRU


def _cell(mode: int, biases: bool) -> int:
    """Sums of the two products and of two biases for each gate; then the gates.

    ReLU, tanh: 1. LSTM: three sigmoids 12, tanh 1, c = f c + i g 3, h = o tanh c 2. GRU: two sigmoids 8, tanh 1, r * 1,
    h = n + z (h - n) 3.
    """
    return _GATES[mode] * (1 + 2 * biases) + {0: 1, 1: 1, 2: 18, 3: 13}[mode]


def _cell_backward(mode: int) -> int:
    """ReLU: 1. tanh: 3. LSTM: dc 6, four gates 4 each, dc of the step before 1. GRU: z 5, n 5, r 4, r's product 1, dh 1."""
    return {0: 1, 1: 3, 2: 23, 3: 16}[mode]


def rnn_layer(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """mkldnn_rnn_layer: one layer, one direction: (x, w_ih, w_hh, b_ih, b_hh, h, c, reverse, sizes, mode, hidden, ..)."""
    steps = args[0].numel() // args[0].shape[-1]
    macs = steps * (args[1].numel() + args[2].numel())
    return Cost(macs, 2 * macs + steps * args[10] * _cell(args[9], bool(args[12])))


def rnn_layer_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """mkldnn_rnn_layer_backward: twice the forward's multiply-accumulates."""
    steps = args[0].numel() // args[0].shape[-1]
    macs = 2 * steps * (args[1].numel() + args[2].numel())
    return Cost(macs, 2 * macs + steps * args[15] * _cell_backward(args[14]))


def _stacked(x: Any, weights: Any, layers: int, hidden: int, both: bool, times: int, per_unit: int) -> Cost:
    steps = x.numel() // x.shape[-1]
    macs = times * steps * sum(weight.numel() for weight in weights if weight.dim() == 2)
    return Cost(macs, 2 * macs + steps * hidden * layers * (1 + both) * per_unit)


def cudnn_rnn(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, weights, stride0, buffer, h, c, mode, hidden, projection, layers, batch_first, dropout, train, bidirectional, ..)."""
    biases = any(weight.dim() == 1 for weight in args[1])
    return _stacked(args[0], args[1], args[9], args[7], bool(args[13]), 1, _cell(args[6], biases))


def miopen_rnn(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """As cudnn_rnn without weight buffer and projection."""
    biases = any(weight.dim() == 1 for weight in args[1])
    return _stacked(args[0], args[1], args[7], args[6], bool(args[11]), 1, _cell(args[5], biases))


def cudnn_rnn_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(x, weights, stride0, buffer, h, c, out, g, gh, gc, mode, hidden, projection, layers, .., bidirectional at 17, ..)."""
    return _stacked(args[0], args[1], args[13], args[11], bool(args[17]), 2, _cell_backward(args[10]))


def miopen_rnn_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """As cudnn_rnn_backward without projection."""
    return _stacked(args[0], args[1], args[12], args[11], bool(args[16]), 2, _cell_backward(args[10]))


def fused_cell(mode: int) -> Rule:
    """_thnn_fused_lstm_cell, _thnn_fused_gru_cell: (input gates, hidden gates, state, b_ih, b_hh): the gates alone."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        return Cost(0, args[2].numel() * _cell(mode, argument(args, 3, None) is not None))

    return rule


def fused_lstm_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_thnn_fused_lstm_cell_backward_impl: (gh, gc, cx, ...)."""
    return Cost(0, args[2].numel() * _cell_backward(2))


def fused_gru_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """_thnn_fused_gru_cell_backward: (gh, ...)."""
    return Cost(0, args[0].numel() * _cell_backward(3))


def deform_conv(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """torchvision: (x, weight, offset, mask, bias, strides .., padding .., dilation .., groups, offset groups, use_mask).

    Convolution; bilinear sampling 7 per column element, 22 per offset pair (per axis: add, floor, + 1, two fractions, bounds
    4; four products); 1 per column element with a mask; 1 per result with a bias.
    """
    x, weight, offset = args[:3]
    macs = out.numel() * taps(weight)
    columns = out.numel() // max(out.shape[1], 1) * x.shape[1] * prod(weight.shape[2:])
    masked = bool(argument(args, 13, True)) and args[3].numel() > 0
    return Cost(macs, 2 * macs + (7 + masked) * columns + 11 * offset.numel() + out.numel())


def deform_conv_backward(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """(g, x, weight, offset, mask, bias, ...): dw and dcolumns; columns again 7; dx 8, doffset 24, mask 3; positions; db."""
    grad, x, weight, offset, mask = args[:5]
    macs = 2 * grad.numel() * taps(weight)
    columns = grad.numel() // max(grad.shape[1], 1) * x.shape[1] * prod(weight.shape[2:])
    return Cost(macs, 2 * macs + (39 + 3 * (mask.numel() > 0)) * columns + 11 * offset.numel() + grad.numel())


ROWS: tuple[tuple[Rule, str], ...] = (
    (sdpa(None, 3), "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu"),
    (sdpa(3, 5), "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"),
    (sdpa(3, 4), "_scaled_dot_product_fused_attention_overrideable"),
    (sdpa_backward(None, 10), "_scaled_dot_product_flash_attention_backward"),
    (sdpa_backward(None, 6), "_scaled_dot_product_flash_attention_for_cpu_backward"),
    (sdpa_backward(4, 9), "_scaled_dot_product_efficient_attention_backward"),
    (sdpa_backward(8, 13), "_scaled_dot_product_cudnn_attention_backward"),
    (sdpa_backward(4, 12), "_scaled_dot_product_fused_attention_overrideable_backward"),
    (packed_attention(None, 7), "_flash_attention_forward"),
    (packed_attention(3, 8), "_efficient_attention_forward"),
    (packed_attention_backward(None, 6, 10), "_flash_attention_backward"),
    (packed_attention_backward(4, 6, 11), "_efficient_attention_backward"),
    (multi_head, "_native_multi_head_attention"),
    (encoder_layer, "_transformer_encoder_layer_fwd"),
    (rnn_layer, "mkldnn_rnn_layer"),
    (rnn_layer_backward, "mkldnn_rnn_layer_backward"),
    (cudnn_rnn, "_cudnn_rnn"),
    (cudnn_rnn_backward, "_cudnn_rnn_backward"),
    (miopen_rnn, "miopen_rnn"),
    (miopen_rnn_backward, "miopen_rnn_backward"),
    (fused_cell(2), "_thnn_fused_lstm_cell"),
    (fused_cell(3), "_thnn_fused_gru_cell"),
    (fused_lstm_backward, "_thnn_fused_lstm_cell_backward_impl"),
    (fused_gru_backward, "_thnn_fused_gru_cell_backward"),
    (deform_conv, "torchvision::deform_conv2d"),
    (deform_conv_backward, "torchvision::_deform_conv2d_backward"),
)
