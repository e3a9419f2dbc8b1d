"""Closed forms: what a mechanism costs as exact expressions in C, H, W (and B, T, arguments), found from traces and verified.

The nouns are here and need no torch. `find` finds forms of any module (it traces); `kept` reads the forms that are kept beside
the catalogue, each with the hash of what it was made from, and answers cases from them without torch.

An expression is one line of Python in the variables C, H, W, B, T and argument names: integers, + - * ** //, max, min, gcd.
Divisions are exact inside the domain. A domain is a Python condition in the same variables ("C % 8 == 0 and C >= 8").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Piece:
    """One branch of a max: its expression, where it is the largest (a condition), what it is made of (largest first)."""

    expr: str
    domain: str
    made_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """The closed form of one metric. `order` is its growth in N = H*W ("O(N**2)", with C: "O(C*N**2)")."""

    metric: str  # params, macs, flops, peak_bytes, ... : the field names of Counts
    expr: str
    order: str
    domain: str
    pieces: tuple[Piece, ...] = ()
    draws: int = 0  # seeded draws inside the domain on which a trace agreed; one that contradicts, and there is no form
    drawn: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # {variable: (smallest, largest)} of those draws


@dataclass(frozen=True)
class Forms:
    """All forms of one mechanism with given arguments in one mode.

    forms: in C, H, W (and T) at batch 1. general: params, macs and flops with B and integer arguments as variables, floors
    written out, on the widest domain found. missing: {metric: why there is no form}. arguments: every integer argument with
    its value here; held: those of them that the totals depend on and that are no variables of the general forms.
    """

    mechanism: str
    args: Mapping[str, object]
    mode: str
    forms: Mapping[str, Form] = field(default_factory=dict)
    general: Mapping[str, Form] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
