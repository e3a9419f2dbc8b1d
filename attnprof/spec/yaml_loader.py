"""A strict YAML reader on PyYAML: text -> plain values, where each stands, and everything that is wrong with the text.

Only PyYAML's scanner, parser and composer are used; there is no constructor, so that no tag can construct anything. Scalars
follow `scalars.parse_scalar`. Duplicate keys are refused, aliases are expanded only after the expanded size is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from yaml.composer import Composer, ComposerError
from yaml.error import Mark, MarkedYAMLError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from attnprof.errors import Problem
from attnprof.spec.scalars import parse_scalar

MAX_NODES = 100_000
MAX_DEPTH = 50
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # what PyYAML counts as one
_SHOWN = 160

Path = tuple[str | int, ...]
Position = tuple[int, int]


@dataclass
class Document:
    """A parsed text: its value, the position of every key and value by path, and the problems found while reading."""

    file: str
    lines: list[str]
    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, position: Position, what: str, hint: str = "") -> None:
        """Adds a problem."""
        self.problems.append(self.problem(position, what, hint))

    def problem(self, position: Position, what: str, hint: str = "") -> Problem:
        """A problem at a position, with its source line where that is short enough to be shown."""
        line, column = position
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        printable = (character if character.isprintable() else " " for character in source[:_SHOWN])
        source = "".join(printable).rstrip() if column <= _SHOWN else ""
        return Problem(self.file, line, column, what, hint, source)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the node graph, with a cap on depth and on the number of nodes; explicit tags are refused."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = self.nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ComposerError(None, None, f"more than {MAX_NODES:,} values in one file", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        tag = None if isinstance(event, AliasEvent) else getattr(event, "tag", None)
        if tag is not None:
            raise ComposerError(None, None, f"tags are not supported: {tag!r}", event.start_mark)
        self.depth += 1
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load(text: str, file: str, needs: str = "a spec needs `input:` and `mechanisms:`") -> Document:
    """Reads one YAML document. Never raises for what the text holds: look at `problems`. `needs`: said of an empty file."""
    document = Document(file, _LINE_BREAK.split(text))
    try:
        loader = _Loader(text)
    except ReaderError as error:
        document.report(
            _position_of(text, int(error.position)), f"the character {chr(error.character)!r} is not allowed in YAML"
        )
        return document
    try:
        node = loader.get_single_node()
        if node is None:
            document.report((1, 1), "the file is empty", needs)
            return document
        _measure(node, {})
        document.value = _construct(document, node, ())
    except MarkedYAMLError as error:
        document.report(_at(error.problem_mark or error.context_mark), _sentence(error))
    except RecursionError:
        document.report((1, 1), "nested too deep")
    except (ValueError, OverflowError):  # PyYAML's scanner on "\UFFFFFFFF" and on %YAML with a number of 5,000 digits
        document.report(_at(loader.get_mark()), "an escape or a number that no character or version has")
    return document


def _sentence(error: MarkedYAMLError) -> str:
    if error.context == "expected a single document in the stream":
        return "a second document starts here: one spec per file"
    return ", ".join(part for part in (error.context, error.problem) if part)


def _at(mark: Mark | None) -> Position:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _position_of(text: str, offset: int) -> Position:
    before = _LINE_BREAK.split(text[:offset])
    return (len(before), len(before[-1]) + 1)


def _measure(node: Node, memo: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """(nodes, depth) of what `node` expands to, each node of the graph visited once. Raises ComposerError past the caps."""
    if id(node) in memo:
        known = memo[id(node)]
        if known is None:
            raise ComposerError(None, None, "an alias inside the value that it stands for", node.start_mark)
        return known
    memo[id(node)] = None
    size, depth = 1, 0
    for child in _children(node):
        child_size, child_depth = _measure(child, memo)
        size, depth = size + child_size, max(depth, child_depth)
    if size > MAX_NODES or depth >= MAX_DEPTH:
        raise ComposerError(
            None, None, f"aliases expand to more than {MAX_NODES:,} values or {MAX_DEPTH} levels", node.start_mark
        )
    memo[id(node)] = (size, depth + 1)
    return (size, depth + 1)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _construct(document: Document, node: Node, path: Path) -> Any:
    """The plain value of a node; positions and problems go into `document`."""
    document.values[path] = _at(node.start_mark)
    if isinstance(node, MappingNode):
        return _construct_mapping(document, node, path)
    if isinstance(node, SequenceNode):
        return [_construct(document, child, (*path, index)) for index, child in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    try:
        text = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")  # JSON writes one character as two escapes
    except UnicodeDecodeError:
        document.report(_at(node.start_mark), "half a surrogate pair is no text")
        return None
    return parse_scalar(text) if node.style is None else text


def _construct_mapping(document: Document, node: MappingNode, path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key_node, value_node in node.value:
        position = _at(key_node.start_mark)
        key = _key(key_node)
        if key is None:
            document.report(position, "a key must be a word")
        elif key in out:
            first = document.keys[(*path, key)]
            document.report(position, f"the key '{key}' stands twice (first at line {first[0]}, column {first[1]})")
        else:
            document.keys[(*path, key)] = position
            out[key] = _construct(document, value_node, (*path, key))
    return out


def _key(node: Node) -> str | None:
    """The text of a key, or None for what is no word: a number, null, true, a collection, control characters."""
    if not isinstance(node, ScalarNode) or not node.value or not node.value.isprintable():
        return None
    text = str(node.value)
    return text if node.style is not None or isinstance(parse_scalar(text), str) else None
