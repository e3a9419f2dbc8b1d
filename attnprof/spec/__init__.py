"""What to compare and over which axes: the Spec, and how a YAML file becomes one.

`parse_file` and `parse_text` read the strict YAML of DESIGN section 5 and raise a SpecError with every mistake at its place.
Importing this module costs nothing: PyYAML and pydantic are imported when a file is parsed or the schema is asked for, so
that `compare` can write a Spec directly. nouns.py has what a Spec is made of, sweep.py what it expands to.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

from attnprof.errors import Problem, SpecError, UsageError
from attnprof.spec.networks import Network
from attnprof.spec.nouns import Entry, Input, Measure, Spec
from attnprof.spec.sweep import MAX_POINTS, axes, inputs_of, size_problem, variants
from attnprof.spec.values import METRICS, parse_hw

__all__ = [
    "MAX_POINTS",
    "METRICS",
    "Entry",
    "Input",
    "Measure",
    "Network",
    "Spec",
    "axes",
    "check_import_permission",
    "inputs_of",
    "json_schema",
    "label_of",
    "make_entry",
    "parse_file",
    "parse_hw",
    "parse_text",
    "size_problem",
    "variants",
]

MAX_BYTES = 2**20
_SHOWN = 100  # problems


def parse_file(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """The Spec of a YAML file, with `--set KEY=VALUE` overrides applied first. Raises SpecError or UsageError (exit code 2)."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a spec file in it.")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file.{near_file(path)}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: no spec is that long.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8: byte {error.start} is 0x{data[error.start]:02x}.") from None
    return parse_text(text, str(path), overrides, files=True)


def near_file(path: Path) -> str:
    """' Did you mean FILE?' of the file beside `path` whose name is most like it, endings aside; '' where none is."""
    siblings = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    stems = difflib.get_close_matches(path.stem, [file.stem for file in siblings], n=1)
    near = [file for file in siblings if file.stem in stems]
    near.sort(key=lambda file: file.suffix != path.suffix)
    return f" Did you mean {near[0]}?" if near else ""


def parse_text(text: str, filename: str = "spec", overrides: Sequence[str] = (), files: bool = False) -> Spec:
    """The Spec of a YAML text; `filename` is what problems are reported under. Raises SpecError with all problems.

    files: whether the files that it imports from have to be there, with what it names of them.
    """
    from attnprof.spec import check, overriding, yaml_loader

    if len(text) > MAX_BYTES:
        raise UsageError(f"{filename} is larger than {MAX_BYTES // 2**20} MiB: no spec is that long.")
    document = yaml_loader.load(text, filename)
    if document.value is None and document.problems:
        _refuse(document.problems)
    overridden, mistakes = overriding.apply(document, overrides)
    spec, problems = check.check(document, overridden, files)
    if mistakes or spec is None:
        _refuse([*mistakes, *problems])
    return spec


def _refuse(problems: list[Problem]) -> NoReturn:
    """Raises the SpecError. A problem on line 0 has no place in a file: its `file` is the `--set` that it comes from."""
    error = SpecError(problems)
    texts = [problem.text() if problem.line else _placeless(problem) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        texts.append(f"and {len(problems) - _SHOWN:,} more")
    error.args = ("\n".join(texts),)
    raise error


def _placeless(problem: Problem) -> str:
    return f"{problem.file}: {problem.what}" + (f": {problem.hint}" if problem.hint else "")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a spec file, for editors; specs/schema.json is this."""
    from attnprof.spec.model import SpecModel

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SpecModel.model_json_schema()}


def label_of(mechanism: str) -> str:
    """The label of an entry without `as:`: the name without its family, the class of an import path."""
    return mechanism.rpartition(":")[2] if ":" in mechanism else mechanism.rpartition("/")[2]


def make_entry(text: str, args: Mapping[str, Any] | None = None, label: str | None = None) -> Entry:
    """An Entry from what is typed on the command line: a catalogue name, or an import path where there is a ':' in it.

    `args` are values, not axes. Raises UsageError for a name that the catalogue lacks.
    """
    from attnprof import mechanisms

    imported = ":" in text
    mechanism = text if imported else mechanisms.resolve(text)
    values = {name: (as_size(name, value),) for name, value in (args or {}).items()}
    return Entry(mechanism, label or label_of(mechanism), values, imported=imported)


def as_size(name: str, value: Any) -> Any:
    """An argument called `hw` as [H, W] where it is written as a resolution ('7x7'); any other value as it is."""
    if name == "hw" and isinstance(value, (str, int)) and not isinstance(value, bool):
        try:
            return list(parse_hw(value))
        except UsageError:
            return value
    return value


def check_import_permission(spec: Spec, patterns: Sequence[str]) -> None:
    """Raises UsageError for entries with `import:` that no `--allow-import` pattern matches ('module:Class', fnmatch).

    The path as the spec has it is compared, or as it is from the current folder; a file path without its './' and after '..' is
    resolved, so that 'blocks/*' cannot reach outside blocks. A file is matched by what names one: 'mypkg.*' allows the modules
    of a package, and not the file mypkg.evil.py beside a spec.
    """
    refused = []
    for path, written, line in imports_of(spec):
        texts = {_canonical(written), _canonical(path)}
        if not any(_allows(pattern, text) for text in texts for pattern in patterns):
            where = f"{spec.source}:{line}: " if line else f"{spec.source}: " if spec.source else ""
            which = f" ({path.rpartition(':')[0]})" if path != written else ""
            refused.append(f"{where}'{written}'{which} is code of your own: to run it, pass --allow-import '{written}'.")
    if refused:
        every = [text for path, written, _ in imports_of(spec) for text in (_canonical(written), _canonical(path))]
        idle = [pattern for pattern in patterns if not any(_allows(pattern, text) for text in every)]
        refused += [f"--allow-import '{pattern}' matches nothing in this spec." for pattern in idle]
        raise UsageError("\n".join(refused))


def _allows(pattern: str, text: str) -> bool:
    wanted = _canonical(pattern)
    of_files = ".py" in wanted or "/" in wanted or wanted.startswith("*")
    is_file = text.rpartition(":")[0].endswith(".py")
    return wanted == text or (fnmatchcase(text, wanted) and (of_files or not is_file))


def imports_of(spec: Spec) -> list[tuple[str, str, int]]:
    """(import path, as the spec writes it, line) of every class and network of the user's own."""
    own = [(entry.mechanism, entry.text, entry.line) for entry in spec.entries if entry.imported]
    return [*own, *((each.host, each.text, each.line) for each in spec.hosts if each.imported)]


def _canonical(text: str) -> str:
    where, colon, name = text.rpartition(":")
    return posixpath.normpath(where) + colon + name if where.endswith(".py") or "/" in where else text
