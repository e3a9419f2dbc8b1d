"""Explain a case: who asked for what is alive at the peak, and what would lower it, each answer confirmed by tracing again.

free       a block that is not read any more: its death is moved in the replay, and the pass is traced again with the block
           really dropped then; both peaks must agree and nobody may read it afterwards
recompute  (training) the pass traced again with a submodule under torch.utils.checkpoint
fuse       the pass traced again with product -> softmax -> product run as F.scaled_dot_product_attention, copies included;
           and with a call that no fused kernel takes laid out so that one does (`attending`)
kernel     the pass traced again with the other kernel of F.scaled_dot_product_attention
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from attnprof.profiling import timeline
from attnprof.profiling.counting.lifetimes import Maker
from attnprof.profiling.whatif import Counterfactual, Explanation, attending, replay
from attnprof.profiling.whatif.follow import Use
from attnprof.profiling.whatif.passes import Pass, follow
from attnprof.profiling.whatif.recompute import keep_inputs_only
from attnprof.records import Case

_LIMIT = 4  # candidates of a kind that are traced
_POINTS = 240  # of the timeline
_WORTH = 0.001  # of the peak: smaller savings are not told
_DROPPED = "traced again with the storage dropped after its last read; replay and trace agree"


def explain_case(case: Case) -> Explanation:
    """The explanation of a case. Raises what a trace raises: UsageError, UntraceableError, the module's own errors."""
    found = follow(case)
    counts = found.traced.counts
    notes: list[str] = attending.math_notes(found)
    changes: list[Counterfactual] = []
    tried: list[str] = []
    if counts.traced_by == "meta" and not counts.assumed:
        changes += _free(case, found)
        tried.append("freeing what is not read again")
        changes += attending.fused(case, found, notes, tried)
        changes += attending.made_eligible(case, found, notes, tried)
        changes += _kernel(case, found, tried)
        if case.mode == "training":
            changes += _recompute(case, found)
            tried.append("recomputing submodules in the backward pass")
    else:
        notes.append("What would lower the peak is not looked for: the pass could not be followed without data.")
    least = _WORTH * max(found.peak, 1)
    worth = [
        change for change in changes if change.saves_bytes >= least or (change.kind == "kernel" and change.saves_bytes < 0)
    ]
    worth.sort(key=lambda change: (-change.saves_bytes, change.extra_macs))
    moments = timeline.moments(found.lifetimes, found.end, _POINTS)
    return Explanation(counts, moments, tuple(worth), tuple(notes), tuple(tried))


def _free(case: Case, found: Pass) -> list[Counterfactual]:
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


def _dropped(case: Case, found: Pass, blocks: list[int], what: str) -> list[Counterfactual]:
    uses: dict[int, Use] = found.tracer.uses
    expected, _ = replay.freed(found.lifetimes, {block: uses[block].event for block in blocks}).peak()
    if found.peak - expected < _WORTH * found.peak:
        return []
    again = follow(case, {block: uses[block].reads for block in blocks})
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


def _kernel(case: Case, found: Pass, tried: list[str]) -> list[Counterfactual]:
    """Where the module calls F.scaled_dot_product_attention: the other of math path and fused kernel."""
    rows = found.traced.counts.ops
    asked = case.settings.get("sdpa", "auto")
    if asked != "math" and not any("scaled_dot_product" in row.op for row in rows):
        return []
    other = "auto" if asked == "math" else "math"
    again = follow(replace(case, settings={**case.settings, "sdpa": other}))
    if asked == "math" and not any("scaled_dot_product" in row.op for row in again.traced.counts.ops):
        return []
    macs = again.traced.counts.macs - found.traced.counts.macs
    tried.append("the other kernel of F.scaled_dot_product_attention")
    kernel = "math path" if other == "math" else "fused kernel"
    what = f"the {kernel} of F.scaled_dot_product_attention (--sdpa {other})"
    return [Counterfactual("kernel", what, found.peak, again.peak, macs, f"the whole pass traced again with --sdpa {other}")]


def _recompute(case: Case, found: Pass) -> list[Counterfactual]:
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
        again = follow(case, change=lambda module, name=name: keep_inputs_only(module.get_submodule(name)))  # type: ignore[misc]
        macs = again.traced.counts.macs - found.traced.counts.macs
        change = Counterfactual(
            "recompute", f"recomputing {name} in the backward pass (torch.utils.checkpoint)", found.peak, again.peak, macs,
            "the whole pass traced again with the submodule checkpointed",
        )  # fmt: skip
        if not any(other.peak_bytes <= change.peak_bytes and other.extra_macs <= macs for other in changes):
            changes.append(change)
    return changes
