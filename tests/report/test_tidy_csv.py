"""The tidy CSV read back: pandas finds the records' values, labels and intervals, whatever the labels are."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attnprof import report
from attnprof.plain import printable
from attnprof.records import Record, Timing
from attnprof.report import csv as tidy
from attnprof.report.metrics import METRICS
from tests.report.test_report import counts, record, run, timing

HOSTILE = [
    "=1+1",
    "+x",
    "-5",
    "@cmd",
    "'=1",
    "''@",
    "'quoted'",
    "\t=tab",
    "  =spaces",
    'a,"b"',
    "NA",
    "None",
    "nan",
    "日本",
    "a;b",
]


def back(members: Iterable[Record], **more: Any) -> pd.DataFrame:
    """The CSV of a report as pandas reads it."""
    text = tidy.render(report.build(list(members), **more))
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=dict.fromkeys(tidy.NUMBERS, ""))


def test_pandas_reads_every_value_and_interval_back() -> None:
    members = run()
    frame = back(members, baseline="nonlocal")
    by_key = {each.case.key: each for each in members}
    assert len(frame) == len(members) * 5
    for row in frame.to_dict("records"):
        case, reading = by_key[row["key"]].case, METRICS[row["metric"]].read(by_key[row["key"]])
        assert (row["mechanism"], row["label"], row["mode"], row["dtype"]) == (
            case.mechanism,
            case.label,
            case.mode,
            case.dtype,
        )
        assert json.loads(row["args"]) == case.args
        assert (row["batch"], row["channels"], row["height"], row["width"]) == (1, 512, 97, 97)
        assert row["unit"] == METRICS[row["metric"]].unit
        wanted = (None,) * 4 if reading is None else (reading.value, reading.low, reading.high, reading.n)
        for found, value in zip((row["value"], row["ci_low"], row["ci_high"], row["n"]), wanted, strict=True):
            assert found == value if value is not None else math.isnan(found)
        assert bool(row["reason"]) >= math.isnan(row["value"])


def test_a_row_without_a_value_is_never_ok() -> None:
    members = run()
    frame = back(members, metrics=("macs", "latency", "energy", "bound", "calibrated_memory"))
    empty = frame[frame["value"].isna()]
    assert "ok" not in set(empty["status"])
    given = frame[~frame["value"].isna()]
    assert dict(zip(given["key"], given["status"], strict=True)) == {
        each.case.key: each.status for each in members if each.counts is not None
    }
    found = {(row["label"], row["metric"]): row["status"] for row in empty.to_dict("records")}
    assert found["se", "latency"] == "not measured"
    assert found["se", "calibrated_memory"] == "not calibrated"
    assert found["se", "bound"] == "no value"  # no rates for the device: the reason says so
    assert found["fullattn", "macs"] == "oom"
    assert found["sasa", "latency"] == "timeout"


def test_numbers_are_numbers_and_the_rest_is_text() -> None:
    frame = back(run(), baseline="nonlocal")
    for name in frame.columns:
        if name in tidy.NUMBERS:
            assert frame[name].dtype == "float64", name
        elif name in ("batch", "channels", "height", "width", "frames"):
            assert frame[name].dtype == "int64", name
        else:
            assert all(isinstance(value, str) for value in frame[name]), name


def test_pandas_alone_reads_the_same_numbers() -> None:
    members = run()
    plain = pd.read_csv(io.StringIO(tidy.render(report.build(members, baseline="nonlocal"))))
    named = back(members, baseline="nonlocal")
    pd.testing.assert_frame_equal(plain[list(tidy.NUMBERS)], named[list(tidy.NUMBERS)])


def test_processes_have_a_column() -> None:
    several = Timing((1.0, 1.1, 1.2, 1.3) * 2, (0, 1, 2, 3) * 2, "b", process_of=(0,) * 4 + (1,) * 4)
    frame = back([record("a", counts(1, 2), several), record("b", counts(1, 2), timing(3.0)), record("c", counts(1, 2))])
    latency = frame[frame["metric"] == "latency"]["k"].tolist()
    assert latency[:2] == [2.0, 1.0]
    assert math.isnan(latency[2])
    assert frame[frame["metric"] == "macs"]["k"].isna().all()


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_come_back(label: str) -> None:
    frame = back([record(label, counts(1, 2)), record("plain", counts(2, 3))])
    assert {tidy.unguard(text) for text in frame["label"]} == {label, "plain"}
    assert not any(text.lstrip()[:1] in tuple("=+-@") or text[:1] == "\t" for text in frame["label"])


@settings(max_examples=200)
@given(st.text(max_size=30))
@example("'=")
@example("''\t")
@example("' =")
def test_unguard_undoes_guard(text: str) -> None:
    line = "\t".join(map(printable, text.translate(dict.fromkeys(map(ord, "\r\n\0"), " ")).split("\t")))
    guarded = tidy.guard(line)
    assert tidy.unguard(guarded) == line
    assert guarded.lstrip()[:1] not in tuple("=+-@")


@settings(max_examples=40)
@given(st.floats(1e-12, 1e6), st.integers(0, 2**53))
def test_no_digit_is_lost(seconds: float, macs: int) -> None:
    members = [replace(record("a", counts(macs, 1), Timing((seconds,) * 6, tuple(range(6)), "b")))]
    frame = back(members, metrics=("macs", "latency"))
    assert frame["value"].tolist() == [macs, seconds]
