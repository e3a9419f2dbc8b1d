"""What waits to be measured on a device, and what of it comes next: as `choose` has it, without a look at all that waits.

A block teaches the predictor, and that moves every cost. Sums over all cells need their rooflines only, in order of size; the
order needs one shape. Cell by cell is chosen where the time that is left does not do for all, among those it can reach.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnprof.execute.options import Options
from attnprof.execute.predict import Predictor, block_overhead_s, choose_from, group_s, share, shelves
from attnprof.records import Record


@dataclass(frozen=True)
class Next:
    """The block that comes next, its share (`predict.share`), and the seconds expected for all that will be measured."""

    group: list[Record]
    share: tuple[float, float]
    expected_s: float


class Waiting:
    """The groups of one device that wait. They leave as they are taken."""

    def __init__(self, groups: Iterable[Sequence[Record]], predictor: Predictor, options: Options) -> None:
        self._predictor, self._options = predictor, options
        self._shelves = shelves(groups, predictor)
        self._rooflines: dict[str, list[float]] = {}  # per mechanism, in order of size
        for record in self.records():
            self._rooflines.setdefault(record.case.mechanism, []).append(predictor.roofline_s(record))
        for rooflines in self._rooflines.values():
            rooflines.sort()
        self._groups = sum(len(shelf.groups) for shelf in self._shelves)

    def __bool__(self) -> bool:
        return bool(self._shelves)

    def records(self) -> list[Record]:
        """All that wait."""
        return [record for shelf in self._shelves for group in shelf.groups for record in group]

    def take(self, left_s: float) -> Next | None:
        """The block to measure now, with `left_s` left of the run's budget; None where nothing fits."""
        predictor, samples, least_s = self._predictor, self._options.min_samples, self._options.budget_s
        needed_s = self._groups * block_overhead_s(predictor.processes) + self._cells_s(0.0)
        if needed_s <= left_s:
            group = min(self._shelves[0].groups, key=lambda each: group_s(each, predictor, samples))
            members, expected_s = sum(map(len, self._rooflines.values())), self._cells_s(least_s)
        else:
            chosen = choose_from(self._shelves, predictor, samples, left_s, self._options.first)
            if not chosen:
                return None
            (group, _), costs = chosen[0], [cost for _, costs in chosen for cost in costs]
            members, needed_s = len(costs), len(chosen) * block_overhead_s(predictor.processes) + sum(costs)
            expected_s = sum(max(cost, least_s) for cost in costs)
        self._leave(group)
        spare_s = max(left_s - needed_s, 0.0) / members
        return Next(group, share(group_s(group, predictor, samples), len(group), spare_s, left_s), expected_s)

    def _cells_s(self, least_s: float) -> float:
        """Seconds of all cells, each at least `least_s`."""
        beside_s, passes = self._predictor.line(self._options.min_samples)
        total = 0.0
        for mechanism, rooflines in self._rooflines.items():
            slope = passes * self._predictor.factor(mechanism)
            short = bisect.bisect_left(rooflines, (least_s - beside_s) / slope)
            total += short * least_s + (len(rooflines) - short) * beside_s + slope * sum(rooflines[short:])
        return total

    def _leave(self, members: Sequence[Record]) -> None:
        """The members of one group go."""
        keys = {record.case.key for record in members}
        shelf = next(each for each in self._shelves if each.groups[0][0].case.shape == members[0].case.shape)
        home = next(number for number, group in enumerate(shelf.groups) if any(record.case.key in keys for record in group))
        rest = [record for record in shelf.groups[home] if record.case.key not in keys]
        if rest:
            shelf.groups[home] = rest
        else:
            del shelf.groups[home]
            self._groups -= 1
        if not shelf.groups:
            self._shelves.remove(shelf)
        for record in members:
            rooflines = self._rooflines[record.case.mechanism]
            del rooflines[bisect.bisect_left(rooflines, self._predictor.roofline_s(record))]
            if not rooflines:
                del self._rooflines[record.case.mechanism]
