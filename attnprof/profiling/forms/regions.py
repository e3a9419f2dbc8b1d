"""Where to sample: seeded draws of points, the lattice of C on which a module is polynomial, regions of one structure.

Draws are diverse on purpose: odd and non-square sizes, one row or column, the extremes 64x1x1 and 2048x7x7, the sizes of
shipped specs, batches of 1 to 3.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from attnprof.profiling.forms.samples import Point, Sample, Sampler
from attnprof.profiling.forms.solve import fit

B, C, H, W, T = range(5)
_SIZES = (
    (1, 1),
    (1, 2),
    (2, 1),
    (1, 3),
    (1, 9),
    (9, 1),
    (2, 2),
    (2, 5),
    (3, 3),
    (5, 4),
    (7, 7),
    (14, 14),
    (16, 8),
    (28, 28),
    (56, 56),
    (65, 65),
    (97, 97),
)
_LARGEST_CHANNELS = 2048
_LARGEST_SIZE = 129
_POLYNOMIAL_POINTS = 8
_LARGEST_LATTICE = 64
MOST_CHANNELS = (1 << 14) - 1  # where switches are looked for
_FEW_VALUES = 8
_ENOUGH = 0.6
_LOOKS = 10


@dataclass(frozen=True)
class Region:
    """Restrictions on draws. `lattice`, `least`: per variable B, C, H, W, T; `fixed` wins over both (0: free)."""

    lattice: tuple[int, ...] = (1, 1, 1, 1, 1)
    least: tuple[int, ...] = (1, 1, 1, 1, 1)
    fixed: tuple[int, ...] = (0, 0, 0, 0, 0)
    most: tuple[int, ...] = (0, 0, 0, 0, 0)  # 0: no bound
    frames: int = 0  # T of the natural shape, where T means anything

    def draw(self, rng: random.Random) -> Point:
        """One point inside."""
        ranges = (3, _LARGEST_CHANNELS, _LARGEST_SIZE, _LARGEST_SIZE, 12 if self.frames else 1)
        return tuple(self._one(rng, variable, most) for variable, most in enumerate(ranges))

    def holds(self, point: Point) -> bool:
        """Is the point inside?"""
        for value, lattice, least, fixed in zip(point, self.lattice, self.least, self.fixed, strict=True):
            if value % lattice or value < least or (fixed and value != fixed):
                return False
        return True

    def _one(self, rng: random.Random, variable: int, most: int) -> int:
        if self.fixed[variable]:
            return self.fixed[variable]
        lattice, least = self.lattice[variable], self.least[variable]
        if variable == B:
            return rng.randint(least, most)
        if self.most[variable]:
            return rng.randint(1, 1 << rng.randint(1, self.most[variable].bit_length())) % self.most[variable] + 1
        if variable == T and self.frames and rng.random() < 0.3:
            return self.frames
        first = -(-least // lattice)
        last = max(most // lattice, first + 8) if most > 1 else first
        if variable in (H, W) and rng.random() < 0.7:
            last = max(min(last, 40), first + 8)
        if variable == C and rng.random() < 0.5:
            last = max(min(last, 24), first + 8)
        return lattice * rng.randint(first, last)

    def varies(self, variable: int) -> bool:
        """Do draws differ in it?"""
        return not self.fixed[variable] and (variable != T or self.frames > 0)

    def at(self, variable: int, value: int) -> Region:
        """The region with one variable fixed."""
        return dataclasses.replace(self, fixed=_with(self.fixed, variable, value))

    def every(self, variable: int, lattice: int, least: int = 1) -> Region:
        """The region with one variable on a lattice."""
        return dataclasses.replace(
            self, lattice=_with(self.lattice, variable, lattice), least=_with(self.least, variable, least)
        )


def _with(values: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*values[:index], value, *values[index + 1 :])


def pool(region: Region, natural: Point, rng: random.Random, count: int) -> list[Point]:
    """Points that a domain is learned from: special ones, then `count` draws, all on the lattice of C and off it."""
    step = region.lattice[C]
    channels = sorted({step, 2 * step, 3 * step, natural[C], max(natural[C] // 2 // step, 1) * step, step * max(64 // step, 1)})
    frames = [natural[T]] if not region.frames else sorted({1, 2, 3, natural[T]})
    points = [_with(natural, B, batch) for batch in (1, 2, 3)]
    points += [_with(natural, C, each) for each in channels]
    for height, width in _SIZES:
        points.append((1, rng.choice(channels), height, width, natural[T]))
    points += [(1, natural[C], size, other, natural[T]) for size in (1, 2, 3, 4, 6, 8) for other in (natural[W], size)]
    points += [(1, natural[C], natural[H], size, natural[T]) for size in (1, 2, 3, 4, 5, 6, 8)]
    points += [(rng.choice((1, 2)), rng.choice(channels), rng.randint(2, 40), rng.randint(2, 40), each) for each in frames]
    points += [(1, step * max(2048 // step, 1), 7, 7, natural[T]), (1, step * max(64 // step, 1), 1, 1, natural[T])]
    free = dataclasses.replace(region, lattice=(1,) * 5, least=(1,) * 5)
    points += [region.draw(rng) for _ in range(count)]
    points += [free.draw(rng) for _ in range(max(count // 6, 4))]
    return list(dict.fromkeys(points))


def start(sampler: Sampler, natural: Point, frames: int) -> Region:
    """Everything, with C on the smallest lattice where the totals are polynomials, or where the module takes it at all."""
    step, least = channel_lattice(sampler, natural)
    if not step:
        sampler.switches = tuple(switches(sampler, natural))
        if sampler.switches:
            return Region(frames=frames, most=(0, MOST_CHANNELS, 0, 0, 0))
        step, least = next((step for step in _divisors(natural[C]) if _taken(sampler, natural, step)), natural[C]), 1
    return Region(frames=frames).every(C, step, least)


def switches(sampler: Sampler, natural: Point) -> list[int]:
    """Sizes of C at which the parameter count jumps, where it is constant in between (a kernel that grows with log C)."""

    def params(channels: int) -> int:
        return sampler.at(_with(natural, C, channels)).totals[0] if sampler.at(_with(natural, C, channels)).key else -1

    powers = [*(1 << power for power in range(MOST_CHANNELS.bit_length())), MOST_CHANNELS]
    values = [params(power) for power in powers]
    if -1 in values or not 1 < len(set(values)) <= _FEW_VALUES or values != sorted(values):
        return []
    found = []
    for low, high in itertools.pairwise(powers):
        if params(low) == params(high):
            continue
        start, below, above = params(low), low, high
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if params(middle) == start else (below, middle)
        found.append(above)
    return found


def _taken(sampler: Sampler, natural: Point, step: int) -> bool:
    rng = random.Random(f"taken {step}")
    multiples = [1, 3, 5, *(rng.randint(1, max(_LARGEST_CHANNELS // step, 24)) | 1 for _ in range(8))]
    return sum(sampler.at(_with(natural, C, step * multiple)).key != 0 for multiple in multiples) >= len(multiples) - 2


def channel_lattice(sampler: Sampler, natural: Point) -> tuple[int, int]:
    """(m, 1): the smallest m such that the totals are polynomials in C at its multiples; (0, 0) where there is none."""
    for step in _divisors(natural[C]):
        if step > _LARGEST_LATTICE:
            break
        for least in (1, 4 * step):  # a single channel per group or head may cost otherwise
            if _polynomial(sampler, natural, step, least, random.Random(f"lattice {step}")):
                return step, 1
    return 0, 0


def _polynomial(sampler: Sampler, natural: Point, step: int, least: int, rng: random.Random) -> bool:
    """Are the totals cubic polynomials in C at random multiples of `step` from `least` on?"""
    first, last = -(-least // step), max(_LARGEST_CHANNELS // step, 40)
    multiples = {natural[C] // step, first, first + 1, first + 2}
    multiples |= {last, 4 * last} if least > 1 else set()  # what grows in rare jumps is no polynomial far out
    while len(multiples) < _POLYNOMIAL_POINTS:
        multiples.add(rng.randint(first, last))
    samples: list[Sample] = []
    for multiple in sorted(multiples, key=lambda each: (each % 2 == 0, each)):
        sample = sampler.at(_with(natural, C, step * multiple))
        if not sample.key:
            return False
        samples.append(sample)
    channels = np.array([sample.point[C] for sample in samples], dtype=np.int64)
    functions = np.stack([channels**power for power in range(4)], axis=1)
    fits = fit(functions, np.array([sample.totals for sample in samples], dtype=np.int64), spare=4)
    return fits is not None and None not in fits


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def narrowed(region: Region, seed: Point, same: Callable[[Point], bool]) -> Region | None:
    """A region around the seed where most draws are of its kind; None where none was found."""
    share = _share(region, same)
    for _ in range(4):
        if share >= _ENOUGH:
            return region
        best, most = region, share
        for option in _options(region, seed):
            found = _share(option, same)
            if found > most + 0.05:
                best, most = option, found
            if most >= _ENOUGH:
                break
        if best is region:
            break
        region, share = best, most
    return region if share >= 0.2 else None


def _options(region: Region, seed: Point) -> Iterator[Region]:
    """Tighter regions, the widest first."""
    for variable in (B, T):
        if region.varies(variable):
            yield region.at(variable, seed[variable])
    for variable in (B, T):
        if region.varies(variable) and seed[variable] > 1:
            yield region.every(variable, 1, 2)
    sizes = [variable for variable in (H, W) if region.varies(variable)]
    for least in (2, 4, 8):
        if len(sizes) == 2 and min(seed[H], seed[W]) >= least > max(region.least[H], region.least[W]):
            yield region.every(H, region.lattice[H], least).every(W, region.lattice[W], least)
    for lattice in (2, 4, 8, 16, 32, 64):
        step = math.lcm(lattice, region.lattice[C])
        if region.varies(C) and seed[C] % step == 0 and step > region.lattice[C]:
            yield region.every(C, step, region.least[C])
    for lattice in (2, 3, 4, 5, 6, 7, 8, 16, 32):
        fitting = [variable for variable in sizes if seed[variable] % lattice == 0 and region.lattice[variable] == 1]
        for variable in fitting:
            yield region.every(variable, lattice)
        if len(fitting) == 2:
            yield region.every(H, lattice).every(W, lattice)
    for variable in (*sizes, C):
        if region.varies(variable):
            yield region.at(variable, seed[variable])


def _share(region: Region, same: Callable[[Point], bool]) -> float:
    rng = random.Random("share")
    points = [region.draw(rng) for _ in range(_LOOKS)]
    return sum(same(point) for point in points) / len(points)
