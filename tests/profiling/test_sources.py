"""Which of a user's files a hash covers: what a module's file imports, found without running any of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnprof.profiling import sources
from attnprof.profiling.provenance import Loading, both, is_of_two, source_hash
from attnprof.profiling.sources import imported_by, search_path
from attnprof.records import Case, Shape


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        file = folder / (name.replace("__in__", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def found(folder: Path, name: str = "mine") -> list[str]:
    files = imported_by([folder / f"{name}.py"], search_path())
    return [str(file.relative_to(folder)) for file in files]


@pytest.mark.parametrize(
    "text",
    [
        "import helper",
        "import os, helper as h",
        "from helper import layer",
        "from helper import *",
        "def build():\n    import helper",
        "try:\n    import helper\nexcept ImportError:\n    helper = None",
        "if True:\n    from helper import layer",
        "class Mine:\n    from helper import layer",
    ],
)
def test_a_helper_is_found_wherever_it_is_imported(folder: Path, text: str) -> None:
    write(folder, helper="raise RuntimeError('imported')", mine=text)
    assert found(folder) == ["helper.py"]
    before = source_hash(f"{folder}/mine.py:Mine")
    assert before == source_hash("mine:Mine")
    write(folder, helper="layer = 1")
    assert source_hash(f"{folder}/mine.py:Mine") != before


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("from . import near", ["pkg/__init__.py", "pkg/near.py"]),
        ("from .near import layer", ["pkg/__init__.py", "pkg/near.py"]),
        ("from .sub import deep", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("from pkg.sub import deep", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("import pkg.sub.deep", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("from .sub.deep import up", ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"]),
        ("from bare.inside import layer", ["bare/inside/layer.py"]),
        ("from .nothing import layer", ["pkg/__init__.py"]),
    ],
)
def test_packages_are_gone_through(folder: Path, text: str, wanted: list[str]) -> None:
    write(folder, pkg__in____init__="", pkg__in__near="", pkg__in__sub__in____init__="", pkg__in__sub__in__deep="")
    write(folder, bare__in__inside__in__layer="", pkg__in__mine=text)
    assert found(folder, "pkg/mine") == wanted


def test_imports_are_followed_once_each_and_around_in_circles(folder: Path) -> None:
    write(folder, mine="import a, b", a="import b, mine", b="import a, c", c="not python")
    assert found(folder) == ["a.py", "b.py", "c.py"]
    before = source_hash("mine:Mine")
    write(folder, c="not python either")
    assert source_hash("mine:Mine") != before


def test_a_file_beside_that_is_not_on_the_path_is_found(tmp_path: Path) -> None:
    write(tmp_path, mine="import sys\nsys.path.insert(0, '.')\nimport besidehelper", besidehelper="")
    assert found(tmp_path) == ["besidehelper.py"]


def test_what_is_nobodys_own_is_left_out(folder: Path) -> None:
    write(folder, mine="import torch, numpy, json, sys, pytest\nfrom attnprof.mechanisms.channel import se")
    write(folder, alone="")
    assert found(folder) == []
    assert "site-packages" in str(sys.modules["pytest"].__file__)
    write(folder, alone=(folder / "mine.py").read_text())
    assert source_hash("alone:Mine") == source_hash("mine:Mine"), "the hash of the file alone"


def test_a_file_is_read_and_parsed_once_while_it_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, mine="import helper", helper="x = 1")
    parsed: list[bytes] = []
    parse = sources._parse

    def noted(text: bytes) -> list[sources._Import]:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(sources, "_parse", noted)
    for _ in range(3):
        source_hash("mine:Mine")
    assert parsed == [b"import helper", b"x = 1"]
    write(folder, helper="x = 10")
    source_hash("mine:Mine")
    assert parsed[2:] == [b"x = 10"]


def test_a_process_knows_that_a_shared_helper_is_not_what_it_loaded(folder: Path) -> None:
    write(folder, one="import helper", two="import helper", helper="x = 1")
    one, two = (Case(f"{folder}/{name}.py:Mine", name, {}, Shape(1, 8, 8, 8)) for name in ("one", "two"))
    loading = Loading()
    before = loading.source(one)
    assert loading.loaded(before, one) == before == source_hash(one.mechanism)
    write(folder, helper="x = 10")
    after = loading.source(two)
    assert loading.edited
    assert is_of_two(loading.loaded(before, one))
    assert is_of_two(loading.loaded(after, two))


def test_the_hash_of_two_sources() -> None:
    assert both("a", "a") == "a"
    assert both(both("a", "b"), "b") == both("a", both("a", "b")) == both("a", "b") != both("a", "c")
