"""Bounds against numbers worked out by hand; where rates come from; what tables and `doctor --roofline` make of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attnprof import report
from attnprof.cli import roofline as command
from attnprof.errors import SpecError, UsageError
from attnprof.profiling import bounds, rates
from attnprof.profiling.bounds import Bound, Rates
from attnprof.profiling.measuring import roofline
from attnprof.records import Case, Counts, OpCost, Record, Shape, TensorSpec, Timing, record_from_json, to_json
from attnprof.report import csv as tidy
from attnprof.report import metrics
from attnprof.report import roofline as printed
from tests.command import exit_code

# 100 MACs, 50 element-wise FLOPs and 1000 bytes per second; float16 four times as fast; 2 s from call to call.
RATES = Rates(
    device="slate",
    source="measured",
    macs_per_s={"float32": 100.0, "float16": 400.0, "tf32": 200.0},
    flops_per_s={"float32": 50.0},
    bytes_per_s=1000.0,
    op_s=2.0,
    cache_bytes=3000,
)
OPS = (
    OpCost("mm", "", "forward", calls=1, macs=700, flops=1400, bytes_moved=6000),  # 7 s of MACs, 6 s of bytes
    OpCost("add", "", "forward", calls=1, macs=0, flops=10, bytes_moved=4000),  # 4 s of bytes
    OpCost("exp", "", "forward", calls=2, macs=0, flops=500, bytes_moved=100),  # 10 s of FLOPs
    OpCost("neg", "", "forward", calls=3, macs=0, flops=1, bytes_moved=1),  # 6 s of calls
)


def counted(macs: int = 700, resident: int = 5000, moved: int = 10101, **more: Any) -> Counts:
    fields = dict.fromkeys(("params", "activation_bytes", "peak_bytes", "peak_cuda_bytes"), 0)
    given = {"macs": macs, "flops": 1911, "bytes_moved": moved, "resident_bytes": resident, "ops": OPS}
    return Counts(**{**fields, **given, **more})


def case(label: str = "a", device: str = "cpu", dtype: str = "float32", **settings: Any) -> Case:
    return Case("channel/se", label, {}, Shape(1, 8, 4, 4), dtype=dtype, device=device, settings={"sdpa": "auto", **settings})


def record(counts: Counts | None = None, of: Rates | None = RATES, asked: Case | None = None, **more: Any) -> Record:
    environment = bounds.put(more.pop("environment", {}), of)
    return Record(asked or case(), counts=counts or counted(), environment=environment, **more)


def timing(*seconds: float, **more: Any) -> Timing:
    return Timing(seconds, tuple(range(len(seconds))), "block", **more)


# The floor


def test_the_longer_of_the_two_floors_binds() -> None:
    assert bounds.bound(record()) == Bound(compute_s=7.0, memory_s=5.0)
    assert Bound(7.0, 5.0).seconds == 7.0
    assert Bound(7.0, 5.0).binds == "compute"
    assert Bound(2.0, 5.0).seconds == 5.0
    assert Bound(2.0, 5.0).binds == "memory"


def moving(**ops: int) -> Counts:
    """Counts of ops that move these bytes; 5000 bytes are resident."""
    rows = tuple(OpCost(name.replace("__", "::"), "", "forward", 1, 0, 0, size) for name, size in ops.items())
    return counted(ops=rows, moved=sum(ops.values()))


def test_no_more_has_to_be_read_than_the_ops_touch() -> None:
    assert bounds.bound(record(moving(mm=1500))) == Bound(7.0, 1.5)
    assert bounds.bound(record(moving(mm=700, relu=900))) == Bound(7.0, 1.6)


@pytest.mark.parametrize(
    "op",
    [
        *("embedding", "_embedding_bag", "index", "_unsafe_index", "index_select", "gather", "take", "masked_select"),
        *("grid_sampler_2d", "upsample_nearest2d", "index_put_", "copy_", "torchvision::roi_align"),
    ],
)
def test_what_ops_gather_from_need_not_be_read(op: str) -> None:
    """Of 5000 resident bytes the op may have had 3000 as its source: 2000 are left."""
    assert bounds.bound(record(moving(mm=9000, **{op: 3000}))) == Bound(7.0, 2.0)
    assert bounds.bound(record(moving(mm=9000, **{op: 6000}))) == Bound(7.0, 0.0)
    assert bounds.bound(record(moving(mm=500, **{op: 3000}))) == Bound(7.0, 0.5)
    assert bounds.gathering(moving(mm=9000, **{op: 3000})) == (op,)


@pytest.mark.parametrize("op", ["copysign", "zeros_like", "full_like", "where", "cat", "clone"])
def test_ops_that_read_all_leave_the_floor_as_it_is(op: str) -> None:
    assert bounds.bound(record(moving(mm=9000, **{op: 3000}))) == Bound(7.0, 5.0)
    assert bounds.gathering(moving(mm=9000, **{op: 3000})) == ()


def test_an_op_without_a_rule_may_gather_and_one_of_the_users_leaves_nothing_to_show() -> None:
    assert bounds.bound(record(replace(moving(mm=9000, sparse=3000), uncounted={"sparse": 1}))) == Bound(7.0, 2.0)
    own = record(moving(mm=9000, mine__gather=1))
    assert bounds.bound(own) == Bound(7.0, 0.0)
    said = "Bound: no bytes are counted as read where it is not known what an op reads: mine::gather (a inference)."
    assert said in report.build([own], metrics=("bound",)).notes
    assert bounds.bound(record(counted(ops=()))) == Bound(7.0, 0.0)


def test_a_table_of_which_few_rows_are_looked_up_is_not_read_whole() -> None:
    """Eight rows of a table of 512 MB, then a convolution: reading the table whole would take longer than the pass does."""
    from attnprof.profiling.counting.trace import trace_module

    class Looks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(2_000_000, 64, device="meta")
            self.conv = torch.nn.Conv2d(8, 8, 1, device="meta")
            self.rows = torch.arange(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.conv(x) + self.table(self.rows.to(x.device)).mean())

    counts = trace_module(Looks(), [TensorSpec((1, 8, 16, 16))], "inference")
    assert counts.resident_bytes > 512_000_000
    found = bounds.bound(record(counts))
    assert isinstance(found, Bound)
    assert found.memory_s * RATES.bytes_per_s < 10_000
    (note,) = [text for text in report.build([record(counts)], metrics=("bound",)).notes if "embedding" in text]
    assert note.startswith("Bound: what these ops move is not counted as read, they may read a part only: embedding (a")


def test_the_note_says_what_the_floor_takes_for_granted() -> None:
    (note,) = [text for text in report.build([record()], metrics=("bound",)).notes if text.startswith("Bound:")]
    assert "no op gathers" in note
    assert "none is unused, or used as a slice only" in note


@pytest.mark.parametrize("how", ["setting", "warning"])
def test_a_warm_cache_may_hold_what_fits_into_it(how: str) -> None:
    warned = timing(9.0, warnings=("caches were warm: flushing a last cache of 480 MiB takes too long",))
    more = {"asked": case(cache="warm")} if how == "setting" else {"timing": warned}
    assert bounds.bound(record(**more)) == Bound(7.0, 2.0)
    assert bounds.bound(record(counted(resident=2000), **more)) == Bound(7.0, 0.0)
    assert bounds.bound(record(of=replace(RATES, cache_bytes=None), **more)) == Bound(7.0, 0.0)


def test_the_warning_is_the_one_that_measuring_gives() -> None:
    window = Path(roofline.__file__).with_name("window.py").read_text(encoding="utf-8")
    assert f'"{bounds.WARM}' in window


def test_the_fastest_units_that_a_case_may_use_bind() -> None:
    assert bounds.bound(record(asked=case(dtype="float16"))) == Bound(1.75, 5.0)
    assert bounds.bound(record(asked=case(autocast="float16"))) == Bound(1.75, 5.0)
    assert bounds.bound(record(asked=case(autocast="none"))) == Bound(7.0, 5.0)
    assert bounds.bound(record(asked=case(tf32=True))) == Bound(3.5, 5.0)
    for flag in ("matmul_tf32", "cudnn_tf32"):
        assert bounds.bound(record(environment={"flags": {flag: True}})) == Bound(3.5, 5.0)
        assert bounds.bound(record(environment={"flags": {flag: True}}, asked=case(dtype="float16"))) == Bound(1.75, 5.0)
    assert bounds.bound(record(environment={"flags": {"matmul_tf32": False}})) == Bound(7.0, 5.0)


def test_narrow_types_may_be_cast_up_where_that_is_faster() -> None:
    slow = replace(RATES, macs_per_s={"float32": 100.0, "bfloat16": 7.0})
    assert bounds.bound(record(of=slow, asked=case(dtype="bfloat16"))) == Bound(7.0, 5.0)


def test_what_has_no_bound_says_why() -> None:
    assert bounds.bound(record(of=None)) == "no rates for this device: `attnprof doctor --roofline` measures them"
    assert bounds.bound(record(of=None, asked=case(device="none"))) == bounds.NO_DEVICE
    threads = bounds.bound(record(of=None, asked=case(threads=2)))
    assert threads == "no rates for this device with 2 threads: `attnprof doctor --roofline` measures with one"
    assert bounds.bound(record(of=None, asked=case(threads=1))) == bounds.UNKNOWN_RATES
    lacking = bounds.bound(record(asked=case(dtype="float64")))
    assert isinstance(lacking, str)
    assert lacking.startswith("no measured float64 rate for slate: `attnprof doctor --roofline`")
    foreign = bounds.bound(record(of=replace(RATES, own=False, source="published"), asked=case(autocast="bfloat16")))
    assert foreign == "no published bfloat16 rate for slate"
    for op in ("nonzero", "flex_attention block mask"):
        assumed = record(counted(assumed={op: 1}), timing=timing(0.001))
        assert bounds.bound(assumed) == f"no bound: counted on an assumption, the pass may do less: {op}"
        assert metrics.METRICS["bound"].read(assumed) is metrics.METRICS["bound_ratio"].read(assumed) is None
        assert not [note for note in report.build([assumed], metrics=("latency", "bound")).notes if "BELOW" in note]
    assert bounds.bound(replace(record(), counts=None)) == "not traced"


def test_without_macs_no_matmul_rate_is_needed() -> None:
    assert bounds.bound(record(counted(macs=0), asked=case(dtype="float64"))) == Bound(0.0, 5.0)


# The unfused estimate


def test_each_op_takes_the_longest_of_its_four_times() -> None:
    assert bounds.unfused(record()) == 7.0 + 4.0 + 10.0 + 6.0


def test_what_is_not_known_of_a_device_is_left_out_of_the_estimate() -> None:
    assert bounds.unfused(record(of=replace(RATES, op_s=0.0))) == pytest.approx(7.0 + 4.0 + 10.0 + 0.02)
    assert bounds.unfused(record(of=replace(RATES, op_s=0.0, flops_per_s={}))) == pytest.approx(7.0 + 4.0 + 0.1 + 0.001)


def test_flops_of_a_matmul_beside_its_macs_run_on_the_other_units() -> None:
    op = OpCost("attention", "", "forward", calls=1, macs=100, flops=200 + 450, bytes_moved=0)  # 1 s of MACs, 9 s of softmax
    assert bounds.unfused(record(counted(ops=(op,)))) == 9.0


def test_other_dtypes_take_the_element_wise_rate_of_float32_where_they_have_none() -> None:
    op = OpCost("exp", "", "forward", calls=1, macs=0, flops=500, bytes_moved=0)
    assert bounds.unfused(record(counted(macs=0, ops=(op,)), asked=case(dtype="float64"))) == 10.0


def test_what_has_no_estimate_says_why() -> None:
    assert bounds.unfused(record(counted(ops=()))) == "no estimate: the ops of this case are not recorded"
    assert bounds.unfused(record(of=None)) == bounds.UNKNOWN_RATES
    found = bounds.unfused(record(asked=case(dtype="float64")))
    assert isinstance(found, str)
    assert "float64" in found


def test_a_traced_case_is_bound_as_worked_out_by_hand() -> None:
    from attnprof.profiling.counting.trace import trace_case

    asked = Case("channel/se", "se", {"reduction": 2}, Shape(1, 8, 4, 4))
    counts = trace_case(asked)
    # two linear layers without bias, 8 x 4 and 4 x 8; the input is 8 x 4 x 4: all of float32
    assert (counts.macs, counts.resident_bytes) == (64, 4 * (64 + 128))
    assert bounds.bound(record(counts, asked=asked)) == Bound(0.64, 0.768)


# Readings, tables, notes


def test_latency_over_bound_keeps_the_interval_of_the_latency() -> None:
    reading = metrics.METRICS["bound_ratio"].read(record(timing=timing(14.0, 21.0)))
    assert reading == metrics.Reading(2.5, 2.0, 3.0, 2)
    assert metrics.METRICS["bound_ratio"].read(record(timing=timing(14.0))) == metrics.Reading(2.0, n=1)
    assert metrics.METRICS["bound"].read(record()) == metrics.Reading(7.0)
    assert metrics.METRICS["unfused"].read(record()) == metrics.Reading(27.0)


def test_a_latency_is_not_held_against_another_devices_bound() -> None:
    found = record(of=replace(RATES, own=False), timing=timing(14.0))
    assert metrics.METRICS["bound"].read(found) == metrics.Reading(7.0)
    assert metrics.METRICS["bound_ratio"].read(found) is None
    reason = metrics.why_missing(found, metrics.METRICS["bound_ratio"])
    assert reason == "not compared: the bound is that of slate, which did not measure this latency"


def test_nothing_is_divided_by_a_bound_of_zero() -> None:
    found = record(counted(macs=0, ops=()), timing=timing(14.0))
    assert metrics.METRICS["bound_ratio"].read(found) is None
    assert metrics.why_missing(found, metrics.METRICS["bound_ratio"]) == "not compared: the bound is zero"


def test_a_missing_bound_has_its_reason_and_a_failed_case_its_own() -> None:
    bound, ratio = metrics.METRICS["bound"], metrics.METRICS["bound_ratio"]
    assert metrics.why_missing(record(of=None), bound) == bounds.UNKNOWN_RATES
    assert metrics.why_missing(record(of=None, asked=case(device="none")), bound) == bounds.NO_DEVICE
    assert metrics.why_missing(record(of=None, asked=case(device="none")), ratio) == metrics.NOT_MEASURED_DEVICE
    assert metrics.why_missing(replace(record(), status="oom", detail="too large"), bound) == "oom: too large"
    assert "budget" in metrics.why_missing(record(detail="not measured (budget): 3 s needed"), ratio)


def test_a_latency_below_its_bound_is_said_loudly() -> None:
    shown = ("latency", "bound", "unfused", "bound_ratio")
    fast, fair = record(timing=timing(3.5)), record(asked=case("b"), timing=timing(14.0))
    notes = report.build([fast, fair], metrics=shown).notes
    (loud,) = [note for note in notes if "BELOW THE BOUND" in note]
    assert "a inference (0.5)" in loud
    assert "b inference" not in loud
    assert not [note for note in report.build([fair], metrics=shown).notes if "BELOW" in note]
    assert not [note for note in report.build([fast], metrics=("latency",)).notes if "BELOW" in note]


def test_notes_say_whose_rates_bind_and_what_does() -> None:
    compute, memory = record(), record(counted(macs=1), asked=case("b"))
    notes = report.build([compute, memory], metrics=("bound",)).notes
    assert (
        "Rates (the best that doctor --roofline measured, slate): 1.00e-07 GMAC/s float32, 1.00e-06 GB/s; 1 GB is 10^9 bytes."
        in notes
    )
    assert "What binds: compute for a inference; memory for b inference." in notes
    assert "What binds: compute, in every case." in report.build([compute], metrics=("bound",)).notes


def test_notes_name_the_rate_that_the_bound_is_made_of() -> None:
    slow = replace(RATES, macs_per_s={"float32": 100.0, "bfloat16": 7.0})  # a CPU casts up where that is faster
    notes = report.build([record(of=slow, asked=case(dtype="bfloat16"))], metrics=("bound",)).notes
    (note,) = [each for each in notes if "Rates" in each]
    assert "1.00e-07 GMAC/s float32" in note


def test_tables_and_csv_show_bounds_in_the_units_of_time() -> None:
    found = report.build([record(timing=timing(14.0))], metrics=("latency", "bound", "bound_ratio"), baseline="a")
    (row,) = found.tables[0].rows
    by_key = {(column.key, column.kind): cell for column, cell in zip(found.tables[0].columns, row.cells, strict=True)}
    assert by_key["bound", "value"].text == "7000"  # ms
    assert by_key["bound_ratio", "value"].text == "2.00"
    assert by_key["bound_ratio", "ratio"].text == "-"
    lines = tidy.render(found).splitlines()
    assert any(",bound,7.0," in line for line in lines)
    assert any(",bound_ratio,2.0," in line for line in lines)


def test_rates_in_a_record_survive_its_json() -> None:
    again = record_from_json(json.loads(json.dumps(to_json(record()))))
    assert bounds.rates_of(again) == RATES
    assert bounds.bound(again) == bounds.bound(record())


# The data file


def test_every_published_figure_has_a_source_and_every_source_is_used() -> None:
    text = rates.DATA.read_text(encoding="utf-8")
    used = {line.partition("source: ")[2].strip(" }") for line in text.splitlines() if "{" in line}
    head = text.partition("\ndevices:\n")[0].partition("\nsources:\n")[2]
    listed = {line.strip(" :") for line in head.splitlines() if line[:2] == "  " and line[2] != " "}
    assert listed == {name for name in used if name}
    for device in rates.devices().values():
        figures = {f"matmul.{name}" for name in device.rates.macs_per_s} | {
            f"vector.{name}" for name in device.rates.flops_per_s
        }
        assert figures | {"memory"} <= set(device.sources)
        assert all("http" in where for where in device.sources.values())


def test_published_figures_are_read_in_their_units() -> None:
    """H100 SXM5: 67 TFLOP/s of float32, 1979 of float16 with sparsity, 3350 GB/s, 50 MiB."""
    h100 = rates.published("h100-sxm").rates
    assert h100.macs_per_s["float32"] == 67e12 / 2
    assert h100.macs_per_s["float16"] == pytest.approx(1979e12 / 2 / 2 * 1980 / 1830)  # given at 1830 MHz
    assert h100.flops_per_s["float32"] == 67e12
    assert (h100.bytes_per_s, h100.cache_bytes, h100.op_s) == (3350e9, 50 * 2**20, 0.0)


@pytest.mark.parametrize(
    ("name", "dtype", "multiprocessors", "per_clock", "mhz"),
    [
        *(("h100-sxm", dtype, 132, 4096, 1980) for dtype in ("float16", "bfloat16")),
        *(("h100-sxm", dtype, 132, size, 1980) for dtype, size in (("float32", 256), ("tf32", 2048), ("float64", 256))),
        *(("h100-pcie", dtype, 114, size, 1755) for dtype, size in (("float16", 4096), ("tf32", 2048), ("float32", 256))),
        *(("h200", dtype, 132, size, 1980) for dtype, size in (("float16", 4096), ("float32", 256), ("float64", 256))),
        *(("a100-sxm-40gb", dtype, 108, size, 1410) for dtype, size in (("float16", 2048), ("tf32", 1024), ("float32", 128))),
        *(("v100-sxm2", dtype, 80, size, 1530) for dtype, size in (("float16", 1024), ("float32", 128), ("float64", 64))),
        *(("v100-pcie", dtype, 80, size, 1380) for dtype, size in (("float16", 1024), ("float32", 128), ("float64", 64))),
        *(("t4", dtype, 40, size, 1590) for dtype, size in (("float16", 1024), ("float32", 128))),
        *(("l4", dtype, 58, size, 2040) for dtype, size in (("float16", 1024), ("tf32", 512), ("float32", 256))),
        *(("l40s", dtype, 142, size, 2520) for dtype, size in (("float16", 1024), ("tf32", 512), ("float32", 256))),
        *(("a40", dtype, 84, size, 1740) for dtype, size in (("float16", 1024), ("tf32", 512), ("float32", 256))),
        *(("rtx-3090", dtype, 82, size, 1695) for dtype, size in (("float16", 512), ("float32", 256))),
        *(("rtx-4090", dtype, 128, size, 2520) for dtype, size in (("float16", 512), ("float32", 256))),
    ],
)
def test_compute_rates_are_those_of_the_highest_clock(
    name: str, dtype: str, multiprocessors: int, per_clock: int, mhz: int
) -> None:
    """Multiprocessors x FLOP per clock of one (NVIDIA's architecture white papers) x the clock; figures have three digits."""
    found = rates.published(name).rates
    assert found.clock_mhz == mhz
    assert 2 * found.macs_per_s[dtype] == pytest.approx(multiprocessors * per_clock * mhz * 1e6, rel=0.006)
    assert 2 * found.macs_per_s[dtype] > 0.9985 * multiprocessors * per_clock * mhz * 1e6  # a floor must not be beaten


def test_a_card_that_clocks_higher_is_bound_by_its_own_clock(cache: Path) -> None:
    states = [{"max_sm_clock_mhz": 2100, "sm_clock_mhz": 1000}, {}]
    environment = {**HERE, "gpu": "NVIDIA H100 80GB HBM3", "gpu_state": states}
    gpu = record(of=None, environment=environment, asked=case(device="cuda:0"))
    peaks = rates.published("h100-sxm").rates
    for wanted in ("auto", "h100-sxm"):
        found = bounds.rates_of(rates.stamped([gpu], wanted)[0])
        assert found is not None
        assert found.macs_per_s["float32"] == pytest.approx(peaks.macs_per_s["float32"] * 2100 / 1980)
        assert found.flops_per_s["float32"] == pytest.approx(peaks.flops_per_s["float32"] * 2100 / 1980)
        assert (found.bytes_per_s, found.clock_mhz) == (peaks.bytes_per_s, 2100)
    assert bounds.rates_of(rates.stamped([gpu], "a100-sxm-40gb")[0]) == replace(
        rates.published("a100-sxm-40gb").rates, own=False
    )
    for said in ([{"max_sm_clock_mhz": 1500}], [{"max_sm_clock_mhz": None}], [], None, 3 * [None]):
        slow = record(of=None, environment={**environment, "gpu_state": said}, asked=case(device="cuda:0"))
        assert bounds.rates_of(rates.stamped([slow])[0]) == peaks


def test_memory_of_the_pcie_card_is_that_of_its_clock() -> None:
    assert rates.published("h100-pcie").rates.bytes_per_s == pytest.approx(1593e6 * 2 * 5120 / 8, rel=1e-4)


def test_tensor_cores_are_never_slower_than_the_other_units() -> None:
    for key, device in rates.devices().items():
        peaks = device.rates.macs_per_s
        assert peaks["float32"] <= min(peaks.get("tf32", 1e30), peaks["float16"]), key
        for dtype in set(peaks) & set(device.rates.flops_per_s):
            assert 2 * peaks[dtype] >= 0.99 * device.rates.flops_per_s[dtype], (key, dtype)


def test_a_device_is_known_by_the_whole_name_that_torch_gives_it() -> None:
    for name, key in (("NVIDIA H100 80GB HBM3", "h100-sxm"), ("nvidia a100-sxm4-40gb", "a100-sxm-40gb"), ("Tesla T4", "t4")):
        found = rates.recognised(name)
        assert found is not None
        assert found.key == key
    for other in ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100", "AMD EPYC", "", None):
        assert rates.recognised(other) is None


GOOD = """\
sources:
  sheet: {title: A sheet, url: https://example.org/sheet, place: table 1}
devices:
  slate:
    title: A slate
    names: [SLATE 9]
    matmul: {float32: {tflops: 2, source: sheet}}
    vector: {}
    memory: {gb_per_s: 1, source: sheet}
"""


def test_a_small_file_is_read() -> None:
    (device,) = rates.read(GOOD, "mine.yaml").values()
    assert device.rates == Rates("slate", "published", {"float32": 1e12}, {}, 1e9)
    assert device.sources["memory"] == "A sheet, table 1: https://example.org/sheet"


@pytest.mark.parametrize(
    ("before", "after", "place", "words"),
    [
        ("gb_per_s: 1,", "gbps: 1,", "9:14", ("unknown key 'gbps'", "did you mean 'gb_per_s'?")),
        ("gb_per_s: 1,", "gb_per_s: 0,", "9:24", ("must be more than 0",)),
        ("gb_per_s: 1,", "gb_per_s: fast,", "9:24", ("a number is wanted",)),
        ("gb_per_s: 1, source: sheet", "gb_per_s: 1", "9:13", ("'source' is missing",)),
        ("tflops: 2, source: sheet", "tflops: 2, source: shet", "7:43", ("no source is called 'shet'", "'sheet'?")),
        ("{float32:", "{float23:", "7:14", ("'float23' is no dtype", "'float32'?")),
        ("tflops: 2", "tflops: 2, dense: true", "7:35", ("unknown key 'dense'", "keys here: tflops, sparse, mhz, source")),
        ("tflops: 2, source", "tflops: 2, mhz: 900, source", "7:40", ("900.0 MHz needs a `clock`",)),
        ("    vector: {}\n", "    vector: {}\n    clock: {mhz: 0, source: sheet}\n", "9:18", ("must be more than 0",)),
        ("    vector: {}\n", "    vector: {}\n    clock: {mhz: 1, source: shet}\n", "9:29", ("no source is called 'shet'",)),
        ("    vector: {}\n", "", "5:5", ("'vector' is missing",)),
        ("place: table 1", "page: 1", "2:59", ("unknown key 'page'", "'place'?")),
        ("https://example.org/sheet", "a book", "2:32", ("'a book' is no address",)),
        ("names: [SLATE 9]", "names: []", "6:12", ("empty",)),
        ("title: A slate", "title: A slate\n    title: Another", "6:5", ("title",)),
    ],
)
def test_a_mistake_in_the_file_is_said_at_its_place(before: str, after: str, place: str, words: tuple[str, ...]) -> None:
    assert GOOD.count(before) == 1
    with pytest.raises(SpecError) as caught:
        rates.read(GOOD.replace(before, after), "mine.yaml")
    problems = [problem for problem in caught.value.problems if f"{problem.line}:{problem.column}" == place]
    assert problems, str(caught.value)
    assert any(all(word in problem.text() for word in words) for problem in problems), str(caught.value)


def test_two_devices_cannot_have_one_name() -> None:
    twin = GOOD + GOOD.partition("devices:\n")[2].replace("slate:", "chalk:", 1)
    with pytest.raises(SpecError, match="'SLATE 9' is a name of slate too"):
        rates.read(twin, "mine.yaml")


@pytest.mark.parametrize(("name", "near"), [("h100", "'h100-sxm' or 'h100-pcie'"), ("H10-sxm", "'h100-sxm'"), ("zzz", "auto")])
def test_an_unknown_device_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match="no device is called") as caught:
        rates.stamped([record()], name)
    assert near in str(caught.value)


