"""The catalogue: every file `<family>/<name>.py` below this folder is one mechanism; being there is the registration.

Names, docstrings and build signatures are read from the source text, so that `list`, `show` and `validate` need no torch;
`load` imports one file when its module is really wanted.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.errors import UsageError

if TYPE_CHECKING:
    from attnprof.records import Mechanism, Shape, TensorSpec

_ROOT = Path(__file__).parent
HEADINGS = ("Paper", "Idea", "Formula", "Shapes", "Params", "Cost", "Defaults", "Differs", "Survey")
_FILES: dict[tuple[str, int, int], Any] = {}  # the user's files that were run: {(path, time of change, size): module}
_WANTED = "a class of torch.nn.Module, or a function that builds one"
LAYOUTS = ("BCHW", "BNC", "BTCHW", "BTC")


@dataclass(frozen=True)
class Argument:
    """A build argument: its default as source text (None where it is required)."""

    name: str
    default: str | None
    annotation: str = ""


@dataclass(frozen=True)
class Entry:
    """What the source text says of a mechanism, without importing it."""

    name: str
    family: str
    path: Path
    title: str = ""
    headings: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[Argument, ...] = ()
    layout: str = ""

    @property
    def qualified(self) -> str:
        """'family/name'."""
        return f"{self.family}/{self.name}"


@cache
def names() -> Mapping[str, tuple[str, ...]]:
    """{family: names}, from the files that are there."""
    found: dict[str, tuple[str, ...]] = {}
    for folder in sorted(path for path in _ROOT.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))):
        members = tuple(sorted(file.stem for file in folder.glob("*.py") if not file.name.startswith("_")))
        if members:
            found[folder.name] = members
    return found


def resolve(name: str) -> str:
    """'ccnet' or 'spatial/ccnet' -> 'spatial/ccnet'. Raises UsageError with the nearest names."""
    every = [f"{family}/{member}" for family, members in names().items() for member in members]
    if name in every:
        return name
    if name.endswith(".py"):
        raise UsageError(f"'{name}' is a file: write {name}:Class for a class in it.")
    matches = [qualified for qualified in every if qualified.split("/")[1] == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"'{name}' is ambiguous: {', '.join(matches)}. Write the family too.")
    import difflib

    pool = every + [qualified.split("/")[1] for qualified in every]
    elsewhere = [qualified for qualified in every if qualified.split("/")[1] == name.rpartition("/")[2]]
    near = elsewhere or difflib.get_close_matches(name, pool, n=3, cutoff=0.5)
    advice = f"did you mean {', '.join(repr(n) for n in near)}?" if near else "`attnprof list` shows every name."
    raise UsageError(f"no mechanism is called '{name}': {advice}")


def headings_of(qualified: str) -> tuple[str, dict[str, str]]:
    """(title, {heading: text}) of a mechanism, from the docstring that opens its file: what `list` reads, without a parser."""
    text = (_ROOT / f"{qualified}.py").read_text(encoding="utf-8")
    docstring = text.split('"""', 2)[1] if text.startswith('"""') else ""
    return docstring.split("\n", 1)[0].strip().rstrip("."), _headings(docstring)


@cache
def describe(name: str) -> Entry:
    """Docstring headings and build arguments of a mechanism, from its source text."""
    qualified = resolve(name)
    family, member = qualified.split("/")
    path = _ROOT / family / f"{member}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    return Entry(
        name=member,
        family=family,
        path=path,
        title=docstring.split("\n", 1)[0].rstrip("."),
        headings=_headings(docstring),
        arguments=_build_arguments(tree),
        layout=_declared(tree, "layout"),
    )


@cache
def uses_frames(name: str) -> bool:
    """Whether the frames T of a shape mean anything to a mechanism, by its source text: an image mechanism takes one image."""
    qualified = resolve(name)
    tree = ast.parse((_ROOT / f"{qualified}.py").read_text(encoding="utf-8"))
    if _declared(tree, "layout").startswith("BT") or any(each.name == "frames" for each in _build_arguments(tree)):
        return True
    return any(isinstance(node, ast.Attribute) and node.attr == "frames" for node in ast.walk(tree))


def _headings(docstring: str) -> dict[str, str]:
    """{'Paper': text, ...}: a heading stands at the start of a line, its continuation lines are indented."""
    found: dict[str, str] = {}
    current = ""
    for line in docstring.splitlines()[1:]:
        word = line.split(" ", 1)[0]
        if word in HEADINGS:
            current = word
            found[current] = line[len(word) :].strip()
        elif current and line.startswith(" "):
            found[current] += "\n" + line.strip()
    return found


def _declared(tree: ast.Module, field: str) -> str:
    """A text or name given in `MECHANISM = Mechanism(field=...)`."""
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and getattr(node.targets[0], "id", "") == "MECHANISM"
            and isinstance(node.value, ast.Call)
        ):
            for keyword in node.value.keywords:
                if keyword.arg == field:
                    return str(getattr(keyword.value, "value", None) or getattr(keyword.value, "id", ""))
    return ""


def _build_arguments(tree: ast.Module) -> tuple[Argument, ...]:
    """Arguments after `channels` of what `MECHANISM = Mechanism(build=NAME, ...)` names."""
    target = _declared(tree, "build")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == target:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    return arguments_of(item, skip=2)
        if isinstance(node, ast.FunctionDef) and node.name == target:
            return arguments_of(node, skip=1)
    return ()


def arguments_of(function: ast.FunctionDef, skip: int = 0) -> tuple[Argument, ...]:
    """The arguments of a function after the first `skip`, from its source text."""
    positional = function.args.args
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(function.args.defaults)) + list(function.args.defaults)
    pairs = list(zip(positional, defaults, strict=True))[skip:]
    pairs += list(zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True))
    return tuple(
        Argument(
            name=argument.arg,
            default=None if default is None else ast.unparse(default),
            annotation="" if argument.annotation is None else ast.unparse(argument.annotation),
        )
        for argument, default in pairs
    )


def load(name: str) -> Mechanism:
    """The Mechanism of a catalogue name; imports its file (and torch)."""
    family, member = resolve(name).split("/")
    module = importlib.import_module(f"attnprof.mechanisms.{family}.{member}")
    mechanism: Mechanism = module.MECHANISM
    return mechanism


def load_imported(path: str) -> Mechanism:
    """The Mechanism of a user's own class, 'pkg.mod:Class' or 'path/to/file.py:Class'. This runs the user's code."""
    from attnprof.records import Mechanism

    where, _, attribute = path.rpartition(":")
    if not where or not attribute:
        raise UsageError(f"'{path}' is no import path: write 'package.module:Class' or './file.py:Class'.")
    if where.endswith(".py"):
        file = Path(where)
        if not file.is_file():
            raise UsageError(f"{where}: there is no such file (for '{path}'; looked for {file.absolute()}).")
        module = _run_file(file)
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise UsageError(f"cannot import '{where}' for '{path}': {error}.") from error
    if not hasattr(module, attribute):
        import difflib

        near = difflib.get_close_matches(attribute, dir(module), n=1)
        advice = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"'{where}' has no '{attribute}'.{advice}")
    target = getattr(module, attribute)
    if not callable(target):
        raise UsageError(f"'{attribute}' in '{where}' is of type {type(target).__name__}: {_WANTED} is wanted.")
    return Mechanism(name=attribute, family="imported", layout="BCHW", paper="", build=target)


def _run_file(file: Path) -> Any:
    """The module of a file, run once while the file stays as it is: what it registers with torch can be registered once."""
    stamp = (str(file.resolve()), file.stat().st_mtime_ns, file.stat().st_size)
    if stamp not in _FILES:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        _FILES[stamp] = module
    return _FILES[stamp]


def complete_args(mechanism: Mechanism, shape: Shape, args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` with what the shape decides filled in: a build parameter called `hw` gets (H, W), `frames` gets T.

    For an imported class the parameter called channels, in_channels, dim or c gets the channel count, unless it is given, or
    has a default of its own beside other arguments that are given.
    """
    parameters = inspect.signature(mechanism.build).parameters
    full = dict(args)
    if mechanism.family == "imported":
        for candidate in ("channels", "in_channels", "dim", "c"):
            if candidate in parameters and candidate not in full:
                if not args or parameters[candidate].default is inspect.Parameter.empty:
                    full[candidate] = shape.channels
                break
        return full
    for name, value in (("hw", shape.hw), ("frames", shape.frames)):
        if name in parameters and name not in full:
            full[name] = value
    return full


