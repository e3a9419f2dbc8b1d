"""What people copy into their CI: the GitHub Action and its scripts, the pre-commit hook, the GitLab job.

The scripts are run as GitHub runs them, with an `attnprof` that writes down what it is called with; what it was called with is
then parsed by the real commands. One test runs everything for real on a scratch repository.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from attnprof.cli import cli

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "gate"
RECIPES = ROOT / ".github" / "recipes"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
FILES = (ACTION / "action.yml", *sorted(RECIPES.iterdir()), HOOKS)

RECORDER = """#!{python}
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("EXIT_" + sys.argv[1].upper().strip("-"), "0")))
"""

SPEC = """
name: mine
input: {channels: 8, hw: [9x9, 17x17]}
mechanisms:
  - {import: "mine.py:Mine", as: mine}
modes: inference
measure: {device: none}
"""

MINE = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, channels=8):
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(COUNT)))

    def forward(self, x):
        return x + self.convs(x)
"""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(ACTION / "action.yml")["runs"]["steps"]
    return found


def parsed(words: list[str]) -> dict[str, Any]:
    """What the real command line makes of a call. Raises click.UsageError for an option that is not there."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, words
    return command.make_context(words[0], words[1:]).params


def stub(folder: Path, *names: str) -> Path:
    """A folder with programs that write down what they are called with."""
    folder.mkdir()
    for name in names:
        file = folder / name
        file.write_text(RECORDER.format(python=sys.executable), encoding="utf-8")
        file.chmod(0o755)
    return folder


def called(
    script: str, tmp_path: Path, variables: Mapping[str, str]
) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """A script of the action, run with these variables: what it gave, and the calls that it made."""
    calls = tmp_path / "calls"
    path = f"{stub(tmp_path / 'bin', 'attnprof', 'python')}:{os.environ['PATH']}"
    work = tmp_path / "work"
    work.mkdir()
    given = {"PATH": path, "CALLS": str(calls), "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "output")}
    done = subprocess.run(
        ["bash", "-e", str(ACTION / script)], env=given | dict(variables), cwd=work, capture_output=True, text=True, check=False
    )
    assert list(work.iterdir()) == []
    return done, [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_they_are_yaml(file: Path) -> None:
    assert read(file)


def test_the_workflow_has_ten_lines() -> None:
    lines = (RECIPES / "github.yml").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 10


def test_readme_shows_the_workflow_as_it_is() -> None:
    workflow = (RECIPES / "github.yml").read_text(encoding="utf-8").partition("\n")[2]
    assert f"```yml\n{workflow}```" in (ROOT / "README.md").read_text(encoding="utf-8")


def used() -> Iterator[str]:
    for file in FILES:
        yield from re.findall(r"uses: (\S+)", file.read_text(encoding="utf-8"))


def test_actions_of_others_are_pinned_to_a_major_version() -> None:
    found = set(used())
    ours = {name for name in found if name.startswith("OWNER/attnprof/")}
    assert ours == {"OWNER/attnprof/.github/actions/gate@main"}
    assert len(found - ours) == 3
    assert [name for name in found - ours if not re.fullmatch(r"actions/[a-z-]+@v\d+", name)] == []


def test_no_input_is_a_part_of_a_script() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert scripts == ['bash "$GITHUB_ACTION_PATH/install.sh"', 'bash "$GITHUB_ACTION_PATH/gate.sh"']
    for name in ("install.sh", "gate.sh"):
        assert "${{" not in (ACTION / name).read_text(encoding="utf-8")
        assert "eval" not in (ACTION / name).read_text(encoding="utf-8")
    for file in RECIPES.iterdir():
        assert "${{" not in file.read_text(encoding="utf-8")


def test_every_input_is_used_and_every_variable_is_given() -> None:
    text = (ACTION / "action.yml").read_text(encoding="utf-8")
    inputs = read(ACTION / "action.yml")["inputs"]
    assert set(re.findall(r"inputs\.([a-z-]+)", text)) == set(inputs)
    for step in steps():
        script = re.search(r"/(\w+\.sh)", step.get("run", ""))
        if script is not None:
            read_there = set(re.findall(r"GATE_\w+", (ACTION / script[1]).read_text(encoding="utf-8")))
            assert set(step["env"]) == read_there
    assert all("description" in each and ("default" in each or each.get("required")) for each in inputs.values())
    (recipe,) = (step for step in read(RECIPES / "github.yml")["jobs"]["gate"]["steps"] if "with" in step)
    assert set(recipe["with"]) <= set(inputs)


def test_every_input_reaches_the_gate(tmp_path: Path) -> None:
    given = {
        "GATE_SPEC": "specs/mine.yaml",
        "GATE_BASELINE": "baselines/mine.json",
        "GATE_BASE_REF": "origin/main",
        "GATE_ALLOW_IMPORT": "mine.py:*\r\nother.py:Mine\n",
        "GATE_TOL": "flops=5%\n\npeak_bytes=+16MiB",
        "GATE_ARGS": "--on-inconclusive\nfail\n--strict",
    }
    done, (gate, run) = called("gate.sh", tmp_path, given)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "attnprof-gate"
    asked = parsed(gate[1:])
    assert (gate[1], run[1]) == ("gate", "run")
    assert asked["spec"] == "specs/mine.yaml"
    assert asked["baseline"] == Path("baselines/mine.json")
    assert asked["base_ref"] == "origin/main"
    assert asked["allow_import"] == ("mine.py:*", "other.py:Mine")
    assert asked["tol"] == ("flops=5%", "peak_bytes=+16MiB")
    assert (asked["on_inconclusive"], asked["strict"]) == ("fail", True)
    assert [asked[name] for name in ("report_json", "junit", "markdown")] == [
        folder / f"gate.{end}" for end in ("json", "xml", "md")
    ]
    again = parsed(run[1:])
    assert (again["specs"], again["allow_import"]) == (("specs/mine.yaml",), asked["allow_import"])
    assert (again["device"], again["formats"], again["out"]) == ("none", "html", folder / "run")
    output = (tmp_path / "output").read_text(encoding="utf-8")
    assert output == f"exit-code=0\nfolder={folder}\n"
    outputs = read(ACTION / "action.yml")["outputs"]
    assert {f"${{{{ steps.gate.outputs.{name} }}}}" for name in ("exit-code", "folder")} == {
        each["value"] for each in outputs.values()
    }


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 70])
def test_the_exit_code_is_the_gates(tmp_path: Path, code: int) -> None:
    done, calls = called("gate.sh", tmp_path, {"GATE_SPEC": "s.yaml", "EXIT_GATE": str(code), "EXIT_RUN": "5"})
    assert done.returncode == code
    assert (tmp_path / "output").read_text(encoding="utf-8").startswith(f"exit-code={code}\n")
    assert [call[1] for call in calls] == (["gate"] if code == 2 else ["gate", "run"])
    assert ("::warning::The HTML report was not made." in done.stdout) == (code != 2)


def test_no_html_where_it_is_not_wanted(tmp_path: Path) -> None:
    _, calls = called("gate.sh", tmp_path, {"GATE_SPEC": "s.yaml", "GATE_HTML": "false"})
    assert [call[1] for call in calls] == ["gate"]


HOSTILE = ("$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '" && touch pwned #', "*", "a b", "--help", "${IFS}x", "\\")


@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_words_and_never_scripts(tmp_path: Path, text: str) -> None:
    names = ("GATE_SPEC", "GATE_BASELINE", "GATE_BASE_REF", "GATE_ALLOW_IMPORT", "GATE_TOL", "GATE_ARGS", "GATE_HTML")
    _, ((_, _, *words),) = called("gate.sh", tmp_path, dict.fromkeys(names, text))
    assert words[-7:] == [
        f"--baseline={text}",
        f"--base-ref={text}",
        f"--allow-import={text}",
        f"--tol={text}",
        text,
        "--",
        text,
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_installed_is_one_word(tmp_path: Path, text: str) -> None:
    done, calls = called("install.sh", tmp_path, {"GATE_PACKAGE": text, "GATE_TORCH_INDEX": text, "EXIT_C": "1"})
    assert done.returncode == 0, done.stderr
    assert [call[1:] for call in calls[1:]] == [
        ["-m", "pip", "install", "--quiet", "--index-url", text, "--", "torch"],
        ["-m", "pip", "install", "--quiet", "--", text],
    ]


def test_the_actions_own_commit_is_installed_and_a_torch_that_is_there_stays(tmp_path: Path) -> None:
    done, (_, install) = called("install.sh", tmp_path, {"GATE_PACKAGE": "", "GATE_TORCH_INDEX": ""})
    assert done.returncode == 0, done.stderr
    assert install == ["python", "-m", "pip", "install", "--quiet", "--", f"{ROOT}[plots]"]


def test_the_job_and_the_hook_say_what_the_gate_understands() -> None:
    (job,) = read(RECIPES / "gitlab.yml").values()
    (line,) = (line for line in job["script"] if line.startswith("attnprof"))
    asked = parsed(shlex.split(line)[1:])
    assert str(asked["junit"]) == job["artifacts"]["reports"]["junit"]
    assert str(asked["report_json"]) in job["artifacts"]["paths"]
    assert job["artifacts"]["when"] == "always"
    (hook,) = read(HOOKS)
    (entry,) = read(RECIPES / "pre-commit.yaml")["repos"][0]["hooks"]
    assert entry["id"] == hook["id"]
    hooked = parsed([*shlex.split(hook["entry"])[1:], *entry["args"]])
    for name in ("spec", "baseline", "allow_import"):
        assert hooked[name] == asked[name], name
    (recipe,) = (step["with"] for step in read(RECIPES / "github.yml")["jobs"]["gate"]["steps"] if "with" in step)
    assert (recipe["spec"], Path(recipe["baseline"]), (recipe["allow-import"],)) == (
        asked["spec"],
        asked["baseline"],
        asked["allow_import"],
    )


def test_the_hook_passes_no_file_names_and_keeps_the_users_environment() -> None:
    (hook,) = read(HOOKS)
    assert hook["pass_filenames"] is False
    assert hook["language"] == "system"
    assert set(hook) >= {"id", "name", "entry", "description"}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A repository with the files that the recipes name, and an `attnprof` on the path of `environment`."""
    work = tmp_path / "repository"
    for folder in (work, work / "specs", work / "baselines", tmp_path / "bin"):
        folder.mkdir()
    (work / "specs" / "mine.yaml").write_text(SPEC, encoding="utf-8")
    (work / "mine.py").write_text(MINE.replace("COUNT", "2"), encoding="utf-8")
    program = tmp_path / "bin" / "attnprof"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m attnprof "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return work


