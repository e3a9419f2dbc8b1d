"""`explain`: per-op and per-submodule cost, who holds the memory at the peak and over the pass, and what would lower it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from attnprof.cli import echo_json
from attnprof.cli.hosting import alone_of, channels_of, check_own_places, host_options, network_of
from attnprof.cli.options import Seconds, check_entry, frames_of, modes_of, name_and_args, shape_options
from attnprof.errors import UntraceableError, UsageError
from attnprof.profiling.whatif import Explanation
from attnprof.records import ALONE, SCHEMA_VERSION, Case, Record, Shape, to_json


@click.command("explain")
@click.argument("name", required=False)
@shape_options
@host_options
@click.option("--mode", help="inference, training, or both with a comma (the default).")
@click.option("--sdpa", default="auto", type=click.Choice(("auto", "math", "fused")), help="Attention kernel to assume.")
@click.option("--top", default=15, show_default=True, type=click.IntRange(min=1), help="Rows per table.")
@click.option("--calibrated", is_flag=True, help="Add the peak with the scratch of this machine's kernels, each op run once.")
@click.option("--timeout", default=300.0, show_default=True, type=Seconds(), help="Seconds for --calibrated per mode.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
def explain_command(
    name: str | None, mode: str | None, top: int, calibrated: bool, timeout: float, as_json: bool, **options: Any
) -> None:
    """Where the cost of NAME goes, who holds the memory at the peak, and what would lower it.

    NAME is a mechanism (ccnet, spatial/ccnet, ccnet[recurrence=1]) or a class of your own (./mine.py:Mine). With --host: of the
    whole network with NAME in it, or of the network alone where there is no NAME.
    """
    from attnprof.profiling.forms import kept
    from attnprof.report import explain

    found = []
    for case in _cases(name, modes_of(mode), options):
        explanation = _explained(case)
        record = Record(case, counts=explanation.counts)
        found.append((_calibrated(record, timeout) if calibrated else record, explanation))
    if as_json:
        echo_json({"schema": SCHEMA_VERSION, "records": [_as_json(record, explanation) for record, explanation in found]})
        return
    ascii_only = not _prints("█▼└")
    texts = [explain.render(record, top, each, ascii_only, kept.forms_for(record.case)) for record, each in found]
    click.echo("\n".join(texts), nl=False)


def _cases(name: str | None, modes: Sequence[str], options: Mapping[str, Any]) -> list[Case]:
    """One per mode, of what is typed. Raises UsageError for what is wrong with it."""
    import dataclasses

    from attnprof import spec
    from attnprof.spec.networks import Network, label_at, placements

    network = network_of(options) if name or not options["host"] else None
    if name is None and not options["host"]:
        raise UsageError("explain wants a mechanism, or a network: `attnprof explain ccnet --hw 97x97`.")
    plain, args = name_and_args(name or ALONE)
    if name:
        check_entry(plain, args)
    height, width = spec.parse_hw(options["hw"])
    channels = channels_of(options, network) if name else channels_of(options, Network(alone_of(options).host))
    shape = Shape(options["batch"], channels, height, width)
    settings = {"sdpa": options["sdpa"]}
    if name is None:
        alone = alone_of(options)
        case = Case(ALONE, alone.text, {}, shape, options["dtype"], host=alone, settings=settings)
    elif network is not None:
        ((_, ((placed, _),)),) = placements([network])
        label = label_at(str(name), f"at={placed.at}" + ("" if placed.how == "after" else f",how={placed.how}"))
        mechanism = spec.make_entry(plain, args).mechanism
        case = Case(mechanism, label, args, shape, options["dtype"], host=placed, settings=settings)
    else:
        entry = spec.make_entry(plain, args)
        shape = dataclasses.replace(shape, frames=frames_of(options["frames"], [entry.mechanism]))
        case = Case(entry.mechanism, str(name) if args else entry.label, args, shape, options["dtype"], settings=settings)
    check_own_places([case])
    return [dataclasses.replace(case, mode=mode) for mode in modes]


def _calibrated(record: Record, timeout_s: float) -> Record:
    """The record with its calibrated peak on the device of this machine, or with the reason why there is none."""
    from attnprof.execute import Options, resolve_device
    from attnprof.execute.calibrating import calibrated_record

    return calibrated_record(record, resolve_device("auto")[0], Options(timeout_s=timeout_s))


def _explained(case: Case) -> Explanation:
    """The explanation of a case; the user's own code runs in a child."""
    from attnprof.worker import failure

    try:
        if case.imported:
            return _in_child(case)
        from attnprof.profiling.whatif.explain import explain_case

        return explain_case(case)
    except (UsageError, UntraceableError):
        raise
    except Exception as error:
        event = failure(case, error)
        raise _unexplained(case, event["status"], event["detail"]) from error


def _in_child(case: Case) -> Explanation:
    from attnprof.execute import Options
    from attnprof.execute.child import Ending, converse
    from attnprof.execute.tracing import child_memory, ended
    from attnprof.profiling.whatif import explanation_from_json

    options = Options(tracer="attnprof.profiling.whatif.explain:explain_case")
    request = {"op": "trace", "tracer": options.tracer, "cases": [to_json(case)], "memory_bytes": child_memory(options)}
    for item in converse(request, timeout_s=options.bound_s):
        if isinstance(item, Ending):
            record = ended(Record(case), item, options.bound_s)
            raise _unexplained(case, record.status, record.detail)
        if item["event"] != "traced":
            raise _unexplained(case, item["status"], item["detail"])
        return explanation_from_json(item["counts"])
    raise _unexplained(case, "crashed", "the child said nothing")


def _unexplained(case: Case, status: str, detail: str) -> UntraceableError:
    place = detail.replace("\n", ", at ")
    return UntraceableError(f"{case.label} {case.shape.text()} {case.mode}: {status}: {place}")


def _as_json(record: Record, found: Explanation) -> dict[str, Any]:
    """The record, with `timeline`, `counterfactuals`, `notes` and what was `tried` beside its counts."""
    more = to_json(found)
    for change, noun in zip(more["counterfactuals"], found.counterfactuals, strict=True):
        change["saves_bytes"] = noun.saves_bytes
    return to_json(record) | {name: more[name] for name in ("timeline", "counterfactuals", "notes", "tried")}


def _prints(text: str) -> bool:
    """Can stdout show these characters?"""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


COMMANDS = {"explain": explain_command}
