"""The scale page, `python -m tests.makers.scale_page [PART...]`: how time and memory grow with the number of cases, as tables.

Part `store`: a store of N records is read, asked for every case whether it may be used again, and reported. The records are
those of a traced run of specs/survey.yaml, again and again at another batch (the numbers in them stay the survey's), so that
every key is another. Each step is a process of its own: seconds are its own without the start of Python, memory is the most
that it held. Part `traces` is in tests/makers/scale_traces.py. A part is a function that gives lines of Markdown; PARTS has
them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from attnprof import store
from attnprof.cli import cli
from attnprof.profiling.provenance import remembering
from attnprof.records import SCHEMA_VERSION, Case, case_from_json, to_json
from tests.makers.scale_traces import SIZES as TRACED
from tests.makers.scale_traces import traces_part

SIZES = (1_000, 10_000, 100_000)
FORMATS = ("md", "csv", "json")
_SPEC = "specs/survey.yaml"


@dataclasses.dataclass(frozen=True)
class Step:
    """What one process took: seconds of wall clock and of the processor, and its peak memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def survey(folder: Path) -> Path:
    """The store of a traced run of the survey."""
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["run", _SPEC, "--device", "none", "--out", str(folder), "-q", "--format", "md"], standalone_mode=False)
    return folder / "survey.jsonl"


def enlarge(source: Path, path: Path, wanted: int) -> None:
    """Write a store of `wanted` records: those of `source`, again and again at another batch."""
    lines = [json.loads(line) for line in source.read_bytes().splitlines()]
    run = next(line for line in lines if line["kind"] == "run")
    records = {line["record"]["case"]["key"]: line["record"] for line in lines if line["kind"] == "record"}
    keys = [case.key for case in _cases([record["case"] for record in records.values()], wanted)]
    with path.open("w", encoding="utf-8") as file:
        for entry in ({**run, "keys": keys}, *_lines(list(records.values()), keys)):
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def _cases(found: Sequence[Mapping[str, object]], wanted: int) -> Iterator[Case]:
    cases = [case_from_json(case) for case in found]
    for number in range(wanted):
        case, turn = cases[number % len(cases)], number // len(cases)
        yield dataclasses.replace(case, shape=dataclasses.replace(case.shape, batch=case.shape.batch + turn))


def _lines(records: Sequence[Mapping[str, object]], keys: Sequence[str]) -> Iterator[dict[str, object]]:
    cases = _cases([record["case"] for record in records], len(keys))  # type: ignore[misc]
    for number, (case, key) in enumerate(zip(cases, keys, strict=True)):
        record = {**records[number % len(records)], "case": {**to_json(case), "key": key}}
        yield {"schema": SCHEMA_VERSION, "kind": "record", "record": record}


def load(path: Path) -> None:
    """Read a store."""
    assert store.load(path).records


def resume(path: Path, cases: Sequence[Case]) -> None:
    """Ask for every case whether its stored record may be used again: `run --resume` where nothing is left to do."""
    stored, provenance = store.load(path), remembering()
    kept = [store.reusable(stored, case, provenance(case)) for case in cases]
    assert all(record is not None for record in kept)


def report(path: Path, formats: str) -> None:
    """`attnprof report`."""
    cli.main(["report", str(path), "--format", formats], standalone_mode=False)


