"""`verify` as people use it: what is printed where, and which exit code says what happened."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from attnprof import claims
from attnprof.__main__ import main

FILE = """\
paper: Small
title: "A small paper"
setup: "1x64x16x16"
source: "a table"
cases:
  se: {mechanism: se, input: 1x64x16x16}
  nl: {mechanism: nonlocal, input: 1x64x16x16}
  fused: {mechanism: nonlocal, input: 1x64x16x16, attention: fused}
tables:
  params: {metric: params, unit: K}
  macs: {metric: compute, unit: M, convention: {count: 2mac}}
  memory: {metric: memory, unit: KB, fixed: [mode, what, by]}
  time: {metric: latency}
claims:
  small.se.params: {table: params, quote: "SE", published: "0.50", value: se, verdict: convention, why: "2 C^2 / r"}
  small.nl.macs: {table: macs, published: 6.29, value: nl, verdict: convention, why: "four projections, two products"}
  small.fused: {table: memory, unit: x, published: 4, value: nl / fused, verdict: direction, why: "two maps"}
  small.time: {table: time, unit: x, published: 2, value: nl / se, verdict: direction, why: "a GPU", finding: "A finding."}
"""
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`attnprof verify ARGS...` in this process: exit code, stdout, stderr."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attnprof", "verify", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(FILE)
    return path


def test_json_says_what_was_found_for_every_claim(call: Call, small: Path) -> None:
    code, out, err = call(small, "--json")
    assert code == 0, err
    data: dict[str, Any] = json.loads(out)
    params, macs, fused, time = data["verdicts"]
    assert (params["id"], params["paper"], params["unit"]) == ("small.se.params", "Small", "K")
    assert (params["published"], params["printed"]) == (0.5, "0.50")
    assert params["reproduced"] == 0.5
    assert params["verdict"] == params["recorded"] == "convention"
    assert params["convention"] == "K = 2^10"
    assert params["stated"] == "K = 10^3"
    assert (params["tried"], params["explained"], params["rows"]) == (2, 1, 1)
    assert macs["reproduced"] == pytest.approx(6.291456)
    assert macs["convention"] == "MAC, M = 10^6"
    assert fused["reproduced"] > 1
    assert (time["kept"], time["reproduced"], time["verdict"]) == (True, None, "direction")
    assert data["counts"]["seen"] == 4
    assert data["counts"]["convention"] == 2


def test_the_tables_fit_a_terminal_and_give_reasons(call: Call, small: Path) -> None:
    code, out, _ = call(small)
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "2 C^2 / r; holds as K = 2^10, stated is K = 10^3" in " ".join(out.split())
    assert "* not measured here" in out


def test_a_changed_published_number_flips_the_verdict(call: Call, small: Path) -> None:
    small.write_text(FILE.replace("published: 6.29", "published: 62.9"))
    code, out, err = call(small)
    assert code == 1
    assert "small.nl.macs: contradicted, on record convention: published 62.9 M, reproduced" in err
    assert "small.se.params" not in err
    assert "on record: convention" in " ".join(out.split())


def test_markdown_opens_with_counts_and_findings(call: Call, small: Path) -> None:
    code, out, _ = call(small, "--format", "md")
    assert code == 0
    assert out.index("4 numbers seen in a source") < out.index("## Findings") < out.index("A finding.") < out.index("## Small")
    assert "| small.se.params | 0.50 K | 0.500 K | +0.0 % | convention | K = 2^10 (1 of 1 rows; 2 tried) | P [1] |" in out


def test_csv_has_a_row_per_claim(call: Call, small: Path) -> None:
    code, out, _ = call(small, "--format", "csv", "--only", "small.*s")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in rows] == ["small.se.params", "small.nl.macs"]
    assert float(rows[1]["reproduced"]) == pytest.approx(6.291456)


def test_a_measured_ratio_is_judged(call: Call, small: Path) -> None:
    small.write_text(FILE.replace('verdict: direction, why: "a GPU"', 'verdict: unverifiable, why: "a GPU"'))
    code, out, _ = call(small, "--only", "small.time", "--device", "cpu", "--budget", "0.1", "--json", "-q")
    assert code == 0
    (row,) = json.loads(out)["verdicts"]
    assert row["reproduced"] > 0
    assert row["verdict"] == "unverifiable"
    assert row["arithmetic"] in ("close", "direction", "contradicted")


def test_both_documents_are_written_into_a_folder(call: Call, small: Path, tmp_path: Path) -> None:
    code, out, err = call(small, "--out", tmp_path / "new" / "folder")
    assert code == 0
    assert "small.nl.macs" in out  # the tables as ever
    assert (tmp_path / "new" / "folder" / "claims.md").read_text().startswith("# Published costs, audited")
    assert (tmp_path / "new" / "folder" / "claims.csv").read_text().startswith("id,paper,")
    assert err.count("[verify] wrote") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--format", "md,csv"), 2, "stdout carries one document: give --out DIR"),
        (("--format", "md", "--json"), 2, "stdout carries one document: give --out DIR"),
        (("--only", "nothing.*"), 3, "--only nothing.*: none of 4 claims matches."),
        (("--format", "latex"), 2, "'latex' is no format of verify: md, csv"),
        (("--only", "small.nl.mac"), 3, "Did you mean 'small.nl.macs'?"),
    ],
)
def test_what_cannot_be_answered(arguments: tuple[str, ...], code: int, words: str, call: Call, small: Path) -> None:
    found, out, err = call(small, *arguments)
    assert (found, out) == (code, "")
    assert words in err


def test_a_file_with_mistakes_is_exit_2_with_their_places(call: Call, small: Path) -> None:
    small.write_text(FILE.replace("unit: K}", "unit: GFLOPs}").replace("mechanism: se", "mechanism: sse"))
    code, out, err = call(small)
    assert (code, out) == (2, "")
    assert f"{small}:6:19: cases.se.mechanism: no mechanism is called 'sse'" in err
    assert f"{small}:10:34: tables.params.unit: 'GFLOPs' is no unit of params" in err
    assert "Traceback" not in err


def test_a_name_that_is_not_shipped(call: Call) -> None:
    code, _, err = call("ccnett")
    assert code == 2
    assert "no claims file is called 'ccnett': did you mean 'ccnet'?" in err


def test_the_numbers_of_ccnet_are_reproduced(call: Call) -> None:
    code, out, err = call("ccnet", "--json")
    assert code == 0, err
    found = {row["id"]: row for row in json.loads(out)["verdicts"]}
    for name, printed in (("nl", 108), ("r1", 8.3), ("r2", 16.5), ("r3", 24.7)):
        row = found[f"ccnet.{name}.gflops"]
        assert row["verdict"] in ("exact", "close")
        assert row["reproduced"] == pytest.approx(printed, rel=0.01)
    assert found["ccnet.flops_ratio"]["verdict"] == "exact"
    assert (found["ccnet.nl.mem"]["verdict"], found["ccnet.nl.mem.block"]["verdict"]) == ("direction", "close")
    assert found["ccnet.mem_ratio"]["reproduced"] > 11 > found["ccnet.mem_ratio.bmm_alone"]["reproduced"] > 1
    assert found["ccnet.mem_ratio.head"]["verdict"] == "exact"
    assert found["ccnet.mem_ratio.fused"]["verdict"] == "contradicted"
    assert found["ccnet.mem_ratio.fused_bmm"]["verdict"] == "contradicted"


def test_every_shipped_verdict_is_the_one_on_record(
    call: Call, every_verdict: list[claims.Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(papers: Sequence[claims.Paper], *asked: Any) -> list[claims.Verdict]:
        names = [claim.name for paper in papers for claim in paper.claims]
        assert names == [verdict.claim.name for verdict in every_verdict]
        assert asked == (None, "none", 2.0, False)  # the same but for what is said meanwhile
        return every_verdict

    monkeypatch.setattr("attnprof.cli.verify.verified", found)
    code, out, err = call("--json")
    assert code == 0, err
    data = json.loads(out)
    assert data["counts"]["seen"] >= 100
    counts = data["counts"]
    assert sum(counts[name] for name in claims.VERDICTS) == counts["seen"]
    assert counts["exact"] + counts["close"] - counts["exact_orders"] - counts["exact_own"] >= 100


def test_reading_claims_imports_no_torch() -> None:
    text = "import sys; from attnprof import claims; claims.about('channel/se'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
    assert claims.folder().is_dir()
