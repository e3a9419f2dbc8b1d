"""The closed forms that are kept beside the catalogue: read, checked against what they were made from, evaluated. No torch.

A file kept/<family>/<name>.json holds, for the default arguments, the forms of both modes and the *programs* of the trace:
everything that a trace leaves behind (cost rows, blocks, events) with an expression in B, C, H, W and T in place of every
integer. A program is good for every shape inside its domain, so `counts_of` rebuilds the whole Counts that a trace would give.

A file is true as long as the hashes of the mechanism's source and of the code that counts are those of now, and torch has the
release that it was made with. What is not true, or not covered, is None here and traced by the caller.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from attnprof import mechanisms
from attnprof.profiling import provenance
from attnprof.profiling.counting.lifetimes import Lifetimes, Maker
from attnprof.profiling.forms import Form, Forms, Piece
from attnprof.profiling.forms.expression import Expression, Values, compile_text, compile_texts
from attnprof.records import Case, Counts, OpCost, Shape

SCHEMA = 1
ROOT = Path(__file__).parent / "kept"
KEPT = {"forms": "kept"}  # in the environment of a record that was answered from here
_SETTINGS = {"sdpa": "auto", "target": "cuda", "autocast": "none", "memory_format": "contiguous"}  # what the programs are for
_UNTRACED = ("compile", "threads")  # settings that no trace looks at
_BY_SHAPE = ("hw", "frames")  # build arguments that the shape gives


@dataclass(frozen=True, eq=False)
class Program:
    """A trace with expressions for integers: `data` is as in the file; its texts are compiled when they are asked for."""

    data: Mapping[str, Any] = field(repr=False)

    @cached_property
    def domain(self) -> Expression:
        """Where the program is good."""
        return compile_text(self.data["domain"])

    @cached_property
    def values(self) -> list[Expression]:
        """The expressions that the rest of the data refers to by index."""
        return compile_texts(self.data["values"])


@dataclass(frozen=True)
class Kept:
    """The content of one file, `modes` by mode. `stale` says why it is not true any more; '' where it is."""

    mechanism: str
    args: Mapping[str, Any]
    modes: Mapping[str, Any] = field(repr=False)
    programs: Mapping[str, Sequence[Program]] = field(repr=False)
    stale: str = ""


def read(name: str) -> Kept | None:
    """What is kept of a catalogue name ('family/name'); None where nothing is. A damaged file is not true any more."""
    return _read(ROOT, name)


@cache
def _read(root: Path, name: str) -> Kept | None:
    path = root / f"{name}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        return Kept(name, {}, {}, {}, f"{path.name} is damaged ({error})")
    try:
        if data["schema"] != SCHEMA:
            return Kept(name, {}, {}, {}, f"its schema is {data['schema']}, not {SCHEMA}")
        if data["content"] != content_hash(data):
            return Kept(name, {}, {}, {}, f"{path.name} was edited since its forms were verified")
        programs = {mode: [Program(each) for each in held["programs"]] for mode, held in data["modes"].items()}
        return Kept(name, data["args"], data["modes"], programs, _stale(name, data["made"]))
    except (KeyError, TypeError, AttributeError) as error:  # JSON, but not what a kept file holds
        return Kept(name, {}, {}, {}, f"{path.name} is damaged ({type(error).__name__}: {error})")


def made_from(name: str) -> dict[str, str]:
    """What a file that is made now is made from: the hashes of the mechanism and of the code that counts, torch's release."""
    return {
        "source": provenance.source_hash(name),
        "counting": provenance.counting_hash(),
        "torch": provenance.torch_release(),
    }


def content_hash(data: Mapping[str, Any]) -> str:
    """Hash of what a kept file says, apart from what it was made from."""
    said = {key: value for key, value in data.items() if key not in ("made", "content")}
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()[:16]


def _stale(name: str, made: Mapping[str, str]) -> str:
    words = {"source": "the mechanism's file", "counting": "the code that counts", "torch": "torch's release"}
    changed = [words[key] for key, value in made_from(name).items() if made.get(key) != value]
    return f"{' and '.join(changed)} changed since the forms were verified" if changed else ""


def forms_of(name: str, mode: str) -> Forms | None:
    """The forms of a catalogue name with its default arguments; None where none are kept or they are not true any more."""
    kept = read(name)
    if kept is None or kept.stale or mode not in kept.modes:
        return None
    held = kept.modes[mode]
    groups = ({metric: form_from_json(metric, data) for metric, data in held[key].items()} for key in ("forms", "general"))
    forms, general = groups
    defaults = ((each.name, each.default or "") for each in mechanisms.describe(name).arguments)
    arguments = {key: int(text) for key, text in defaults if text.removeprefix("-").isdecimal()}
    varied = frozenset[str]().union(*(compile_text(form.expr).names for form in general.values()))
    stay = held.get("held", [key for key in arguments if key not in varied])  # files of before have no such entry
    said = {key: arguments[key] for key in stay if key in arguments}
    return Forms(name, dict(kept.args), mode, forms, general, dict(held["missing"]), arguments, said)


