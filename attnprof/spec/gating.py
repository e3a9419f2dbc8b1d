"""Checks of `claims:` and `tol:` on the plain value: every claim is parsed, and a mistake is told at its character."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnprof.errors import UsageError
from attnprof.spec.finding import Finding
from attnprof.spec.promise_text import parse
from attnprof.spec.promises import Promise, PromiseError, check_labels
from attnprof.spec.quantities import TIMED, Tolerance, gated_metric, parse_tolerance
from attnprof.spec.yaml_loader import Document, Path


def check_gating(value: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with the claims and the tolerances; what is no text, or no number, is left to the model."""
    seen: set[str] = set()
    for path, text in _texts(value):
        try:
            parse(text)
        except PromiseError as error:
            yield Finding(path, error.what, error.hint, offset=error.offset)
        if text in seen:
            yield Finding(path, "this claim stands twice")
        seen.add(text)
    given = value.get("tol")
    known: dict[str, str] = {}
    for name, amount in given.items() if isinstance(given, dict) else ():
        try:
            metric = gated_metric(name, TIMED)
        except UsageError as error:
            yield _finding(("tol", name), error, key=True)
            continue
        if metric in known:
            yield Finding(("tol", name), f"'{name}' is '{known[metric]}', which stands there already", key=True)
        known[metric] = name
        try:
            if isinstance(amount, (int, float, str)):
                parse_tolerance(metric, amount)
        except UsageError as error:
            yield _finding(("tol", name), error)


def check_claimed_labels(value: dict[str, Any], claims: Sequence[Promise], labels: Sequence[str]) -> Iterator[Finding]:
    """Labels in claims that no mechanism of the spec has."""
    for (path, _), promise in zip(_texts(value), claims, strict=True):
        for error in check_labels(promise, labels):
            yield Finding(path, error.what, error.hint, offset=error.offset)


def to_claims(document: Document, texts: Sequence[str]) -> tuple[Promise, ...]:
    """The claims of a spec whose form is right; one that does not parse is a finding already, and is left out."""
    found = []
    for index, text in enumerate(texts):
        line, column = document.values.get(("claims", index), document.values.get(("claims",), (0, 0)))
        try:
            found.append(parse(text, line, column))
        except PromiseError:
            continue
    return tuple(found)


def to_tolerances(given: Mapping[str, Any]) -> dict[str, Tolerance]:
    """{metric: Tolerance} of `tol:`; what is wrong in it is a finding already, and is left out."""
    found = {}
    for name, amount in given.items():
        with contextlib.suppress(UsageError):
            metric = gated_metric(name, TIMED)
            found[metric] = parse_tolerance(metric, amount)
    return found


def _texts(value: dict[str, Any]) -> list[tuple[Path, str]]:
    given = value.get("claims")
    if isinstance(given, str):
        return [(("claims",), given)]
    items = given if isinstance(given, list) else []
    return [(("claims", index), text) for index, text in enumerate(items) if isinstance(text, str)]


def _finding(path: Path, error: UsageError, key: bool = False) -> Finding:
    what, _, hint = str(error).partition(": ")
    return Finding(path, what, hint, key)
