"""A claims file -> Paper, or every mistake in it at once, each at its place.

The pydantic model looks at forms; here stands what needs the catalogue, the conventions or two places of the file.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as File
from typing import Any

from pydantic import BaseModel, ValidationError

from attnprof.claims import Claim, Paper, Table
from attnprof.claims.conventions import AXES, RATIOS, UNITS
from attnprof.claims.expression import ExpressionError, compile_value
from attnprof.claims.model import CaseModel, ClaimModel, HostModel, PaperModel, TableModel
from attnprof.claims.reading import Tolerance, parse_published
from attnprof.errors import Problem, SpecError, UsageError
from attnprof.records import ALONE, Case, Placement, Shape
from attnprof.spec import MAX_BYTES, near_file
from attnprof.spec.entries import check_item
from attnprof.spec.finding import Finding, from_pydantic, place
from attnprof.spec.model import keys_of, shown
from attnprof.spec.values import nearest
from attnprof.spec.yaml_loader import Document, Path, load

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_SECTIONS: Mapping[str, type[BaseModel]] = {"cases": CaseModel, "tables": TableModel, "claims": ClaimModel}


def parse_files(files: Sequence[File]) -> tuple[Paper, ...]:
    """The papers of the files. Raises SpecError with the mistakes of all of them, UsageError for what is no file."""
    papers, problems = [], []
    first: dict[str, tuple[str, int]] = {}
    for file in files:
        document = load(_read(file), str(file), "a claims file needs `paper:`, `title:`, `source:`, `tables:` and `claims:`")
        paper, found = parse(document)
        problems += found
        if paper is None:
            continue
        papers.append(paper)
        for claim in paper.claims:
            if claim.name in first:
                where = "{}:{}".format(*first[claim.name])
                at = document.keys[("claims", claim.name)]
                problems.append(document.problem(at, f"the claim '{claim.name}' has a verdict already", f"at {where}"))
            first.setdefault(claim.name, (str(file), claim.line))
    if problems:
        raise SpecError(problems)
    return tuple(papers)


def _read(file: File) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{file}: there is no such file.{near_file(file)}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{file} is larger than {MAX_BYTES // 2**20} MiB: no claims file is that long.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text in UTF-8: byte {error.start} is 0x{data[error.start]:02x}.") from None


def parse(document: Document) -> tuple[Paper | None, list[Problem]]:
    """The Paper of a document, or its problems in the order of the file."""
    value = document.value
    model, findings = _modelled(value)
    if isinstance(value, dict):
        sections = {name: _mappings(value.get(name)) for name in _SECTIONS}
        findings += [finding for name, case in sections["cases"].items() for finding in _case(("cases", name), case)]
        findings += [finding for name, table in sections["tables"].items() for finding in _table(("tables", name), table)]
        for name, claim in sections["claims"].items():
            findings += _claim(("claims", name), claim, sections, value)
        findings += _twice(sections["claims"])
    placed = [place(document, {}, finding) for finding in dict.fromkeys(findings)]
    problems = sorted([*document.problems, *placed], key=lambda problem: (problem.line, problem.column))
    return (None if problems or model is None else _paper(document, model)), problems


def _modelled(value: Any) -> tuple[PaperModel | None, list[Finding]]:
    try:
        return PaperModel.model_validate(value), []
    except ValidationError as error:
        return None, [from_pydantic(item, _key_hint) for item in error.errors(include_url=False)]


def _key_hint(path: Path) -> str:
    """What may have been meant by an unknown key."""
    model: type[BaseModel] = PaperModel if len(path) == 1 else _SECTIONS.get(str(path[0]), PaperModel)
    if "host" in path[:-1]:
        model = HostModel
    here = keys_of(model)
    return nearest(path[-1], here) or f"keys here: {', '.join(here)}"


def _mappings(section: Any) -> dict[str, dict[str, Any]]:
    return {name: item for name, item in section.items() if isinstance(item, dict)} if isinstance(section, dict) else {}


def _case(path: Path, case: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with one case as far as names, the catalogue and the networks know."""
    if not _NAME.fullmatch(str(path[-1])) or keyword.iskeyword(str(path[-1])):
        hint = "letters, digits and _, not first a digit, no word of Python's"
        yield Finding(path, f"{shown(path[-1])} cannot stand in a value", hint, key=True)
    mechanism, host, args = case.get("mechanism"), case.get("host"), case.get("args", {})
    if mechanism is None and host is None:
        yield Finding(path, "give `mechanism:`, or a network alone as `host:`")
    if isinstance(mechanism, str) and isinstance(args, dict):
        item = {"name": mechanism, "args": {key: [value] for key, value in args.items()}}
        for finding in check_item(path, item):
            at = tuple("mechanism" if part == "name" else part for part in finding.path)
            yield Finding(at[: len(path) + 2], finding.what, finding.hint, finding.key)
    elif args and mechanism is None:
        yield Finding((*path, "args"), "arguments of what? give `mechanism:`, or write them under `host:`", key=True)
    if isinstance(host, dict) and isinstance(host.get("name"), str):
        yield from _host((*path, "host"), host)


