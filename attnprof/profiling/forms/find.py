"""Find the closed forms of a module by tracing it, and try them: for catalogue mechanisms and people's own classes.

    found = find_forms(case)      # arguments and mode of the case; its shape is where the search starts
    found.forms.forms["macs"].expr, found.programs

A form is printed only if 200 seeded draws inside its domain, traced, gave the integers that its text gives.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attnprof import mechanisms
from attnprof.profiling import loading
from attnprof.profiling.forms import Form, Forms, peaks, programs, regions, totals
from attnprof.profiling.forms import general as general_forms
from attnprof.profiling.forms.domains import Condition
from attnprof.profiling.forms.orders import order
from attnprof.profiling.forms.poly import at_one, text
from attnprof.profiling.forms.programs import Fitted, Rows
from attnprof.profiling.forms.regions import B, C, Region
from attnprof.profiling.forms.samples import BY_DATA, TOTALS, Point, Sampler
from attnprof.profiling.forms.verify import DRAWS, verified
from attnprof.records import Case

_POOL = 30
_FEWER_DRAWS = 60  # for programs that no printed form comes from
_FEW = 3  # points of the pool: structures with fewer get no program


@dataclass(frozen=True)
class Found:
    """The forms, the programs behind them (as they are kept), and how many points were traced in how many seconds."""

    forms: Forms
    programs: tuple[Mapping[str, Any], ...] = ()
    traces: int = 0
    seconds: float = 0.0


@dataclass
class _Search:
    """One search: the sampler, where it started, and the points that every domain is learned from."""

    sampler: Sampler
    natural: Point
    region: Region
    known: list[Point]
    forms: dict[str, Form] = field(default_factory=dict)
    general: dict[str, Form] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)

    def tried(self, fitted: Fitted, rows: Rows, seed: Point | None = None, count: int = DRAWS) -> tuple[Fitted, int] | str:
        """Expressions tried on draws."""
        return verified(self.sampler, fitted, rows, seed or self.natural, self.known, self.region, count)


def find_forms(case: Case, more_programs: int = 0) -> Found:
    """The forms of a case's module with its arguments in its mode. `more_programs`: further structures to find programs for."""
    started = time.perf_counter()
    sampler = Sampler(dataclasses.replace(case, device="none"), loading.load(case))
    shape = case.shape
    natural = (1, shape.channels, shape.height, shape.width, shape.frames)
    first = sampler.at(natural)
    if not first.key:
        return _untraced(sampler, natural, first.reason, started)
    frames = shape.frames if shape.frames > 1 or (not case.imported and mechanisms.uses_frames(case.mechanism)) else 0
    region = regions.start(sampler, natural, frames)
    search = _Search(sampler, natural, region, regions.pool(region, natural, random.Random("pool"), _POOL))
    program = _program(search, natural)
    kept = [] if isinstance(program, str) else [program]
    if isinstance(program, str):
        program = _without_temporaries(search, program)
    _totals(search, program)
    if isinstance(program, str):
        search.missing["peak_bytes"] = program
    else:
        _peak(search, program)
    kept += _more(search, more_programs)
    ordered = {metric: search.forms[metric] for metric in (*TOTALS, "peak_bytes") if metric in search.forms}
    given = general_forms.integer_arguments(sampler.mechanism, case)
    forms = Forms(case.mechanism, case.args, case.mode, ordered, search.general, search.missing, given, search.held)
    return Found(forms, tuple(map(programs.to_json, kept)), len(sampler.known), time.perf_counter() - started)


def _untraced(sampler: Sampler, natural: Point, reason: str, started: float) -> Found:
    """Where there is no trace: the form of the parameters alone, where that is because the cost depends on data."""
    case = sampler.case
    reason = f"no trace at {case.shape.text()}: {reason}"
    built = dataclasses.replace(sampler, params_only=True, known={}, keys={}, structures={})
    given = general_forms.integer_arguments(sampler.mechanism, case)
    forms: dict[str, Form] = {}
    if BY_DATA in reason and built.at(natural).key:
        region = regions.start(built, natural, 0)
        search = _Search(built, natural, region, regions.pool(region, natural, random.Random("pool"), _POOL))
        _totals(search, reason, ("params",))
        forms = search.forms
    missing = {metric: reason for metric in (*TOTALS, "peak_bytes") if metric not in forms}
    found = Forms(case.mechanism, case.args, case.mode, forms, search.general if forms else {}, missing, given, given)
    return Found(found, (), len(built.known), time.perf_counter() - started)


def _program(search: _Search, seed: Point, draws: int = DRAWS) -> Fitted | str:
    """The program of the structure at a seed, tried on draws."""
    key = search.sampler.at(seed).key
    rows = programs.rows_of(search.sampler, key)
    fitted = programs.find(search.sampler, seed, search.region, rows, search.known)
    if isinstance(fitted, str):
        return fitted
    tried = search.tried(fitted, rows, seed, draws)
    return tried if isinstance(tried, str) else dataclasses.replace(tried[0], structure=search.sampler.structures[key])


def _without_temporaries(search: _Search, failure: str) -> Fitted | str:
    """What forms follow from where kernel temporaries have no expressions: no program that could be kept."""
    key = search.sampler.at(search.natural).key
    structure = search.sampler.structures[key]
    if not structure.temporaries:
        return failure
    rows = programs.rows_without_temporaries(search.sampler, key)
    fitted = programs.find(search.sampler, search.natural, search.region, rows, search.known)
    if isinstance(fitted, str):
        return failure
    tried = search.tried(fitted, rows)
    return failure if isinstance(tried, str) else dataclasses.replace(tried[0], structure=structure)


