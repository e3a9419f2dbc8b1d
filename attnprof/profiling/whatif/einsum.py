"""An einsum of two tensors read as the matmul that it is: of scores, or of a map and its values. Views only."""

from __future__ import annotations

import string
from collections.abc import Sequence

from torch import Tensor


def scores(equation: str, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor] | None:
    """('bhdn,bhdm->bhnm', q, k) as (..., N, d) and (..., d, M), whose matmul has the einsum's output; None where it is none."""
    letters = _letters(equation, (left, right))
    if letters is None:
        return None
    (a, b), out = letters
    if len(out) < 3:
        return None
    batch, rows, columns = out[:-2], out[-2], out[-1]
    if rows in b:
        (a, left), (b, right) = (b, right), (a, left)
    summed = (set(a) & set(b)) - set(out)
    if len(summed) != 1 or set(a) != {*batch, rows, *summed} or set(b) != {*batch, columns, *summed}:
        return None
    (depth,) = summed
    return _ordered(left, a, batch + rows + depth), _ordered(right, b, batch + depth + columns)


def values(equation: str, operands: Sequence[Tensor], of_map: int) -> tuple[bool, Tensor, tuple[int, ...]] | None:
    """The second product of an attention, whose map is operand number `of_map`; None where it is none.

    (Is it summed over the map's last dimension, else over the one before? The values as (..., keys, size). The order in which
    the dimensions of (..., queries, size) are the einsum's output.)
    """
    letters = _letters(equation, operands)
    if letters is None:
        return None
    sides, out = letters
    inside, other = sides[of_map], sides[1 - of_map]
    if len(inside) < 3:
        return None
    batch, last = inside[:-2], inside[-1] not in out
    keys, queries = (inside[-1], inside[-2]) if last else (inside[-2], inside[-1])
    size = set(other) - {*batch, keys}
    if len(size) != 1 or len(other) != len(batch) + 2 or not size <= set(out):
        return None
    plain = batch + queries + "".join(size)
    if set(out) != set(plain) or keys in out:
        return None
    return last, _ordered(operands[1 - of_map], other, batch + keys + "".join(size)), tuple(plain.index(at) for at in out)


def _ordered(tensor: Tensor, letters: str, wanted: str) -> Tensor:
    return tensor.permute([letters.index(letter) for letter in wanted])


def _letters(equation: str, operands: Sequence[Tensor]) -> tuple[tuple[str, str], str] | None:
    """The letters of both operands and of the output, an ellipsis written out; None without an arrow or with a diagonal."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if not arrow or len(inputs) != 2 or len(operands) != 2:
        return None
    hidden = {t.dim() - len(text.replace("...", "")) for text, t in zip(inputs, operands, strict=True) if "..." in text}
    if len(hidden) > 1 or ("..." in out) != bool(hidden):
        return None
    free = [letter for letter in string.ascii_letters if letter not in equation]
    written = "".join(free[: hidden.pop()]) if hidden else ""
    a, b, out = (text.replace("...", written) for text in (*inputs, out))
    if any(len(set(text)) != len(text) for text in (a, b, out)) or (len(a), len(b)) != tuple(t.dim() for t in operands):
        return None
    sizes: dict[str, int] = {}
    for letter, size in zip(a + b, (*operands[0].shape, *operands[1].shape), strict=True):
        if sizes.setdefault(letter, size) != size:
            return None
    return (a, b), out
