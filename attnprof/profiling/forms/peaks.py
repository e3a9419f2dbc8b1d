"""Peak memory as a maximum over pieces: the live bytes after every birth of a program, those that are the largest somewhere.

Each piece is a polynomial; its domain is where it is the largest, its parts are the blocks alive at that moment.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from attnprof.profiling.forms import Piece, domains
from attnprof.profiling.forms.atoms import Atom, Monomial
from attnprof.profiling.forms.poly import Poly, added, at_one, summed, text
from attnprof.profiling.forms.programs import Fitted, environment
from attnprof.profiling.forms.regions import Region
from attnprof.profiling.forms.samples import FIXED, Point

_GRID = 3000
_LARGEST = (1, 8192, 1024, 1024, 64)  # sizes that pieces are compared at
_PARTS = 6  # blocks named per piece
Values = npt.NDArray[np.float64]
Candidate = tuple[Poly, int]  # live bytes, number of events up to there


def pieces(fitted: Fitted, natural: Point) -> tuple[Piece, ...]:
    """The pieces of the peak at batch 1, the one of the natural shape first."""
    found = _candidates(fitted)
    if not found:
        return (Piece("0", "True"),)
    env = _grid(fitted, natural)
    table = np.stack([_values(poly, fitted.atoms, env) for poly, _ in found])
    chosen = _cover(table)
    kept = [found[index] for index in chosen]
    values = table[chosen]
    order = sorted(range(len(kept)), key=lambda index: (-values[index, 0], index))
    kept, values = [kept[index] for index in order], values[order]
    return tuple(
        Piece(text(poly), _where(index, kept, values), _parts(fitted, at, env)) for index, (poly, at) in enumerate(kept)
    )


def _candidates(fitted: Fitted) -> list[Candidate]:
    """Live bytes at every local maximum, each polynomial once."""
    structure = fitted.structure
    assert structure is not None
    sizes = [at_one(poly, "B") for poly in fitted.polys[FIXED : FIXED + len(structure.blocks)]]
    live: dict[Monomial, Fraction] = {}
    found: dict[frozenset[tuple[Monomial, Fraction]], int] = {}
    events = structure.events
    for index, event in enumerate(events):
        live = added(live, sizes[abs(event) - 1], 1 if event > 0 else -1)
        if event > 0 and (index + 1 == len(events) or events[index + 1] < 0):
            found.setdefault(frozenset(live.items()), index + 1)
    return [(dict(key), at) for key, at in found.items()]


def _grid(fitted: Fitted, natural: Point) -> dict[str, npt.NDArray[np.int64]]:
    """Many points of the domain at batch 1, up to sizes far beyond what is traced; the natural shape is the first."""
    rng = random.Random("grid")
    region: Region = fitted.region
    points: list[Point] = [(1, *natural[1:])]
    while len(points) < _GRID:
        point = [1]
        for variable in range(1, 5):
            lattice = region.lattice[variable]
            most = max(_LARGEST[variable] // lattice, 1)
            drawn = lattice * int(2 ** rng.uniform(0, most.bit_length()))
            point.append(region.fixed[variable] or (1 if variable == 4 and not region.frames else drawn))
        points.append(tuple(point))
    env = environment(points)
    free = tuple(condition for condition in fitted.domain if condition.name != "B")
    mask = domains.inside(free, env, len(points))
    mask[0] = True
    return {name: values[mask] for name, values in env.items()}


def _values(poly: Poly, atoms: Mapping[str, Atom], env: Mapping[str, npt.NDArray[np.int64]]) -> Values:
    total = np.zeros(len(env["C"]), dtype=np.float64)
    for monomial, coefficient in poly.items():
        part = np.full(len(env["C"]), float(coefficient))
        for name, power in monomial:
            part = part * atoms[name].evaluate(env).astype(np.float64) ** power
        total += part
    return total


def _cover(table: Values) -> list[int]:
    """Rows such that their maximum is that of all rows everywhere: the row that leads most often first."""
    best = table.max(axis=0)
    leads = table >= best * (1 - 1e-12)
    open_, chosen = np.ones(table.shape[1], dtype=bool), list[int]()
    while open_.any():
        row = int((leads & open_).sum(axis=1).argmax())
        chosen.append(row)
        open_ &= ~leads[row]
    return chosen


def _where(index: int, kept: Sequence[Candidate], values: Values) -> str:
    """Where a piece is the largest: a condition against every other piece, without those that follow from the rest."""
    others = [other for other in range(len(kept)) if other != index]
    needed = list(others)
    for other in others:
        rest = [each for each in needed if each != other]
        inside = np.ones(values.shape[1], dtype=bool)
        for each in rest:
            inside &= values[index] >= values[each]
        if not (inside & (values[index] < values[other])).any():
            needed = rest
    conditions = [_compared(added(kept[index][0], kept[other][0], -1)) for other in needed]
    return " and ".join(dict.fromkeys(conditions)) or "True"


def _compared(difference: Poly) -> str:
    """'4*H*W >= 10*C' for the polynomial that is not negative there, common factors left out."""
    shared = {name: power for name, power in next(iter(difference)) if _positive(name)}
    for monomial in difference:
        here = dict(monomial)
        shared = {name: min(power, here[name]) for name, power in shared.items() if name in here}
    reduced: dict[Monomial, Fraction] = {}
    for monomial, coefficient in difference.items():
        key = tuple((name, power - shared.get(name, 0)) for name, power in monomial if power > shared.get(name, 0))
        reduced[key] = coefficient
    scale = Fraction(1)
    for coefficient in reduced.values():
        scale *= Fraction(coefficient.denominator, np.gcd(scale.numerator, coefficient.denominator).item())
    whole = {monomial: coefficient * scale for monomial, coefficient in reduced.items()}
    content = np.gcd.reduce([int(value) for value in whole.values()]).item()
    left = {monomial: value / content for monomial, value in whole.items() if value > 0}
    right = {monomial: -value / content for monomial, value in whole.items() if value < 0}
    return f"{text(left)} >= {text(right)}"


def _positive(atom: str) -> bool:
    """Is an atom never 0? A variable, one rounded up, gcd, max with a number; a floor may be."""
    return bool(re.fullmatch(r"\w+|-\(-\w+//\d+\)|gcd\(.*\)|max\(.*, [1-9]\d*\)", atom))


def _parts(fitted: Fitted, at: int, env: Mapping[str, npt.NDArray[np.int64]]) -> tuple[str, ...]:
    """The blocks alive after `at` events, by op and submodule, the largest at the natural shape first."""
    structure = fitted.structure
    assert structure is not None
    alive: dict[int, None] = {}
    for event in structure.events[:at]:
        if event > 0:
            alive[event] = None
        else:
            alive.pop(-event, None)
    groups: dict[tuple[str, str], list[Poly]] = {}
    for block in alive:
        op, module, _, _ = structure.blocks[block - 1]
        groups.setdefault((op, module), []).append(at_one(fitted.polys[FIXED + block - 1], "B"))
    sums = [(summed(polys), op, module) for (op, module), polys in groups.items()]
    first = {name: values[:1] for name, values in env.items()}
    sums.sort(key=lambda each: -_values(each[0], fitted.atoms, first)[0])
    named = [f"{text(poly)} {op}{f' ({module})' if module else ''}" for poly, op, module in sums[:_PARTS]]
    rest = summed(poly for poly, _, _ in sums[_PARTS:])
    return (*named, *([f"{text(rest)} in {len(sums) - _PARTS} smaller groups"] if rest else []))
