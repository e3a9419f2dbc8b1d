"""Kept files for tests: forms written by hand, and programs that hold a trace at single shapes as constants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnprof.profiling.counting.trace import follow_case
from attnprof.profiling.forms import kept
from attnprof.records import MODES, Case, Shape

NONLOCAL = "spatial/nonlocal"
DOMAIN = "C % 2 == 0 and C >= 2 and H >= 2 and W >= 2"
PEAK = ("6*C*H*W + 8*H**2*W**2", "16*C*H*W + 4*H**2*W**2")  # TRACING: the peak of nonlocal in inference


def form(expr: str, order: str, pieces: Sequence[tuple[str, str, list[str]]] = (), domain: str = DOMAIN) -> dict[str, Any]:
    keys = ("expr", "domain", "made_of")
    made = [dict(zip(keys, piece, strict=True)) for piece in pieces]
    return {"expr": expr, "order": order, "domain": domain, "draws": 200, "pieces": made}


def forms_of_nonlocal() -> dict[str, Any]:
    """`forms`, `general` and `missing` of nonlocal in inference."""
    pieces = [
        (PEAK[0], "2*H*W >= 5*C", ["4*H**2*W**2 softmax", "4*H**2*W**2 bmm", "2*C*H*W convolution in g"]),
        (PEAK[1], "2*H*W < 5*C", ["4*H**2*W**2 softmax"]),
    ]
    forms = {
        "peak_bytes": form(f"max({', '.join(PEAK)})", "O(C*N + N**2)", pieces),
        "macs": form("C*H*W*(2*C + H*W)", "O(C**2*N + C*N**2)"),
        "params": form("C*(4*C + 9)//2", "O(C**2)"),
    }
    macs = "B*H*W*(4*C*(C//reduction) + 2*H*W*(C//reduction))"
    general = {"macs": form(macs, "O(N**2)", domain="C >= reduction and reduction >= 1 and H >= 2 and W >= 2 and B >= 1")}
    return {"forms": forms, "general": general, "missing": {"flops": "left out of this file by hand"}}


def constant_program(case: Case) -> dict[str, Any]:
    """The trace of a case as a program that holds at its shape only."""
    traced = follow_case(case)
    counts, lifetimes, shape = traced.counts, traced.lifetimes, case.shape
    values: dict[int, int] = {}

    def at(number: int) -> int:
        return values.setdefault(number, len(values))

    domain = f"B == {shape.batch} and C == {shape.channels} and H == {shape.height} and W == {shape.width}"
    program = {
        "domain": domain,
        "params": at(counts.params),
        "resident_bytes": at(counts.resident_bytes),
        "activation_bytes": at(counts.activation_bytes),
        "blocks": [
            [at(size), maker.op, maker.module, maker.phase, [at(extent) for extent in maker.shape]]
            for size, maker in zip(lifetimes.sizes[1:], lifetimes.makers[1:], strict=True)
        ],
        "events": list(lifetimes.events),
        "temporaries": [[before, at(size)] for before, size in lifetimes.temporaries],
        "ops": [
            [row.op, row.module, row.phase, row.calls, at(row.macs), at(row.flops), at(row.bytes_moved)] for row in counts.ops
        ],
        "uncounted": dict(counts.uncounted),
        "assumed": dict(counts.assumed),
    }
    return {**program, "values": [str(number) for number in values]}


def write(
    root: Path, name: str, shape: Shape, forms: Mapping[str, Any] | None = None, made: Mapping[str, str] | None = None
) -> Path:
    """A kept file of a mechanism that answers at one shape; `made` overrides what it says it was made from."""
    nothing: dict[str, Any] = {"forms": {}, "general": {}, "missing": {}}
    modes = {
        mode: {**(forms or nothing), "programs": [constant_program(Case(name, name, {}, shape, mode=mode))]} for mode in MODES
    }
    data: dict[str, Any] = {
        "schema": 1,
        "mechanism": name,
        "args": {},
        "made": {**kept.made_from(name), **(made or {})},
        "modes": modes,
    }
    data["content"] = kept.content_hash(data)
    path = root / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