def forms_for(case: Case) -> Forms | None:
    """The kept forms of a case's mechanism with its arguments, in its mode, where they are the defaults; else None."""
    return forms_of(case.mechanism, case.mode) if _ordinary(case) and _defaults(case) else None


def why_not(case: Case) -> str:
    """Why nothing kept answers for a case's mechanism: ': ...', or '' where there is nothing to say."""
    if case.imported:
        return ""
    kept = read(case.mechanism)
    if kept is None:
        return ": no forms are kept for this mechanism"
    return f": {kept.stale}" if kept.stale else ": the kept ones are those of the default arguments"


def form_from_json(metric: str, data: Mapping[str, Any]) -> Form:
    """A Form from its JSON, in a kept file or from a child."""
    pieces = tuple(Piece(each["expr"], each["domain"], tuple(each["made_of"])) for each in data.get("pieces", ()))
    drawn = {name: (least, most) for name, (least, most) in data.get("drawn", {}).items()}
    return Form(metric, data["expr"], data["order"], data["domain"], pieces, data["draws"], drawn)


def forms_from_json(data: Mapping[str, Any]) -> Forms:
    """The inverse of `records.to_json` for Forms."""
    forms, general = (
        {metric: form_from_json(metric, form) for metric, form in data[key].items()} for key in ("forms", "general")
    )
    args = (data["mechanism"], data["args"], data["mode"], forms, general, data["missing"])
    return Forms(*args, data["arguments"], data["held"])


def variables(shape: Shape) -> dict[str, int]:
    """{'B': ..., 'C': ..., 'H': ..., 'W': ..., 'T': ...}: what expressions are evaluated with."""
    return {"B": shape.batch, "C": shape.channels, "H": shape.height, "W": shape.width, "T": shape.frames}


def counts_of(case: Case) -> Counts | None:
    """The Counts of a case, equal to the trace's in every field; None where no kept program answers it."""
    if not _ordinary(case):
        return None
    kept = read(case.mechanism)
    if kept is None or kept.stale or not _defaults(case):
        return None
    values = variables(case.shape)
    for program in kept.programs.get(case.mode, ()):
        if not program.data["assumed"] and program.domain(values):
            return rebuild(program, values)
    return None


def _ordinary(case: Case) -> bool:
    """Whether a case is a catalogue mechanism under the settings that the programs were made for."""
    if case.imported or case.host is not None or case.dtype != "float32":
        return False
    traced = {name: value for name, value in case.settings.items() if name not in _UNTRACED}
    return all(name in _SETTINGS and value in (None, _SETTINGS[name]) for name, value in traced.items())


def _defaults(case: Case) -> bool:
    """Whether the arguments of a case say nothing but the defaults; only numbers, words and None are compared."""
    if not case.args:
        return True
    defaults = {each.name: each.default for each in mechanisms.describe(case.mechanism).arguments}
    for name, value in case.args.items():
        text = defaults.get(name)
        if text is None or name in _BY_SHAPE or not isinstance(value, (int, float, str, type(None))):
            return False
        try:
            default = ast.literal_eval(text)
        except ValueError:
            return False
        if type(default) is not type(value) or default != value:
            return False
    return True


def rebuild(program: Program, values: Values) -> Counts:
    """The Counts that a program gives for these values of B, C, H, W and T."""
    data = program.data
    numbers = [expression(values) for expression in program.values]
    lifetimes = _lifetimes(data, numbers)
    peak, at = lifetimes.peak()
    rows = tuple(
        OpCost(op, module, phase, calls, numbers[macs], numbers[flops], numbers[moved])
        for op, module, phase, calls, macs, flops, moved in data["ops"]
    )
    return Counts(
        params=numbers[data["params"]],
        macs=sum(row.macs for row in rows),
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        activation_bytes=numbers[data["activation_bytes"]],
        resident_bytes=numbers[data["resident_bytes"]],
        peak_bytes=peak,
        peak_cuda_bytes=lifetimes.peak_cuda(),
        at_peak=lifetimes.holders(lifetimes.alive(at)),
        uncounted=dict(data["uncounted"]),
        assumed=dict(data["assumed"]),
        traced_by="meta",
        ops=rows,
    )


def _lifetimes(data: Mapping[str, Any], numbers: Sequence[int]) -> Lifetimes:
    sizes, makers = [0], [Maker("")]
    for size, op, module, phase, dims in data["blocks"]:
        sizes.append(numbers[size])
        makers.append(Maker(op, module, phase, tuple(numbers[dim] for dim in dims)))
    temporaries = tuple((before, numbers[size]) for before, size in data["temporaries"])
    return Lifetimes(tuple(sizes), tuple(makers), tuple(data["events"]), temporaries)


def names() -> Iterator[str]:
    """'family/name' of every kept file."""
    for path in sorted(ROOT.glob("*/*.json")):
        yield f"{path.parent.name}/{path.stem}"
