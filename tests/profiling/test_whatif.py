"""What-ifs: replays against brute force, and every kind of change against a module that is written that way."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from attnprof.profiling import timeline, whatif
from attnprof.profiling.counting import trace
from attnprof.profiling.counting.lifetimes import Lifetimes, Maker
from attnprof.profiling.counting.trace import follow_case, follow_module, trace_case
from attnprof.profiling.whatif import explain, replay
from attnprof.profiling.whatif.follow import Follower
from attnprof.profiling.whatif.fuse import Chain, Fusing, NotFusableError
from attnprof.profiling.whatif.recompute import keep_inputs_only
from attnprof.records import MODES, Case, Counts, Shape, TensorSpec, to_json
from tests.profiling.test_lifetimes import lifetimes

HERE = Path(__file__).name
ABC = Lifetimes((0, 10, 20, 40), tuple(Maker(name) for name in ("", "a", "b", "c")), (1, 2, -1, 3, -2, -3))


def at(snippet: str) -> str:
    """'test_whatif.py:12' of the only line of this file that ends with a snippet."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {snippet}"))
    return f"{HERE}:{number}"


def followed(module: nn.Module, shapes: list[tuple[int, ...]], mode: str = "inference", **options: Any) -> tuple[Any, Follower]:
    made: list[Follower] = []

    def make(*, real: bool = False) -> Follower:
        made.append(Follower(real=real, **options))
        return made[-1]

    return follow_module(module, [TensorSpec(shape) for shape in shapes], mode, make_tracer=make), made[-1]


def case_of(name: str, mode: str, channels: int = 64, extent: int = 9, **settings: Any) -> Case:
    return Case(name, name, {}, Shape(1, channels, extent, extent), mode=mode, settings=settings)


# --- replay


def test_a_death_is_moved() -> None:
    moved = replay.freed(ABC, {2: 2})
    assert moved.events == (1, 2, -2, -1, 3, -3)
    assert (ABC.peak(), moved.peak()) == ((60, 4), (40, 5))
    assert replay.freed(ABC, {}).events == ABC.events


@given(lifetimes(), st.data())
def test_a_replay_is_the_pass_without_the_freed_blocks(found: Lifetimes, data: st.DataObject) -> None:
    deaths = replay.deaths_of(found, len(found.events))
    chosen = {}
    for block, dies in deaths.items():
        if data.draw(st.booleans()):
            chosen[block] = data.draw(st.integers(found.events.index(block) + 1, dies))
    moved = replay.freed(found, chosen)
    assert sorted(moved.events) == sorted(found.events)
    expected = 0
    for moment in range(len(found.events) + 1):
        gone = {block for block, dies in chosen.items() if dies < moment}
        expected = max(expected, sum(found.sizes[block] for block in found.alive(moment) if block not in gone))
    assert moved.peak()[0] == expected


def test_idle_is_what_is_alive_read_no_more_and_freed_by_the_pass() -> None:
    assert replay.idle_at(ABC, 6, {1: 2, 2: 2, 3: 5}, at=4) == [2]
    assert replay.idle_at(ABC, 4, {1: 2, 2: 2, 3: 5}, at=4) == []  # freed after the end: a result


@given(lifetimes(), st.integers(1, 5))
def test_a_decimated_timeline_keeps_the_peak(found: Lifetimes, points: int) -> None:
    moments = timeline.moments(found, len(found.events), points)
    assert len(moments) <= points
    assert max(moment.bytes for moment in moments) == found.peak()[0]
    assert [moment.event for moment in moments] == sorted(moment.event for moment in moments)


# --- lines and last uses


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2  # doubled

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * 2  # doubled back


class Lines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x)  # mixed
        scaled: Tensor = Twice.apply(mixed)  # type: ignore[no-untyped-call]
        idle = scaled + 1  # idle
        wide = torch.cat([scaled, scaled])  # wide
        return wide.sum() + idle[:1].sum()  # summed


