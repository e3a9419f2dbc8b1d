"""Two lists beside each other, what ran and what a counter counted, give a verdict and a sentence. No torch, nothing runs.

Both lists fall into groups that the counter's own way of counting names: ops for those that watch the dispatcher, kinds of op
for fvcore, hooked modules and patched functions for ptflops' pytorch backend. Within a group the difference is attributed: to
the rows that sum to it, to additions of a bias, to work that is no multiply-accumulate. What no rule settles is `unexplained`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from attnprof import units
from attnprof.records import Opinion

_SUBSET = 3  # rows looked for together
_MOST_ROWS = 40
_NAMED = 3
_ROUNDING = 1e-3  # four digits of numpy.einsum_path
PRODUCTS = frozenset(
    ("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "ger", "addr", "matmul", "linear", "einsum")
)
_INSIDE = {  # what the formula of a hooked module holds beside its products (ptflops/pytorch_ops.py)
    "LSTM": "biases and the arithmetic of gates",
    "GRU": "biases and the arithmetic of gates",
    "RNN": "biases and activations",
    "MultiheadAttention": "biases, scaling and softmax",
}


@dataclass(frozen=True)
class Ran:
    """Calls of one op in one submodule, asked for by one function of torch: MACs, additions of a bias, and those MACs whose
    result does not reach the outputs.
    """

    op: str
    module: str
    caller: str
    calls: int
    macs: int
    bias: int = 0
    dead: int = 0


@dataclass(frozen=True)
class Item:
    """One thing that a counter counted. `known` False: its formula is for work that is no multiply-accumulate."""

    group: str
    name: str
    macs: int
    bias: int = 0
    known: bool = True


@dataclass(frozen=True)
class Tally:
    """What a counter found.

    group: the group of a row of what ran. reason: why the counter lacks a row ('' where it should have it). general: a
    remark that holds for all of it.
    """

    macs: int
    items: tuple[Item, ...]
    group: Callable[[Ran], str]
    reason: Callable[[Ran], str]
    name: Callable[[Ran], str]
    general: str = ""
    prunes: bool = False  # it leaves out what the outputs do not depend on


@dataclass
class _Found:
    missed: dict[str, int] = field(default_factory=dict)
    extra: dict[str, int] = field(default_factory=dict)
    said: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # reason: (name, MACs), in order
    open: int = 0  # MACs without a reason

    def miss(self, name: str, macs: int, reason: str) -> None:
        self.missed[name] = self.missed.get(name, 0) + macs
        self._say(reason, name, macs)

    def add(self, name: str, macs: int, reason: str) -> None:
        self.extra[name] = self.extra.get(name, 0) + macs
        self._say(reason, name, macs)

    def _say(self, reason: str, name: str, macs: int) -> None:
        if not reason:
            self.open += macs
        self.said.setdefault(reason, []).append((name, macs))


def judge(counter: str, ours: int, rows: Sequence[Ran], tally: Tally, seconds: float = 0.0) -> Opinion:
    """The opinion of a counter that gave a number: verdict, what it misses and adds, and a sentence."""
    found = _Found()
    groups: dict[str, tuple[list[Ran], list[Item]]] = {}
    for row in rows:
        groups.setdefault(tally.group(row), ([], []))[0].append(row)
    for item in tally.items:
        groups.setdefault(item.group, ([], []))[1].append(item)
    for members, items in groups.values():
        _compare(members, items, tally, found, rows)
    ran, counted = sum(row.macs for row in rows), sum(item.macs for item in tally.items)
    for name, amount in (
        ("what ran, against the trace", ran - ours),
        ("its total, against its own parts", tally.macs - counted),
    ):
        if amount:
            (found.add if amount > 0 else found.miss)(name, abs(amount), "")
    error = 0.0 if tally.macs == ours else tally.macs / ours - 1 if ours else None
    exact = tally.macs == ours and not found.said
    status = "exact" if exact else "unexplained" if found.open else "explained"
    sentence = _sentence(found, ours, tally)
    if exact and counter == "attnprof real":
        sentence = "a real run under the same counter finds the same"
    return Opinion(counter, status, tally.macs, error, found.missed, found.extra, sentence, (), seconds)


def _compare(rows: Sequence[Ran], items: Sequence[Item], tally: Tally, found: _Found, everything: Sequence[Ran]) -> None:
    """Attribute the difference of one group; `everything` ran, in whatever group."""
    difference = sum(item.macs for item in items) - sum(row.macs for row in rows)
    for item in items:
        if not item.known and item.macs:
            _convention(item, found)
            difference -= item.macs
    items = [item for item in items if item.known]
    if not difference:
        return
    if difference > 0 and difference in (sum(row.bias for row in rows), sum(item.bias for item in items)):
        found.add("bias additions", difference, "counts additions of a bias as MACs")
    elif not rows:
        for item in items:
            if item.macs:
                found.add(item.name, item.macs, _of_nothing(item, everything))
    elif difference < 0:
        _shortfall(rows, items, -difference, tally, found)
    else:
        _surplus(items, difference, found)


def _of_nothing(item: Item, everything: Sequence[Ran]) -> str:
    """Why a counter has an item in whose group nothing ran: that work is in another group too, or is nowhere."""
    kind = item.name.rpartition("::")[2].rpartition(".")[2]
    elsewhere = sum(row.macs for row in everything if kind in (row.op, row.caller))
    if elsewhere >= item.macs:
        return f"counts {item.name} twice: the formula of the module that calls it holds it as well"
    return f"counts {item.name}, which ran nothing of the kind"


def _convention(item: Item, found: _Found) -> None:
    if item.macs < 0:
        found.miss(item.name, -item.macs, item.name)
    else:
        found.add(item.name, item.macs, "counts work that is no multiply-accumulate (a convention; here it stands in FLOPs)")


def _shortfall(rows: Sequence[Ran], items: Sequence[Item], lack: int, tally: Tally, found: _Found) -> None:
    if _rounded(items, lack):
        found.miss("torch.einsum", lack, _ROUNDED)
        return
    dead = sum(row.dead for row in rows) if tally.prunes else 0
    live = [replace(row, macs=row.macs - row.dead, dead=0) for row in rows if row.macs > row.dead]
    beside = _lost(live, items, lack - dead, tally) if dead else []
    if dead and (lack == dead or (beside and all(tally.reason(row) for row in beside))):
        for row in rows:
            if row.dead:
                found.miss(tally.name(row), row.dead, "leaves out, with torch.jit, calls whose result nothing uses")
        lost = beside
    else:
        lost = _lost(rows, items, lack, tally)
        if not lost:
            names = ", ".join(sorted({item.name for item in items}))
            found.miss(names, lack, "")
    for row in lost:
        found.miss(tally.name(row), row.macs, tally.reason(row))


def _lost(rows: Sequence[Ran], items: Sequence[Item], lack: int, tally: Tally) -> list[Ran]:
    """The rows that make up what is lacking: all of them where nothing was counted, else those that sum to it."""
    if lack <= 0:
        return []
    everything = not any(item.macs for item in items) and lack == sum(row.macs for row in rows)
    return list(rows) if everything else _summing(rows, lack, tally)


def _surplus(items: Sequence[Item], amount: int, found: _Found) -> None:
    names = ", ".join(sorted({item.name for item in items}))
    inside = next((text for kind, text in _INSIDE.items() if f"nn.{kind}" == names), "")
    if _rounded(items, amount):
        found.add("torch.einsum", amount, _ROUNDED)
    else:
        found.add(names, amount, f"counts {inside} of {names} as MACs" if inside else "")


_ROUNDED = "reads the cost of torch.einsum off numpy.einsum_path, which gives four digits"


def _rounded(items: Sequence[Item], amount: int) -> bool:
    whole = sum(item.macs for item in items if item.name.endswith("einsum"))
    return amount <= _ROUNDING * whole


def _summing(rows: Sequence[Ran], amount: int, tally: Tally) -> list[Ran]:
    """The fewest rows whose MACs sum to `amount`, those first for whose lack there is a reason."""
    candidates = sorted(rows, key=lambda row: not tally.reason(row))[:_MOST_ROWS]
    for size in range(1, _SUBSET + 1):
        for chosen in itertools.combinations(candidates, size):
            if sum(row.macs for row in chosen) == amount:
                return list(chosen)
    reasoned = [row for row in rows if tally.reason(row)]
    return reasoned if sum(row.macs for row in reasoned) == amount else []


def _sentence(found: _Found, ours: int, tally: Tally) -> str:
    """One sentence: each reason with what it concerns and its share of the traced MACs, the largest first."""
    if not found.said:
        return tally.general or "the same"
    parts = []
    for reason, named in sorted(found.said.items(), key=lambda entry: -sum(macs for _, macs in entry[1])):
        total = sum(macs for _, macs in named)
        names = _names(named)
        share = _share(total, ours)
        text = reason or "unexplained"
        parts.append(f"{text}: {names} ({share})" if names not in text else f"{text} ({share})")
    return "; ".join([*parts, *([tally.general] if tally.general else [])])


def _names(named: Sequence[tuple[str, int]]) -> str:
    sums: dict[str, int] = {}
    for name, macs in named:
        sums[name] = sums.get(name, 0) + macs
    ordered = sorted(sums, key=lambda name: -sums[name])
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


def _share(amount: int, ours: int) -> str:
    """'90.2 % of the MACs', '4.818 M beside 32.77 K'."""
    if ours and amount <= ours:
        percent = 100 * amount / ours
        return f"{percent:.1f} % of the MACs" if percent >= 0.05 else f"{units.format_count(amount)}, below 0.1 % of the MACs"
    return f"{units.format_count(amount)} beside {units.format_count(ours)} MACs"


def failed(counter: str, status: str, sentence: str, warnings: Sequence[str] = (), seconds: float = 0.0) -> Opinion:
    """The opinion of a counter that gave no number."""
    return Opinion(counter, status, sentence=sentence, warnings=tuple(warnings), seconds=seconds)
