"""--host, --at, --how: the network that a mechanism is placed in, for the commands that take one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli.options import F, check_entry, name_and_args
from attnprof.errors import UntraceableError, UsageError
from attnprof.records import ALONE, HOW, Case, Placement, to_json

if TYPE_CHECKING:
    from attnprof.spec import Network


def host_options(command: F) -> F:
    """--host, --at, --how."""
    for option in (
        click.option(
            "--how",
            default="after",
            show_default=True,
            type=click.Choice(HOW),
            help="How it stands there; around: beside it, both outputs are added.",
        ),
        click.option(
            "--at", metavar="GLOB", help="Where in it: submodules by name, or one of its sites (`attnprof sites HOST`)."
        ),
        click.option("--host", metavar="HOST", help="The network that each is placed in: resnet50, or your own, ./net.py:Net."),
    ):
        command = option(command)
    return command


def network_of(options: Mapping[str, Any]) -> Network | None:
    """The network of --host, --at, --how; None without a host. Raises UsageError for what is wrong with it."""
    from attnprof.spec.networks import make_network

    if not options["host"]:
        if options["at"]:
            raise UsageError("--at names a place in a network: give --host as well.")
        return None
    if (options["frames"] or 1) > 1:
        raise UsageError(f"--frames {options['frames']}: {options['host']} takes single images.")
    name, args = name_and_args(options["host"])
    if ":" in name:
        check_entry(name, args)
    return make_network(name, args, options["at"], options["how"])


def channels_of(options: Mapping[str, Any], network: Network | None) -> int:
    """--channels; with a host those of its input (an image's 3) unless they are given."""
    from attnprof.spec import networks

    given = click.get_current_context().get_parameter_source("channels") is click.core.ParameterSource.COMMANDLINE
    return int(options["channels"]) if network is None or given else networks.channels_of([network])


def alone_of(options: Mapping[str, Any]) -> Placement:
    """The network of --host without anything in it. Raises UsageError for what is wrong with it."""
    from attnprof import hosts

    name, args = name_and_args(options["host"])
    if ":" in name:
        check_entry(name, args)
    hosts.check_arguments(hosts.resolve(name), args)
    return Placement(hosts.resolve(name), args)


def check_own_places(cases: Sequence[Case]) -> None:
    """Raises UsageError for a place that a network of the user's own does not have. Each network is built once, in a child;
    one that cannot be built is left to its rows.
    """
    from attnprof import hosts

    names: dict[str, list[str]] = {}
    for case in cases:
        if case.host is None or not case.host.imported or case.alone:
            continue
        network = str(case.host.text) + case.host.host
        if network not in names:
            alone = dataclasses.replace(case, mechanism=ALONE, args={}, host=dataclasses.replace(case.host, at="", how="after"))
            try:
                names[network] = [str(visit["name"]) for visit in visits_in_child(alone)]
            except UntraceableError:
                names[network] = []
        if names[network]:
            hosts.chosen(case.host, names[network])


def visits_in_child(case: Case) -> list[Mapping[str, Any]]:
    """The Visits of the network of a case, which is the user's own: built and run in a child."""
    from attnprof.execute import Options
    from attnprof.execute.child import Ending, converse
    from attnprof.execute.tracing import child_memory, ended
    from attnprof.records import Record

    options = Options(tracer="attnprof.profiling.placing:visits_of")
    request = {"op": "trace", "tracer": options.tracer, "cases": [to_json(case)], "memory_bytes": child_memory(options)}
    status, detail = "crashed", "the child said nothing"
    for item in converse(request, timeout_s=options.bound_s):
        if isinstance(item, Ending):
            record = ended(Record(case), item, options.bound_s)
            status, detail = record.status, record.detail
            break
        if item["event"] == "traced":
            found: list[Mapping[str, Any]] = item["counts"]["visits"]
            return found
        status, detail = item["status"], item["detail"]
        break
    raise UntraceableError(f"{case.label}: {status}: " + detail.replace("\n", ", at "))
