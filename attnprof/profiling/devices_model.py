"""The form of `devices.yaml`: what its keys are, and every mistake in it at its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attnprof.errors import Problem
from attnprof.records import DTYPES
from attnprof.spec import yaml_loader
from attnprof.spec.finding import Finding, from_pydantic, place
from attnprof.spec.values import nearest

Path = tuple[str | int, ...]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
_MATMULS = (*DTYPES, "tf32")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Source(_Closed):
    title: Text
    url: Text
    place: Text


class _Rate(_Closed):
    tflops: Positive
    sparse: bool = False
    mhz: Positive | None = None
    source: Text


class _Bandwidth(_Closed):
    gb_per_s: Positive
    source: Text


class _Cache(_Closed):
    mib: Positive
    source: Text


class _Clock(_Closed):
    mhz: Positive
    source: Text


class _Device(_Closed):
    title: Text
    names: Annotated[list[Text], Field(min_length=1)]
    matmul: dict[str, _Rate]
    vector: dict[str, _Rate]
    memory: _Bandwidth
    cache: _Cache | None = None
    clock: _Clock | None = None


class _File(_Closed):
    sources: dict[str, _Source]
    devices: dict[str, _Device]


def check(text: str, filename: str) -> tuple[dict[str, Any], list[Problem]]:
    """(the plain value with its defaults, problems in the order of the file); the value is empty where there are problems."""
    document = yaml_loader.load(text, filename)
    if document.value is None and document.problems:
        return {}, document.problems
    found: dict[str, Any] = {}
    try:
        found = _File.model_validate(document.value).model_dump(exclude_none=True)
    except ValidationError as error:
        findings = [from_pydantic(item, _hint) for item in error.errors(include_url=False)]
    else:
        findings = list(_cross_checked(found))
    problems = [*document.problems, *(place(document, {}, finding) for finding in dict.fromkeys(findings))]
    problems.sort(key=lambda problem: (problem.line, problem.column))
    return ({} if problems else found), problems


def _hint(path: Path) -> str:
    """The keys that may stand where an unknown one does."""
    model: type[BaseModel] = _File
    if path[0] == "sources" and len(path) > 1:
        model = _Source
    elif path[0] == "devices" and len(path) > 1:
        parts: Mapping[str, type[BaseModel]] = {"matmul": _Rate, "vector": _Rate, "memory": _Bandwidth}
        parts = {**parts, "cache": _Cache, "clock": _Clock}
        model = parts.get(str(path[2]), _Device) if len(path) > 3 else _Device
    keys = tuple(model.model_fields)
    return nearest(path[-1], keys) or f"keys here: {', '.join(keys)}"


def _cross_checked(found: Mapping[str, Any]) -> Iterator[Finding]:
    """Addresses of pages, dtypes that exist, sources that are listed, names that one device alone has."""
    for key, source in found["sources"].items():
        if not source["url"].startswith(("https://", "http://")):
            yield Finding(("sources", key, "url"), f"'{source['url']}' is no address of a page (https://...)")
    owners: dict[str, str] = {}
    for key, device in found["devices"].items():
        figures: list[tuple[Path, Mapping[str, Any]]] = []
        for kind, dtypes in (("matmul", _MATMULS), ("vector", DTYPES)):
            for dtype, figure in device[kind].items():
                path: Path = ("devices", key, kind, dtype)
                figures.append((path, figure))
                if dtype not in dtypes:
                    hint = nearest(dtype, dtypes) or f"one of {', '.join(dtypes)}"
                    yield Finding(path, f"'{dtype}' is no dtype", hint, key=True)
        highest = device["clock"]["mhz"] if "clock" in device else None
        for path, figure in figures:
            if "mhz" in figure and (highest is None or figure["mhz"] > highest):
                yield Finding((*path, "mhz"), f"{figure['mhz']} MHz needs a `clock` of the device that is as high")
        figures += [(("devices", key, part), device[part]) for part in ("memory", "cache", "clock") if part in device]
        for path, figure in figures:
            if figure["source"] not in found["sources"]:
                hint = nearest(figure["source"], found["sources"]) or "list it under `sources:`"
                yield Finding((*path, "source"), f"no source is called '{figure['source']}'", hint)
        for index, name in enumerate(device["names"]):
            if owners.setdefault(name.lower(), key) != key:
                yield Finding(("devices", key, "names", index), f"'{name}' is a name of {owners[name.lower()]} too")
