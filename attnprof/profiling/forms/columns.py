"""Which expressions a group of samples has: every distinct column of their rows as a polynomial in atoms, exactly.

Simple functions come first: polynomials in the variables, then polynomials in the steps (floors, strides, bins) that the
dimensions of the blocks show, then the bins of adaptive pooling. A column that none of them gives stays without an expression.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attnprof.profiling.forms import atoms as shapes
from attnprof.profiling.forms.atoms import Atom, Env, Monomial
from attnprof.profiling.forms.poly import Poly
from attnprof.profiling.forms.solve import SPARE, Array, fit

DEGREES = {"B": 1, "T": 2, "C": 3, "H": 2, "W": 2}
_MARGIN = SPARE + 4
_LARGEST_STEP = 96
_FEW_FUNCTIONS = 120
_LARGEST_TABLE = 700  # functions: beyond that a fit would take minutes of tracing

_STEPS = sorted(  # rounding down, up, to the nearest, then anything else; fine steps first
    ((divisor, offset) for divisor in range(1, _LARGEST_STEP + 1) for offset in range(divisor)),
    key=lambda each: (each[1] not in (0, each[0] - 1, each[0] // 2) and each[0] > 4, each),
)
Rows = list[tuple[int, ...]]
Supply = Callable[[int], tuple[Mapping[str, list[int]], Rows]]  # (variables, rows) of at least so many points


@dataclass
class Explained:
    """Expressions of columns (None where there is none), and the atoms they are made of."""

    polys: list[Poly | None] = field(default_factory=list)
    atoms: dict[str, Atom] = field(default_factory=dict)
    points: int = 0

    @property
    def complete(self) -> bool:
        """Has every column an expression?"""
        return all(poly is not None for poly in self.polys)


@dataclass
class _Work:
    """Distinct columns at the points there are, what is found so far, and the way to more points."""

    supply: Supply
    names: tuple[str, ...]
    atoms: dict[str, Atom]
    env: Env
    columns: Array
    polys: list[Poly | None]
    which: list[int]  # distinct column of every column

    @property
    def open(self) -> list[int]:
        return [index for index, poly in enumerate(self.polys) if poly is None]


def explain(
    supply: Supply, names: Sequence[str], dims: range, bins: Sequence[tuple[int, int]] = (), switches: Sequence[Atom] = ()
) -> Explained:
    """Expressions for all columns. names: the variables that vary; dims: columns that hold dimensions; bins: those
    of the heights and widths of pooled maps; switches: sizes of C that turn something on.
    """
    plain = {name: shapes.variable(name) for name in names}
    functions = functions_of(plain, names)
    env, rows = supply(len(functions) + _MARGIN)
    work = _distinct(supply, tuple(names), plain, env, rows)
    _solve(work, functions)
    if work.open and switches:
        work.atoms |= {atom.text: atom for atom in switches}
        _solve(work, [*functions, *((*monomial, (atom.text, 1)) for monomial in functions for atom in switches)])
        return Explained([work.polys[index] for index in work.which], work.atoms, len(work.columns))
    if work.open:
        _find_steps(work, [work.which[column] for column in dims])
    if work.open and bins:
        _find_bins(work, bins)
    if work.open:
        _solve(work, functions_of(work.atoms, names, more=1))
    polys = [work.polys[index] for index in work.which]
    return Explained(polys, work.atoms, len(work.columns))


def explain_with(supply: Supply, functions: list[Monomial], atoms: Mapping[str, Atom]) -> Explained:
    """Expressions for all columns in given functions."""
    env, rows = supply(len(functions) + _MARGIN)
    work = _distinct(supply, (), dict(atoms), env, rows)
    _solve(work, functions)
    return Explained([work.polys[index] for index in work.which], work.atoms, len(work.columns))


def _distinct(
    supply: Supply, names: tuple[str, ...], atoms: dict[str, Atom], env: Mapping[str, list[int]], rows: Rows
) -> _Work:
    matrix = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
    seen: dict[bytes, int] = {}
    which: list[int] = []
    first: list[int] = []
    for column in range(matrix.shape[1]):
        data = matrix[:, column].tobytes()
        if data not in seen:
            seen[data] = len(first)
            first.append(column)
        which.append(seen[data])
    values = {name: np.array(env[name], dtype=np.int64) for name in env}
    return _Work(supply, names, atoms, values, matrix[:, first], [None] * len(first), which)


def functions_of(atoms: Mapping[str, Atom], names: Sequence[str], more: int = 0) -> list[Monomial]:
    """Monomials up to the degrees; `more`: that much higher in H, W and C. Steps of H go with the same steps of W."""
    degrees = {name: DEGREES.get(name, 1) + (more if name in "CHW" else 0) for name in names}
    position = {name: index for index, name in enumerate(names)}

    def allowed(found: tuple[int, ...]) -> bool:
        c, h, w = (found[position[name]] if name in position else 0 for name in "CHW")
        return c + max(h, w) <= 3 + more

    def listed(members: Mapping[str, Sequence[Atom]]) -> list[Monomial]:
        return shapes.monomials([(members[name], degrees[name]) for name in names], allowed)

    by_axis = {name: [atom for atom in atoms.values() if atom.axis == name] for name in names}
    found = dict.fromkeys(listed({name: by_axis[name] if name not in "HW" else [atoms[name]] for name in names}))
    steps = {_renamed(atom.text): atom for name in "HW" for atom in by_axis.get(name, ()) if atom.text != name}
    for pattern in steps:
        pair = {name: atoms.get(pattern.replace("#", name)) for name in "HW"}
        members = {name: list(by_axis[name]) for name in names} | {name: [atom] for name, atom in pair.items() if atom}
        for name in "HW":
            if name in members and not pair[name]:
                members[name] = [atoms[name]]
        found |= dict.fromkeys(listed(members))
    everything = listed(by_axis)
    if len(everything) <= _FEW_FUNCTIONS:
        found |= dict.fromkeys(everything)
    for joint in (atom for atom in atoms.values() if not atom.axis):
        found |= dict.fromkeys((*monomial, (joint.text, power)) for power in (1, 2) for monomial in tuple(found))
    return list(found)


def _renamed(text: str) -> str:
    """A step with its variable left open: '-(-#//2)'."""
    return re.sub(r"\b[HW]\b", "#", text)


def _solve(work: _Work, functions: list[Monomial]) -> None:
    """Find what these functions give of the columns that are open."""
    if len(functions) > _LARGEST_TABLE:
        return
    if len(functions) + _MARGIN > len(work.columns):
        env, rows = work.supply(len(functions) + _MARGIN)
        again = _distinct(work.supply, work.names, work.atoms, env, rows)
        polys: list[Poly | None] = [None] * len(again.polys)
        for column, new in enumerate(again.which):
            polys[new] = work.polys[work.which[column]]
        work.env, work.columns, work.which, work.polys = again.env, again.columns, again.which, polys
    table = shapes.table(functions, work.atoms, work.env, len(work.columns))
    wanted = work.open
    found = fit(table, work.columns[:, wanted])
    for index, terms in zip(wanted, found or [None] * len(wanted), strict=True):
        if terms is not None:
            work.polys[index] = {functions[function]: coefficient for function, coefficient in terms.items()}


def _find_steps(work: _Work, dims: Sequence[int]) -> None:
    """Steps that open dimensions show, one after the other, each used on everything that is open."""
    tried: set[bytes] = set()
    while True:
        candidates = [index for index in dict.fromkeys(dims) if work.polys[index] is None]
        candidates = [index for index in candidates if work.columns[:, index].tobytes() not in tried]
        if not candidates:
            return
        column = work.columns[:, candidates[0]]
        tried.add(column.tobytes())
        found = _step_of(column, work.env, work.names)
        new = [atom for atom in found if atom.text not in work.atoms]
        if new:
            places = {work.which.index(index) for index in dict.fromkeys(dims)}
            work.atoms |= {atom.text: atom for atom in new}
            _solve(work, functions_of(work.atoms, work.names))
            dims = [work.which[place] for place in places]


def _step_of(column: Array, env: Env, names: Sequence[str]) -> list[Atom]:
    """The atoms of a dimension that goes in steps: of one variable, of H and W in the same steps, of H*W."""
    spatial = [name for name in ("H", "W", "T", "C") if name in names]
    for name in spatial:
        found = _single(column, env, shapes.variable(name))
        if found is not None:
            return [found]
    if "H" in names and "W" in names:
        for either in (shapes.larger("H", "W"), shapes.smaller("H", "W")):
            if _affine(column, either.evaluate(env)):
                return [either]
        for divisor in range(2, _LARGEST_STEP + 1):
            for offset in range(divisor):
                pair = [shapes.step(shapes.variable(name), divisor, offset) for name in "HW"]
                if _proportional(column, pair[0].evaluate(env) * pair[1].evaluate(env)):
                    return pair
        found = _single(column, env, shapes.product(*(shapes.variable(name) for name in "HW")))
        if found is not None:
            return [found]
    return []


def _single(column: Array, env: Env, inner: Atom) -> Atom | None:
    values = inner.evaluate(env)
    order = np.lexsort((column, values))
    if (np.diff(column[order]) < 0).any() or _differs(values[order], column[order]):
        return None  # no function of it that only grows
    for divisor, offset in _STEPS:
        steps = (values + offset) // divisor
        atom = shapes.step(inner, divisor, offset) if divisor > 1 else inner
        if divisor > 1 and _affine(column, steps):
            return atom
        bounded = _bounded(column, steps, atom)
        if bounded is not None:
            return bounded
    return None


def _differs(values: Array, column: Array) -> bool:
    """Has the (ordered) column two values where the variable has one?"""
    return bool(((np.diff(values) == 0) & (np.diff(column) != 0)).any())


def _bounded(column: Array, steps: Array, atom: Atom) -> Atom | None:
    """max(steps, k) or min(steps, k), where a multiple of that is the column."""
    low, high = int(column.min()), int(column.max())
    largest, smallest = int(steps.max()), int(steps.min())
    factor = high // largest if largest and high % largest == 0 else 0
    if factor and low % factor == 0 and (np.maximum(factor * steps, low) == column).all():
        return shapes.at_least(atom, low // factor)
    factor = low // smallest if smallest and low % smallest == 0 else 0
    if factor and high % factor == 0 and (np.minimum(factor * steps, high) == column).all():
        return shapes.at_most(atom, high // factor)
    return None


def _affine(column: Array, values: Array) -> bool:
    """Is the column a*values + b for some a other than 0?"""
    low, high = int(values.argmin()), int(values.argmax())
    run = int(values[high] - values[low])
    if not run:
        return False
    slope, rest = divmod(int(column[high] - column[low]), run)
    return slope != 0 and not rest and bool((column - column[low] == slope * (values - values[low])).all())


def _proportional(column: Array, values: Array) -> bool:
    top = int(values.argmax())
    if not values[top]:
        return False
    factor, rest = divmod(int(column[top]), int(values[top]))
    return not rest and factor > 0 and bool((column == factor * values).all())


def _find_bins(work: _Work, pairs: Sequence[tuple[int, int]]) -> None:
    """Adaptive pooling to given sizes: along an axis its bins hold H + s - gcd(H, s) elements together.

    pairs: the columns that hold the pooled height and width.
    """
    known = {name: shapes.variable(name) for name in work.names}
    low = [monomial for monomial in functions_of(known, work.names) if all(p == 1 and name not in "HW" for name, p in monomial)]
    functions = dict.fromkeys(functions_of(known, work.names))
    patterns = dict.fromkeys(_renamed(atom.text) for atom in tuple(work.atoms.values()) if atom.axis in ("H", "W"))
    for pair, pattern in itertools.product(pairs, patterns):
        choices: list[list[Monomial]] = []
        for name, column in zip("HW", pair, strict=True):
            inner = work.atoms.get(pattern.replace("#", name), known.get(name))
            choices.append([(), ((inner.text, 1),)] if inner else [()])
            sizes = set(work.columns[:, work.which[column]].tolist())
            if len(sizes) == 1 and max(sizes) > 1 and inner:
                atom = shapes.common(inner, sizes.pop())
                work.atoms[atom.text] = atom
                choices[-1].append(((atom.text, 1),))
        for parts in itertools.product(*choices):
            spatial = tuple(factor for part in parts for factor in part)
            functions |= dict.fromkeys((*monomial, *spatial) for monomial in low)
    _solve(work, list(functions))
