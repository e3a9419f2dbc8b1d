"""Lifetimes and the ledger: peaks, who is alive, CUDA's blocks and the scratch of kernels."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from attnprof.profiling.counting.lifetimes import Lifetimes, Maker, rounded
from attnprof.profiling.counting.memory import Ledger


@st.composite
def lifetimes(draw: Any) -> Lifetimes:
    """Blocks that are born in order and die, some of them, in any order after that."""
    sizes = [0, *draw(st.lists(st.integers(1, 5000), min_size=1, max_size=8))]
    events, alive, born = [], set[int](), 0
    while born < len(sizes) - 1 or (alive and draw(st.booleans())):
        if born < len(sizes) - 1 and (not alive or draw(st.booleans())):
            born += 1
            alive.add(born)
            events.append(born)
        elif alive:
            gone = draw(st.sampled_from(sorted(alive)))
            alive.remove(gone)
            events.append(-gone)
    scratch = draw(st.lists(st.tuples(st.integers(0, len(events)), st.integers(1, 5000)), max_size=3))
    return Lifetimes(tuple(sizes), tuple(Maker(str(i)) for i in range(len(sizes))), tuple(events), tuple(scratch))


@given(lifetimes())
def test_the_peak_is_the_largest_sum_of_what_is_alive(found: Lifetimes) -> None:
    sums = [sum(found.sizes[block] for block in found.alive(at)) for at in range(len(found.events) + 1)]
    peak, at = found.peak()
    assert peak == max(sums)
    assert sums[at] == peak
    assert peak not in sums[:at]


@given(lifetimes())
def test_the_cuda_peak_has_whole_blocks_and_the_scratch_of_its_moment(found: Lifetimes) -> None:
    expected = []
    for at in range(len(found.events) + 1):
        live = sum(-(-found.sizes[block] // 512) * 512 for block in found.alive(at))
        expected.append(live + max((rounded(size) for when, size in found.temporaries if when == at), default=0))
    assert found.peak_cuda() == max(expected)


def test_holders_come_largest_first_with_their_lines() -> None:
    makers = (Maker(""), Maker("mm", "q", "forward", (2, 3), "mine.py:4"), Maker("add", "", "backward", (9,)))
    found = Lifetimes((0, 24, 36), makers, (1, 2))
    first, second = found.holders(found.alive(2))
    assert (first.bytes, first.op, first.phase, first.line) == (36, "add", "backward", "")
    assert (second.bytes, second.module, second.shape, second.line) == (24, "q", (2, 3), "mine.py:4")


def test_a_dropped_block_dies_once_and_its_address_is_free_again() -> None:
    ledger = Ledger()
    tensor = torch.empty(100, device="meta")
    ledger.book(tensor, "empty", "", "forward")
    assert ledger.block_of(tensor) == 1
    ledger.drop(tensor)
    assert (ledger.block_of(tensor), ledger.live_bytes, ledger.events) == (0, 0, [1, -1])
    del tensor
    assert ledger.events == [1, -1]


def test_what_dies_after_the_pass_is_behind_its_end() -> None:
    ledger = Ledger()
    tensor = torch.empty(100, device="meta")
    ledger.book(tensor, "empty", "", "forward")
    ledger.close()
    del tensor
    assert (ledger.end, ledger.events) == (1, [1, -1])
