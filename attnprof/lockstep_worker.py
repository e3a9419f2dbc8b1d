"""One side of a lock-step pair: a fresh interpreter that imports the user's code from its own checkout and runs when told to.

Conversation, a JSON line each way at a time: {"event": "up"}; {"do": "prepare", "case", "seed", ...} -> {"event": "ready"};
{"do": "once"} -> {"event": "sample", "s"} as often as is wanted; {"do": "drop"} -> {"event": "dropped", "page_faults", ...}.
Each may be answered by {"event": "failed", "status", "detail", "absent"} instead, which drops the case; `absent`: this checkout
has no such module. The child leaves when the parent closes its end.

The attnprof that measures is that of the parent on both sides. Where attnprof itself lies in the repository, its catalogue and
its hosts are those of the checkout.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from attnprof import hosts, mechanisms, stats, worker
from attnprof.errors import AttnprofError, UsageError
from attnprof.execute.server import die_with_parent
from attnprof.profiling import loading
from attnprof.profiling.measuring import contention, device, gpu, measure
from attnprof.profiling.measuring.prepare import conditions
from attnprof.profiling.measuring.window import Member, flush_of, move, time_pass
from attnprof.records import Case, case_from_json

Order = Mapping[str, Any]
Say = Callable[[dict[str, Any]], None]


class ForeignCodeError(AttnprofError):
    """Code of the working tree was imported where that of the base was wanted."""

    exit_code = 5


def main(wire: int, parent: int) -> int:
    """Answer until the parent closes its end. Returns the exit code."""
    die_with_parent(parent)
    channel = socket.socket(fileno=wire)

    def say(event: dict[str, Any]) -> None:
        channel.sendall(json.dumps(event).encode() + b"\n")

    with channel.makefile("r", encoding="utf-8") as lines:
        order = json.loads(lines.readline())
        enter(order)
        worker.write_by_lines()
        worker.bound_memory(order["memory_bytes"])
        say({"event": "up"})
        for line in lines:
            request = json.loads(line)
            case = case_from_json(request["case"])
            try:
                _serve(case, request, order, lines, say)
            except BaseException as error:  # noqa: BLE001 - SystemExit of a user's module must not end the others' turn
                say(failed(error, case, order))
    return 0


def enter(order: Order) -> None:
    """Go to the checkout: folder, import path, cores; what is installed from the repository comes from the checkout too."""
    home, tree = Path(order["home"]), Path(order["tree"])
    os.chdir(order["cwd"])
    if order["cores"]:
        os.sched_setaffinity(0, order["cores"])
    sys.path[:] = order["path"]
    if home == tree:
        return
    sys.path[:0] = list(dict.fromkeys(str(tree / folder.relative_to(home)) for folder in _installed_from(home)))
    for package in (mechanisms, hosts):
        where = Path(str(package.__file__)).resolve().parent
        if where.is_relative_to(home):
            _redirect(package, tree / where.relative_to(home))


def _installed_from(home: Path) -> Iterator[Path]:
    """The folders of a repository that setuptools' editable installs import packages from."""
    for finder in sys.meta_path:
        installed = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", {})
        for place in installed.values() if isinstance(installed, dict) else ():
            folder = Path(str(place)).resolve().parent
            if folder.is_relative_to(home):
                yield folder


def _redirect(package: ModuleType, where: Path) -> None:
    """Have the files of a package that are imported from now on come from another folder."""
    package.__path__ = [str(where)]
    vars(package)["_ROOT"] = where
    for name in [name for name in sys.modules if name.startswith(f"{package.__name__}.")]:
        del sys.modules[name]


