"""What-ifs of attention: a pattern run as one fused op, a call of SDPA that no fused kernel takes made fit for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from attnprof.profiling.whatif import Counterfactual
from attnprof.profiling.whatif.eligible import Eligible
from attnprof.profiling.whatif.follow import Follower
from attnprof.profiling.whatif.fuse import Chain, Fusing, NotFusableError
from attnprof.profiling.whatif.passes import Pass, follow
from attnprof.records import Case

Mode = TypeVar("Mode", Fusing, Eligible)
_CALL = "F.scaled_dot_product_attention"
_NAMED = 3
_KNOWN = (
    "What is recognised: two products (matmul, bmm, @, einsum), between them a softmax over the keys and nothing else than"
    " factors, biases, masks, dropout and changes of layout, and nothing else that reads the map"
)


def math_notes(found: Pass) -> list[str]:
    """A sentence for every call of SDPA that is counted as the math path: where it is, and the rules that refused it."""
    return [
        f"{_CALL}{_at([line])}{_times(times)} is counted as the math path, which makes the whole map: {call}."
        for (line, call), times in found.tracer.math_lines.items()
    ]


def fused(case: Case, found: Pass, notes: list[str], tried: list[str]) -> list[Counterfactual]:
    """Every product -> softmax -> product that is recognised, run as fused attention, all at once."""
    if not any(row.op == "_softmax" for row in found.traced.counts.ops):
        return []
    seen, _ = _fused_pass(case, None)
    if not seen.found:
        notes += _unrecognised(seen, found)
        return []
    where = _at(chain.ends for chain in seen.found.values())
    if case.settings.get("sdpa") == "math":
        notes.append(f"An attention pattern is there{where}; fused attention was not tried: sdpa=math was asked for.")
        return []
    tried.append(f"fused attention{where}")
    asked = replace(case, settings={**case.settings, "sdpa": "auto"})
    targets = dict(seen.found)
    try:
        mode, again = _fused_pass(asked, targets)
        if mode.refused:
            notes += [
                f"An attention pattern is there{_at([seen.found[number].ends])}, but no fused kernel of torch takes it:"
                f" {reason}."
                for number, reason in mode.refused.items()
            ]
            targets = {number: chain for number, chain in targets.items() if number not in mode.refused}
            if not targets:
                return []
            mode, again = _fused_pass(asked, targets)
    except NotFusableError as error:
        notes.append(f"An attention pattern is there{where}, but does not fuse: {error}.")
        return []
    macs = again.traced.counts.macs - found.traced.counts.macs
    taken = dict.fromkeys(mode.laid[number] for number in targets)
    laid = " and ".join(list(taken)[:_NAMED]) + (f" and {len(taken) - _NAMED} more" if len(taken) > _NAMED else "")
    what = (
        f"fused attention ({_CALL}) in place of product, softmax and product{_at(chain.ends for chain in targets.values())}"
        f"{_times(len(targets))}, called with {laid}"
    )
    how = "the whole pass traced again with exactly that call in place of the second product, copies included"
    return [Counterfactual("fuse", what, found.peak, again.peak, macs, how)]


def made_eligible(case: Case, found: Pass, notes: list[str], tried: list[str]) -> list[Counterfactual]:
    """Calls of SDPA on the math path that a fused kernel takes once their arguments are laid out for it."""
    if not found.traced.counts.math_attention or case.settings.get("sdpa", "auto") != "auto":
        return []
    target = case.settings.get("target", "cuda")
    mode, again = _under(case, lambda tracer: Eligible(tracer, target))
    if not mode.done:
        return []
    tried.append(f"arguments of {_CALL} laid out for a fused kernel{_at(mode.done)}")
    macs = again.traced.counts.macs - found.traced.counts.macs
    ways = "; ".join(dict.fromkeys(mode.done.values()))
    what = f"a fused kernel for {_CALL}{_at(mode.done)}, given {ways}"
    how = "the whole pass traced again with exactly those arguments"
    return [Counterfactual("fuse", what, found.peak, again.peak, macs, how)]


def _unrecognised(seen: Fusing, found: Pass) -> list[str]:
    if not seen.softmaxes:
        if found.traced.counts.math_attention:  # the softmax is that of the math path
            return []
        text = (
            "No attention pattern was recognised, fused attention was not tried: the softmax is inside a function of torch's"
            " own (nn.MultiheadAttention makes the map with need_weights=True, which is its default)."
        )
        return [text]
    ended = dict.fromkeys(seen.ended.values())
    broken = f". What a product was followed by instead: {', '.join(ended)}" if 0 < len(ended) <= _NAMED else ""
    where = _at(seen.softmaxes)
    return [f"No attention pattern was recognised around the softmax{where}, fused attention was not tried. {_KNOWN}{broken}."]


def _fused_pass(case: Case, targets: Mapping[int, Chain] | None) -> tuple[Fusing, Pass]:
    return _under(case, lambda tracer: Fusing(tracer, targets))


def _under(case: Case, make_mode: Callable[[Follower], Mode]) -> tuple[Mode, Pass]:
    """The pass with the module's forward under a mode, and that mode.

    Where it changes the pass, it is there in the backward pass too: a forward may run again in it.
    """
    kept = ExitStack()
    made: list[Follower] = []
    modes: list[Mode] = []

    def change(module: nn.Module) -> None:
        plain = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            kept.close()
            mode = make_mode(made[-1])
            modes.append(mode)
            with mode:
                outputs = plain(*args, **kwargs)
            if isinstance(mode, Fusing):
                mode.finish(outputs)
            if not isinstance(mode, Fusing) or mode.targets is not None:
                kept.enter_context(mode)
            return outputs

        module.forward = forward

    with kept:
        followed = follow(case, change=change, made=made)
    return modes[-1], followed


def _at(lines: Iterable[str]) -> str:
    """' at mods.py:12, mods.py:33', as far as lines are known."""
    known = [line for line in dict.fromkeys(lines) if line]
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f" at {', '.join(known[:_NAMED])}{more}" if known else ""


def _times(number: int) -> str:
    return f" ({number} times)" if number > 1 else ""
