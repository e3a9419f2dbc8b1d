"""A Document -> a Spec, or every problem in it at once, each at its place in the file or with its `--set`.

Three readers look at the same plain value: the pydantic model (forms), the catalogue (names and arguments) and the file as a
whole (labels, baseline, repeated values, size of the sweep). The last two skip what the model has already refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from pydantic import BaseModel, ValidationError

from attnprof.errors import Problem, UsageError
from attnprof.spec import Input, Measure, Spec, size_problem
from attnprof.spec.entries import arguments_of, baseline_label, check_item, check_labels, to_entry
from attnprof.spec.finding import Finding, from_pydantic, place
from attnprof.spec.gating import check_claimed_labels, check_gating, to_claims, to_tolerances
from attnprof.spec.hosting import baseline_of, check_hosts, to_network
from attnprof.spec.imports import check_imports, located
from attnprof.spec.model import HostModel, InputModel, ItemModel, MeasureModel, SpecModel, keys_of
from attnprof.spec.networks import channels_of
from attnprof.spec.places import labels
from attnprof.spec.scalars import format_scalar
from attnprof.spec.values import nearest, parse_hw
from attnprof.spec.yaml_loader import Document, Path

_SIZES = ("batch", "channels", "hw", "frames")
_LISTED = ("input", "host")  # a mapping, or a list of them
_AXES: tuple[Path, ...] = (
    *(("input", key) for key in _SIZES),
    *((key,) for key in ("dtype", "modes", "metrics", "counters", "sdpa", "memory_format", "compile", "autocast", "threads")),
)


def check(document: Document, overridden: dict[Path, str], files: bool) -> tuple[Spec | None, list[Problem]]:
    """The Spec of a document, or its problems in the order of the file; `overridden`: paths that a `--set` wrote.

    files: whether imported files are looked into.
    """
    value = document.value
    model, findings = _modelled(value)
    if isinstance(value, dict):
        items = value.get("mechanisms")
        items = items if isinstance(items, list) else []
        for index, item in enumerate(items):
            findings += check_item(("mechanisms", index), item)
        findings += _repeated(value, items)
        findings += check_labels(document, value, items)
        findings += check_hosts(value) if value.get("host") is not None else _without_channels(value)
        findings += check_gating(value)
        findings += check_imports(value, document.file) if files else ()
    spec = None
    if model is not None and not findings:
        spec = _spec(document, model)
        sentence = size_problem(spec)
        findings += [Finding((), sentence)] if sentence else []
        if spec.hosts and not sentence:
            baseline = baseline_of(model.baseline, spec.entries, spec.hosts)
            findings += [baseline] if isinstance(baseline, Finding) else []
            spec = dataclasses.replace(spec, baseline=str(baseline))
        if not sentence:
            findings += check_claimed_labels(value, spec.claims, list(labels(spec)))
    placed = [place(document, overridden, finding) for finding in dict.fromkeys(findings)]
    problems = sorted([*document.problems, *placed], key=lambda problem: (problem.line, problem.column))
    return (None if problems else spec), problems


def _modelled(value: Any) -> tuple[SpecModel | None, list[Finding]]:
    try:
        return SpecModel.model_validate(value), []
    except ValidationError as error:
        listed = {key for key in _LISTED if isinstance(value, dict) and isinstance(value.get(key), list)}
        hint = partial(_key_hint, value)
        return None, [from_pydantic(_as_written(dict(item), listed), hint) for item in error.errors(include_url=False)]


def _as_written(error: dict[str, Any], listed: set[str]) -> dict[str, Any]:
    """An error of a single `input:` or `host:`, which the model reads as a list of one, at its path in the file."""
    where = tuple(error["loc"])
    if len(where) > 1 and where[0] in _LISTED and where[1] == 0 and where[0] not in listed:
        error["loc"] = where[:1] + where[2:]
    return error


def _without_channels(value: dict[str, Any]) -> Iterator[Finding]:
    """Only a host says how many channels its input has."""
    given = value.get("input")
    for index, item in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(item, dict) and "channels" not in item:
            yield Finding(("input", index) if isinstance(given, list) else ("input",), "the key 'channels' is missing")


def _repeated(value: dict[str, Any], items: list[Any]) -> Iterator[Finding]:
    """A value that stands twice on an axis: it would be the same case twice."""
    paths = list(_AXES)
    for index, item in enumerate(items):
        args = item.get("args") if isinstance(item, dict) else None
        paths += [("mechanisms", index, "args", key) for key in (args if isinstance(args, dict) else ())]
        paths += [("mechanisms", index, "input", key) for key in _SIZES]
    groups = value.get("input")
    paths += [("input", index, key) for index in range(len(groups) if isinstance(groups, list) else 0) for key in _SIZES]
    hosted = value.get("host")
    for index, item in enumerate(hosted if isinstance(hosted, list) else [hosted]):
        below: Path = ("host", index) if isinstance(hosted, list) else ("host",)
        args = item.get("args") if isinstance(item, dict) else None
        paths += [(*below, "at"), (*below, "how"), *((*below, "args", key) for key in (args if isinstance(args, dict) else ()))]
    for path in paths:
        seen: set[str] = set()
        for index, member in enumerate(_list_at(value, path)):
            text = _canonical(member, path)
            if text in seen:
                yield Finding((*path, index), f"{format_scalar(member)} stands twice on this axis")
            seen.add(text)


def _list_at(value: Any, path: Path) -> list[Any]:
    for part in path:
        if isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _canonical(member: Any, path: Path) -> str:
    if "input" in path and path[-1] == "hw":
        with contextlib.suppress(UsageError):
            return str(parse_hw(member))
    return json.dumps(member, sort_keys=True)


def _spec(document: Document, model: SpecModel) -> Spec:
    entries = []
    for index, item in enumerate(model.mechanisms):
        plain = {"name": item.name, "import": item.import_, "as": item.as_, "args": item.args}
        entry = to_entry(document, index, plain)
        assert entry is not None
        if entry.imported and (found := located(entry.mechanism, document.file)) != entry.mechanism:
            entry = dataclasses.replace(entry, mechanism=found, written=entry.mechanism)
        own = {} if item.input is None else item.input.model_dump(exclude_unset=True)
        entries.append(dataclasses.replace(entry, input={key: tuple(values) for key, values in own.items()}))
    hosted = tuple(to_network(document, index, each) for index, each in enumerate(model.host))
    channels = [channels_of(hosted)] if hosted else []
    baseline = None if model.baseline is None else baseline_label(model.baseline, tuple(entries))
    return Spec(
        name=model.name or _stem(document.file),
        inputs=tuple(Input(**{key: tuple(getattr(given, key) or channels) for key in _SIZES}) for given in model.input),
        dtype=tuple(model.dtype),
        modes=tuple(model.modes),
        entries=tuple(entries),
        baseline=baseline,
        metrics=tuple(model.metrics),
        counters=tuple(model.counters),
        measure=Measure(**model.measure.model_dump()),
        sdpa=tuple(model.sdpa),
        memory_format=tuple(model.memory_format),
        compile=tuple(model.compile),
        autocast=tuple(model.autocast),
        threads=(None,) if model.threads is None else tuple(model.threads),
        source=document.file,
        bounds=model.bounds,
        hosts=hosted,
        claims=to_claims(document, model.claims),
        tolerances=to_tolerances(model.tol),
    )


def _stem(file: str) -> str:
    stem = re.sub(r"[^\w.-]", "_", file.replace("\\", "/").rsplit("/", 1)[-1]).removesuffix(".yaml").removesuffix(".yml")
    return stem.strip(".-")[:100] or "spec"


def _key_hint(value: Any, path: Path) -> str:
    """What may have been meant by an unknown key: a near one, one that belongs elsewhere, or the list of all."""
    models: dict[str, type[BaseModel]] = {
        "input": InputModel,
        "measure": MeasureModel,
        "mechanisms": ItemModel,
        "host": HostModel,
    }
    section = "input" if len(path) > 1 and path[-2] == "input" else str(path[0])
    here = keys_of(models[section] if len(path) > 1 else SpecModel)
    key = str(path[-1])
    for other, model in models.items():
        if len(path) == 1 and other != "mechanisms" and key in keys_of(model) and key not in keys_of(ItemModel):
            return f"write it under `{other}:`"
    if section == "host" and len(path) > 1 and key in ("input", *_SIZES):
        return "the network's input stands under `input:`, at the top"
    if section == "mechanisms" and len(path) > 1:
        name = value["mechanisms"][path[1]].get("name")
        arguments = tuple(argument.name for argument in arguments_of(name)) if isinstance(name, str) else ()
        if key in arguments:
            return f"write it under `args:`, {{{key}: ...}}"
        if hint := nearest(key, arguments):
            return f"{hint} Arguments stand under `args:`"
    return nearest(key, here) or f"keys here: {', '.join(here)}"
