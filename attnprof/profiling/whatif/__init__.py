"""What a pass would need if something in it were done otherwise: the nouns of an explanation. No torch.

follow.py   a tracer that remembers the line that asked for each storage, and who reads it last
replay.py   the lifetimes of a pass with deaths moved
fuse.py     product -> softmax -> product run as one fused attention; maps.py, einsum.py: how that is recognised
eligible.py a call of SDPA laid out so that a fused kernel takes it
attending.py  both as what-ifs
explain.py  explain_case(case) -> Explanation: every counterfactual of it was confirmed by tracing again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnprof.records import Counts, Moment, counts_from_json


@dataclass(frozen=True)
class Counterfactual:
    """A change and the peak that the pass has with it. kind: free, recompute, fuse, kernel.

    what: the change in words, without numbers. confirmed: how the peak was found a second time. Where the peak is higher with
    the change, it is one that the pass has the better of already.
    """

    kind: str
    what: str
    from_peak_bytes: int
    peak_bytes: int
    extra_macs: int = 0
    confirmed: str = ""

    @property
    def saves_bytes(self) -> int:
        """How much lower the peak is with the change."""
        return self.from_peak_bytes - self.peak_bytes


@dataclass(frozen=True)
class Explanation:
    """Counts whose holders have lines, live bytes over the pass, what would lower the peak (largest saving first), notes.

    tried: what was looked into, in words.
    """

    counts: Counts
    timeline: tuple[Moment, ...] = ()
    counterfactuals: tuple[Counterfactual, ...] = ()
    notes: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()


def explanation_from_json(data: Mapping[str, Any]) -> Explanation:
    """The inverse of `records.to_json` for an Explanation."""
    return Explanation(
        counts_from_json(data["counts"]),
        tuple(Moment(**moment) for moment in data["timeline"]),
        tuple(Counterfactual(**change) for change in data["counterfactuals"]),
        tuple(data["notes"]),
        tuple(data.get("tried", ())),
    )
