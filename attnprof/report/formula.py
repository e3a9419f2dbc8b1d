"""`formula NAME`: closed forms as text of at most 80 columns, as JSON, and as the short lines of `show` and `explain`.

An expression is printed in Python syntax, so that it can be pasted: at batch 1 it needs C, H, W (and T where frames count).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    """{metric: {"expr", "order", "domain", "pieces", "draws", "drawn"}, "general": {...}, "held", "missing"} of one mode.

    With a shape each form has its "value" there, null outside its domain; the general ones with the arguments at their values.
    """
    found: dict[str, Any] = {metric: _form_data(forms.forms[metric]) for metric in _ordered(forms.forms)}
    found["general"] = {metric: _form_data(forms.general[metric]) for metric in _ordered(forms.general)}
    if shape is not None:
        for metric, form in forms.forms.items():
            found[metric]["value"] = value_at(form, shape)
        for metric, form in forms.general.items():
            found["general"][metric]["value"] = value_at(form, shape, forms.arguments)
    found["held"] = dict(forms.held)
    found["missing"] = dict(forms.missing)
    return found


def render(label: str, found: Sequence[Forms], source: str, shape: Shape | None = None) -> str:
    """All forms of every mode in `found`. `source` says where they are from; with a shape each form is evaluated there."""
    lines: list[str] = []
    for forms in found:
        lines += [*wrap(f"{clean(label)}: closed forms at batch 1, {forms.mode}"), ""]
        lines += [*_mode(forms, shape), ""]
    return "\n".join([*lines, *wrap(source), *wrap(_legend(found))]) + "\n"


def summary_lines(forms: Forms, shape: Shape | None = None) -> list[str]:
    """'macs: O(...); EXPRESSION, for DOMAIN', a paragraph per metric of SHORT, wrapped; for what `explain` says in short.

    With a shape outside the domain the general form stands where it holds there.
    """
    lines = []
    for metric in SHORT:
        form, reason = forms.forms.get(metric), forms.missing.get(metric)
        if form is not None:
            lines += wrap(f"{metric}: {form.order}; {_short(forms, form, shape)}", indent=_INDENT)
        elif reason:
            lines += wrap(f"{metric}: no closed form ({clean(reason)})", indent=_INDENT)
    return lines


def short_texts(found: Iterable[Forms], shape: Shape | None = None) -> dict[str, str]:
    """{heading: text} for `show`: order, expression and domain of macs and flops in inference, of the peak in each mode.

    With a shape outside the domain the general form stands where it holds there.
    """
    lines: dict[str, str] = {}
    for forms in found:
        for metric in ("macs", "flops", "peak_bytes"):
            form = forms.forms.get(metric)
            if form is not None and (forms.mode == "inference" or metric == "peak_bytes"):
                name = metric if metric != "peak_bytes" else f"peak_bytes, {forms.mode}"
                lines[name] = f"{form.order}: {_short(forms, form, shape)}"
    return {"Forms": "\n".join(f"{name}: {text}" for name, text in lines.items())} if lines else {}


def _short(forms: Forms, form: Form, shape: Shape | None) -> str:
    """'EXPRESSION, for DOMAIN': of the form, or at a shape that is outside it of the general form, if that holds there."""
    usual = f"{_first(form)}, for {_domain(form)}"
    if shape is None or value_at(form, shape) is not None:
        return usual
    general = forms.general.get(form.metric)
    if general is None or value_at(general, shape, forms.arguments) is None:
        return f"{usual}: not at {shape.text()}"
    return f"{general.expr}, for {_domain(general)}{_taken(general, forms)} ({usual})"


def _taken(general: Form, forms: Forms) -> str:
    """', at B=1, reduction=8': what the variables of a general form stand for here."""
    named = _names(general)
    values = {"B": 1, **forms.arguments}
    said = ", ".join(f"{name}={value}" for name, value in values.items() if name in named)
    return f", at {said}" if said else ""


def _domain(form: Form) -> str:
    return "every size" if form.domain == "True" else clean(form.domain)


def _first(form: Form) -> str:
    """The expression, of a long max only how many pieces it has."""
    if len(form.pieces) > 1 and len(form.expr) > 2 * WIDTH:
        return f"max of {len(form.pieces)} pieces"
    return form.expr


def _ordered(metrics: Iterable[str]) -> list[str]:
    there = list(metrics)
    return [name for name in METRICS if name in there] + sorted(name for name in there if name not in METRICS)


def _form_data(form: Form) -> dict[str, Any]:
    pieces = [{"expr": each.expr, "domain": each.domain, "made_of": list(each.made_of)} for each in form.pieces]
    drawn = {name: list(each) for name, each in form.drawn.items()}
    said = {"expr": form.expr, "order": form.order, "domain": form.domain}
    return {**said, "pieces": pieces, "draws": form.draws, "drawn": drawn}


def value_at(form: Form, shape: Shape, arguments: Mapping[str, int] | None = None) -> int | None:
    """The number that a form gives at a shape (batch 1), with arguments at given values; None outside its domain."""
    sizes = {"B": 1, "C": shape.channels, "H": shape.height, "W": shape.width, "T": shape.frames}
    values = {**(arguments or {}), **sizes}
    expr, domain = compile_text(form.expr), compile_text(form.domain)
    known = (expr.names | domain.names) <= values.keys()
    return expr(values) if known and domain(values) else None


def _mode(forms: Forms, shape: Shape | None) -> list[str]:
    """A paragraph per metric; the domain that most forms share is said once."""
    usual = Counter(_where(form) for form in forms.forms.values()).most_common(1)
    common = usual[0][0] if usual and usual[0][1] > 1 else None
    lines: list[str] = []
    if common is not None:
        lines += [*wrap(f"Each {common}, except where another domain stands."), ""]
    for metric in _ordered(forms.forms):
        form = forms.forms[metric]
        lines += wrap(f"{metric}, {form.order}")
        lines += _expression(form)
        if _where(form) != common:
            lines += _block(_where(form))
        if shape is not None:
            lines += _block(_at(forms, form, shape))
    if forms.general:
        lines += ["", *wrap(_variables(forms))]
    for metric in _ordered(forms.general):
        form = forms.general[metric]
        lines += [*wrap(f"{metric}, {form.order}"), *_block(form.expr), *_block(_where(form))]
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


def _variables(forms: Forms) -> str:
    """'With the batch, reduction as variables, and held at their values: heads=4', above the general forms."""
    named = frozenset[str]().union(*map(_names, forms.general.values()))
    free = [name for name in forms.arguments if name in named]
    held = ", ".join(f"{name}={value}" for name, value in forms.held.items())
    said = f"the batch and {', '.join(free)} as variables" if free else "the batch as a variable"
    return f"With {said}{f' (held at their values: {held})' if held else ''}:"


def _where(form: Form) -> str:
    return f"for {_domain(form)} (verified on {form.draws} draws{_drawn(form.drawn)})"


def _drawn(drawn: Mapping[str, tuple[int, int]]) -> str:
    """' from C up to 2048, H and W up to 129, B 1 to 3'; a variable that was always 1 is left out."""
    said = [f"C up to {drawn['C'][1]}"] if drawn.get("C", (1, 1)) != (1, 1) else []
    sides = [drawn[name][1] for name in "HW" if name in drawn]
    said += [f"H and W up to {max(sides)}"] if sides and max(sides) > 1 else []
    for name, (least, most) in drawn.items():
        if name not in "CHW" and (least, most) != (1, 1):
            said.append(f"{name} {least} to {most}" if least < most else f"{name} {least}")
    return f", drawn from {', '.join(said)}" if said else ""


def _at(forms: Forms, form: Form, shape: Shape) -> str:
    value = value_at(form, shape)
    if value is not None:
        return f"= {value:,} at {shape.text()}"
    outside = f"{shape.text()} is outside this domain"
    general = forms.general.get(form.metric)
    value = None if general is None else value_at(general, shape, forms.arguments)
    if general is None or value is None:
        return outside
    return f"{outside}; the general form below{_taken(general, forms)} holds there: = {value:,}"


def _block(text: str, indent: str = _INDENT) -> list[str]:
    return [indent + line for line in wrap(text, WIDTH - len(indent), "  ")]


def _legend(found: Sequence[Forms]) -> str:
    named: set[str] = set()
    every = [form for forms in found for form in (*forms.forms.values(), *forms.general.values())]
    for form in every:
        named |= _names(form)
    batch = " B: the batch." if "B" in named else ""
    arguments = sorted(named - set("BCHWT"))
    said = f" {', '.join(arguments)}: the argument{'s' if len(arguments) > 1 else ''} of that name." if arguments else ""
    gcd = " gcd: from math import gcd." if any("gcd(" in form.expr for form in every) else ""
    alike = (
        " Orders let H and W grow together: a single one counts as N**0.5." if any(".5" in form.order for form in every) else ""
    )
    return _LEGEND + alike + batch + said + gcd


def _names(form: Form) -> frozenset[str]:
    try:
        compiled: Expression = compile_text(form.expr)
    except ExpressionError:
        return frozenset()
    return compiled.names
