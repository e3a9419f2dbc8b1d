"""What a published number stands for, as arithmetic over the cases of a claims file: `1 - r2 / nl`.

    names, value = compile_value("(r2 - base) / nl");  value({"r2": 16.5, "base": 0.0, "nl": 108.2}) -> 0.1525...

Names of cases, numbers, + - * / and parentheses. The text is parsed by `ast` and put together from closures: it is never
evaluated as Python.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Values = Mapping[str, float]
Run = Callable[[Values], float]
MAX_TEXT = 400  # characters

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class ExpressionError(ValueError):
    """A text that is no such arithmetic."""


@dataclass(frozen=True)
class Value:
    """A compiled text: call it with a number for each of its names."""

    text: str
    names: tuple[str, ...]  # in the order of the text, each once
    run: Run

    def __call__(self, values: Values) -> float:
        """The number. Raises ExpressionError for a division by zero; every name must have a value."""
        try:
            return self.run(values)
        except ZeroDivisionError:
            raise ExpressionError(f"'{self.text}' divides by zero") from None


def compile_value(text: str) -> Value:
    """Raises ExpressionError for anything that is not in the module's docstring."""
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"longer than {MAX_TEXT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"'{text:.80}' is no arithmetic: {_ALLOWED}") from None
    names: dict[str, None] = {}
    try:
        run = _compile(tree, names)
    except RecursionError:
        raise ExpressionError(f"'{text:.80}' is nested too deeply") from None
    return Value(text, tuple(names), run)


_ALLOWED = "names of cases, numbers, + - * / and parentheses are"


def _compile(node: ast.expr, names: dict[str, None]) -> Run:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number = float(node.value)  # type: ignore[arg-type]
        return lambda _: number
    if isinstance(node, ast.Name):
        name = node.id
        names[name] = None
        return lambda values: values[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _compile(node.operand, names)
        return lambda values: -inner(values)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        combine = _BINARY[type(node.op)]
        left, right = _compile(node.left, names), _compile(node.right, names)
        return lambda values: combine(left(values), right(values))
    raise ExpressionError(f"'{ast.unparse(node):.60}' cannot stand here: {_ALLOWED} all that can")