def _host(path: Path, host: dict[str, Any]) -> Iterator[Finding]:
    from attnprof import hosts

    known = hosts.names()
    if host["name"] not in known:
        hint = nearest(host["name"], known) or f"there are {', '.join(known)}"
        yield Finding((*path, "name"), f"no network is called {shown(host['name'])}", hint)
        return
    args = host.get("args", {})
    for key in args if isinstance(args, dict) else ():
        try:
            hosts.check_arguments(host["name"], {key: args[key]})
        except UsageError as error:
            yield Finding((*path, "args", key), str(error), key=True)
    if isinstance(at := host.get("at"), str) and at and isinstance(args, dict):
        try:
            hosts.check_place(Placement(host["name"], args, at))
        except UsageError as error:
            what, _, hint = str(error).partition(": ")
            yield Finding((*path, "at"), what, hint)


def _table(path: Path, table: dict[str, Any]) -> Iterator[Finding]:
    metric, unit = table.get("metric"), table.get("unit", "")
    if not isinstance(metric, str) or metric not in AXES:
        return
    if isinstance(unit, str) and unit:
        yield from _unit((*path, "unit"), metric, unit)
    axes = AXES[metric]
    convention, fixed = table.get("convention", {}), table.get("fixed", [])
    for axis, chosen in convention.items() if isinstance(convention, dict) else ():
        if axis not in axes:
            yield Finding((*path, "convention", axis), f"{metric} has no axis '{axis}'", _axes_hint(axis, axes), key=True)
        elif isinstance(chosen, str) and chosen not in axes[axis]:
            hint = nearest(chosen, axes[axis]) or f"one of {', '.join(axes[axis])}"
            yield Finding((*path, "convention", axis), f"{shown(chosen)} is no convention of {axis}", hint)
    for index, axis in enumerate(fixed if isinstance(fixed, list) else ()):
        if isinstance(axis, str) and axis not in axes:
            yield Finding((*path, "fixed", index), f"{metric} has no axis '{axis}'", _axes_hint(axis, axes))


def _known(word: str, words: Iterable[str]) -> str:
    every = list(words)
    return nearest(word, every) or (f"there are {', '.join(every[:12])}" if every else "there are none")


def _axes_hint(axis: str, axes: Mapping[str, Any]) -> str:
    return nearest(axis, axes) or (f"it has {', '.join(axes)}" if axes else "it has none")


def _unit(path: Path, metric: str, unit: str) -> Iterator[Finding]:
    known = (*UNITS[metric], *(RATIOS if metric != "order" else ()))
    if unit not in known:
        same = next((word for word in known if word.lower() == unit.lower()), "")
        hint = f"did you mean '{same}'?" if same else f"one of {', '.join(word or '(none)' for word in known)}"
        yield Finding(path, f"{shown(unit)} is no unit of {metric}", hint)


def _claim(
    path: Path, claim: dict[str, Any], sections: Mapping[str, dict[str, dict[str, Any]]], whole: dict[str, Any]
) -> Iterator[Finding]:
    """What is wrong with one claim, looking at the table and the cases that it names."""
    if not _ID.fullmatch(str(path[-1])):
        yield Finding(path, f"{shown(path[-1])} is no id of a claim", "such as ccnet.r2.gflops", key=True)
    named = claim.get("table")
    table = sections["tables"].get(named) if isinstance(named, str) else None
    if isinstance(named, str) and table is None:
        yield Finding((*path, "table"), f"there is no table {shown(named)}", _known(named, sections["tables"]))
    metric = table.get("metric") if table else None
    if isinstance(metric, str) and metric in AXES and table is not None:
        unit = claim.get("unit", "" if table.get("unit") else None)
        if isinstance(unit, str) and (unit or "unit" in claim):
            yield from _unit((*path, "unit"), metric, unit)
        elif unit is None and "" not in UNITS[metric]:
            yield Finding(path, "there is no unit: give `unit:` here or in the table")
    again = claim.get("again", "")
    if isinstance(again, str) and again and (again == path[-1] or again not in sections["claims"]):
        yield Finding((*path, "again"), f"there is no other claim {shown(again)} here", nearest(again, sections["claims"]))
    if ("tolerance" in claim) != ("because" in claim):
        yield Finding(path, "a tolerance of its own wants a reason: give `tolerance:` and `because:` together")
    yield from _value((*path, "value"), claim, sections["cases"], table)
    grade = claim.get("grade") or (table or {}).get("grade") or whole.get("grade") or "P"
    yield from _verdict((*path, "verdict"), claim, str(grade))


