"""README.md and CONTRIBUTING.md against the code: generated parts, command lines, examples, paths.

The generated parts are rewritten by `make catalogue`; read the diff before you keep it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from attnprof import errors, mechanisms
from attnprof.cli import _COMMANDS, cli
from attnprof.spec import parse_text
from tests.makers import catalogue_page, doc_tables
from tests.makers.doc_tables import ROOT, run_here

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
# Words in the documents that stand for a name of the reader's.
STAND_INS = {"FAMILY", "NAME", "COMMAND", "DIR"}
# What a run, a build or the reader makes.
MADE = re.compile(r"reports/[^/.]+/|reports/NAME/|\.venv/|mine\.py|my\.yaml|mine\.yaml")


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def console_lines() -> Iterator[tuple[str, list[str]]]:
    """(document, words) of every line that a reader is to type; assignments in front are left out."""
    for path in (README, CONTRIBUTING):
        for block in blocks(path, "console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    words = shlex.split(line[2:], comments=True)
                    while re.match("[A-Z_]+=", words[0]):
                        del words[0]
                    yield path.name, words


TYPED = list(dict.fromkeys((document, tuple(words)) for document, words in console_lines()))
OURS = [words[1:] for _, words in TYPED if words[0] == "attnprof"]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_generated_parts_are_what_the_code_gives_now() -> None:
    if os.environ.get("ATTNPROF_BLESS"):
        doc_tables.write()
    assert doc_tables.renewed(text_of(README)) == text_of(README), "make catalogue, and read the diff"


def test_the_catalogue_page_and_the_specs_of_families_are_what_the_code_gives_now() -> None:
    if os.environ.get("ATTNPROF_BLESS"):
        catalogue_page.write()
    assert catalogue_page.page() == text_of(catalogue_page.PAGE), "make catalogue, and read the diff"
    for name, text in catalogue_page.specs().items():
        assert text == text_of(catalogue_page.SPECS / name), f"specs/{name}: make catalogue, and read the diff"


def test_every_command_and_exit_code_is_in_readme() -> None:
    readme = text_of(README)
    assert [name for name in _COMMANDS if f"`attnprof {name}`" not in readme] == []
    known = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    written = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert written == known | {0, 1, 4, 130, 141}  # 1: verify; 4: crosscheck --strict


def test_lines_to_type_are_found() -> None:
    assert {words[0] for words in OURS} >= {"run", "compare", "explain", "list", "show", "report", "validate"}
    assert ("README.md", ("make", "run")) in TYPED


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_command_lines_parse(words: tuple[str, ...]) -> None:
    """Options are known, values are of their types, required ones are there; nothing is run."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, words[0]
    context = command.make_context(words[0], list(words[1:]))
    for name in context.params.get("names", (context.params.get("name"),)):
        if name and ":" not in name and "NAME" not in name:
            mechanisms.resolve(name)
    for spec in context.params.get("specs", ()):
        assert (ROOT / spec).is_file() or MADE.match(spec), spec


