"""An import string is code: nothing runs it without leave, and commands that only read never do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprof import store
from attnprof.cli import _COMMANDS
from attnprof.errors import UsageError
from attnprof.records import Case, Counts, Placement, Record, Shape
from attnprof.spec import check_import_permission, parse_text
from tests.command import Call, caller

pytestmark = pytest.mark.fault

BOMB = """\
import pathlib
pathlib.Path('{went_off}').touch()
from torch import nn
class Mine(nn.Identity): ...
class Net(nn.Identity): ...
"""
HEAD = "input: {channels: 8, hw: 9x9}\nmodes: inference\nmeasure: {device: none}\n"
COUNTS = Counts(1, 2, 3, 4, 5, 6, 7, 8)
SPECS = {
    "mechanism": HEAD + "mechanisms: [se, {import: './bomb.py:Mine'}]\n",
    "package": HEAD + "mechanisms: [se, {import: 'bomb:Mine'}]\n",
    "only one": HEAD + "mechanisms: [{import: bomb.py:Mine, as: se}]\n",
    "up and down": HEAD + "mechanisms: [{import: 'sub/../bomb.py:Mine'}]\n",
    "alias": HEAD + "mechanisms: [&a {import: 'bomb.py:Mine'}, {import: 'bomb.py:Net'}]\n",
    "host": HEAD + "mechanisms: [se]\nhost: {import: './bomb.py:Net', at: '0'}\n",
    "host in a list": HEAD + "mechanisms: [se]\nhost: [resnet18, {import: 'bomb.py:Net', at: '0'}]\n",
    "plain": HEAD + "mechanisms: [se, gcnet]\n",
}
OVERRIDES = (
    "mechanisms=[{import: 'bomb.py:Mine'}]",
    "mechanisms.1={import: 'bomb.py:Mine'}",
    "host={import: './bomb.py:Net', at: '0'}",
    "host=[{import: 'bomb:Net', at: '0'}]",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bomb.py").write_text(BOMB.format(went_off=tmp_path / "went_off"), encoding="utf-8")
    (tmp_path / "sub").mkdir()
    for name, text in SPECS.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    yield tmp_path
    assert not (tmp_path / "went_off").exists()
    assert "bomb" not in sys.modules


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys)


ODD = ("", "[", "**/", "bomb", "bomb.*.Mine", "bomb.p?", "bomb.py", "Bomb.py:Mine", "*.py:Other", "bomb.py:Mine2", ":", "sub/*")
COMMANDS = (("run",), ("gate", "--baseline", "base.json"), ("baseline", "save"), ("run", "--dry-run"), ("gate", "--dry-run"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_runs_without_leave(command: tuple[str, ...], call: Call, folder: Path) -> None:
    """Wherever the import string stands, and whatever pattern does not mean it."""
    (folder / "base.json").write_text("{}", encoding="utf-8")
    words, more = (command[:2], command[2:]) if command[0] == "baseline" else (command[:1], command[1:])
    more = ("--baseline", "base.json", *more) if command == ("gate", "--dry-run") else more
    runs: list[tuple[str, tuple[str, ...]]] = [(f"{name}.yaml", ()) for name in SPECS if name != "plain"]
    runs += [("plain.yaml", ("--set", text)) for text in OVERRIDES] if command[0] == "run" else []
    for file, overrides in runs:
        for allowed in ((), tuple(f"--allow-import={pattern}" for pattern in ODD)):
            done = call(*words, file, *more, *overrides, *allowed)
            assert done.code == 2, (file, overrides, done)
            assert done.out == ""
            assert "is code of your own: to run it, pass --allow-import" in done.err, done.err
    assert not list(folder.glob("reports/*"))


@pytest.mark.parametrize(
    ("written", "pattern", "allowed"),
    [
        ("mypkg.evil.py:X", "mypkg.*", False),  # a file beside the spec is no module of the package that was meant
        ("mypkg.evil.py:X", "mypkg*:X", False),
        ("mypkg.evil.py:X", "mypkg.evil.py:*", True),
        ("mypkg.good:X", "mypkg.*", True),
        ("mypkg.evil.py:X", "*", True),
        ("a[1].py:X", "a[1].py:X", True),  # as the message says
        ("own/../evil.py:X", "own/*", False),
        ("own//evil.py:X", "own/*", True),
        ("/own/evil.py:X", "own/*", False),
        ("evil.py:X", "good.py:X", False),
    ],
)
def test_which_pattern_means_which_import(written: str, pattern: str, allowed: bool) -> None:
    spec = parse_text(HEAD + f"mechanisms: [{{import: '{written}'}}]\n", "x.yaml")
    if allowed:
        check_import_permission(spec, [pattern])
    else:
        with pytest.raises(UsageError, match="is code of your own"):
            check_import_permission(spec, [pattern])


READING = """
import contextlib, io, json, sys
from attnprof.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["attnprof", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as error:
            assert error.code == 0, (words, error.code, err.getvalue())
    assert not {"torch", "bomb"} & set(sys.modules), words
"""


def test_commands_that_read_import_nobodys_code(folder: Path) -> None:
    """validate, report, merge and the others over specs and stores that name a class and a network of somebody's own."""
    cases = [
        Case("./bomb.py:Mine", "mine", {}, Shape(1, 8, 9, 9)),
        Case("bomb:Mine", "other", {}, Shape(1, 8, 9, 9)),
        Case("channel/se", "se", {}, Shape(1, 8, 9, 9), host=Placement("./bomb.py:Net", {}, "0")),
        Case(f"{folder}/bomb.py:Mine", "far", {}, Shape(1, 8, 9, 9)),
    ]
    for name in ("one", "two"):
        (folder / name).mkdir()
        path = folder / name / "own.jsonl"
        store.append(path, store.Run("own", tuple(case.key for case in cases), None, ("macs",)))
        for case in cases:
            store.append(path, Record(case, counts=COUNTS, environment={"provenance": {"source": "0"}}))
    commands = [["validate", *(f"{name}.yaml" for name in SPECS)], ["schema"], ["list"], ["list", "--json"], ["show", "se"]]
    formats = "md,csv,json,latex,html"
    commands += [["report", "one", "--format", formats, "--out", "written"], ["report", "two", "--all", "--sort", "macs"]]
    if "merge" in _COMMANDS:
        commands += [["merge", "one", "two", "--out", "merged"]]
    done = subprocess.run([sys.executable, "-c", READING, json.dumps(commands)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "written").iterdir())) == len(formats.split(","))
