"""The totals of a case (parameters, MACs, ...) as expressions, whatever ops they come from.

They are sums over a program's entries, so that its monomials are what they are made of; where the program stands for one batch
or one number of frames (a loop over them changes the ops), the totals are found again with B and T.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from attnprof.profiling.forms import atoms as shapes
from attnprof.profiling.forms import programs
from attnprof.profiling.forms.atoms import Atom, Monomial
from attnprof.profiling.forms.columns import Explained, explain_with, functions_of
from attnprof.profiling.forms.domains import Domain
from attnprof.profiling.forms.poly import Poly, replaced, summed, text
from attnprof.profiling.forms.programs import Fitted, Rows
from attnprof.profiling.forms.regions import B, H, Region, T, W
from attnprof.profiling.forms.samples import TOTALS, Point, Sampler

_POWERS = {B: (0, 1), T: (0, 1, 2)}
ALL = Rows(lambda sample: sample.totals or None)


def column(index: int) -> Rows:
    """One of the totals."""
    return Rows(lambda sample: (sample.totals[index],) if sample.key else None)


def explained(
    sampler: Sampler, natural: Point, start: Region, program: Fitted | str, known: Sequence[Point]
) -> list[Fitted | str] | str:
    """An expression for each of TOTALS (its domain is where it was sampled), or why there is none."""
    if isinstance(program, str):
        found = programs.explained_rows(sampler, natural, start, ALL, known)
        if isinstance(found, str):
            return found
        if not found[0].complete:
            found = _with_steps(sampler, natural, start, known, found)
        return _fitted(*found, programs.starting(found[1]))
    fixed = [variable for variable in (B, T) if program.region.fixed[variable]]
    program, sums = _without_rests(program, _sums(program))
    best: list[Fitted | str] = [Fitted((poly,), (text(poly),), program.atoms, program.domain, program.region) for poly in sums]
    if any(program.region.fixed[1:4]):  # a structure of one size: the totals may have expressions across structures
        names = [name for index, name in enumerate(programs.NAMES) if start.varies(index)]
        atoms = {**program.atoms, **{name: shapes.variable(name) for name in names}}
        sizes = start
        for variable in (H, W):
            sizes = sizes.every(variable, 1, min(8, natural[variable]))
        supply = programs.supply_of(sampler, natural, sizes, ALL, known)
        wider = _fitted(explain_with(supply, functions_of(atoms, names), atoms), sizes, programs.starting(start))
        return [new if isinstance(new, Fitted) else old for old, new in zip(best, wider, strict=True)]
    if not fixed:
        return best
    for free in ([*fixed], *([variable] for variable in fixed)):
        functions, atoms = _widened(sums, program.atoms, free)
        region = dataclasses.replace(
            program.region, fixed=tuple(0 if index in free else value for index, value in enumerate(program.region.fixed))
        )
        supply = programs.supply_of(sampler, natural, region, ALL, known)
        freed = {programs.NAMES[variable] for variable in free}
        start_at = tuple(each for each in program.domain if each.name not in freed)
        wider = _fitted(explain_with(supply, functions, atoms), region, start_at)
        best = [old if isinstance(new, str) or old != first else new for old, new, first in zip(best, wider, best, strict=True)]
        if not any(isinstance(each, str) for each in wider):
            return wider
    return best


def _with_steps(
    sampler: Sampler, natural: Point, start: Region, known: Sequence[Point], plain: tuple[Explained, Region]
) -> tuple[Explained, Region]:
    """The totals again, in the steps that the dimensions of the natural structure show (totals alone show none).

    Where a structure is that of sizes with a rest (padding to windows), what is rounded up looks rounded down in it: both
    are tried.
    """
    rows = programs.rows_of(sampler, sampler.at(natural).key)
    shown = programs.explained_rows(sampler, natural, start, rows, known)
    if isinstance(shown, str) or len(shown[0].atoms) <= len(plain[0].atoms):
        return plain
    region, polys = plain[1], plain[0].polys
    names = [name for index, name in enumerate(programs.NAMES) if region.varies(index)]
    down = {text_: atom for text_, atom in shown[0].atoms.items() if atom.axis in ("", *names)}
    up = {atom.text: atom for atom in map(_rounded_up, down.values())}
    for atoms in (down, up):
        functions = functions_of(atoms, names)
        draws = programs.supply_of(sampler, natural, region, ALL, ())  # known points have too few batches to tell B*H from H
        again = explain_with(draws, functions, atoms)
        polys = [new if old is None else old for old, new in zip(polys, again.polys, strict=True)]
    return Explained(polys, down | up, len(polys)), region


def _rounded_up(atom: Atom) -> Atom:
    """-(-H//7) for H//7; other atoms as they are."""
    floor = re.fullmatch(r"(\w+)//(\d+)", atom.text)
    return shapes.step(shapes.variable(floor[1]), int(floor[2]), int(floor[2]) - 1) if floor else atom


def _without_rests(program: Fitted, sums: list[Poly]) -> tuple[Fitted, list[Poly]]:
    """H//7 in a program of sizes with a rest (H % 7 != 0) as -(-H//7) - 1, without the condition: that may hold everywhere."""
    atoms, domain = dict(program.atoms), list(program.domain)
    for condition in program.domain:
        floor = f"{condition.name}//{condition.modulus}"
        if (condition.kind, condition.value) == ("!%", 0) and floor in atoms:
            up = _rounded_up(atoms[floor])
            atoms[up.text] = up
            domain.remove(condition)
            sums = [replaced(poly, floor, {((up.text, 1),): Fraction(1), (): Fraction(-1)}) for poly in sums]
    return dataclasses.replace(program, atoms=atoms, domain=tuple(domain)), sums


def _sums(program: Fitted) -> list[Poly]:
    """TOTALS of a program, from its entries."""
    assert program.structure is not None
    params, resident, activation = program.polys[:3]
    ops = 3 * len(program.structure.ops)
    costs = program.polys[len(program.polys) - ops :]
    macs, flops, moved = (summed(costs[offset::3]) for offset in range(3))
    by_name = {
        "params": params,
        "macs": macs,
        "flops": flops,
        "bytes_moved": moved,
        "activation_bytes": activation,
        "resident_bytes": resident,
    }
    return [by_name[name] for name in TOTALS]


def _widened(sums: Sequence[Poly], atoms: Mapping[str, Atom], free: Sequence[int]) -> tuple[list[Monomial], dict[str, Atom]]:
    """The monomials of the totals times powers of the variables that were fixed."""
    found = list(dict.fromkeys(monomial for poly in sums for monomial in poly))
    known = dict(atoms)
    for variable in free:
        name = programs.NAMES[variable]
        known[name] = shapes.variable(name)
        powers = [((name, power),) if power else () for power in _POWERS[variable]]
        found = [(*factor, *monomial) for monomial in found for factor in powers]
    return found, known


def _fitted(explained_: Explained, region: Region, start: Domain) -> list[Fitted | str]:
    return [
        "no polynomial in floors and bins of C, H, W"
        if poly is None
        else Fitted((poly,), (text(poly),), explained_.atoms, start, region)
        for poly in explained_.polys
    ]
