"""Exact fits: which columns of integers are combinations of given functions, with which fractions as coefficients.

Gaussian elimination modulo two primes, all columns at once, over more points than functions: the spare points have to agree, so
that a fit is a proof on them and no approximation. Functions come in order of simplicity; one that depends on earlier ones at
these points gets no coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
PRIMES = (2147483647, 2147483629)
SPARE = 8  # points beyond the number of independent functions that a fit has to agree with


def fit(functions: Array, columns: Array, spare: int = SPARE) -> list[dict[int, Fraction] | None] | None:
    """{function: coefficient} per column, or None for a column that is no combination; None at all: too few points.

    functions: points x functions, columns: points x columns, both exact integers below 2**63.
    """
    solved = [_eliminate(functions, columns, prime) for prime in PRIMES]
    (pivots, answers, fits), (again, others, also) = solved
    if len(pivots) + spare > len(functions) or pivots != again:
        return None
    values = functions.T.tolist()
    found: list[dict[int, Fraction] | None] = []
    for column in range(columns.shape[1]):
        if not (fits[column] and also[column]):
            found.append(None)
            continue
        where = np.flatnonzero(answers[:, column] | others[:, column])
        pairs = [(int(answers[row, column]), int(others[row, column])) for row in where]
        terms = [_rational(first, second) for first, second in pairs]
        candidate = {pivots[int(row)]: term for row, term in zip(where, terms, strict=True) if term is not None}
        found.append(
            candidate if len(candidate) == len(terms) and _agrees(candidate, values, columns[:, column].tolist()) else None
        )
    return found


def _eliminate(functions: Array, columns: Array, prime: int) -> tuple[list[int], Array, npt.NDArray[np.bool_]]:
    """(functions with a pivot, their coefficients per column modulo the prime, which columns are consistent)."""
    width = functions.shape[1]
    work = np.concatenate([functions % prime, columns % prime], axis=1)
    pivots: list[int] = []
    for function in range(width):
        done = len(pivots)
        if done == len(work):
            break
        rows = np.flatnonzero(work[done:, function])
        if not len(rows):
            continue
        pivot = done + int(rows[0])
        work[[done, pivot]] = work[[pivot, done]]
        work[done] = work[done] * pow(int(work[done, function]), -1, prime) % prime
        factors = work[:, function].copy()
        factors[done] = 0
        rows = np.flatnonzero(factors)
        work[rows, function:] = (work[rows, function:] - factors[rows, None] * work[done, None, function:]) % prime
        pivots.append(function)
    rest = work[len(pivots) :, width:]
    consistent: npt.NDArray[np.bool_] = np.logical_not(np.any(rest, axis=0))
    return pivots, work[: len(pivots), width:], consistent


def _rational(first: int, second: int) -> Fraction | None:
    """The fraction with these residues modulo the two primes, numerator below 2**40 and denominator below 2**20."""
    p, q = PRIMES
    modulus = p * q
    residue = (first + p * ((second - first) * pow(p, -1, q) % q)) % modulus
    old, new, before, factor = modulus, residue, 0, 1
    while new >= 1 << 40:
        quotient = old // new
        old, new = new, old - quotient * new
        before, factor = factor, before - quotient * factor
    if factor == 0 or abs(factor) >= 1 << 20 or math.gcd(new, abs(factor)) != 1:
        return None
    return Fraction(new, factor)


def _agrees(terms: dict[int, Fraction], functions: Sequence[Sequence[int]], wanted: Sequence[int]) -> bool:
    """Is the combination the column, in exact integers?"""
    scale = math.lcm(*(term.denominator for term in terms.values())) if terms else 1
    parts = [(int(term * scale), functions[function]) for function, term in terms.items()]
    return all(sum(factor * values[point] for factor, values in parts) == scale * value for point, value in enumerate(wanted))
