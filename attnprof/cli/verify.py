"""`verify`: published numbers counted again, each with its verdict; other than the one on record is exit 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attnprof.cli import echo_json
from attnprof.cli.options import Seconds
from attnprof.cli.progress import progress, say
from attnprof.errors import NothingSelectedError, UntraceableError, UsageError
from attnprof.records import SCHEMA_VERSION, Case, Counts, Outputs

if TYPE_CHECKING:
    from attnprof.claims import Claim, Paper, Verdict
    from attnprof.claims.judge import Tools
    from attnprof.report.claims import Heads

FORMATS = ("md", "csv")


@click.command("verify")
@click.argument("claims", nargs=-1, metavar="[CLAIMS]...")
@click.option("--only", metavar="GLOB", help="Claims whose id matches, such as 'ccnet.*'; several with commas.")
@click.option(
    "--device", default="none", show_default=True, help="none, or where ratios of latencies are measured: auto, cpu, cuda."
)
@click.option("--budget", default=2.0, show_default=True, type=Seconds(), help="Seconds of sampling per case that is measured.")
@click.option("--format", "formats", metavar="md,csv", help="The document (md) or the rows (csv) in place of the tables.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write them into DIR as claims.md, claims.csv.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only on stderr.")
def verify_command(
    claims: tuple[str, ...],
    only: str | None,
    device: str,
    budget: float,
    formats: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Published numbers against what is counted here: published, reproduced, difference, verdict, and why.

    CLAIMS are files, or names of those that are shipped (ccnet for specs/claims/ccnet.yaml); all of these where none is given.
    """
    from attnprof.claims import judge, to_json
    from attnprof.report import claims as report

    wanted = _formats(formats, out, as_json)
    papers = read(claims)
    verdicts = verified(papers, only, device, budget, quiet)
    rows = [to_json(verdict) for verdict in verdicts]
    counts = judge.tally(verdicts)
    if as_json:
        echo_json({"schema": SCHEMA_VERSION, "verdicts": rows, "counts": counts})
    for name in wanted:
        text = report.RENDERERS[name](rows, counts, heads(papers))
        if out is None:
            click.echo(text, nl=False)
        else:
            _write(out / f"claims.{name}", text)
    if not (as_json or (wanted and out is None)):
        click.echo(report.console(rows, counts, heads(papers)), nl=False)
    others = [verdict for verdict in verdicts if not verdict.as_recorded]
    for verdict in others:
        say(_difference(verdict))
    return 1 if others else 0


def verified(papers: Sequence[Paper], only: str | None, device: str, budget: float, quiet: bool) -> list[Verdict]:
    """The verdicts of all claims that match. Raises NothingSelectedError where none does."""
    from attnprof.claims import judge

    globs = [glob.strip() for glob in only.split(",")] if only else ["*"]

    def chosen(claim: Claim) -> bool:
        return any(fnmatchcase(claim.name, glob) for glob in globs)

    every = [claim.name for paper in papers for claim in paper.claims]
    if not every:
        raise NothingSelectedError(f"there is no claim in {', '.join(paper.file for paper in papers)}.")
    if not any(chosen(claim) for paper in papers for claim in paper.claims):
        raise NothingSelectedError(f"--only {only}: none of {len(every)} claims matches.{_near(globs, every)}")
    tools = _tools(device, budget, quiet)
    return [verdict for paper in papers for verdict in judge.judge(paper, tools, chosen)]


def _near(globs: Sequence[str], known: Sequence[str]) -> str:
    import difflib

    near = [name for glob in globs for name in difflib.get_close_matches(glob.strip("*"), known, n=1, cutoff=0.4)]
    return f" Did you mean '{near[0]}'?" if near else ""


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
    say(f"[verify] wrote {path}")


def _formats(text: str | None, out: Path | None, as_json: bool) -> tuple[str, ...]:
    """The formats that are asked for; both with --out where none is. Raises UsageError for what stdout cannot carry."""
    if out is not None and not text:
        return FORMATS
    names = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text else ()
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--format: '{name}' is no format of verify: {', '.join(FORMATS)}.")
    if out is None and len(names) + as_json > 1:
        raise UsageError("stdout carries one document: give --out DIR for several formats, or for one beside --json.")
    return names