def test_a_storage_has_the_line_of_the_code_that_asked_for_it() -> None:
    found, _ = followed(Lines(), [(4, 8)], "training")
    lines = {(maker.op, maker.phase): maker.line for maker in found.lifetimes.makers[1:]}
    assert lines["addmm", "forward"] == at("mixed")
    assert lines["relu", "forward"] == at("mixed")
    assert lines["mul", "forward"] == at("doubled")
    assert lines["cat", "forward"] == at("wide")
    assert lines["mul", "backward"] == at("doubled back")
    assert lines["threshold_backward", "backward"] == at("mixed")
    assert lines["gradient of output", "backward"] == ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["spatial/ccnet", "channel_spatial/cbam", "spatial/mhsa", "spatial/swin"])
def test_following_counts_what_tracing_counts(name: str, mode: str) -> None:
    case = case_of(name, mode)
    counts = explain.explain_case(case).counts
    holders = tuple(replace(holder, line="") for holder in counts.at_peak)
    assert replace(counts, at_peak=holders) == trace_case(case)
    file = f"{name.rpartition('/')[2]}.py"
    assert all(re.fullmatch(rf"{file}:\d+", holder.line) for holder in counts.at_peak if holder.op != "gradient of output")


def test_the_last_reader_of_a_storage_is_known() -> None:
    found, follower = followed(Lines(), [(4, 8)])
    (block,) = (i for i, maker in enumerate(found.lifetimes.makers) if maker.op == "mul")
    use = follower.uses[block]
    assert (use.reads, use.reader.op, use.reader.line) == (2, "cat", at("wide"))


def test_a_storage_that_is_read_again_cannot_be_dropped_unnoticed() -> None:
    found, follower = followed(Lines(), [(4, 8)])
    (block,) = (i for i, maker in enumerate(found.lifetimes.makers) if maker.op == "mul")
    dropped, again = followed(Lines(), [(4, 8)], drop={block: follower.uses[block].reads})
    assert again.read_again == []
    assert dropped.lifetimes.events != found.lifetimes.events
    _, too_early = followed(Lines(), [(4, 8)], drop={block: 1})
    assert too_early.read_again == [f"cat at {at('wide')}"]


# --- freeing


class Holds(nn.Module):
    """`large` is read once, and lives on in a variable."""

    def forward(self, x: Tensor) -> Tensor:
        large = torch.cat([x] * 4)
        small = large.sum()
        wide = torch.cat([x] * 6)
        return wide.sum() + small


class Frees(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        small = torch.cat([x] * 4).sum()
        wide = torch.cat([x] * 6)
        return wide.sum() + small


def test_what_freeing_saves_is_what_a_module_that_frees_has() -> None:
    holds, frees = (case_of(f"{__file__}:{kind.__name__}", "inference", 32) for kind in (Holds, Frees))
    found = explain.explain_case(holds)
    (change,) = found.counterfactuals
    assert change.kind == "free"
    assert change.peak_bytes == trace_case(frees).peak_bytes < change.from_peak_bytes == found.counts.peak_bytes
    assert "4x32x9x9 made by cat" in change.what
    assert "sum" in change.what.partition("right after")[2]
    assert explain.explain_case(frees).counterfactuals == ()


# --- recomputing


def theirs(part: nn.Module) -> None:
    plain = part.forward
    part.forward = lambda *args: checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("channel_spatial/residual_attention", "trunk"),
        ("channel_spatial/residual_attention", "mask"),
        ("channel_spatial/danet", "query"),
        ("context/aspp", "bns.0"),
        ("spatial/ocnet", ""),
    ],
)
def test_recomputing_counts_what_torchs_checkpoint_does(name: str, part: str) -> None:
    case = case_of(name, "training")
    ours = follow_case(case, change=lambda module: keep_inputs_only(module.get_submodule(part))).counts
    assert ours == follow_case(case, change=lambda module: theirs(module.get_submodule(part))).counts
    assert ours.macs >= trace_case(case).macs