# What was measured here, kept


def facts(**more: Any) -> dict[str, Any]:
    row = {
        "copy_bytes_per_s": 9e9,
        "triad_bytes_per_s": 8e9,
        "read_bytes_per_s": 7e9,
        "macs_per_s": 4e10,
        "matmul_size": 512,
        "vector_flops_per_s": 6e9,
        "op_s": 2e-6,
    }
    other = row | {"read_bytes_per_s": 11e9, "macs_per_s": 2e10, "op_s": 1e-6}
    found = {"device": "cpu", "name": "Slate 9", "machine": "abc", "torch": "2.13", "threads": 1, "flags": {}}
    sizes = {"cache_bytes": 2**25, "array_bytes": 2**27, "load_1m": 0.5}
    return found | sizes | {"dtypes": {"float32": row, "float64": other}} | more


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "attnprof"


def test_the_best_of_what_was_measured_binds() -> None:
    found = rates.measured_rates(facts())
    assert found.bytes_per_s == 11e9  # of all kernels and dtypes: memory knows no dtype
    assert found.macs_per_s == {"float32": 4e10, "float64": 2e10}
    assert found.op_s == 1e-6
    with_tf32 = rates.measured_rates(facts(tf32_macs_per_s={"tf32": 9e10}))
    assert with_tf32.macs_per_s["tf32"] == 9e10


