"""The parser of claims: a text -> a Promise, or what is wrong with it and at which character. The grammar is in `promises`.

Recursive descent over the tokens of the text: nothing of it is ever evaluated as Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

from attnprof.errors import UsageError
from attnprof.records import DTYPES, MODES
from attnprof.spec.promises import (
    VARIABLES,
    Arithmetic,
    Condition,
    Joined,
    Metric,
    Number,
    Promise,
    PromiseError,
    Term,
    Test,
    check_amounts,
)
from attnprof.spec.quantities import gated_metric, kind_of, parse_amount, unit_end
from attnprof.spec.values import EXACT_METRICS, SDPA, nearest, parse_hw

_T = TypeVar("_T")
MAX_TEXT = 400
_MAX_DEPTH = 20
COMPARISONS = ("<=", ">=", "==", "<", ">")
_NUMBERS = {"h": "h", "w": "w", "n": "n", "channels": "channels", "c": "channels", "batch": "batch", "b": "batch"}
_NUMBERS |= {"frames": "frames", "t": "frames"}
_WORDS: Mapping[str, tuple[str, ...]] = {"mode": MODES, "dtype": DTYPES, "sdpa": SDPA, "mechanism": ()}
_TOKEN = re.compile(
    r"""\s*(?:(?P<size>[0-9]+x[0-9]+)
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<word>[^\W\d]\w*)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<mark><=|>=|==|!=|[-+*/()<>,@]))""",
    re.VERBOSE,
)


def parse(text: str, line: int = 0, column: int = 0) -> Promise:
    """The Promise of a text that stands at a place in a file. Raises PromiseError."""
    if len(text) > MAX_TEXT:
        raise PromiseError(f"a claim has at most {MAX_TEXT} characters", 0)
    return _Parser(text).promise(line, column)


class _Parser:
    """A cursor over the text: each method reads one rule of the grammar and leaves the cursor behind it."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def promise(self, line: int, column: int) -> Promise:
        left = self._sum()
        start = self._start()
        op = self._mark()
        if op not in COMPARISONS:
            self._fail(f"a comparison is wanted here, not {self._shown(start)}", start, "such as peak_bytes <= 2GiB")
        self.at = start + len(op)
        right = self._sum()
        condition = None
        if self._take("@"):
            condition = self._any()
        if self._start() < len(self.text):
            wanted = "the end of the claim" if condition is not None else "the end, or @ and a condition,"
            self._fail(f"{wanted} is wanted here, not {self._shown(self._start())}", self._start())
        made = Promise(self.text, left, op, right, condition, line, column)
        self._check(made)
        return made

    def _check(self, made: Promise) -> None:
        """What a whole claim has to be."""
        found = made.metrics
        if not found:
            self._fail("there is no metric in this claim", 0, f"there are {', '.join(EXACT_METRICS)}")
        if len({bool(each.variable) for each in found}) > 1:
            self._fail("order() is compared with numbers and other orders, not with a metric", 0)
        if len({each.variable for each in found}) > 1:
            self._fail("the orders of one claim are all in the same variable", 0)
        check_amounts(made)
        kinds = [self._kind(made.left), self._kind(made.right)]
        if all(kinds) and kinds[0] != kinds[1]:
            left, right = ("counts" if kind == "count" else kind for kind in kinds)
            self._fail(f"{left} are compared with {right}", 0, "bytes have units such as MiB, counts such as M or G")
        if found[0].variable and any(kinds):
            self._fail("an order is compared with plain numbers", 0, "such as order(peak_bytes, N) <= 1")

    def _kind(self, term: Term) -> str:
        """'bytes', 'count' or '' of a plain number. Raises PromiseError for what cannot be added."""
        if isinstance(term, Number):
            return term.kind
        if isinstance(term, Metric):
            return "" if term.variable else kind_of(term.metric)
        left, right = self._kind(term.left), self._kind(term.right)
        if term.op in "+-" and left and right and left != right:
            self._fail(f"{left} and {right} cannot be added", 0)
        if term.op == "*" and left and right:
            self._fail(f"{left} times {right} is no amount", 0)
        if term.op == "/":
            return "" if right else left
        return left or right

    def _sum(self) -> Term:
        found = self._product()
        while (op := self._mark()) in ("+", "-"):
            self._take(op)
            found = Arithmetic(op, found, self._product())
        return found

    def _product(self) -> Term:
        found = self._term()
        while (op := self._mark()) in ("*", "/"):
            self._take(op)
            found = Arithmetic(op, found, self._term())
        return found

    def _term(self) -> Term:
        start = self._start()
        if self._take("("):
            found = self._nested(self._sum)
            self._want(")")
            return found
        match = _TOKEN.match(self.text, self.at)
        if match is not None and match["number"]:
            return self._amount(match)
        if match is None or not match["word"]:
            self._fail(f"a metric or a number is wanted here, not {self._shown(start)}", start)
        self.at = match.end()
        if match["word"] == "order":
            return self._order(start)
        return self._metric(match["word"], start)

    def _amount(self, match: re.Match[str]) -> Number:
        """A number, with the unit that follows."""
        start, self.at = match.start("number"), unit_end(self.text, match.end())
        text = self.text[start : self.at]
        try:
            amount = parse_amount(text)
        except UsageError as error:
            what, _, hint = str(error).partition(": ")
            self._fail(what, start, hint)
        return Number(amount.value, amount.kind, text, amount.counts, start)

    def _metric(self, word: str, start: int) -> Metric:
        try:
            metric = gated_metric(word)
        except UsageError as error:
            what, _, hint = str(error).partition(": ")
            timed = word in ("latency", "throughput", "energy")
            hint = "claims are about traced numbers: latency is gated with --base-ref" if timed else hint
            self._fail(what, start, hint)
        label, offset = self._label() if self._take("(") else (None, start)
        return Metric(metric, label, self.text[start : self.at].strip(), offset=offset)

    def _label(self) -> tuple[str, int]:
        """What stands up to the closing parenthesis, and where: brackets and quotes in it are the label's."""
        start, open_ = self._start(), 0
        quoted = re.compile(r"""("[^"]*"|'[^']*')\s*\)""").match(self.text, start)
        if quoted is not None:
            self.at = quoted.end()
            return quoted[1][1:-1], start
        for end in range(start, len(self.text)):
            open_ += {"(": 1, ")": -1}.get(self.text[end], 0)
            if open_ < 0:
                self.at = end + 1
                label = self.text[start:end].strip()
                if label:
                    return label, start
                self._fail("the label of a mechanism is wanted here", start)
        raise PromiseError("')' is missing", len(self.text), "in a list in [ ] a comma ends the text: quote the claim")

    def _order(self, start: int) -> Metric:
        self._want("(")
        at = self._start()
        match = _TOKEN.match(self.text, self.at)
        if match is None or not match["word"]:
            self._fail(f"order() wants a metric, not {self._shown(at)}", at, "such as order(peak_bytes, N)")
        self.at = match.end()
        inner = self._metric(match["word"], at)
        self._want(",", "order(metric, N); in a list in [ ] a comma ends the text: quote the claim")
        at = self._start()
        match = _TOKEN.match(self.text, self.at)
        if match is None or match["word"] not in VARIABLES:
            self._fail(f"an order is in {', '.join(VARIABLES)}, not in {self._shown(at)}", at, "N is H * W")
        self.at = match.end()
        self._want(")")
        return Metric(inner.metric, inner.label, self.text[start : self.at], match["word"], inner.offset)

    def _any(self) -> Condition:
        return self._joined("or", lambda: self._joined("and", self._one))

    def _joined(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._take_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _one(self) -> Condition:
        if self._take_word("not"):
            return Joined("not", (self._nested(self._one),))
        if self._take("("):
            found = self._nested(self._any)
            self._want(")")
            return found
        return self._test()

    def _test(self) -> Test:
        start = self._start()
        match = _TOKEN.match(self.text, self.at)
        name = match["word"] if match is not None and match["word"] else ""
        plain = _NUMBERS.get(name.lower(), name)
        known = ("hw", *dict.fromkeys(_NUMBERS.values()), *_WORDS)
        if match is None or plain not in known:
            hint = nearest(name, known) if name else ""
            self._fail(f"a condition is about {', '.join(known)}, not {self._shown(start)}", start, hint)
        self.at = match.end()
        at = self._start()
        op = self._mark()
        allowed = ("==", "!=") if plain in _WORDS else (*COMPARISONS, "!=")
        if op not in allowed:
            self._fail(f"after {name} comes {', '.join(allowed)}, not {self._shown(at)}", at)
        self.at = at + len(op)
        return Test(plain, op, self._value(plain))

    def _value(self, name: str) -> int | str | tuple[int, int]:
        start = self._start()
        match = _TOKEN.match(self.text, self.at)
        if name in _WORDS:
            return self._chosen(name, match, start)
        wanted = "a size such as 65x65" if name == "hw" else "a whole number"
        text = (match["size"] or match["number"] or "") if match is not None else ""
        if match is None or not text or (name != "hw" and not text.isdecimal()):
            self._fail(f"{name} is compared with {wanted}, not with {self._shown(start)}", start)
        self.at = match.end()
        if name != "hw":
            return int(text)
        try:
            return parse_hw(text)
        except UsageError as error:
            self._fail(str(error), start)

    def _chosen(self, name: str, match: re.Match[str] | None, start: int) -> str:
        """A word of the few that there are; a glob over labels for a mechanism, in quotes where it is more than a word."""
        text = (match["word"] or (match["text"] or "")[1:-1]) if match is not None else ""
        if match is None or not text:
            self._fail(f"{name} is compared with a word, not with {self._shown(start)}", start)
        if _WORDS[name] and text not in _WORDS[name]:
            hint = nearest(text, _WORDS[name]) or f"one of {', '.join(_WORDS[name])}"
            self._fail(f"'{text:.40}' is no {name}", start, hint)
        self.at = match.end()
        return text

    def _nested(self, rule: Callable[[], _T]) -> _T:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self._fail("nested too deep", self.at)
        found = rule()
        self.depth -= 1
        return found

    def _start(self) -> int:
        """Where the next token begins."""
        return len(self.text) - len(self.text[self.at :].lstrip())

    def _mark(self) -> str:
        """The mark that comes next, left where it is; '' where there is none."""
        match = _TOKEN.match(self.text, self.at)
        return (match["mark"] or "") if match is not None else ""

    def _take(self, mark: str) -> bool:
        if self._mark() != mark:
            return False
        self.at = self._start() + len(mark)
        return True

    def _take_word(self, word: str) -> bool:
        match = _TOKEN.match(self.text, self.at)
        if match is None or match["word"] != word:
            return False
        self.at = match.end()
        return True

    def _want(self, mark: str, hint: str = "") -> None:
        if not self._take(mark):
            self._fail(f"'{mark}' is wanted here, not {self._shown(self._start())}", self._start(), hint)

    def _shown(self, at: int) -> str:
        """The token that stands there; where there is none, the characters up to a space."""
        rest = (token[0] if (token := _TOKEN.match(self.text, at)) else self.text[at:])[:20].split()
        return f"'{rest[0]}'" if rest else "the end"

    def _fail(self, what: str, offset: int, hint: str = "") -> NoReturn:
        raise PromiseError(what, offset, hint)
