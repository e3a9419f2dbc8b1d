"""`doctor`: what this machine can do, and what is missing; how small a difference it can tell; how fast it is."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo_json
from attnprof.cli.options import Seconds
from attnprof.errors import UsageError

if TYPE_CHECKING:
    from attnprof.records import Case, Record

_PACKAGES = (
    "attnprof",
    "torch",
    "numpy",
    "click",
    "PyYAML",
    "pydantic",
    "rich",
    "pandas",
    "tabulate",
    "nvidia-ml-py",
    "fvcore",
    "ptflops",
)
_AA_MECHANISMS = ("spatial/ccnet", "spatial/nonlocal")
_AA_COMPARISONS = 10


@click.command("doctor")
@click.option("--aa", "self_test", is_flag=True, help="Time A against A: the smallest difference this machine can tell.")
@click.option("--roofline", is_flag=True, help="Measure the rates that bounds are made of.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--budget", type=Seconds(), help="Seconds of sampling per case and process with --aa.  [default: 1]")
@click.option(
    "--replicates",
    type=click.IntRange(1, 100),
    metavar="K",
    help="Processes per comparison with --aa; from 2 on, also what varies between them.  [default: 1]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def doctor_command(self_test: bool, roofline: bool, device: str, as_json: bool, quiet: bool, **options: Any) -> int:
    """Versions, devices, memory, and a trial case through a child process; or one of the tests of this machine."""
    from attnprof.execute import resolve_device

    if self_test and roofline:
        raise UsageError("--aa and --roofline are two tests: one at a time.")
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given and not self_test:
        raise UsageError(f"{' and '.join(given)}: only with --aa.")
    if device == "none":
        raise UsageError("doctor looks at a device: auto, cpu, cuda or cuda:N, not none.")
    concrete, warning = resolve_device(device)
    if roofline:
        from attnprof.cli import roofline as test

        _warn(warning)
        return test.show(concrete, as_json, quiet=quiet)
    if self_test:
        _warn(warning)
        return _self_test(concrete, options["budget"] or 1.0, options["replicates"] or 1, as_json, quiet)
    return _look(concrete, warning, as_json)


def _warn(warning: str) -> None:
    if warning:
        click.echo(f"warning: {warning}", file=sys.stderr)


def _look(device: str, warning: str, as_json: bool) -> int:
    """Everything that there is, and a trial."""
    from attnprof.execute import Options, run_cases
    from attnprof.records import SCHEMA_VERSION, Case, Shape
    from attnprof.units import format_bytes, format_seconds

    versions = {package: _version(package) for package in _PACKAGES}
    free, total = _memory()
    case = Case("channel/se", "se", {}, Shape(1, 64, 16, 16), device=device, settings={"sdpa": "auto"})
    if not as_json:
        click.echo(
            f"python     {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        )
        if total:
            click.echo(f"memory     {format_bytes(free)} free of {format_bytes(total)}")
        for package, found in versions.items():
            click.echo(f"{package:<10} {found or 'not installed'}")
        click.echo(f"device     {device}" + (f" ({warning})" if warning else ""))
    (record,) = run_cases([case], Options(budget_s=0.5))
    ok = record.status == "ok" and record.counts is not None and record.timing is not None
    if as_json:
        trial = {"ok": ok, "status": record.status, "detail": record.detail}
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "free_bytes": free, "total_bytes": total}
        echo_json(
            {"schema": SCHEMA_VERSION, **machine, "packages": versions, "device": device, "warning": warning, "trial": trial}
        )
    elif ok:
        assert record.timing is not None
        median = format_seconds(record.timing.median_s)
        click.echo(f"trial      fine: se at 1x64x16x16 traced and timed in a child ({median}, n={record.timing.n})")
    if not ok:
        click.echo(f"trial      failed: {record.status}: {record.detail}", file=sys.stderr)
    return 0 if ok else 5


def _memory() -> tuple[int, int]:
    """(free, total) bytes of main memory; zeros where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


def _self_test(device: str, budget_s: float, replicates: int, as_json: bool, quiet: bool) -> int:
    """A against A, comparison after comparison, each through the whole path of `compare`."""
    from attnprof import stats
    from attnprof.cli.progress import say
    from attnprof.execute import Options, run_cases
    from attnprof.records import SCHEMA_VERSION
    from attnprof.report import ratios, self_test

    within: list[stats.Ratio] = []
    over: list[stats.Ratio] = []
    record: Record | None = None
    cases = _aa_cases(device)
    named = [name.partition("/")[2] for name in _AA_MECHANISMS]
    before = _load()
    for number in range(_AA_COMPARISONS):
        options = Options(budget_s=budget_s, replicates=replicates, seed=number * replicates)
        found = {record.case.key: record for record in run_cases(cases, options)}
        for first, second in zip(cases[::2], cases[1::2], strict=True):
            pairs = ratios.paired(found[first.key], found[second.key])
            if not pairs:
                record = found[first.key] if found[first.key].timing is None else found[second.key]
                say(f"{record.case.label} was not timed: {record.status}: {record.detail}")
                return 5
            within += [stats.paired_ratio(*each) for each in pairs]
            over += [stats.ratio_over_processes(pairs)] if len(pairs) > 1 else []
        record = found[cases[0].key]
        if not quiet:
            say(f"[A against A {number + 1}/{_AA_COMPARISONS}] {' and '.join(named)}, each against itself on {device}")
    summaries = [self_test.summary(each) for each in (within, over) if each]
    facts = {
        "device": device,
        "mechanisms": named,
        "shape": cases[0].shape.text(),
        "comparisons": _AA_COMPARISONS,
        "budget_s": budget_s,
        "replicates": replicates,
        "cores": os.cpu_count(),
        "load": {"before": before, "after": _load()},
    }
    if as_json:
        environment = {} if record is None else dict(record.environment)
        echo_json({"schema": SCHEMA_VERSION} | self_test.data(summaries, facts) | {"environment": environment})
    else:
        click.echo(self_test.render(summaries, facts), nl=False)
    return 0


def _load() -> float | None:
    """Processes that wanted a core over the last minute, this one among them; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _aa_cases(device: str) -> list[Case]:
    """Two labels for each mechanism, all in one block; a GPU gets maps that keep it busy for longer than a launch."""
    from attnprof.records import Case, Shape

    shape = Shape(1, 512, 97, 97) if device.startswith("cuda") else Shape(1, 64, 33, 33)
    return [
        Case(name, f"{name.partition('/')[2]} {which}", {}, shape, device=device, settings={"sdpa": "auto"})
        for name in _AA_MECHANISMS
        for which in ("A", "A again")
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


COMMANDS = {"doctor": doctor_command}
