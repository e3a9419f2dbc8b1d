"""`explain`: what is printed of the memory, on a terminal and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from attnprof.cli.explaining import explain_command
from attnprof.profiling.whatif import Counterfactual, Explanation
from attnprof.records import Case, Counts, Holder, Moment, Record, Shape, record_from_json
from attnprof.report import explain, timeline
from attnprof.report.text import WIDTH, width

MINE = """\
import torch
from torch import Tensor, nn


class Mine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        print("built by the child")
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        large = torch.cat([x] * 4)
        small = large.mean()
        return self.mix(x) * 2 + torch.cat([x] * 3).mean() + small


class Fails(Mine):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such thing")
"""


def said(*args: str) -> str:
    done = CliRunner().invoke(explain_command, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*args: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(said(*args, "--json"))["records"]
    return records


def explained(*changes: Counterfactual, notes: tuple[str, ...] = (), tried: tuple[str, ...] = ()) -> str:
    holders = (Holder(300, "bmm", "", "forward", (3, 25), "a.py:7"), Holder(100, "add", "q", "backward", (25,)))
    counts = Counts(1, 2, 3, 4, 5, 6, 400, 512, holders)
    moments = (Moment(1, 100, "forward", "q", "add"), Moment(2, 400, "backward", "", "bmm"))
    record = Record(Case("spatial/pam", "pam", {}, Shape(1, 8, 5, 5)), counts=counts)
    return explain.render(record, explanation=Explanation(counts, moments, changes, notes, tried))


@pytest.mark.parametrize("name", ["nonlocal", "ccnet_bmm", "pam", "cbam", "mhsa[heads=4]"])
def test_it_fits_the_terminal_and_names_lines(name: str) -> None:
    shown = said(name, "--hw", "33x33", "--channels", "64")
    assert all(width(line) <= WIDTH for line in shown.splitlines())
    assert shown.count("What would lower the peak") == shown.count("Live bytes over the pass") == 2
    assert f"{name.partition('[')[0]}.py:" in shown
    assert "sum to" not in shown
    assert str(Path.cwd()) not in shown


def test_json_has_the_timeline_the_lines_and_the_changes() -> None:
    inference, training = as_json("pam", "--hw", "33x33", "--channels", "64")
    for record in (inference, training):
        counts = record_from_json(record).counts
        assert counts is not None
        assert sum(holder.bytes for holder in counts.at_peak) == counts.peak_bytes
        assert any(holder.line.startswith("pam.py:") for holder in counts.at_peak)
        assert max(moment["bytes"] for moment in record["timeline"]) == counts.peak_bytes
        assert set(record["timeline"][0]) == {"event", "bytes", "phase", "module", "op"}
        for change in record["counterfactuals"]:
            assert change["saves_bytes"] == change["from_peak_bytes"] - change["peak_bytes"]
            assert change["from_peak_bytes"] == counts.peak_bytes
            assert change["confirmed"]
        assert record["notes"] == []
    assert {"fuse", "free"} == {change["kind"] for change in inference["counterfactuals"]}
    assert [moment["phase"] for moment in training["timeline"]][-1] == "backward"


def test_a_class_of_ones_own_runs_in_a_child(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    (record,) = as_json(f"{path}:Mine", "--hw", "9x9", "--channels", "8", "--mode", "inference")
    (change,) = record["counterfactuals"]
    assert change["kind"] == "free"
    assert "cat (mine.py:12)" in change["what"]
    assert {holder["line"] for holder in record["counts"]["at_peak"]} <= {f"mine.py:{line}" for line in (12, 13, 14)}


def test_what_the_class_raises_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    command = [sys.executable, "-m", "attnprof", "explain", f"{path}:Fails", "--hw", "9x9", "--channels", "8"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (5, "", 1)
    assert "ValueError: no such thing" in done.stderr


def test_without_utf8_the_drawing_is_ascii() -> None:
    command = [sys.executable, "-m", "attnprof", "explain", "se", "--hw", "9x9", "--channels", "64", "--mode", "inference"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120, env={"PYTHONIOENCODING": "ascii"})
    shown = done.stdout.decode()
    drawing = shown[shown.index("Live bytes") : shown.index("What would lower")]
    assert "#" in drawing
    assert drawing.isascii()


def test_savings_come_with_sizes_macs_and_how_they_were_confirmed() -> None:
    shown = explained(
        Counterfactual("fuse", "fused attention", 400, 100, 2_000_000, "traced again, fused"),
        Counterfactual("free", "freeing the 3x25", 400, 390, 0, "traced again, dropped"),
        Counterfactual("kernel", "the math path", 400, 4000, 0, "traced again, math"),
    )
    text = " ".join(shown.split())
    assert "1. Fused attention saves 300 B: peak 400 B -> 100 B, for 2 MMACs more." in text.replace("2.000 ", "2 ")
    assert "2. Freeing the 3x25 saves 10 B: peak 400 B -> 390 B." in text
    assert "Saved already: peak 400 B -> 3.91 KiB with the math path." in text
    assert "Fused attention: traced again, fused." in text
    assert "Kernels: traced again, math." in text
    assert "a.py:7 1 300 B 75.0" in text
    assert "As CUDA's allocator would see it (a model): 512 B, 112 B more" in text
    assert "(the caller) 1 100 B 25.0" in text


def test_nothing_saved_is_said() -> None:
    looked = explained(tried=("freeing what is not read again", "fused attention at a.py:7"))
    assert "Nothing that was tried lowers it: freeing what is not read again; fused attention at a.py:7." in " ".join(
        looked.split()
    )
    assert "Nothing that was tried" not in explained(notes=("The pass could not be followed.",))
    both = explained(notes=("No attention pattern was recognised.",), tried=("freeing what is not read again",))
    assert "lowers it: freeing what is not read again." in both
    assert "\n\nNo attention pattern was recognised.\n" in both
    change = Counterfactual("free", "freeing the 3x25", 400, 390, 0, "traced again")
    assert "Nothing that was tried" not in explained(change, tried=("freeing what is not read again",))


def test_many_savings_end_in_a_count() -> None:
    changes = [Counterfactual("free", f"freeing block {i}", 400, 300 + i, 0, "traced again") for i in range(9)]
    shown = explained(*changes)
    assert "3 more, which save less, stand in --json." in shown
    assert "block 6" not in shown


def test_the_drawing_marks_the_peak_the_phases_and_the_submodules() -> None:
    moments = [Moment(i, size, "forward", "encoder.0", "mm") for i, size in enumerate((256, 512, 1024, 2048))]
    moments += [Moment(4, 1024, "backward", "head", "mm"), Moment(5, 0, "backward", "head", "mm")]
    lines = timeline.draw(moments)
    assert all(width(line) <= WIDTH for line in lines)
    mark, top = lines[0].index("▼"), lines[1]
    assert top[mark] == "█"
    assert top.startswith(" 2.00 KiB│")
    assert top.strip("│").count("█") == top.rindex("█") - top.index("█") + 1
    assert lines[-2].index("|backward") == lines[-1].index("|head") > mark
    assert lines[-2].index("|forward") == lines[-1].index("|encoder") == 10
    bottom = lines[8]
    assert bottom[10] == "█"  # 256 bytes are an eighth of the peak: one whole row
    assert bottom[-1] == "█"
    assert timeline.draw([]) == []
    assert "\n".join(timeline.draw(moments, plain=True)).isascii()


def test_a_pass_of_more_events_than_columns_keeps_its_peak() -> None:
    moments = [Moment(i, 1, "forward", "", "mm") for i in range(1000)]
    moments[501] = replace(moments[501], bytes=9)
    lines = timeline.draw(moments)
    assert lines[1].count("█") == 1
    assert lines[1].index("█") == lines[0].index("▼")