def test_what_is_kept_is_found_for_the_same_machine_alone(cache: Path) -> None:
    assert rates.kept(facts()) is None
    path = rates.keep(facts())
    assert path.parent == cache
    assert rates.kept(facts()) == rates.measured_rates(facts())
    for other in ({"machine": "def"}, {"name": "Slate 8"}, {"torch": "2.14"}, {"threads": 2}):
        assert rates.kept(facts(**other)) is None
    assert [each.name for each in cache.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"schema": 99}', '{"schema": 1, "dtypes": 3}', "null"])
def test_a_damaged_file_counts_as_none(cache: Path, content: str) -> None:
    rates.keep(facts()).write_text(content, encoding="utf-8")
    assert rates.kept(facts()) is None


def test_the_cache_directory_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert rates.folder() == tmp_path / ".cache" / "attnprof"


# Records get their rates

HERE = {"machine": "abc", "cpu": "Slate 9", "torch": "2.13"}


def test_a_case_of_the_cpu_is_bound_by_what_was_measured_here(cache: Path) -> None:
    bare = record(of=None, environment=HERE)
    assert rates.stamped([bare])[0] is bare
    rates.keep(facts())
    (found,) = rates.stamped([bare])
    assert bounds.rates_of(found) == rates.measured_rates(facts())
    assert bounds.rates_of(rates.stamped([record(of=None, environment=HERE, asked=case(threads=2))])[0]) is None
    assert rates.stamped([found])[0] is found
    assert rates.stamped([found], "measured")[0] is found


