"""Networks that mechanisms are placed in: every file here declares one architecture and its variants by name.

A file says in literals, which are read from its source text without importing torch: VARIANTS {name: the build arguments that
the name fixes}, PARAMS {name: parameter count of the public model}, SITES {name: glob of submodules}, the usual one first, and
NATURAL (channels, height, width); and it defines `build(channels, ...)`. A build parameter called `hw` gets the input's (H, W).

A glob stands for dotted names of submodules, part by part: `layer[1-4].*` are the blocks of all stages and nothing inside them,
`**` stands for any number of parts.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from attnprof import mechanisms
from attnprof.errors import UsageError
from attnprof.mechanisms import Argument
from attnprof.records import Mechanism, Placement, Shape

_ROOT = Path(__file__).parent
_IMAGE = (3, 224, 224)
_SAID = ("VARIANTS", "PARAMS", "SITES", "NATURAL")


@dataclass(frozen=True)
class Entry:
    """What the source text says of a host, without importing it. `fixed`: build arguments that the name decides."""

    name: str
    path: Path
    title: str
    paper: str
    fixed: Mapping[str, Any]
    arguments: tuple[Argument, ...]
    sites: Mapping[str, str]
    natural: Shape
    params: int | None = None

    @property
    def site(self) -> str:
        """Where a mechanism stands unless told: the site that the papers use."""
        return next(iter(self.sites), "")


@dataclass(frozen=True)
class Host:
    """A network: build(channels=, hw=, **args) -> nn.Module; `params` is the public model's count at natural size."""

    name: str
    paper: str
    build: Callable[..., Any]
    natural: Shape
    params: int | None = None
    sites: Mapping[str, str] = field(default_factory=dict)


@cache
def _files() -> dict[str, Path]:
    """{name: the file that declares it}, in the order of files and of their VARIANTS."""
    files = sorted(file for file in _ROOT.glob("*.py") if not file.name.startswith("_"))
    return {name: file for file in files for name in _literals(file)["VARIANTS"]}


def names() -> tuple[str, ...]:
    """Every host, from the files that are there."""
    return tuple(_files())


def resolve(name: str) -> str:
    """The name of a host or the import path of a user's network. Raises UsageError with the nearest name."""
    if ":" in name or name in _files():
        return name
    if name.endswith(".py"):
        raise UsageError(f"'{name}' is a file: write {name}:Class for a network in it.")
    near = difflib.get_close_matches(name, _files(), n=1)
    advice = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(_files())}, and ./file.py:Class for your own."
    raise UsageError(f"no host is called '{name}': {advice}")


@cache
def describe(name: str) -> Entry:
    """A host from its source text; a user's own network has no sites with names, and takes images."""
    name = resolve(name)
    if ":" in name:
        return Entry(name, Path(), name, "", {}, (), {}, Shape(1, *_IMAGE))
    file = _files()[name]
    tree, said = ast.parse(file.read_text(encoding="utf-8")), _literals(file)
    docstring = ast.get_docstring(tree) or ""
    title, _, paper = docstring.split("\n", 1)[0].rstrip(".").partition(": ")
    build = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build")
    fixed = said["VARIANTS"][name]
    arguments = tuple(each for each in mechanisms.arguments_of(build) if each.name not in fixed)
    shape = Shape(1, *said["NATURAL"])
    return Entry(name, file, title, paper, fixed, arguments, said["SITES"], shape, said["PARAMS"].get(name))


@cache
def _literals(file: Path) -> dict[str, Any]:
    """The literals that a host's file assigns at its top level."""
    found = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(target, ast.Name) and target.id in _SAID:
            assert node.value is not None
            found[target.id] = ast.literal_eval(node.value)
    return found


def load(name: str) -> Host:
    """The Host of a name (imports its file and torch), or of an import path (runs the user's code)."""
    entry = describe(name)
    if ":" in name:
        return Host(name, "", mechanisms.load_imported(name).build, entry.natural)
    module = importlib.import_module(f"{__name__}.{entry.path.stem}")
    build = functools.partial(module.build, **entry.fixed)
    return Host(name, entry.paper, build, entry.natural, entry.params, entry.sites)


