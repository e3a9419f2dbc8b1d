"""The baseline file: the traced integers of every point of a spec, and what was accepted since, committed beside the code.

One point per line in a stable order, so that a diff of the file reads as a list of changes. Nothing in it depends on the day or
the machine but `ratios`, where there are any (`ratios.py`): without them, saving twice gives the same file. `accepted` is a
ledger: the value of the point is changed as well.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from attnprof.errors import NothingSelectedError, UsageError
from attnprof.gate import ratios as ratio_section
from attnprof.gate.ratios import Ratios
from attnprof.plain import json_text
from attnprof.records import Case, Counts, Record
from attnprof.spec import near_file
from attnprof.spec.scalars import format_scalar
from attnprof.spec.values import EXACT_METRICS

SCHEMA = 1
# 1  2026-11  first: spec, made, points by case key, accepted; ratios where latency was measured
KIND = "attnprof baseline"
SPEC, FILE = "SPEC", "FILE"  # where no name is known
_TEXTS = ("label", "mechanism", "shape", "mode", "dtype")


@dataclass(frozen=True)
class Point:
    """What was traced of one case; `metrics` is empty where that failed, and `detail` says why.

    context: settings that are not the default, and the network, in words.
    """

    key: str
    label: str
    mechanism: str
    shape: str
    mode: str
    dtype: str = "float32"
    context: str = ""
    status: str = "ok"
    metrics: Mapping[str, int] = field(default_factory=dict)
    detail: str = ""

    @property
    def text(self) -> str:
        """The case without its mechanism: '1x64x33x33 inference'."""
        dtype = "" if self.dtype == "float32" else self.dtype
        return " ".join(word for word in (self.shape, dtype, self.mode, self.context) if word)

    @property
    def name(self) -> str:
        """'ccnet 1x64x33x33 inference'."""
        return f"{self.label} {self.text}"


@dataclass(frozen=True)
class Accepted:
    """A change that somebody stands for. `point` as metric: the whole point is gone (from 1 to 0)."""

    metric: str
    key: str
    label: str
    point: str
    before: int
    after: int
    reason: str
    when: str
    who: str = ""


@dataclass(frozen=True)
class Made:
    """What the numbers were counted with: versions (torch: major.minor), and the hash of the code that counts."""

    attnprof: str
    torch: str
    counting: str


@dataclass(frozen=True)
class Baseline:
    """The content of a baseline file."""

    spec: str
    made: Made
    points: Mapping[str, Point]
    accepted: tuple[Accepted, ...] = ()
    ratios: Ratios | None = None


def made_now() -> Made:
    """What a baseline that is made now is made with; torch is not imported."""
    from importlib.metadata import version

    from attnprof.profiling import provenance

    return Made(version("attnprof"), provenance.torch_release(), provenance.counting_hash())


def point_of(record: Record) -> Point:
    """The Point of a traced record."""
    counts = record.counts
    point = point_of_case(record.case)
    if record.status != "ok" or counts is None:
        return replace(point, status=record.status if record.status != "ok" else "error", detail=record.detail)
    return replace(point, metrics=metrics_of(counts))


def point_of_case(case: Case) -> Point:
    """A Point without numbers."""
    return Point(case.key, case.label, case.public.mechanism, case.shape.text(), case.mode, case.dtype, _context(case))


def metrics_of(counts: Counts) -> dict[str, int]:
    """{metric: integer} of EXACT_METRICS."""
    ledgers = {"op_calls": sum(op.calls for op in counts.ops), "uncounted_calls": sum(counts.uncounted.values())}
    return {name: int(ledgers[name] if name in ledgers else getattr(counts, name)) for name in EXACT_METRICS}


def _context(case: Case) -> str:
    settings = [f"{name}={format_scalar(value)}" for name, value in case.settings.items() if (name, value) != ("sdpa", "auto")]
    host = [] if case.host is None else [f"in {case.host.text}" + (f" {case.host.how} {case.host.at}" if case.host.at else "")]
    return " ".join([*settings, *host])


def write(baseline: Baseline) -> str:
    """The text of the file."""
    points = sorted(baseline.points.values(), key=lambda point: (point.label, _sizes(point.shape), point.text, point.key))
    lines = ",\n".join(f"    {_line(point.key)}: {_line(_point_json(point))}" for point in points)
    accepted = ",\n".join(f"    {_line(_accepted_json(each))}" for each in baseline.accepted)
    ratios = "" if baseline.ratios is None else ratio_section.text(baseline.ratios, [point.key for point in points])
    return (
        f'{{\n  "schema": {SCHEMA},\n  "kind": {_line(KIND)},\n  "spec": {_line(baseline.spec)},\n'
        f'  "made": {_line(asdict(baseline.made))},\n  "points": {{\n{lines}\n  }},\n{ratios}'
        f'  "accepted": [{f"{chr(10)}{accepted}{chr(10)}  " if accepted else ""}]\n}}\n'
    )


def data(baseline: Baseline) -> dict[str, Any]:
    """The file as plain JSON types."""
    found: dict[str, Any] = json.loads(write(baseline))
    return found


def _line(value: Any) -> str:
    return json_text(value)


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in shape.split("x") if size.isdecimal()]


def _point_json(point: Point) -> dict[str, Any]:
    out: dict[str, Any] = {name: getattr(point, name) for name in _TEXTS}
    if point.context:
        out["context"] = point.context
    return out | (dict(point.metrics) if point.status == "ok" else {"status": point.status})


def _accepted_json(each: Accepted) -> dict[str, Any]:
    out = {
        "metric": each.metric,
        "key": each.key,
        "label": each.label,
        "point": each.point,
        "from": each.before,
        "to": each.after,
    }
    return out | {"reason": each.reason, "when": each.when} | ({"who": each.who} if each.who else {})


def remake(file: Path | str = FILE, spec: str = SPEC) -> str:
    """The command that makes a baseline anew."""
    return f"attnprof baseline save {shlex.quote(spec)} -o {shlex.quote(str(file))}"


def read(path: Path, spec: str = SPEC) -> Baseline:
    """The content of a baseline file. `spec`: the file of the spec, for the command that an error advises.

    Raises NothingSelectedError (exit code 3) for a file that is not there or has another schema, UsageError (2) for one that is
    no baseline or damaged.
    """
    again = remake(path, spec)
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NothingSelectedError(f"{path}: there is no such baseline.{near_file(path)} To make it: `{again}`.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        conflict = " It holds the marks of a merge conflict." if "\n<<<<<<< " in f"\n{text}" else ""
        where = f"{path}:{error.lineno}:{error.colno}: "
        raise UsageError(f"{where}this is no JSON ({error.msg}).{conflict} To make it anew: `{again}`.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}: the file is damaged. To make it anew: `{again}`.") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UsageError(f'{path}: this is no baseline of attnprof (no "kind": "{KIND}").')
    if content.get("schema") != SCHEMA:
        raise NothingSelectedError(f"{path}: its schema is {content.get('schema')}, not {SCHEMA}. Make it anew: `{again}`.")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: the file is damaged ({type(error).__name__}: {error}). Make it anew: `{again}`.") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands twice is what a bad merge leaves."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' stands twice")
    return found


def _from_json(content: Mapping[str, Any]) -> Baseline:
    points = {}
    for key, line in content["points"].items():
        texts = {name: _text(line[name]) for name in _TEXTS}
        status = _text(line.get("status", "ok"))
        metrics = {name: _integer(line[name]) for name in EXACT_METRICS} if status == "ok" else {}
        points[key] = Point(key, **texts, context=_text(line.get("context", "")), status=status, metrics=metrics)
    accepted = [_accepted(each) for each in content["accepted"]]
    made = Made(**{name: _text(content["made"][name]) for name in ("attnprof", "torch", "counting")})
    ratios = ratio_section.from_json(content["ratios"]) if "ratios" in content else None
    if ratios is not None and not ratios.points.keys() <= points.keys():
        raise ValueError("a ratio is of no point")
    return Baseline(_text(content["spec"]), made, points, tuple(accepted), ratios)


def _accepted(line: Mapping[str, Any]) -> Accepted:
    which = {name: _text(line[name]) for name in ("metric", "key", "label", "point")}
    why = {name: _text(line.get(name, "")) for name in ("reason", "when", "who")}
    return Accepted(**which, before=_integer(line["from"]), after=_integer(line["to"]), **why)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no integer")
    if value < 0:
        raise ValueError(f"{value} is less than nothing")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
