"""Polynomials in atoms with fractions as coefficients: their sums, their text in Python.

The text has the common factors in front and one exact division at the end: `C*H*W*(10*C + 9*H + 9*W)//4`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from attnprof.profiling.forms.atoms import Monomial

Poly = Mapping[Monomial, Fraction]
_ORDER = "BTCHW"


def added(first: Poly, second: Poly, factor: int = 1) -> dict[Monomial, Fraction]:
    """The sum of one polynomial and a multiple of another."""
    out = dict(first)
    for monomial, coefficient in second.items():
        out[monomial] = out.get(monomial, Fraction(0)) + factor * coefficient
        if not out[monomial]:
            del out[monomial]
    return out


def summed(parts: Iterable[Poly]) -> dict[Monomial, Fraction]:
    """The sum of polynomials."""
    total: dict[Monomial, Fraction] = {}
    for part in parts:
        for monomial, coefficient in part.items():
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return {monomial: coefficient for monomial, coefficient in total.items() if coefficient}


def at_one(poly: Poly, name: str) -> dict[Monomial, Fraction]:
    """The polynomial where a variable is 1 (the batch)."""
    return summed(
        {tuple(factor for factor in monomial if factor[0] != name): coefficient} for monomial, coefficient in poly.items()
    )


def replaced(poly: Poly, atom: str, by: Poly) -> dict[Monomial, Fraction]:
    """The polynomial with another one in place of an atom."""
    parts = []
    for monomial, coefficient in poly.items():
        part: Poly = {tuple(factor for factor in monomial if factor[0] != atom): coefficient}
        for _ in range(dict(monomial).get(atom, 0)):
            part = summed({_product(one, other): x * y} for one, x in part.items() for other, y in by.items())
        parts.append(part)
    return summed(parts)


def _product(one: Monomial, other: Monomial) -> Monomial:
    powers = dict(one)
    for name, power in other:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted(powers.items(), key=lambda factor: (_axis(factor[0]), factor)))


def _axis(atom: str) -> int:
    """Where an atom stands in a product: by the first variable in it."""
    return next((index for index, axis in enumerate(_ORDER) if re.search(rf"\b{axis}\b", atom)), len(_ORDER))


def text(poly: Poly) -> str:
    """The polynomial as one Python expression of integers, exact where the polynomial is an integer."""
    if not poly:
        return "0"
    scale = math.lcm(*(coefficient.denominator for coefficient in poly.values()))
    whole = {monomial: int(coefficient * scale) for monomial, coefficient in poly.items()}
    content = math.gcd(*whole.values())
    if all(value < 0 for value in whole.values()):
        content = -content
    shared = _shared(whole)
    inner = {_without(monomial, shared): value // content for monomial, value in whole.items()}
    front = [] if content == 1 else [str(content)]
    front += [_factor(*factor) for factor in shared]
    if len(inner) == 1:
        ((monomial, value),) = inner.items()
        numerator = "*".join([*front, *([str(value)] if value != 1 else []), *(_factor(*each) for each in monomial)]) or "1"
        if content == -1 and front[:1] == ["-1"]:
            numerator = "-" + ("*".join(front[1:]) or "1")
    else:
        total = _sum(inner)
        numerator = "*".join([*front, f"({total})"]) if front or scale != 1 else total
        if front[:1] == ["-1"]:
            numerator = "-" + "*".join([*front[1:], f"({total})"])
    return numerator if scale == 1 else f"{numerator}//{scale}"


def _shared(poly: Mapping[Monomial, int]) -> Monomial:
    first, *others = poly
    powers = dict(first)
    for monomial in others:
        here = dict(monomial)
        powers = {atom: min(power, here[atom]) for atom, power in powers.items() if atom in here}
    return tuple((atom, powers[atom]) for atom, _ in first if atom in powers)


def _without(monomial: Monomial, shared: Monomial) -> Monomial:
    minus = dict(shared)
    return tuple((atom, power - minus.get(atom, 0)) for atom, power in monomial if power > minus.get(atom, 0))


def _factor(atom: str, power: int) -> str:
    closed = atom.isidentifier() or (atom.endswith(")") and atom.startswith(("gcd(", "max(", "min(")) and atom.count("(") == 1)
    written = atom if closed else f"({atom})"
    return written if power == 1 else f"{written}**{power}"


def _sum(poly: Mapping[Monomial, int]) -> str:
    """Terms in lexicographic order (C before H before W, high powers first), a positive one in front if there is one."""
    atoms = sorted({atom for monomial in poly for atom, _ in monomial}, key=lambda atom: (_ORDER.find(atom[:1]), atom))
    terms = sorted(poly.items(), key=lambda item: [-dict(item[0]).get(atom, 0) for atom in atoms])
    leading = next((index for index, (_, value) in enumerate(terms) if value > 0), 0)
    terms.insert(0, terms.pop(leading))
    out = ""
    for monomial, value in terms:
        factors = [_factor(*factor) for factor in monomial]
        if abs(value) != 1 or not factors:
            factors.insert(0, str(abs(value)))
        sign = ("-" if value < 0 else "") if not out else (" - " if value < 0 else " + ")
        out += sign + "*".join(factors)
    return out
