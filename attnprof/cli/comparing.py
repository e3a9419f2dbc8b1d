"""`compare`: mechanisms side by side, with ratios and a sentence per metric."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from attnprof.cli import echo, echo_json
from attnprof.cli.hosting import channels_of, check_own_places, host_options, network_of
from attnprof.cli.options import Seconds, check_entry, frames_of, modes_of, name_and_args, shape_options, timeout_option
from attnprof.cli.progress import progress, say
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import Case, Record, public_import

_CLAIMS = 5  # printed per pair


@click.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="A B...")
@shape_options
@click.option("--mode", help="inference, training, or both with a comma (the default).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, or none to trace only.")
@click.option("--sdpa", default="auto", type=click.Choice(("auto", "math", "fused")), help="Attention kernel to assume.")
@click.option("--calibrated", is_flag=True, help="Also the calibrated peak: every op run alone on the device.")
@click.option(
    "--bounds",
    metavar="RATES",
    help="Also the time that nothing beats: auto (rates of the device used), measured, or a device such as h100-sxm.",
)
@host_options
@click.option("--sort", metavar="METRIC", help="Sort the rows by a metric.")
@click.option("--budget", default=5.0, show_default=True, type=Seconds(), help="Seconds of sampling per case.")
@click.option(
    "--replicates",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    metavar="K",
    help="Processes that time every case, each with its own budget; from 2 on, intervals cover what varies between them.",
)
@timeout_option
@click.option("--force", is_flag=True, help="Compare mechanisms whose inputs have another layout.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def compare_command(names: tuple[str, ...], **options: Any) -> int:
    """A and B... side by side: every ratio is A / B.

    A name is a mechanism (ccnet, spatial/ccnet, ccnet[recurrence=1]) or a class of your own (./mine.py:Mine), which is run.
    With --host: the network alone, then with each of them in it, and what each adds.
    """
    from attnprof.report import compare, metrics

    if len(names) < 2 and not options["host"]:
        raise UsageError("compare wants at least two mechanisms: `attnprof compare nonlocal ccnet --hw 97x97`.")
    shown: tuple[str, ...] = ("params", "macs", "flops", "peak_memory", "latency")
    sortable = (*shown, "measured_memory", "calibrated_memory", "bound")
    if options["sort"] and metrics.metric(options["sort"]).key not in sortable:
        raise UsageError(f"--sort {options['sort']}: compare shows {', '.join(sortable)}.")
    if options["calibrated"] and options["device"] == "none":
        raise UsageError("--calibrated runs every op on a device: give --device cpu or cuda, not none.")
    if options["bounds"]:
        from attnprof.profiling import rates

        rates.check_wanted(options["bounds"])
    if options["replicates"] > 1 and options["device"] == "none":
        raise UsageError("--replicates times every case: give --device cpu or cuda, not none.")
    cases = _cases(names, options)
    if not options["force"] and not options["host"]:
        _refuse_other_layouts(cases)
        _refuse_other_frames(cases)
    check_own_places(cases)
    records = _trace_here(cases) if _in_process(cases) else _run(cases, options)
    if any(record.memory is not None for record in records):
        shown = (*shown, "measured_memory")
    if options["calibrated"]:
        shown = (*shown, "calibrated_memory")
    if options["bounds"]:
        records = rates.stamped(records, options["bounds"])
        timed = any(record.timing is not None for record in records)
        shown = (*shown, "bound", "bound_ratio") if timed else (*shown, "bound")
    compared = compare.comparison(records, cases[0].label, shown)
    claims = _claims(cases)
    if options["as_json"]:
        echo_json(compare.data(compared) | {"claims": claims})
    else:
        click.echo(compare.render(compared, options["sort"]), nl=False)
        for line in _claim_lines(claims):
            echo(line)
    return 5 if any(record.status != "ok" for record in records) else 0


def _cases(names: Sequence[str], options: dict[str, Any]) -> tuple[Case, ...]:
    from attnprof import plan, spec

    entries = []
    for name in names:
        plain, args = name_and_args(name)
        check_entry(plain, args)
        entries.append(spec.make_entry(plain, args, spec.label_of(plain) + name[len(plain) :] if args else None))
    entries = _distinct(names, entries)
    device = options["device"]
    if device != "none":
        from attnprof.execute import resolve_device

        device, warning = resolve_device(device)
        if warning:
            say(f"warning: {warning}")
    network = network_of(options)
    frames = 1 if network is not None else frames_of(options["frames"], [entry.mechanism for entry in entries])
    size = spec.Input((channels_of(options, network),), (spec.parse_hw(options["hw"]),), (options["batch"],), (frames,))
    wanted = spec.Spec(
        inputs=(size,),
        entries=tuple(entries),
        name="compare",
        dtype=(options["dtype"],),
        modes=modes_of(options["mode"]),
        sdpa=(options["sdpa"],),
        hosts=() if network is None else (network,),
    )
    return plan.expand(wanted, device)


def _distinct(names: Sequence[str], entries: list[Any]) -> list[Any]:
    """Labels that differ: the typed name (no folder of it) where two short ones agree, a number where even those do."""
    import dataclasses

    out: list[Any] = []
    for name, entry in zip(names, entries, strict=True):
        label = entry.label
        if sum(other.label == label for other in entries) > 1:
            label = public_import(name)
        count = sum(other.label.partition("#")[0] == label for other in out)
        out.append(dataclasses.replace(entry, label=f"{label}#{count + 1}" if count else label))
    return out


def _refuse_other_layouts(cases: Sequence[Case]) -> None:
    """Catalogue mechanisms must take the same kind of tensor; a module of the user's own is taken as it is."""
    from attnprof import mechanisms

    layouts = {case.label: mechanisms.describe(case.mechanism).layout for case in cases if not case.imported}
    first = next(iter(layouts.items()), None)
    for label, layout in layouts.items():
        if first is not None and layout != first[1]:
            raise NothingSelectedError(
                f"{first[0]} takes {first[1]} tensors and {label} takes {layout}: their costs are not those of one job. "
                "Use --force to compare all the same."
            )


