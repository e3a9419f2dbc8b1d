"""The network of a case: a host with the case's mechanism at every site that its placement names, or the host alone.

    network_of(case) -> Mechanism    its build gives the whole network, so that what traces or measures needs no more

Sites are found by name, sizes by one forward pass without data. Mechanisms on maps (BCHW) stand where tensors have four
dimensions; mechanisms on tokens (BNC) where they have three, or four, which are laid out as H*W tokens and back. A module of
the user's own is given what there is. What cannot be placed is said with its site: nothing is left out silently.

In place of a submodule that strides, a mechanism that can stride itself does: its build has an argument `stride` that is not
given, and with that stride it returns the submodule's resolution. Any other that keeps the resolution is followed by average
pooling of that stride, as in "Stand-Alone Self-Attention", NeurIPS 2019, section 3.2, and "Bottleneck Transformers", CVPR 2021,
section 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from attnprof import hosts, mechanisms
from attnprof.errors import AttnprofError, UntraceableError, UsageError
from attnprof.profiling import instantiate
from attnprof.profiling.visiting import Visit, Visits, asks_for_data, built_without_data, observe, run
from attnprof.records import HOW, Case, Mechanism, Placement, Shape, TensorSpec

_SHOWN = 3


class UnplaceableError(UntraceableError):
    """A mechanism cannot stand where it was put."""


def network_of(case: Case) -> Mechanism:
    """The case's network as a Mechanism. Its build raises UsageError for wrong names, UnplaceableError for what cannot be."""
    placement = case.host
    assert placement is not None
    if placement.how not in HOW:
        raise UsageError(f"how: '{placement.how}' is no way to place a mechanism: {', '.join(HOW)}.")
    hosts.load(placement.host)  # the user's file runs here, before anything is built without data
    inner = None
    if not case.alone:
        inner = (mechanisms.load_imported if ":" in case.mechanism else mechanisms.load)(case.mechanism)

    def build(channels: int, **args: Any) -> nn.Module:
        network: nn.Module = hosts.build(placement.host, case.shape, placement.args)
        if inner is not None:
            _place(network, placement, inner, args, case.shape)
        return network

    return Mechanism(case.label, "host", "BCHW", "", build)


def visits_of(case: Case) -> Visits:
    """The submodules of a case's network in one forward pass without data."""
    from attnprof.profiling.counting.tracer import Tracer

    module = instantiate.build_on_meta(network_of(case), case, Tracer())
    return Visits(tuple(observe(module, case.shape).values()))


def sites_of(network: nn.Module, placement: Placement) -> list[str]:
    """The dotted names that the placement's `at` matches, one per submodule. Raises UsageError where none does, or one lies
    inside another.
    """
    parts = dict(network.named_modules(remove_duplicate=False))
    found = hosts.chosen(placement, [name for name in parts if name])
    return list({id(parts[name]): name for name in reversed(found)}.values())[::-1]


class Placed(nn.Module):
    """A submodule with a mechanism after, before or around it. What else is read of it is the submodule's own."""

    def __init__(self, inner: nn.Module, mechanism: nn.Module, how: str) -> None:
        super().__init__()
        self.inner, self.mechanism, self.how = inner, mechanism, how

    def forward(self, *args: Any, **named: Any) -> Any:
        """As the submodule's."""
        if self.how == "before":
            (x,) = (*args, *named.values())
            return self.inner(self.mechanism(x))
        if self.how == "around":
            (x,) = (*args, *named.values())
            return self.inner(x) + self.mechanism(x)
        return self.mechanism(self.inner(*args, **named))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):  # what Python asks of an object itself: to copy it, say
                raise
            return getattr(super().__getattr__("inner"), name)


class Tokens(nn.Module):
    """A mechanism on tokens, given a map: (B, C, H, W) -> (B, H*W, C) -> (B, C, H, W)."""

    def __init__(self, mechanism: nn.Module) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        out: Tensor = self.mechanism(x.flatten(2).transpose(1, 2))  # B N C
        return out.transpose(1, 2).reshape(x.shape[0], out.shape[2], *x.shape[2:])


