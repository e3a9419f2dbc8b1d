"""Verdicts on published numbers -> console, Markdown, CSV. Rows are plain values, as in the JSON of `verify`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnprof.report.markdown import escape
from attnprof.report.text import WIDTH, clean, fit, grid, wrap

NOT_FOUND = (
    "No published cost was found for RGA, STA-LSTM, spatial-temporal graph convolution, GLTR, scSE, spatial transformers, "
    "SCA-CNN, EncNet and X-volution as modules, nor for the recurrent attention model. The primary tables of ISA, OCR, ANN "
    "(absolute MB and ms), GCNet, CBAM, BAM, DCN, GloRe, FcaNet-50, TAM, Attention U-Net, A2-Nets, PSANet and LR-Net were not "
    "seen."
)
Rows = Sequence[Mapping[str, Any]]
Counts = Mapping[str, int]
MARKS = {
    "exact": "exact at the printed digits",
    "close": "within the tolerance of the metric (parameters and activations 0.5 %, compute 2 %, memory 3 %, training 10 %)",
    "convention": "holds under another counting convention than the stated one",
    "direction": "order holds, and a size within a factor of 2, or a third of a ratio (in logarithms) or share; not the number",
    "contradicted": "does not hold under any convention tried for its table",
    "unverifiable": "remembered only, or bound to hardware or code that is not here",
}


@dataclass(frozen=True)
class Head:
    """What stands above the table of a paper."""

    title: str
    venue: str
    setup: str


Heads = Mapping[str, Head]


def console(rows: Rows, counts: Counts, heads: Heads) -> str:
    """A table per paper of at most 80 columns, the reason of what does not come out exact below it, then the counts."""
    lines: list[str] = []
    for paper, members in _by_paper(rows):
        lines += [*wrap(f"{clean(paper)}: {clean(heads[paper].title)}"), ""]
        table = [
            [row["id"], published(row), reproduced(row), difference(row), row["verdict"] + ("*" if row["kept"] else "")]
            for row in members
        ]
        titles = ["claim", "published", "reproduced", "diff", "verdict"]
        columns = [[title, *(line[i] for line in table)] for i, title in enumerate(titles)]
        widths = fit(columns, [WIDTH, 16, 14, 9, 13])
        widths[0] = min(widths[0], max(WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1), 20))
        lines += grid([titles], table, widths)
        lines.append("")
        for row in members:
            if row["verdict"] not in ("exact", "close") or row["verdict"] != row["recorded"]:
                lines += wrap(f"{row['id']}: {reason(row)}", WIDTH, "  ")
        lines.append("")
    return "\n".join([*lines, *wrap(summary(counts), WIDTH), *_legend(rows)]) + "\n"


def markdown(rows: Rows, counts: Counts, heads: Heads) -> str:
    """The audit as a document: counts of verdicts, findings, then a table per paper."""
    lines = ["# Published costs, audited", "", summary(counts), ""]
    lines += ["| verdict | amounts and ratios | orders of growth | of the paper's own digits | what it means |"]
    lines += ["|:--|--:|--:|--:|:--|"]
    lines += [f"| {name} | {' | '.join(map(str, _split(counts, name)))} | {meaning} |" for name, meaning in MARKS.items()]
    lines += ["", "## Findings", "", *_findings(rows), *_other_conventions(rows)]
    for paper, members in _by_paper(rows):
        head = heads[paper]
        lines += [
            "",
            f"## {escape(paper)}",
            "",
            f"{escape(head.title)}. {escape(head.venue)}." if head.venue else escape(head.title),
        ]
        if head.setup:
            lines += ["", escape(head.setup)]
        sources = {source: number for number, source in enumerate(dict.fromkeys(row["source"] for row in members), 1)}
        lines += ["", "| claim | published | reproduced | difference | verdict | convention | seen | why |"]
        lines += ["|:--|--:|--:|--:|:--|:--|:--|:--|"]
        for row in members:
            cells = [row["id"], published(row), reproduced(row), difference(row), row["verdict"], _chosen(row)]
            cells += [f"{row['grade']} [{sources[row['source']]}]", reason(row)]
            lines.append(f"| {' | '.join(escape(cell) if cell else '' for cell in cells)} |")
        lines += ["", *(f"[{number}] {escape(source)}  " for source, number in sources.items())]
    lines += ["", "## Looked for and not found", "", NOT_FOUND]
    return "\n".join(lines) + "\n"


def _findings(rows: Rows) -> list[str]:
    """What the files say is worth knowing, contradicted numbers first; then those that are contradicted without a sentence."""
    order = {verdict: place for place, verdict in enumerate(("contradicted", "convention", "direction"))}
    told = sorted((row for row in rows if row["finding"]), key=lambda row: order.get(row["verdict"], len(order)))
    lines = [f"- **{escape(row['paper'])}** ({row['id']}, {row['verdict']}): {escape(row['finding'])}" for row in told]
    silent = [row["id"] for row in rows if row["verdict"] == "contradicted" and not row["finding"] and not row["again"]]
    return [*lines, f"- Contradicted too: {', '.join(silent)}."] if silent else lines


def _other_conventions(rows: Rows) -> list[str]:
    """The tables that another convention explains than the one that their source states."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        if row["verdict"] == "convention":
            found.setdefault((row["paper"], row["table"]), row)
    if not found:
        return []
    lines = [
        "",
        "Tables that hold under another convention than the stated one:",
        "",
        "| table | stated | holds as | rows | tried |",
    ]
    lines.append("|:--|:--|:--|--:|--:|")
    for (paper, name), row in found.items():
        cells = [
            f"{paper}, {name}",
            row["stated"],
            row["convention"],
            f"{row['explained']} of {row['rows']}",
            str(row["tried"]),
        ]
        lines.append(f"| {' | '.join(map(escape, cells))} |")
    return lines