def test_a_case_that_was_not_measured_takes_the_rates_of_its_neighbours(cache: Path) -> None:
    rates.keep(facts())
    left, measured, other = record(of=None), record(of=None, environment=HERE), record(of=None, asked=case(device="cuda:0"))
    found = [bounds.rates_of(each) for each in rates.stamped([left, measured, other])]
    assert found[0] == found[1] == rates.measured_rates(facts())
    assert found[2] is None


def test_a_gpu_that_is_recognised_is_bound_by_its_published_peaks(cache: Path) -> None:
    gpu = record(of=None, environment={**HERE, "gpu": "NVIDIA H100 80GB HBM3"}, asked=case(device="cuda:0"))
    published = rates.published("h100-sxm").rates
    assert bounds.rates_of(rates.stamped([gpu])[0]) == published
    assert bounds.rates_of(rates.stamped([gpu], "measured")[0]) is None
    own = facts(name="NVIDIA H100 80GB HBM3", threads=None)
    rates.keep(own)
    assert bounds.rates_of(rates.stamped([gpu])[0]) == replace(published, op_s=1e-6)  # nobody publishes that one
    assert bounds.rates_of(rates.stamped([gpu], "measured")[0]) == rates.measured_rates(own)


def test_a_named_device_bounds_what_it_did_not_measure(cache: Path) -> None:
    gpu = record(of=None, environment={**HERE, "gpu": "NVIDIA H100 80GB HBM3"}, asked=case(device="cuda:0"))
    for each, own in (
        (record(of=None, asked=case(device="none")), False),
        (record(of=None, environment=HERE), False),
        (gpu, True),
    ):
        found = bounds.rates_of(rates.stamped([each], "h100-sxm")[0])
        assert found is not None
        assert (found.device, found.own) == ("h100-sxm", own)
    assert bounds.rates_of(rates.stamped([record(asked=case(device="none"))])[0]) is None  # old rates go


