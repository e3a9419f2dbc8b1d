"""README's generated parts: what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`, as the code gives it now.

python -m tests.makers.doc_tables      writes them into README.md, and the catalogue page, the survey spec
                                and attnprof/hosts/submodules.json (`make catalogue`)
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from attnprof import mechanisms
from attnprof.cli import _COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
COMPARE = "attnprof compare nonlocal ccnet --hw 97x97 --device none"


def run_here(arguments: list[str]) -> tuple[int, str]:
    """A command line in this process: (what it returned, stdout). Errors are raised."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = cli.main(arguments, prog_name="attnprof", standalone_mode=False)
    return code or 0, out.getvalue()


def compare() -> str:
    """The output of COMPARE without its notes."""
    _, text = run_here(COMPARE.split()[1:])
    paragraphs = [paragraph for paragraph in text.strip().split("\n\n") if not paragraph.startswith("- ")]
    return "```console\n$ " + COMPARE + "\n" + "\n\n".join(paragraphs) + "\n```"


def commands() -> str:
    """One row per command."""
    rows = [f"| `attnprof {name}` | {text} |" for name, (_, text) in _COMMANDS.items()]
    return "\n".join(["| command | does |", "| --- | --- |", *rows])


def catalogue() -> str:
    """One row per family: the names in it."""
    families = mechanisms.names()
    rows = [
        f"| {family.replace('_', ' and ')} | {', '.join(f'`{name}`' for name in names)} |" for family, names in families.items()
    ]
    count = sum(map(len, families.values()))
    return "\n".join([f"{count} mechanisms:", "", "| family | names |", "| --- | --- |", *rows])


PARTS: Mapping[str, Callable[[], str]] = {"compare": compare, "commands": commands, "catalogue": catalogue}


def renewed(text: str) -> str:
    """README's text with every part made anew. Raises ValueError where a part's markers are not there exactly once."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"the markers of '{name}' stand not exactly once in README.md")
        pattern = re.escape(begin) + ".*" + re.escape(end)
        made = f"{begin}\n{make()}\n{end}"
        text = re.sub(pattern, lambda _, made=made: made, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def write() -> None:
    """Renew README.md in place."""
    readme = ROOT / "README.md"
    readme.write_text(renewed(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    from tests.makers import catalogue_page, hosts_names  # import torch

    write()
    catalogue_page.write()
    hosts_names.write()
