"""State that a module builds on first use, wherever it holds it: the pass that makes it is not the one that is counted."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.profiling.counting import built
from attnprof.profiling.counting.trace import count_real, trace_module
from attnprof.profiling.holders import contents_kept
from attnprof.records import Counts

WAYS: dict[str, Callable[[Any, Tensor], object]] = {
    "attribute": lambda module, t: setattr(module, "cache", t),
    "tuple": lambda module, t: setattr(module, "cache", (t, 1)),
    "dict made": lambda module, t: setattr(module, "cache", {"cos": t}),
    "list": lambda module, t: module.list.append(t),
    "dict": lambda module, t: module.dict.update({t.shape: t}),
    "deque": lambda module, t: module.deque.append(t),
    "set": lambda module, t: module.set.add(t),
    "OrderedDict": lambda module, t: module.ordered.update({1: t}),
    "UserDict": lambda module, t: module.user.update({1: t}),
    "helper": lambda module, t: setattr(module.helper, "kept", t),
    "nested": lambda module, t: module.helper.inner["by size"].append((t, None)),
}


class Cached(nn.Module):
    """Multiplies by a matrix that it makes on first use; `kind` says where it keeps it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.made = kind, False
        self.list, self.dict, self.deque, self.set = list[Tensor](), dict[torch.Size, Tensor](), deque[Tensor](), set[Tensor]()
        self.ordered, self.user = OrderedDict[int, Tensor](), UserDict[int, Tensor]()
        self.helper = SimpleNamespace(inner={"by size": []}, owner=self)
        self.helper.itself = self.helper

    def forward(self, x: Tensor) -> Tensor:
        if not self.made:
            table = torch.ones(x.shape[-1], 16, device=x.device) @ torch.ones(16, x.shape[-1], device=x.device)
            WAYS[self.kind](self, table)
            self.made = True
        return x.relu()


def counted(counts: Counts) -> tuple[int, int, int, int]:
    return counts.macs, counts.flops, counts.bytes_moved, counts.activation_bytes


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("kind", WAYS)
def test_what_is_built_once_is_not_counted(kind: str, mode: str) -> None:
    x = torch.randn(3, 8, requires_grad=mode == "training")
    wanted = counted(trace_module(nn.ReLU(), [x], mode, target="cpu"))
    assert counted(trace_module(Cached(kind), [x], mode, target="cpu")) == wanted
    assert counted(count_real(Cached(kind), [x], mode)) == wanted


def passes_counted(module: nn.Module) -> int:
    """Forward passes that one trace takes."""
    passes: list[int] = []
    handle = module.register_forward_hook(lambda *_: passes.append(1))
    trace_module(module, [torch.randn(3, 8)])
    handle.remove()
    return len(passes)


def test_what_grows_at_every_pass_takes_one_more_pass_and_is_counted() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            self.features.append(x * 2)
            return x.relu()

    assert passes_counted(Growing()) == 2
    assert trace_module(Growing(), [torch.randn(3, 8)]).flops == 2 * 24
    full = Growing()
    full.features += [torch.ones(1)] * 5000
    assert passes_counted(full) == 1, "a list that long is not looked through"


@pytest.mark.parametrize("first", [None, torch.zeros(3, 8)])
def test_what_is_made_anew_at_each_pass_is_counted(first: Tensor | None) -> None:
    class Anew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = [(first,)]

        def forward(self, x: Tensor) -> Tensor:
            self.kept = [(x * 2,)]
            return x.relu()

    assert trace_module(Anew(), [torch.randn(3, 8)]).flops == 2 * 24
    assert passes_counted(Anew()) == (2 if first is None else 1)


class Registered(nn.Module):
    def __init__(self, held: Tensor, kind: str) -> None:
        super().__init__()
        if kind == "buffer":
            self.register_buffer("table", held)
        else:
            self.table = nn.Parameter(held, requires_grad=False) if kind == "parameter" else held


