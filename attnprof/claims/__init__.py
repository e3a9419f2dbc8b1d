"""Published numbers, audited: what a source says, under which convention, and what comes out when it is counted here.

A claims file (specs/claims/*.yaml, one per paper) holds cases, tables and claims. A claim is one printed number: `value` is
arithmetic over the cases, in which a case stands for what its table's metric counts. For every table all conventions that
its source leaves open are tried, and one has to serve all its rows (`judge`). No torch here: who counts is passed in.

model.py, parse.py   a YAML file -> Paper, or every mistake in it at its place
conventions.py       the closed list of what a printed number may count
reading.py           printed digits, tolerances, and how far a number is from what is printed
judge.py             Paper, and a function that counts -> Verdicts
laws.py              growth in N: of kept closed forms, and by fitted slopes
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from attnprof.claims.expression import Value
from attnprof.claims.reading import Printed, Tolerance
from attnprof.records import ALONE, Case

VERDICTS = ("exact", "close", "convention", "direction", "contradicted", "unverifiable")
GRADES = {
    "P": "seen in primary material",
    "T": "seen in third-party text",
    "I": "seen in an issue thread, the author or a user speaking",
    "M-high": "remembered, not seen",
    "M-mid": "remembered, not seen",
    "M-low": "remembered, not seen",
}


@dataclass(frozen=True)
class Table:
    """Numbers of one metric printed together: one convention has to explain all of them.

    says: the convention that the source states, by axis. fixed: axes that the source settles, which are not tried otherwise.
    of: the field of Counts whose growth an order table is about. mode: what an order or latency table is about.
    """

    name: str
    metric: str
    unit: str
    what: str = ""
    says: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    of: str = "macs"
    mode: str = "inference"


@dataclass(frozen=True)
class Claim:
    """One printed number and the verdict on record. `value` None: nothing here gives it, `why` says the reason.

    again: the claim whose number this is once more, under another configuration; such rows do not vote and are not counted.
    """

    name: str
    table: Table
    published: Printed
    unit: str
    value: Value | None
    verdict: str
    why: str
    grade: str
    source: str
    quote: str = ""
    tolerance: Tolerance | None = None  # None: the default of the metric
    finding: str = ""
    again: str = ""
    line: int = 0

    @property
    def seen(self) -> bool:
        """Whether the number was seen in a source: what is only remembered is no evidence."""
        return not self.grade.startswith("M")


@dataclass(frozen=True)
class Paper:
    """One claims file. Cases are in inference mode; a convention may ask for training."""

    name: str
    title: str
    venue: str
    setup: str
    file: str
    cases: Mapping[str, Case]
    fused: frozenset[str]  # names of cases whose attention runs as F.scaled_dot_product_attention instead
    tables: Mapping[str, Table]
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Verdict:
    """What was found for a claim.

    reproduced: in the claim's unit; None where nothing gives it. difference: reproduced / published - 1. kept: the verdict on
    record stands because nothing was measured or counted. arithmetic: what the numbers alone say, of a row that is only
    remembered. tried: conventions; explained, rows: of the table, by the chosen one. nearest: for what no convention explains,
    the one that comes nearest and what it gives.
    """

    claim: Claim
    paper: str
    verdict: str
    why: str
    reproduced: float | None = None
    difference: float | None = None
    convention: str = ""
    stated: str = ""
    tried: int = 0
    explained: int = 0
    rows: int = 0
    kept: bool = False
    arithmetic: str = ""
    nearest: tuple[str, float] | None = None

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the one on record."""
        return self.verdict == self.claim.verdict


def folder() -> Path:
    """Where the shipped claims files are: specs/claims of a clone, or `data` of the installed package, which is the same."""
    here = Path(__file__).parent
    clone = here.parents[1] / "specs" / "claims"
    return clone if clone.is_dir() else here / "data"


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of a claims file, for editors; specs/claims/schema.json is this."""
    from attnprof.claims.model import PaperModel

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PaperModel.model_json_schema()}


def shipped() -> dict[str, Path]:
    """{name: file} of the shipped claims files."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


