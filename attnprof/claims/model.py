"""The pydantic model of a claims file: its keys, the form of every value, and the JSON Schema for editors.

What needs the catalogue or two places of the file at once is in `parse`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from attnprof.claims import GRADES, VERDICTS
from attnprof.claims.conventions import METRICS
from attnprof.claims.reading import parse_published
from attnprof.records import DTYPES, HOW, MODES
from attnprof.spec.model import ArgumentValue, Checked, Closed, choice, shown, wrong
from attnprof.spec.values import MAX_SIZE, SDPA

_INPUT = r"^[0-9]{1,7}(x[0-9]{1,7}){3,4}$"
GROWING = ("products", "macs", "flops", "params", "peak_bytes", "activation_bytes", "bytes_moved")


def _published(value: Any) -> Any:
    if parse_published(value) is None:
        raise wrong(f"{shown(value)} is no printed number", 'such as 108, "0.50" (with its last digits) or 24.4..28.2')
    return value


def _input(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(_INPUT, value) and all(1 <= int(size) <= MAX_SIZE for size in value.split("x")):
        return value
    raise wrong(f"{shown(value)} is no shape of an input", "BxCxHxW such as 1x512x97x97, or BxTxCxHxW of a video")


Text = Annotated[str, Field(min_length=1)]
Number = Annotated[Any, Checked(_published, (("type", ["number", "string"]),))]


class HostModel(Closed):
    """The network that the mechanism stands in."""

    name: Text = Field(description="a name of attnprof/hosts")
    args: dict[str, ArgumentValue] = Field({}, description="arguments of the network")
    at: str = Field("", description="glob over dotted names of submodules, or a site (block, body, stage)")
    how: Annotated[str, choice("placement", HOW)] = Field("after", description="after, before, instead, around")


class CaseModel(Closed):
    """What is counted: a mechanism at a shape, in a network where `host` is given, or a network alone."""

    mechanism: Text | None = Field(None, description="a name of the catalogue; none: the network of `host` alone")
    args: dict[str, ArgumentValue] = Field({}, description="arguments of the mechanism; a list is one value here")
    input: Annotated[Any, Checked(_input, (("type", "string"), ("pattern", _INPUT)))] = Field(
        description="BxCxHxW, or BxTxCxHxW of a video; the input of the network where there is one"
    )
    dtype: Annotated[str, choice("dtype", DTYPES)] = Field("float32")
    sdpa: Annotated[str, choice("sdpa kernel", SDPA)] = Field("auto", description="kernel of F.scaled_dot_product_attention")
    attention: Annotated[str, choice("way to attend", ("written", "fused"))] = Field(
        "written", description="fused: product, softmax, product are counted as one F.scaled_dot_product_attention"
    )
    host: HostModel | None = None


class TableModel(Closed):
    """Numbers of one metric printed together: one convention has to explain all of them."""

    metric: Annotated[str, choice("metric", METRICS)] = Field(description="what a case stands for in `value`")
    unit: str = Field("", description="printed unit of the rows that say no other")
    what: str = Field("", description="which table, which setup")
    convention: dict[str, str] = Field({}, description="what the source says that it counts, by axis")
    fixed: list[str] = Field([], description="axes that the source settles: not tried otherwise")
    of: Annotated[str, choice("count", GROWING)] = Field("macs", description="of an order table: what grows")
    mode: Annotated[str, choice("mode", MODES)] = Field("inference", description="of an order or latency table")
    source: Text | None = None
    grade: Annotated[str | None, choice("grade", tuple(GRADES))] = None


class ClaimModel(Closed):
    """One printed number and the verdict on record."""

    table: Text = Field(description="a key of `tables:`")
    published: Number = Field(description="the number as printed; a range as low..high")
    unit: str | None = Field(None, description="default: the table's; x for a ratio, % for a share")
    value: Text | None = Field(None, description="arithmetic over cases; none where nothing here gives the number")
    verdict: Annotated[str, choice("verdict", VERDICTS)] = Field(description="the verdict on record")
    why: Text = Field(description="one line: what the number rests on")
    quote: str = Field("", description="the row or sentence that is meant")
    grade: Annotated[str | None, choice("grade", tuple(GRADES))] = Field(None, description="default: the table's")
    source: Text | None = Field(None, description="default: the table's")
    tolerance: Annotated[float, Field(ge=0, le=100)] | None = Field(None, description="percent, in place of the metric's")
    because: Text | None = Field(None, description="why this tolerance")
    finding: str = Field("", description="a sentence worth a reader's time")
    again: str = Field("", description="the claim whose number this is once more, under another configuration")


class PaperModel(Closed):
    """An attnprof claims file: what one paper or repository publishes about cost."""

    paper: Text = Field(description="short name")
    title: Text
    venue: str = ""
    setup: str = Field("", description="input, batch, what the numbers are deltas over")
    source: Text = Field(description="where the numbers were seen, for tables that say no other")
    grade: Annotated[str, choice("grade", tuple(GRADES))] = Field("P", description="for tables that say no other")
    cases: dict[str, CaseModel] = Field({}, description="what is counted, by the name that `value` uses")
    tables: dict[str, TableModel]
    claims: dict[str, ClaimModel]
