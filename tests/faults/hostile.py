"""Hostile texts for the readers of files: random bytes, random structures, and mutations of the files that are shipped.

A mutation is a few draws (what, where, which payload) applied to a shipped text or to the value it holds, so that an example
costs about a millisecond and still shrinks. `rounds` runs a property over many of them: seeded, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import resource
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from attnprof.errors import AttnprofError, SpecError

PER_ROUND = 500  # examples under one seed: hypothesis remembers all of a round
LIMIT_S = 20.0  # per input, on a machine that may be busy
MEMORY_BYTES = 1 << 30  # that reading hostile files may take on top of what the process has

ODD_TEXTS = (
    "",
    " ",
    "\t",
    "\n\t- ",
    "\x00",
    "\x1b[31m",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\u202e",
    "\ud800",
    "\\ud800",
    '"\\ud800"',
    '"\\U00110000"',
    "'",
    '"',
    "{",
    "[",
    "}" * 3,
    "[" * 60,
    "{a: " * 60,
    "- " * 60,
    "? ",
    "<<: *a",
    "&a [*a]",
    "&a a",
    "*a",
    "&a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
    "!!python/object/apply:os.system [true]",
    "!!binary aGk=",
    "!<tag:x> 1",
    "%YAML 9.9\n---\n",
    "%TAG ! tag:x:\n---\n",
    "---\n",
    "...\n",
    "|\n  text\n",
    ">-9\n",
    "# comment",
    "1e999",
    "-.inf",
    ".nan",
    "0x7f",
    "1_000",
    "9" * 60,
    "9" * 5000,
    "1e" + "9" * 400,
    "\u0663\u0663",
    "é" * 200,
    "x" * 3000,
    "../../etc/passwd",
    "./mine.py:Mine",
    "os:system",
    "a" * 100 + "[" + "b" * 100,
    "{0}{x.__class__}%s%(a)s",
    "1x2x3x4",
    "8x-8",
    "cuda:99999999999999999999",
    "macs(se) < macs(se) @ hw >= 1x1",
    "(" * 300 + "1" + ")" * 300,
    "1" + "+1" * 150,
    "1/0",
    "__import__('os').system('true')",
    "1e400 - 1e400",
)
ODD_VALUES: tuple[Any, ...] = (
    *ODD_TEXTS,
    None,
    True,
    False,
    0,
    1,
    2,
    8,
    -1,
    10**39,
    10**400,
    2**63,
    0.5,
    -0.0,
    1e308,
    math.inf,
    math.nan,
    [],
    {},
    [[]],
    [[[[1]]]],
    [None],
    [1, 1],
    [1, 2, 3],
    list(range(1, 400)),
    {"": 1},
    {"name": "se"},
    {"import": "./mine.py:Mine"},
    {"name": "se", "args": {"reduction": [2, 4]}},
    {"name": "resnet50", "at": "body"},
    {"a": {"b": {"c": {}}}},
    ["nonlocal", "se"],
)
WORDS = (
    *("name", "input", "dtype", "modes", "mechanisms", "baseline", "host", "metrics", "measure", "claims", "tol", "counters"),
    *("sdpa", "memory_format", "compile", "autocast", "bounds", "threads", "batch", "channels", "hw", "frames", "args", "as"),
    *("import", "at", "how", "budget_s", "run_budget_s", "device", "paper", "title", "source", "cases", "tables", "metric"),
    *("unit", "published", "value", "verdict", "why", "grade", "quote", "again", "tolerance", "because", "convention", "fixed"),
    *("mechanism", "table", "of", "mode", "schema", "kind", "spec", "made", "points", "accepted", "ratios", "from", "to"),
)

PLACES = st.integers(0, 1 << 16)  # of a text or of a tree, modulo its size
PLAIN: st.SearchStrategy[Any] = (
    st.sampled_from(ODD_VALUES) | st.sampled_from(WORDS) | st.integers() | st.floats() | st.text(max_size=8)
)
TREES: st.SearchStrategy[Any] = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
TEXT_EDITS = st.tuples(
    st.sampled_from(["insert", "delete", "swap", "repeat", "byte"]), PLACES, PLACES, st.sampled_from(ODD_TEXTS)
)
TREE_EDITS = st.tuples(st.sampled_from(["set", "drop", "copy", "swap", "wrap", "key"]), PLACES, PLACES, PLAIN)
MILD_EDITS = st.tuples(
    st.sampled_from(["set", "drop"]),
    PLACES,
    PLACES,
    st.integers(1, 64) | st.sampled_from([1.5, "8x8", True, "se", "inference"]),
)


def files(shipped: list[tuple[str, Any]]) -> st.SearchStrategy[bytes]:
    """Contents of a file, of which `shipped` holds good ones: (text, the value that it holds)."""
    garbage = st.binary(max_size=200) | st.text(max_size=120).map(_encoded)
    garbage |= st.lists(
        st.sampled_from(ODD_TEXTS) | st.sampled_from(WORDS) | st.sampled_from([": ", "\n", "  ", "- ", ","])
    ).map(lambda parts: _encoded("".join(parts)))
    structures = st.tuples(st.dictionaries(st.sampled_from(WORDS), TREES, max_size=8) | TREES, PLACES).map(
        lambda drawn: written(*drawn)
    )
    edited = st.tuples(st.sampled_from(shipped), st.lists(TEXT_EDITS, min_size=1, max_size=3)).map(
        lambda drawn: edited_text(drawn[0][0], drawn[1])
    )
    changed = st.tuples(st.sampled_from(shipped), st.lists(TREE_EDITS | MILD_EDITS, min_size=1, max_size=3), PLACES).map(
        lambda drawn: written(edited_tree(drawn[0][1], drawn[1]), drawn[2])
    )
    return st.one_of(garbage, structures, edited, changed, changed)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def written(value: Any, how: int = 0) -> bytes:
    """The value as JSON, which is YAML as well but for the words that only one of them knows."""
    text = json.dumps(value, ensure_ascii=bool(how & 1), indent=1 if how & 2 else None)
    if how & 4:
        text = text.replace("NaN", ".nan").replace("Infinity", ".inf")
    return ("\ufeff".encode() if how & 8 else b"") + _encoded(text)


def edited_text(text: str, edits: list[tuple[str, int, int, str]]) -> bytes:
    """The text after edits at random places."""
    for kind, where, other, payload in edits:
        size = max(len(text), 1)
        begin, end = sorted((where % size, other % size))
        lines = text.split("\n")
        if kind == "insert":
            text = text[:begin] + payload + text[begin:]
        elif kind == "delete":
            text = text[:begin] + text[min(end, begin + 40) :]
        elif kind == "repeat":
            text = text[:end] + text[begin:end][:400] + text[end:]
        elif kind == "swap":
            a, b = where % len(lines), other % len(lines)
            lines[a], lines[b] = lines[b], lines[a]
            text = "\n".join(lines)
        else:
            text = text[:begin] + chr(other % 0x180) + text[begin + 1 :]
    return _encoded(text)


def edited_tree(value: Any, edits: list[tuple[str, int, int, Any]]) -> Any:
    """The value after edits at random nodes."""
    root = [copy.deepcopy(value)]
    for kind, where, other, payload in edits:
        nodes = list(_nodes(root))
        holder, key = nodes[where % len(nodes)]
        donor, taken = nodes[other % len(nodes)]
        if kind == "set":
            holder[key] = copy.deepcopy(payload)
        elif kind == "drop":
            holder.pop(key) if len(root) > 1 or holder is not root else None
        elif kind == "copy":
            holder[key] = copy.deepcopy(donor[taken])
        elif kind == "swap":
            mine, theirs = copy.deepcopy(holder[key]), copy.deepcopy(donor[taken])
            holder[key] = theirs
            if taken in (donor if isinstance(donor, dict) else range(len(donor))):
                donor[taken] = mine
        elif kind == "wrap":
            holder[key] = [holder[key]] * (1 + other % 3)
        elif isinstance(holder, dict):
            holder[str(payload)] = holder.pop(key)
    return root[0] if root else None


def _nodes(holder: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every node below."""
    keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
    for key in keys:
        yield holder, key
        yield from _nodes(holder[key])


