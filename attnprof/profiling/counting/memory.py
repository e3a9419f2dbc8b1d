"""A ledger of tensor storages: when each comes to life and dies. What follows from it is in `lifetimes`."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence

from torch import Tensor

from attnprof.profiling.counting.lifetimes import Lifetimes, Maker

_HOARD = 1 << 15


class _StorageRef(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to an untyped storage that knows its block and its address."""

    __slots__ = ("address", "block")
    block: int
    address: int


class Ledger:
    """Storages seen by a trace. `events` holds +n for the birth and -n for the death of block n (n >= 1), in order."""

    def __init__(self) -> None:
        self.sizes: list[int] = [0]
        self.makers: list[Maker] = [Maker("")]
        self.events: list[int] = []
        self.temporaries: list[tuple[int, int]] = []
        self._alive: dict[int, _StorageRef | None] = {}
        self.live_bytes = 0
        self.passing_bytes = 0
        self.end = 0

    def reside(self, tensor: Tensor) -> int:
        """Take a parameter, buffer or input as resident; returns its bytes if its storage was not known yet."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive:
            return 0
        self._alive[address] = None
        return storage.nbytes()

    def book(self, tensor: Tensor, op: str, module: str, phase: str) -> None:
        """Book the storage of an output, unless it is known already (a view, an in-place result)."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive:
            return
        size = storage.nbytes()
        if not size:
            return
        ref = _StorageRef(storage, self._died)
        ref.block = len(self.sizes)
        ref.address = address
        self._alive[address] = ref
        self.sizes.append(size)
        self.makers.append(Maker(op, module, phase, tuple(tensor.shape)))
        self.events.append(ref.block)
        self.live_bytes += size
        if not ref.block % _HOARD:
            self._refuse_hoarding()

    def _refuse_hoarding(self) -> None:
        """A module that allocates without end would never end here, where tensors take no memory: it runs out of it instead."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if len(self._alive) > _HOARD // 2 and self.live_bytes > memory:
            raise MemoryError(
                f"{len(self._alive):,} tensors of {self.live_bytes:,} bytes are alive, more than this machine has, and no end"
            )

    def knows(self, tensor: Tensor) -> bool:
        """True for the storage of a booked block (not of a resident tensor)."""
        return self._alive.get(tensor.untyped_storage()._cdata) is not None

    def block_of(self, tensor: Tensor) -> int:
        """The number of the block that a tensor lies in; 0 for a resident or unknown one."""
        ref = self._alive.get(tensor.untyped_storage()._cdata)
        return 0 if ref is None else ref.block

    def drop(self, tensor: Tensor) -> None:
        """Book the death of a tensor's block now, whoever still holds it."""
        ref = self._alive.pop(tensor.untyped_storage()._cdata)
        assert ref is not None, "a resident tensor is not dropped"
        self.events.append(-ref.block)
        self.live_bytes -= self.sizes[ref.block]

    def _died(self, ref: _StorageRef) -> None:
        self.events.append(-ref.block)
        self.live_bytes -= self.sizes[ref.block]
        self._alive.pop(ref.address, None)

    def close(self) -> None:
        """The pass is over: what is alive now are its results, and what dies later is the caller's doing."""
        self.end = len(self.events)

    def passing(self, tensor: Tensor, sizes: Sequence[int], op: str, module: str, phase: str) -> None:
        """Book what an op makes after its output and drops before it returns, on every device."""
        first = len(self.sizes)
        self.sizes += sizes
        self.makers += [Maker(op, module, phase, tuple(tensor.shape))] * len(sizes)
        self.events += [*range(first, len(self.sizes)), *(-block for block in range(first, len(self.sizes)))]
        self.passing_bytes += sum(sizes)

    def temporary(self, size: int) -> None:
        """Book scratch that a CUDA kernel holds while the op just booked runs."""
        self.temporaries.append((len(self.events), size))

    def lifetimes(self) -> Lifetimes:
        """What was booked so far."""
        return Lifetimes(tuple(self.sizes), tuple(self.makers), tuple(self.events), tuple(self.temporaries))