def _twice(claims: Mapping[str, dict[str, Any]]) -> Iterator[Finding]:
    """The same printed number of the same row under two ids: it would count twice."""
    first: dict[str, str] = {}
    for name, claim in claims.items():
        if not claim.get("quote") or claim.get("again"):
            continue
        row = repr([claim.get(key) for key in ("table", "quote", "published", "unit")])
        if row in first:
            what = f"the number of '{first[row]}' once more: one row has one verdict"
            yield Finding(("claims", name), what, f"give `again: {first[row]}` for another configuration", key=True)
        first.setdefault(row, name)


def _verdict(path: Path, claim: dict[str, Any], grade: str) -> Iterator[Finding]:
    if claim.get("verdict") in (None, "unverifiable"):
        return
    if grade.startswith("M"):
        yield Finding(path, f"a number that was only remembered ({grade}) is unverifiable")
    elif "value" not in claim:
        yield Finding(path, "without `value:` nothing is counted: the verdict is unverifiable")


def _value(path: Path, claim: dict[str, Any], cases: dict[str, dict[str, Any]], table: Any) -> Iterator[Finding]:
    text = claim.get("value")
    if not isinstance(text, str):
        return
    try:
        value = compile_value(text)
    except ExpressionError as error:
        yield Finding(path, str(error))
        return
    if table and table.get("metric") == "order" and value.names != (text,):
        yield Finding(path, "growth is that of one case: write its name alone")
    for name in value.names:
        if name not in cases:
            yield Finding(path, f"there is no case {shown(name)}", _known(name, cases))
        elif cases[name].get("attention") == "fused" and _open_kernels(table or {}):
            hint = "its table wants `fixed: [by]`, and `by: tensors` in `convention:`"
            yield Finding(path, f"the case '{name}' is counted as tensors only", hint)


def _open_kernels(table: dict[str, Any]) -> bool:
    """Whether a table may count what kernels take for themselves, which is not known of attention that was fused by us."""
    if table.get("metric") != "memory":
        return False
    convention, fixed = table.get("convention"), table.get("fixed")
    by = convention.get("by", "tensors") if isinstance(convention, dict) else "tensors"
    return not (isinstance(fixed, list) and "by" in fixed and by == "tensors")


def _paper(document: Document, model: PaperModel) -> Paper:
    tables = {
        name: Table(name, each.metric, each.unit, each.what, dict(each.convention), tuple(each.fixed), each.of, each.mode)
        for name, each in model.tables.items()
    }
    claims = []
    for name, each in model.claims.items():
        table, whole = tables[each.table], model.tables[each.table]
        published = parse_published(each.published)
        assert published is not None
        claims.append(
            Claim(
                name=name,
                table=table,
                published=published,
                unit=table.unit if each.unit is None else each.unit,
                value=None if each.value is None else compile_value(each.value),
                verdict=each.verdict,
                why=each.why,
                grade=each.grade or whole.grade or model.grade,
                source=each.source or whole.source or model.source,
                quote=each.quote,
                tolerance=None if each.tolerance is None else Tolerance(each.tolerance / 100),
                finding=each.finding,
                again=each.again,
                line=document.keys[("claims", name)][0],
            )
        )
    return Paper(
        name=model.paper,
        title=model.title,
        venue=model.venue,
        setup=model.setup,
        file=document.file,
        cases={name: _to_case(name, case) for name, case in model.cases.items()},
        fused=frozenset(name for name, case in model.cases.items() if case.attention == "fused"),
        tables=tables,
        claims=tuple(claims),
    )


def _to_case(name: str, model: CaseModel) -> Case:
    from attnprof import mechanisms

    sizes = [int(size) for size in model.input.split("x")]
    batch, channels, height, width = (sizes[0], *sizes[-3:])
    host = model.host
    return Case(
        mechanism=ALONE if model.mechanism is None else mechanisms.resolve(model.mechanism),
        label=name,
        args=dict(model.args),
        shape=Shape(batch, channels, height, width, sizes[1] if len(sizes) == 5 else 1),
        dtype=model.dtype,
        host=None if host is None else Placement(host.name, dict(host.args), host.at, host.how),
        settings={"sdpa": model.sdpa},
    )