def build(name: str, shape: Shape, args: Mapping[str, Any]) -> Any:
    """The network for inputs of a shape, with a parameter called `channels` (in_channels) and one called `hw` filled in.

    Of a user's own network only what has no default is filled in. Raises UsageError for an argument that it does not take.
    """
    from torch import nn

    host = load(name)
    if isinstance(host.build, nn.Module):
        import copy

        if args:
            raise UsageError(f"{name} is a network that is built already: it takes no arguments.")
        return copy.deepcopy(host.build)
    check_arguments(name, args)
    own = ":" in name
    parameters = inspect.signature(host.build).parameters
    mechanisms.check_arguments(Mechanism(name, "host", "BCHW", host.paper, host.build), args)
    full = dict(args)
    for key, value in (("channels", shape.channels), ("in_channels", shape.channels), ("hw", shape.hw)):
        if key in parameters and key not in full and not (own and parameters[key].default is not inspect.Parameter.empty):
            full[key] = value
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.kind not in kinds and p.name not in full]
    if missing:
        raise UsageError(
            f"{name} wants {', '.join(missing)}: write {name}[{missing[0]}=...] on the command line, "
            f"args: {{{missing[0]}: ...}} in a spec."
        )
    network = host.build(**full)
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name} builds a {type(network).__name__}, not a torch.nn.Module.")
    return network


def check_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Raises UsageError for an argument that a host does not take, or that its name decides. Imports no torch."""
    entry = describe(name)
    if ":" in name:
        return
    known = [each.name for each in entry.arguments]
    for key in args:
        if key in entry.fixed:
            raise UsageError(f"{name} has {key}={entry.fixed[key]} by its name: choose another host for another {key}.")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(known)}."
            raise UsageError(f"{name} has no argument '{key}': {advice}")


def glob_of(placement: Placement) -> str:
    """The glob of a placement: what stands behind the name of a site, or `at` as it is."""
    return describe(placement.host).sites.get(placement.at, placement.at)


@cache
def submodules(name: str) -> tuple[str, ...]:
    """The dotted names of a host's submodules without arguments, from submodules.json: imports no torch."""
    trees = json.loads((_ROOT / "submodules.json").read_text(encoding="utf-8"))
    return tuple(_unfolded(trees[name], ""))


def _unfolded(tree: Mapping[str, Any], above: str) -> Iterator[str]:
    """{"stem": {}, "0-2": {"conv": {}}} -> stem, 0, 0.conv, 1, 1.conv, 2, 2.conv."""
    for key, below in tree.items():
        first, _, last = key.partition("-")
        for name in map(str, range(int(first), int(last) + 1)) if last else (key,):
            yield above + name
            yield from _unfolded(below, f"{above}{name}.")


def check_place(placement: Placement) -> None:
    """Raises UsageError for an `at` that names nothing in a host. Of a host with arguments, and of a user's own network, the
    submodules are known when it is built: nothing is said of them here. Imports no torch.
    """
    if ":" not in placement.host and not placement.args:
        chosen(placement, submodules(placement.host))


def chosen(placement: Placement, known: Sequence[str]) -> list[str]:
    """Those of a network's dotted names that `at` matches. Raises UsageError where none does, or one lies inside another."""
    glob = glob_of(placement)
    found = [name for name in known if matches(name, glob)]
    if not found:
        raise UsageError(f"{placement.text} has no submodule '{placement.at}': {_advice(known, placement)}")
    for name in found:
        inside = next((other for other in found if other.startswith(name + ".")), None)
        if inside is not None:
            raise UsageError(
                f"'{placement.at}' matches {name} and {inside} inside it: the mechanism would stand there twice. Write a "
                "narrower glob (`*` stands for one part of a name, `**` for any number)."
            )
    return found


def _advice(known: Sequence[str], placement: Placement) -> str:
    named = describe(placement.host).sites
    deeper = f"**.{placement.at}"
    count = sum(matches(name, deeper) for name in known)
    if placement.at and count:
        return f"'{deeper}' would match {count} (`*` stands for one part of a dotted name, `**` for any number)."
    near = difflib.get_close_matches(placement.at, [*named, *known], n=1)
    sites = f"its sites are {', '.join(named)}; " if named else ""
    advice = f"did you mean '{near[0]}'?" if near else f"`attnprof sites {placement.host}` lists them."
    return sites + advice


def matches(name: str, glob: str) -> bool:
    """Whether a dotted name fits a glob, part by part: `*` stays between two dots, `**` stands for any number of parts."""
    return _fits(name.split("."), glob.split("."))


def _fits(parts: list[str], globs: list[str]) -> bool:
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_fits(parts[skipped:], globs[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _fits(parts[1:], globs[1:])