def test_recomputing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(3, 4, requires_grad=True)
    wanted = torch.autograd.grad(plain(x).square().sum(), [x, *plain.parameters()])
    keep_inputs_only(plain)
    found = torch.autograd.grad(plain(x).square().sum(), [x, *plain.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_recomputing_is_offered_where_it_saves() -> None:
    found = explain.explain_case(case_of("channel_spatial/residual_attention", "training", 64, 33))
    best = next(change for change in found.counterfactuals if change.kind == "recompute")
    assert best.what.startswith("recomputing trunk ")
    assert best.saves_bytes > 0 < best.extra_macs
    again = follow_case(
        case_of("channel_spatial/residual_attention", "training", 64, 33),
        change=lambda module: keep_inputs_only(module.get_submodule("trunk")),
    ).counts
    assert (best.peak_bytes, best.extra_macs) == (again.peak_bytes, again.macs - found.counts.macs)


# --- fusing


class Attends(nn.Module):
    """softmax(q k) v in one of the ways in which people write it."""

    def __init__(self, write: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.write(self.q(x), self.k(x), self.v(x))


def plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 16**-0.5, -1), v)


def operators(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / 4).softmax(dim=2) @ v


def values_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = functional.softmax(torch.matmul(q, k.transpose(-2, -1)), dim=-1)
    return torch.matmul(v.transpose(1, 2), weights.permute(0, 2, 1)).transpose(1, 2)


def keys_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(v.transpose(1, 2), torch.softmax(torch.bmm(k, q.transpose(1, 2)), dim=1)).transpose(1, 2)


def with_dropout(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.dropout(torch.softmax(q @ k.mT, -1), 0.1, training=False) @ v


def with_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT + q.new_zeros(40, 40), -1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)).squeeze(1)


def fused_pass(module: nn.Module, mode: str, targets: dict[int, Chain] | None) -> tuple[Counts, dict[int, Chain]]:
    made: list[Follower] = []
    out: dict[int, Chain] = {}
    plain = module.forward

    def make(*, real: bool = False) -> Follower:
        made.append(Follower(real=real))
        return made[-1]

    def forward(*args: Any) -> Any:
        fusing = Fusing(made[-1], targets)
        with fusing:
            outputs = plain(*args)
        fusing.finish(outputs)
        out.update(fusing.found)
        return outputs

    module.forward = forward
    try:
        return follow_module(module, [TensorSpec((2, 40, 16))], mode, make_tracer=make).counts, out
    finally:
        module.forward = plain


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", [plainly, operators, values_first, keys_first, with_dropout])
def test_fusing_has_the_peak_and_the_macs_of_a_module_that_is_written_fused(write: Any, mode: str) -> None:
    observed, found = fused_pass(Attends(write), mode, None)
    assert len(found) == 1
    bare = trace.trace_module(Attends(write), [TensorSpec((2, 40, 16))], mode)
    assert observed.macs == bare.macs
    counts, _ = fused_pass(Attends(write), mode, found)
    expected = trace.trace_module(Attends(fused), [TensorSpec((2, 40, 16))], mode)
    assert (counts.peak_bytes, counts.macs) == (expected.peak_bytes, expected.macs)


def test_the_bias_of_a_window_is_fused_for_all_heads() -> None:
    found = explain.explain_case(case_of("spatial/swin", "inference", 64, 35))
    change = next(change for change in found.counterfactuals if change.kind == "fuse")
    assert change.peak_bytes < found.counts.peak_bytes


def test_a_bias_becomes_the_mask_of_the_fused_op() -> None:
    _, found = fused_pass(Attends(with_bias), "inference", None)
    counts, _ = fused_pass(Attends(with_bias), "inference", found)
    assert any(row.op == "_scaled_dot_product_efficient_attention" for row in counts.ops)
    assert not any(row.op in ("_softmax", "add") for row in counts.ops)


def uses_it_twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(q @ k.mT, -1)
    return weights @ v + weights @ q


