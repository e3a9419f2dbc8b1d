"""Expressions and domains as text, compiled to functions of named integers; nothing but the arithmetic below can be written.

    f = compile_text("C*H*W*(10*C + 9*H + 9*W)//4");  f({"C": 64, "H": 7, "W": 9})
    d = compile_text("C % 8 == 0 and C >= 8");        d({"C": 64}) -> True

Integers, True, names, + - * // % ** (to a power written as a number), unary -, max, min, gcd, comparisons, and / or / not. The
text is parsed by `ast` and put together from closures: it is never evaluated as Python.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Values = Mapping[str, int]
Run = Callable[[Values], int]

FUNCTIONS: Mapping[str, Callable[..., int]] = {"max": max, "min": min, "gcd": math.gcd}
MAX_POWER = 64  # a larger exponent is a mistake, and may be a number that fills the memory

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ExpressionError(ValueError):
    """A text that is no expression, or a name in it that has no value."""


@dataclass(frozen=True)
class Expression:
    """A compiled text: call it with the values of its names. A domain gives a bool."""

    text: str
    names: frozenset[str]
    run: Run

    def __call__(self, values: Values) -> int:
        """The value. Raises ExpressionError where a name has none, or for a division by zero."""
        try:
            return self.run(values)
        except KeyError as error:
            raise ExpressionError(f"'{self.text}' wants a value for {error.args[0]}") from None
        except ZeroDivisionError:
            given = ", ".join(f"{name}={values[name]}" for name in sorted(self.names))
            raise ExpressionError(f"'{self.text}' divides by zero at {given}") from None


def compile_text(text: str) -> Expression:
    """One expression or domain. Raises ExpressionError for anything that is not in the module's docstring."""
    (expression,) = compile_texts([text])
    return expression


def compile_texts(texts: Sequence[str]) -> list[Expression]:
    """Many expressions, parsed together: that is what takes the time. Raises ExpressionError."""
    try:
        lines = ast.parse("\n".join(texts)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        lines = []
    if len(lines) != len(texts):  # one of them is no single line of Python: find it
        for text in texts:
            _parse(text)
        raise ExpressionError("one text holds several expressions")
    return [_expression(text, line) for text, line in zip(texts, lines, strict=True)]


def _parse(text: str) -> None:
    """Raises ExpressionError where a text is not one expression."""
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"'{text:.80}' is no expression") from None
    if "\n" in text or not text.strip():
        raise ExpressionError(f"'{text:.80}' is no expression on one line")


def _expression(text: str, line: ast.stmt) -> Expression:
    names: set[str] = set()
    if not isinstance(line, ast.Expr):
        raise ExpressionError(f"'{text:.80}' is a statement, not an expression")
    try:
        run = _compile(line.value, names)
    except RecursionError:
        raise ExpressionError(f"'{text:.80}' is nested too deeply") from None
    except ExpressionError as error:
        raise ExpressionError(f"'{text:.80}': {error}") from None
    return Expression(text, frozenset(names), run)


def _compile(node: ast.expr, names: set[str]) -> Run:
    """The closure of one node; every name that it reads is added to `names`."""
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, int):
            raise ExpressionError(f"{node.value!r} is no integer")
        value = node.value
        return lambda values: value
    if isinstance(node, ast.Name):
        name = node.id
        names.add(name)
        return lambda values: values[name]
    if isinstance(node, ast.BinOp):
        return _binary(node, names)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        inner = _compile(node.operand, names)
        return (lambda values: not inner(values)) if isinstance(node.op, ast.Not) else (lambda values: -inner(values))
    if isinstance(node, ast.BoolOp):
        parts = [_compile(part, names) for part in node.values]
        if isinstance(node.op, ast.And):
            return lambda values: all(part(values) for part in parts)
        return lambda values: any(part(values) for part in parts)
    if isinstance(node, ast.Compare):
        return _comparison(node, names)
    if isinstance(node, ast.Call):
        return _call(node, names)
    raise ExpressionError(f"{type(node).__name__} is not allowed: only arithmetic, comparisons and {', '.join(FUNCTIONS)}")


def _binary(node: ast.BinOp, names: set[str]) -> Run:
    left = _compile(node.left, names)
    if isinstance(node.op, ast.Pow):
        power = node.right.value if isinstance(node.right, ast.Constant) else None
        if type(power) is not int or not 0 <= power <= MAX_POWER:
            raise ExpressionError(f"a power is a number from 0 to {MAX_POWER}")
        exponent: int = power
        return lambda values: int(left(values) ** exponent)
    if type(node.op) not in _BINARY:
        raise ExpressionError(f"the operator {type(node.op).__name__} is not allowed (division is //)")
    apply, right = _BINARY[type(node.op)], _compile(node.right, names)
    return lambda values: apply(left(values), right(values))


def _comparison(node: ast.Compare, names: set[str]) -> Run:
    """One comparison or a chain such as 8 <= C <= 64."""
    for op in node.ops:
        if type(op) not in _COMPARE:
            raise ExpressionError(f"the comparison {type(op).__name__} is not allowed")
    parts = [_compile(part, names) for part in (node.left, *node.comparators)]
    tests = [_COMPARE[type(op)] for op in node.ops]

    def run(values: Values) -> bool:
        found = [part(values) for part in parts]
        return all(test(a, b) for test, a, b in zip(tests, found, found[1:], strict=False))

    return run


def _call(node: ast.Call, names: set[str]) -> Run:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in FUNCTIONS or node.keywords or not node.args or (name != "gcd" and len(node.args) < 2):
        raise ExpressionError(f"only {', '.join(FUNCTIONS)} of two or more values can be called")
    function, parts = FUNCTIONS[name], [_compile(part, names) for part in node.args]
    return lambda values: function(*[part(values) for part in parts])
