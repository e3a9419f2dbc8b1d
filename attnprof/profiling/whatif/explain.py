"""Explain a case: who asked for what is alive at the peak, and what would lower it, each answer confirmed by tracing again.

free       a block that is not read any more: its death is moved in the replay, and the pass is traced again with the block
           really dropped then; both peaks must agree and nobody may read it afterwards
recompute  (training) the pass traced again with a submodule under torch.utils.checkpoint
fuse       the pass traced again with matmul -> softmax -> matmul run as F.scaled_dot_product_attention
kernel     the pass traced again with the other kernel of F.scaled_dot_product_attention
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from attnprof.profiling.counting.lifetimes import Lifetimes, Maker
from attnprof.profiling.counting.trace import Traced, follow_case
from attnprof.profiling.whatif import Counterfactual, Explanation, replay
from attnprof.profiling.whatif.follow import Follower, Use
from attnprof.profiling.whatif.fuse import Fusing, NotFusableError
from attnprof.profiling.whatif.recompute import keep_inputs_only
from attnprof.records import Case

_LIMIT = 4  # candidates of a kind that are traced
_WORTH = 0.001  # of the peak: smaller savings are not told
_DROPPED = "traced again with the storage dropped after its last read; replay and trace agree"


@dataclass(frozen=True)
class _Pass:
    """A followed pass: the trace, and the tracer that followed it."""

    traced: Traced
    tracer: Follower

    @property
    def peak(self) -> int:
        return self.traced.counts.peak_bytes

    @property
    def lifetimes(self) -> Lifetimes:
        return self.traced.lifetimes

    @property
    def end(self) -> int:
        """Events within the pass; what dies later are its results."""
        return self.tracer.ledger.end


def explain_case(case: Case) -> Explanation:
    """The explanation of a case. Raises what a trace raises: UsageError, UntraceableError, the module's own errors."""
    found = _follow(case)
    counts = found.traced.counts
    notes: list[str] = []
    changes: list[Counterfactual] = []
    if counts.traced_by == "meta" and not counts.assumed:
        changes += _free(case, found)
        changes += _fuse(case, found, notes)
        changes += _kernel(case, found)
        if case.mode == "training":
            changes += _recompute(case, found)
    else:
        notes.append("What would lower the peak is not looked for: the pass could not be followed without data.")
    least = _WORTH * max(found.peak, 1)
    worth = [
        change for change in changes if change.saves_bytes >= least or (change.kind == "kernel" and change.saves_bytes < 0)
    ]
    worth.sort(key=lambda change: (-change.saves_bytes, change.extra_macs))
    return Explanation(counts, replay.timeline(found.lifetimes, found.end), tuple(worth), tuple(notes))


def _follow(case: Case, drop: dict[int, int] | None = None, change: Callable[[nn.Module], object] | None = None) -> _Pass:
    made: list[Follower] = []

    def make(*, real: bool = False) -> Follower:
        made.append(Follower(real=real, drop=drop))
        return made[-1]

    traced = follow_case(case, make, change)
    return _Pass(traced, made[-1])


def _free(case: Case, found: _Pass) -> list[Counterfactual]:
    """What is alive at the peak though it is not read again: each on its own, and everything that is ever idle at once."""
    _, at = found.lifetimes.peak()
    uses = {block: use.event for block, use in found.tracer.uses.items()}
    groups: dict[tuple[Maker, Maker], list[int]] = defaultdict(list)
    for block in replay.idle_at(found.lifetimes, found.end, uses, at):
        groups[found.lifetimes.makers[block], found.tracer.uses[block].reader].append(block)
    changes = []
    ranked = sorted(groups.items(), key=lambda item: -sum(found.lifetimes.sizes[block] for block in item[1]))
    for (maker, reader), blocks in ranked[:_LIMIT]:
        changes += _dropped(case, found, blocks, f"freeing {_name(maker, len(blocks))} right after {_reader(maker, reader)}")
    if len(ranked) > 1:
        everything = list(replay.deaths_of(found.lifetimes, found.end))
        changes += _dropped(case, found, everything, "freeing every storage right after its last read")
    if any(change.peak_bytes - changes[-1].peak_bytes < _WORTH * found.peak for change in changes[:-1]):
        return changes[:-1]  # one of them does it all
    return changes


def _dropped(case: Case, found: _Pass, blocks: list[int], what: str) -> list[Counterfactual]:
    uses: dict[int, Use] = found.tracer.uses
    expected, _ = replay.freed(found.lifetimes, {block: uses[block].event for block in blocks}).peak()
    if found.peak - expected < _WORTH * found.peak:
        return []
    again = _follow(case, {block: uses[block].reads for block in blocks})
    if again.peak != expected or again.tracer.read_again:
        return []  # what two ways of finding it do not agree on is not told
    return [Counterfactual("free", what, found.peak, again.peak, 0, _DROPPED)]


