"""Checks of `host:` that need the hosts' files or other parts of the spec, on the plain value; and how it becomes Networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from attnprof import hosts
from attnprof.errors import UsageError
from attnprof.records import ALONE, Placement
from attnprof.spec import Entry, variants
from attnprof.spec.entries import IMPORT_PATH, fits
from attnprof.spec.finding import Finding
from attnprof.spec.imports import located
from attnprof.spec.model import HostModel, shown
from attnprof.spec.networks import Network, label_at, placements
from attnprof.spec.values import nearest
from attnprof.spec.yaml_loader import Document, Path

_LOOKED_AT = 1000  # places of one entry: of a longer list its size is what there is to say
_FILLED_IN = ("channels", "hw")  # build arguments that the input decides


def check_hosts(value: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with `host:`, and with what else the spec says beside a host."""
    given = value.get("host")
    items = given if isinstance(given, list) else [given]
    seen: list[Any] = []
    for index, item in enumerate(items):
        path: Path = ("host", index) if isinstance(given, list) else ("host",)
        if isinstance(item, (str, dict)):
            yield from _check_one(path, {"name": item} if isinstance(item, str) else item)
        if item in seen:
            yield Finding(path, "this host stands twice")
        seen.append(item)
    mechanisms = value.get("mechanisms")
    for index, item in enumerate(mechanisms if isinstance(mechanisms, list) else ()):
        if isinstance(item, dict) and item.get("input") is not None:
            hint = "leave it out: the sizes of its input follow from the place"
            yield Finding(("mechanisms", index, "input"), "a mechanism in a host has no input of its own", hint, key=True)
    inputs = value.get("input")
    for index, given in enumerate(inputs if isinstance(inputs, list) else [inputs]):
        if isinstance(given, dict) and given.get("frames") not in (None, 1, [1]):
            path = ("input", index, "frames") if isinstance(inputs, list) else ("input", "frames")
            yield Finding(path, "a host takes single images", "leave `frames:` out")


def _check_one(path: Path, item: dict[str, Any]) -> Iterator[Finding]:
    name, imported, args = item.get("name"), item.get("import"), item.get("args")
    if (name is None) == (imported is None):
        yield Finding(path, "give either `name:` (of a host) or `import:` (a network of your own)")
        return
    if isinstance(imported, str):
        if not IMPORT_PATH.fullmatch(imported):
            yield Finding((*path, "import"), f"{shown(imported)} is no import path", "package.module:Net or ./file.py:Net")
        if item.get("at") is None:
            yield Finding(path, "where in it? The key 'at' is missing", f"`attnprof sites {imported}` lists the submodules")
    if not isinstance(name, str):
        return
    if ":" in name:
        yield Finding((*path, "name"), f"{shown(name)} is no host", "for a network of your own write {import: ...}")
        return
    try:
        entry = hosts.describe(name)
    except UsageError as error:
        yield _finding((*path, "name"), error)
        return
    known = {each.name: each.annotation for each in entry.arguments}
    for key, values in args.items() if isinstance(args, dict) else ():
        try:
            hosts.check_arguments(name, {key: None})
        except UsageError as error:
            yield dataclasses.replace(_finding((*path, "args", key), error), key=True)
            continue
        for index, each in enumerate(values if isinstance(values, list) else [values]):
            if not fits(known[key], each):
                where = (*path, "args", key, index) if isinstance(values, list) else (*path, "args", key)
                yield Finding(where, f"'{key}' of {name} is {known[key]}, not {shown(each)}")
    yield from _places(path, name, item)
    for each in entry.arguments:
        if each.default is None and each.name not in (args or {}) and each.name not in _FILLED_IN:
            yield Finding(path, f"{name} needs the argument '{each.name}'", f"args: {{{each.name}: ...}}")


def _places(path: Path, name: str, item: dict[str, Any]) -> Iterator[Finding]:
    """What in `at:` names nothing of a host."""
    places, args = item.get("at"), item.get("args")
    if isinstance(places, list) and len(places) > _LOOKED_AT:
        return
    for index, place in enumerate(places if isinstance(places, list) else [places]):
        if not isinstance(place, str):
            continue
        try:
            hosts.check_place(Placement(name, args if isinstance(args, dict) else {}, place))
        except UsageError as error:
            yield _finding((*path, "at", index) if isinstance(places, list) else (*path, "at"), error)


def baseline_of(text: str | None, entries: tuple[Entry, ...], given: tuple[Network, ...]) -> str | Finding:
    """The label that `baseline:` names in networks: one of a placed mechanism, or ALONE, which is the default."""
    places = placements(given)
    if text is None or text == ALONE or text in [alone.text for alone, _ in places]:
        return ALONE
    suffixes = [suffix for _, each in places for _, suffix in each]
    known = list(dict.fromkeys(label_at(label, s) for entry in entries for label, _ in variants(entry) for s in suffixes))
    if text in known:
        return text
    hint = nearest(text, [*known, ALONE]) or f"{ALONE} (the network alone), or one of {', '.join(known[:12])}"
    return Finding(("baseline",), f"the baseline {shown(text)} is no label of this spec", hint)


def _finding(path: Path, error: UsageError) -> Finding:
    what, _, hint = str(error).partition(": ")
    return Finding(path, what, hint)


def to_network(document: Document, index: int, model: HostModel) -> Network:
    """The Network of a checked item; where nothing says where, the site that the papers use."""
    text = model.import_ or hosts.resolve(str(model.name))
    found = located(text, document.file) if model.import_ else text
    place = document.values.get(("host", index), document.values.get(("host",), (0, 0)))
    at = tuple(model.at) or (hosts.describe(text).site,)
    args = {key: tuple(values) for key, values in model.args.items()}
    return Network(found, args, at, tuple(model.how), place[0], text if found != text else "")