def table(rows: Rows, counts: Counts, heads: Heads) -> str:
    """CSV: one row per claim, the keys of the JSON as columns."""
    out = io.StringIO()
    names = [key for key in rows[0] if key != "nearest"] if rows else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if row[name] is None else _plain(row[name]) for name in names])
    return out.getvalue()


RENDERERS: Mapping[str, Callable[[Rows, Counts, Heads], str]] = {"md": markdown, "csv": table}


def published(row: Mapping[str, Any]) -> str:
    """'108 GFLOPs'."""
    return _with_unit(row["printed"], row["unit"])


def reproduced(row: Mapping[str, Any]) -> str:
    """With one digit more than is printed; '-' where nothing gives the number."""
    if row["reproduced"] is None:
        return "-"
    decimals = len(row["printed"].partition("..")[0].partition(".")[2]) + 1
    return _with_unit(f"{row['reproduced']:.{decimals}f}", row["unit"])


def difference(row: Mapping[str, Any]) -> str:
    """'+0.4 %'."""
    return "" if row["difference"] is None else f"{100 * row['difference']:+.1f} %"


def reason(row: Mapping[str, Any]) -> str:
    """The line of the file, and what the search for a convention found."""
    parts = [row["why"].rstrip(".")]
    if row["verdict"] != row["recorded"]:
        parts.append(f"on record: {row['recorded']}")
    if row["arithmetic"]:
        parts.append(f"{'measured here' if row['metric'] == 'latency' else 'the arithmetic alone'}: {row['arithmetic']}")
    if row["verdict"] == "convention":
        parts.append(f"holds as {row['convention']}, stated is {row['stated']}")
    if row["nearest"]:
        near = f"{row['nearest']['reproduced']:.4g}"
        parts.append(f"nearest of {row['tried']} conventions: {near} as {row['nearest']['convention']}")
    return "; ".join(parts)


def summary(counts: Counts) -> str:
    """One sentence of counts."""
    found = ", ".join(f"{_split(counts, name)[0]} {name}" for name in MARKS if _split(counts, name)[0])
    rest = f"{counts['again']} rows have one of them again, under another configuration; {counts['remembered']} more are only"
    kinds = [(counts["orders"], "orders of growth", "orders"), (counts["own"], "of the paper's own digits", "own")]
    others = [f"{count} {what}, {counts[f'exact_{kind}']} of them exact" for count, what, kind in kinds if count]
    told = f"{counts['seen']} numbers seen in a source: {found or 'no amount or ratio'}"
    return f"{'; '.join([told, *others])}. {rest} remembered, and do not count."


def _split(counts: Counts, name: str) -> tuple[int, int, int]:
    """How many have a verdict: amounts and ratios that were counted, orders of growth, quotients of the paper's own digits."""
    orders, own = counts[f"{name}_orders"], counts[f"{name}_own"]
    return counts[name] - orders - own, orders, own


def _legend(rows: Rows) -> list[str]:
    if any(row["kept"] for row in rows):
        return wrap("* not measured here: the verdict on record stands.", WIDTH)
    return []


def _chosen(row: Mapping[str, Any]) -> str:
    """The convention, how many of the table's rows it explains and among how many it was chosen."""
    if not row["convention"]:
        return ""
    if row["tried"] <= 1 or not row["rows"]:
        return str(row["convention"])
    return f"{row['convention']} ({row['explained']} of {row['rows']} rows; {row['tried']} tried)"


def _by_paper(rows: Rows) -> list[tuple[str, list[Mapping[str, Any]]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["paper"], []).append(row)
    return list(found.items())


def _with_unit(text: str, unit: str) -> str:
    if unit == "N^":
        return f"N^{text}"
    return f"{text}{'' if unit in ('x', '') else ' '}{unit}"


def _plain(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