def build(mechanism: Mechanism, shape: Shape, args: Mapping[str, Any]) -> Any:
    """The nn.Module of a mechanism for a shape. Raises UsageError for an argument that it does not take."""
    full = complete_args(mechanism, shape, args)
    check_arguments(mechanism, full)
    if mechanism.family == "imported":
        missing = _missing(mechanism, full)
        if missing and not inspect.isclass(mechanism.build):
            raise UsageError(
                f"{mechanism.name} is a function of {', '.join(missing)}: {_WANTED} is wanted (if it is one, write "
                f"{mechanism.name}[{missing[0]}=...] on the command line, args: {{{missing[0]}: ...}} in a spec)."
            )
        if missing:
            raise UsageError(
                f"{mechanism.name} wants {', '.join(missing)}: write {mechanism.name}[{missing[0]}=...] on the command "
                f"line, args: {{{missing[0]}: ...}} in a spec."
            )
        module = mechanism.build(**full)
        _check_inputs(mechanism, module)
        return module
    with warnings.catch_warnings():  # torch's, of layers that have no weights: said in words below
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        module = mechanism.build(shape.channels, **full)
    empty = [label for label, parameter in module.named_parameters() if not parameter.numel()]
    if empty:
        raise ValueError(f"{shape.channels} channels leave {mechanism.name} none for {empty[0]}: it needs more")
    return module


