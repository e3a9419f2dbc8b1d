"""`report` in every option: columns, order, marks, formats, the extra that is missing, the stores it reads."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from attnprof import report, store
from attnprof.cli.made_from import commit_of, source_of
from attnprof.cli.reporting import report_command
from attnprof.errors import UsageError
from attnprof.records import Record
from attnprof.report import latex, markdown, table
from tests.command import exit_code
from tests.report.test_report import counts, record, run, timing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A store as `run` leaves it."""
    path = tmp_path / "seg.jsonl"
    members = run()
    keys = tuple(each.case.key for each in members)
    store.append(path, store.Run("seg", keys, "nonlocal", ("params", "macs", "latency"), "abcd", "c0ffee"))
    for each in members:
        store.append(path, each)
    return path


def shown(built: report.Report) -> list[tuple[str, str]]:
    """(key, kind) of the columns of the first table as renderers show it."""
    return [
        (column.key, column.kind) for column in table.visible(built.tables[0]).columns if column.kind not in ("label", "axis")
    ]


def build(columns: tuple[str, ...], **more: Any) -> report.Report:
    return report.build_as(run(), report.Meta("x", columns=columns, **{"baseline": "nonlocal", **more}))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("macs",), [("macs", "value")]),
        (("latency", "macs.ratio"), [("latency", "value"), ("macs", "ratio")]),
        (
            ("macs", "macs.delta", "params", "ratio"),
            [("macs", "value"), ("macs", "delta"), ("macs", "ratio"), ("params", "value"), ("params", "ratio")],
        ),
        (("activation_bytes",), [("activation_memory", "value")]),
    ],
)
def test_columns_are_those_asked_for(columns: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    assert shown(build(columns)) == found


def test_ratio_alone_is_that_of_all_metrics_of_the_run() -> None:
    assert shown(build(("ratio",), metrics=("macs", "params"))) == [("macs", "ratio"), ("params", "ratio")]


def test_without_columns_everything_is_shown() -> None:
    assert len(shown(build(()))) == 15


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("mac",), "did you mean 'macs'"),
        (("macs.ratoi",), "did you mean 'macs.ratio'"),
        (("ratoi",), "did you mean 'ratio'"),
        (("macs.",), "a metric has value, delta, ratio"),
    ],
)
def test_a_wrong_column_names_the_nearest(columns: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(columns)


def test_a_ratio_needs_a_baseline() -> None:
    with pytest.raises(UsageError, match="no baseline"):
        build(("macs.ratio",), baseline=None)


def test_rows_are_sorted_the_better_first_and_gaps_last() -> None:
    built = build((), sort="macs")
    macs = [[None if row.record.counts is None else row.record.counts.macs for row in each.rows] for each in built.tables]
    assert len(macs) == 2
    for column in macs:
        values = [value for value in column if value is not None]
        assert values == sorted(values)
        assert column[len(values) :] == [None]
    with pytest.raises(UsageError, match="cannot be sorted by 'energy'"):
        build((), sort="energy")


def test_sorting_by_a_metric_of_which_only_the_ratio_is_shown() -> None:
    assert build(("macs.ratio",), sort="macs").tables[0].rows[0].record.case.label == "simam"


@pytest.mark.parametrize(("highlight", "marks"), [("significant", [1, 1, 2]), ("best", [1, 2, 0]), ("none", [0, 0, 0])])
def test_marks_follow_the_intervals_unless_told_otherwise(highlight: str, marks: list[int]) -> None:
    members = [record(label, counts(1, 1), timing(ms, label)) for label, ms in (("a", 100.0), ("b", 100.1), ("c", 200.0))]
    built = report.build_as(members, report.Meta("x", metrics=("latency",), look=report.Look(highlight)))
    assert [row.cells[-1].rank for row in built.tables[0].rows] == marks
    assert ("**" in markdown.render(built)) == (highlight != "none")


def test_report_writes_every_text_format_from_the_store(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stored.parent / "out"
    assert exit_code("report", str(stored), "--format", "md,csv,json,latex", "--out", str(out), "--columns", "macs,ratio") == 0
    assert capsys.readouterr().out.split() == [str(out / f"seg{suffix}") for suffix in (".md", ".csv", ".json", ".tex")]
    tex = (out / "seg.tex").read_text(encoding="ascii")
    assert "Spec: SHA-256 abcd." in tex
    assert "Commit: c0ffee." in tex
    assert "Params" not in (out / "seg.md").read_text(encoding="utf-8").partition("## Notes")[0]
    assert tex.count(r"\begin{table") == 2


def test_standalone_and_siunitx_reach_the_file(stored: Path) -> None:
    siunitx = ("--format", "latex", "--standalone", "--latex", "siunitx", "--highlight", "none")
    assert exit_code("report", stored, *siunitx) == 0
    tex = stored.with_suffix(".tex").read_text(encoding="ascii")
    assert r"\documentclass" in tex
    assert "S[table-format=" in tex
    assert r"\textbf" not in tex


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "latx"], "did you mean 'latex'"),
        (["--format", ","], "--format names none"),
        (["--standalone"], "add latex to --format"),
        (["--columns", "peek_memory"], "did you mean 'peak_memory'"),
        (["--sort", "latancy"], "did you mean 'latency'"),
    ],
)
def test_a_mistake_is_exit_code_2(stored: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    before = sorted(stored.parent.iterdir())
    assert exit_code("report", str(stored), *options) == 2
    assert said in capsys.readouterr().err
    assert sorted(stored.parent.iterdir()) == before


def test_run_writes_latex_and_renews_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text("name: tiny\ninput: {channels: 8, hw: 5x5}\nmodes: inference\nmechanisms: [se]\nmeasure: {device: none}\n")
    arguments = ["run", str(spec), "--out", str(tmp_path / "out"), "-q"]
    assert exit_code(*arguments, "--format", "md,latex") == 0
    first = (tmp_path / "out" / "tiny.tex").read_text(encoding="ascii")
    assert f"Spec: SHA-256 {source_of(str(spec))}." in first
    (tmp_path / "out" / "tiny-macs.svg").write_text("of the first run")
    assert exit_code(*arguments[:-1], "--set", "input.hw=7x7") == 0
    assert "the figures in" in capsys.readouterr().err
    assert (tmp_path / "out" / "tiny-macs.svg").read_text() == "of the first run"
    second = (tmp_path / "out" / "tiny.tex").read_text(encoding="ascii")
    assert "7x7, 8 channels" in second
    assert f"Spec: SHA-256 {source_of(str(spec))} with 1 " in second


def test_the_command_knows_the_marks_of_the_tables() -> None:
    (option,) = [each for each in report_command.params if each.name == "highlight"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == table.HIGHLIGHTS


@pytest.mark.parametrize("name", ["html", "figure"])
def test_a_missing_extra_is_said_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UsageError, match=r"pip install 'attnprof\[plots\]'"):
        report.check_formats(["md", name])
    assert report.check_formats(["md", "latex"]) == ("md", "latex")


def test_a_format_gives_text_or_bytes_under_its_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FORMATS", {"md": lambda _: {"-a.svg": "<svg/>", "-a.png": b"\x89PNG\r\n"}})
    paths = report.write(run(), report.Meta("x"), ["md"], tmp_path)
    assert [path.name for path in paths] == ["x-a.svg", "x-a.png"]
    assert paths[1].read_bytes() == b"\x89PNG\r\n"


def test_reports_that_are_there_are_known(tmp_path: Path) -> None:
    for name in ("x.md", "x.tex", "x-macs.svg", "y.csv"):
        (tmp_path / name).write_text("")
    assert report.there(tmp_path, "x") == ["md", "latex", "figure"]


def test_a_store_without_a_commit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    store.append(path, store.Run("old", ("k",), None, ("macs",), "abcd", "c0ffee"))
    assert store.load(path).runs[0].commit == "c0ffee"
    path.write_text(path.read_text().replace(',"commit":"c0ffee"', ""))
    assert store.load(path).runs[0] == store.Run("old", ("k",), None, ("macs",), "abcd", "")


def test_a_spec_is_known_by_its_hash_and_commit(tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("name: s\n")
    assert source_of(str(spec)) == "784ae25aa9c0ace1"
    assert source_of(str(spec), ["a=1", "b=2"]) == source_of(str(spec)) + " with 2 --set"
    assert source_of(str(tmp_path / "none.yaml")) == ""
    assert commit_of(str(spec)) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "s.yaml"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(commit_of(str(spec)))
    assert len(commit_of(str(spec))) == 12
    spec.write_text("name: t\n")
    assert commit_of(str(spec)).endswith("-dirty")


def test_latex_leaves_torch_out() -> None:
    code = (
        "import sys; from tests.report.test_report import run; from attnprof import report;"
        "report.FORMATS['latex'](report.build(run())); print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "False"


def test_an_empty_report_says_so() -> None:
    assert "No cases." in latex.render(report.build([]))


def test_rows_of_different_code_are_said_and_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = ({"provenance": {"source": text}} for text in ("old", "new"))
    rows = [
        replace(record("mine", counts(1, 1), args={"n": 0}), environment=old),
        replace(record("mine", counts(1, 2), args={"n": 1}), environment=new),
    ]
    path = kept(tmp_path, rows)
    assert exit_code("report", str(path), "--format", "md,latex") == 0
    said = f"Rows of {rows[0].case.mechanism} are from different code: the same `attnprof run` with --resume renews them."
    assert f"warning: {path}: {said}" in capsys.readouterr().err
    text = (tmp_path / "seg.md").read_text()
    assert "are from different code" in text
    assert "**" not in text
    assert "are from different code" in under_tables(tmp_path / "seg.tex")
    path = kept(tmp_path / "one", [replace(one, environment=new) for one in rows])
    assert exit_code("report", str(path)) == 0
    assert "**" in (path.parent / "seg.md").read_text()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("lacks", ["a record", "its measurement"])
def test_an_unfinished_run_marks_nothing_and_says_so_under_its_tables(tmp_path: Path, lacks: str) -> None:
    rows = [record(label, counts(1, number), timing(1.0 + number, label)) for number, label in enumerate("abc")]
    path = kept(tmp_path, rows)
    assert exit_code("report", str(path), "--format", "md,latex,json") == 0
    assert "**" in (tmp_path / "seg.md").read_text()
    assert json.loads((tmp_path / "seg.json").read_text())["missing"] == []
    last = [replace(rows[2], status="interrupted", timing=None)] if lacks == "its measurement" else []
    path = kept(tmp_path / "part", [*rows[:2], *last], tuple(one.case.key for one in rows))
    assert exit_code("report", str(path), "--format", "md,latex,json") == 0
    text = (path.parent / "seg.md").read_text()
    said = "1 of 3 cases are counted and not measured yet." if last else "1 of 3 cases have no record yet."
    assert said in text
    assert "**" not in text
    assert "<u>" not in text
    assert said in under_tables(path.parent / "seg.tex")
    assert "textbf" not in (path.parent / "seg.tex").read_text()
    assert json.loads((path.parent / "seg.json").read_text())["missing"] == [said]


def test_a_table_with_a_case_that_was_not_measured_yet_has_no_ranks() -> None:
    rows = [record(label, counts(1, number), timing(1.0 + number, label)) for number, label in enumerate("abc")]
    assert any(cell.rank for row in report.build(rows).tables[0].rows for cell in row.cells)
    rows[2] = replace(rows[2], status="interrupted", timing=None)
    assert not any(cell.rank for row in report.build(rows).tables[0].rows for cell in row.cells)


def test_all_warns_of_what_the_last_run_lacks_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [record(label, counts(1, 1), timing(1.0, label)) for label in "abc"]
    earlier = replace(rows[0], status="interrupted", timing=None)
    path = kept(tmp_path, [earlier, rows[1]], (rows[1].case.key,))
    assert exit_code("report", str(path), "--all") == 0
    assert capsys.readouterr().err == "", "nothing goes on with what the last run did not ask for"
    store.append(path, store.Run("seg", (rows[1].case.key, rows[2].case.key), metrics=("macs", "latency")))
    assert exit_code("report", str(path), "--all") == 0
    said = "of the last run, 1 of 2 cases have no record yet: the same `attnprof run` with --resume goes on."
    assert capsys.readouterr().err == f"warning: {path}: {said}\n"
    assert "Of the last run, 1 of 2 cases have no record yet." in (tmp_path / "seg.md").read_text()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "once there is room, `attnprof report {path}` writes the reports."),
        (errno.EDQUOT, "once there is room, `attnprof report {path}` writes the reports."),
        (errno.EROFS, "give --out another folder: `attnprof report {path} --out DIR` writes the reports."),
        (errno.EACCES, "give --out another folder: `attnprof report {path} --out DIR` writes the reports."),
    ],
)
def test_a_report_that_cannot_be_written_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    path = kept(tmp_path, [record("a", counts(1, 1))])
    real = Path.open

    def full(self: Path, *args: Any, **more: Any) -> Any:
        if self.name.endswith(".tmp"):
            raise OSError(number, os.strerror(number), str(self))
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UsageError) as error:
        report_command.main([str(path)], standalone_mode=False)
    assert str(error.value).startswith(f"{tmp_path / 'seg.md'}: cannot be written: {os.strerror(number)}. ")
    assert str(error.value).endswith(advice.format(path=path))


def kept(folder: Path, rows: list[Record], keys: tuple[str, ...] = ()) -> Path:
    """A store of these records, whose run asked for these keys."""
    folder.mkdir(exist_ok=True)
    path = folder / "seg.jsonl"
    store.append(path, store.Run("seg", keys or tuple(one.case.key for one in rows), metrics=("macs", "latency")))
    for one in rows:
        store.append(path, one)
    return path


def under_tables(path: Path) -> str:
    """What stands under the tables of a LaTeX file, as a reader sees it: without comments, and what only breaks lines."""
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("%")]
    return "\n".join(lines).replace("\\allowbreak{}", "").replace("\\hspace{0pt}", "")
