"""What is generated from the catalogue: reports/catalogue.md, and the specs that hold whole families.

`make catalogue` writes them; tests/makers/test_docs.py holds them to the code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnprof import mechanisms
from attnprof.mechanisms import survey
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.forms import kept
from attnprof.records import MODES, Case, Mechanism, Shape
from attnprof.report.catalogue import short_paper
from attnprof.spec import Entry, variants
from attnprof.spec.scalars import format_scalar
from attnprof.units import format_bytes, format_count

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "reports" / "catalogue.md"
SPECS = ROOT / "specs"
SIDES = (512, 1024)  # where growth is read off
GROWTH_CHANNELS = 64

_HEAD = """\
# The catalogue

{count} mechanisms, {rows} rows. Made by `make catalogue`, without running anything: every number is traced (float32, at the
shape beside it, which is the one in `specs/survey.yaml`); `attnprof show NAME` has the formula, the defaults and where the
code differs from the paper.

- Parameters: the formula holds for the default arguments, at any width that the mechanism can have. C, H, W are the shape's,
  N = H W, T its frames, other letters are the first letters of the mechanism's arguments; `:=` names a part of the formula.
- MACs: multiply-accumulates of one forward pass in convolution, matmul and attention. 0 does not mean free: see FLOPs in
  `attnprof run specs/survey.yaml --device none`. The windows of local_alignment, cot and lwdn are summed element by element, so
  that their work stands in FLOPs alone, where sasa, san_pairwise, san_patchwise and lrnet have matrix products.
- Peak: the most tensor storage alive above parameters, buffers and inputs, in inference and in training (forward and backward).
- MACs grow, memory grows: the order of the MACs and of the peak in inference in N = H W, from the closed forms that
  `attnprof formula NAME` prints (verified against the trace), with the form itself where it is short. Rows of other arguments
  than the defaults have no kept form, nor have {without}: there the exponent of the peak is
  read off between {sides[0]}x{sides[0]} and {sides[1]}x{sides[1]} at {channels} channels, `1` does not grow. Attention through
  `F.scaled_dot_product_attention` counts as the fused kernel, which does not store its N x N map.
"""
_COLUMNS = (
    *("mechanism", "paper", "parameters", "shape", "params", "MACs", "peak, inference", "peak, training"),
    *("MACs grow", "memory grows"),
)
_SHORT_FORM = 48  # characters


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


def order(name: str, metric: str) -> str:
    """'`O(C*N**2)` = `C*H*W*(2*C + H*W)`': a kept order in inference, and the form where it is short; '' where none is kept."""
    held = kept.read(name)
    form = None if held is None else held.modes["inference"]["forms"].get(metric)
    if form is None:
        return ""
    same = f" = `{form['expr']}`" if len(form["expr"]) <= _SHORT_FORM else ""
    return f"`{form['order']}`{same}"


def page_row(name: str, mechanism: Mechanism, label: str, args: dict[str, Any]) -> tuple[str, ...]:
    """One line of the page; only the row of the defaults has the formula."""
    shape = natural_shape(mechanism)
    inference, training = (trace_case(Case(name, label, args, shape, mode=mode)) for mode in MODES)
    _title, headings = mechanisms.headings_of(name)
    defaults = mechanism.rows and all(args[key] == values[0] for key, values in mechanism.rows.items())
    plain = bool(defaults or not args)
    formula = headings["Params"].split("\n")[0] if plain else ""
    return (
        f"[{label}](../attnprof/mechanisms/{name}.py)",
        short_paper(headings["Paper"]),
        f"`{formula}`" if formula else "",
        shape.text(),
        f"{inference.params:,}",
        format_count(inference.macs),
        format_bytes(inference.peak_bytes),
        format_bytes(training.peak_bytes),
        order(name, "macs") if plain else "",
        (order(name, "peak_bytes") if plain else "") or growth(name, mechanism, args),
    )


def page() -> str:
    """reports/catalogue.md."""
    tables: dict[str, list[tuple[str, ...]]] = {}
    for name, mechanism in mechanisms_in_order():
        for label, args in variants(Entry(name, mechanism.name, dict(mechanism.rows))):
            tables.setdefault(mechanism.family, []).append(page_row(name, mechanism, label, args))
    names = [name for name, _ in mechanisms_in_order()]
    numbers = {"count": len(names), "rows": sum(map(len, tables.values())), "sides": SIDES, "channels": GROWTH_CHANNELS}
    lacking = [name.split("/")[1] for name in names if name not in set(kept.names())]
    parts = [_HEAD.format(**numbers, without=f"{', '.join(lacking)} (the search did not end in minutes)")]
    for family, rows in tables.items():
        lines = ["| " + " | ".join(_COLUMNS) + " |", "| " + " | ".join(["---"] * 4 + ["---:"] * 4 + ["---"] * 2) + " |"]
        lines += ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
        parts.append(f"## {family.replace('_', ' and ')}\n\n" + "\n".join(lines) + "\n")
    return "\n".join([*parts, legend()])


def legend() -> str:
    """What the survey's words and numerals stand for: the filters of `list`."""
    lines = [
        "## Words of the survey\n",
        '`attnprof list --task --kind --goal` filters by the columns of Guo et al., "Attention Mechanisms in Computer',
        'Vision: A Survey", 2022, arXiv:2111.07624. `attnprof show NAME` has them, and says where the survey has no row and',
        "they are ours.\n",
        f"- Tasks: {', '.join(f'{word} {meaning}' for word, meaning in survey.TASKS.items())}.",
    ]
    for family, goals in survey.GOALS.items():
        if goals:
            named = "; ".join(f"{numeral} {meaning}" for numeral, meaning in goals.items())
            lines.append(f"- Goals, {family.replace('_', ' and ')}: {named}.")
    stages = "; ".join(f"{number} {meaning}" for number, meaning in survey.STAGES.items())
    return "\n".join([*lines, f"- Stages: {stages}."]) + "\n"