class Pooled(nn.Module):
    """A mechanism in place of a submodule of this stride: pooled where it keeps the resolution itself."""

    def __init__(self, mechanism: nn.Module, stride: int) -> None:
        super().__init__()
        self.mechanism, self.pool = mechanism, nn.AvgPool2d(stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        out: Tensor = self.mechanism(x)
        return self.pool(out) if out.shape[2:] == x.shape[2:] else out


@dataclass
class _Site:
    """Where a mechanism was put, and what it is wrapped in."""

    name: str
    module: nn.Module
    visit: Visit
    running: bool = field(default=False)


def _place(network: nn.Module, placement: Placement, inner: Mechanism, args: Mapping[str, Any], shape: Shape) -> None:
    """Put a mechanism of its own at every site, then run the network once to see that all of them are used and fit."""
    names = sites_of(network, placement)
    before = observe(network, shape)
    parts = dict(network.named_modules(remove_duplicate=False))
    placed: list[_Site] = []
    for name in names:
        visit, where = before[name], f"{_standing(inner, placement)} {name} of {placement.text}"
        size = _size(visit, placement.how, where)
        stride = _stride(visit) if placement.how == "instead" else 1
        module = _striding(inner, args, visit, stride, where) if stride > 1 else _fitted(inner, args, size, where)
        placed.append(_Site(name, module, visit))
        _replace(network, parts[name], module if placement.how == "instead" else Placed(parts[name], module, placement.how))
    _verify(network, placed, placement, inner, shape)


def _size(visit: Visit, how: str, where: str) -> tuple[int, ...]:
    """The shape that a mechanism gets at a site."""
    if visit.runs == 0:
        raise UnplaceableError(f"{where}: it does not run in a forward pass.")
    if visit.runs > 1:
        raise UnplaceableError(f"{where}: it runs {visit.runs} times in a forward pass, so that one mechanism would serve all.")
    if visit.returned is None:
        raise UnplaceableError(f"{where}: it does not return a single tensor.")
    if how != "after" and visit.given is None:
        raise UnplaceableError(f"{where}: it is not given a single tensor (`after` takes what it returns).")
    size = visit.returned if how == "after" else visit.given
    assert size is not None
    return size


def _fitted(inner: Mechanism, args: Mapping[str, Any], size: tuple[int, ...], where: str) -> nn.Module:
    """A mechanism for tensors of a size."""
    text = "x".join(map(str, size))
    if len(size) == 4:
        shape = Shape(*size)
    elif len(size) == 3:
        shape = Shape(size[0], size[2], size[1], 1)
    else:
        raise UnplaceableError(f"{where}: the tensor there is {text}, neither a map (B C H W) nor tokens (B N C).")
    own = inner.family == "imported"
    if not own and inner.layout not in (("BCHW", "BNC") if len(size) == 4 else ("BNC",)):
        raise UnplaceableError(f"{where}: it takes {inner.layout}, and the tensor there is {text}.")
    try:
        if inner.inputs is not None:
            specs = inner.inputs(shape, **mechanisms.complete_args(inner, shape, args))
            if len(specs) != 1 or not _plain(specs[0], size, inner.layout):
                raise UnplaceableError(f"{where}: it takes {len(specs)} inputs of its own, and there is one tensor.")
        module: nn.Module = mechanisms.build(inner, shape, args)
    except AttnprofError:
        raise
    except Exception as error:
        raise UnplaceableError(f"{where}, where the tensor is {text}: {type(error).__name__}: {error}") from error
    return Tokens(module) if len(size) == 4 and not own and inner.layout == "BNC" else module


def _striding(inner: Mechanism, args: Mapping[str, Any], visit: Visit, stride: int, where: str) -> nn.Module:
    """A mechanism in place of a submodule that strides: with its own stride where it has one, else pooled."""
    size, wanted = visit.given, visit.returned
    assert size is not None
    assert wanted is not None
    if "stride" in inspect.signature(inner.build).parameters and "stride" not in args:
        module = _fitted(inner, {**args, "stride": stride}, size, where)
        if _returns(module, size, wanted):
            return module
    return Pooled(_fitted(inner, args, size, where), stride)


def _returns(module: nn.Module, size: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a module makes a map of the wanted resolution; True where it fails, which the run of the network says then."""
    visit = Visit("0", "")
    try:
        run(nn.Sequential(module), Shape(*size), {"0": visit})
    except AttnprofError:
        raise
    except Exception:  # noqa: BLE001
        return True
    return visit.returned is not None and visit.returned[2:] == wanted[2:]


def _plain(spec: TensorSpec, size: tuple[int, ...], layout: str) -> bool:
    """Whether the one input that a mechanism asks for is the tensor that is there."""
    if layout == "BNC" and len(size) == 4:
        size = (size[0], size[2] * size[3], size[1])
    return spec.dtype is None and tuple(spec.shape) == size


def _stride(visit: Visit) -> int:
    """By how much a submodule reduces the resolution; 1 where that is no whole number, or its channels change."""
    given, returned = visit.given, visit.returned
    if given is None or returned is None or len(given) != 4 or len(returned) != 4:
        return 1
    factors = {-(-big // small) for big, small in zip(given[2:], returned[2:], strict=True)}
    found = factors.pop()
    same = all(-(-big // found) == small for big, small in zip(given[2:], returned[2:], strict=True))
    return found if not factors and same else 1


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Under every name that it has."""
    for part in list(network.modules()):
        for name, child in part._modules.items():
            if child is old and part is not new:
                part._modules[name] = new


def _verify(network: nn.Module, placed: list[_Site], placement: Placement, inner: Mechanism, shape: Shape) -> None:
    """Run the network with its mechanisms once. Raises UnplaceableError, naming a site, where one does not run or fit."""
    names = {id(part): name for name, part in network.named_modules()}
    visits = {names[id(site.module)]: Visit(site.name, inner.name) for site in placed if id(site.module) in names}
    found = {site.name: visits.get(names.get(id(site.module), ""), Visit("", "")) for site in placed}
    handles = [site.module.register_forward_pre_hook(_starts(site)) for site in placed]
    handles += [site.module.register_forward_hook(_ends(site)) for site in placed]
    failure: Exception | None = None
    try:
        run(network, shape, visits)
    except AttnprofError:
        raise
    except Exception as error:  # noqa: BLE001
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    where, host = _standing(inner, placement), placement.text
    if failure is not None and asks_for_data(failure) and built_without_data(network):
        raise failure  # it is built again, with data
    for site in placed:
        if failure is not None and site.running:
            raise UnplaceableError(f"{where} {site.name} of {host}: {type(failure).__name__}: {failure}") from failure
        visit = found[site.name]
        wanted = site.visit.given if placement.how == "before" else site.visit.returned
        if visit.runs and visit.returned is None:
            raise UnplaceableError(f"{where} {site.name} of {host}: it does not return a single tensor.")
        if visit.returned != wanted and visit.runs and (failure is not None or placement.how == "around"):
            raise UnplaceableError(
                f"{where} {site.name} of {host}: it returns {_text(visit.returned)}, and {_text(wanted)} is wanted there."
            )
    if failure is not None:
        raise UnplaceableError(f"{host} fails with {inner.name} {placement.how} {placement.at}: {failure}") from failure
    idle = [site.name for site in placed if found[site.name].runs != 1]
    if idle:
        raise UnplaceableError(
            f"{where} {', '.join(idle[:_SHOWN])} of {host}: the network does not reach the submodule by its name, so that the "
            "mechanism is not used once."
        )


def _standing(inner: Mechanism, placement: Placement) -> str:
    return f"{inner.name} cannot stand {'instead of' if placement.how == 'instead' else placement.how}"


def _starts(site: _Site) -> Any:
    def note(part: nn.Module, args: Any) -> None:
        site.running = True

    return note


def _ends(site: _Site) -> Any:
    def note(part: nn.Module, args: Any, out: Any) -> None:
        site.running = False

    return note


def _text(size: tuple[int, ...] | None) -> str:
    return "no single tensor" if size is None else "x".join(map(str, size))