# Measuring


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays, sizes and times so small that measuring is over at once."""
    monkeypatch.setattr(roofline, "_KERNEL_S", 0.0)
    monkeypatch.setattr(roofline, "_ROUNDS", 1)
    monkeypatch.setattr(roofline, "_CALLS", 10)
    monkeypatch.setattr(roofline, "_MEMORY_SHARE", 1e-5)


def test_every_rate_is_measured_and_flags_are_put_back(quick: None) -> None:
    before = (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark)
    found = roofline.measure("cpu", threads=1)
    assert (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.benchmark) == before
    assert (found["device"], found["threads"], found["torch"]) == ("cpu", 1, torch.__version__)
    assert found["flags"]["threads"] == 1
    assert found["flags"]["matmul_tf32"] is False
    assert json.loads(json.dumps(found)) == found
    assert set(found["dtypes"]) == {"float32", "float16", "bfloat16", "float64"}
    for row in found["dtypes"].values():
        assert set(row) == set(facts()["dtypes"]["float32"])
        assert all(value > 0 for value in row.values())
    assert rates.measured_rates(found).macs_per_s["float32"] > 0


def test_the_best_of_several_rounds_is_kept() -> None:
    first, second = facts()["dtypes"]["float32"], facts()["dtypes"]["float64"]
    best = roofline.best_of([first, second | {"matmul_size": 64}])
    assert (best["read_bytes_per_s"], best["macs_per_s"], best["matmul_size"], best["op_s"]) == (11e9, 4e10, 512, 1e-6)


def test_a_kernel_runs_once_at_least_and_its_best_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    taken = iter([9.0, 5.0, 3.0, 4.0])
    monkeypatch.setattr(roofline, "_run_s", lambda work, cuda, calls: work() or next(taken))
    monkeypatch.setattr(roofline, "_KERNEL_S", 1e9)
    assert roofline.best_s(lambda: runs.append(1), "cpu", calls=2, repeats=3) == 1.5
    assert len(runs) == 4  # the first warms up
    monkeypatch.setattr(roofline, "_KERNEL_S", 0.0)
    monkeypatch.setattr(roofline, "_run_s", lambda work, cuda, calls: 9.0)
    assert roofline.best_s(lambda: None, "cpu") == 9.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_reaches_no_more_than_is_published() -> None:
    found = roofline.measure("cuda:0")
    assert found["threads"] is None
    assert all(value > 0 for row in found["dtypes"].values() for value in row.values())
    known = rates.recognised(found["name"])
    if known is not None:
        assert rates.measured_rates(found).bytes_per_s <= known.rates.bytes_per_s


# doctor --roofline


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def give(**more: Any) -> None:
        monkeypatch.setattr(roofline, "measure", lambda device, threads=1: facts(**more))

    give()
    return give


def test_the_command_prints_what_it_measured_and_keeps_it(
    measured: None, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.show("cpu", as_json=False) == 0
    out, err = capsys.readouterr()
    assert err.startswith("measuring what cpu reaches")
    assert "warning" not in err
    (row,) = [line.split() for line in out.splitlines() if line.startswith("float64")]
    assert row == ["float64", "20.0", "512", "6.00", "9.00", "8.00", "11.0", "1.00"]
    assert "none for this device" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert rates.kept(facts()) is not None


def test_the_command_shows_the_share_of_published_peaks() -> None:
    found = facts(name="NVIDIA H100 80GB HBM3", device="cuda:0", threads=None, tf32_macs_per_s={"tf32": 9e10})
    known = rates.recognised(found["name"])
    assert known is not None
    rows = [line.split() for line in printed.render(found, known.rates, known.title).splitlines()]
    assert ["matmul", "float32", "GMAC/s", "40.0", "33500", "0.1"] in rows
    assert ["bandwidth", "GB/s", "11.0", "3350", "0.3"] in rows
    assert ["tf32", "90.0", "-", "-", "-", "-", "-", "-"] in rows
    figures = printed.data(found, known.rates)["published"]["figures"]
    (bandwidth,) = [each for each in figures if each["figure"] == "bandwidth"]
    assert bandwidth == {"figure": "bandwidth", "measured": 11e9, "published": 3350e9, "share": 11e9 / 3350e9}


def test_json_has_everything_that_was_measured(measured: None, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.show("cpu", as_json=True, quiet=True) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert {key: found[key] for key in facts()} == facts()
    assert found["published"] is None
    assert Path(found["kept_at"]).is_file()


def test_without_a_cache_directory_the_command_works(
    measured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert command.show("cpu", as_json=False) == 0
    out, err = capsys.readouterr()
    assert "float32" in out
    assert "warning: not kept" in err
    assert rates.kept(facts()) is None


def test_a_device_that_torch_cannot_use_is_refused() -> None:
    with pytest.raises(UsageError, match="--roofline on cuda:99"):
        command.show("cuda:99", as_json=False)


# A spec asks for bounds

SPEC = """\
name: bound
input: {channels: 16, hw: 9x9}
modes: inference
mechanisms: [se, nonlocal]
metrics: [macs, bound, unfused, bound_ratio]
measure: {device: none}
"""


def written(folder: Path) -> Mapping[str, str]:
    rows = [line.split(",") for line in (folder / "bound.csv").read_text(encoding="utf-8").splitlines()]
    at = {name: rows[0].index(name) for name in ("label", "metric", "value")}
    picked = [row for row in rows[1:] if row[at["metric"]] == "bound"]
    return {row[at["label"]]: row[at["value"]] for row in picked}


def test_a_run_on_no_device_is_bound_by_the_one_its_spec_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, out = tmp_path / "bound.yaml", tmp_path / "out"
    spec.write_text(SPEC + "bounds: h100-sxm\n", encoding="utf-8")
    assert exit_code("run", spec, "--out", out, "-q") == 0
    h100 = rates.published("h100-sxm").rates
    # se[16]: 2 * 16 * 1 MACs; 2 * 16 weights and a 16 x 9 x 9 input of four bytes
    assert float(written(out)["se"]) == pytest.approx(max(32 / h100.macs_per_s["float32"], 4 * (32 + 1296) / h100.bytes_per_s))
    assert "Rates (published peaks at 1980 MHz, h100-sxm)" in capsys.readouterr().out
    before = dict(written(out))
    (out / "bound.csv").unlink()
    assert exit_code("report", out, "--format", "csv") == 0
    assert dict(written(out)) == before
    capsys.readouterr()
    assert exit_code("run", spec, "--out", out, "-q", "--resume", "--set", "bounds=a100-sxm-40gb") == 0
    assert float(written(out)["se"]) > float(before["se"])  # taken from the store, bound anew


def test_a_run_without_rates_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "bound.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    assert exit_code("run", spec, "--out", tmp_path / "out", "-q") == 0
    assert f"(1) {bounds.NO_DEVICE}" in capsys.readouterr().out


@pytest.mark.parametrize("args", [("run", "--device", "none"), ("validate",)])
def test_a_device_that_is_not_there_is_said_before_anything_runs(
    args: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "bound.yaml"
    spec.write_text(SPEC + "bounds: h100\n", encoding="utf-8")
    assert exit_code(args[0], spec, *args[1:]) == 2
    assert f"{spec}: bounds: no device is called 'h100': did you mean 'h100-sxm' or 'h100-pcie'?" in capsys.readouterr().err


def test_bounds_need_no_torch() -> None:
    code = (
        "import sys; from attnprof.profiling import rates; from attnprof.report import metrics;"
        "rates.published('h100-sxm'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_compare_takes_bounds() -> None:
    """`compare --bounds`: the column, the sentence with its ratio, and a wrong name refused in words."""
    line = ["compare", "nonlocal", "ccnet", "--hw", "97x97", "--device", "none", "--mode", "inference", "--bounds"]
    done = subprocess.run([sys.executable, "-m", "attnprof", *line, "h100-sxm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Bound" in done.stdout
    assert "the time that nothing beats is 6.08x less for ccnet than for nonlocal" in done.stdout  # compute binds: as the MACs
    refused = subprocess.run([sys.executable, "-m", "attnprof", *line, "h10"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "did you mean 'h100-sxm'" in refused.stderr