def _totals(search: _Search, program: Fitted | str, metrics: Sequence[str] = TOTALS) -> None:
    """Forms of the totals, whatever ops they come from: with B for the general ones, then at batch 1."""
    plain: dict[str, Fitted] = {}
    found = totals.explained(search.sampler, search.natural, search.region, program, search.known)
    for metric in metrics:
        index = TOTALS.index(metric)
        column = totals.column(index)
        fitted = found[index] if isinstance(found, list) else found
        if isinstance(fitted, Fitted):
            fitted = _bounded(search, fitted, column)
        general = search.tried(fitted, column) if isinstance(fitted, Fitted) else fitted
        if not isinstance(general, str) and metric in ("params", "macs", "flops"):
            search.general[metric] = _form(metric, *general)
            plain[metric] = general[0]
        single = general if isinstance(general, str) else search.tried(_at_batch_1(general[0]), column)
        if isinstance(single, str):
            search.missing[metric] = single
        else:
            search.forms[metric] = _form(metric, _unbatched(single[0]), single[1])
    sampler = search.sampler
    wider, search.held = general_forms.generalised(sampler.case, sampler.mechanism, search.natural, search.region, plain)
    search.general.update({metric: _form(metric, *each) for metric, each in wider.items()})


def _bounded(search: _Search, fitted: Fitted, column: Rows) -> Fitted | str:
    """The expression with a domain, on coarser steps of C where no domain is found on its own."""
    found = programs.bounded(search.sampler, fitted, search.natural, column, search.known)
    for factor in (2, 4):
        step = factor * search.region.lattice[C]
        if isinstance(found, str) and step > factor and search.natural[C] % step == 0:
            coarser = dataclasses.replace(fitted, domain=(*fitted.domain, Condition("C", "%", 0, step)))
            again = programs.bounded(search.sampler, coarser, search.natural, column, search.known)
            found = again if isinstance(again, Fitted) else found
    return found


def _at_batch_1(fitted: Fitted) -> Fitted:
    polys = tuple(at_one(poly, "B") for poly in fitted.polys)
    domain = tuple(condition for condition in fitted.domain if condition.name != "B")
    domain = (*domain, Condition("B", "==", 1))
    return dataclasses.replace(fitted, polys=polys, texts=tuple(map(text, polys)), domain=domain, region=fitted.region.at(B, 1))


def _unbatched(fitted: Fitted) -> Fitted:
    """For print: batch 1 goes without saying in the forms in C, H, W."""
    return dataclasses.replace(fitted, domain=tuple(condition for condition in fitted.domain if condition.name != "B"))


def _form(metric: str, fitted: Fitted, draws: int) -> Form:
    written = fitted.texts[0]
    return Form(metric, written, order(written), fitted.condition, draws=draws, drawn=fitted.drawn)


def _peak(search: _Search, program: Fitted) -> None:
    """The peak at batch 1 as a max over pieces, tried on draws at batch 1."""
    made = peaks.pieces(program, search.natural)
    written = made[0].expr if len(made) == 1 else f"max({', '.join(piece.expr for piece in made)})"
    alone = dataclasses.replace(_at_batch_1(program), texts=(written,))
    tried = search.tried(alone, Rows(lambda sample: (sample.peak_bytes,) if sample.key else None))
    if isinstance(tried, str):
        search.missing["peak_bytes"] = tried
    else:
        domain, drawn = _unbatched(tried[0]).condition, tried[0].drawn
        search.forms["peak_bytes"] = Form("peak_bytes", written, order(written), domain, made, tried[1], drawn)


def _more(search: _Search, count: int) -> list[Fitted]:
    """Programs of further structures: those that the most points of the pool have at batch 1."""
    groups: dict[int, list[Point]] = {}
    for point in search.known:
        key = search.sampler.at(point).key
        if key and point[B] == 1 and point[C] % search.region.lattice[C] == 0:
            groups.setdefault(key, []).append(point)
    groups.pop(search.sampler.at(search.natural).key, None)
    ordered = sorted((points for points in groups.values() if len(points) >= _FEW), key=len, reverse=True)
    found = (_program(search, points[0], _FEWER_DRAWS) for points in ordered[:count])
    return [fitted for fitted in found if isinstance(fitted, Fitted)]


def kept_json(name: str, found: Mapping[str, Found], made: Mapping[str, str]) -> dict[str, Any]:
    """What is kept of a mechanism with its default arguments. found: by mode; made: the hashes that the forms depend on."""
    modes = {}
    for mode, each in found.items():
        forms = each.forms
        groups = (("forms", forms.forms), ("general", forms.general))
        written = {key: {metric: form_json(form) for metric, form in group.items()} for key, group in groups}
        modes[mode] = {**written, "missing": dict(forms.missing), "held": list(forms.held), "programs": list(each.programs)}
    return {"schema": 1, "mechanism": name, "args": {}, "made": dict(made), "modes": modes}


def form_json(form: Form) -> dict[str, Any]:
    """A form as JSON: the fields of Form without the metric, which is its key."""
    pieces = [{"expr": piece.expr, "domain": piece.domain, "made_of": list(piece.made_of)} for piece in form.pieces]
    said = {"expr": form.expr, "order": form.order, "domain": form.domain, "draws": form.draws}
    return {**said, "drawn": {name: list(each) for name, each in form.drawn.items()}, "pieces": pieces}