def environment(work: Path) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "GATE_", "RUNNER_"))}
    path = f"{work.parent / 'bin'}:{os.environ['PATH']}"
    return found | {"PATH": path, "PYTHONPATH": str(ROOT), "RUNNER_TEMP": str(work.parent)}


def test_they_work_on_a_scratch_repository(scratch: Path) -> None:
    (hook,), (entry,) = read(HOOKS), read(RECIPES / "pre-commit.yaml")["repos"][0]["hooks"]
    hooked = [*shlex.split(hook["entry"]), *entry["args"]]
    (given,) = (step["with"] for step in read(RECIPES / "github.yml")["jobs"]["gate"]["steps"] if "with" in step)
    inputs = {f"GATE_{name.upper().replace('-', '_')}": text for name, text in given.items()}

    def run(words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=scratch, env=environment(scratch) | variables, capture_output=True, text=True, check=False
        )

    saved = run(
        ["attnprof", "baseline", "save", given["spec"], "-o", given["baseline"], "--allow-import", given["allow-import"]]
    )
    assert saved.returncode == 0, saved.stderr
    passed = run(hooked)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    (scratch / "mine.py").write_text(MINE.replace("COUNT", "3"), encoding="utf-8")
    failed = run(hooked)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "macs" in failed.stdout
    summary = scratch.parent / "summary.md"
    github = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(scratch), "GITHUB_STEP_SUMMARY": str(summary)}
    gated = run(["bash", str(ACTION / "gate.sh")], **inputs, **github, GATE_HTML="false")
    assert gated.returncode == 1, gated.stdout + gated.stderr
    assert re.search(r"^::error file=specs/mine\.yaml,line=5,.*::.*macs", gated.stdout, re.MULTILINE), gated.stdout
    assert "macs" in summary.read_text(encoding="utf-8")
    folder = scratch.parent / "attnprof-gate"
    assert {path.name for path in folder.iterdir()} == {"gate.json", "gate.xml", "gate.md"}
    assert f"folder={folder}" in gated.stdout