def _check_inputs(mechanism: Mechanism, module: Any) -> None:
    """Raises UsageError for an imported module whose forward wants more than the one input that it gets."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):  # no module, or one that does not say: torch has the last word
        return
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    wanted = [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]
    if len(wanted) > 1:
        raise UsageError(
            f"the forward of {mechanism.name} wants {len(wanted)} inputs ({', '.join(wanted)}) and gets one, (B, C, H, W): "
            "wrap it in a module of one input, or count it in Python with attnprof.profile(module, inputs)."
        )


def _missing(mechanism: Mechanism, args: Mapping[str, Any]) -> list[str]:
    """Required parameters that are not given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(mechanism.build).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds and p.name not in args]


def check_arguments(mechanism: Mechanism, args: Mapping[str, Any]) -> None:
    """Raises UsageError for an argument that the mechanism does not take, with the nearest one that it does."""
    parameters = inspect.signature(mechanism.build).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in args:
        if name not in parameters and not takes_any:
            import difflib

            near = difflib.get_close_matches(name, list(parameters), n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(parameters) or 'none'}."
            raise UsageError(f"{mechanism.name} has no argument '{name}': {advice}")


def input_specs(mechanism: Mechanism, shape: Shape, args: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """The inputs of a mechanism at a shape, without data."""
    from attnprof.records import TensorSpec

    if mechanism.inputs is not None:
        return mechanism.inputs(shape, **complete_args(mechanism, shape, args))
    if mechanism.layout not in LAYOUTS:
        raise ValueError(f"{mechanism.name}: the layout '{mechanism.layout}' is none of {', '.join(LAYOUTS)}")
    b, c, h, w, t = shape.batch, shape.channels, shape.height, shape.width, shape.frames
    if mechanism.layout == "BNC":
        return (TensorSpec((b, h * w, c)),)
    if mechanism.layout == "BTCHW":
        return (TensorSpec((b, t, c, h, w)),)
    if mechanism.layout == "BTC":
        return (TensorSpec((b, t, c)),)
    return (TensorSpec((b, c, h, w)),)
