"""Make the kept closed forms, profiling/forms/kept/: `python -m tests.makers.forms_kept [NAMES...] [--jobs N] [--anew]`.

Every mechanism of the catalogue with its default arguments, both modes, from its natural shape. A file whose sources changed is
first tried as it stands: every form and program on 200 seeded draws and at the edges of its domain, the general forms with
other arguments too. Where all of them agree with the traces of today it gets the hashes of today; where one does not, or with
`--anew`, the forms are looked for again. `--again` tries the files of today once more too: after a change of forms/.

Prints a line per mechanism and mode: how many metrics have a form, what is missing and why, programs, draws, traces, seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from attnprof import mechanisms
from attnprof.profiling.counting.trace import follow_case
from attnprof.profiling.forms import find, general, kept
from attnprof.profiling.forms.expression import compile_text
from attnprof.profiling.forms.programs import NAMES
from attnprof.profiling.forms.regions import Region
from attnprof.profiling.forms.samples import Point, Sampler
from attnprof.profiling.forms.verify import DRAWS, draws, edges
from attnprof.records import MODES, Case, Counts, Shape

_PROGRAMS = 3  # beside the natural shape's


def natural_case(name: str, mode: str) -> Case:
    """The case that forms of a catalogue name are looked for from."""
    shape = mechanisms.load(name).natural or Shape(1, 512, 97, 97)
    return Case(name, name, {}, shape, "float32", mode, "none", settings={"sdpa": "auto"})


def contradiction(name: str) -> str:
    """What in the kept file of a name does not agree with traces of today; '' where all draws do."""
    held = json.loads((kept.ROOT / f"{name}.json").read_text(encoding="utf-8"))
    for mode, data in held["modes"].items():
        case = natural_case(name, mode)
        sampler, size = Sampler(case, mechanisms.load(name)), case.shape
        natural = (1, size.channels, size.height, size.width, size.frames)
        start = Region(frames=size.frames if mechanisms.uses_frames(name) else 0)
        drawn = replace(start, fixed=(0, 0, 1, 1, 0)) if size.hw == (1, 1) else start
        counts: dict[Point, Counts] = {}

        def traced(point: Point, sampler: Sampler = sampler, counts: dict[Point, Counts] = counts) -> Counts:
            if point not in counts:
                counts[point] = follow_case(sampler.case_at(point), mechanism=sampler.mechanism, allow_real=False).counts
            return counts[point]

        for index, program in enumerate(map(kept.Program, data["programs"])):
            domain = program.data["domain"]
            for point in [*draws(domain, start, natural, DRAWS if not index else DRAWS // 3), *edges(domain, natural)]:
                if kept.rebuild(program, dict(zip(NAMES, point, strict=True))) != traced(point):
                    return f"{mode}: program {index} at {point}"
        for metric, form in data["forms"].items():
            texts = [compile_text(form[key]) for key in ("expr", "domain")]
            domain = f"({form['domain']}) and B == 1"
            for point in [*draws(domain, start, natural), *edges(domain, natural)]:
                if texts[0](dict(zip(NAMES, point, strict=True))) != getattr(traced(point), metric):
                    return f"{mode}: {metric} at {point}"
        forms = {metric: kept.form_from_json(metric, form) for metric, form in data["general"].items()}
        wrong = general.contradiction(case, natural, drawn, forms)
        if wrong:
            return f"{mode}: {wrong}"
    return ""


def make(name: str, anew: bool = False, again: bool = False) -> tuple[str, list[str]]:
    """Write the file of a name: confirmed as it stands, or found again; returns the name and a summary line per mode."""
    import torch

    torch.set_num_threads(1)
    path = kept.ROOT / f"{name}.json"
    held = kept.read(name)
    if held is not None and not anew:
        if not held.stale and not again:
            return name, [f"{name:38} is of today"]
        data = json.loads(path.read_text(encoding="utf-8"))
        try:
            wrong = contradiction(name)
        except Exception as error:  # noqa: BLE001  a module that refuses a shape now, a trace that fails
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            path.write_text(in_lines({**data, "made": kept.made_from(name)}), encoding="utf-8")
            return name, [f"{name:38} confirmed as it stands"]
        print(f"{name:38} found again: {wrong}", flush=True)
    found = {mode: find.find_forms(natural_case(name, mode), more_programs=_PROGRAMS) for mode in MODES}
    data = find.kept_json(name, found, kept.made_from(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(in_lines(data), encoding="utf-8")
    return name, [_summary(name, mode, each, path) for mode, each in found.items()]


def in_lines(data: dict[str, Any]) -> str:
    """Compact JSON with the hash of its content, one line per top-level entry and mode."""
    data = {**data, "content": kept.content_hash(data)}

    def compact(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    modes = ",\n".join(f"{compact(mode)}:{compact(held)}" for mode, held in data["modes"].items())
    top = [f"{compact(key)}:{compact(value)}" for key, value in data.items() if key != "modes"]
    return "{" + ",\n".join([*top, f'"modes":{{\n{modes}}}']) + "}\n"


def _summary(name: str, mode: str, found: find.Found, path: Path) -> str:
    forms = found.forms
    draws = min((form.draws for form in forms.forms.values()), default=0)
    missing = "; ".join(f"{metric}: {reason}" for metric, reason in forms.missing.items()) or "-"
    domain = forms.forms["macs"].domain if "macs" in forms.forms else "-"
    return (
        f"{name:38} {mode:9} {len(forms.forms)}/7 general {len(forms.general)}/3 programs {len(found.programs)} draws {draws} "
        f"traces {found.traces} {found.seconds:.1f} s {path.stat().st_size // 1024} KiB | {domain} | missing: {missing}"
    )


def _made(names: Sequence[str], jobs: int, anew: bool, again: bool) -> Iterator[tuple[str, list[str]]]:
    work = partial(make, anew=anew, again=again)
    if jobs == 1:
        yield from map(work, names)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(work, names)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="catalogue names; all without")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--anew", action="store_true", help="look for every form again")
    parser.add_argument("--again", action="store_true", help="try the files of today once more too")
    given = parser.parse_args(arguments)
    every = [f"{family}/{member}" for family, members in mechanisms.names().items() for member in members]
    for _, lines in _made([mechanisms.resolve(name) for name in given.names] or every, given.jobs, given.anew, given.again):
        print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
