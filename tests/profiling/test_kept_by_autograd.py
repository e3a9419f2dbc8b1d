"""Activation memory in training is what autograd keeps: against the tensors that it hands to hooks as it saves them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from attnprof import mechanisms
from attnprof.profiling.counting.trace import count_real, trace_module
from tests import catalogue


def saved_bytes(module: nn.Module, inputs: Sequence[Tensor], objective: Any = None) -> int:
    """Bytes of the distinct storages that autograd holds after a forward pass, parameters, buffers and inputs apart."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), *inputs)}
    packed: list[weakref.ref[Tensor]] = []  # what no output depends on is given up again

    def pack(tensor: Tensor) -> Tensor:
        alias = tensor.detach()
        packed.append(weakref.ref(alias))
        return alias

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = module(*inputs)
        roots = outputs if objective is None else objective(outputs)
    alive = [tensor.untyped_storage() for tensor in (each() for each in packed) if tensor is not None]
    del outputs, roots
    return sum({storage.data_ptr(): storage.nbytes() for storage in alive if storage.data_ptr() not in own}.values())


class Outputs(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(8, 16), kind

    def forward(self, x: Tensor) -> Any:
        h = self.linear(x)
        if self.kind == "saved":  # by the square of it
            return h.square(), h
        if self.kind == "another":  # an output that has no gradient
            return h, h.detach().argmax(-1)
        if self.kind == "view":
            return h.flatten()
        if self.kind == "views":
            return h.square().chunk(4, -1)
        if self.kind == "view of saved":
            return h.square().sum(), h.flatten()
        if self.kind == "twice":
            return h, h.view(-1), h
        return h


@pytest.mark.parametrize("batch", [(5,), (3, 5)], ids=["2-d", "3-d"])
@pytest.mark.parametrize(
    ("kind", "kept"),
    [("alone", 0), ("saved", 1), ("another", 0), ("view", 0), ("views", 1), ("view of saved", 1), ("twice", 0)],
)
def test_what_outputs_hold_is_not_kept_by_autograd(kind: str, kept: int, batch: tuple[int, ...]) -> None:
    module, x = Outputs(kind), torch.randn(*batch, 8, requires_grad=True)
    wanted = kept * x.numel() // 8 * 16 * 4
    assert saved_bytes(module, [x]) == wanted
    assert trace_module(module, [x], "training").activation_bytes == wanted
    assert count_real(module, [x], "training").activation_bytes == wanted


class Stored(nn.Module):
    """Attention that keeps what it computes on itself."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.linear, self.kind, self.features, self.helper = nn.Linear(8, 8), kind, list[Tensor](), SimpleNamespace()
        self.register_buffer("last", torch.zeros(2, 5, 5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        q = self.linear(x)
        logits = q @ q.transpose(-1, -2)
        weights = logits.softmax(-1)
        if self.kind == "logits":
            self.logits = logits.detach()
        elif self.kind == "logits with their graph":
            self.logits = logits
        elif self.kind == "view of logits":
            self.logits = logits[..., :2].detach()
        elif self.kind == "buffer":
            self.last = logits.detach()
        elif self.kind == "list":
            self.features.append(logits.detach())
        elif self.kind == "helper":
            self.helper.kept = {"logits": (logits.detach(), logits)}
        elif self.kind == "weights":
            self.weights = weights
        elif self.kind == "list of weights":
            self.features.append(weights.detach())
        return weights @ q


@pytest.mark.parametrize(
    "kind",
    [
        "nothing",
        "logits",
        "logits with their graph",
        "view of logits",
        "buffer",
        "list",
        "helper",
        "weights",
        "list of weights",
    ],
)
def test_what_the_module_alone_holds_is_not_kept_by_autograd(kind: str) -> None:
    x = torch.randn(2, 5, 8, requires_grad=True)
    wanted = 4 * (2 * 5 * 8 + 2 * 5 * 5)  # q and the weights, which the softmax saves
    assert saved_bytes(Stored(kind), [x]) == wanted
    assert trace_module(Stored(kind), [x], "training").activation_bytes == wanted
    assert count_real(Stored(kind), [x], "training").activation_bytes == wanted


def test_what_a_node_saved_stays_whoever_holds_it_too() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            h = x * 2
            self.square, self.sum = h.square(), h.detach()  # h is saved by the square of it, which the module alone holds
            return h.sum()

    x = torch.randn(3, 8, requires_grad=True)
    assert saved_bytes(Both(), [x]) == trace_module(Both(), [x], "training").activation_bytes == 4 * x.numel()


def test_a_sparse_tensor_on_the_module_is_let_be() -> None:
    module: Any = Stored("logits")
    module.table = torch.eye(4).to_sparse()
    x = torch.randn(2, 5, 8, requires_grad=True)
    assert trace_module(module, [x], "training").activation_bytes == 4 * (2 * 5 * 8 + 2 * 5 * 5)


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_of_the_catalogue(name: str) -> None:
    mechanism = mechanisms.load(name)
    shape = catalogue.small_shape(name)
    with catalogue.one_thread():
        module = catalogue.make(mechanism, shape, {}, torch.float32).train()
        inputs = catalogue.make_inputs(mechanism, shape, {}, torch.float32)
        counted = count_real(module, inputs, "training", mechanism.objective).activation_bytes
        assert counted == saved_bytes(module, inputs, mechanism.objective)
