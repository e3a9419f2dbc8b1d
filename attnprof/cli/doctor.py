"""`doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import click

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


@click.command("doctor")
def doctor_command() -> int:
    """Versions, devices, memory, and a trial case through a child process."""
    from attnprof.execute import Options, resolve_device, run_cases
    from attnprof.records import Case, Shape
    from attnprof.units import format_bytes, format_seconds

    click.echo(f"python     {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    if hasattr(os, "sysconf"):
        page = os.sysconf("SC_PAGE_SIZE")
        free, total = page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
        click.echo(f"memory     {format_bytes(free)} free of {format_bytes(total)}")
    for package in _PACKAGES:
        click.echo(f"{package:<10} {_version(package)}")
    device, warning = resolve_device("auto")
    click.echo(f"device     {device}" + (f" ({warning})" if warning else ""))
    case = Case("channel/se", "se", {}, Shape(1, 64, 16, 16), device=device, settings={"sdpa": "auto"})
    (record,) = run_cases([case], Options(budget_s=0.5))
    ok = record.status == "ok" and record.counts is not None and record.timing is not None
    if ok:
        assert record.timing is not None
        median = format_seconds(record.timing.median_s)
        click.echo(f"trial      fine: se at 1x64x16x16 traced and timed in a child ({median}, n={record.timing.n})")
    else:
        click.echo(f"trial      failed: {record.status}: {record.detail}", file=sys.stderr)
    return 0 if ok else 5


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


COMMANDS = {"doctor": doctor_command}