@pytest.mark.parametrize("kind", ["buffer", "parameter", "attribute"])
@pytest.mark.parametrize(
    ("held", "grown"),
    [
        (torch.zeros(2, 3), False),
        (torch.zeros(3, 2), True),
        (torch.zeros(2, 4), True),
        (torch.zeros(2, 3, dtype=torch.float64), True),
    ],
    ids=["alike", "another shape", "another size", "another dtype"],
)
def test_a_tensor_is_told_by_its_shape_and_dtype(held: Tensor, grown: bool, kind: str) -> None:
    module: Any = Registered(torch.zeros(2, 3), kind)
    before = built.state_of(module)
    module.table = nn.Parameter(held, requires_grad=False) if kind == "parameter" else held
    assert built.has_grown(module, before) is grown


def test_a_tensor_that_is_gone_or_held_elsewhere_is_none_that_was_built() -> None:
    module: Any = Registered(torch.zeros(2, 3), "attribute")
    before = built.state_of(module)
    module.list = [module.table]
    del module.table
    assert not built.has_grown(module, before)
    module.list = []
    assert not built.has_grown(module, before)


def test_no_code_of_what_a_module_holds_is_run() -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("run")

    own = ("__iter__", "__len__", "__eq__", "__getitem__", "__getattribute__", "values", "items", "keys", "__bool__")
    hostile = dict.fromkeys(own, refuse) | {"__hash__": lambda self: 7, "kept": property(refuse)}
    module: Any = nn.Linear(2, 2)
    items: list[Any] = [type("Hostile", (base,), hostile)() for base in (object, list, dict, set)]
    items.append(type("Proxy", (), {"__dict__": property(refuse), "__class__": property(refuse)})())
    items += [{items[0]: 1}, nn.Linear, torch, [nn.Linear(2, 2)], refuse, len, items]
    module.held = items
    before = built.state_of(module)
    assert not built.has_grown(module, before)
    object.__setattr__(items[0], "kept_too", torch.zeros(2))
    assert built.has_grown(module, before)
    assert len(list(built.tensors_held(module))) == 1
    with contents_kept(module):
        items.append(1)
    assert items[-1] is items


def test_layers_in_a_plain_list_are_traced_as_before() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(8, 8), nn.ReLU()]

        def forward(self, x: Tensor) -> Any:
            return self.layers[1](self.layers[0](x))

    assert passes_counted(Plain()) == 1
    assert trace_module(Plain(), [torch.randn(3, 8)]).macs == 3 * 8 * 8


class Keeps(nn.Module):
    """Makes a mask on first use and keeps it, each kind in a place of its own; it may have no parameter at all."""

    def __init__(self, where: str, weighs: bool) -> None:
        super().__init__()
        self.where, self.mix = where, nn.Conv2d(4, 4, 1) if weighs else nn.Identity()
        self.by_shape: dict[Any, Tensor] = {}
        self.ordered: OrderedDict[Any, Tensor] = OrderedDict(first=torch.ones(()))
        self.listed: list[Tensor] = []
        self.nested: dict[str, Any] = {"a": ({"b": deque[Tensor]()}, 1)}
        self.helper = SimpleNamespace(kept=None)

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "dict":
            return self.mix(x) * self.by_shape.setdefault(x.shape, torch.ones_like(x))
        if self.where == "ordered":
            return self.mix(x) * self.ordered.setdefault("then", torch.ones_like(x))
        if self.where == "helper":
            self.helper.kept = torch.ones_like(x) if self.helper.kept is None else self.helper.kept
            return self.mix(x) * self.helper.kept
        held = self.listed if self.where == "list" else self.nested["a"][0]["b"]
        if not held:
            held.append(torch.ones_like(x))
        return self.mix(x) * held[0]


@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("where", ["dict", "ordered", "helper", "list", "nested"])
def test_nothing_of_a_trace_stays_where_a_module_keeps_things(where: str, weighs: bool) -> None:
    module, x = Keeps(where, weighs), torch.randn(1, 4, 3, 3)
    for mode in ("inference", "training"):
        trace_module(module, [x], mode)
    assert (module.by_shape, module.listed, module.helper.kept) == ({}, [], None)
    assert list(module.ordered) == ["first"]
    assert not module.nested["a"][0]["b"]
    assert torch.isfinite(module(x)).all(), "and it runs"
    kept = trace_module(module, [x], "inference")
    assert torch.isfinite(module(x)).all(), "with what it has built itself in its place"
    assert kept.params == (20 if weighs else 0)