_MADE = "# Made by `make catalogue` from the mechanisms' files."
_SCHEMA = "# yaml-language-server: $schema=schema.json"
_END = ["metrics: [params, macs, flops, peak_memory, latency]", "measure: {budget_s: 1, run_budget_s: 180, device: auto}"]


def survey_spec() -> str:
    """specs/survey.yaml: every mechanism at its natural shape, with the rows that are in wide use beside its defaults."""
    shapes = Counter(natural_shape(mechanism) for _, mechanism in mechanisms_in_order())
    usual = shapes.most_common(1)[0][0]
    head = [
        "# Everything, each at a shape natural to it: where its paper, or a network that it is used in, has it.",
        _MADE,
        "name: survey",
        f"input: {_input(usual)}",
    ]
    return _spec(head, tuple(mechanisms.names()), usual)


def classification_spec() -> str:
    """specs/classification.yaml: what gates or replaces a block of a classification network, on ResNet-50's stages."""
    head = [
        "# Attention inside a classification network: channel, branch and channel-and-spatial mechanisms on the maps that the",
        "# four stages of ResNet-50 give at 224x224.",
        _MADE,
        "name: classification",
        "input:",
        *(f"  - {{channels: {256 * 2**i}, hw: {56 // 2**i}x{56 // 2**i}}}" for i in range(4)),
    ]
    return _spec(head, ("channel", "branch", "channel_spatial"), None, "conv3x3", "se[bias=false]")


def video_spec() -> str:
    """specs/video.yaml: what looks over frames, at two lengths; a sequence of vectors has its own number of channels."""
    head = [
        "# Attention over frames, T = 8 and 16: temporal and spatio-temporal mechanisms on a 14x14 map of 256 channels per",
        "# frame. Sequences of vectors (frame features, skeletons) have no map and channels of their own.",
        _MADE,
        "name: video",
        "input: {channels: 256, hw: 14x14, frames: [8, 16]}",
    ]
    return _spec(head, ("temporal", "spatial_temporal"), None, "", "nonlocal3d")


def specs() -> dict[str, str]:
    """{file name: text} of the generated specs."""
    return {"survey.yaml": survey_spec(), "classification.yaml": classification_spec(), "video.yaml": video_spec()}


def _spec(head: list[str], families: tuple[str, ...], usual: Shape | None, beside: str = "", baseline: str = "") -> str:
    lines = [_SCHEMA, *head, "dtype: float32", "modes: [inference, training]", "mechanisms:"]
    family = ""
    for _, mechanism in mechanisms_in_order():
        if mechanism.family in families:
            if mechanism.family != family:
                family = mechanism.family
                lines.append(f"  # {family.replace('_', ' and ')}")
            lines.append(f"  - {_item(mechanism, usual)}")
    lines += ["  # what they are compared with", f"  - {beside}"] if beside else []
    lines += [f"baseline: {baseline}"] if baseline else []
    return "\n".join([*lines, *_END]) + "\n"


def _item(mechanism: Mechanism, usual: Shape | None) -> str:
    """A line of `mechanisms:`; its own sizes where they are not the usual ones, and for vectors in any case."""
    shape = natural_shape(mechanism)
    parts = [f"name: {mechanism.name}"]
    if mechanism.rows:
        axes = [f"{key}: [{', '.join(_scalar(value) for value in values)}]" for key, values in mechanism.rows.items()]
        parts.append(f"args: {{{', '.join(axes)}}}")
    if usual is not None and shape != usual:
        parts.append(f"input: {_input(shape, usual)}")
    elif usual is None and mechanism.layout == "BTC":
        parts.append(f"input: {{channels: {shape.channels}, hw: 1x1}}")
    return mechanism.name if len(parts) == 1 else "{" + ", ".join(parts) + "}"


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
    """Renew all files."""
    PAGE.write_text(page(), encoding="utf-8")
    for name, text in specs().items():
        (SPECS / name).write_text(text, encoding="utf-8")
