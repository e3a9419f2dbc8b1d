"""Baselines by name: `main` is baselines/main.json of the current folder; what has a slash or ends with .json is a path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from attnprof.errors import AttnprofError, NothingSelectedError, UsageError
from attnprof.gate import baseline
from attnprof.gate.baseline import Baseline
from attnprof.spec import near_file

FOLDER = Path("baselines")


@dataclass(frozen=True)
class Listed:
    """One file of the folder: what it holds, or why it cannot be read."""

    file: Path
    held: Baseline | None = None
    problem: str = ""


def file_of(text: str) -> Path:
    """The file that a name or a path means; a bare name that is a file here and none in the folder is that file."""
    named = FOLDER / f"{text}.json"
    if "/" in text or text.endswith(".json") or (Path(text).exists() and not named.exists()):
        return Path(text)
    return named


def new_file(name: str) -> Path:
    """The file of a baseline that is to be saved under a name. Raises UsageError for what is no name."""
    if not name.strip() or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"--name {name!r}: a name such as main, which is {FOLDER}/main.json; a path is given with -o.")
    return FOLDER / (name if name.endswith(".json") else f"{name}.json")


def read(text: str) -> Baseline:
    """The baseline that a name or path means. Raises as `baseline.read`, naming the nearest."""
    return baseline.read(file_of(text))


def listed() -> list[Listed]:
    """Every baseline in the folder, by name. Raises NothingSelectedError where there is none."""
    files = sorted(FOLDER.glob("*.json")) if FOLDER.is_dir() else []
    found = []
    for file in files:
        try:
            found.append(Listed(file, baseline.read(file)))
        except AttnprofError as error:
            if _is_one(file):
                found.append(Listed(file, problem=str(error)))
    if not found:
        where = f"{FOLDER}/ holds no baseline" if FOLDER.is_dir() else f"there is no folder {FOLDER}/{near_file(FOLDER)}"
        raise NothingSelectedError(f"{where}. To make one: `{baseline.remake()}`, or --name NAME in place of -o FILE.")
    return found


def _is_one(file: Path) -> bool:
    """Whether a file that cannot be read as a baseline is meant to be one: other JSON may lie there."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(content, dict) and content.get("kind") == baseline.KIND
