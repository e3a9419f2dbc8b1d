"""When each storage of a pass was alive: what the peak of memory, who holds it and every what-if are computed from.

A `Lifetimes` is what a trace leaves behind: the size of every block, what made it, and births and deaths in order. It needs no
torch, so that kept closed forms and reports replay it too. `peak_bytes` is the largest sum of sizes alive above the resident
ones (parameters, buffers, inputs): exact, the same everywhere. `peak_cuda_bytes` replays the same events as CUDA's caching
allocator would see them: every storage rounded up to 512 bytes, and the temporaries of kernels. It is a model: cuDNN and cuBLAS
workspaces and the fragmentation of the allocator's blocks are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnprof.records import Holder

CUDA_BLOCK = 512


@dataclass(frozen=True)
class Maker:
    """What made a storage: op, submodule, phase, shape of the tensor; the place in the source where that was asked for."""

    op: str
    module: str = ""
    phase: str = "forward"
    shape: tuple[int, ...] = ()
    line: str = ""  # "file.py:12", where the trace was asked for it


@dataclass(frozen=True)
class Lifetimes:
    """Blocks 1, 2, ... (entry 0 is none) and their `events`: +n for the birth of block n, -n for its death, in order.

    temporaries: (number of events before, bytes) of scratch that a kernel holds while the op booked last runs.
    """

    sizes: tuple[int, ...] = (0,)
    makers: tuple[Maker, ...] = (Maker(""),)
    events: tuple[int, ...] = ()
    temporaries: tuple[tuple[int, int], ...] = ()

    def peak(self) -> tuple[int, int]:
        """(bytes, number of events up to it) at the first moment of the largest sum."""
        live = best = best_at = 0
        for index, event in enumerate(self.events):
            if event > 0:
                live += self.sizes[event]
                if live > best:
                    best, best_at = live, index + 1
            else:
                live -= self.sizes[-event]
        return best, best_at

    def alive(self, at: int) -> list[int]:
        """The blocks alive after the first `at` events."""
        found: set[int] = set()
        for event in self.events[:at]:
            if event > 0:
                found.add(event)
            else:
                found.discard(-event)
        return sorted(found)

    def peak_cuda(self) -> int:
        """The peak with every storage rounded up to CUDA's 512-byte blocks, kernel temporaries included."""
        scratch = dict[int, int]()
        for at, size in self.temporaries:
            scratch[at] = max(scratch.get(at, 0), rounded(size))
        live, best = 0, scratch.get(0, 0)
        for index, event in enumerate(self.events):
            live += rounded(self.sizes[event]) if event > 0 else -rounded(self.sizes[-event])
            best = max(best, live + scratch.get(index + 1, 0))
        return best

    def holders(self, blocks: Sequence[int]) -> tuple[Holder, ...]:
        """Who holds these blocks, largest first."""
        found = [
            Holder(self.sizes[block], maker.op, maker.module, maker.phase, maker.shape, maker.line)
            for block, maker in ((block, self.makers[block]) for block in blocks)
        ]
        return tuple(sorted(found, key=lambda holder: -holder.bytes))


def rounded(size: int) -> int:
    """`size` in whole blocks of CUDA's allocator."""
    return -(-size // CUDA_BLOCK) * CUDA_BLOCK