def heads(papers: Sequence[Paper]) -> Heads:
    """What stands above the table of each paper."""
    from attnprof.report import claims as report

    return {paper.name: report.Head(paper.title, paper.venue, paper.setup) for paper in papers}


def read(asked: Sequence[str]) -> tuple[Paper, ...]:
    """The papers of files and of names that are shipped; all that are shipped where nothing is asked for."""
    from attnprof import claims
    from attnprof.claims.parse import parse_files
    from attnprof.spec.values import nearest

    known = claims.shipped()
    files = []
    for text in asked or known:
        file = known.get(text, Path(text))
        if text not in known and not file.exists():
            hint = nearest(text, known) or f"there are {', '.join(known)}, and files of your own."
            raise UsageError(f"no claims file is called '{text}': {hint}")
        if file.is_dir():
            raise UsageError(f"{file} is a folder: name a claims file in it.")
        files.append(file)
    if not files:
        raise NothingSelectedError(f"there is no claims file in {claims.folder()}.")
    return parse_files(list(dict.fromkeys(files)))


def _tools(device: str, budget: float, quiet: bool) -> Tools:
    from attnprof.claims import laws
    from attnprof.claims.judge import Tools

    known: dict[tuple[str, bool], tuple[Counts, int]] = {}
    made: dict[str, Outputs] = {}

    def count(case: Case, fused: bool) -> tuple[Counts, int]:
        if (case.key, fused) not in known:
            known[case.key, fused] = (_fused(case) if fused else _counted(case), _input_bytes(case))
        return known[case.key, fused]

    def grow(table: Any, case: Case) -> laws.Growth:
        import dataclasses

        return laws.grow(dataclasses.replace(case, mode=table.mode), table.of, _counted)

    def outputs(case: Case) -> Outputs:
        from attnprof.profiling.outputs import outputs_of

        if case.key not in made:
            made[case.key] = outputs_of(case)
        return made[case.key]

    return Tools(count, grow, outputs, None if device == "none" else _timer(device, budget, quiet))


def _counted(case: Case) -> Counts:
    from attnprof.cli.tracing import counts_here

    return counts_here(case)


def _fused(case: Case) -> Counts:
    """The counts with every product -> softmax -> product run as F.scaled_dot_product_attention: MACs and peak of tensors."""
    import dataclasses

    from attnprof.profiling.whatif.explain import explain_case

    found = explain_case(case)
    changes = [change for change in found.counterfactuals if change.kind == "fuse"]
    if not changes:
        raise UntraceableError(f"{case.label}: there is no attention in it that can be fused")
    macs = found.counts.macs + changes[0].extra_macs
    return dataclasses.replace(found.counts, macs=macs, peak_bytes=changes[0].peak_bytes)


def _input_bytes(case: Case) -> int:
    """Bytes of a case's inputs."""
    import math

    from attnprof import mechanisms
    from attnprof.profiling import instantiate, loading

    specs = mechanisms.input_specs(loading.load(case), case.shape, case.args)
    return sum(math.prod(each.shape) * instantiate.DTYPES[each.dtype or case.dtype].itemsize for each in specs)


def _timer(device: str, budget: float, quiet: bool) -> Callable[[Sequence[Case]], Mapping[str, float]]:
    """Medians in seconds by the key of the case as it was asked for; what could not be measured is not there."""
    import dataclasses

    from attnprof.execute import Options, resolve_device, run_cases

    place, warning = resolve_device(device)
    if warning:
        say(f"warning: {warning}")

    def time(cases: Sequence[Case]) -> dict[str, float]:
        placed = {dataclasses.replace(case, device=place).key: case.key for case in cases}
        asked = [dataclasses.replace(case, device=place) for case in cases]
        with progress(quiet) as listener:
            records = list(run_cases(asked, Options(budget_s=budget), listener))
        return {placed[record.case.key]: record.timing.median_s for record in records if record.timing is not None}

    return time


def _difference(verdict: Verdict) -> str:
    claim = verdict.claim
    value = "nothing" if verdict.reproduced is None else f"{verdict.reproduced:.6g}"
    return (
        f"attnprof: {claim.name}: {verdict.verdict}, on record {claim.verdict}: published {claim.published.text} {claim.unit}, "
        f"reproduced {value}."
    )


COMMANDS = {"verify": verify_command}
