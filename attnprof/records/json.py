"""Nouns as JSON: `to_json` and the `*_from_json` functions are the one place where a noun meets a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from attnprof.records.case import Case, Placement, Shape, case_to_json
from attnprof.records.plain import plain
from attnprof.records.record import Counts, Holder, Memory, OpCost, Opinion, Record, Timeline, Timing

SCHEMA_VERSION = 2
# 1  2026-11  first: case, status, counts, timing, memory, energy_j, environment, detail
# 2  2026-11  case.host, null until then, is {host, args, at, how}
# A field that may be absent and that older readers pass over makes no new schema: crosscheck, calibrated, memory_timeline.


def to_json(noun: Any) -> dict[str, Any]:
    """A noun as plain JSON types, field names unchanged; Timing gains its derived median_s, ci_s and n.

    The case of a Record is its public one: records are shown and stored. A Case alone goes to a child, which needs the path.
    `process_of` and the number of processes `k` stand there only for a timing from several processes.
    """
    if isinstance(noun, Record):
        return _record_json(noun)
    if isinstance(noun, Case):
        return case_to_json(noun)
    if isinstance(noun, Timing):
        return _timing_json(noun)
    if isinstance(noun, Counts):
        return _counts_json(noun)
    return _fields(noun)


def _fields(noun: Any) -> dict[str, Any]:
    """Every field of a noun, in order, nested nouns likewise."""
    return {each.name: _value(getattr(noun, each.name)) for each in fields(noun)}


def _value(value: Any) -> Any:
    """A field's value: nouns may stand in it, and in its sequences and mappings."""
    if _is_noun(value):
        return case_to_json(value) if isinstance(value, Case) else _fields(value)
    if isinstance(value, (tuple, list)):
        return list(value) if _SCALARS.issuperset(map(type, value)) else [_value(each) for each in value]
    if isinstance(value, Mapping) and not _SCALARS.issuperset(map(type, value.values())):
        return {key: _value(each) for key, each in zip(plain(dict.fromkeys(value)), value.values(), strict=True)}
    return plain(value)


_SCALARS = frozenset((str, int, float, bool, type(None)))


def _is_noun(value: Any) -> bool:
    return hasattr(value, "__dataclass_fields__")


def _record_json(record: Record) -> dict[str, Any]:
    counts, timing = record.counts, record.timing
    out: dict[str, Any] = {
        "case": case_to_json(record.case.public) | {"key": record.case.key},
        "status": record.status,
        "counts": None if counts is None else _counts_json(counts),
        "timing": None if timing is None else _timing_json(timing),
        "memory": None if record.memory is None else _fields(record.memory),
        "energy_j": record.energy_j,
        "environment": plain(record.environment),
        "detail": record.detail,
    }
    if counts is not None and not counts.math_attention:
        del out["counts"]["math_attention"]
    if record.crosscheck:
        out["crosscheck"] = [_fields(opinion) for opinion in record.crosscheck]
    if record.calibrated is not None:
        out["calibrated"] = _fields(record.calibrated)
    if record.memory_timeline is not None:
        out["memory_timeline"] = _fields(record.memory_timeline)
    return out


def _counts_json(counts: Counts) -> dict[str, Any]:
    """Rows by hand: a record may hold thousands."""
    rows = {"at_peak": [_holder_json(each) for each in counts.at_peak], "ops": [_op_json(each) for each in counts.ops]}
    return {each.name: rows.get(each.name) or plain(getattr(counts, each.name)) for each in fields(counts)}


def _holder_json(holder: Holder) -> dict[str, Any]:
    return {
        "bytes": holder.bytes,
        "op": holder.op,
        "module": holder.module,
        "phase": holder.phase,
        "shape": list(holder.shape),
        "line": holder.line,
    }


def _op_json(cost: OpCost) -> dict[str, Any]:
    return {
        "op": cost.op,
        "module": cost.module,
        "phase": cost.phase,
        "calls": cost.calls,
        "macs": cost.macs,
        "flops": cost.flops,
        "bytes_moved": cost.bytes_moved,
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    out = _fields(timing)
    derived: dict[str, Any] = {"median_s": timing.median_s, "ci_s": list(timing.ci_s), "n": timing.n} if timing.n else {}
    if timing.process_of:
        derived["k"] = timing.k
    else:
        del out["process_of"]
    return out | derived


def case_from_json(data: Mapping[str, Any]) -> Case:
    """The inverse of `to_json` for a Case (a derived `key` is ignored)."""
    fields = {name: value for name, value in data.items() if name != "key"}
    host = fields.get("host")
    return Case(**{**fields, "shape": Shape(**fields["shape"]), "host": Placement(**host) if host else None})


def record_from_json(data: Mapping[str, Any]) -> Record:
    """The inverse of `to_json` for a Record."""
    counts, timing, memory, calibrated = (data.get(name) for name in ("counts", "timing", "memory", "calibrated"))
    timeline = data.get("memory_timeline")
    return Record(
        case=case_from_json(data["case"]),
        status=data["status"],
        counts=counts_from_json(counts) if counts else None,
        timing=timing_from_json(timing) if timing else None,
        memory=Memory(**memory) if memory else None,
        calibrated=Memory(**calibrated) if calibrated else None,
        energy_j=data.get("energy_j"),
        environment=data.get("environment", {}),
        detail=data.get("detail", ""),
        memory_timeline=timeline_from_json(timeline, len(counts.get("ops", ()))) if counts and timeline else None,
        crosscheck=tuple(opinion_from_json(opinion) for opinion in data.get("crosscheck", ())),
    )


def timeline_from_json(data: Mapping[str, Any], ops: int) -> Timeline:
    """The inverse of `to_json` for a Timeline beside so many rows of ops. Raises ValueError where its parts do not fit."""
    at, size, who = (tuple(data[name]) for name in ("at", "bytes", "who"))
    others = tuple((phase, module, op) for phase, module, op in data["others"])
    if not len(at) == len(size) == len(who) or not all(0 <= number < ops + len(others) for number in who):
        raise ValueError("at, bytes and who of memory_timeline do not fit together")
    return Timeline(data["events"], at, size, who, others)


def opinion_from_json(data: Mapping[str, Any]) -> Opinion:
    """The inverse of `to_json` for an Opinion."""
    return Opinion(**{**data, "warnings": tuple(data.get("warnings", ()))})


def counts_from_json(data: Mapping[str, Any]) -> Counts:
    """The inverse of `to_json` for Counts."""
    holders = tuple(Holder(**{**holder, "shape": tuple(holder["shape"])}) for holder in data.get("at_peak", ()))
    ops = tuple(OpCost(**op) for op in data.get("ops", ()))
    return Counts(**{**data, "at_peak": holders, "ops": ops})


def timing_from_json(data: Mapping[str, Any]) -> Timing:
    """The inverse of `to_json` for Timing (derived values are ignored)."""
    fields = {name: value for name, value in data.items() if name not in ("median_s", "ci_s", "n", "k")}
    for name in ("latency_s", "rounds", "warnings", "process_of"):
        fields[name] = tuple(fields.get(name, ()))
    return Timing(**fields)
