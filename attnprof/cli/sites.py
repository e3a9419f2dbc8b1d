"""`sites`: where in a network a mechanism can stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from attnprof.cli import echo_json
from attnprof.cli.hosting import visits_in_child
from attnprof.cli.options import check_entry, name_and_args
from attnprof.errors import NothingSelectedError, UntraceableError, UsageError, told
from attnprof.records import ALONE, SCHEMA_VERSION, Case, Placement, Shape, to_json


@click.command("sites")
@click.argument("host", required=False)
@click.option("--hw", metavar="HxW", help="Resolution of the input.  [default: the host's own]")
@click.option("--channels", type=click.IntRange(min=1), help="Channels of the input.  [default: the host's own]")
@click.option("--match", metavar="GLOB", help="Only submodules of such names: layer4.*, **.conv2, or the name of a site.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def sites_command(host: str | None, hw: str | None, channels: int | None, match: str | None, as_json: bool) -> None:
    """Where in HOST a mechanism can stand: named sites, then every submodule with its output; without HOST the hosts.

    HOST is a host (resnet50, resnet50[output_stride=8]) or a network of your own (./net.py:Net), which is run.
    """
    from attnprof import hosts
    from attnprof.report import sites

    if host is None:
        entries = [hosts.describe(name) for name in hosts.names()]
        if as_json:
            listed = [{"name": each.name, "title": each.title, "params": each.params, "sites": each.sites} for each in entries]
            echo_json({"schema": SCHEMA_VERSION, "hosts": listed})
        else:
            click.echo(sites.hosts_text([(each.name, each.title, list(each.sites)) for each in entries]), nl=False)
        return
    name, args = name_and_args(host)
    if ":" in name:
        check_entry(name, args)
    entry = hosts.describe(name)
    hosts.check_arguments(name, args)
    natural = entry.natural
    height, width = _size(hw) if hw else natural.hw
    shape = Shape(1, channels or natural.channels, height, width)
    found = _visits(Case(ALONE, host, {}, shape, host=Placement(entry.name, args)))
    named = [{"site": site, "glob": glob, "matches": _count(found, glob)} for site, glob in entry.sites.items()]
    rows = found if match is None else [row for row in found if hosts.matches(row["name"], entry.sites.get(match, match))]
    if not rows:
        raise NothingSelectedError(
            f"{host} has no submodule '{match}' (`*` stands for one part of a dotted name, `**` for any number)."
        )
    if as_json:
        echo_json({"schema": SCHEMA_VERSION, "host": host, "input": shape.text(), "sites": named, "submodules": rows})
        return
    click.echo(sites.sites_text(host, shape.text(), named, rows), nl=False)


def _size(text: str) -> tuple[int, int]:
    from attnprof.spec import parse_hw

    return parse_hw(text)


def _count(rows: list[dict[str, Any]], glob: str) -> int:
    from attnprof import hosts

    return sum(hosts.matches(row["name"], glob) for row in rows)


def _visits(case: Case) -> list[dict[str, Any]]:
    """One of `_row` for every submodule; a network of the user's own is built and run in a child."""
    assert case.host is not None
    if case.imported:
        return [_row(visit) for visit in visits_in_child(case)]
    from attnprof.profiling import placing

    try:
        return [_row(to_json(visit)) for visit in placing.visits_of(case).visits]
    except (UsageError, UntraceableError):
        raise
    except Exception as error:
        raise UntraceableError(f"{case.label} at {case.shape.text()}: {told(error)}") from error


def _row(visit: Mapping[str, Any]) -> dict[str, Any]:
    """The names of `--json`: null for what is no single tensor; `outputs`: every one that differs, over all runs."""
    keys = {"name": "name", "type": "kind", "runs": "runs", "input": "given", "output": "returned", "outputs": "every"}
    return {key: visit[field] for key, field in keys.items()}


COMMANDS = {"sites": sites_command}
