"""What each submodule of a network is given and returns in one forward pass without data, and how often it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnprof.profiling import instantiate
from attnprof.records import Shape

_WANTS_DATA = ("meta", "data-dependent", "no storage", "cannot access storage")


@dataclass
class Visit:
    """A submodule during one pass: how often it ran, the shapes of the last time (None: no single tensor), and every shape that
    it returned.
    """

    name: str
    kind: str
    runs: int = 0
    given: tuple[int, ...] | None = None
    returned: tuple[int, ...] | None = None
    every: list[tuple[int, ...] | None] = field(default_factory=list)


@dataclass(frozen=True)
class Visits:
    """What `attnprof sites` shows: every submodule of a network, in the order of its definition."""

    visits: tuple[Visit, ...]


def observe(network: nn.Module, shape: Shape) -> dict[str, Visit]:
    """Every submodule's Visit in one forward pass in eval mode, without data where that works. The network is left as it was.

    Raises what the network raises where it does not run on an input of this shape.
    """
    visits = {name: Visit(name, type(part).__name__) for name, part in network.named_modules(remove_duplicate=False) if name}
    run(network, shape, visits)
    return visits


def run(network: nn.Module, shape: Shape, visits: Mapping[str, Visit]) -> None:
    """One forward pass on meta tensors; on real ones where that asks for values and the network has them. Fills `visits`."""
    with _watched(network, visits):
        _forward(network, shape, visits)


def _forward(network: nn.Module, shape: Shape, visits: Mapping[str, Visit]) -> None:
    from attnprof.profiling.counting.tracer import Tracer  # torch's own meta kernels take six times as long, and import dynamo

    size = (shape.batch, shape.channels, shape.height, shape.width)
    whole = instantiate.without_data(network)
    kept = instantiate.attributes_kept(network) if whole else instantiate.swapped(network, instantiate.to_meta)
    try:
        with kept, torch.no_grad(), Tracer():
            network.eval()(torch.empty(size, device="meta"))
    except Exception as error:
        if built_without_data(network) or not asks_for_data(error):
            raise
        for visit in visits.values():
            visit.runs, visit.every = 0, []
        with instantiate.random_state_kept(), instantiate.swapped(network, instantiate.private_copy), torch.no_grad():
            network.eval()(torch.randn(size))


def built_without_data(network: nn.Module) -> bool:
    """Whether a network was built on meta (a buffer may be real all the same): it cannot be run."""
    return any(parameter.is_meta for parameter in network.parameters())


def asks_for_data(error: Exception) -> bool:
    """Whether a pass failed for want of values, as far as torch's words tell."""
    return isinstance(error, NotImplementedError) or any(word in str(error).lower() for word in _WANTS_DATA)


@contextmanager
def _watched(network: nn.Module, visits: Mapping[str, Visit]) -> Iterator[None]:
    """Within: every submodule that has a Visit notes its runs there."""

    def noting(visit: Visit) -> Any:
        def note(part: nn.Module, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
            visit.runs += 1
            values = [*args, *named.values()]
            alone = len(values) == 1 and isinstance(values[0], Tensor)
            visit.given = tuple(values[0].shape) if alone else None
            visit.returned = tuple(out.shape) if isinstance(out, Tensor) else None
            if visit.returned not in visit.every:
                visit.every.append(visit.returned)

        return note

    parts = dict(network.named_modules(remove_duplicate=False))
    handles = [parts[name].register_forward_hook(noting(visit), with_kwargs=True) for name, visit in visits.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
