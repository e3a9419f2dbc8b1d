"""The command line as people use it: what is printed where, what is written, and which exit code says what happened."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from attnprof import mechanisms, store
from attnprof.cli import _COMMANDS
from attnprof.records import SCHEMA_VERSION, Record, record_from_json
from tests.command import Call, caller, process

FAULTY = Path(__file__).parents[1] / "faulty.py"
NAMES = [(family, name) for family, names in mechanisms.names().items() for name in names]
TINY = """\
name: tiny
input: {channels: 16, hw: [9x9, 5x7]}
modes: inference
mechanisms: [se, gcnet]
baseline: se
measure: {budget_s: 0.1}
"""
CASES = 4
MINE = """\
import torch
from torch import Tensor, nn


class Mine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)


class Hoards(Mine):
    def forward(self, x: Tensor) -> Tensor:
        hoard = []
        while not x.is_meta:
            hoard.append(torch.empty(2**28))
        return x
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`attnprof ARGS...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    return caller(capsys)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished `run` on the CPU: tests copy it."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "tiny.yaml").write_text(TINY)
    done = process("run", "tiny.yaml", "--device", "cpu", "--out", "out", cwd=folder)
    assert done.code == 0, done.err
    (folder / "stdout").write_text(done.out)
    (folder / "stderr").write_text(done.err)
    return folder


@pytest.fixture
def out(measured: Path, tmp_path: Path) -> Path:
    """A copy of what the finished run wrote."""
    shutil.copytree(measured / "out", tmp_path / "out")
    return tmp_path / "out"


def records_of(data: dict[str, Any]) -> list[Record]:
    return [record_from_json(record) for record in data["records"]]


def lines_of_kind(path: Path, kind: str) -> int:
    return sum(json.loads(line)["kind"] == kind for line in path.read_text().splitlines())


def is_measured(record: Record) -> bool:
    return record.status == "ok" and record.counts is not None and record.timing is not None and record.timing.n >= 10


# --- what needs no torch


_LAZY = """
import contextlib, io, json, sys
from attnprof.__main__ import main
found = []
for args in json.loads(sys.argv[1]):
    sys.argv = ["attnprof", *args]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as error:
            code = error.code
    heavy = [name for name in ("torch", "numpy", "pandas", "pydantic", "yaml", "rich") if name in sys.modules]
    found.append([code, len(out.getvalue()), err.getvalue(), heavy])
print(json.dumps(found))
"""


def run_lazily(commands: Sequence[Sequence[str]], cwd: Path) -> list[tuple[int, int, str, list[str]]]:
    """(exit code, length of stdout, stderr, heavy modules loaded by then) of each command, in one process."""
    command = [sys.executable, "-c", _LAZY, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=True)
    return [tuple(found) for found in json.loads(done.stdout)]


def test_help_and_the_catalogue_load_nothing_heavy(tmp_path: Path) -> None:
    helps = [["--help"], ["--version"], *([name, "--help"] for name in _COMMANDS)]
    catalogue = [["list"], ["list", "--json"], ["list", "--family", "spatial"], ["show", "ccnet"], ["show", "se", "--json"]]
    for args, (code, written, said, heavy) in zip(helps + catalogue, run_lazily(helps + catalogue, tmp_path), strict=True):
        assert (code, said, heavy) == (0, "", []), args
        assert written > 10, args


def test_specs_and_reports_load_neither_torch_nor_pandas(out: Path, tiny: Path) -> None:
    commands = [
        ["validate", "tiny.yaml"],
        ["schema"],
        ["report", "out", "--format", "md,csv,json"],
        ["run", "tiny.yaml", "--dry-run"],
        ["run", "tiny.yaml", "--device", "cpu", "--out", "out"],
    ]
    for args, (code, written, said, heavy) in zip(commands, run_lazily(commands, tiny.parent), strict=True):
        assert code == 0, (args, said)
        assert written > 10, args
        assert not {"torch", "pandas", "numpy"} & set(heavy), args
    assert out.is_dir()


# --- the catalogue


def test_every_name_resolves_bare_and_with_its_family(call: Call) -> None:
    listed = call("list", "--json").json
    assert listed["schema"] == SCHEMA_VERSION
    assert [(row["family"], row["name"]) for row in listed["mechanisms"]] == NAMES
    for family, name in NAMES:
        bare, qualified = call("show", name, "--json"), call("show", f"{family}/{name}", "--json")
        assert bare.code == qualified.code == 0
        assert bare.json == qualified.json
        assert (bare.json["family"], bare.json["name"]) == (family, name)
        assert call("show", name).out.startswith(f"{family}/{name}: ")
        assert name in call("list", "--family", family).out


def test_show_counts_where_it_is_asked_to(call: Call) -> None:
    plain = call("show", "ccnet", "--json").json
    assert "params" not in plain
    assert "(C + 1)" in plain["params_formula"]
    assert call("show", "ccnet", "--channels", "512", "--json").json["params"] == 328_321
    shown = call("show", "ccnet[recurrence=1]", "--hw", "97x97", "--json").json
    assert shown["params"] == 328_321
    assert shown["inference"]["macs"] / 1e9 == pytest.approx(4.135, abs=5e-4)
    assert "4.13" in call("show", "ccnet[recurrence=1]", "--hw", "97x97").out


WRONG_NAMES = [
    (("show", "ccnt"), "'ccnet'"),
    (("show", "spatial/nonlocl"), "'spatial/nonlocal'"),
    (("show", "channel/ccnet"), "'spatial/ccnet'"),
    (("explain", "ccnt", "--hw", "9x9"), "'ccnet'"),
    (("compare", "ccnet", "nonlocl", "--hw", "9x9"), "'nonlocal'"),
    (("compare", "nonlocal", "ccnet[recurence=1]", "--hw", "9x9"), "'recurrence'"),
    (("show", "ccnet[recurence=1]"), "'recurrence'"),
    (("explain", "ccnet[recurence=1]", "--hw", "9x9"), "'recurrence'"),
    (("list", "--family", "spatail"), "spatial"),
    (("compare", "se", "cam", "--hw", "9x9", "--sort", "latncy"), "'latency'"),
    (("rnu", "x.yaml"), "'run'"),
]


@pytest.mark.parametrize(
    ("args", "nearest"), WRONG_NAMES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_wrong_name_is_a_usage_error_with_the_nearest(call: Call, args: tuple[str, ...], nearest: str) -> None:
    done = call(*args)
    assert (done.code, done.out) == (2, "")
    sentence = done.err.splitlines()[-1]
    assert nearest in sentence
    assert "internal" not in done.err


# --- compare


TRACED = ("--hw", "97x97", "--channels", "512", "--mode", "inference", "--device", "none")


def test_compare_counts_what_the_papers_count(call: Call) -> None:
    done = call("compare", "pam", "ccnet", *TRACED, "--json")
    assert (done.code, done.err) == (0, "")
    data = done.json
    assert data["schema"] == SCHEMA_VERSION
    assert data["first"] == "pam"
    pam, ccnet = records_of(data)
    assert pam.counts is not None
    assert ccnet.counts is not None
    assert pam.counts.macs / 1e9 == pytest.approx(54.08, abs=5e-3)
    assert ccnet.counts.macs / 1e9 == pytest.approx(8.269, abs=5e-4)
    assert pam.counts.params == ccnet.counts.params == 328_321
    assert pam.counts.uncounted == ccnet.counts.uncounted == {}
    for raw in data["records"]:
        assert raw["status"] == "ok"
        assert raw["timing"] is None
        assert raw["case"]["shape"] == {"batch": 1, "channels": 512, "height": 97, "width": 97, "frames": 1}
        assert raw["counts"]["traced_by"] == "meta"
    ratios = {ratio["metric"]: ratio for ratio in data["ratios"]}
    assert ratios["macs"]["value"] == pytest.approx(6.54, abs=5e-3)
    assert (ratios["macs"]["first"], ratios["macs"]["other"], ratios["macs"]["mode"]) == ("pam", "ccnet", "inference")
    assert ratios["params"]["value"] == 1
    assert ratios["latency"]["value"] is None
    assert "device none" in ratios["latency"]["reason"]
    text = call("compare", "pam", "ccnet", *TRACED).out
    assert "ccnet needs 6.54x fewer MACs than pam" in text
    assert "the parameter counts are equal (pam, ccnet)" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_compare_takes_arguments_in_brackets(call: Call) -> None:
    names = [f"ccnet[recurrence={count}]" for count in (1, 2, 3)]
    records = records_of(call("compare", *names, *TRACED, "--json").json)
    assert [record.case.label for record in records] == names
    assert [record.case.args for record in records] == [{"recurrence": count} for count in (1, 2, 3)]
    counted = [record.counts.macs / 1e9 for record in records if record.counts]
    assert counted == pytest.approx([4.135, 8.269, 12.404], abs=6e-4)


def test_compare_of_a_mechanism_with_itself_has_two_rows(call: Call) -> None:
    done = call("compare", "se", "se", "channel/se", "--hw", "9x9", "--device", "none", "--json")
    labels = [record.case.label for record in records_of(done.json) if record.case.mode == "training"]
    assert len(set(labels)) == 3


def test_both_modes_unless_told_and_sorted_where_told(call: Call) -> None:
    args = ("compare", "se", "nonlocal", "gcnet", "--hw", "9x9", "--channels", "64", "--device", "none")
    assert {record.case.mode for record in records_of(call(*args, "--json").json)} == {"inference", "training"}
    text = call(*args, "--sort", "macs", "--mode", "training").out
    rows = re.findall(r"^(se|nonlocal|gcnet) ", text, re.MULTILINE)
    assert rows[:3] == ["se", "gcnet", "nonlocal"]
    assert "inference" not in text


# Started by a small process: what a process forked from counts into its own highest resident size.
_PEAK_OF = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "attnprof", *sys.argv[1:]]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("names", "least", "most"),
    [
        (("nonlocal", "ccnet"), 10e6, 60e6),  # kept forms answer: torch is not imported
        (("nonlocal[reduction=4]", "ccnet[recurrence=3]"), 100e6, 350e6),  # traced
    ],
)
def test_a_large_shape_costs_no_memory(tmp_path: Path, names: tuple[str, str], least: float, most: float) -> None:
    args = ("compare", *names, "--hw", "1024x1024", "--mode", "inference", "--device", "none", "--json")
    done = subprocess.run([sys.executable, "-c", _PEAK_OF, *args], capture_output=True, text=True, cwd=tmp_path, check=True)
    nonlocal_, ccnet = records_of(json.loads(done.stdout))
    assert nonlocal_.counts is not None
    assert ccnet.counts is not None
    assert nonlocal_.counts.peak_bytes > 2**40 * 8
    assert nonlocal_.counts.macs > 20 * ccnet.counts.macs
    assert least < int(done.stderr) < most, "nothing but the size stands on stderr"


def test_compare_traces_and_measures_a_class_of_ones_own(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    args = ("compare", "ccnet", "./mine.py:Mine", "--hw", "17x17", "--channels", "64", "--device", "cpu", "--mode", "inference")
    done = call(*args, "--budget", "0.3")
    assert done.code == 0, done.err
    assert "[measure" in done.err
    assert "[measure" not in done.out
    said = " ".join(done.out.split("\n\n")[-1].split())
    for words in ("fewer parameters than ccnet", "fewer MACs", "fewer FLOPs", "less peak memory", "less measured peak memory"):
        assert re.search(rf"Mine needs [\d.]+x {words}", said), words
    number = r"[\d.]+"
    speed = rf"Mine is {number}x (faster|slower) than ccnet \(95 % interval {number} to {number}, .*n=\d+ pairs\)"
    assert re.search(speed, said) or re.search(r"(show no|a) difference in latency .*\(ratio", said)

    done = call(*args, "--budget", "0.3", "--json", "-q")
    assert (done.code, done.err) == (0, "")
    data = done.json
    for record in records_of(data):
        assert is_measured(record), record.detail
        assert record.memory is not None
    mine = data["records"][1]
    assert mine["case"]["mechanism"] == "./mine.py:Mine"
    assert mine["counts"]["params"] == 64 * 64 + 64
    assert mine["counts"]["macs"] == 64 * 64 * 17 * 17
    timing = mine["timing"]
    assert timing["n"] == len(timing["latency_s"]) >= 10
    assert timing["ci_s"][0] <= timing["median_s"] <= timing["ci_s"][1]
    latency = next(ratio for ratio in data["ratios"] if ratio["metric"] == "latency")
    assert latency["low"] <= latency["value"] <= latency["high"]
    assert latency["pairs"] >= 10


def test_what_cannot_be_compared_is_refused_unless_forced(call: Call) -> None:
    args = ("compare", "nonlocal", "mhsa", "--hw", "9x9", "--channels", "64", "--device", "none")
    done = call(*args)
    assert (done.code, done.out, len(done.err.splitlines())) == (3, "", 1)
    assert "nonlocal takes BCHW" in done.err
    assert "mhsa takes BNC" in done.err
    assert "--force" in done.err
    assert call(*args, "--force").code == 0


WRONG_VALUES = [
    (("se",), "at least two"),
    ((), "A B..."),
    (("se", "cam", "--hw", "9y9"), "HxW"),
    (("se", "cam", "--hw", "0x9"), "between 1 and"),
    (("se", "cam", "--hw", "9x9", "--channels", "0"), "--channels"),
    (("se", "cam", "--hw", "9x9", "--batch", "many"), "--batch"),
    (("se", "cam", "--hw", "9x9", "--mode", "sideways"), "'sideways'"),
    (("se", "cam", "--hw", "9x9", "--dtype", "float8"), "--dtype"),
    (("se", "cam", "--hw", "9x9", "--device", "tpu"), "'tpu'"),
    (("se", "cam", "--hw", "9x9", "--sdpa", "quick"), "--sdpa"),
    (("se", "cam", "--hw", "9x9", "--budget", "0"), "--budget"),
    (("se", "cam", "--hw", "9x9", "--budget", "nan"), "--budget"),
    (("se", "cam", "--hw", "9x9", "--timeout", "inf"), "--timeout"),
    (("se", "cam", "--hw", "9x9", "--sort", "beauty"), "'beauty'"),
    (("se", "ccnet[recurrence=x]", "--hw", "9x9", "--device", "none"), "'recurrence' of ccnet is int"),
    (("se", "ccnet[recurrence]", "--hw", "9x9"), "name[argument=value,...]"),
    (("se", "./no/such.py:Mine", "--hw", "9x9"), "./no/such.py: there is no such file (for './no/such.py:Mine'; looked for /"),
]


@pytest.mark.parametrize(("args", "words"), WRONG_VALUES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_wrong_value_is_one_sentence(call: Call, args: tuple[str, ...], words: str) -> None:
    shape = () if "--hw" in args else ("--hw", "9x9")
    done = call("compare", *args, *shape)
    assert (done.code, done.out) == (2, "")
    *usage, sentence = done.err.splitlines()
    assert words in sentence
    assert usage in ([], ["Usage: attnprof compare [OPTIONS] A B...", "Try 'attnprof compare --help' for help.", ""])


def test_what_a_mechanism_raises_is_its_row_and_no_internal_error(call: Call) -> None:
    shape = ("--channels", "30", "--hw", "7x7")
    done = call("compare", "mhsa", "sdpa", *shape, "--device", "none", "--mode", "inference", "--json")
    assert done.code == 5
    mhsa, sdpa = records_of(done.json)
    assert (mhsa.status, sdpa.status) == ("error", "ok")
    assert "do not divide into 8 heads" in mhsa.detail
    for command in ("show", "explain"):
        done = call(command, "mhsa", *shape)
        assert (done.code, done.out, len(done.err.splitlines())) == (5, "", 1)
        assert "mhsa" in done.err
        assert "error: ValueError" in done.err


def test_what_is_no_class_is_told_by_what_it_is(call: Call, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MINE + "\n\ndef plain(x):\n    return x\n\n\nWIDTH = 3\n")
    wanted = "a class of torch.nn.Module, or a function that builds one is wanted"
    for name, words in (("plain", "plain is a function of x: "), ("WIDTH", "'WIDTH' in './own.py' is of type int: ")):
        done = call("explain", f"./own.py:{name}", "--hw", "7x7", "--mode", "inference")
        assert (done.code, done.out, len(done.err.splitlines())) == (5, "", 1)
        assert words + wanted in done.err


TWO = """
from torch import nn


class Two(nn.Module):
    def forward(self, x, y, scale=1.0, *rest, **more):
        return x + y


class One(Two):
    def forward(self, x, y=None, *rest, **more):
        return x
"""


def test_a_module_of_two_inputs_is_told_what_to_do(call: Call, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TWO)
    shape = ("--hw", "7x7", "--channels", "8", "--mode", "inference", "--device", "none")
    done = call("compare", "./own.py:One", "./own.py:Two", *shape, "--json")
    assert done.code == 5
    one, two = records_of(done.json)
    assert one.status == "ok"
    assert two.detail == (
        "the forward of Two wants 2 inputs (x, y) and gets one, (B, C, H, W): wrap it in a module of one input, or count it in "
        "Python with attnprof.profile(module, inputs)."
    )


def test_explain_is_text_or_json(call: Call) -> None:
    done = call("explain", "ccnet", "--hw", "9x9", "--channels", "64", "--mode", "training")
    assert (done.code, done.err) == (0, "")
    assert "bmm" in done.out
    data = call("explain", "ccnet", "--hw", "9x9", "--channels", "64", "--json").json
    assert [record.case.mode for record in records_of(data)] == ["inference", "training"]
    assert all(record.counts and record.counts.ops and record.counts.at_peak for record in records_of(data))


# --- run


def test_a_run_writes_its_store_and_its_tables(measured: Path) -> None:
    folder, printed, said = measured / "out", (measured / "stdout").read_text(), (measured / "stderr").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.csv", "tiny.jsonl", "tiny.md"]
    stored = store.load(folder / "tiny.jsonl")
    assert stored.warnings == ()
    (run,) = stored.runs
    assert (run.name, run.baseline, set(run.keys)) == ("tiny", "se", set(stored.records))
    assert len(stored.records) == CASES
    for record in stored.records.values():
        assert is_measured(record), record.detail
        assert record.case.device == "cpu"
    assert "9x9, 16 channels" in printed
    assert "5x7, 16 channels" in printed
    for name in ("se", "gcnet"):
        assert len(re.findall(rf"^{name} .*(?:±|\d \[)", printed, re.MULTILINE)) == 2
        assert len(re.findall(rf"^\| \**{name}\b", (folder / "tiny.md").read_text(), re.MULTILINE)) >= 2
    assert f"[trace {CASES}/{CASES}]" in said
    assert f"[measure {CASES}/{CASES}]" in said
    assert all(f"out/tiny.{kind}" in said for kind in ("md", "csv", "jsonl"))
    assert "[trace" not in printed
    assert "[measure" not in printed
    assert "wrote" not in printed


@pytest.mark.parametrize("flags", [(), ("--resume",)])
def test_a_second_run_measures_nothing_again(call: Call, tiny: Path, out: Path, flags: tuple[str, ...]) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "other.jsonl").write_text("no store\n")
    before = (out / "tiny.csv").read_text()
    done = call("run", tiny, "--device", "cpu", "--out", out, *flags)
    assert done.code == 0
    assert "[trace" not in done.err
    assert "[measure" not in done.err
    assert "continued (4 of 4 cases are there" in done.err
    assert ("--fresh starts anew" in done.err) == (not flags)
    assert lines_of_kind(out / "tiny.jsonl", "record") == 2 * CASES  # once counted, once measured
    assert (out / "tiny.csv").read_text() == before
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "other.jsonl").read_text() == "no store\n"


def test_fresh_forgets_the_store(call: Call, tiny: Path, out: Path) -> None:
    done = call("run", tiny, "--device", "none", "--out", out, "--fresh")
    assert done.code == 0
    stored = store.load(out / "tiny.jsonl")
    assert len(stored.runs) == 1
    assert {record.case.device for record in stored.records.values()} == {"none"}
    assert call("run", tiny, "--resume", "--fresh").code == 2


def test_without_a_device_the_counts_are_there_and_the_rest_says_why(call: Call, tiny: Path) -> None:
    done = call("run", tiny, "--device", "none", "--format", "md,csv,json", "--json")
    assert done.code == 0
    folder = tiny.parent / "reports" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.csv", "tiny.json", "tiny.jsonl", "tiny.md"]
    data = done.json
    assert data["schema"] == SCHEMA_VERSION
    assert data["name"] == "tiny"
    assert len(data["records"]) == CASES
    for raw in data["records"]:
        fields = {"case", "status", "counts", "timing", "memory", "energy_j", "environment", "detail"}
        assert set(raw) == fields | {"memory_timeline"}
        assert (raw["status"], raw["timing"], raw["memory"]) == ("ok", None, None)
        assert raw["counts"]["macs"] > 0
    assert json.loads((folder / "tiny.json").read_text())["records"] == data["records"]
    assert "not measured (device none)" in (folder / "tiny.md").read_text()
    again = call("run", tiny, "--device", "none", "--json", "-q")
    assert again.err == ""
    assert again.json["records"] == data["records"]


def test_quiet_leaves_stderr_empty(call: Call, tiny: Path) -> None:
    done = call("run", tiny, "--device", "none", "-q")
    assert (done.code, done.err) == (0, "")
    assert "traced only" in done.out


def test_a_dry_run_lists_the_cases_and_writes_nothing(call: Call, tiny: Path) -> None:
    done = call("run", tiny, "--dry-run")
    assert (done.code, done.err) == (0, "")
    assert [line.split()[2:4] for line in done.out.splitlines()] == [
        ["se", "1x16x9x9"],
        ["gcnet", "1x16x9x9"],
        ["se", "1x16x5x7"],
        ["gcnet", "1x16x5x7"],
    ]
    keys = [line.split()[1] for line in done.out.splitlines()]
    assert [case["key"] for case in call("run", tiny, "--dry-run", "--json").json["cases"]] == keys
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["tiny.yaml"]


def test_only_and_set_choose_the_cases(call: Call, tiny: Path) -> None:
    chosen = call("run", tiny, "--dry-run", "--only", "gc*", "--set", "input.hw=[3x3]", "--set", "input.channels=32").out
    assert [line.split()[2:4] for line in chosen.splitlines()] == [["gcnet", "1x32x3x3"]]
    done = call("run", tiny, "--device", "none", "--only", "se", "--out", "only", "-q", "--json")
    assert {record.case.label for record in records_of(done.json)} == {"se"}
    done = call("run", tiny, "--device", "none", "--only", "nothing*", "--out", "none")
    assert (done.code, done.out, len(done.err.splitlines())) == (3, "", 1)
    assert "there is se, gcnet" in done.err
    assert not (tiny.parent / "none").exists()


def test_only_may_match_in_one_of_several_specs(call: Call, tiny: Path) -> None:
    other = tiny.parent / "other.yaml"
    other.write_text(TINY.replace("tiny", "other").replace("gcnet", "nonlocal"))
    done = call("run", tiny, other, "--device", "none", "--only", "nonlocal", "--out", "both", "--json")
    assert done.code == 0
    assert "warning: tiny: nothing matches 'nonlocal'" in done.err
    assert {record.case.label for record in records_of(done.json)} == {"nonlocal"}
    assert not (tiny.parent / "both" / "tiny.jsonl").exists()
    assert call("run", tiny, other, "--device", "none", "--only", "zzz").code == 3


WRONG_RUNS = [
    (("--format", "md,xlsx"), "'xlsx'"),
    (("--device", "tpu"), "'tpu'"),
    (("--set", "input.hw=3y3"), "HxW"),
    (("--set", "colour=red"), "'colour'"),
    (("--timeout", "0"), "--timeout"),
    (("--timeout", "nan"), "--timeout"),
    (("tiny.yaml",), "two specs are called 'tiny'"),
    (("--resume", "--fresh"), "contradict"),
    (("--out", "tiny.yaml"), "--out"),
]


@pytest.mark.parametrize(("args", "words"), WRONG_RUNS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_wrong_option_stops_a_run_before_it_starts(call: Call, tiny: Path, args: tuple[str, ...], words: str) -> None:
    done = call("run", "tiny.yaml", *args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err.splitlines()[-1]
    assert "[trace" not in done.err
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["tiny.yaml"]


def test_a_folder_that_cannot_be_written_is_found_before_the_run(call: Call, tiny: Path, out: Path) -> None:
    for folder in ("/proc", "/proc/x/y", tiny / "below"):
        done = call("run", tiny, "--device", "none", "--out", folder)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
        assert f"--out {folder}: " in done.err
    done = call("report", out, "--out", "/proc")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done.err
    assert "cannot be written" in done.err


def test_a_torn_last_line_is_said_and_that_case_runs_again(call: Call, tiny: Path, out: Path) -> None:
    path = out / "tiny.jsonl"
    path.write_bytes(path.read_bytes()[:-200])
    done = call("run", tiny, "--device", "cpu", "--out", out)
    assert done.code == 0
    assert f"warning: tiny.jsonl:{1 + 2 * CASES}: the last line is torn" in done.err
    assert "cases are there, and the counts of 2 more; --fresh" in done.err
    assert "[measure 2/2]" in done.err, "with the one that it is compared with"
    stored = store.load(path)
    assert stored.warnings == ()
    assert all(is_measured(record) for record in stored.records.values())
    assert lines_of_kind(path, "record") == 2 * CASES + 1


def test_a_damaged_store_is_refused_and_kept(call: Call, tiny: Path, out: Path) -> None:
    path = out / "tiny.jsonl"
    damaged = "not json\n" + path.read_text()
    path.write_text(damaged)
    done = call("run", tiny, "--device", "cpu", "--out", out)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "tiny.jsonl:1: this line is no JSON" in done.err
    assert path.read_text() == damaged


def hear_interrupts() -> None:
    """For a child: what is started in the background of a script ignores SIGINT, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_goes_on_with_resume(call: Call, tiny: Path) -> None:
    command = [sys.executable, "-m", "attnprof", "run", "tiny.yaml", "--device", "cpu", "--out", "out"]
    command += ["--set", "measure.budget_s=1.5"]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tiny.parent,
        preexec_fn=hear_interrupts,  # noqa: PLW1509
    )
    path = tiny.parent / "out" / "tiny.jsonl"
    while not path.exists() or path.read_text().count("\n") < 1 + CASES + 2:  # the run, all counted, the first block measured
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    printed, rest = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted: 2 of 4 cases are done (of 2 more the counts are there)." in rest
    assert "--resume" in rest
    assert "Traceback" not in rest
    assert "2 of 4 cases are counted and not measured yet." in printed
    assert "2 of 4 cases are counted and not measured yet." in path.with_suffix(".md").read_text(encoding="utf-8")
    stored = store.load(path)
    assert stored.warnings == ()
    assert sorted(record.status for record in stored.records.values()) == ["interrupted"] * 2 + ["ok"] * 2
    assert all(record.counts is not None for record in stored.records.values())

    done = call("run", tiny, "--device", "cpu", "--out", "out", "--resume")
    assert done.code == 0
    assert "(2 of 4 cases are there, and the counts of 2 more)" in done.err
    assert "[trace" not in done.err
    assert "[measure 2/2]" in done.err
    assert all(is_measured(record) for record in store.load(path).records.values())
    assert lines_of_kind(path, "record") == 2 * CASES
    assert "interrupted" not in done.out


# --- report


def test_reports_come_from_the_folder_or_from_the_store(call: Call, measured: Path, out: Path) -> None:
    (out / "other.jsonl").write_text("no store\n")
    done = call("report", out, "--format", "md,csv,json", "--out", "again")
    assert done.code == 0
    assert done.out.splitlines() == [f"again/tiny.{kind}" for kind in ("md", "csv", "json")]
    assert "other.jsonl" in done.err
    done = call("report", out / "tiny.jsonl", "--format", "csv", "--out", "once")
    assert (done.code, done.err, done.out) == (0, "", "once/tiny.csv\n")
    for kind in ("md", "csv"):
        assert (out.parent / "again" / f"tiny.{kind}").read_text() == (measured / "out" / f"tiny.{kind}").read_text()
    assert call("report", out).out == f"{out}/tiny.md\n"


def test_a_report_says_what_an_unfinished_run_lacks(call: Call, out: Path) -> None:
    path = out / "tiny.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    done = call("report", path, "--format", "csv")
    assert done.code == 0
    assert "1 of 4 cases are counted and not measured yet: the same `attnprof run` with --resume goes on" in done.err
    key = json.loads(lines[-1])["record"]["case"]["key"]
    path.write_text("".join(line for line in lines if key not in line or '"kind":"run"' in line))
    done = call("report", path)
    assert done.code == 0
    assert "1 of 4 cases have no record yet: the same `attnprof run` with --resume goes on" in done.err
    path.write_text(lines[0])
    assert call("report", path).code == 3


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("nowhere",), 2, "nowhere: there is no such folder or store"),
        ((".",), 2, "there is no store"),
        (("tiny.yaml",), 2, "no JSON"),
        (("out", "--format", "xlsx"), 2, "'xlsx'"),
        (("empty.jsonl",), 3, "holds no run"),
    ],
)
def test_what_cannot_be_reported(call: Call, tiny: Path, out: Path, args: tuple[str, ...], code: int, words: str) -> None:
    (out.parent / "empty.jsonl").write_text("")
    if args == (".",):
        (out.parent / "empty.jsonl").unlink()
    done = call("report", *args)
    assert tiny.is_file()
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1)
    assert words in done.err


# --- hostile specs


FIVE = """\
name: bad
input: {batch: 0, channels: 64, hw: 33x}
dtyp: float32
modes: [inference, trainig]
mechanisms:
  - nonlocl
"""
FIVE_PLACES = ["bad.yaml:2:16: ", "bad.yaml:2:37: ", "bad.yaml:3:1: ", "bad.yaml:4:20: ", "bad.yaml:6:5: "]
GOOD = "input: {channels: 64, hw: 33x33}\nmechanisms: [nonlocal, se]\n"
_MANY = ",".join(map(str, range(1, 1001)))
_BOMB = "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
# content, lines on stderr (a mistake at a place shows its line and a caret below), words
HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "duplicate key": (f"{GOOD}mechanisms: [se]\n".encode(), 3, "bad.yaml:3:1: the key 'mechanisms' stands twice"),
    "alias bomb": (f"a: &a [{','.join('x' * 10)}]\n{_BOMB}".encode(), 3, "aliases expand to more than 100,000 values"),
    "nested brackets": (b"[" * 3000, 3, "bad.yaml:1:51: nested more than 50 levels deep"),
    "a billion points": (
        f"input: {{channels: [{_MANY}], hw: [{_MANY}], batch: [{_MANY}]}}\nmechanisms: [se]\n".encode(),
        3,
        "the sweep has 2,000,000,000 points, more than 100,000",
    ),
    "empty": (b"", 1, "bad.yaml:1:1: the file is empty"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00" * 100, 1, "bad.yaml is no text in UTF-8"),
    "null bytes": (b"\x00" * 100, 1, "bad.yaml:1:1: the character '\\x00' is not allowed"),
}


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_spec_is_one_sentence(call: Call, tmp_path: Path, command: str, name: str) -> None:
    content, lines, words = HOSTILE[name]
    (tmp_path / "bad.yaml").write_bytes(content)
    done = call(command, "bad.yaml")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == lines
    assert words in done.err.splitlines()[0]
    assert max(map(len, done.err.splitlines())) <= 240
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tinny.yaml", "tinny.yaml: there is no such file. Did you mean tiny.yaml?"),
        ("folder", "folder is a folder: name a spec file in it."),
    ],
)
def test_a_path_that_is_no_spec(call: Call, tiny: Path, command: str, path: str, words: str) -> None:
    (tiny.parent / "folder").mkdir()
    done = call(command, path)
    assert (done.code, done.out, done.err) == (2, "", f"attnprof: {words}\n")
    assert not (tiny.parent / "reports").exists()


@pytest.mark.parametrize("command", ["validate", "run"])
def test_five_mistakes_are_five_errors(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "bad.yaml").write_text(FIVE)
    done = call(command, "bad.yaml")
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 15
    assert all(line.startswith(place) for line, place in zip(lines[::3], FIVE_PLACES, strict=True))
    assert all(line.split("^")[0].strip() == "" for line in lines[2::3])
    assert "did you mean 'dtype'?" in lines[8]
    assert not (tmp_path / "reports").exists()


def test_a_real_process_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(FIVE)
    done = process("run", "bad.yaml", cwd=tmp_path)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 15)
    assert "Traceback" not in done.err


def test_validate_checks_every_file_and_runs_nothing(call: Call, tiny: Path) -> None:
    (tiny.parent / "bad.yaml").write_text(FIVE)
    done = call("validate", "bad.yaml", tiny, "--set", "name=other")
    assert done.code == 2
    assert done.out == f"{tiny}: fine, 4 cases in 2 blocks.\n"
    assert len(done.err.splitlines()) == 15


def test_validate_looks_for_the_files_that_a_spec_imports(call: Call, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("input: {channels: 8, hw: 5x5}\nmechanisms: [se, {import: './mine.py:Mine'}]\n")
    done = call("validate", "own.yaml")
    assert (done.code, done.out) == (2, "")
    assert "own.yaml:2:27: mechanisms.1.import: './mine.py:Mine': there is no such file" in done.err
    assert "looked for /" in done.err
    (tmp_path / "mine.py").write_text("class Mime: ...\nraise SystemExit\n")
    done = call("validate", "own.yaml", "--set", "modes=infer")
    assert (done.code, done.out) == (2, "")
    assert "own.yaml:2:27: mechanisms.1.import: './mine.py' has no 'Mine'" in done.err
    assert "did you mean 'Mime'?" in done.err
    assert "--set modes" in done.err


def test_code_of_ones_own_is_run_only_where_it_is_allowed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("open('imported', 'w').close()\n" + MINE)
    (tmp_path / "own.yaml").write_text("input: {channels: 8, hw: 5x5}\nmechanisms: [se, {import: './mine.py:Mine'}]\n")
    assert call("validate", "own.yaml").code == 0
    for patterns in ((), ("--allow-import", "other.py:*"), ("--allow-import", "mine:*")):
        done = call("run", "own.yaml", "--device", "none", *patterns)
        assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1 + bool(patterns))
        assert ("matches nothing in this spec" in done.err) == bool(patterns)
        assert "own.yaml:2: './mine.py:Mine' is code of your own" in done.err
        assert "--allow-import './mine.py:Mine'" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "own.yaml"]
    done = call("run", "own.yaml", "--device", "none", "--allow-import", "./mine.py:M*", "--json")
    assert done.code == 0
    assert (tmp_path / "imported").exists()
    assert {record.case.label for record in records_of(done.json)} == {"se", "Mine"}


def test_imports_are_relative_to_the_spec_and_then_to_the_current_folder(call: Call, tmp_path: Path) -> None:
    """A spec in a folder of its own runs the file that it means, from wherever the shell is; a file that is nowhere is said."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "mine.py").write_text(MINE)
    spec = "input: {channels: 8, hw: 5x5}\nmodes: inference\nmechanisms: [{import: '%s:Mine'}]\n"
    for name, written in (("up", "../mine.py"), ("here", "./mine.py"), ("gone", "../mins.py")):
        (tmp_path / "specs" / f"{name}.yaml").write_text(spec % written)
    for name, pattern, mechanism in (("up", "../mine.py:*", "mine.py:Mine"), ("here", "mine.py:Mine", "./mine.py:Mine")):
        done = call("run", f"specs/{name}.yaml", "--device", "none", "--json", "-q", "--allow-import", pattern)
        assert (done.code, done.err) == (0, "")
        (found,) = records_of(done.json)
        assert (found.case.mechanism, found.status) == (mechanism, "ok")
    done = call("run", "specs/up.yaml", "--device", "none")
    assert done.code == 2
    assert "specs/up.yaml:3: '../mine.py:Mine' (mine.py) is code of your own" in done.err
    done = call("run", "specs/gone.yaml", "--device", "none", "--allow-import", "*")
    assert (done.code, len(done.err.splitlines())) == (2, 3)
    for words in (
        "specs/gone.yaml:3:23: mechanisms.0.import: '../mins.py:Mine': there is no such file",
        f"{tmp_path}/mins.py",
        f"{tmp_path}/mine.py?",
    ):
        assert words in done.err, words
    assert str(tmp_path.parent / "mins.py") in done.err


# --- modules that go wrong


FAULTS = {
    "Raises": ("error", "ValueError: no such luck"),
    "GivesNan": ("invalid_output", "not finite"),
    "Loops": ("timeout", "5 s"),
    "Segfaults": ("crashed", "SIGSEGV"),
    "AllocatesInPython": ("oom", "MemoryError"),
    "Hoards": ("oom", "memory"),
}


def test_each_fault_costs_its_own_row(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    files = {name: "./mine.py" if name == "Hoards" else FAULTY for name in FAULTS}
    imports = "".join(f"  - {{import: '{file}:{name}'}}\n" for name, file in files.items())
    (tmp_path / "faults.yaml").write_text(
        f"input: {{channels: 16, hw: 9x9}}\nmodes: inference\nmechanisms:\n  - se\n{imports}  - gcnet\n"
        "measure: {budget_s: 0.2, device: cpu}\n"
    )
    done = call(
        "run", "faults.yaml", "--timeout", "5", "--allow-import", f"{FAULTY}:*", "--allow-import", "mine.py:*", "--out", "o"
    )
    assert done.code == 5
    found = {record.case.label: record for record in store.load(tmp_path / "o" / "faults.jsonl").records.values()}
    assert {name: record.status for name, record in found.items()} == {
        "se": "ok",
        "gcnet": "ok",
        **{name: status for name, (status, _) in FAULTS.items()},
    }
    for name, (status, words) in FAULTS.items():
        assert words in found[name].detail, (name, found[name].detail)
        assert found[name].timing is None
        rows = re.findall(rf"^{name} .*", done.out, re.MULTILINE)
        assert rows, name
        assert f" {status} (" in rows[-1], name
        assert status in (tmp_path / "o" / "faults.md").read_text()
    for name in ("se", "gcnet"):
        assert is_measured(found[name]), (name, found[name].detail)
        assert re.search(rf"^{name} .*(?:±|\d \[)", done.out, re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _no_server_stays() -> Iterator[None]:
    """The fork server of this process ends with this file."""
    yield
    from attnprof.execute import forks

    forks.close_server()


def test_frames_are_for_clips_and_clips_are_not_compared_with_images(call: Call) -> None:
    refused = call("compare", "se", "eca", "--hw", "7x7", "--frames", "8", "--device", "none")
    assert refused.code == 2
    assert "take single images" in refused.err
    other = call("compare", "fgfa", "se", "--hw", "7x7", "--channels", "32", "--device", "none")
    assert other.code == 3
    assert "fgfa looks over 8 frames and se takes one image" in other.err
    assert call("compare", "fgfa", "se", "--hw", "7x7", "--channels", "32", "--frames", "1", "--device", "none").code == 0
    both = call("compare", "fgfa", "se", "--hw", "7x7", "--channels", "32", "--force", "--device", "none").out
    assert "7x7, 32 channels, 8 frames, batch 1" in both
    assert "7x7, 32 channels, batch 1" in both


def test_show_says_at_which_shape_it_counted(call: Call) -> None:
    assert "1x512x65x65" in call("show", "rga", "--channels", "512").out
    assert "1x1x60x60" in call("show", "ram", "--channels", "1", "--hw", "60x60").out
    assert "1x4x64x7x7" in call("show", "tam", "--channels", "64", "--hw", "7x7", "--frames", "4").out
    assert call("show", "san_pairwise", "--channels", "48").code == 2


def test_list_filters_by_the_words_of_the_survey(call: Call) -> None:
    found = json.loads(call("list", "--task", "SSeg", "--kind", "soft", "--goal", "IV", "--family", "spatial", "--json").out)
    assert {row["name"] for row in found["mechanisms"]} >= {"psanet", "ccnet"}
    for row in found["mechanisms"]:
        assert "SSeg" in row["survey"]["tasks"]
        assert "IV" in row["survey"]["goals"]
    assert "scnet" in call("list", "--task", "KP").out
    assert call("list", "--family", "channel and spatial").out == call("list", "--family", "channel_spatial").out
    wrong = call("list", "--task", "Segmentation")
    assert wrong.code == 2
    assert "SSeg" in wrong.err
    assert call("list", "--family", "branch", "--kind", "hard").code == 3
