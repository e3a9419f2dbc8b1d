"""`formula NAME`: closed forms as text of at most 80 columns, as JSON, and as the short lines of `show` and `explain`.

An expression is printed in Python syntax, so that it can be pasted: at batch 1 it needs C, H, W (and T where frames count).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from attnprof.profiling.forms import Form, Forms
from attnprof.profiling.forms.expression import Expression, ExpressionError, compile_text
from attnprof.records import Shape
from attnprof.report.text import WIDTH, clean, wrap

METRICS = (  # in this order; what else there is comes after
    "params", "macs", "flops", "bytes_moved", "activation_bytes", "resident_bytes", "peak_bytes", "peak_cuda_bytes",
)  # fmt: skip
SHORT = ("params", "macs", "flops", "peak_bytes")  # what `show` and `explain` say of a mechanism
_INDENT = "    "
_MADE_OF = 6  # blocks named per piece
_LEGEND = (
    "C, H, W: channels, height and width of the input, T its frames, N = H*W. MACs: multiply-accumulates of convolution, "
    "matmul and attention; FLOPs: 2 per MAC and the other ops. Bytes are those of float32."
)


def data(forms: Forms, shape: Shape | None = None) -> dict[str, Any]:
    """{metric: {"expr", "order", "domain", "pieces", "draws"}, "general": {...}, "missing": {...}} of one mode.

    With a shape each metric has its "value" there, null outside its domain.
    """
    found: dict[str, Any] = {metric: _form_data(forms.forms[metric], shape) for metric in _ordered(forms.forms)}
    found["general"] = {metric: _form_data(forms.general[metric], None) for metric in _ordered(forms.general)}
    found["missing"] = dict(forms.missing)
    return found


def render(label: str, found: Sequence[Forms], source: str, shape: Shape | None = None) -> str:
    """All forms of every mode in `found`. `source` says where they are from; with a shape each form is evaluated there."""
    lines: list[str] = []
    for forms in found:
        lines += [*wrap(f"{clean(label)}: closed forms at batch 1, {forms.mode}"), ""]
        lines += [*_mode(forms, shape), ""]
    return "\n".join([*lines, *wrap(source), *wrap(_legend(found))]) + "\n"


def summary_lines(forms: Forms) -> list[str]:
    """'macs (inference): EXPRESSION; O(...)', a paragraph per metric of SHORT, wrapped; for what `explain` says in short."""
    lines = []
    for metric in SHORT:
        form, reason = forms.forms.get(metric), forms.missing.get(metric)
        if form is not None:
            lines += wrap(f"{metric}: {form.order}; {_first(form)}", indent=_INDENT)
        elif reason:
            lines += wrap(f"{metric}: no closed form ({clean(reason)})", indent=_INDENT)
    return lines


def short_texts(found: Iterable[Forms]) -> dict[str, str]:
    """{heading: text} for `show`: order and expression of macs and flops in inference, of the peak in each mode."""
    lines: dict[str, str] = {}
    for forms in found:
        for metric in ("macs", "flops", "peak_bytes"):
            form = forms.forms.get(metric)
            if form is not None and (forms.mode == "inference" or metric == "peak_bytes"):
                name = metric if metric != "peak_bytes" else f"peak_bytes, {forms.mode}"
                lines[name] = f"{form.order}: {_first(form)}"
    return {"Forms": "\n".join(f"{name}: {text}" for name, text in lines.items())} if lines else {}


def _first(form: Form) -> str:
    """The expression, of a long max only how many pieces it has."""
    if len(form.pieces) > 1 and len(form.expr) > 2 * WIDTH:
        return f"max of {len(form.pieces)} pieces"
    return form.expr


def _ordered(metrics: Iterable[str]) -> list[str]:
    there = list(metrics)
    return [name for name in METRICS if name in there] + sorted(name for name in there if name not in METRICS)


def _form_data(form: Form, shape: Shape | None) -> dict[str, Any]:
    pieces = [{"expr": each.expr, "domain": each.domain, "made_of": list(each.made_of)} for each in form.pieces]
    said = {"expr": form.expr, "order": form.order, "domain": form.domain}
    found: dict[str, Any] = {**said, "pieces": pieces, "draws": form.draws}
    return found if shape is None else found | {"value": value_at(form, shape)}


def value_at(form: Form, shape: Shape) -> int | None:
    """The number that a form gives at a shape (batch 1); None outside its domain."""
    values = {"B": 1, "C": shape.channels, "H": shape.height, "W": shape.width, "T": shape.frames}
    return compile_text(form.expr)(values) if compile_text(form.domain)(values) else None


def _mode(forms: Forms, shape: Shape | None) -> list[str]:
    """A paragraph per metric; the domain that most forms share is said once."""
    usual = Counter((form.domain, form.draws) for form in forms.forms.values()).most_common(1)
    common = usual[0][0] if usual and usual[0][1] > 1 else None
    lines: list[str] = []
    if common is not None:
        lines += [*wrap(f"Each {_where(*common)}, except where another domain stands."), ""]
    for metric in _ordered(forms.forms):
        form = forms.forms[metric]
        lines += wrap(f"{metric}, {form.order}")
        lines += _expression(form)
        if (form.domain, form.draws) != common:
            lines += _block(_where(form.domain, form.draws))
        if shape is not None:
            lines += _block(_at(form, shape))
    if forms.general:
        lines += ["", *wrap("With the batch and the integer arguments as variables:")]
    for metric in _ordered(forms.general):
        form = forms.general[metric]
        lines += [*wrap(metric), *_block(form.expr), *_block(_where(form.domain, form.draws))]
    if forms.missing:
        lines += ["", *wrap("No form that every draw agrees with:")]
    for metric in _ordered(forms.missing):
        lines += _block(f"{metric}: {clean(forms.missing[metric])}")
    return lines


def _expression(form: Form) -> list[str]:
    """The expression; a max piece by piece, with what each is made of and where it is the largest."""
    if len(form.pieces) < 2:
        made = form.pieces[0].made_of if form.pieces else ()
        return _block(form.expr) + _made_of(made)
    lines = _block(f"the largest of {len(form.pieces)} pieces:")
    for piece in form.pieces:
        lines += _block(piece.expr) + _block(f"largest where {clean(piece.domain)}", 2 * _INDENT) + _made_of(piece.made_of)
    return lines


def _made_of(blocks: Sequence[str]) -> list[str]:
    if not blocks:
        return []
    rest = f", and {len(blocks) - _MADE_OF} more" if len(blocks) > _MADE_OF else ""
    return _block(f"made of {', '.join(map(clean, blocks[:_MADE_OF]))}{rest}", 2 * _INDENT)


def _where(domain: str, draws: int) -> str:
    return f"for {'every size' if domain == 'True' else clean(domain)} (verified on {draws} draws)"


def _at(form: Form, shape: Shape) -> str:
    value = value_at(form, shape)
    return f"= {value:,} at {shape.text()}" if value is not None else f"{shape.text()} is outside this domain"


def _block(text: str, indent: str = _INDENT) -> list[str]:
    return [indent + line for line in wrap(text, WIDTH - len(indent), "  ")]


def _legend(found: Sequence[Forms]) -> str:
    named: set[str] = set()
    for forms in found:
        for form in (*forms.forms.values(), *forms.general.values()):
            named |= _names(form)
    batch = " B: the batch." if "B" in named else ""
    arguments = sorted(named - set("BCHWT"))
    said = f" {', '.join(arguments)}: the argument{'s' if len(arguments) > 1 else ''} of that name." if arguments else ""
    gcd = " gcd is math.gcd." if any("gcd(" in form.expr for forms in found for form in forms.forms.values()) else ""
    return _LEGEND + batch + said + gcd


def _names(form: Form) -> frozenset[str]:
    try:
        compiled: Expression = compile_text(form.expr)
    except ExpressionError:
        return frozenset()
    return compiled.names
