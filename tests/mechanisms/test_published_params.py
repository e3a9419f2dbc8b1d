"""Parameter counts with default arguments against closed forms that were compared with running public implementations.

The forms stand here apart from the mechanisms' own formulas: c channels, as in the papers and their official code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attnprof import mechanisms
from attnprof.records import Shape

HW, FRAMES = (16, 8), 8
N = HW[0] * HW[1]
Form = Callable[[int], float]


def rga_branch(c: int, n: int) -> float:
    """Relation-aware gate over n items of c features each."""
    wide = 1 + n // 8
    return 3 * (c**2 / 8 + c / 4) + n**2 / 4 + n / 4 + wide * (wide // 8) + 3 * (wide // 8) + 2


def psanet(c: int, m: int) -> float:
    """Two branches of reduction, adaptation and a map over the (2h - 1)(2w - 1) offsets of the shrunk h x w map, then back."""
    h, w = ((side - 1) // 2 + 1 for side in HW)
    offsets = (2 * h - 1) * (2 * w - 1)
    return 2 * (c * m + 2 * m) + 2 * (m**2 + 2 * m + m * offsets) + 2 * m * c + 2 * c


def san(c: int, k: int, patchwise: bool) -> float:
    """Self-attention network block with relation width c/16, output width c/4 and 8 channels to a weight."""
    r, o = c // 16, c // 4
    if not patchwise:
        return 2 * (c + 1) * r + (c + 1) * o + 6 + 2 * (r + 2) + (r + 2) * r + 2 * r + (r + 1) * o / 8
    points = k**2
    return (
        2 * (c + 1) * r
        + (c + 1) * o
        + 2 * r * (points + 1)
        + r * (points + 1) * o / 8
        + 2 * o / 8
        + (o / 8 + 1) * points * o / 8
    )


def bam(c: int) -> float:
    """r = 16: the channel gate, then the spatial one."""
    h = c / 16
    return (2 * c * h + 3 * h + c) + (c * h + 3 * h + 2 * (9 * h**2 + 3 * h) + h + 1)


FORMS: dict[str, Form] = {
    "channel/se": lambda c: 2 * c**2 / 16,
    "channel/gsop": lambda c: c * 128 + 128 + 4 * 128 + 4 * 128**2 + 4 * 128 + 4 * 128 * c + c,
    "channel/srm": lambda c: 4 * c,
    "channel/gct": lambda c: 3 * c,
    "channel/eca": lambda c: {64: 3, 256: 5, 512: 5}[c],
    "channel/fcanet": lambda c: 2 * c**2 / 16,
    "channel/encnet": lambda c: 2 * c**2 + 32 * c + 3 * c + 3 * 32,
    "channel/cam": lambda c: 1,
    "spatial/mhsa": lambda c: 4 * c**2 + 4 * c,
    "spatial/nonlocal_gaussian": lambda c: c**2 + 3.5 * c,
    "spatial/nonlocal": lambda c: 2 * c**2 + 4.5 * c,
    "spatial/nonlocal_dot": lambda c: 2 * c**2 + 4.5 * c,
    "spatial/nonlocal_concat": lambda c: 2 * c**2 + 5.5 * c,
    "spatial/gcnet": lambda c: 2 * c**2 / 16 + 3 * c / 16 + 2 * c + 1,
    "spatial/pam": lambda c: 1.25 * c**2 + 1.25 * c + 1,
    "spatial/ocnet": lambda c: 3.5 * c**2 + 6 * c,
    "spatial/ccnet": lambda c: 1.25 * c**2 + 1.25 * c + 1,
    "spatial/axial": lambda c: 8 * c**2 + 2 * c,
    "spatial/emanet": lambda c: 2 * c**2 + 3 * c,
    "spatial/apnb": lambda c: 3.5 * c**2 + 6 * c,
    "spatial/a2net": lambda c: 4 * c * (c / 4) + 3 * (c / 4) + c,
    "spatial/glore": lambda c: 5 * c * (c / 4) + 4 * (c / 4) + 5 * (c / 4) ** 2 + 2 * c,
    "spatial/dnl": lambda c: 2 * c**2 + 4.5 * c + 1,
    "spatial/ham_nmf": lambda c: 2 * c * c + c + 2 * c,
    "spatial/eanet": lambda c: 2 * c**2 + 2 * c * 64 + 3 * c,
    "spatial/san_pairwise": lambda c: san(c, 7, patchwise=False),
    "spatial/san_patchwise": lambda c: san(c, 7, patchwise=True),
    "spatial/vit": lambda c: 12 * c**2 + 13 * c,
    "spatial/dcn": lambda c: 9 * c * c + 18 * (9 * c + 1),
    "spatial/ocrnet": lambda c: 4.5 * c**2 + 13.5 * c,
    "spatial/afnb": lambda c: (c / 2) * (c / 4) + c * (c / 8) + 7 * (c / 8) + c * (c / 8) + c + 2 * c**2 + 3 * c,
    "spatial/psanet": lambda c: psanet(c, min(c, 512)),
    "spatial/attention_gate": lambda c: c**2 + 3 * c + 4 * c * (c / 2) + 2 * c * (c / 2) + c / 2 + c / 2 + 1,
    "spatial/soft_attention": lambda c: c * c + c * c + 3 * c + 1,
    "spatial/hard_attention": lambda c: c * c + c * c + 3 * c + 1,
    "spatial/sasa": lambda c: 3 * c**2 + 7 * c,
    "context/ppm": lambda c: c**2 + 2 * c,
    "context/aspp": lambda c: 256 * 29 * c + 330752,
    "channel_spatial/cbam": lambda c: 2 * c**2 / 16 + c / 16 + c + 100,
    "channel_spatial/bam": bam,
    "channel_spatial/scse": lambda c: 2 * c**2 / 2 + c / 2 + 2 * c + 1,
    "channel_spatial/cgnl": lambda c: 1.5 * c**2 + c**2 / 16 + 2 * c,
    "channel_spatial/rga": lambda c: rga_branch(c, N) + rga_branch(N, c),
    "channel_spatial/triplet": lambda c: 300,
    "channel_spatial/strip_pooling": lambda c: 7 * c**2 + 5 * c,
    "channel_spatial/mixed_pooling": lambda c: 4 * c * (c / 4) + 51 * (c / 4) ** 2 + 18 * (c / 4) + 2 * c,
    "branch/sknet": lambda c: 2 * (9 * c**2 / 32 + 2 * c) + 3 * c * max(c / 16, 32) + 2 * max(c / 16, 32),
    "branch/condconv": lambda c: 8 * 9 * c * c + 8 * c,
    "temporal/tam": lambda c: 2 * FRAMES**2 + 4 * FRAMES + 2 * FRAMES * 3 + 4 * c**2 / 4 + c / 2,
    "temporal/fgfa": lambda c: 9 * c**2 + c,
}


def aanet(c: int) -> float:
    """Without relative positions: dk = 160 (at least 20 to each of 8 heads), dv = c/10 to the nearest multiple of the heads."""
    dk, dv = 160, {64: 8, 256: 24, 512: 48}[c]
    return 9 * c * (c - dv) + (c - dv) + c * (2 * dk + dv) + 2 * dk + dv + dv**2 + dv


# Forms of another layout than the default: the official SCConv class leaves the plain half of the block to its bottleneck.
VARIANTS: list[tuple[str, dict[str, Any], Form]] = [
    ("channel_spatial/scnet", {"half": True}, lambda c: 27 * (c / 2) ** 2 + 6 * (c / 2)),
    ("spatial/aanet", {"relative": False}, aanet),
    ("channel/se", {"bias": True}, lambda c: 2 * c**2 / 16 + c / 16 + c),
    ("branch/condconv", {"routing_bias": True}, lambda c: 8 * 9 * c * c + 8 * c + 8),
    ("spatial/attention_gate", {"form": "unet"}, lambda c: 2 * (c * (c / 2) + 3 * c / 2) + c / 2 + 3),
    ("spatial/a2net", {"cm": 12, "cn": 5}, lambda c: 2 * c * (12 + 5) + 12 + 2 * 5 + c),
    ("spatial/glore", {"nodes": 24}, lambda c: 5 * c * 24 + 3 * 24 + 5 * 24**2 + 24 + 2 * c),
]


def built(name: str, channels: int, args: dict[str, Any] | None = None) -> int:
    """Parameters of the module itself."""
    mechanism = mechanisms.load(name)
    module = mechanisms.build(mechanism, Shape(1, channels, *HW, FRAMES), args or {})
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [64, 256, 512])
@pytest.mark.parametrize("name", FORMS)
def test_defaults_have_the_published_count(name: str, channels: int) -> None:
    assert built(name, channels) == FORMS[name](channels)


@pytest.mark.parametrize("channels", [64, 256, 512])
@pytest.mark.parametrize(("name", "args", "form"), VARIANTS, ids=[name for name, _, _ in VARIANTS])
def test_another_layout_has_the_published_count(name: str, args: dict[str, Any], form: Form, channels: int) -> None:
    assert built(name, channels, args) == form(channels)


def test_the_glimpse_network_has_the_published_count() -> None:
    module = mechanisms.build(mechanisms.load("spatial/ram"), Shape(1, 1, 28, 28), {"patch": 8, "scales": 3})
    glimpse = ("what", "where", "merge_what", "merge_where")
    found = [p for name, p in module.named_parameters() if name.split(".")[0] in glimpse]
    assert sum(p.numel() for p in found) == 91136
