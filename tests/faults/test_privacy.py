"""No user name and no absolute path in what is written: whatever a module prints or raises, and however it was named."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprof import plan, store
from attnprof.errors import UsageError
from attnprof.execute import forks
from attnprof.execute.private import private
from attnprof.records import Case, Placement, Record, Shape, case_from_json, public_import, to_json
from attnprof.spec import parse_text
from tests.command import Call, caller

pytestmark = pytest.mark.fault

PERSON = "zebedeequux"
TELLS = """\
import getpass, os, sys, pathlib, torch
from torch import nn

WORDS = f"{os.path.abspath(__file__)} of {getpass.getuser()} at {pathlib.Path.home()}, run in {os.getcwd()}"


class Good(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        print(WORDS)
        return self.mix(x)


class Raises(Good):
    def forward(self, x):
        raise ValueError(WORDS)


class Misses(Good):
    def forward(self, x):
        return open(pathlib.Path.home() / "weights of mine" / "net.pt")


class Aborts(Good):
    def forward(self, x):
        print(WORDS)
        print(WORDS, file=sys.stderr)
        os.abort()


class Wrong(Good):
    def __init__(self, channels):
        from attnprof.errors import UsageError
        raise UsageError(f"{WORDS}: there is no such file")
"""
NETWORK = (
    TELLS
    + """

class Net(nn.Sequential):
    def __init__(self, channels=3):
        super().__init__(nn.Conv2d(channels, 8, 1), nn.ReLU())
"""
)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Call]:
    """Commands of a person with a telling name, run from a folder that is not theirs."""
    home, folder = tmp_path / "people" / PERSON, tmp_path / "runs"
    (home / "my work").mkdir(parents=True)
    folder.mkdir()
    for name, value in (("HOME", str(home)), ("USER", PERSON), ("LOGNAME", PERSON)):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(folder)
    forks.close_server()  # the next one has this home
    yield caller(capsys)
    forks.close_server()


def check_nothing_telltale(folder: Path, root: Path) -> None:
    """In no file, whatever its form, and in no name of one."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        for telltale in (PERSON, str(root), str(Path(sys.prefix))):
            assert telltale.encode() not in content, (file, telltale)
        assert PERSON not in file.name


def test_nothing_telltale_is_written(call: Call, tmp_path: Path) -> None:
    """A run by absolute paths from another folder, whose modules name the home folder, the user and themselves."""
    home, folder = tmp_path / "people" / PERSON, tmp_path / "runs"
    mine, net = home / "my work" / "mine.py", home / "my work" / "net.py"
    mine.write_text(TELLS, encoding="utf-8")
    net.write_text(NETWORK, encoding="utf-8")
    classes = ("Good", "Raises", "Misses", "Aborts", "Wrong")
    items = "".join(f"  - {{import: '{mine}:{name}'}}\n" for name in classes)
    head = "input: {channels: 8, hw: 8x8}\nmodes: inference\nmeasure: {device: none}\nmechanisms:\n  - se\n"
    (home / "own.yaml").write_text(f"name: own\n{head}{items}", encoding="utf-8")
    host = f"host: {{import: '{net}:Net', at: '0'}}\n"
    (home / "placed.yaml").write_text(f"name: placed\n{host}{head.replace('channels: 8', 'channels: 3')}", encoding="utf-8")
    formats = ("--format", "md,csv,json,latex", "--allow-import", "*", "--out", "out", "--json", "-q")
    done = call("run", str(home / "own.yaml"), str(home / "placed.yaml"), *formats)
    assert done.code == 5, done.err
    found = {record["case"]["label"]: record for record in json.loads(done.out)["records"]}
    assert [found[name]["status"] for name in classes] == ["ok", "error", "error", "crashed", "error"]
    assert found["Good"]["case"]["mechanism"] == "mine.py:Good"
    assert found["Net"]["case"]["host"]["host"] == "net.py:Net"
    assert found["Raises"]["detail"].splitlines() == [
        "ValueError: ~/my work/mine.py of ~ at ~, run in .",
        "mine.py:19: raise ValueError(WORDS)",
    ]
    assert "~/my work/mine.py of ~ at ~" in found["Aborts"]["detail"]
    assert "~/weights of mine/net.pt" in found["Misses"]["detail"]
    check_nothing_telltale(folder, tmp_path)
    assert PERSON not in done.out
    assert str(tmp_path) not in done.out

    again = call("run", str(home / "own.yaml"), "--only", "Good", *formats[2:-1], "--resume")
    assert again.code == 0
    assert "[trace" not in again.err, again.err  # found by its key, though the store does not know the folder

    saved = call("baseline", "save", str(home / "own.yaml"), "-o", "base.json", "--allow-import", "*")
    assert saved.code in (0, 5), saved.err
    shape = ("--hw", "8x8", "--channels", "8", "--mode", "inference", "--json")
    pair = call("compare", f"{mine}:Good", f"{net}:Good", *shape)
    assert pair.code == 0, pair.err
    (folder / "compare.json").write_text(pair.out, encoding="utf-8")
    assert [record["case"]["label"] for record in json.loads(pair.out)["records"]][:2] == ["mine.py:Good", "net.py:Good"]
    check_nothing_telltale(folder, tmp_path)


def test_a_key_does_not_depend_on_the_folder_of_an_absolute_path() -> None:
    at_home = Case("/home/alice/mine.py:Mine", "Mine", {}, Shape(1, 8, 4, 4))
    elsewhere = Case("/srv/mine.py:Mine", "Mine", {}, Shape(1, 8, 4, 4), host=None)
    public = at_home.public
    assert public.mechanism == "mine.py:Mine"
    assert at_home.key == elsewhere.key == public.key == case_from_json(to_json(public)).key
    assert case_from_json(to_json(at_home)) == at_home  # a child needs the path
    hosted = Case("se", "se", {}, Shape(1, 3, 4, 4), host=Placement("/home/alice/net.py:Net", {}, "0"))
    assert hosted.public.host == Placement("net.py:Net", {}, "0")
    for path in ("./mine.py:Mine", "../mine.py:Mine", "pkg.mod:Mine", "channel/se", "mine.py:Mine"):
        assert public_import(path) == path
    typed = Case("./mine.py:Mine", "Mine", {}, Shape(1, 8, 4, 4))
    assert typed.key == "eb3ee380cada22c1658d"  # as ever


def test_two_networks_of_one_file_name_are_not_taken_for_one_another() -> None:
    text = "input: {hw: 8}\nmechanisms: [se]\nhost: [%s]\n"
    hosts = ", ".join(f"{{import: '/{who}/net.py:Net', at: a}}" for who in ("alice", "bob"))
    with pytest.raises(UsageError, match=r"/alice/net.py:Net and /bob/net.py:Net would both be net.py:Net .* rename one"):
        plan.expand(parse_text(text % hosts, "x"), "none")
    assert plan.expand(parse_text(text % hosts.replace("/bob/net", "/bob/other"), "x"), "none")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("No such file: '/home/al ice/x/mine.py'", "No such file: '~/x/mine.py'"),
        ("/opt/alicemoore/lib/x.so: bad", "x.so: bad"),
        ("{cwd}/sub/mine.py:12: a", "sub/mine.py:12: a"),
        ("run in {cwd}", "run in ."),
        ("at /home/al ice", "at ~"),
        ('File "/data/my folder/alicemoore/x.py", line 3', 'File "x.py", line 3'),
        ("file:///srv/a/b.py", "b.py"),
        ("hello alicemoore! softalicemoore", "hello ~! softalicemoore"),
        ("H//2/3, 1/2/3, a/b/c, https://x.org/a/b, 5 / 2 / 1", "H//2/3, 1/2/3, a/b/c, https://x.org/a/b, 5 / 2 / 1"),
        ("expected (8, 3) at layers.0/weight", "expected (8, 3) at layers.0/weight"),
    ],
)
def test_text_without_folders_and_names(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", "/home/al ice"), ("USER", "alicemoore"), ("LOGNAME", "alicemoore")):
        monkeypatch.setenv(name, value)
    assert private(text.format(cwd=Path.cwd())) == shown


def test_without_a_home_folder_and_with_a_name_that_is_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("getpass.getuser", nameless)
    assert private("the root module at /srv/a/b.py") == "the root module at b.py"
    monkeypatch.setenv("USER", "root")
    assert private("the root module") == "the root module"


def test_a_store_holds_the_public_case(tmp_path: Path) -> None:
    case = Case("/home/alice/mine.py:Mine", "Mine", {}, Shape(1, 8, 4, 4))
    store.append(tmp_path / "s.jsonl", Record(case))
    assert b"alice" not in (tmp_path / "s.jsonl").read_bytes()
    assert store.load(tmp_path / "s.jsonl").records[case.key].case == case.public
