"""What runs on a node, inside a Ray worker: one order in, one answer out, both plain JSON. No module of a user's runs here.

Orders: {"op": "greet" | "trace" | "calibrate" | "probe" | "measure", "options", "cwd", "path", ...}. An answer has "said" (the
warnings) beside what the operation gives, or "refused" where the runner itself cannot work on this node.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from attnprof.errors import AttnprofError
from attnprof.execute.blocks import Phase, measure_block
from attnprof.execute.calibrating import calibrate_all
from attnprof.execute.forks import close_server
from attnprof.execute.measuring import predictor_of
from attnprof.execute.options import Listener, Options, Progress
from attnprof.execute.predict import Predictor, Rates
from attnprof.execute.tracing import trace_all
from attnprof.profiling.provenance import code, source_hash
from attnprof.records import case_from_json, record_from_json, to_json

_GPUS = "CUDA_VISIBLE_DEVICES"
_served: list[str | None] = []  # the GPUs that this worker's fork server was started with


def work(order: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is asked on this node."""
    said: list[str] = []

    def listener(step: Progress) -> None:
        if step.stage == "warning":
            said.append(step.text)

    _own_server()
    with _as_the_driver(order):
        try:
            answer = _OPERATIONS[order["op"]](order, Options(**order["options"]), listener)
        except AttnprofError as error:
            answer = {"refused": str(error)}
    return answer | {"said": said}


def _own_server() -> None:
    """A fork server per set of GPUs: Ray may give a worker another one for its next task, and forks see what the server saw."""
    visible = os.environ.get(_GPUS)
    if _served and _served[0] != visible:
        close_server()
    _served[:] = [visible]


@contextlib.contextmanager
def _as_the_driver(order: Mapping[str, Any]) -> Iterator[None]:
    """Its folder and import path, as far as this node has them: what a spec imports is found as the driver finds it."""
    path, folder = list(sys.path), Path.cwd()
    theirs = [entry for entry in order["path"] if Path(entry).exists()]
    sys.path[:] = [*theirs, *(entry for entry in path if entry not in theirs)]
    with contextlib.suppress(OSError):
        os.chdir(order["cwd"])
    try:
        yield
    finally:
        sys.path[:] = path
        os.chdir(folder)


def _greet(order: Mapping[str, Any], options: Options, listener: Listener) -> dict[str, Any]:
    """Which machine this is, under however many names, and with which code it counts."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        machine = boot.read_text(encoding="ascii")
    except OSError:
        machine = platform.node()
    sources = [source_hash(mechanism, host) for mechanism, host in order["modules"]]
    return {"host": hashlib.sha256(machine.encode()).hexdigest()[:12], "code": code(), "sources": sources}


def _trace(order: Mapping[str, Any], options: Options, listener: Listener) -> dict[str, Any]:
    cases = [case_from_json(data) for data in order["cases"]]
    return {"records": [to_json(record) for record in trace_all(cases, replace(options, jobs=1), listener)]}


def _calibrate(order: Mapping[str, Any], options: Options, listener: Listener) -> dict[str, Any]:
    cases = [case_from_json(data) for data in order["cases"]]
    found = calibrate_all(cases, options, listener)
    return {"calibrated": {case.key: asdict(calibrated) for case, calibrated in found}}


def _probe(order: Mapping[str, Any], options: Options, listener: Listener) -> dict[str, Any]:
    records = [record_from_json(data) for data in order["records"]]
    predictor, reason = predictor_of(order["device"], records, options)
    return {"reason": reason, "predictor": None if predictor is None else asdict(predictor)}


def _measure(order: Mapping[str, Any], options: Options, listener: Listener) -> dict[str, Any]:
    """One block: its share of the budget counts from when the device is free."""
    pairs = zip(order["records"], order["cases"], strict=True)
    records = [replace(record_from_json(record), case=case_from_json(case)) for record, case in pairs]
    predictor = predictor_from_json(order["predictor"])
    phase = Phase(order["device"], options, listener, time.monotonic(), predictor, len(records) * options.replicates)
    found = [to_json(record) for record in measure_block(records, tuple(order["share"]), phase)]
    return {"records": found, "waited_s": phase.waited_s}


def predictor_from_json(data: Mapping[str, Any]) -> Predictor:
    """The inverse of asdict."""
    rates = {name: Rates(**rate) for name, rate in data["rates"].items()}
    seen = {str(name): [float(error) for error in errors] for name, errors in data["seen"].items()}
    return Predictor(rates, data["free_bytes"], data["flush_s"], data["processes"], seen)


_OPERATIONS: dict[str, Callable[[Mapping[str, Any], Options, Listener], dict[str, Any]]] = {
    "greet": _greet,
    "trace": _trace,
    "calibrate": _calibrate,
    "probe": _probe,
    "measure": _measure,
}
