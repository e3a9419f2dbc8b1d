"""The wide CSV read back: a row per case, the numbers of the tidy CSV, names that stay names."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attnprof import report, store
from attnprof.records import Opinion, Record, Timing
from attnprof.report import csv as tidy
from attnprof.report import wide
from attnprof.report.metrics import METRICS
from tests.command import exit_code
from tests.report.test_report import counts, record, run, timing
from tests.report.test_tidy_csv import HOSTILE
from tests.report.test_tidy_csv import back as tidy_back


def back(members: Iterable[Record], **more: Any) -> pd.DataFrame:
    """The wide CSV of a report as pandas reads it."""
    text = wide.render(report.build(list(members), **more))
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def test_every_number_of_the_tidy_csv_stands_in_the_row_of_its_case() -> None:
    frame = back(run(), baseline="nonlocal").set_index("key")
    assert len(frame) == len(run())
    long = tidy_back(run(), baseline="nonlocal")
    assert len(long) == len(run()) * 5
    parts = {"value": "", "ci_low": "_low", "ci_high": "_high", "n": "_n", "k": "_k", "delta": "_delta"}
    parts |= {"ratio": "_ratio", "ratio_low": "_ratio_low", "ratio_high": "_ratio_high", "reason": "_reason"}
    suffixes = {"1": "", "B": "_bytes", "s": "_s"}
    seen = 0
    for row in long.to_dict("records"):
        for part, text in parts.items():
            suffix = suffixes[row["unit"]] if part in ("value", "ci_low", "ci_high", "delta") else ""
            name = f"{row['metric']}{text}{suffix}"
            if name not in frame.columns:
                exact = part.startswith("ratio_") and row[part] == row["ratio"]
                assert exact or row[part] == "" or math.isnan(row[part]), name
                continue
            found = frame.loc[row["key"], name]
            assert found == row[part] or ((row[part] == "" or math.isnan(row[part])) and math.isnan(found)), name
            seen += not isinstance(row[part], str) and not math.isnan(row[part])
    assert seen > 200


def test_columns_carry_their_unit_and_stand_beside_their_metric() -> None:
    uneven = replace(timing(3.0, "block inference"), latency_s=tuple(0.003 + 1e-5 * i * i for i in range(20)))
    frame = back([*run(), record("uneven", counts(1, 2), uneven)], baseline="nonlocal")
    assert tuple(frame.columns[: len(wide.CASE)]) == wide.CASE
    rest = [name for name in frame.columns[len(wide.CASE) :] if name.startswith("latency")]
    assert rest == [
        *("latency_s", "latency_low_s", "latency_high_s", "latency_n", "latency_k", "latency_delta_s"),
        *("latency_ratio", "latency_ratio_low", "latency_ratio_high", "latency_status", "latency_reason"),
    ]
    assert {"peak_memory_bytes", "peak_memory_delta_bytes", "macs", "arg_recurrence"} <= set(frame.columns)
    assert "macs_ratio_low" not in frame.columns
    assert "macs_n" not in frame.columns


def test_an_empty_value_has_a_reason_and_a_status() -> None:
    frame = back(run())
    for label, status, reason in (
        ("se", "ok", "not measured (budget)"),
        ("sasa", "timeout", "timeout: no answer for 300 s"),
        ("fullattn", "oom", "oom: host: 61 GiB wanted"),
    ):
        rows = frame[frame["label"] == label]
        assert len(rows) == 2
        assert set(rows["status"]) == {status}
        assert rows["latency_s"].isna().all()
        assert set(rows["latency_reason"]) == {reason}
        assert set(rows["latency_status"]) == {"not measured" if status == "ok" else status}
    assert back([record("a", counts(1, 2))], metrics=("latency",))["latency_s"].isna().all()


def test_processes_and_samples_have_columns() -> None:
    several = Timing((1.0, 1.1, 1.2, 1.3) * 2, (0, 1, 2, 3) * 2, "b", process_of=(0,) * 4 + (1,) * 4)
    frame = back([record("a", counts(1, 2), several), record("b", counts(1, 2), timing(3.0)), record("c", counts(1, 2))])
    assert frame["latency_k"].tolist()[:2] == [2, 1]
    assert frame["latency_n"].tolist()[:2] == [8, 20]
    assert math.isnan(frame["latency_k"].tolist()[2])


def test_another_counter_has_its_own_columns() -> None:
    opinion = Opinion("fvcore", "explained", 5, -0.5, sentence="=it missed bmm")
    frame = back([replace(record("a", counts(10, 2)), crosscheck=(opinion,)), record("b", counts(10, 2))])
    assert frame["macs:fvcore"].tolist()[0] == 5
    assert frame.loc[0, "macs:fvcore_status"] == "explained"
    assert frame.loc[0, "macs:fvcore_reason"] == "'=it missed bmm"
    assert math.isnan(frame["macs:fvcore"].tolist()[1])


@pytest.mark.parametrize("label", [*HOSTILE, "a\nb\r\nc", "=HYPERLINK(1)\n=2"])
def test_labels_come_back_and_are_no_formulas(label: str) -> None:
    frame = back([record(label, counts(1, 2)), record("plain", counts(2, 3))])
    assert {tidy.unguard(text) for text in frame["label"]} == {label.replace("\r\n", " ").replace("\n", " "), "plain"}
    for name in ("label", "mechanism"):
        assert not any(text.lstrip()[:1] in tuple("=+-@") or text[:1] == "\t" for text in frame[name])


def test_arguments_with_names_of_formulas_are_guarded_in_the_head() -> None:
    members = [record(f"a[{i}]", counts(1, 2), args={"=x": i, "y": "=1"}) for i in (1, 2)]
    frame = back(members)
    assert frame["arg_'=x"].tolist() == [1, 2]
    assert all(cell.startswith("'=") for cell in back([*members, record("a", counts(1, 2), args={"y": "=2"})])["arg_y"])


def test_every_unit_of_a_metric_has_a_suffix() -> None:
    members = [record("a", counts(1, 2), timing(3.0))]
    frame = back(members, metrics=tuple(METRICS))
    for key, suffix in (("throughput", "_per_s"), ("energy", "_j"), ("bound", "_s"), ("resident_memory", "_bytes")):
        assert f"{key}{suffix}" in frame.columns
    assert len([name for name in frame.columns if name.endswith("_reason")]) < len(METRICS)


def test_the_command_writes_it_and_wants_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "seg.jsonl"
    members = run()
    store.append(path, store.Run("seg", tuple(each.case.key for each in members), "nonlocal", ("macs", "latency"), "", ""))
    for each in members:
        store.append(path, each)
    assert exit_code("report", tmp_path, "--format", "md,csv", "--wide") == 0
    assert len(pd.read_csv(tmp_path / "seg.csv")) == len(members)
    assert exit_code("report", tmp_path, "--format", "csv") == 0
    assert len(pd.read_csv(tmp_path / "seg.csv")) == len(members) * 2
    capsys.readouterr()
    assert exit_code("report", tmp_path, "--format", "md,latex", "--wide") == 2
    assert "--wide is about CSV files: add csv to --format." in capsys.readouterr().err
