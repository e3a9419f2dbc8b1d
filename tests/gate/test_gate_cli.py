"""`gate` and `baseline` as people use them: in a repository with a module of the user's own, its spec and its baseline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from attnprof.cli.progress import coloured
from attnprof.gate import baseline
from attnprof.report.text import width
from tests.command import Call, caller
from tests.gate.test_gate import check_junit

MINE = """\
from torch import Tensor, nn


class Mine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)
"""
ONE_MORE = MINE.replace(
    "nn.Conv2d(channels, channels, 1)", "nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1))"
)
FAILS = MINE.replace("        return x", "        raise RuntimeError('not today')\n        return x")
SPEC = """\
name: own
input: {channels: 16, hw: [9x9, 17x17]}
modes: inference
mechanisms:
  - se
  - {import: "./mine.py:Mine", as: mine}
"""
CLAIMS = "claims: ['macs(se) < macs(mine)', 'peak_bytes <= 2GiB @ hw <= 17x17']\n"
BASE = ("--baseline", "base.json")
ALLOW = ("--allow-import", "*mine.py:Mine")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """`attnprof ARGS...` in this process, in an empty folder, outside of any CI."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)

    return caller(capsys)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the module, the spec and its baseline, all committed: tests copy it."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "mine.py").write_text(MINE)
    (folder / "spec.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "attnprof", "baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "base.json\n"), done.stderr
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def repo(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def git_diff(folder: Path) -> list[str]:
    done = subprocess.run(["git", "diff", "--numstat", "--", "*.json"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


# --- the scratch repository


def test_nothing_changed_passes(call: Call, repo: Path) -> None:
    (repo / "README.md").write_text("docs only")
    edit(repo / "spec.yaml", "name: own", "# a comment\nname: own")
    done = call("gate", "spec.yaml", *BASE, *ALLOW)
    assert (done.code, done.out) == (0, "own: passed (exit code 0): 40 passed.\n")


def test_a_conv_more_is_exit_code_1_with_metric_and_amount(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    files = ("--report-json", "gate.json", "--junit", "junit.xml", "--markdown", "summary.md")
    done = call("gate", "spec.yaml", *BASE, *ALLOW, *files)
    assert done.code == 1
    assert "mine 1x16x9x9 inference: macs 20,736 -> 41,472 (+100.0 %, +20,736)" in done.out
    assert "mine 1x16x9x9 inference: params 272 -> 544 (+100.0 %, +272)" in done.out
    assert "se 1x16" not in done.out
    assert done.out.splitlines()[-1] == "own: regressed (exit code 1): 14 regressed, 26 passed."
    assert max(map(width, done.out.splitlines())) <= 80
    report = json.loads((repo / "gate.json").read_text())
    worse = {row["metric"] for row in report["rows"] if row["outcome"] == "regressed"}
    assert {"params", "macs", "flops", "op_calls", "bytes_moved"} <= worse
    assert {row["line"] for row in report["rows"] if row["label"] == "mine"} == {6}
    root = check_junit((repo / "junit.xml").read_bytes())
    assert len(root.findall(".//failure")) == 14
    assert "macs 20,736 -" in (repo / "summary.md").read_text()
    accept = ("baseline", "accept", "--from", "gate.json", "--reason", "a second mix")
    assert call(*accept, "--metric", "macs", "--match", "se*").code == 3
    assert call(*accept, "--metric", "macs", "--match", "mi*").code == 0
    assert git_diff(repo)[0].split()[:2] == ["6", "3"], "two points, two lines of the ledger, its brackets"
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 1, "the other metrics"
    assert call(*accept, "--who", "Ada").code == 0
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--explain")
    assert done.code == 0
    assert "[ACCEPTED] mine 1x16x9x9 inference: macs 41,472 (accepted 20" in done.out
    shown = call("baseline", "show", "base.json")
    assert ", Ada: mine 1x16x9x9 inference: params 272 -> 544: a second mix" in " ".join(shown.out.split())
    assert max(map(width, shown.out.splitlines())) <= 80
    ledger = json.loads((repo / "base.json").read_text())["accepted"]
    assert [each["from"] for each in ledger if each["metric"] == "macs"] == [20736, 73984]
    assert all(each["when"].endswith("Z") and each["reason"] == "a second mix" for each in ledger)


def test_a_conv_less_is_an_improvement(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(MINE.replace("x + self.mix(x)", "x + x"))
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "-q")
    assert (done.code, done.err) == (0, "")
    assert "improved:" in done.out
    assert "macs 20,736 -> 0 (-100.0 %, -20,736)" in done.out
    assert "attnprof baseline save spec.yaml -o base.json" in " ".join(done.out.split())
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--strict").code == 1


def test_a_removed_mechanism_fails_and_accept_clears_it(call: Call, repo: Path) -> None:
    edit(repo / "spec.yaml", "  - se\n", "  - eca\n")
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json")
    assert done.code == 1
    assert "se 1x16x9x9 inference: vanished, it is in the baseline only" in done.out
    assert "eca 1x16x9x9 inference: new, not in the baseline" in done.out
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--on-missing", "warn").code == 0
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--match", "se").code == 1, "what is only in the baseline is matched"
    assert call("baseline", "accept", "--from", "gate.json", "--metric", "point", "--reason", "eca is it").code == 0
    done = call("gate", "spec.yaml", *BASE, *ALLOW)
    assert done.code == 0
    assert "vanished" not in done.out
    assert "new, not in the baseline" in done.out


def test_nothing_in_common_says_why(call: Call, repo: Path) -> None:
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--set", "input.hw=11x11")
    assert done.code == 1
    assert "No point of the baseline (saved for the spec 'own') is a case of this one" in done.out


def test_a_missing_baseline_is_3_and_every_row_is_written(call: Call, repo: Path) -> None:
    done = call("gate", "spec.yaml", "--baseline", "bse.json", *ALLOW, "--report-json", "gate.json", "--junit", "j.xml")
    assert done.code == 3
    assert "there is no such baseline. Did you mean base.json?" in " ".join(done.out.split())
    rows = json.loads((repo / "gate.json").read_text())["rows"]
    assert [(row["reason"], row["outcome"]) for row in rows] == [("NO_BASELINE", "mismatch")] * 4
    said = " ".join(done.out.split())
    assert said.count("there is no such baseline") == 1
    assert said.startswith("not comparable: 4 points: not compared: bse.json: there is no such baseline.")
    assert "-o bse.json`" in said
    explained = " ".join(call("gate", "spec.yaml", "--baseline", "bse.json", *ALLOW, "--explain").out.split())
    assert explained.count("[NO_BASELINE]") == 4
    one = call(
        "gate", "spec.yaml", "--baseline", "bse.json", *ALLOW, "--match", "se", "--set", "input.hw=9x9", "--markdown", "m.md"
    )
    assert " ".join(one.out.split()).startswith("not comparable: se 1x16x9x9 inference: not compared: bse.json: there is no")
    assert (repo / "m.md").read_text().count("no such baseline") == 1
    assert len(check_junit((repo / "j.xml").read_bytes()).findall(".//error")) == 4


def test_another_torch_or_schema_is_3(call: Call, repo: Path) -> None:
    edit(repo / "base.json", '"torch": "', '"torch": "1.')
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--json")
    assert done.code == 3
    assert {row["reason"] for row in done.json["rows"]} == {"ENV_MISMATCH"}
    assert "attnprof baseline save spec.yaml -o base.json" in done.json["notes"][0]
    edit(repo / "base.json", '"schema": 1', '"schema": 7')
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 3


def test_a_match_that_matches_nothing_is_3(call: Call, repo: Path) -> None:
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--match", "nonlocal*")
    assert (done.code, done.out) == (3, "")
    assert "nothing matches 'nonlocal*': there is se, mine." in done.err


def test_a_module_that_fails_is_5_and_known_failures_pass(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(FAILS)
    done = call("gate", "spec.yaml", *BASE, *ALLOW)
    assert done.code == 5
    assert "mine 1x16x9x9 inference: error: RuntimeError: not today" in done.out
    saving = call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW)
    assert saving.code == 5
    assert "it is recorded as failing" in saving.err
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 0
    (repo / "mine.py").write_text(MINE)
    done = call("gate", "spec.yaml", *BASE, *ALLOW)
    assert done.code == 0
    assert "counted now, in the baseline it was error" in done.out


def test_user_code_runs_only_where_it_is_allowed(call: Call, repo: Path) -> None:
    known = sys.modules.get("mine")  # another test's, in the same process
    (repo / "mine.py").write_text("import pathlib\npathlib.Path('ran').touch()\n" + MINE)
    for words in (("gate", "spec.yaml", *BASE), ("baseline", "save", "spec.yaml"), ("gate", "spec.yaml", *BASE, "--dry-run")):
        done = call(*words)
        assert done.code == 2
        assert "pass --allow-import './mine.py:Mine'" in done.err
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--dry-run").code == 0
    assert not (repo / "ran").exists()
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 0
    assert (repo / "ran").exists(), "in the child"
    assert sys.modules.get("mine") is known


# --- precedence


def test_a_false_claim_is_not_masked_by_a_missing_baseline(call: Call, repo: Path) -> None:
    edit(repo / "spec.yaml", "name: own", "name: own\nclaims: macs(mine) < 1")
    done = call("gate", "spec.yaml", "--baseline", "none.json", *ALLOW, "--json")
    assert done.code == 1
    assert {row["reason"] for row in done.json["rows"]} == {"NO_BASELINE", "CLAIM_FALSE"}
    edit(repo / "base.json", '"torch": "', '"torch": "1.')
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 1
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--only", "exact").code == 3


def test_a_regression_is_not_masked_by_a_failure(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(FAILS)
    edit(repo / "base.json", '"params": 32,', '"params": 31,')
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--json")
    assert done.code == 1
    assert {"regressed", "failed"} <= {row["outcome"] for row in done.json["rows"]}


def test_nothing_comparable_stands_before_a_failure(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(FAILS)
    edit(repo / "spec.yaml", "name: own", "name: own\nclaims: macs(mine) < 1")
    done = call("gate", "spec.yaml", "--baseline", "none.json", *ALLOW, "--json")
    assert done.code == 3
    assert {"mismatch", "failed"} <= {row["outcome"] for row in done.json["rows"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "exakt"), "did you mean 'exact'?"),
        (("--only", "time"), "--base-ref REF"),
        (("--tol", "macs"), "write METRIC=5%"),
        (("--tol", "mac=5%"), "did you mean 'macs'?"),
        (("--tol", "macs=5MiB"), "counts no bytes"),
        (("--junit", "no/where.xml"), "there is no folder no"),
        (("--budget", "soon"), "write 90s, 10m or 1h"),
        (("--base-ref", "HEAD", "--set", "measure.device=none"), "--set measure.device=cpu"),
    ],
)
def test_usage_errors_are_2_before_anything_is_counted(call: Call, repo: Path, words: tuple[str, ...], told: str) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    done = call("gate", "spec.yaml", *BASE, *ALLOW, *words)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "[trace" not in done.err


def test_a_damaged_baseline_is_2_at_its_place(call: Call, repo: Path) -> None:
    edit(repo / "base.json", '  "points"', '<<<<<<< HEAD\n  "points"')
    done = call("gate", "spec.yaml", *BASE, *ALLOW)
    assert done.code == 2
    assert done.err.startswith("base.json:6:1: this is no JSON")


# --- options


def test_tolerances_of_the_spec_and_of_the_command_line(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    wide = [
        word for metric in json.loads((repo / "base.json").read_text())["points"].popitem()[1] for word in ("--tol", metric)
    ]
    names = [name for name in wide[1::2] if name not in ("label", "mechanism", "shape", "mode", "dtype")]
    done = call(
        "gate", "spec.yaml", *BASE, *ALLOW, *(word for name in names for word in ("--tol", f"{name}=100%")), "--explain"
    )
    assert done.code == 0
    assert "[WITHIN_TOL] mine 1x16x9x9 inference: macs 20,736 -> 41,472" in done.out
    edit(repo / "spec.yaml", "name: own", "name: own\ntol: {" + ", ".join(f"{name}: 100%" for name in names) + "}")
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 0
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--tol", "macs=1%").code == 1, "the command line is nearer"
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--set", "tol.macs=1%").code == 1


def test_match_leaves_the_rest_alone(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--match", "se")
    assert (done.code, done.out) == (0, "own: passed (exit code 0): 20 passed.\n")
    assert "mine" not in done.err


def test_claims_alone_need_no_baseline(call: Call, repo: Path) -> None:
    done = call("gate", "spec.yaml", *ALLOW)
    assert done.code == 3
    assert "give --baseline FILE, or write `claims:`" in done.err
    assert call("gate", "spec.yaml", *ALLOW, "--only", "claims").code == 3
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--only", "exact,claims").code == 3
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--only", "exact").code == 0
    assert call("gate", "spec.yaml", *ALLOW, "--only", "exact").code == 3
    edit(repo / "spec.yaml", "name: own", f"name: own\n{CLAIMS}")
    done = call("gate", "spec.yaml", *ALLOW)
    assert (done.code, done.out) == (0, "own: passed (exit code 0): 6 passed.\n")
    done = call("gate", "spec.yaml", *ALLOW, "--match", "se", "--json")
    assert sorted(row["label"] for row in done.json["rows"]) == ["se", "se", "se", "se"]
    edit(repo / "spec.yaml", "<= 17x17", ">= 500x500")
    assert call("gate", "spec.yaml", *ALLOW).code == 3
    done = call("validate", "spec.yaml")
    assert done.code == 2
    assert "spec.yaml:2:35: no case of this spec is what the claim 'peak_bytes <= 2GiB @ hw >= 500x500' is about" in done.err


def test_a_false_claim_points_at_its_line(call: Call, repo: Path) -> None:
    edit(repo / "spec.yaml", "name: own", "name: own\nclaims:\n  - macs(mine) < macs(se)")
    done = call("gate", "spec.yaml", *ALLOW, "--annotations", "github", "-q")
    assert done.code == 1
    assert "claim 'macs(mine) < macs(se)' is false: macs(mine) is" in " ".join(done.out.split())
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("::error file=spec.yaml,line=3,col=5::mine 1x16x") for line in lines)


def test_what_github_reads(call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    (repo / "step.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repo / "step.md"))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repo.parent))
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--json", "-q")
    assert done.json["exit_code"] == done.code == 1
    lines = done.err.splitlines()
    assert len(lines) == 10
    place = f"::error file={repo.name}/spec.yaml,line=6,col=5::mine 1x16x9x9 inference: "
    assert f"{place}macs 20,736 -> 41,472 (+100.0 %25, +20,736)" in lines
    summary = (repo / "step.md").read_text()
    assert summary.startswith("before\n<!-- attnprof gate -->\n## own: regressed")
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--annotations", "none", "--summary", "none", "-q")
    assert (done.code, done.err, (repo / "step.md").read_text()) == (1, "", summary)
    for size, more in ((900 * 1024 - 4500, range(100, 4501)), (900 * 1024 - 100, range(1))):
        (repo / "step.md").write_bytes(b"x" * size)
        done = call("gate", "spec.yaml", *BASE, *ALLOW, "--annotations", "none", "-q")
        assert (repo / "step.md").stat().st_size - size in more
        assert ("left out" in done.err) == (more == range(1))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repo / "no" / "step.md"))
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--annotations", "none", "-q")
    assert (done.code, "step summary cannot be written" in done.err) == (1, True)


def test_hostile_names_reach_every_output(call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = "<b>|x|`::error::%0A, 名 & ]]>"
    edit(repo / "spec.yaml", "as: mine", f"as: {json.dumps(label, ensure_ascii=False)}")
    assert call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW, "-q").code == 0
    (repo / "mine.py").write_text(ONE_MORE)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(repo / "step.md"))
    files = ("--report-json", "gate.json", "--junit", "junit.xml", "--markdown", "m.md", "--annotations", "github")
    done = call("gate", "spec.yaml", *BASE, *ALLOW, *files, "-q")
    assert done.code == 1
    assert max(map(width, done.out.splitlines())) <= 80
    check_junit((repo / "junit.xml").read_bytes())
    assert {case.get("classname") for case in ET.parse(repo / "junit.xml").iterfind(".//testcase")} == {"se", label}
    assert "<b>" not in (repo / "m.md").read_text()
    assert (repo / "step.md").read_text() == (repo / "m.md").read_text(), "as short as this, they are one"
    assert all(line.count("::") >= 2 and line.startswith("::error file=spec.yaml") for line in done.err.splitlines())
    assert "%250A" in done.err
    assert call("baseline", "accept", "--from", "gate.json", "--reason", "r", "--match", "[<]b*").code == 0
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "-q").code == 0


def test_the_json_of_stdout_and_file_are_one(call: Call, repo: Path) -> None:
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--json", "--report-json", "gate.json")
    assert done.json == json.loads((repo / "gate.json").read_text())
    assert done.json["baseline"] == "base.json"


def test_dry_run_lists_points_and_claims(call: Call, repo: Path) -> None:
    edit(repo / "spec.yaml", "name: own", f"name: own\n{CLAIMS}")
    done = call("gate", "spec.yaml", *BASE, *ALLOW, "--dry-run")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["exact"] * 4 + ["claim"] * 2 + ["4", "counting:"]
    assert done.out.splitlines()[-2] == "4 cases: 2 by kept closed forms, 2 to trace."
    said = r"2 by kept closed forms \(\S+ s just now\), 2 to trace \(the first 4.3 s, the others 0.075 s each\)."
    assert re.fullmatch(f"counting: about 4 s: {said}", done.out.splitlines()[-1])
    timed = call("gate", "spec.yaml", *ALLOW, "--base-ref", "HEAD", "--only", "time", "--dry-run", "--budget", "2m").out
    assert timed.splitlines()[-1].startswith(
        "time: about 80 s to 2 min: 5 to 15 pairs of processes of at most 4 points, 2 s of"
    )
    assert timed.splitlines()[:-1] == [f"time {line.split(' ', 2)[2]}" for line in done.out.splitlines()[:4]], (
        "no cases are counted"
    )
    listed = call("gate", "spec.yaml", *ALLOW, "--base-ref", "HEAD", "--match", "se", "--dry-run", "--json").json["time"]
    assert [(each["label"], each["point"]) for each in listed] == [("se", f"1x16x{n}x{n} inference") for n in (9, 17)]
    data = call("gate", "spec.yaml", *BASE, *ALLOW, "--dry-run", "--json").json
    assert data["time"] == []
    assert (len(data["points"]), data["to_trace"], data["refused"]) == (4, 2, None)
    assert [each["cases"] for each in data["claims"]] == [2, 4]
    assert 4 < data["seconds"]["counting"]["least"] == data["seconds"]["counting"]["most"] < 6


def test_colour_is_for_a_terminal_that_wants_it(call: Call, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    plain = call("gate", "spec.yaml", *BASE, *ALLOW).out
    assert "\x1b" not in plain
    monkeypatch.setattr("attnprof.cli.gating.coloured", lambda: True)
    painted = call("gate", "spec.yaml", *BASE, *ALLOW).out
    assert painted.startswith("\x1b[31mregressed:\x1b[0m\n")
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--no-color").out == plain


@pytest.mark.parametrize(
    ("terminal", "variables", "wanted"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_when_stdout_takes_colour(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict[str, str], wanted: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert coloured() is wanted


# --- by name


def test_baselines_are_found_by_name_and_the_nearest_is_told(call: Call, repo: Path) -> None:
    none = call("baseline", "show")
    assert (none.code, "there is no folder baselines/" in none.err) == (3, True)
    assert call("baseline", "save", "spec.yaml", "--name", "main", *ALLOW).out == "baselines/main.json\n"
    assert (repo / "baselines" / "main.json").read_text() == (repo / "base.json").read_text()
    (repo / "baselines" / "broken.json").write_text("{")
    (repo / "baselines" / "other.json").write_text("[1]")  # no baseline, and none that is meant to be one
    shown = call("baseline", "show")
    assert [line.split()[:3] for line in shown.out.splitlines()[2:4]] == [["broken", "cannot", "be"], ["main", "own", "4"]]
    assert "other" not in shown.out
    listed = call("baseline", "show", "--json").json["baselines"]
    assert (listed[1]["name"], listed[1]["points"], "problem" in listed[0]) == ("main", 4, True)
    assert call("baseline", "show", "main").out == call("baseline", "show", "base.json").out
    assert call("baseline", "diff", "main", "base.json").out == "All 40 numbers are equal.\n"
    assert call("gate", "spec.yaml", "--baseline", "main", *ALLOW).code == 0
    for words in (("show", "mian"), ("diff", "main", "mian")):
        done = call("baseline", *words)
        assert (done.code, "Did you mean baselines/main.json?" in done.err) == (3, True)


@pytest.mark.parametrize("words", [("--name", "a/b"), ("--name", " "), ("--name", ".main"), ("--name", "a", "-o", "b.json")])
def test_names_that_are_none(call: Call, repo: Path, words: tuple[str, ...]) -> None:
    done = call("baseline", "save", "spec.yaml", *words, *ALLOW)
    assert (done.code, "--name" in done.err) == (2, True)


HOSTED = """\
name: hosted
input: {hw: 32x32}
modes: inference
host: {name: resnet18, at: body}
mechanisms: [se, eca]
claims: params(se) < 2 * params(resnet18)
"""


def test_mechanisms_in_a_network(call: Call, tmp_path: Path) -> None:
    (tmp_path / "hosted.yaml").write_text(HOSTED)
    assert call("baseline", "save", "hosted.yaml", "-o", "base.json", "--exact-only").code == 0
    done = call("gate", "hosted.yaml", *BASE, "--match", "eca")
    assert (done.code, done.out) == (0, "hosted: passed (exit code 0): 20 passed.\n"), "it and the network alone"
    edit(tmp_path / "hosted.yaml", "[se, eca]", "[se]")
    done = call("gate", "hosted.yaml", *BASE)
    assert done.code == 1
    assert "eca 1x3x32x32 inference in resnet18 after body: vanished" in " ".join(done.out.split())


# --- baseline


def test_saving_twice_gives_the_same_file_and_a_new_line_per_new_point(call: Call, repo: Path) -> None:
    assert call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW).code == 0
    assert git_diff(repo) == []
    edit(repo / "spec.yaml", "  - se\n", "  - se\n  - eca\n")
    assert call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW).code == 0
    assert [line.split() for line in git_diff(repo) if "base" in line] == [["2", "0", "base.json"]]


def test_saving_says_what_it_takes_in_without_a_reason(call: Call, repo: Path) -> None:
    same = call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW)
    assert "accept" not in same.err
    edit(repo / "base.json", '"params": 32,', '"params": 31,')
    done = call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW)
    assert done.code == 0
    assert "warning: 2 numbers are higher than in the file that was there, or gone" in done.err


def test_the_default_file_is_named_after_the_spec(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("input: {channels: 16, hw: 9x9}\nmechanisms: [se]\n")
    done = call("baseline", "save", "tiny.yaml")
    assert (done.code, done.out) == (0, "baselines/tiny.json\n")
    assert call("gate", "tiny.yaml", "--baseline", "baselines/tiny.json").code == 0


def test_show_and_diff(call: Call, repo: Path) -> None:
    shown = call("baseline", "show", "base.json", "--json")
    assert shown.json == json.loads((repo / "base.json").read_text())
    assert call("baseline", "show", "bas.json").code == 3
    assert call("baseline", "diff", "base.json", "base.json").out == "All 40 numbers are equal.\n"
    shutil.copy(repo / "base.json", repo / "other.json")
    edit(repo / "other.json", '"params": 32,', '"params": 64,')
    edit(repo / "other.json", '"shape": "1x16x9x9"', '"shape": "1x16x9x9"')
    done = call("baseline", "diff", "base.json", "other.json")
    assert done.out.splitlines() == [
        "A is base.json, B is other.json.",
        "",
        "se 1x16x9x9 inference: params 32 -> 64 (+100.0 %, +32)",
        "se 1x16x17x17 inference: params 32 -> 64 (+100.0 %, +32)",
        "2 of 40 numbers differ: 2 more.",
    ]
    assert done.code == 0
    data = call("baseline", "diff", "base.json", "other.json", "--format", "json").json
    assert (data["kind"], data["counts"]["more"], data["counts"]["less"]) == ("attnprof baseline diff", 2, 0)
    assert "exit_code" not in data
    assert [(row["metric"], row["from"], row["to"]) for row in data["rows"] if row["what"] == "more"] == [
        ("params", 32, 64)
    ] * 2
    edit(repo / "other.json", '"macs": 20736', '"macs": 20730')
    text = call("baseline", "diff", "base.json", "other.json", "--format", "markdown").out
    assert text.startswith("## base.json (A) and other.json (B)\n\n3 of 40 numbers differ: 2 more, 1 less.\n")
    assert "### more: 2\n\n- se 1x16x9x9 inference: params 32" in text
    assert "### less: 1\n\n- mine 1x16x9x9 inference: macs 20,736" in text


def test_a_diff_speaks_of_two_baselines_and_judges_nothing(call: Call, repo: Path) -> None:
    first = baseline.read(repo / "base.json")
    points = dict(first.points)
    gone, failed, other = list(points)[:3]
    points["new"] = replace(points.pop(gone), key="new", label="eca")
    points[failed] = replace(points[failed], status="oom", metrics={})
    made = replace(first.made, torch="1.0")
    (repo / "other.json").write_text(baseline.write(replace(first, points=points, made=made)))
    for form in ("table", "markdown", "json"):
        done = call("baseline", "diff", "base.json", "other.json", "--format", form)
        assert (done.code, done.err) == (0, "")
        for word in ("regressed", "passed", "warned", "exit code", "vanished", "attnprof gate"):
            assert word not in done.out
        told = " ".join(done.out.split())
        assert f"{first.points[gone].name}: only in A" in told
        assert "inference: only in B" in told
        assert f"{first.points[failed].name}: counted in A, oom in B" in told
        assert "base.json was made with torch" in told
    back = call("baseline", "diff", "other.json", "base.json").out
    assert f"{first.points[failed].name}: oom in A, counted in B" in " ".join(back.split())
    assert back.splitlines()[-1] == "3 of 23 numbers differ: 1 other, 1 only in A, 1 only in B."
    same = call("baseline", "diff", "other.json", "other.json").out
    assert "numbers are equal" in same
    assert first.points[other].name not in same


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--from", "none.json", "--reason", "r"), 2, "cannot be read"),
        (("--from", "spec.yaml", "--reason", "r"), 2, "no JSON"),
        (("--from", "base.json", "--reason", "r"), 2, "no report of a gate"),
        (("--from", "gate.json", "--reason", "  "), 2, "say why"),
        (("--from", "gate.json", "--reason", "r"), 3, "nothing is accepted"),
        (("--from", "gate.json", "--reason", "r", "--metric", "mac"), 2, "did you mean 'macs'?"),
    ],
)
def test_what_cannot_be_accepted(call: Call, repo: Path, words: tuple[str, ...], code: int, told: str) -> None:
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json").code == 0
    before = (repo / "base.json").read_text()
    done = call("baseline", "accept", *words)
    assert done.code == code
    assert told in done.err
    assert (repo / "base.json").read_text() == before


def test_an_old_report_is_not_accepted(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json").code == 1
    edit(repo / "base.json", '"macs": 20736', '"macs": 20737')
    done = call("baseline", "accept", "--from", "gate.json", "--reason", "r")
    assert done.code == 3
    assert "macs is 20,737 in the baseline, not 20,736" in done.err


def test_accepting_twice_says_that_nothing_was_to_change(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json").code == 1
    accept = ("baseline", "accept", "--from", "gate.json", "--reason", "r")
    first = call(*accept)
    assert (first.code, first.err) == (0, "wrote base.json: commit it.\n")
    text = (repo / "base.json").read_text()
    again = call(*accept)
    assert (again.code, again.err) == (0, "")
    assert again.out == "nothing was to change: base.json has all that matches already.\n"
    assert (repo / "base.json").read_text() == text


def test_numbers_of_two_torches_are_not_mixed(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    assert call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json").code == 1
    shutil.copy(repo / "base.json", repo / "older.json")
    edit(repo / "older.json", '"torch": "', '"torch": "1.')
    before = (repo / "older.json").read_text()
    accept = ("baseline", "accept", "--from", "gate.json", "--baseline", "older.json", "--reason", "r")
    done = call(*accept)
    assert done.code == 3
    assert "Run the gate again with torch 1." in done.err
    assert "`attnprof baseline save spec.yaml -o older.json`" in done.err
    assert (repo / "older.json").read_text() == before
    report = json.loads((repo / "gate.json").read_text())
    (repo / "gate.json").write_text(json.dumps({**report, "made": None}))
    assert call(*accept).code == 2


def test_a_ledger_outlives_a_save(call: Call, repo: Path) -> None:
    (repo / "mine.py").write_text(ONE_MORE)
    call("gate", "spec.yaml", *BASE, *ALLOW, "--report-json", "gate.json")
    assert call("baseline", "accept", "--from", "gate.json", "--reason", "r").code == 0
    before = baseline.read(repo / "base.json")
    assert call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW).code == 0
    assert baseline.read(repo / "base.json") == before


def test_an_unreadable_old_file_is_replaced_with_a_word(call: Call, repo: Path) -> None:
    (repo / "base.json").write_text("{")
    done = call("baseline", "save", "spec.yaml", "-o", "base.json", *ALLOW)
    assert done.code == 0
    assert "It is replaced" in done.err
    assert call("gate", "spec.yaml", *BASE, *ALLOW).code == 0


# --- what needs no torch


def test_no_torch_in_this_process(saved: Path) -> None:
    """Not for a dry run, nor for anything else: what is traced is traced in a child."""
    code = (
        "import contextlib, io, sys\n"
        "from attnprof.__main__ import main\n"
        "for words in [['gate', 'spec.yaml', '--baseline', 'base.json', '--allow-import', '*', '--dry-run'],\n"
        "              ['validate', 'spec.yaml', '--set', 'claims=macs < 1G'], ['baseline', 'show', 'base.json'],\n"
        "              ['baseline', 'diff', 'base.json', 'base.json'],\n"
        "              ['gate', 'spec.yaml', '--baseline', 'base.json', '--allow-import', '*']]:\n"
        "    sys.argv = ['attnprof', *words]\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try:\n"
        "            main()\n"
        "        except SystemExit as error:\n"
        "            assert error.code == 0, words\n"
        "    assert out.getvalue(), words\n"
        "    assert not {'torch', 'pandas', 'altair', 'numpy'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=saved, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
