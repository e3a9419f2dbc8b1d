"""What reports say where traced, calibrated and measured peaks stand side by side. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attnprof import report
from attnprof.records import NOT_CALIBRATED, Case, Counts, Memory, Record, Shape
from attnprof.report import markdown
from attnprof.report.memory import calibrated_lines, memory_notes, scratch_text
from attnprof.report.metrics import METRICS, select, why_missing

MIB = 2**20


def record(label: str = "conv3x3", traced: int = 100 * MIB, device: str = "cpu", **more: Any) -> Record:
    case = Case(f"context/{label}", label, {}, Shape(1, 64, 33, 33), "float32", "training", device)
    return Record(case, counts=Counts(1, 2, 3, 4, 5, 6, traced, 110 * MIB), **more)


def peak(size: int, scratch: int = 30 * MIB, op: str = "convolution_backward (backward)") -> Memory:
    return Memory(size, "calibrated", None, op, scratch)


def test_scratch_is_said_where_it_raises_the_peak() -> None:
    raised = record(calibrated=peak(130 * MIB))
    assert scratch_text(raised) == "30.0 MiB of scratch (convolution_backward (backward))"
    assert scratch_text(record()) == ""
    assert scratch_text(record(calibrated=peak(100 * MIB + 12, 12))) == ""  # twelve bytes are no news
    assert scratch_text(record(calibrated=peak(130 * MIB, 0))) == ""  # another kernel's tensors, no scratch
    (said,) = memory_notes([raised, record("se", calibrated=peak(100 * MIB, 0))])
    assert said.startswith("At the calibrated peak the CPU's kernels take what no tensor of the trace shows: conv3x3 ")
    assert said.endswith(" 1x64x33x33 training 30.0 MiB of scratch (convolution_backward (backward)).")
    (said,) = memory_notes([record(device="cuda:0", calibrated=peak(130 * MIB))])
    assert "the GPU's kernels" in said


@pytest.mark.parametrize(("measured", "said"), [(105, False), (106, True), (95, True), (96, False), (100, False)])
def test_a_traced_peak_far_from_the_measured_one_is_said(measured: int, said: bool) -> None:
    notes = memory_notes([record(memory=Memory(measured * MIB, "cpu_allocator"))])
    assert notes[0] == "Source of measured peaks: cpu_allocator (1)."
    assert len(notes) == 1 + said
    assert all("by more than 5 %" in note for note in notes[1:])


def test_how_far_and_how_to_find_the_op() -> None:
    far = record(memory=Memory(200 * MIB, "cpu_allocator"))
    (_, said) = memory_notes([far])
    assert "conv3x3 1x64x33x33 training (-50 %). The metric calibrated_memory tells which op" in said
    *_, said = memory_notes([replace(far, calibrated=peak(200 * MIB))])
    assert said.endswith("conv3x3 1x64x33x33 training (-50 %).")
    on_gpu = record(device="cuda:0", memory=Memory(110 * MIB, "cuda_allocator"))  # what the model of CUDA says
    assert len(memory_notes([on_gpu])) == 1


def test_of_many_rows_some_are_named() -> None:
    rows = [record(f"m{number}", memory=Memory(200 * MIB, "cpu_allocator")) for number in range(9)]
    (_, said) = memory_notes(rows)
    assert "m5 " in said
    assert "m6 " not in said
    assert "; and 3 more." in said


def test_the_three_peaks_of_one_record() -> None:
    found = record(calibrated=peak(130 * MIB), memory=Memory(131 * MIB, "cpu_allocator"))
    assert calibrated_lines(found) == [
        "Peak traced: 100 MiB.",
        "Peak calibrated: 130 MiB.",
        "Peak measured: 131 MiB.",
        "At the calibrated peak the CPU's kernels take 30.0 MiB of scratch (convolution_backward (backward)).",
    ]
    assert calibrated_lines(replace(found, calibrated=None, memory=None)) == ["Peak traced: 100 MiB."]


def test_a_calibrated_peak_stands_beside_the_traced_one_under_its_own_name() -> None:
    found = record(calibrated=peak(130 * MIB), memory=Memory(131 * MIB, "cpu_allocator"))
    assert [metric.key for metric in select(["peak_memory"], [found])] == [
        "peak_memory",
        "calibrated_memory",
        "measured_memory",
    ]
    assert [metric.key for metric in select(["peak_memory"], [record()])] == ["peak_memory"]
    text = markdown.render(report.build([found], metrics=["peak_memory"]))
    assert "Peak calib." in text
    assert "Peak calib.: the largest sum of the bytes alive before an op and that op's own peak" in text
    assert "Peak calib.: 1 of 1 cases have a value." in text.replace("Peak calib., Peak meas.", "Peak calib.")


@pytest.mark.parametrize(
    ("found", "calibrated", "latency"),
    [
        (record(), "not calibrated (not asked for)", "not measured (no reason recorded)"),
        (record(device="none"), "not measured (device none)", "not measured (device none)"),
        (
            record(detail=f"it was slow\n{NOT_CALIBRATED}: bmm (forward) alone needs 9 bytes"),
            "not calibrated: bmm (forward) alone needs 9 bytes",
            "not measured: it was slow",
        ),
        (record(status="oom", detail="x"), "oom: x", "oom: x"),
    ],
)
def test_why_a_calibrated_peak_is_missing(found: Record, calibrated: str, latency: str) -> None:
    assert why_missing(found, METRICS["calibrated_memory"]) == calibrated
    assert why_missing(found, METRICS["latency"]) == latency
