"""How an expression grows, read off its text: "O(C**2*N + C**3)" of `C**3 - 3*C**2*(C//3) + C**2*H*W` and the like.

A floor is what it floors and something bounded: `C//3` is C/3 - r with r in [0, 1), `max(C//16, 8)` is C/16 + r, `gcd(H, 6)`
and `C % 8` are bounded. With exact fractions what cancels is gone before the order is read off: `C - 3*(C//3)` is O(1).
N = H*W, and a single H or W counts as N**0.5, so that an order speaks of maps whose sides grow together.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

Monomial = tuple[tuple[str, int], ...]  # (a name, a power), by name; a bounded quantity has a name that begins with '~'
Poly = dict[Monomial, Fraction]
Growth = tuple[tuple[str, int], ...]  # (name, twice its power)
_BOUNDED = "~"


@cache
def order(text: str) -> str:
    """The order of an expression: all terms that no other term is above. Raises ValueError for what is no expression."""
    found: set[Growth] = set()
    for part in _pieces(ast.parse(text, mode="eval").body):
        found |= {_growth(monomial) for monomial in _poly(part)}
    kept = [one for one in found if not any(one != other and _below(one, other) for other in found)]
    kept.sort(key=lambda one: (-dict(one).get("N", 0), [(-power, name) for name, power in one]))
    return f"O({' + '.join(_written(one) for one in kept) or '1'})"


def restamped(data: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a kept file with every form's order read off its expression again; all else as it is."""

    def forms(group: Mapping[str, Any]) -> dict[str, Any]:
        return {metric: {**form, "order": order(form["expr"])} for metric, form in group.items()}

    modes = {
        mode: {**held, "forms": forms(held["forms"]), "general": forms(held["general"])} for mode, held in data["modes"].items()
    }
    return {**data, "modes": modes}


def _pieces(node: ast.expr) -> Iterator[ast.expr]:
    """The arguments of a max at the top: it grows as what any of them does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "max":
        for each in node.args:
            yield from _pieces(each)
    else:
        yield node


def _growth(monomial: Monomial) -> Growth:
    """Powers in N and the other names, counted in halves; what is bounded, and a divisor, counts as 1."""
    powers: dict[str, int] = {}
    for name, power in monomial:
        if power > 0 and not name.startswith(_BOUNDED):
            grown, halves = ("N", power) if name in ("H", "W") else (name, 2 * power)
            powers[grown] = powers.get(grown, 0) + halves
    return tuple(sorted(powers.items()))


def _below(one: Growth, other: Growth) -> bool:
    powers = dict(other)
    return all(power <= powers.get(name, 0) for name, power in one)


def _written(powers: Growth) -> str:
    names = [(name, power) for name, power in powers if name != "N"] + [(name, power) for name, power in powers if name == "N"]
    parts = [name if power == 2 else f"{name}**{power // 2 if power % 2 == 0 else power / 2}" for name, power in names]
    return "*".join(parts) or "1"


def _poly(node: ast.expr) -> Poly:
    """An expression as a polynomial in its names and bounded quantities."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return {(): Fraction(node.value)} if node.value else {}
    if isinstance(node, ast.Name):
        return {((node.id, 1),): Fraction(1)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _times(_poly(node.operand), {(): Fraction(-1)})
    if isinstance(node, ast.BinOp):
        return _binary(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _call(node.func.id, node)
    if isinstance(node, (ast.Compare, ast.BoolOp)):
        return _bounded(node)
    raise ValueError(f"{ast.unparse(node)} has no order")


def _binary(node: ast.BinOp) -> Poly:
    left, right = _poly(node.left), _poly(node.right)
    if isinstance(node.op, (ast.Add, ast.Sub)):
        return _plus(left, right if isinstance(node.op, ast.Add) else _times(right, {(): Fraction(-1)}))
    if isinstance(node.op, ast.Mult):
        return _times(left, right)
    if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant) and isinstance(node.right.value, int):
        found: Poly = {(): Fraction(1)}
        for _ in range(node.right.value):
            found = _times(found, left)
        return found
    if isinstance(node.op, ast.FloorDiv):
        return _floor(node, left, right)
    if isinstance(node.op, ast.Mod):
        return _times(_bounded(node), right if set(right) - {()} else {(): Fraction(1)})
    raise ValueError(f"{ast.unparse(node)} has no order")


def _floor(node: ast.BinOp, left: Poly, right: Poly) -> Poly:
    """The quotient and something bounded; by a sum it is no more than what is divided."""
    if not any(_growth(monomial) for monomial in left):
        return _bounded(node)
    if len(right) == 1:
        ((monomial, coefficient),) = right.items()
        inverse = {tuple((name, -power) for name, power in monomial): 1 / coefficient}
        return _plus(_times(left, inverse), _bounded(node))
    return _times(left, _bounded(node))


def _call(function: str, node: ast.Call) -> Poly:
    """A max or min with something bounded is exact up to something bounded; of two that grow only the growth is known."""
    parts = [_poly(each) for each in node.args]
    grow = [part for part in parts if any(_growth(monomial) for monomial in part)]
    if not grow or (function in ("min", "gcd") and len(grow) < len(parts)):
        return _bounded(node)
    if function == "max" and len(grow) == 1:
        return _plus(grow[0], _bounded(node))
    known = _bounded(node)
    total: Poly = {}
    for part in grow if function == "max" else grow[:1]:
        total = _plus(total, _times({monomial: abs(value) for monomial, value in part.items()}, known))
    return total


def _bounded(node: ast.expr) -> Poly:
    """A quantity that does not grow, named by its text: the same text is the same quantity."""
    return {((_BOUNDED + ast.unparse(node), 1),): Fraction(1)}


def _plus(first: Poly, second: Poly) -> Poly:
    out = dict(first)
    for monomial, coefficient in second.items():
        out[monomial] = out.get(monomial, Fraction(0)) + coefficient
        if not out[monomial]:
            del out[monomial]
    return out


def _times(first: Poly, second: Poly) -> Poly:
    out: Poly = {}
    for one, value in first.items():
        for other, factor in second.items():
            powers = dict(one)
            for name, power in other:
                powers[name] = powers.get(name, 0) + power
            key = tuple(sorted((name, power) for name, power in powers.items() if power))
            out[key] = out.get(key, Fraction(0)) + value * factor
    return {monomial: coefficient for monomial, coefficient in out.items() if coefficient}