@dataclass(frozen=True)
class Published:
    """A claim as `compare` and `show` name it: which paper prints what, and the verdict on record."""

    paper: str
    claim: str
    quote: str
    number: str
    verdict: str
    why: str

    def text(self) -> str:
        """'CCNet: "+RCCA(R=2)" 16.5 GFLOPs: close (ccnet.r2.gflops)'."""
        quote = f'"{self.quote}" ' if self.quote else ""
        return f"{self.paper}: {quote}{self.number}: {self.verdict} ({self.claim})"


def about(mechanism: str, other: str | None = None) -> tuple[Published, ...]:
    """The published numbers about a mechanism ('family/name'), or about two of them: no torch, verdicts on record.

    Of two, those that set one against the other come first, then the rows of tables that both have numbers in. Numbers that
    were only remembered are left out, as are rows that stand there once more under another configuration.
    """
    wanted = {mechanism, *([other] if other else [])}
    together: dict[str, set[str]] = {}
    for row in _index():
        together.setdefault(row["table"], set()).update(row["mechanisms"])
    direct = [row for row in _index() if wanted <= {*row["mechanisms"]}]
    beside = [row for row in _index() if other and wanted <= together[row["table"]] and wanted & {*row["mechanisms"]}]
    fields = ("paper", "claim", "quote", "number", "verdict", "why")
    return tuple(Published(*(row[name] for name in fields)) for row in [*direct, *(row for row in beside if row not in direct)])


@cache
def _index() -> list[dict[str, Any]]:
    """specs/claims/index.json: reading the files themselves takes longer than all else that `compare` does without torch."""
    rows: list[dict[str, Any]] = json.loads((folder() / "index.json").read_text(encoding="utf-8"))
    return rows


def index_of(papers: Iterable[Paper]) -> list[dict[str, Any]]:
    """What index.json holds: the rows that `about` answers from, with the mechanisms that give each number, here or again."""
    return [
        {**asdict(_published(paper, claim)), "table": f"{paper.name} {claim.table.name}", "mechanisms": sorted(named)}
        for paper in papers
        for claim in paper.claims
        if claim.seen and not claim.again and claim.value is not None
        if (named := _mechanisms(paper, claim))
    ]


def _mechanisms(paper: Paper, claim: Claim) -> set[str]:
    rows = [each for each in paper.claims if claim.name in (each.name, each.again) and each.value is not None]
    return {paper.cases[name].mechanism for row in rows for name in (row.value.names if row.value else ())} - {ALONE}


def _published(paper: Paper, claim: Claim) -> Published:
    unit = claim.unit if claim.unit in ("x", "") else f" {claim.unit}"
    number = f"N^{claim.published.text}" if claim.unit == "N^" else f"{claim.published.text}{unit}"
    return Published(paper.name, claim.name, claim.quote, number, claim.verdict, claim.why)


def to_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as plain JSON types."""
    claim = verdict.claim
    return {
        "id": claim.name,
        "paper": verdict.paper,
        "table": claim.table.name,
        "metric": claim.table.metric,
        "quote": claim.quote,
        "published": claim.published.low if claim.published.low == claim.published.high else [*claim.published.range],
        "printed": claim.published.text,
        "unit": claim.unit,
        "reproduced": verdict.reproduced,
        "difference": verdict.difference,
        "verdict": verdict.verdict,
        "recorded": claim.verdict,
        "kept": verdict.kept,
        "why": verdict.why,
        "value": claim.value.text if claim.value is not None else None,
        "convention": verdict.convention,
        "stated": verdict.stated,
        "tried": verdict.tried,
        "explained": verdict.explained,
        "rows": verdict.rows,
        "nearest": None if verdict.nearest is None else {"convention": verdict.nearest[0], "reproduced": verdict.nearest[1]},
        "arithmetic": verdict.arithmetic or None,
        "grade": claim.grade,
        "seen": claim.seen,
        "again": claim.again or None,
        "source": claim.source,
        "finding": claim.finding or None,
    }
