"""Trying expressions on seeded draws inside their domain: one that contradicts narrows the domain, or ends the expression."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from attnprof.profiling.forms import programs, regions
from attnprof.profiling.forms.expression import compile_text
from attnprof.profiling.forms.programs import NAMES, Fitted, Rows
from attnprof.profiling.forms.regions import B, C, H, Region, T
from attnprof.profiling.forms.samples import Point, Sampler

DRAWS = 200  # at the seed's batch, and a fifth more at other batches where the domain has them
_ROUNDS = 5
_EDGE = 24  # the largest size that `edges` looks at
_PATIENCE = 400  # points looked at per draw wanted: a narrow domain is found by fewer


def verified(
    sampler: Sampler, fitted: Fitted, rows: Rows, seed: Point, known: Sequence[Point], start: Region, count: int = DRAWS
) -> tuple[Fitted, int] | str:
    """The expressions with a domain on which all draws agree, and their number; or why they are given up.

    start: the region that the search started in, so that expressions with equal domains are tried on equal draws.
    """
    for _ in range(_ROUNDS):
        points = draws(fitted.condition, start, seed, count)
        if len(points) < count:
            return f"the domain has too few points to try: {fitted.condition}"
        drawn = len(points)
        points = list(dict.fromkeys([*points, *edges(fitted.condition, seed)]))
        good = programs.agreement(sampler, fitted, rows, points)
        if good.all():
            return dataclasses.replace(fitted, drawn=programs.ranges(points)), drawn
        narrower = programs.bounded(sampler, fitted, seed, rows, [*known, *points])
        if isinstance(narrower, str):
            return narrower
        fitted = narrower
    return f"after {_ROUNDS} narrower domains draws still contradict {fitted.texts[0]:.80}"


def draws(condition: str, start: Region, seed: Point, count: int = DRAWS) -> list[Point]:
    """Seeded points inside a domain, each once: special ones, then random ones, then some of other batches."""
    domain = compile_text(condition)
    found: dict[Point, None] = {}
    for wanted, batch, patience in ((count, seed[B], _PATIENCE), (count // 5, 0, _PATIENCE // 20)):
        before = len(found)
        for point in itertools.islice(_stream(start, seed, batch), patience * wanted):
            if domain(dict(zip(NAMES, point, strict=True))):
                found[point] = None
            if len(found) >= before + wanted:
                break
    return list(found)


def edges(condition: str, seed: Point) -> list[Point]:
    """The smallest maps inside a domain, at the seed's and the least channels, of one frame as well: none smaller is inside.

    There things change that random draws seldom meet: a map of one element is contiguous, a bin holds one pixel.
    """
    domain = compile_text(condition)

    def inside(channels: int, height: int, width: int, frames: int) -> bool:
        return bool(domain(dict(zip(NAMES, (seed[B], channels, height, width, frames), strict=True))))

    least = next((c for c in range(1, seed[C]) if inside(c, *seed[H:])), seed[C])
    sizes, found = range(1, _EDGE + 1), dict[Point, None]()
    for channels, frames in itertools.product((least, seed[C]), dict.fromkeys((seed[T], 1))):
        lowest = {w: next((h for h in sizes if inside(channels, h, w, frames)), 0) for w in sizes}
        narrowest = {h: next((w for w in sizes if inside(channels, h, w, frames)), 0) for h in sizes}
        for height, width in [*((h, w) for w, h in lowest.items()), *narrowest.items()]:
            if height and width:
                found[(seed[B], channels, height, width, frames)] = None
    return list(found)


def _stream(start: Region, seed: Point, batch: int) -> Iterator[Point]:
    """Points of one batch, or (0) of batches 2 and 3, without end; the same ones each time."""
    known, more = _drawn(start, seed, batch)
    index = 0
    while True:
        if index == len(known):
            known.append(next(more))
        yield known[index]
        index += 1


@lru_cache(maxsize=8)
def _drawn(start: Region, seed: Point, batch: int) -> tuple[list[Point], Iterator[Point]]:
    """Points drawn so far, and the source of more."""
    return [], _source(start, seed, batch)


def _source(start: Region, seed: Point, batch: int) -> Iterator[Point]:
    rng = random.Random(f"verify {batch}")
    if batch:
        region = dataclasses.replace(start, fixed=(batch, *start.fixed[1:]))
        yield from ((batch, *point[1:]) for point in regions.pool(region, seed, rng, 0))
    else:
        region = start.every(B, 1, 2)
    while True:
        yield region.draw(rng)
