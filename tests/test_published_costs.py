"""The shortlist: published costs that the product has to reproduce, each with the value that a check by hand gives.

The expected column was made apart from this project's trace: by arithmetic over layer sizes, and by torch's own counter and
a hook on allocations. (claim, what it has to come out as, how far it may be off)
"""

from __future__ import annotations

import pytest

from attnprof import claims
from attnprof.claims import judge
from attnprof.cli.verify import read, verified

PARAMS, MACS, INFERENCE, TRAINING = 0.005, 0.02, 0.03, 0.1
SHORTLIST = [
    ("ccnet.nl.gflops", 108.2, MACS),
    ("ccnet.r1.gflops", 8.28, MACS),
    ("ccnet.r2.gflops", 16.5, MACS),
    ("ccnet.r3.gflops", 24.8, MACS),
    ("ccnet.flops_ratio", 84.7, MACS),
    ("ccnet.nl.mem.block", 1411, TRAINING),
    ("ccnet.r1.mem.kept", 55.2, TRAINING),
    ("ccnet.r2.mem.kept", 128.8, TRAINING),
    ("ccnet.r3.mem.kept", 202.4, TRAINING),
    ("ccnet.mem_ratio.tensors_bmm", 3.7, TRAINING),
    ("ccnet.mem_ratio.inf_bmm", 4.1, INFERENCE),
    ("ham.sa.infer", 2148, INFERENCE),
    ("ham.sa.macs", 292.06, MACS),
    ("ham.sa.params", 1.0, PARAMS),
    ("ham.da.infer", 2203, INFERENCE),
    ("ham.da.macs", 245.9, MACS),
    ("ham.da.params", 5_046_274 / 2**20, PARAMS),
    ("ham.nmf.macs", 17.54, MACS),
    ("ham.nmf.params", 0.5, PARAMS),
    ("ocr.sa.mem", 2169, INFERENCE),
    ("ocr.sa.gflops.openseg", 622.8, MACS),
    ("ocr.sa.params.openseg", 10.62, PARAMS),
    ("ocr.ocr.mem", 204, INFERENCE),
    ("ocr.ocr.gflops", 337.8, MACS),
    ("ocr.ratio_mem", 10.6, INFERENCE),
    ("ocr.danet.gflops", 1110.3, MACS),
    ("ocr.danet.mem", 2307, INFERENCE),
    ("ocr.danet.params", 23.9, PARAMS),
    ("ocr.cc.gflops", 804.2, MACS),
    ("ocr.cc.mem", 459, INFERENCE),
    ("ema.512.macs", 43.06, MACS),
    ("ema.512.params", 9.96, PARAMS),
    ("ema.dl3.macs", 63.41, MACS),
    ("ema.dl3.params", 15.54, PARAMS),
    ("ann.mem_ratio", 24.4, INFERENCE),
    ("ann.mem_ratio.freed", 28.2, INFERENCE),
    ("eca.r50.params", 24.373, PARAMS),
    ("eca.r101.params", 42.485, PARAMS),
    ("eca.r152.params", 57.404, PARAMS),
    ("eca.se.params", 26.772, PARAMS),
    ("eca.se101.params", 47.009, PARAMS),
    ("eca.se152.params", 63.678, PARAMS),
    ("cbam.r50.base", 3.858, MACS),
    ("cbam.r50.se", 3.8605, MACS),
    ("cbam.r50", 3.8644, MACS),
    ("bam.r50.params", 25.915, PARAMS),
    ("bam.r50.flops", 3.940, MACS),
    ("srm.srm.params", 25.617, PARAMS),
    ("gc.params", 28.079, PARAMS),
    ("sasa.full.params", 18.01, PARAMS),
    ("vit.b16", 17.56, MACS),
    ("vit.b16.sdpa", 16.85, MACS),
]


@pytest.fixture(scope="module")
def found() -> dict[str, claims.Verdict]:
    files = sorted({name.partition(".")[0] for name, _, _ in SHORTLIST})
    shipped = {"ham": "hamburger", "ema": "emanet", "eca": "ecanet", "gc": "gcnet"}
    papers = read([shipped.get(name, name) for name in files])
    verdicts = verified(papers, ",".join(name for name, _, _ in SHORTLIST), "none", 1.0, True)
    return {verdict.claim.name: verdict for verdict in verdicts}


@pytest.mark.parametrize(("name", "expected", "share"), SHORTLIST, ids=[name for name, _, _ in SHORTLIST])
def test_the_shortlist_comes_out_as_expected(
    found: dict[str, claims.Verdict], name: str, expected: float, share: float
) -> None:
    assert found[name].reproduced == pytest.approx(expected, rel=share)


def test_what_papers_print_is_what_the_files_say(found: dict[str, claims.Verdict]) -> None:
    printed = {
        "ccnet.nl.gflops": "108",
        "ccnet.r1.gflops": "8.3",
        "ccnet.r2.gflops": "16.5",
        "ccnet.r3.gflops": "24.7",
        "ccnet.flops_ratio": "85",
        "ccnet.nl.mem.block": "1411",
        "ccnet.r1.mem.kept": "53",
        "ccnet.r2.mem.kept": "127",
        "ccnet.r3.mem.kept": "208",
        "ccnet.mem_ratio.tensors_bmm": "11",
        "ham.sa.infer": "2148",
        "ham.da.macs": "79.5",
        "ema.512.macs": "43.1",
        "ann.mem_ratio": "28",
        "vit.b16": "17.56",
        "vit.b16.sdpa": "16.87",
    }
    assert {name: found[name].claim.published.text for name in printed} == printed


def test_the_counts_are_those_of_the_rows(found: dict[str, claims.Verdict]) -> None:
    counts = judge.tally(found.values())
    assert counts["claims"] == len(SHORTLIST)
    assert sum(counts[name] for name in claims.VERDICTS) == counts["seen"]
