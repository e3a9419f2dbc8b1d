"""The shortlist: published costs that the product has to reproduce, each with the value that a check by hand gives.

The expected column was made apart from this project's trace: by arithmetic over layer sizes, and by torch's own counter and
a hook on allocations. (claim, what it has to come out as, how far it may be off)
"""

from __future__ import annotations

import pytest

from attnprof import claims
from attnprof.claims import judge

INFERENCE, TRAINING = 0.03, 0.1
DIGITS = 0.0  # as far as the digits of the expected value go
SHORTLIST = [
    ("ccnet.nl.gflops", "108.2", DIGITS),
    ("ccnet.r1.gflops", "8.28", DIGITS),
    ("ccnet.r2.gflops", "16.56", DIGITS),
    ("ccnet.r3.gflops", "24.84", DIGITS),
    ("ccnet.flops_ratio", "84.7", DIGITS),
    ("ccnet.nl.mem.block_alone", "1411", TRAINING),
    ("ccnet.nl.mem.block", "1411", TRAINING),
    ("ccnet.r1.mem", "53", TRAINING),
    ("ccnet.mem_ratio.tensors_bmm", "3.7", TRAINING),
    ("ccnet.mem_ratio.inf_bmm", "4.1", INFERENCE),
    ("ham.sa.infer", "2148", DIGITS),
    ("ham.sa.macs", "292.06", DIGITS),
    ("ham.sa.params", "1.003", DIGITS),  # 4 x 512 x 512 weights and a BN, in 2^20
    ("ham.da.infer", "2203", DIGITS),
    ("ham.da.macs", "245.9", DIGITS),
    ("ham.da.params", "4.8125", 0.001),  # 5,046,274 in 2^20; biases and BN beside
    ("ham.nmf.macs", "17.54", DIGITS),
    ("ham.nmf.params", "0.50", DIGITS),
    ("ocr.sa.mem", "2169", 0.001),
    ("ocr.sa.gflops.openseg", "622.8", DIGITS),
    ("ocr.sa.params.openseg", "10.62", DIGITS),
    ("ocr.ocr.mem", "204", 0.01),
    ("ocr.ocr.gflops", "337.8", DIGITS),
    ("ocr.ratio_mem", "10.6", 0.01),
    ("ocr.danet.gflops", "1110", DIGITS),
    ("ocr.danet.mem", "2307", DIGITS),
    ("ocr.danet.params", "23.9", DIGITS),
    ("ocr.cc.gflops", "804.2", DIGITS),
    ("ocr.cc.mem", "459", DIGITS),
    ("ema.512.macs", "43.06", DIGITS),
    ("ema.512.params", "9.96", DIGITS),
    ("ema.dl3.macs", "63.41", DIGITS),
    ("ema.dl3.params", "15.54", DIGITS),
    ("ann.mem_ratio", "24.4", DIGITS),  # the block is counted, what it is held against is arithmetic
    ("ann.mem_ratio.freed", "28.2", DIGITS),
    ("eca.r50.params", "24.373", DIGITS),
    ("eca.r101.params", "42.485", DIGITS),
    ("eca.r152.params", "57.404", DIGITS),
    ("eca.se.params", "26.772", DIGITS),
    ("eca.se101.params", "47.009", DIGITS),
    ("eca.se152.params", "63.678", DIGITS),
    ("cbam.r50.base", "3.8580", DIGITS),
    ("cbam.r50.se", "3.8605", DIGITS),
    ("cbam.r50", "3.8644", DIGITS),
    ("bam.r50.params", "25.915", DIGITS),
    ("bam.r50.flops", "3.940", DIGITS),
    ("srm.srm.params", "25.617", DIGITS),
    ("gc.params", "28.079", DIGITS),
    ("sasa.full.params", "18.01", 0.002),  # and relative positions, which the expected value leaves out
    ("vit.b16", "17.564", DIGITS),
    ("vit.b16.sdpa", "16.85", DIGITS),
]


@pytest.fixture(scope="module")
def found(every_verdict: list[claims.Verdict]) -> dict[str, claims.Verdict]:
    names = {name for name, _, _ in SHORTLIST}
    return {verdict.claim.name: verdict for verdict in every_verdict if verdict.claim.name in names}


@pytest.mark.parametrize(("name", "expected", "share"), SHORTLIST, ids=[name for name, _, _ in SHORTLIST])
def test_the_shortlist_comes_out_as_expected(found: dict[str, claims.Verdict], name: str, expected: str, share: float) -> None:
    half = 0.5 * 10.0 ** -len(expected.partition(".")[2])
    assert found[name].reproduced == pytest.approx(float(expected), rel=share, abs=half * 1.001)


def test_what_papers_print_is_what_the_files_say(found: dict[str, claims.Verdict]) -> None:
    printed = {
        "ccnet.nl.gflops": "108",
        "ccnet.r1.gflops": "8.3",
        "ccnet.r2.gflops": "16.5",
        "ccnet.r3.gflops": "24.7",
        "ccnet.flops_ratio": "85",
        "ccnet.nl.mem.block": "1411",
        "ccnet.r1.mem": "53",
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
