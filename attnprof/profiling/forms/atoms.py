"""Atoms: what polynomials are made of. The variables themselves, and the steps that floors, bins and strides make of them.

A step is written as itself: `C//16`, `-(-H//2)` (rounded up), `(H + 2)//3`, `gcd(H, 6)` (adaptive pooling's overlapping bins
add up to H + 6 - gcd(H, 6)), `max(C//16, 8)`. A monomial is a product of powers of atoms; `monomials` lists those below given
degrees.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from attnprof.profiling.forms.solve import Array

Env = Mapping[str, Array]  # values of the variables at points
Monomial = tuple[tuple[str, int], ...]  # (text of an atom, power), in the order of the variables


@dataclass(frozen=True)
class Atom:
    """A function of points. axis: the variable it grows with ('' for a bounded one); text: the expression that it is."""

    text: str
    axis: str
    evaluate: Callable[[Env], Array]


def variable(name: str) -> Atom:
    """A variable itself."""
    return Atom(name, name, lambda env: env[name])


def step(inner: Atom, divisor: int, offset: int = 0) -> Atom:
    """(inner + offset)//divisor; written -(-inner//divisor) where that is rounding up."""
    text = inner.text if inner.text.isidentifier() else f"({inner.text})"
    if offset == 0:
        written = f"{text}//{divisor}"
    elif offset == divisor - 1:
        written = f"-(-{text}//{divisor})"
    else:
        written = f"({inner.text} {'+' if offset > 0 else '-'} {abs(offset)})//{divisor}"
    return Atom(written, inner.axis, lambda env: (inner.evaluate(env) + offset) // divisor)


def divided(inner: Atom, argument: str) -> Atom:
    """inner//argument, for an argument that varies."""
    return Atom(f"{inner.text}//{argument}", inner.axis, lambda env: inner.evaluate(env) // env[argument])


def at_least(inner: Atom, least: int) -> Atom:
    """max(inner, least)."""
    return Atom(f"max({inner.text}, {least})", inner.axis, lambda env: np.maximum(inner.evaluate(env), least))


def at_most(inner: Atom, most: int) -> Atom:
    """min(inner, most): bounded, so that it does not grow."""
    return Atom(f"min({inner.text}, {most})", inner.axis, lambda env: np.minimum(inner.evaluate(env), most))


def larger(first: str, second: str) -> Atom:
    """max(first, second)."""
    return Atom(f"max({first}, {second})", "", lambda env: np.maximum(env[first], env[second]))


def smaller(first: str, second: str) -> Atom:
    """min(first, second)."""
    return Atom(f"min({first}, {second})", "", lambda env: np.minimum(env[first], env[second]))


def common(inner: Atom, size: int) -> Atom:
    """gcd(inner, size)."""
    return Atom(f"gcd({inner.text}, {size})", inner.axis, lambda env: np.gcd(inner.evaluate(env), size))


def switch(name: str, size: int) -> Atom:
    """min(name//size, 1): 1 from a size on, 0 before."""
    return Atom(f"min({name}//{size}, 1)", "", lambda env: np.minimum(env[name] // size, 1))


def product(first: Atom, second: Atom) -> Atom:
    """first*second, as the inside of a step."""
    return Atom(f"{first.text}*{second.text}", "", lambda env: first.evaluate(env) * second.evaluate(env))


def monomials(axes: Sequence[tuple[Sequence[Atom], int]], allowed: Callable[[tuple[int, ...]], bool]) -> list[Monomial]:
    """Products over the axes of monomials in each axis' atoms up to its degree, simplest first; `allowed` sees the degrees."""
    choices = [list(_powers(tuple(atoms), degree)) for atoms, degree in axes]
    found: list[tuple[tuple[int, ...], Monomial]] = []
    for parts in itertools.product(*choices):
        degrees = tuple(degree for degree, _ in parts)
        if allowed(degrees):
            found.append((degrees, tuple(factor for _, monomial in parts for factor in monomial)))
    found.sort(key=lambda item: (sum(item[0]), sum(not text.isidentifier() for text, _ in item[1]), item[1]))
    return [monomial for _, monomial in found]


@cache
def _powers(atoms: tuple[Atom, ...], degree: int) -> tuple[tuple[int, Monomial], ...]:
    found: list[tuple[int, Monomial]] = []
    for powers in itertools.product(range(degree + 1), repeat=len(atoms)):
        if sum(powers) <= degree:
            factors = tuple((atom.text, power) for atom, power in zip(atoms, powers, strict=True) if power)
            found.append((sum(powers), factors))
    return tuple(found)


def table(functions: Iterable[Monomial], atoms: Mapping[str, Atom], env: Env, points: int) -> Array:
    """The values of monomials: points x functions."""
    known = {text: atom.evaluate(env) for text, atom in atoms.items()}
    columns = []
    for monomial in functions:
        column = np.ones(points, dtype=np.int64)
        for text, power in monomial:
            column = column * known[text] ** power
        columns.append(column)
    return np.stack(columns, axis=1) if columns else np.ones((points, 0), dtype=np.int64)
