"""Checks of `mechanisms:` and `baseline:` that need the catalogue or several entries at once, on the plain value.

They look at values whose form may be wrong still, so that every mistake of a file is reported together: what has the wrong
form is left to the model.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from attnprof import mechanisms
from attnprof.errors import UsageError
from attnprof.spec import Entry, Input, Spec, as_size, label_of, size_problem, variants
from attnprof.spec.finding import Finding
from attnprof.spec.model import shown
from attnprof.spec.values import nearest
from attnprof.spec.yaml_loader import Document, Path

_GIVEN = ("hw", "frames")  # build arguments that the case fills in
_LISTS = ("tuple[", "list[", "Sequence[")
_SCALARS = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,), "None": (type(None),)}
IMPORT_PATH = re.compile(r"(?:[^\W\d]\w*(?:\.[^\W\d]\w*)*|[^:\x00-\x1f\x7f]+\.py):[^\W\d]\w*")


@cache
def arguments_of(name: str) -> tuple[mechanisms.Argument, ...]:
    """The build arguments of a catalogue name; none for a name that is not there."""
    try:
        return mechanisms.describe(name).arguments
    except UsageError:
        return ()


def check_item(path: Path, item: Any) -> Iterator[Finding]:
    """What is wrong with one entry of `mechanisms:` as far as the catalogue knows."""
    if isinstance(item, str):
        yield from _name(path, item)
        return
    if not isinstance(item, dict):
        return
    name, imported = item.get("name"), item.get("import")
    if (name is None) == (imported is None):
        yield Finding(path, "give either `name:` (of the catalogue) or `import:` (a class of your own)")
        return
    args = item.get("args", {})
    if isinstance(name, str):
        found = list(_name((*path, "name"), name))
        yield from found
        if not found and isinstance(args, dict):
            yield from _args((*path, "args"), name, args)
    elif isinstance(imported, str):
        if not IMPORT_PATH.fullmatch(imported):
            yield Finding((*path, "import"), f"{shown(imported)} is no import path", "package.module:Class or ./file.py:Class")
        for key in args if isinstance(args, dict) else ():
            if not key.isidentifier():
                yield Finding((*path, "args", key), f"'{key}' cannot be the name of an argument", key=True)


def _name(path: Path, name: str) -> Iterator[Finding]:
    if ":" in name:
        yield Finding(path, f"{shown(name)} is no name of the catalogue", "for a class of your own write {import: ...}")
    elif not re.fullmatch(r"[\w./-]+", name):
        yield Finding(path, f"{shown(name)} is no name of the catalogue")
    else:
        try:
            mechanisms.resolve(name)
        except UsageError as error:
            what, _, hint = str(error).partition(": ")
            yield Finding(path, what, hint)


def _args(path: Path, name: str, args: dict[str, Any]) -> Iterator[Finding]:
    """Arguments that the mechanism does not take or lacks, and values that are not of the annotated type."""
    known = {argument.name: argument for argument in arguments_of(name)}
    for key, values in args.items():
        if key not in known:
            hint = nearest(key, known) or (f"it takes {', '.join(known)}" if known else "it takes none")
            yield Finding((*path, key), f"{name} has no argument '{key}'", hint, key=True)
            continue
        annotation = known[key].annotation
        for index, value in enumerate(values if isinstance(values, list) else [values]):
            if not fits(annotation, as_size(key, value)):
                where = (*path, key, index) if isinstance(values, list) else (*path, key)
                hint = "the outer list is the axis: write a list in a list" if annotation.startswith(_LISTS) else ""
                hint = "write HxW, such as 7x7" if key == "hw" else hint
                yield Finding(where, f"'{key}' of {name} is {annotation}, not {shown(value)}", hint)
    for key, argument in known.items():
        if argument.default is None and key not in args and key not in _GIVEN:
            yield Finding(path[:-1], f"{name} needs the argument '{key}'", f"args: {{{key}: ...}}")


def fits(annotation: str, value: Any) -> bool:
    """Whether a value may be of the annotated type; True for annotations that are not known here, and for mappings."""
    for part in (part.strip() for part in annotation.split("|")):
        if part in _SCALARS:
            if type(value) in _SCALARS[part]:
                return True
        elif not part.startswith(_LISTS) or isinstance(value, list):
            return True
    return isinstance(value, dict)


def check_labels(document: Document, value: dict[str, Any], items: list[Any]) -> Iterator[Finding]:
    """Labels that stand twice, and a baseline that is none of them."""
    entries = [to_entry(document, index, item) for index, item in enumerate(items)]
    whole = Spec((Input((1,), ((1, 1),)),), tuple(entry for entry in entries if entry is not None))
    if size_problem(whole):
        return  # the model's own check of the size speaks
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        for label in [entry.label, *(label for label, _ in variants(entry))] if entry is not None else ():
            if label in first and first[label] != index:
                line = document.values.get(("mechanisms", first[label]), (0, 0))[0]
                where = f" (first at line {line})" if line else ""
                yield Finding(("mechanisms", index), f"the label '{label}' stands twice{where}", "give one of them `as: LABEL`")
                break
            first.setdefault(label, index)
    baseline = value.get("baseline")
    if value.get("host") is not None:
        return  # labels name places then
    if isinstance(baseline, str) and None not in entries and entries and baseline_label(baseline, whole.entries) is None:
        known = [label for entry in whole.entries for label, _ in variants(entry)]
        hint = nearest(baseline, known) or f"one of {', '.join(known[:12])}"
        yield Finding(("baseline",), f"the baseline {shown(baseline)} is no label of this spec", hint)


def baseline_label(text: str, entries: tuple[Entry, ...]) -> str | None:
    """The label that `baseline:` names: itself, or 'family/name' where one label stands for it."""
    by_label = {label: entry for entry in entries for label, _ in variants(entry)}
    if text in by_label:
        return text
    same = [label for label, entry in by_label.items() if entry.text == text]
    return same[0] if len(same) == 1 else None


def to_entry(document: Document, index: int, item: Any) -> Entry | None:
    """The Entry of an item, None where its form is wrong. A name that the catalogue lacks stays as it is."""
    item = {"name": item} if isinstance(item, str) else item
    if not isinstance(item, dict):
        return None
    name, imported, label, args = (item.get(key) for key in ("name", "import", "as", "args"))
    text = imported if name is None else name
    if (
        not isinstance(text, str)
        or not (label is None or isinstance(label, str))
        or not (args is None or isinstance(args, dict))
    ):
        return None
    axes = {
        key: tuple(as_size(key, value) for value in (values if isinstance(values, list) else [values]))
        for key, values in (args or {}).items()
    }
    line, column = document.values.get(("mechanisms", index), (0, 0))
    if imported is None:
        with contextlib.suppress(UsageError):
            text = mechanisms.resolve(text)
    return Entry(text, label or label_of(text), axes, imported=imported is not None, line=line, column=column)
