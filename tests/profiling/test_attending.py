"""What-ifs of attention, each held against the module as one writes it by hand; calls of SDPA on the math path are named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from attnprof.errors import UsageError
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.whatif import Counterfactual, Explanation, attending, einsum
from attnprof.profiling.whatif.explain import explain_case
from attnprof.records import MODES, Case, Record, Shape, record_from_json, to_json
from attnprof.report import build

NonLocal: Any = importlib.import_module("attnprof.mechanisms.spatial.nonlocal").NonLocal
sdpa = functional.scaled_dot_product_attention


def case_of(kind: type, mode: str, channels: int = 64, extent: int = 14, dtype: str = "float32", **settings: Any) -> Case:
    name = kind.__name__
    return Case(f"{__file__}:{name}", name, {}, Shape(1, channels, extent, extent), dtype=dtype, mode=mode, settings=settings)


def fused(found: Explanation) -> Counterfactual:
    (change,) = (change for change in found.counterfactuals if change.kind == "fuse")
    return change


def line_of(snippet: str) -> str:
    """'test_attending.py:12' of the only line of this file that ends with a snippet."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {snippet}"))
    return f"{Path(__file__).name}:{number}"


class NonLocalByHand(NonLocal):  # type: ignore[misc]
    """The catalogue's non-local block with SDPA in the place of its two products: channels first, so all three are copied."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        theta, phi, g = self.theta(x), self.phi(x), self.g(x)
        theta = theta.flatten(2).transpose(1, 2)
        phi = phi.flatten(2)
        g = g.flatten(2).transpose(1, 2)
        y = sdpa(theta[:, None].contiguous(), phi.mT[:, None].contiguous(), g[:, None].contiguous(), scale=1.0)[:, 0]
        y = y.transpose(1, 2).contiguous().view(batch, self.inner, height, width)
        out: Tensor = self.bn(self.w(y)) + x
        return out


class NonLocalAsItLies(NonLocalByHand):
    """The same without the copies: no fused kernel takes that."""

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (layer(x).flatten(2).transpose(1, 2)[:, None] for layer in (self.theta, self.phi, self.g))
        y = sdpa(theta, phi, g, scale=1.0)[:, 0].transpose(1, 2).contiguous().view(x.shape[0], self.inner, *x.shape[2:])
        out: Tensor = self.bn(self.w(y)) + x
        return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("channels", "extent"), [(64, 33), (16, 25)])
def test_the_fused_peak_of_nonlocal_is_that_of_the_block_written_by_hand(mode: str, channels: int, extent: int) -> None:
    case = Case("spatial/nonlocal", "nonlocal", {}, Shape(1, channels, extent, extent), mode=mode)
    change = fused(explain_case(case))
    by_hand = trace_case(case_of(NonLocalByHand, mode, channels, extent))
    assert change.peak_bytes == by_hand.peak_bytes
    assert change.extra_macs == by_hand.macs - trace_case(case).macs
    assert f"called with q, k, v 1x1x{extent**2}x{channels // 2} copied by .contiguous()" in change.what
    assert by_hand.math_attention == {}
    assert trace_case(case_of(NonLocalAsItLies, mode, channels, extent)).peak_bytes > change.peak_bytes


class Heads(nn.Module):
    """Attention of four heads over tokens; `att` gives softmax(q k) v."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).view(b, h * w, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        y = self.att(q, k, v)
        return x + y.transpose(1, 2).reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w)

    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k, v)


