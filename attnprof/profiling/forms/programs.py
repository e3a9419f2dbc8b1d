"""Programs: what the traces of one structure leave, with an expression for every integer, and the domain where that is so.

A program rebuilds a trace in every field. It is found from samples of its structure, its domain is learned from points where it
gives what a trace gives and points where it does not, and it is tried on fresh draws inside that domain.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnprof.profiling.forms import domains
from attnprof.profiling.forms.atoms import Atom, switch
from attnprof.profiling.forms.columns import Explained, Supply, explain
from attnprof.profiling.forms.domains import Bools, Condition, Domain
from attnprof.profiling.forms.expression import Expression, compile_text
from attnprof.profiling.forms.poly import Poly, text
from attnprof.profiling.forms.regions import C, H, Region, W, narrowed
from attnprof.profiling.forms.samples import (
    FIXED,
    Point,
    Sample,
    Sampler,
    Structure,
    dimension_columns,
    entry_name,
    pooled_columns,
)

Row = tuple[int, ...]
_TRIES = 6  # draws per sample wanted
_FAR = 1 << 15
_LEAST_CHANNELS = {8: 4, 16: 16}  # in steps of C, where small maps are left out: floors of few channels differ
NAMES = "BCHWT"


@dataclass(frozen=True)
class Fitted:
    """Expressions for a row of integers, with the domain they hold in."""

    polys: tuple[Poly, ...]
    texts: tuple[str, ...]
    atoms: Mapping[str, Atom]
    domain: Domain
    region: Region
    structure: Structure | None = None
    drawn: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # the range of the draws it was tried on

    @property
    def condition(self) -> str:
        """The domain as text."""
        return domains.text(self.domain)


@dataclass(frozen=True)
class Rows:
    """Which integers of a sample are to be explained: the whole row of one structure, or totals of any."""

    of: Callable[[Sample], Row | None]  # None: not one of these
    dims: range = range(0)  # which of them are dimensions
    bins: tuple[tuple[int, int], ...] = ()  # which of them are height and width of a pooled map
    name: Callable[[int], str] = str


def rows_of(sampler: Sampler, key: int) -> Rows:
    """The rows of one structure."""
    structure = sampler.structures[key]
    return Rows(
        lambda sample: sample.row if sample.key == key else None,
        dimension_columns(structure),
        tuple(pooled_columns(structure)),
        lambda index: entry_name(structure, index),
    )


def rows_without_temporaries(sampler: Sampler, key: int) -> Rows:
    """The rows of one structure, kernel temporaries left out: all that costs and `peak_bytes` follow from."""
    structure = sampler.structures[key]
    after = -3 * len(structure.ops) or None
    before = len(structure.temporaries) + 3 * len(structure.ops)

    def of(sample: Sample) -> Row | None:
        if sample.key != key:
            return None
        costs = sample.row[after:] if after else ()
        return (*sample.row[: len(sample.row) - before], *(0 for _ in structure.temporaries), *costs)

    return dataclasses.replace(rows_of(sampler, key), of=of)


def find(sampler: Sampler, seed: Point, region: Region, rows: Rows, known: Sequence[Point]) -> Fitted | str:
    """Expressions of the rows around a seed, with a domain that every known point agrees with; or why there are none.

    They are fitted in several regions until one succeeds; the domain is learned from all points whatever the region.
    """
    failure = ""
    for tighter in _tighter(region, seed):
        found = explained_rows(sampler, seed, tighter, rows, known)
        if isinstance(found, str):
            return failure or found
        explained, here = found
        polys = [poly for poly in explained.polys if poly is not None]
        if len(polys) == len(explained.polys):
            texts = {number: text(poly) for number, poly in {id(poly): poly for poly in polys}.items()}
            start = tuple(each for each in starting(here) if each.kind != ">=" or each.name not in "CHW")
            fitted = Fitted(tuple(polys), tuple(texts[id(poly)] for poly in polys), explained.atoms, start, here)
            bound = bounded(sampler, fitted, seed, rows, known)
            if isinstance(bound, Fitted):
                return bound
            failure = failure or bound
            continue
        open_ = [index for index, poly in enumerate(explained.polys) if poly is None]
        names = dict.fromkeys(rows.name(index) for index in open_)
        listed = ", ".join(list(names)[:3]) + (", ..." if len(names) > 3 else "")
        failure = failure or (
            f"{len(open_)} of {len(explained.polys)} entries are no polynomials in floors and bins of C, H, W: {listed}"
        )
    return failure


def _tighter(region: Region, seed: Point) -> Iterator[Region]:
    """Regions to fit in: without the small sizes, where tensors are contiguous by chance; everything; lattices of C."""
    for small in (8, 1, 16):
        sizes = region
        for variable in (H, W):
            sizes = sizes.every(variable, region.lattice[variable], min(small, seed[variable]))
        yield sizes.every(C, region.lattice[C], _LEAST_CHANNELS[small] * region.lattice[C]) if small > 1 else region
    for step in (4, 8, 16, 32, 64):
        if step > region.lattice[C] and step % region.lattice[C] == 0 and seed[C] % step == 0:
            yield sizes.every(C, step, 4 * step)


def starting(region: Region) -> Domain:
    """The conditions that a region stands for."""
    found = [Condition(NAMES[index], "%", 0, lattice) for index, lattice in enumerate(region.lattice) if lattice > 1]
    found += [Condition(NAMES[index], ">=", least) for index, least in enumerate(region.least) if least > 1]
    found += [Condition(NAMES[index], "<=", most) for index, most in enumerate(region.most) if most]
    found += [Condition(NAMES[index], "==", value) for index, value in enumerate(region.fixed) if value]
    return tuple(found)


def explained_rows(
    sampler: Sampler, seed: Point, region: Region, rows: Rows, known: Sequence[Point] = ()
) -> tuple[Explained, Region] | str:
    """Expressions of rows around a seed, and the region they were sampled in; or why that does not work."""
    here = narrowed(region, seed, lambda point: rows.of(sampler.at(point)) is not None)
    if here is None:
        return "too few points have the ops of the natural shape"
    names = [NAMES[variable] for variable in range(5) if here.varies(variable)]
    return explain(
        supply_of(sampler, seed, here, rows, known),
        names,
        rows.dims,
        rows.bins,
        [switch("C", each) for each in sampler.switches],
    ), here


def supply_of(sampler: Sampler, seed: Point, region: Region, rows: Rows, known: Sequence[Point]) -> Supply:
    """Rows at as many points as are asked for: known ones inside the region, then draws."""
    rng = random.Random("fit")
    samples: dict[Point, Row] = {}
    waiting = [seed, *(point for point in known if region.holds(point))]

    def supply(count: int) -> tuple[dict[str, list[int]], list[Row]]:
        for _ in range(_TRIES * count):
            if len(samples) >= count and not waiting:
                break
            point = waiting.pop(0) if waiting else region.draw(rng)
            row = rows.of(sampler.at(point))
            if row is not None:
                samples[point] = row
        points = list(samples)
        return {name: [point[index] for point in points] for index, name in enumerate(NAMES)}, list(samples.values())

    return supply


def bounded(sampler: Sampler, fitted: Fitted, seed: Point, rows: Rows, known: Sequence[Point]) -> Fitted | str:
    """The expressions with a domain learned from all known points, its borders found to the step."""
    names = [name for name in sampler.names if name != "T" or fitted.region.frames]
    here = dict(zip(sampler.names, seed, strict=True))
    for _ in range(5):
        points = list(dict.fromkeys([*known, *sampler.known]))
        good = agreement(sampler, fitted, rows, points)
        try:
            domain = domains.learn(fitted.domain, environment(points, sampler.names), good, here, names)
        except LookupError as error:
            return str(error)
        moved = tuple(_moved(sampler, fitted, rows, seed, condition, domain) for condition in domain)
        fitted = dataclasses.replace(fitted, domain=moved)
        points = list(dict.fromkeys([*known, *sampler.known]))
        if not (
            domains.inside(moved, environment(points, sampler.names), len(points)) & ~agreement(sampler, fitted, rows, points)
        ).any():
            return fitted
        fitted = dataclasses.replace(fitted, domain=domain)
    return fitted


def _moved(sampler: Sampler, fitted: Fitted, rows: Rows, seed: Point, condition: Condition, domain: Domain) -> Condition:
    """A bound moved to where the seed's line really crosses it."""
    if condition.kind not in (">=", "<=") or condition.name not in sampler.names:
        return condition
    index = sampler.names.index(condition.name)
    step = next((each.modulus for each in domain if each.name == condition.name and each.kind == "%" and not each.value), 1)
    outwards = -step if condition.kind == ">=" else step
    inner, distance = condition.value, outwards
    if step > 1:
        inner = -(-inner // step) * step if outwards < 0 else inner // step * step

    def good(value: int) -> bool:
        point = (*seed[:index], value, *seed[index + 1 :])
        return value >= 1 and bool(agreement(sampler, fitted, rows, [point])[0])

    if not good(inner):
        return condition
    while good(inner + distance) and abs(distance) < _FAR:
        inner, distance = inner + distance, 2 * distance
    while abs(distance) > step:
        distance = distance // (2 * step) * step if distance > 0 else -(-distance // (2 * step) * step)
        if good(inner + distance):
            inner += distance
    return Condition(condition.name, condition.kind, inner)


def environment(points: Sequence[Point], names: Sequence[str] = NAMES) -> dict[str, Any]:
    """Points as arrays by variable."""
    table = np.array(points, dtype=np.int64).reshape(len(points), -1)
    return {name: table[:, index] for index, name in enumerate(names)}


def ranges(points: Sequence[Point], names: Sequence[str] = NAMES) -> dict[str, tuple[int, int]]:
    """{variable: (smallest, largest)} of points."""
    columns = zip(names, zip(*points, strict=True), strict=True)
    return {name: (min(values), max(values)) for name, values in columns}


def agreement(sampler: Sampler, fitted: Fitted, rows: Rows, points: Sequence[Point]) -> Bools:
    """At which points a trace gives what the expressions give (their text, evaluated)."""
    compiled: dict[str, Expression] = {each: compile_text(each) for each in dict.fromkeys(fitted.texts)}
    found = []
    for point in points:
        row = rows.of(sampler.at(point))
        if row is None:
            found.append(False)
            continue
        values = dict(zip(sampler.names, point, strict=True))
        wanted = {each: expression(values) for each, expression in compiled.items()}
        found.append(all(wanted[each] == value for each, value in zip(fitted.texts, row, strict=True)))
    return np.array(found, dtype=np.bool_)


def to_json(fitted: Fitted) -> dict[str, Any]:
    """A program as it is kept: expressions once, everything else by index."""
    structure = fitted.structure
    assert structure is not None
    values = {each: index for index, each in enumerate(dict.fromkeys(fitted.texts))}
    index = [values[each] for each in fitted.texts]
    blocks = len(structure.blocks)
    at = FIXED + blocks
    listed = []
    for number, (op, module, phase, dims) in enumerate(structure.blocks):
        listed.append([index[FIXED + number], op, module, phase, index[at : at + dims]])
        at += dims
    temporaries = [[before, index[at + number]] for number, before in enumerate(structure.temporaries)]
    at += len(temporaries)
    ops = [[*row, *index[at + 3 * number : at + 3 * number + 3]] for number, row in enumerate(structure.ops)]
    return {
        "domain": fitted.condition,
        "values": list(values),
        "params": index[0],
        "resident_bytes": index[1],
        "activation_bytes": index[2],
        "blocks": listed,
        "events": list(structure.events),
        "temporaries": temporaries,
        "ops": ops,
        "uncounted": dict(structure.uncounted),
        "assumed": {},
    }
