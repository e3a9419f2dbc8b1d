"""--host, --at, --how: the network that a mechanism is placed in, for the commands that take one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli.options import F, check_entry, name_and_args
from attnprof.errors import UsageError
from attnprof.records import HOW

if TYPE_CHECKING:
    from attnprof.spec import Network


def host_options(command: F) -> F:
    """--host, --at, --how."""
    for option in (
        click.option("--how", default="after", show_default=True, type=click.Choice(HOW), help="How it stands there."),
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
