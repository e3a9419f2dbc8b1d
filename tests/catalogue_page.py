"""What is generated from the catalogue as a whole: reports/catalogue.md, and specs/survey.yaml with everything in it.

`make catalogue` writes both; tests/test_docs.py holds them to the code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnprof import mechanisms
from attnprof.profiling.trace import trace_case
from attnprof.records import MODES, Case, Mechanism, Shape
from attnprof.report.catalogue import short_paper
from attnprof.spec import Entry, variants
from attnprof.spec.scalars import format_scalar
from attnprof.units import format_bytes, format_count

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "reports" / "catalogue.md"
SURVEY = ROOT / "specs" / "survey.yaml"
SIDES = (512, 1024)  # where growth is read off
GROWTH_CHANNELS = 64

_HEAD = """\
# The catalogue

{count} mechanisms, {rows} rows. Made by `make catalogue`, without running anything: every number is traced (float32, at the
shape beside it, which is the one in `specs/survey.yaml`); `attnprof show NAME` has the formula, the defaults and where the
code differs from the paper.

- Parameters: the formula holds for the default arguments. C, H, W are the shape's, N = H W, T its frames, other letters are the
  first letters of the mechanism's arguments.
- MACs: multiply-accumulates of one forward pass in convolution, matmul and attention. 0 does not mean free: see FLOPs in
  `attnprof run specs/survey.yaml --device none`.
- Peak: the most tensor storage alive above parameters, buffers and inputs, in inference and in training (forward and backward).
- Memory: how that peak grows with the number of positions N = H W, read off between {sides[0]}x{sides[0]} and
  {sides[1]}x{sides[1]} at {channels} channels in inference; `1` does not grow. Attention through
  `F.scaled_dot_product_attention` counts as the fused kernel, which does not store its N x N map.
"""
_COLUMNS = ("mechanism", "paper", "parameters", "shape", "params", "MACs", "peak, inference", "peak, training", "memory")


def mechanisms_in_order() -> Iterator[tuple[str, Mechanism]]:
    """('family/name', Mechanism), family by family."""
    for family, members in mechanisms.names().items():
        for name in members:
            yield f"{family}/{name}", mechanisms.load(f"{family}/{name}")


def natural_shape(mechanism: Mechanism) -> Shape:
    """The shape that its file names. Raises ValueError where it names none."""
    if mechanism.natural is None:
        raise ValueError(f"{mechanism.family}/{mechanism.name}: MECHANISM has no natural= shape")
    return mechanism.natural


def growth(name: str, mechanism: Mechanism, args: dict[str, Any]) -> str:
    """'N', 'N^1.5' ...: the exponent of the peak in N between the two SIDES, to the nearest half."""
    shape = replace(natural_shape(mechanism), batch=1, channels=GROWTH_CHANNELS)
    small, large = (trace_case(Case(name, name, args, replace(shape, height=side, width=side))).peak_bytes for side in SIDES)
    exponent = round(2 * math.log(large / small) / math.log((SIDES[1] / SIDES[0]) ** 2)) / 2
    return "1" if not exponent else "N" if exponent == 1 else f"N^{exponent:g}"


def page_row(name: str, mechanism: Mechanism, label: str, args: dict[str, Any]) -> tuple[str, ...]:
    """One line of the page; only the row of the defaults has the formula."""
    shape = natural_shape(mechanism)
    inference, training = (trace_case(Case(name, label, args, shape, mode=mode)) for mode in MODES)
    _title, headings = mechanisms.headings_of(name)
    defaults = mechanism.rows and all(args[key] == values[0] for key, values in mechanism.rows.items())
    formula = headings["Params"].split("\n")[0] if defaults or not args else ""
    return (
        f"[{label}](../attnprof/mechanisms/{name}.py)",
        short_paper(headings["Paper"]),
        f"`{formula}`" if formula else "",
        shape.text(),
        f"{inference.params:,}",
        format_count(inference.macs),
        format_bytes(inference.peak_bytes),
        format_bytes(training.peak_bytes),
        growth(name, mechanism, args),
    )


def page() -> str:
    """reports/catalogue.md."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name, mechanism in mechanisms_in_order():
        for label, args in variants(Entry(name, mechanism.name, dict(mechanism.rows))):
            tables.setdefault(mechanism.family, []).append(page_row(name, mechanism, label, args))
    count = sum(len(members) for members in mechanisms.names().values())
    parts = [_HEAD.format(count=count, rows=sum(map(len, tables.values())), sides=SIDES, channels=GROWTH_CHANNELS)]
    for family, rows in tables.items():
        lines = ["| " + " | ".join(_COLUMNS) + " |", "| " + " | ".join(["---"] * 4 + ["---:"] * 4 + ["---"]) + " |"]
        lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
        parts.append(f"## {family.replace('_', ' and ')}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def survey_spec() -> str:
    """specs/survey.yaml: every mechanism at its natural shape, with the rows that are in wide use beside its defaults."""
    shapes = Counter(natural_shape(mechanism) for _, mechanism in mechanisms_in_order())
    usual = shapes.most_common(1)[0][0]
    lines = [
        "# yaml-language-server: $schema=schema.json",
        "# Everything, each at a shape natural to it: where its paper, or a network that it is used in, has it.",
        "# Made by `make catalogue` from the mechanisms' files.",
        "name: survey",
        f"input: {_input(usual)}",
        "dtype: float32",
        "modes: [inference, training]",
        "mechanisms:",
    ]
    family = ""
    for _, mechanism in mechanisms_in_order():
        if mechanism.family != family:
            family = mechanism.family
            lines.append(f"  # {family.replace('_', ' and ')}")
        lines.append(f"  - {_item(mechanism, usual)}")
    lines += ["metrics: [params, macs, flops, peak_memory, latency]", "measure: {budget_s: 1, run_budget_s: 180, device: auto}"]
    return "\n".join(lines) + "\n"


def _item(mechanism: Mechanism, usual: Shape) -> str:
    shape = natural_shape(mechanism)
    if shape == usual and not mechanism.rows:
        return mechanism.name
    parts = [f"name: {mechanism.name}"]
    if mechanism.rows:
        axes = [f"{key}: [{', '.join(_scalar(value) for value in values)}]" for key, values in mechanism.rows.items()]
        parts.append(f"args: {{{', '.join(axes)}}}")
    if shape != usual:
        parts.append(f"input: {_input(shape, usual)}")
    return "{" + ", ".join(parts) + "}"


def _scalar(value: Any) -> str:
    return f"[{', '.join(map(_scalar, value))}]" if isinstance(value, (list, tuple)) else format_scalar(value)


def _input(shape: Shape, usual: Shape | None = None) -> str:
    """The sizes of a shape, those that are not the usual one's."""
    pairs = {
        "batch": (shape.batch, usual and usual.batch, 1),
        "channels": (shape.channels, usual and usual.channels, 0),
        "hw": (f"{shape.height}x{shape.width}", usual and f"{usual.height}x{usual.width}", ""),
        "frames": (shape.frames, usual and usual.frames, 1),
    }
    kept = {key: value for key, (value, other, default) in pairs.items() if value != (default if usual is None else other)}
    return "{" + ", ".join(f"{key}: {value}" for key, value in kept.items()) + "}"


def write() -> None:
    """Renew both files."""
    PAGE.write_text(page(), encoding="utf-8")
    SURVEY.write_text(survey_spec(), encoding="utf-8")
