"""attnprof/hosts/submodules.json: the names of every host's submodules, from the networks as they are built without arguments.

python -m tests.makers.hosts_names      writes it (`make catalogue`)
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch

from attnprof import hosts

FILE = Path(hosts.__file__).parent / "submodules.json"


@cache
def names_of(host: str) -> list[str]:
    """Dotted names, every module under all names that it has; a network is built once per process."""
    with torch.device("meta"):
        network = hosts.build(host, hosts.describe(host).natural, {})
    return [name for name, _ in network.named_modules(remove_duplicate=False) if name]


def folded(names: list[str]) -> dict[str, Any]:
    """Names as a tree; neighbours with numbers for names and the same tree below are one key: {"0-2": {...}}."""
    tree: dict[str, Any] = {}
    for name in names:
        below = tree
        for part in name.split("."):
            below = below.setdefault(part, {})
    return _folded(tree)


def _folded(tree: dict[str, Any]) -> dict[str, Any]:
    groups: list[tuple[str, str, dict[str, Any]]] = []
    for name, below in tree.items():
        inner = _folded(below)
        first, last, other = groups[-1] if groups else ("", "", {})
        if name.isdigit() and last.isdigit() and int(name) == int(last) + 1 and inner == other:
            groups[-1] = (first, name, inner)
        else:
            groups.append((name, name, inner))
    return {first if first == last else f"{first}-{last}": inner for first, last, inner in groups}


def text() -> str:
    """The file: one line per host."""
    lines = [f"{json.dumps(name)}: {json.dumps(folded(names_of(name)), separators=(',', ':'))}" for name in hosts.names()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write() -> None:
    """Writes the file."""
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    write()