def _serve(case: Case, request: Order, order: Order, lines: Iterator[str], say: Say) -> None:
    """Prepare a case, then run it whenever told to, until it is dropped."""
    with contextlib.ExitStack() as stack:
        watched = gpu.Watch(case.device)
        if request["lock"]:  # one side holds the GPU for both
            watched = stack.enter_context(gpu.watch(case.device))
        loading.load(case)
        plan = measure.Plan(block="", timeout_s=request["timeout_s"], seed=request["seed"])
        member = measure.prepare_member(case, 0, plan)
        check_origin(order)
        if not isinstance(member, Member):
            say({"event": "failed", "status": "invalid_output", "detail": member, "absent": False})
            return
        flush = flush_of(case)
        gc.unfreeze()  # of the case before
        gc.collect()
        gc.freeze()
        stack.enter_context(conditions(case))
        turns = measure.Turns(lambda _: None, lambda _: 0.0, time.monotonic())
        measure.warm_up(member, plan, turns, flush.run, request["warmup_s"])
        begun = {"converged": member.converged, "estimate_s": member.estimate_s, "warnings": list(flush.warnings)}
        machine = device.environment(case.device) | {"flags": device.flags(), "flush_bytes": flush.bytes}
        say({"event": "ready", "environment": machine} | begun)
        faults: list[int] = []
        timed_s = 0.0
        for line in lines:
            if json.loads(line)["do"] == "drop":
                break
            gc.collect()
            move(member)
            flush.run()
            before = _page_faults()
            timed = time_pass(member)
            faults.append(_page_faults() - before)
            member.host_s.append(timed.host_s)
            member.waited_s += timed.waited_s
            timed_s += timed.latency_s
            say({"event": "sample", "s": timed.latency_s})
        busy = [contention.BUSY] if contention.is_busy(member.waited_s, timed_s) else []
        facts = {"slowed": watched.slowed(), "warnings": [*watched.warnings(), *busy], "environment": watched.facts()}
        say({"event": "dropped", "page_faults": stats.median(faults) if faults else 0} | facts)


def _page_faults() -> int:
    """Of this process so far, those that wanted no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def check_origin(order: Order) -> None:
    """Raise ForeignCodeError where the base's child has imported a module from the working tree (by a finder of its own)."""
    home, tree = Path(order["home"]), order["tree"]
    if str(home) == tree:
        return
    own = str(Path(worker.__file__).resolve().parent)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (
            not isinstance(file, str)
            or file.startswith((tree + os.sep, own + os.sep))
            or not file.startswith(str(home) + os.sep)
        ):
            continue
        if not any(Path(file).is_relative_to(kept) for kept in order["kept"]):
            raise ForeignCodeError(
                f"'{name}' was imported from the working tree, {Path(file).relative_to(home)}, not from the base: install the "
                "package so that its folder stands on the import path (PYTHONPATH, or an editable install by path)."
            )


def failed(error: BaseException, case: Case, order: Order) -> dict[str, Any]:
    """The event for a case that raised. What lies in a submodule is not called absent: the base may well have had it."""
    said, submodule = worker.failure(case, error), submodule_of(error, case, order)
    if submodule:
        where = f"it is in the submodule '{submodule}', and submodules are not checked out in the base"
        said["detail"] = f"{where}:\n{said['detail']}"
    return said | {"absent": not submodule and is_absent(error, case)}


def submodule_of(error: BaseException, case: Case, order: Order) -> str:
    """The submodule that holds what could not be loaded, by its path in the repository; '' where it is in none.

    The base has an empty folder there; what the working tree has in it says whether it is wanted from there.
    """
    if not isinstance(error, (UsageError, ImportError)):
        return ""
    cause = error if isinstance(error, ImportError) else error.__cause__
    wanted = [path.rpartition(":")[0] for path in (case.mechanism, "" if case.host is None else case.host.host)]
    wanted.append((cause.name or "") if isinstance(cause, ImportError) else "")
    home, tree = Path(order["home"]), Path(order["tree"])
    for place in [place for path in wanted if path for place in _places(path, order)]:
        for submodule in order["submodules"]:
            if place.is_relative_to(submodule) and _stands(home / place.relative_to(tree)):
                return str(Path(submodule).relative_to(tree))
    return ""


def _places(path: str, order: Order) -> list[Path]:
    """Where 'file.py', or 'package.module' without its ending, would be looked for."""
    if path.endswith(".py"):
        return [Path(order["cwd"], path).resolve()]
    return [Path(entry, *path.split(".")).resolve() for entry in sys.path]


def _stands(place: Path) -> bool:
    """Whether there is a file or folder of this name, whatever its ending."""
    return place.exists() or any(place.parent.glob(f"{place.name}.*"))


def is_absent(error: BaseException, case: Case) -> bool:
    """Whether a checkout has no such module, class or argument; a module that is there and fails is not absent."""
    if not isinstance(error, UsageError):
        return False
    if not isinstance(error.__cause__, ModuleNotFoundError):
        return True
    missing = error.__cause__.name or ""
    wanted = [case.mechanism, "" if case.host is None else case.host.host]
    return any(f"{path.rpartition(':')[0]}.".startswith(f"{missing}.") for path in wanted)