def _alone(step: str, path: Path) -> Step:
    """One step in a process of its own."""
    command = [sys.executable, "-m", "tests.makers.scale_page", "--step", step, "--store", str(path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return Step(**json.loads(found.stdout.splitlines()[-1]))


def _step(name: str, path: Path) -> Step:
    cases: Sequence[Case] = ()
    if name == "resume":  # a plan has them
        cases = [case_from_json(json.loads(line)["record"]["case"]) for line in path.open("rb") if b'"kind":"record"' in line]
    began, cpu = time.perf_counter(), time.process_time()
    if name == "load":
        load(path)
    elif name == "resume":
        resume(path, cases)
    else:
        report(path, name.removeprefix("report "))
    return Step(time.perf_counter() - began, time.process_time() - cpu, _peak_bytes())


def _peak_bytes() -> int:
    """The most memory that this process held; ru_maxrss would count that of the process that it was forked from."""
    found = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return int(found.split()[1]) * 1024


def store_part(sizes: Sequence[int]) -> list[str]:
    """The table of part `store`."""
    steps = ("load", "resume", *(f"report {name}" for name in FORMATS))
    out = ["| records | store (MB) | " + " | ".join(f"{step}: s | CPU s | peak MB" for step in steps) + " |"]
    out.append("| ---: " * (2 + 3 * len(steps)) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = survey(folder / "survey")
        for size in sizes:
            path = folder / f"{size}.jsonl"
            enlarge(source, path, size)
            found = [_alone(step, path) for step in steps]
            cells = [f"{step.seconds:.1f} | {step.cpu_seconds:.1f} | {step.peak_bytes / 1e6:.0f}" for step in found]
            out.append(f"| {size:,} | {path.stat().st_size / 1e6:.0f} | " + " | ".join(cells) + " |")
            print(out[-1], file=sys.stderr, flush=True)
            path.unlink()
    return out


PARTS: Mapping[str, tuple[Callable[[Sequence[int]], list[str]], Sequence[int]]] = {
    "traces": (traces_part, TRACED),
    "store": (store_part, SIZES),
}
_PAGE = """# How cost grows with the number of cases

Made by `make scale` (`python -m tests.makers.scale_page [PART...] --out reports/scale.md` renews a part). Wall clock on a
machine that others use too; the processor's seconds are beside it where they tell more.

## Traced cases

Whole runs of `attnprof run`, start and reports included, `--jobs 1`, every process bound to one core. The sweep is the
catalogue in both modes at as many sizes of input as it takes (5 mechanisms for 10 cases, 50 for 100, drawn once; all of them
beyond): what a case costs follows from its ops, so their mean is there too. Counting is from the first record on the disk to
the last, a write and an fsync each. Memory: the most that the driver held resident, and that all processes held together
(shared pages once). "Not counted" are `gltr` and `tam` in training on one frame, which the modules refuse.
What torch imports when an op first needs it (two seconds in all) is paid once per child, of up to 2,000 cases: at 100 cases it
is most of what a case takes more than at 1,000.

<!-- begin traces -->
<!-- end traces -->

## Stores

A store of N records (those of the traced survey again and again at another batch, 8 KB each): an index is loaded; a resume
asks of every case whether its record may be used again, and reads those; then each report. A process per step, its start left
out. The survey has 25 columns in every table and a table for every few cases: few sweeps are worse.

<!-- begin store -->
<!-- end store -->
"""


def renewed(page: str, part: str, lines: Sequence[str]) -> str:
    """The page with another table, and what it was made on, in a part's place."""
    made = f"{machine()}, {date.today().isoformat()}."
    text = "\n".join([*lines, "", made])
    begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"


def machine() -> str:
    """What the numbers were taken on."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in facts if line.startswith("model name")), "?")
    torch = importlib.metadata.version("torch")
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch}"


def main() -> None:
    """Renew the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--sizes", help="Numbers of cases.  [default: the part's]")
    parser.add_argument("--out", type=Path, help="The page; the parts that are not named stay.  [default: stdout]")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(dataclasses.asdict(_step(given.step, given.store))))
        return
    page = given.out.read_text(encoding="utf-8") if given.out and given.out.exists() else _PAGE
    for part in given.parts or PARTS:
        make, sizes = PARTS[part]
        page = renewed(page, part, make([int(size) for size in given.sizes.split(",")] if given.sizes else sizes))
        if given.out:
            given.out.write_text(page, encoding="utf-8")
    if not given.out:
        print(page, end="")


if __name__ == "__main__":
    main()