def returns_it(q: Tensor, k: Tensor, v: Tensor) -> Any:
    weights = torch.softmax(q @ k.mT, -1)
    return weights @ v, weights


def looks_at_it(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax(q @ k.mT, -1)
    return weights @ v + weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("write", [uses_it_twice, returns_it, looks_at_it])
def test_a_map_that_is_needed_is_not_fused_away(write: Any) -> None:
    _, found = fused_pass(Attends(write), "inference", None)
    with pytest.raises(NotFusableError):
        fused_pass(Attends(write), "inference", found)


def over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT, 1) @ v


def unnormalized(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / 40) @ v


def squared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax((q @ k.mT).square(), -1) @ v


@pytest.mark.parametrize("write", [over_queries, unnormalized, squared])
def test_what_is_no_attention_is_not_found(write: Any) -> None:
    assert fused_pass(Attends(write), "inference", None)[1] == {}


def test_without_a_kernel_for_the_head_size_nothing_is_offered() -> None:
    found = explain.explain_case(case_of("spatial/pam", "inference", 16, 33))  # heads of 2
    assert not any(change.kind == "fuse" for change in found.counterfactuals)
    assert "no fused kernel" in found.notes[0]


@pytest.mark.parametrize("mode", MODES)
def test_fusing_is_offered_where_a_map_holds_the_peak(mode: str) -> None:
    found = explain.explain_case(case_of("spatial/nonlocal", mode, 64, 33))
    change = found.counterfactuals[0]
    assert change.kind == "fuse"
    assert change.peak_bytes < 4 * 33**4 < change.saves_bytes
    assert (change.extra_macs > 0) == (mode == "training")  # the fused backward pass makes the map again


def test_the_kernel_of_sdpa_is_compared_with_its_other_one() -> None:
    auto, math = (case_of("spatial/mhsa", "training", 64, 33, sdpa=sdpa) for sdpa in ("auto", "math"))
    saved = next(change for change in explain.explain_case(math).counterfactuals if change.kind == "kernel")
    cost = next(change for change in explain.explain_case(auto).counterfactuals if change.kind == "kernel")
    assert saved.saves_bytes == -cost.saves_bytes > 0
    assert (saved.peak_bytes, cost.peak_bytes) == (trace_case(auto).peak_bytes, trace_case(math).peak_bytes)
    assert explain.explain_case(case_of("channel/se", "training", sdpa="math")).counterfactuals == ()


# --- the whole


@pytest.mark.parametrize("name", ["spatial/pam", "spatial/ccnet_bmm", "context/aspp", "spatial/swin"])
@pytest.mark.parametrize("mode", MODES)
def test_changes_come_largest_first_confirmed_and_from_the_same_peak(name: str, mode: str) -> None:
    found = explain.explain_case(case_of(name, mode, 64, 33))
    savings = [change.saves_bytes for change in found.counterfactuals]
    assert savings == sorted(savings, reverse=True)
    assert all(change.from_peak_bytes == found.counts.peak_bytes and change.confirmed for change in found.counterfactuals)
    assert max(moment.bytes for moment in found.timeline) == found.counts.peak_bytes
    assert whatif.explanation_from_json(to_json(found)) == found


def test_a_pass_that_needs_data_is_explained_without_what_ifs() -> None:
    class_path = f"{__file__}:Asks"
    found = explain.explain_case(case_of(class_path, "inference", 16))
    assert found.counts.traced_by == "real"
    assert found.counterfactuals == ()
    assert "without data" in found.notes[0]
    assert found.timeline


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x * 3


def test_explaining_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys; from attnprof.profiling.whatif.explain import explain_case; from attnprof.records import Case, Shape;"
        "explain_case(Case('spatial/pam', 'pam', {}, Shape(1, 64, 9, 9), mode='training'));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
    nouns = "import sys; import attnprof.profiling.whatif, attnprof.report.explain; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", nouns], check=False, timeout=120).returncode == 0
