"""The script that scores `peak_cuda_bytes` on a GPU: its pure parts here, a small run of it where there is a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnprof.profiling.counting.lifetimes import Lifetimes, Maker
from attnprof.profiling.counting.trace import follow_case
from attnprof.records import MODES
from tests.catalogue import NAMES
from tests.makers import cuda_memory
from tests.makers.cuda_memory import LARGE, Row

ROWS = [
    Row("spatial/a", "inference", "1x8x5x5", LARGE, 2 * LARGE, "bmm (forward)", 2 * LARGE),
    Row("spatial/a", "training", "1x8x5x5", LARGE, 97 * LARGE, "mm | t (backward)", 100 * LARGE),
    Row("spatial/b", "inference", "1x8x5x5", 10, 512, "mul (forward)", 1024),
    Row("spatial/b", "training", "1x8x5x5", 10, 512, "mul (forward)", None, "oom: no room"),
]


def test_only_large_measured_rows_are_scored() -> None:
    assert cuda_memory.score(ROWS) == (1, 2)
    assert cuda_memory.score([replace(ROWS[1], modelled=98 * LARGE), replace(ROWS[1], modelled=102 * LARGE)]) == (2, 2)
    assert cuda_memory.score(ROWS[2:]) == (0, 0)


def test_the_report_has_every_row_and_says_what_is_outside() -> None:
    text = cuda_memory.render(ROWS, {"gpu": "A100", "torch": "2.13"})
    assert "1 of 2 rows above 64.0 MiB are within 2 % (50.0 %)." in text
    assert "- gpu: A100" in text
    table = [line for line in text.splitlines() if line.startswith("| spatial")]
    assert [line.count("|") for line in table] == [9] * 4
    assert "| 1,024 | -50.00 % |" in table[2]
    assert "| oom: no room | - |" in table[3]
    (outside,) = (line for line in text.splitlines() if line.startswith("- spatial"))
    assert outside.startswith(f"- spatial/a training: {3 * LARGE:+,} at")
    assert "Outside" not in cuda_memory.render(ROWS[2:], {})


def test_the_peak_is_named_by_its_op_and_scratch() -> None:
    makers = (Maker(""), Maker("mm"), Maker("softmax", "", "backward"))
    assert cuda_memory.peak_maker(Lifetimes((0, 512, 512), makers, (1, 2))) == "softmax (backward)"
    with_scratch = Lifetimes((0, 512, 512), makers, (1, 2), ((1, 3000),))
    assert cuda_memory.peak_maker(with_scratch) == "mm (forward), 3.00 KiB of scratch"


def test_every_mechanism_is_a_case_in_both_modes() -> None:
    found = list(cuda_memory.cases())
    assert [(case.mechanism, case.mode) for case in found] == [(name, mode) for name in NAMES for mode in MODES]
    assert {case.mechanism for case in cuda_memory.cases("spatial/cc*")} == {
        "spatial/ccnet",
        "spatial/ccnet_bmm",
        "spatial/ccnet_hv",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_memory.main(["--out", str(tmp_path / "report.md")]) == 3
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_model_is_near_the_allocator_for_non_local_attention(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    assert cuda_memory.main(["--out", str(report), "--only", "spatial/nonlocal"]) == 0
    for case in cuda_memory.cases("spatial/nonlocal"):
        row = cuda_memory.compare(case)
        assert row.error is not None, row.why
        assert row.near, row
        assert row.modelled == follow_case(case).counts.peak_cuda_bytes
    assert "spatial/nonlocal | training" in report.read_text(encoding="utf-8")