def test_cheap_command_lines_run_without_torch(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    cheap = [list(words) for words in OURS if words[0] in ("list", "show", "validate", "schema") and "--hw" not in words]
    cheap = [words for words in cheap if not STAND_INS & set("/".join(words).split("/"))]
    assert len(cheap) >= 3
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.makers.doc_tables import run_here\n"
        f"for words in {[*cheap, *([name, '--help'] for name in _COMMANDS), ['--help'], ['schema']]!r}:\n"
        "    status, out = run_here(words)\n"
        "    assert status == 0 and out, (words, status)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_and_what_they_do() -> None:
    makefile = text_of(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    typed = {words[1] for _, words in TYPED if words[0] == "make"}
    named = set(re.findall(r"`make ([a-z]+)`", text_of(README) + text_of(CONTRIBUTING)))
    assert typed | named == targets


def test_pip_lines_name_what_the_project_needs() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    needed = {re.split("[<>=]", requirement)[0] for requirement in project["dependencies"]}
    (listed,) = (words[2:] for _, words in TYPED if words[:2] == ("pip", "install") and not words[2].startswith("-"))
    assert set(listed) == needed - {"torch"}
    pin = text_of(ROOT / "constraints.txt").strip()
    assert any(pin in words for _, words in TYPED)


def test_the_spec_in_readme_is_valid_and_means_what_it_says() -> None:
    _, text, _ = blocks(README, "yaml")
    spec = parse_text(text, "README.md")
    assert [entry.label for entry in spec.entries] == ["nonlocal", "ccnet", "mine"]
    assert dict(spec.entries[1].args) == {"recurrence": (1, 2, 3)}


NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__()
        self.layer3, self.layer4 = nn.Conv2d(3, 16, 3, 8), nn.Conv2d(16, 32, 3, 2)
"""


def test_a_network_of_the_readers_own_takes_mechanisms_by_readmes_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, *_ = blocks(README, "yaml")
    assert len(text.splitlines()) == 10
    Path("my.yaml").write_text(text, encoding="utf-8")
    Path("net.py").write_text(NET, encoding="utf-8")
    status, out = run_here(["run", "my.yaml", "--allow-import", "net.py:Net", "-q"])
    assert status == 0
    assert all(label in out for label in ("se[at=layer3]", "ccnet[recurrence=2,at=layer4]"))


def test_the_module_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's mine.py goes through the explain line that follows it; the fused attention kernel takes it."""
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks(README, "python") if "class Mine" in block)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (line,) = (words for words in OURS if words[0] == "explain")
    status, out = run_here(list(line))
    assert status == 0
    assert "Who holds the memory at the peak" in out
    assert "softmax" not in out


def test_the_gate_of_the_reader_passes_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks(README, "python") if "class Mine" in block)
    *_, text = blocks(README, "yaml")
    Path("mine.py").write_text(code, encoding="utf-8")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    save, gate = (words for words in OURS if "mine.yaml" in words)
    assert run_here(list(save))[0] == 0
    status, out = run_here(list(gate))
    assert status == 0, out
    Path("mine.py").write_text(code.replace("3 * channels", "3 * channels, bias=False"), encoding="utf-8")
    assert run_here(list(gate))[0] == 0, "less is no regression"
    dearer = code.replace("return x + ", "x = x + self.qkv(x.flatten(2).mT).mean()\n        return x + ")
    Path("mine.py").write_text(dearer, encoding="utf-8")
    assert run_here(list(gate))[0] == 1
    accept = next(words for words in OURS if words[:2] == ("baseline", "accept"))
    assert run_here(list(accept))[0] == 0


def test_the_python_example_prints_what_its_comments_say(tmp_path: Path) -> None:
    (code,) = (block for block in blocks(README, "python") if "import attnprof" in block)
    file = tmp_path / "example.py"
    file.write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)


@pytest.mark.parametrize("path", [README, CONTRIBUTING, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_every_path_that_is_named_exists(path: Path) -> None:
    text = text_of(path)
    catalogue = {f"{family}/{name}" for family, members in mechanisms.names().items() for name in members}
    named = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    named |= {word for word in re.findall(r"`([^`\s()]+)`", text) if re.search(r"/|\.(py|md|toml|txt|ya?ml|json)$", word)}
    missing = []
    for word in sorted(named - catalogue - {""}):
        if MADE.match(word) or word.startswith(("./file.py", "<family>")) or STAND_INS & set(re.split(r"[/.]", word)):
            continue
        if not any(ROOT.glob(word.split("<")[0])):  # attnprof/mechanisms/<family>/
            missing.append(word)
    assert missing == []
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text_of(README), re.MULTILINE)
    }
    assert set(re.findall(r"\]\((?:README\.md)?#([a-z-]+)\)", text)) <= anchors


def test_headings_and_checks_are_named_in_contributing() -> None:
    from tests.mechanisms.test_mechanisms import CHECKS

    text = text_of(CONTRIBUTING)
    assert [check.__name__ for check in CHECKS if f"`{check.__name__}`" not in text] == []
    assert ", ".join(mechanisms.HEADINGS) in " ".join(text.split())
