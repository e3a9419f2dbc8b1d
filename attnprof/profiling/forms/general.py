"""Forms with the integer arguments of a mechanism as variables: recurrence, reduction, kernel, groups, ...

Each argument is varied alone first: the totals along its values are a polynomial in it, or in a floor such as `C//reduction` or
`max(C//reduction, 1)`; where they are neither, the argument stays at its value and the domain says so. Then the monomials of
the totals are found again with all of them, on points where everything varies, and tried on draws.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attnprof.profiling import loading
from attnprof.profiling.forms import Form, programs
from attnprof.profiling.forms import atoms as shapes
from attnprof.profiling.forms.atoms import Atom, Monomial
from attnprof.profiling.forms.columns import explain_with
from attnprof.profiling.forms.domains import Condition
from attnprof.profiling.forms.expression import compile_text
from attnprof.profiling.forms.poly import text
from attnprof.profiling.forms.programs import Fitted, Row
from attnprof.profiling.forms.regions import C, H, Region, W
from attnprof.profiling.forms.samples import TOTALS, Point, Sampler
from attnprof.profiling.forms.solve import Array, fit
from attnprof.profiling.forms.totals import column
from attnprof.profiling.forms.verify import DRAWS
from attnprof.records import Case, Mechanism

METRICS = ("params", "macs", "flops")
_VALUES = (1, 2, 3, 4, 5, 6, 7, 8)
_DRAWN = 6  # values of an argument that draws choose from, beside its own
_SHAPE = ("channels", "in_channels", "dim", "c", "hw", "frames")
_DEGREES = (1, 2, 3)
_PARTS = (0.0625, 0.125, 0.25, 0.5, 1, 2)  # of C: values of a divisor of C
_LARGEST_TABLE = 400
_PATIENCE = 60
_ROUNDS = 4
_SMALL = ((1, 1), (1, 1), (1, 2), (2, 1), (2, 2))


@dataclass(frozen=True)
class Argument:
    """How the totals depend on an argument: as a polynomial of a degree, or through a floor of C.

    values: those that the natural shape takes; refused: those that it does not, which other shapes may take.
    """

    name: str
    value: int
    values: tuple[int, ...]
    degree: int = 0
    floor: Atom | None = None
    refused: tuple[int, ...] = ()


def integer_arguments(mechanism: Mechanism, case: Case) -> dict[str, int]:
    """The integer arguments of a build, with the values they have in a case."""
    found = {}
    for parameter in inspect.signature(mechanism.build).parameters.values():
        value = case.args.get(parameter.name, parameter.default)
        if type(value) is int and parameter.name not in _SHAPE:
            found[parameter.name] = value
    return found


def generalised(
    case: Case, mechanism: Mechanism, natural: Point, region: Region, plain: Mapping[str, Fitted]
) -> tuple[dict[str, tuple[Fitted, int]], dict[str, int]]:
    """{metric: expression with arguments, draws} for the metrics that have one, and the arguments that stay at their values.

    plain: the expressions in B, C, H, W, T.
    """
    given = integer_arguments(mechanism, case)
    if not given:
        return {}, {}
    looked_at = [_looked_at(case, mechanism, natural, region, name, value) for name, value in given.items()]
    known = [argument for argument in looked_at if argument is not None]
    free = [argument for argument in known if argument.degree or argument.floor]
    while free and all(metric in plain for metric in METRICS):
        held = [each for each in known if each not in free]
        found = _found(case, mechanism, natural, region, plain, free, held)
        if found:
            return found, {each.name: each.value for each in held}
        free.pop()
    return {}, {each.name: each.value for each in known}


def contradiction(case: Case, natural: Point, region: Region, forms: Mapping[str, Form], count: int = DRAWS) -> str:
    """A draw inside the domain of a kept general form that the module refuses or costs otherwise at; '' where there is none.

    case: the mechanism with its default arguments; region: where sizes are drawn from.
    """
    mechanism = loading.load(case)
    given = integer_arguments(mechanism, case)
    samplers: dict[tuple[str, ...], Sampler] = {}
    for metric, form in forms.items():
        expr, inside = compile_text(form.expr), compile_text(form.domain)
        named = tuple(name for name in given if name in expr.names | inside.names)
        sampler = samplers.setdefault(named, Sampler(case, mechanism, named))
        free = [Argument(name, given[name], _tried_of(given[name], form.expr, name, natural)) for name in named]
        drawn = 0
        for _, point in zip(range(_PATIENCE * count), _stream(region, region, free, "again", True), strict=False):
            values = dict(zip(sampler.names, point, strict=True))
            if drawn == count:
                break
            if inside(values):
                drawn += 1
                sample = sampler.at(point)
                if not sample.key or sample.totals[TOTALS.index(metric)] != expr(values):
                    return f"general {metric} at {values}: {sample.reason or 'another number'}"
    return ""


def _tried_of(value: int, expr: str, name: str, natural: Point) -> tuple[int, ...]:
    """Values of an argument to try a kept form with: those near its own, and parts of C where it divides C."""
    parts = [int(natural[C] * part) for part in _PARTS] if f"C//{name}" in expr else []
    return tuple(dict.fromkeys(each for each in (*_near(value), *parts) if each > 0))


def _near(value: int) -> list[int]:
    """Values of an argument to try, its own first."""
    return list(dict.fromkeys([value, *_VALUES, max(2 * value, 1), max(value // 2, 1)]))


def _looked_at(case: Case, mechanism: Mechanism, natural: Point, region: Region, name: str, value: int) -> Argument | None:
    """An argument varied alone; None where the totals do not change with it."""
    sampler = Sampler(case, mechanism, (name,))

    def taken(values: Sequence[int]) -> tuple[Array, Array]:
        samples = [sample for each in values if (sample := sampler.at((*natural, each))).key]
        rows = np.array([sample.totals[:3] for sample in samples], dtype=np.int64)
        return np.array([sample.point[-1] for sample in samples], dtype=np.int64), rows

    tried = _near(value)
    numbers, rows = taken(tried)
    if len(numbers) < 3 or (rows == rows[0]).all():
        return None if len(numbers) >= 3 else Argument(name, value, tuple(numbers.tolist()))
    for degree in _DEGREES:
        if _fits(numbers, rows, degree):
            return _argument(name, value, tried, numbers, degree)
    if min(numbers) < 1:
        return Argument(name, value, tuple(numbers.tolist()))
    tried += [each for part in _PARTS if (each := int(natural[C] * part)) > max(tried)]  # where a floor meets its least
    numbers, rows = taken(tried)
    divided = shapes.divided(shapes.variable("C"), name)
    env = {"C": np.full(len(numbers), natural[C]), name: numbers}
    for least in (0, *sorted({int(each) for each in natural[C] // numbers} | {1})):
        floor = shapes.at_least(divided, least) if least else divided
        if any(_fits(floor.evaluate(env), rows, degree) for degree in _DEGREES):
            return _argument(name, value, tried, numbers, 0, _with_least(case, mechanism, natural, region, name, floor))
    return _argument(name, value, tried, numbers)


def _argument(
    name: str, value: int, tried: Sequence[int], numbers: Array, degree: int = 0, floor: Atom | None = None
) -> Argument:
    values = tuple(numbers.tolist())
    return Argument(name, value, values, degree, floor, tuple(each for each in tried if each > 0 and each not in values))


def _fits(values: Array, rows: Array, degree: int) -> bool:
    functions = np.stack([values**power for power in range(degree + 1)], axis=1)
    found = fit(functions, rows, spare=2)
    return found is not None and None not in found


def _with_least(case: Case, mechanism: Mechanism, natural: Point, region: Region, name: str, floor: Atom) -> Atom:
    """The floor with the bound that it has where C is smaller than the argument: max(C//reduction, 1)."""
    if floor.text.startswith("max("):
        return floor
    sampler, least = Sampler(case, mechanism, (name,)), max(region.lattice[C], 2)
    below = (*natural[:C], least, *natural[C + 1 :], 2 * least)
    taken = sampler.at(below)
    return shapes.at_least(floor, 1) if taken.key else floor


def _found(
    case: Case,
    mechanism: Mechanism,
    natural: Point,
    region: Region,
    plain: Mapping[str, Fitted],
    free: Sequence[Argument],
    held: Sequence[Argument],
) -> dict[str, tuple[Fitted, int]]:
    sampler = Sampler(case, mechanism, tuple(argument.name for argument in free))
    seed = (*natural, *(argument.value for argument in free))
    floors = [argument for argument in free if argument.floor]
    wide = dataclasses.replace(region, lattice=(1,) * 5) if floors else region
    atoms = _atoms(plain, free)
    functions = _functions(plain, free)
    if len(functions) > _LARGEST_TABLE:
        return {}
    samples: dict[Point, Row] = {seed: sampler.at(seed).totals}
    stream = _stream(wide, region, free, "general")

    def supply(count: int) -> tuple[dict[str, list[int]], list[Row]]:
        for _, point in zip(range(4 * count), stream, strict=False):
            if len(samples) >= count:
                break
            sample = sampler.at(point)
            if sample.key and all(_inside(plain[metric], point) for metric in METRICS):
                samples[point] = sample.totals
        points = list(samples)
        return {name: [point[index] for point in points] for index, name in enumerate(sampler.names)}, [*samples.values()]

    explained = explain_with(supply, functions, atoms)
    found: dict[str, tuple[Fitted, int]] = {}
    for index, metric in enumerate(TOTALS):
        poly = explained.polys[index]
        if metric not in METRICS:
            continue
        if poly is None:
            return {}
        conditions = [each for each in plain[metric].domain if not (floors and each.name == "C" and each.kind == "%")]
        fitted = Fitted((poly,), (text(poly),), explained.atoms, tuple(conditions), wide)
        tried = _tried(sampler, fitted, index, seed, wide, region, free)
        if tried is None:
            return {}
        stays = tuple(Condition(each.name, "==", each.value) for each in held)
        found[metric] = (dataclasses.replace(tried[0], domain=(*tried[0].domain, *stays)), tried[1])
    return found


def _inside(fitted: Fitted, point: Point) -> bool:
    """Is a point inside a domain, apart from the lattice of C?"""
    here = {name: np.array([value]) for name, value in zip(programs.NAMES, point, strict=False)}
    return all(each.holds(here).all() for each in fitted.domain if (each.name, each.kind) != ("C", "%"))


def _atoms(plain: Mapping[str, Fitted], free: Sequence[Argument]) -> dict[str, Atom]:
    atoms = {name: shapes.variable(name) for name in ("B", "C")}
    for metric in METRICS:
        atoms |= plain[metric].atoms
    for argument in free:
        atom = argument.floor or shapes.variable(argument.name)
        atoms[atom.text] = atom
    return atoms


def _functions(plain: Mapping[str, Fitted], free: Sequence[Argument]) -> list[Monomial]:
    """The monomials of the totals times powers of arguments; powers of C shared out between C and its floors."""
    start = dict.fromkeys(monomial for metric in METRICS for poly in plain[metric].polys for monomial in poly)
    floors = [argument.floor for argument in free if argument.floor]
    powers = [
        [((argument.name, power),) if power else () for power in range(argument.degree + 1)]
        for argument in free
        if not argument.floor
    ]
    found: dict[Monomial, None] = {}
    for monomial in start:
        rest = tuple(factor for factor in monomial if factor[0] != "C")
        degree = dict(monomial).get("C", 0)
        names = ["C", *(floor.text for floor in floors)] if floors else []
        shared = _shared(names, degree) if floors else [(("C", degree),) if degree else ()]
        for parts in itertools.product(shared, *powers):
            factors = [*rest, *(factor for part in parts for factor in part)]
            found[tuple(sorted(factors, key=_place))] = None
    return sorted(found, key=lambda each: (sum(power for _, power in each), each))


def _place(factor: tuple[str, int]) -> tuple[int, str]:
    """Where a factor stands in a product: B, T, C and its floors, H, W, arguments."""
    name = factor[0]
    axis = next((axis for axis in ("B", "T", "C", "H", "W") if re.search(rf"\b{axis}\b", name)), "")
    return ("BTCHW".find(axis) if axis else 9, name)


def _shared(names: Sequence[str], degree: int) -> list[Monomial]:
    """Monomials in the names up to a degree."""
    choices = itertools.product(range(degree + 1), repeat=len(names))
    return [
        tuple((name, power) for name, power in zip(names, powers, strict=True) if power)
        for powers in choices
        if sum(powers) <= degree
    ]


def _stream(wide: Region, lattice: Region, free: Sequence[Argument], seed: str, every: bool = False) -> Iterator[Point]:
    """Points with arguments, without end; C on its lattice every other time.

    `every`: with all values of the arguments, those that some shapes refuse too, every third C small against them, and every
    sixth map of one or two elements.
    """
    rng = random.Random(seed)
    choices = [(*argument.values, *argument.refused) if every else argument.values[: _DRAWN + 1] for argument in free]
    steps = [1, 2, 8, 16, *(value for values in choices for value in values if value > 0)]
    while True:
        region = wide if rng.random() < 0.5 else lattice
        point = [*region.draw(rng), *map(rng.choice, choices)]
        if every and region.varies(C) and rng.random() < 1 / 3:
            point[C] = rng.randint(1, 3) * rng.choice(steps)
        if every and region.varies(H) and region.varies(W) and rng.random() < 1 / 6:
            point[H], point[W] = rng.choice(_SMALL)
        yield tuple(point)


def _tried(
    sampler: Sampler, fitted: Fitted, index: int, seed: Point, wide: Region, lattice: Region, free: Sequence[Argument]
) -> tuple[Fitted, int] | None:
    """The expression with a domain on which all of the draws agree; a point that the module refuses contradicts."""
    rows = column(index)
    known: list[Point] = []
    for _ in range(_ROUNDS):
        narrower = programs.bounded(sampler, fitted, seed, rows, known)
        if isinstance(narrower, str):
            return None
        fitted = narrower
        inside = compile_text(fitted.condition)
        points: dict[Point, None] = {seed: None}
        for _, point in zip(range(_PATIENCE * DRAWS), _stream(wide, lattice, free, "verify", every=True), strict=False):
            if len(points) >= DRAWS:
                break
            values = dict(zip(sampler.names, point, strict=True))
            if inside(values):
                points[point] = None
        if len(points) < DRAWS:
            return None
        good = programs.agreement(sampler, fitted, rows, list(points))
        if good.all():
            return dataclasses.replace(fitted, drawn=programs.ranges(list(points), sampler.names)), len(points)
        known = [*known, *points]
    return None