def _name(maker: Maker, number: int = 1) -> str:
    shape = "x".join(map(str, maker.shape)) or "scalar"
    several = f"{number} of " if number > 1 else ""
    return f"{several}the {shape} made by {maker.op}{_place(maker)}"


def _reader(maker: Maker, reader: Maker) -> str:
    if reader.op == maker.op and reader.line == maker.line and reader.phase == maker.phase:
        return "it is made"
    return f"{reader.op}{_place(reader)} has read it"


def _place(maker: Maker) -> str:
    """' in theta (nonlocal.py:44, backward)', as far as that is known."""
    where = [part for part in (maker.line, "backward" if maker.phase == "backward" else "") if part]
    inside = f" in {maker.module}" if maker.module else ""
    return f"{inside} ({', '.join(where)})" if where else inside


def _fuse(case: Case, found: _Pass, notes: list[str]) -> list[Counterfactual]:
    """One softmax(q k) v after the other run as fused attention, all that the module has at once."""
    if not any(row.op == "_softmax" for row in found.traced.counts.ops):
        return []
    seen = _fused_pass(case, None)
    targets = frozenset(seen.found)
    if not targets:
        return []
    try:
        again = _fused_pass(case, targets)
    except NotFusableError as error:
        notes.append(f"matmul -> softmax -> matmul is there, but does not fuse: {error}.")
        return []
    assert again.counts is not None
    if not any("scaled_dot_product" in row.op for row in again.counts.traced.counts.ops):
        notes.append("matmul -> softmax -> matmul is there, but no fused kernel of torch takes its head size and dtype.")
        return []
    macs = again.counts.traced.counts.macs - found.traced.counts.macs
    what = f"fused attention (F.scaled_dot_product_attention) for matmul -> softmax -> matmul{_times(len(targets))}"
    how = "the whole pass traced again with the fused op in place"
    return [Counterfactual("fuse", what, found.peak, again.counts.peak, macs, how)]


def _times(number: int) -> str:
    return f" ({number} times)" if number > 1 else ""


@dataclass
class _Fused:
    """What a pass under Fusing gives."""

    found: set[int]
    counts: _Pass | None = None


def _fused_pass(case: Case, targets: frozenset[int] | None) -> _Fused:
    out = _Fused(set())
    made: list[Follower] = []

    def make(*, real: bool = False) -> Follower:
        made.append(Follower(real=real))
        return made[-1]

    def change(module: nn.Module) -> None:
        plain = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            mode = Fusing(made[-1], targets)
            with mode:
                outputs = plain(*args, **kwargs)
            mode.finish(outputs)
            out.found |= mode.found
            return outputs

        module.forward = forward

    traced = follow_case(case, make, change)
    out.counts = _Pass(traced, made[-1])
    return out


def _kernel(case: Case, found: _Pass) -> list[Counterfactual]:
    """Where the module calls F.scaled_dot_product_attention: the other of math path and fused kernel."""
    rows = found.traced.counts.ops
    asked = case.settings.get("sdpa", "auto")
    if asked != "math" and not any("scaled_dot_product" in row.op for row in rows):
        return []
    other = "auto" if asked == "math" else "math"
    again = _follow(replace(case, settings={**case.settings, "sdpa": other}))
    if asked == "math" and not any("scaled_dot_product" in row.op for row in again.traced.counts.ops):
        return []
    macs = again.traced.counts.macs - found.traced.counts.macs
    kernel = "math path" if other == "math" else "fused kernel"
    what = f"the {kernel} of F.scaled_dot_product_attention (--sdpa {other})"
    return [Counterfactual("kernel", what, found.peak, again.peak, macs, f"the whole pass traced again with --sdpa {other}")]


def _recompute(case: Case, found: _Pass) -> list[Counterfactual]:
    """Submodules whose forward pass holds most at the peak, each run under checkpointing."""
    _, at = found.lifetimes.peak()
    held: dict[str, int] = defaultdict(int)
    for block in found.lifetimes.alive(at):
        maker = found.lifetimes.makers[block]
        if maker.phase == "forward" and maker.module:
            parts = maker.module.split(".")
            for depth in range(1, len(parts) + 1):
                held[".".join(parts[:depth])] += found.lifetimes.sizes[block]
    changes: list[Counterfactual] = []
    for name in sorted(held, key=lambda name: -held[name])[:_LIMIT]:
        again = _follow(case, change=lambda module, name=name: keep_inputs_only(module.get_submodule(name)))  # type: ignore[misc]
        macs = again.traced.counts.macs - found.traced.counts.macs
        change = Counterfactual(
            "recompute", f"recomputing {name} in the backward pass (torch.utils.checkpoint)", found.peak, again.peak, macs,
            "the whole pass traced again with the submodule checkpointed",
        )  # fmt: skip
        if not any(other.peak_bytes <= change.peak_bytes and other.extra_macs <= macs for other in changes):
            changes.append(change)
    return changes