class Einsum(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (torch.einsum("bhnd,bhmd->bhnm", q, k) * 0.25).softmax(-1)
        return torch.einsum("bhnm,bhmd->bhnd", weights, v)


class EinsumOfMany(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (torch.einsum("...nd, ...md -> ...nm", [q, k]) * 0.25).softmax(-1)
        return torch.einsum("...nm, ...md -> ...nd", [weights, v])


class EinsumAcross(Heads):
    """Keys first in the map, values first in the second product."""

    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(torch.einsum("bhnd,bhmd->bhmn", q, k) * 0.25, 2)
        return torch.einsum("bhmd,bhmn->bhnd", v, weights)


class Masked(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        return (q @ k.mT * 0.25).masked_fill(mask, -torch.inf).softmax(-1) @ v


class MaskedByHand(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        return sdpa(q, k, v, attn_mask=~mask)


class Windows(Heads):
    """A bias of every head, then, through a view, a mask of every window: four windows of 49 tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(4, 49, 49))
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(4, 49, 49))

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        q, k, v = self.qkv(x.reshape(b, c, 4, 49).permute(0, 2, 3, 1)).view(b * 4, 49, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        return self.att(q, k, v)

    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT * 0.25 + self.bias).view(-1, 4, 4, 49, 49) + self.mask[None, :, None]
        return scores.softmax(-1).view(-1, 4, 49, 49) @ v


class WindowsByHand(Windows):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.bias[None, None] + self.mask[None, :, None]
        return sdpa(q, k, v, bias.view(-1, 4, 49, 49))


class Deep(nn.Module):
    """Channels first throughout: 'bhdn,bhdm->bhnm'."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, 3, 4, c // 4, h * w).unbind(1)
        return self.att(q, k, v).reshape(b, c, h, w)

    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bhdn,bhdm->bhnm", q, k) * 0.25
        return torch.einsum("bhnm,bhdm->bhdn", weights.softmax(-1), v)


class DeepByHand(Deep):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (tensor.transpose(-1, -2).contiguous() for tensor in (q, k, v))
        return sdpa(q, k, v).transpose(-1, -2)


class Checkpointed(nn.Module):
    """An attention that the backward pass runs again."""

    inner: type[nn.Module] = Einsum

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = self.inner(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.attention, x, use_reentrant=False)
        return out


class CheckpointedByHand(Checkpointed):
    inner = Heads


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("written", "by_hand"),
    [
        (Einsum, Heads),
        (EinsumOfMany, Heads),
        (EinsumAcross, Heads),
        (Masked, MaskedByHand),
        (Windows, WindowsByHand),
        (Deep, DeepByHand),
        (Checkpointed, CheckpointedByHand),
    ],
)
def test_the_fused_peak_is_that_of_the_module_written_by_hand(written: type, by_hand: type, mode: str) -> None:
    seen, _ = attending._fused_pass(case_of(written, mode), None)
    mode_, again = attending._fused_pass(case_of(written, mode), seen.found)
    wanted = trace_case(case_of(by_hand, mode))
    assert (again.peak, again.traced.counts.macs) == (wanted.peak_bytes, wanted.macs)
    assert not mode_.refused
    assert not wanted.math_attention
    found = explain_case(case_of(written, mode))
    assert any(each.startswith("fused attention at test_attending.py:") for each in found.tried)
    if wanted.peak_bytes < 0.999 * found.counts.peak_bytes:
        assert fused(found).peak_bytes == wanted.peak_bytes


@pytest.mark.parametrize(
    "equation", ["bnd,bmd->bnm", "bdn,bdm->bnm", "bdn,bdm->bmn", "bnd,bmd->bmn", "...nd,...dm->...nm", "xyac,zyxc->yxaz"]
)
def test_scores_by_einsum_are_a_matmul(equation: str) -> None:
    size = {"b": 2, ".": 2, "n": 4, "m": 5, "d": 6, "x": 2, "y": 3, "z": 5, "a": 4, "c": 6}
    texts = equation.partition("->")[0].split(",")
    sides = [torch.randn([size[c] for c in text.replace("...", ".")]) for text in texts]
    read = einsum.scores(equation, *sides)
    assert read is not None
    torch.testing.assert_close(read[0] @ read[1], torch.einsum(equation, *sides))


@pytest.mark.parametrize("equation", ["bnm,bmd->bnd", "bnm,bdm->bdn", "bnm,bnd->bmd", "...nm,...md->...dn"])
@pytest.mark.parametrize("of_map", [0, 1])
def test_values_by_einsum_are_a_matmul(equation: str, of_map: int) -> None:
    size = {"b": 2, ".": 2, "n": 4, "m": 5, "d": 6}
    left, _, out = equation.partition("->")
    texts = left.split(",")
    sides = [torch.randn([size[c] for c in text.replace("...", ".")]) for text in texts]
    if of_map == 1:
        texts, sides = texts[::-1], sides[::-1]
        equation = f"{','.join(texts)}->{out}"
    read = einsum.values(equation, sides, of_map)
    assert read is not None
    last, value, order = read
    weights = sides[of_map] if last else sides[of_map].mT
    torch.testing.assert_close((weights @ value).permute(order), torch.einsum(equation, *sides))


@pytest.mark.parametrize("equation", ["bnd,bmd", "bnd,bme->bnm", "nd,md->nm", "bnd,cmd->bcnm", "bnn,bmn->bnm"])
def test_an_einsum_that_is_no_product_of_scores_is_left_alone(equation: str) -> None:
    sides = [torch.zeros((3,) * len(text)) for text in equation.partition("->")[0].split(",")]
    assert einsum.scores(equation, *sides) is None


# --- what is said where nothing is fused


class Squared(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT).square().softmax(-1) @ v  # squared


class Whole(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(channels, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        out: Tensor = self.inner(tokens, tokens, tokens)[0]
        return out


def test_a_pattern_that_is_not_recognised_is_not_said_to_be_tried() -> None:
    found = explain_case(case_of(Squared, "training"))
    assert not any("fused" in each for each in found.tried)
    (note,) = found.notes
    assert note.startswith(f"No attention pattern was recognised around the softmax at {line_of('squared')}, fused")
    assert f"followed by instead: square ({line_of('squared')})" in note
    (note,) = explain_case(case_of(Whole, "inference")).notes
    assert "need_weights=True" in note
    assert explain_case(Case("channel/se", "se", {}, Shape(1, 64, 9, 9))).notes == ()


def test_a_pattern_that_no_kernel_takes_names_the_rule() -> None:
    found = explain_case(case_of(Einsum, "inference", channels=24))  # heads of 6
    (note,) = found.notes
    assert "no fused kernel of torch takes it" in note
    assert "the head size of q and k, 6, is not a multiple of 4" in note
    assert explain_case(case_of(Einsum, "inference", channels=24, sdpa="fused")).notes == found.notes
    (asked,) = explain_case(case_of(Einsum, "inference", sdpa="math")).notes
    assert "sdpa=math was asked for" in asked


# --- calls of SDPA on the math path


class Grouped(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k[:, :2], v[:, :2], enable_gqa=True)  # grouped


class GroupedByHand(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k[:, :2].repeat_interleave(2, 1), v[:, :2].repeat_interleave(2, 1))


class Strided(Deep):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q.mT, k.mT, v.mT).mT


class Flat(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q[:, 0], k[:, 0], v[:, 0])[:, None].expand(q.shape)


class FlatByHand(Heads):
    def att(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q[:, :1], k[:, :1], v[:, :1]).expand(q.shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("written", "by_hand", "rule", "done"),
    [
        (Grouped, GroupedByHand, "it takes no enable_gqa", "repeat_interleave"),
        (Strided, DeepByHand, "the last dimension of q, k and v is not contiguous", "contiguous copy of q, k, v"),
        (Flat, FlatByHand, "q is 3-D", "unsqueeze"),
    ],
)
def test_a_call_on_the_math_path_names_its_rule_and_what_makes_it_fit(
    written: type, by_hand: type, rule: str, done: str, mode: str
) -> None:
    case = case_of(written, mode)
    found = explain_case(case)
    wanted = trace_case(case_of(by_hand, mode))
    change = fused(found)
    assert change.peak_bytes == wanted.peak_bytes < found.counts.peak_bytes
    assert done in change.what
    assert "math path" in found.notes[0]
    assert rule in found.notes[0]
    ((call, times),) = found.counts.math_attention.items()
    assert times == 1
    assert rule in call
    with pytest.raises(UsageError, match=rule):
        trace_case(case_of(written, mode, sdpa="fused"))


def test_the_notes_of_a_report_name_calls_on_the_math_path() -> None:
    records = [
        Record(case, counts=trace_case(case)) for case in (case_of(kind, "inference") for kind in (Grouped, Heads, Strided))
    ]
    again = [record_from_json(to_json(record)) for record in records]
    assert [each.counts.math_attention for each in again if each.counts] == [
        each.counts.math_attention for each in records if each.counts
    ]
    assert "math_attention" not in to_json(records[1])["counts"]
    notes = [note for note in build(again).notes if "math path" in note]
    assert len(notes) == 2
    assert notes[0].startswith("Attention (Grouped) is counted as the math path, ")
    assert "it takes no enable_gqa" in notes[0]
    assert "a fused kernel of a CPU may take it" in notes[0]


# --- a forward that runs again in the backward pass


class Again(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        again: Callable[..., Any] = checkpoint
        return self.last(again(self.block, x, use_reentrant=self.reentrant))

    reentrant = False


class AgainReentrant(Again):
    reentrant = True


@pytest.mark.parametrize("kind", [Again, AgainReentrant])
def test_what_a_checkpoint_runs_again_is_charged_to_the_submodule_that_runs(kind: type) -> None:
    counts = trace_case(case_of(kind, "training"))
    product = 14 * 14 * 64 * 256
    macs = {(row.op, row.module): row.macs for row in counts.ops if row.phase == "backward" and row.macs}
    again = {("convolution", "block.0"): product}
    if kind is AgainReentrant:  # it does not stop at the last tensor that is needed
        again["convolution", "block.2"] = product
    back = {("convolution_backward", name): 2 * product for name in ("block.0", "block.2")}
    assert macs == again | back | {("convolution_backward", "last"): 2 * 14 * 14 * 64 * 64}
    shapes = {holder.module: holder.shape for holder in counts.at_peak if holder.op in ("convolution", "gelu")}
    assert {shapes.get("block.0"), shapes.get("block.1")} == {(1, 256, 14, 14)}
    assert shapes.get("block.2", (1, 64, 14, 14)) == (1, 64, 14, 14)
