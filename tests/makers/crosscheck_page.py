"""reports/crosscheck.md: every counter over the whole catalogue: `python -m tests.makers.crosscheck_page --out FILE`.

Every mechanism with its defaults at the shape that its file calls natural, the sides cut to SIDE where they are larger, because
the other counters run the module for real. Everything on the page is computed from the opinions of one run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from attnprof.execute import Options
from attnprof.execute.crosscheck import crosscheck_cases
from attnprof.execute.forks import close_server
from attnprof.profiling.crosscheck.names import EVERY, OWN
from attnprof.records import VERDICTS, Case, Opinion, Record
from attnprof.report import crosscheck
from attnprof.report.markdown import escape
from tests.makers.catalogue_page import mechanisms_in_order, natural_shape

SIDE = 28
TIMEOUT_S = 300.0
_NAMED = 4

_HEAD = """\
# Every counter over the catalogue

Made by `make crosscheck`: torch {torch}, fvcore {fvcore}, ptflops {ptflops}, Python {python}, on the CPU. {count} mechanisms
with their default arguments, at the shape that their file calls natural with sides of at most {side}; float32, one forward pass
in evaluation. MACs throughout: torch's FLOPs are halved. `attnprof crosscheck NAME --hw HxW` does the same for one module.

Each counter gets a module of its own with real inputs, in a child process. Error: against attnprof's trace, without data;
`{own}` is the same counter on a real run. A verdict is `exact`, `explained` (every MAC of the difference is attributed by
comparing what the counter counted with the ops that ran), `unexplained`, or why there is no number.
"""


def cases() -> list[Case]:
    """One case per mechanism of the catalogue."""
    out = []
    for name, mechanism in mechanisms_in_order():
        shape = natural_shape(mechanism)
        shape = replace(shape, height=min(shape.height, SIDE), width=min(shape.width, SIDE))
        out.append(Case(name, mechanism.name, {}, shape, settings={"sdpa": "auto"}))
    return out


def summary(records: Sequence[Record]) -> list[str]:
    """Per counter: how many mechanisms of each verdict, and the errors of those that are off."""
    columns = ("counter", *VERDICTS, "lowest error", "highest error", "median seconds")
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    for counter, verdicts in crosscheck.summary(records):
        opinions = _of(records, counter)
        found = sorted((opinion for _, opinion in opinions if opinion.error is not None), key=lambda each: each.error or 0.0)
        ends = [crosscheck.error_text(found[0]), crosscheck.error_text(found[-1])] if found else ["-", "-"]
        taken = statistics.median(opinion.seconds for _, opinion in opinions)
        lines.append("| " + " | ".join([counter, *(str(verdicts[name]) for name in VERDICTS), *ends, f"{taken:.2f}"]) + " |")
    return [*lines, ""]


def _of(records: Sequence[Record], counter: str) -> list[tuple[Record, Opinion]]:
    return [(record, opinion) for record in records for opinion in record.crosscheck if opinion.counter == counter]


def sentence(records: Sequence[Record], counter: str) -> str:
    """What a counter misses and adds over the catalogue, and where it gave no number."""
    opinions = _of(records, counter)
    parts = [_listed("misses", [(record, opinion.missed) for record, opinion in opinions])]
    parts.append(_listed("adds", [(record, opinion.extra) for record, opinion in opinions]))
    failed = [(record.case.label, opinion) for record, opinion in opinions if opinion.macs is None]
    if failed:
        parts.append("gave no number for " + ", ".join(f"{label} ({opinion.sentence})" for label, opinion in failed))
    said = "; ".join(part for part in parts if part)
    return f"- **{counter}**: {escape(said) if said else 'nothing: it agrees on every mechanism'}."


def _listed(verb: str, found: Sequence[tuple[Record, object]]) -> str:
    """'misses @ (bmm) in 12 mechanisms (most in sagan: 44.1 % of its MACs), ...', the most frequent first."""
    where: dict[str, list[tuple[float, str]]] = {}
    for record, amounts in found:
        assert isinstance(amounts, dict)
        assert record.counts is not None
        for name, macs in amounts.items():
            share = macs / record.counts.macs if record.counts.macs else float("inf")
            where.setdefault(name, []).append((share, record.case.label))
    ordered = sorted(where.items(), key=lambda item: (-len(item[1]), item[0]))
    texts = []
    for name, places in ordered[:_NAMED]:
        share, label = max(places)
        digits = f"{100 * share:.0f}" if share >= 0.995 else f"{100 * share:.2g}"
        most = f"{digits} % of its MACs" if share != float("inf") else "which has no MACs"
        texts.append(f"{name} in {len(places)} {'mechanism' if len(places) == 1 else 'mechanisms'} (most in {label}: {most})")
    if len(ordered) > _NAMED:
        texts.append(f"and {len(ordered) - _NAMED} more")
    return f"{verb} {', '.join(texts)}" if texts else ""


def page(records: Sequence[Record]) -> str:
    """The whole page."""
    head = _HEAD.format(
        torch=version("torch"),
        fvcore=version("fvcore"),
        ptflops=version("ptflops"),
        python=platform.python_version(),
        count=len(records),
        side=SIDE,
        own=OWN,
    )
    failed = [f"- {record.case.label}: not traced: {escape(record.detail)}" for record in records if record.counts is None]
    return "\n".join(
        [
            head,
            *summary(records),
            "## What each one misses",
            "",
            *(sentence(records, counter) for counter, _ in crosscheck.summary(records)),
            *failed,
            "",
            *crosscheck.markdown(records, escape),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.makers.crosscheck_page", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="mechanisms by a part of their name")
    given = parser.parse_args(arguments)
    chosen = [case for case in cases() if not given.only or given.only in case.mechanism]
    records = []
    for record in crosscheck_cases(chosen, EVERY, Options(timeout_s=TIMEOUT_S)):
        records.append(record)
        print(f"{len(records)}/{len(chosen)} {record.case.label}", file=sys.stderr, flush=True)
    close_server()
    text = page(records)
    if given.out is None:
        print(text, end="")
    else:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