def _refuse_other_frames(cases: Sequence[Case]) -> None:
    """A clip and an image are not one job."""
    frames = {case.label: case.shape.frames for case in cases}
    label, first = next(iter(frames.items()))
    for other, count in frames.items():
        if count != first:
            clip, image = (label, other) if first > count else (other, label)
            raise NothingSelectedError(
                f"{clip} looks over {max(first, count)} frames and {image} takes one image: their costs are not those of one "
                "job. Use --force to see both all the same, without ratios; --frames 1 puts them at one frame."
            )


def _claims(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """What papers print of each pair, or of the one mechanism where there is no pair, with the verdicts on record."""
    from attnprof import claims

    known = list(dict.fromkeys(case.mechanism for case in cases if ":" not in case.mechanism and not case.alone))
    if len(known) == 1 and not any(":" in case.mechanism for case in cases):
        name = known[0].split("/")[1]
        return [{"mechanism": name, "other": None, "text": each.text()} | asdict(each) for each in claims.about(known[0])]
    return [
        {"mechanism": name.split("/")[1], "other": other.split("/")[1], "text": each.text()} | asdict(each)
        for name, other in itertools.combinations(known, 2)
        for each in claims.about(name, other)
    ]


def _claim_lines(claims: Sequence[dict[str, Any]]) -> list[str]:
    """A few claims per pair, and how to see the rest."""
    from attnprof.report.text import wrap

    lines = []
    for (name, other), group in itertools.groupby(claims, key=lambda each: (each["mechanism"], each["other"])):
        rows = list(group)
        papers = ", ".join(dict.fromkeys(each["claim"].partition(".")[0] + ".*" for each in rows))
        more = f"and {len(rows) - _CLAIMS} more" if len(rows) > _CLAIMS else "reasons"
        texts = [*(each["text"] for each in rows[:_CLAIMS]), f"{more}: `attnprof verify --only '{papers}'`"]
        lines += ["", f"published on {name} and {other}:" if other else f"published on {name}:"]
        lines += [f"  {line}" for text in texts for line in wrap(text, 78, "  ")]
    return lines


def _in_process(cases: Sequence[Case]) -> bool:
    """Tracing catalogue mechanisms needs no child; other people's code gets one."""
    return all(case.device == "none" and not case.imported for case in cases)


def _trace_here(cases: Sequence[Case]) -> list[Record]:
    from attnprof.cli.tracing import trace_here

    return [trace_here(case) for case in cases]


def _run(cases: Sequence[Case], options: dict[str, Any]) -> list[Record]:
    from attnprof.execute import Options, run_cases

    chosen = Options(
        budget_s=options["budget"],
        timeout_s=options["timeout"],
        calibrate=options["calibrated"],
        replicates=options["replicates"],
    )
    with progress(options["quiet"]) as listener:
        found = {record.case.key: record for record in run_cases(cases, chosen, listener)}
    return [found[case.key] for case in cases]


COMMANDS = {"compare": compare_command}