@contextlib.contextmanager
def bounded_memory(allowed: int = MEMORY_BYTES) -> Iterator[None]:
    """Inside, this process may take so much more; past it comes a MemoryError, which no reader may raise."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        pages = int(statm.read().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def rounds(examples: int, strategy: st.SearchStrategy[Any], survives: Callable[[Any], None], first_seed: int = 0) -> int:
    """Runs the property over so many examples, in rounds with a seed each. Gives how many ran."""
    ran = 0
    for number in range(math.ceil(examples / PER_ROUND)):

        @seed(first_seed + number)
        @settings(
            max_examples=min(PER_ROUND, examples - number * PER_ROUND),
            database=None,
            deadline=timedelta(seconds=LIMIT_S),
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def one(example: Any) -> None:
            nonlocal ran
            ran += 1
            survives(example)

        with bounded_memory():
            one()
    return ran


def check_message(text: str) -> None:
    """A message for the user: there is one, of bounded length, with nothing in it that a terminal would take as a command."""
    assert text.strip()
    assert len(text) < 100_000
    strange = {char for char in text if not char.isprintable() and char != "\n"}
    assert not strange, f"{strange!r} in {text!r}"


def check_error(error: AttnprofError, file: str) -> None:
    """An error about a file: printable, it names the file, and each of its problems has a place in it or names its `--set`."""
    text = str(error)
    check_message(text)
    assert file in text or text.startswith("--set ")
    for problem in error.problems if isinstance(error, SpecError) else ():
        assert problem.what
        place = f"{file}:{problem.line}:{problem.column}: " if problem.line else "--set "
        assert problem.text().startswith(place)
