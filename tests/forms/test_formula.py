"""`formula`, and what else closed forms do for users: the language they are written in, kept files, answers without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from math import gcd
from pathlib import Path
from random import Random
from typing import Any

import pytest

from attnprof.cli.tracing import trace_here
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.forms import Form, Forms, Piece, kept
from attnprof.profiling.forms.expression import ExpressionError, compile_text, compile_texts
from attnprof.records import MODES, SCHEMA_VERSION, Case, Placement, Record, Shape
from attnprof.report import formula as report
from tests.cli.test_cli import MINE, call
from tests.command import Call
from tests.forms.kept_by_hand import NONLOCAL, forms_of_nonlocal, write

__all__ = ["call"]  # the fixture

SE, CCNET = "channel/se", "spatial/ccnet"
SHAPE = Shape(1, 64, 9, 7)
HW = ("--hw", "9x7", "--channels", "64", "--device", "none")


# --- the language


def random_expression(random: Random, depth: int) -> str:
    """Any expression of the language without a division by zero."""
    if depth == 0:
        return random.choice(["C", "H", "W", str(random.randrange(50))])
    left, right = random_expression(random, depth - 1), random_expression(random, depth - 1)
    whole = ("({0} + {1})", "({0} - {1})", "({0}*{1})", "({0}//(({1})**2 + 1))", "(-{0} % 7)", "max({0}, {1})", "gcd({0}, {1})")
    tests = ("(({0} < {1})*3)", "(not {0})", "({0} == 2 or 1 <= {1} <= 5)", "min({0}, {1}, 3)", "(({0} != {1} and {0} > 1)**2)")
    return random.choice(whole + tests).format(left, right)


def test_what_an_expression_gives_is_what_python_gives() -> None:
    random = Random(0)
    texts = [random_expression(random, 4) for _ in range(300)]
    values = {"C": 24, "H": 7, "W": 5}
    found = [expression(values) for expression in compile_texts(texts)]
    wanted = [eval(text, {"gcd": gcd}, dict(values)) for text in texts]
    assert found == wanted
    assert len(set(found)) > 30


def test_a_sum_of_two_hundred_terms_is_no_problem() -> None:
    text = " + ".join(f"{i}*C" for i in range(200))
    assert compile_text(text)({"C": 3}) == 3 * 199 * 100


REFUSED = [
    "__import__('os')", "C.real", "C[0]", "'C'", "1.5*C", "C / 2", "C @ H", "C << 3", "C ** H", "C**65", "C**-1", "lambda: C",
    "C if H else W", "[C]", "(C, H)", "max(C)", "max(*C)", "min(C, key=H)", "abs(C)", "C in H", "C is H", "~C", "+C", "C := 3",
    "C = 3", "import os", "", "  ", "C +", "C\nH", "C;H", "None", "C\x00", "(" * 500 + "C" + ")" * 500,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_nothing_else_can_be_written(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_text(text)
    with pytest.raises(ExpressionError):
        compile_texts(["C", text, "H"])


def test_what_cannot_be_evaluated_says_why() -> None:
    with pytest.raises(ExpressionError, match="wants a value for T"):
        compile_text("C*T")({"C": 3})
    with pytest.raises(ExpressionError, match="divides by zero at C=3, H=0"):
        compile_text("C//H")({"C": 3, "H": 0})
    assert compile_text("H == 0 or C//H > 1")({"C": 3, "H": 0})


# --- the kept files


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of kept files."""
    monkeypatch.setattr(kept, "ROOT", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [NONLOCAL, CCNET, SE])
def test_a_program_gives_the_whole_record_of_the_trace(root: Path, name: str, mode: str) -> None:
    write(root, name, SHAPE)
    case = Case(name, name, {}, SHAPE, mode=mode, settings={"sdpa": "auto"})
    counts = kept.counts_of(case)
    assert counts == trace_case(case)
    assert trace_here(case) == Record(case, counts=counts, environment={"forms": "kept"})


def test_what_a_program_is_not_for_is_not_answered(root: Path) -> None:
    write(root, CCNET, SHAPE)
    case = Case(CCNET, "ccnet", {}, SHAPE, settings={"sdpa": "auto"})
    same: list[dict[str, Any]] = [
        {"settings": {}},
        {"settings": {"sdpa": "auto", "target": "cuda", "memory_format": "contiguous", "autocast": "none", "compile": True}},
        {"args": {"recurrence": 2}},
        {"device": "cpu"},
    ]
    other: list[dict[str, Any]] = [
        {"dtype": "float16"},
        {"settings": {"sdpa": "math"}},
        {"settings": {"target": "cpu"}},
        {"settings": {"autocast": "bfloat16"}},
        {"settings": {"memory_format": "channels_last"}},
        {"settings": {"new": 1}},
        {"args": {"recurrence": 3}},
        {"args": {"recurrence": True}},
        {"args": {"recurrence": [2]}},
        {"args": {"nonsense": 2}},
        {"host": Placement("resnet50", {}, "body")},
        {"shape": replace(SHAPE, batch=2)},
        {"shape": replace(SHAPE, height=10)},
        {"mechanism": SE},
        {"mechanism": "./mine.py:Mine"},
    ]
    assert all(kept.counts_of(replace(case, **change)) is not None for change in same)
    assert [kept.counts_of(replace(case, **change)) for change in other] == [None] * len(other)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"source": "0" * 16}, "the mechanism's file changed"),
        ({"counting": "0" * 16}, "the code that counts changed"),
        ({"torch": "1.0"}, "torch's release changed"),
    ],
)
def test_a_kept_file_is_not_used_once_anything_it_was_made_from_changed(root: Path, made: dict[str, str], words: str) -> None:
    write(root, SE, SHAPE, made=made)
    case = Case(SE, "se", {}, SHAPE)
    held = kept.read(SE)
    assert held is not None
    assert words in held.stale
    assert kept.counts_of(case) is None
    assert kept.forms_for(case) is None
    assert trace_here(case) == Record(case, counts=trace_case(case))


@pytest.mark.parametrize(
    "content", ["", "{", '{"schema": 99}', "[]", '{"schema": 1}', '{"schema": 1, "modes": [1]}', "[" * 100_000]
)
def test_a_damaged_kept_file_is_traced_past(root: Path, content: str) -> None:
    write(root, SE, SHAPE).write_text(content, encoding="utf-8")
    case = Case(SE, "se", {}, SHAPE)
    assert kept.counts_of(case) is None
    assert trace_here(case).counts == trace_case(case)
    assert "damaged" in kept.why_not(case) or "schema" in kept.why_not(case)


def test_an_edited_kept_file_is_traced_past(root: Path) -> None:
    path = write(root, SE, SHAPE)
    case = Case(SE, "se", {}, SHAPE)
    assert kept.counts_of(case) is not None
    macs = trace_case(case).macs
    text = path.read_text(encoding="utf-8")
    assert f'"{macs}"' in text
    path.write_text(text.replace(f'"{macs}"', f'"{macs + 1}"'), encoding="utf-8")
    kept._read.cache_clear()
    assert kept.counts_of(case) is None
    assert "edited" in kept.why_not(case)
    assert trace_here(case).counts == trace_case(case)


# --- the command


@pytest.fixture
def nonlocal_kept(root: Path) -> Path:
    write(root, NONLOCAL, SHAPE, forms_of_nonlocal())
    return root


def test_the_json_evaluates_with_nothing_but_the_shape(call: Call, nonlocal_kept: Path) -> None:
    found = call("formula", "nonlocal", "--json").json
    assert (found["schema"], found["name"], found["args"], found["mode"]) == (SCHEMA_VERSION, NONLOCAL, {}, "inference")
    assert set(found["training"]) == {"params", "macs", "peak_bytes", "general", "held", "missing"}
    assert found["missing"] == {"flops": "left out of this file by hand"}
    assert "shape" not in found
    assert found["general"]["macs"]["expr"].startswith("B*H*W*")
    for shape in (SHAPE, Shape(1, 512, 97, 97), Shape(1, 2048, 7, 7), Shape(1, 30, 33, 2)):
        values = {"C": shape.channels, "H": shape.height, "W": shape.width}
        counts = trace_case(Case(NONLOCAL, "nonlocal", {}, shape))
        for metric in ("params", "macs", "peak_bytes"):
            assert set(found[metric]) == {"expr", "order", "domain", "pieces", "draws", "drawn"}
            assert eval(found[metric]["domain"], {}, values)
            assert eval(found[metric]["expr"], {}, values) == getattr(counts, metric)
        pieces = found["peak_bytes"]["pieces"]
        largest = [piece for piece in pieces if eval(piece["domain"], {}, values)]
        assert [eval(piece["expr"], {}, values) for piece in largest] == [counts.peak_bytes]
        assert all(piece["made_of"] for piece in pieces)


def test_the_first_mode_that_was_asked_for_is_at_the_top(call: Call, nonlocal_kept: Path) -> None:
    assert "training" not in call("formula", "nonlocal", "--mode", "inference", "--json").json
    turned = call("formula", "nonlocal", "--mode", "training,inference", "--json").json
    assert turned["mode"] == "training"
    assert "macs" in turned
    assert "macs" in turned["inference"]


def test_a_size_is_evaluated_and_one_outside_the_domain_is_said(call: Call, nonlocal_kept: Path) -> None:
    inside = call("formula", "nonlocal", "--hw", "9x7", "--channels", "64", "--json").json
    assert inside["shape"] == "1x64x9x7"
    assert inside["macs"]["value"] == trace_case(Case(NONLOCAL, "nonlocal", {}, SHAPE)).macs
    assert call("formula", "nonlocal", "--hw", "97", "--json").json["shape"] == "1x512x97x97"
    outside = call("formula", "nonlocal", "--channels", "33", "--json").json
    assert outside["shape"] == "1x33x65x65"
    assert outside["macs"]["value"] is None
    at_33 = trace_case(Case(NONLOCAL, "nonlocal", {}, Shape(1, 33, 65, 65))).macs
    assert outside["general"]["macs"]["value"] == at_33
    assert f"= {inside['macs']['value']:,} at 1x64x9x7" in call("formula", "nonlocal", "--hw", "9x7", "--channels", "64").out
    text = " ".join(call("formula", "nonlocal", "--channels", "33").out.split())
    assert f"1x33x65x65 is outside this domain; the general form below, at B=1, reduction=2 holds there: = {at_33:,}" in text
    assert "params, O(C**2) C*(4*C + 9)//2 1x33x65x65 is outside this domain macs" in text


def test_the_text_says_everything_in_eighty_columns(call: Call, nonlocal_kept: Path) -> None:
    done = call("formula", "nonlocal", "--hw", "97x97")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    text = " ".join(done.out.split())
    for words in (
        "nonlocal: closed forms at batch 1, inference",
        "nonlocal: closed forms at batch 1, training",
        "verified on 200 draws",
        "macs, O(C**2*N + C*N**2) C*H*W*(2*C + H*W)",
        "the largest of 2 pieces: 6*C*H*W + 8*H**2*W**2 largest where 2*H*W >= 5*C made of 4*H**2*W**2 softmax, 4*H**2",
        "B*H*W*(4*C*(C//reduction)",
        "reduction: the argument of that name",
        "flops: left out of this file by hand",
        "Kept beside the catalogue",
    ):
        assert words in text, words


WRONG = [
    (("formula", "nonlocl"), "'nonlocal'"),
    (("formula", "nonlocal", "--mode", "infer"), "'infer' is no mode"),
    (("formula", "nonlocal", "--hw", "9y9"), "HxW"),
    (("formula", "nonlocal[reductio=2]"), "'reduction'"),
    (("formula", "nonlocal", "--frames", "4"), "single images"),
    (("formula", "./mine.py:Mine"), "there is no such file"),
    (("formula", "nonlocal", "--timeout", "0"), "--timeout"),
]


@pytest.mark.parametrize(("args", "words"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_wrong_value_is_one_sentence(call: Call, args: tuple[str, ...], words: str) -> None:
    done = call(*args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_show_has_the_forms_beside_its_headings(call: Call, nonlocal_kept: Path) -> None:
    found = call("show", "nonlocal", "--json").json["forms"]
    assert found["inference"]["macs"]["expr"] == "C*H*W*(2*C + H*W)"
    assert set(found) == set(MODES)
    text = call("show", "nonlocal").out
    domain = "for C % 2 == 0 and C >= 2 and H >= 2 and W >= 2"
    assert f"macs: O(C**2*N + C*N**2): C*H*W*(2*C + H*W), {domain}" in " ".join(text.split())
    assert "peak_bytes, training: O(C*N + N**2)" in text
    assert max(map(len, text.splitlines())) <= 80
    assert call("show", "nonlocal[reduction=4]", "--json").json["forms"] == {}


def test_show_at_a_size_prints_forms_that_hold_there(call: Call, nonlocal_kept: Path) -> None:
    inside = " ".join(call("show", "nonlocal", "--channels", "64", "--hw", "9x7").out.split())
    assert "macs: O(C**2*N + C*N**2): C*H*W*(2*C + H*W), for C % 2 == 0" in inside
    outside = " ".join(call("show", "nonlocal", "--channels", "33", "--hw", "9x7").out.split())
    assert (
        "macs: O(C**2*N + C*N**2): B*H*W*(4*C*(C//reduction) + 2*H*W*(C//reduction)), for C >= reduction and "
        "reduction >= 1 and H >= 2 and W >= 2 and B >= 1, at B=1, reduction=2 (C*H*W*(2*C + H*W), for C % 2 == 0"
    ) in outside
    assert "peak_bytes, inference: O(C*N + N**2): max(6*C*H*W + 8*H**2*W**2, 16*C*H*W + 4*H**2*W**2), for C % 2" in outside
    assert "W >= 2: not at 1x33x9x7" in outside
    forms = call("show", "nonlocal", "--channels", "33", "--hw", "9x7", "--json").json["forms"]["inference"]
    assert forms["macs"]["value"] is None
    assert forms["general"]["macs"]["value"] == trace_case(Case(NONLOCAL, "nonlocal", {}, replace(SHAPE, channels=33))).macs


# --- without torch

_WITHOUT = """
import json, sys
from pathlib import Path
from attnprof.__main__ import main
from attnprof.profiling.forms import kept
kept.ROOT = Path(sys.argv.pop(1))
sys.argv[0] = "attnprof"
try:
    main()
finally:
    heavy = ("torch", "numpy", "pandas", "pydantic", "yaml", "rich")
    print(json.dumps([name for name in heavy if name in sys.modules]), file=sys.stderr)
"""


def alone(root: Path, *args: str) -> tuple[str, list[str]]:
    """(stdout, heavy modules loaded) of a command in a process of its own, with the kept files of `root`."""
    command = [sys.executable, "-c", _WITHOUT, str(root), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


def without_environment(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    for record in found["records"]:
        del record["environment"]
    return found


def test_kept_mechanisms_are_compared_without_torch_and_with_the_same_output(root: Path, call: Call) -> None:
    compare = ("compare", "nonlocal", "ccnet", *HW)
    text, data = call(*compare).out, call(*compare, "--json").out  # nothing is kept yet
    for name in (NONLOCAL, CCNET):
        write(root, name, SHAPE)
    assert alone(root, *compare) == (text, [])
    found, heavy = alone(root, *compare, "--json")
    assert heavy == []
    assert {str(record["environment"]) for record in json.loads(found)["records"]} == {"{'forms': 'kept'}"}
    assert without_environment(found) == without_environment(data)


def test_show_counts_without_torch(root: Path, call: Call) -> None:
    show = ("show", "ccnet", "--hw", "9x7", "--channels", "64")
    text = call(*show).out
    write(root, CCNET, SHAPE)
    assert alone(root, *show) == (text, [])


def test_one_that_is_not_kept_is_traced_beside_one_that_is(root: Path, call: Call) -> None:
    compare = ("compare", "nonlocal", "ccnet", *HW, "--json")
    data = call(*compare).out
    write(root, NONLOCAL, SHAPE)
    write(root, CCNET, SHAPE, made={"counting": "0" * 16})
    mixed, heavy = alone(root, *compare)
    assert "torch" in heavy
    answered = {record["case"]["label"]: record["environment"] for record in json.loads(mixed)["records"]}
    assert answered == {"nonlocal": {"forms": "kept"}, "ccnet": {}}
    assert without_environment(mixed) == without_environment(data)


def test_formula_answers_from_the_kept_file_without_torch(nonlocal_kept: Path) -> None:
    assert alone(nonlocal_kept, "formula", "nonlocal", "--json")[1] == []


# --- found now

HOSTILE = """
class Exits(Mine):
    def forward(self, x):
        import os
        os._exit(7)


class Hangs(Mine):
    def forward(self, x):
        while True:
            pass


class Raises(Mine):
    def forward(self, x):
        raise KeyError("nothing here")
"""


def test_a_class_of_ones_own_gets_its_forms(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    found = call("formula", "./mine.py:Mine", "--mode", "inference", "--json").json
    assert found["name"] == "./mine.py:Mine"
    assert found["macs"]["drawn"]["B"] == [1, 1]
    assert found["general"]["macs"]["drawn"]["B"] == [1, 3]
    low, high = found["macs"]["drawn"]["C"]
    assert (low, high) == (1, 2048)
    for channels, height, width in ((16, 5, 9), (64, 7, 7), (31, 12, 3)):
        values = {"C": channels, "H": height, "W": width}
        assert all(eval(found[metric]["domain"], {}, {**values, "B": 1}) for metric in ("params", "macs"))
        assert eval(found["params"]["expr"], {}, values) == channels * (channels + 1)
        assert eval(found["macs"]["expr"], {}, values) == channels**2 * height * width
    assert found["source"] == "Found now from traces."


@pytest.mark.parametrize(("name", "words"), [("Exits", "crashed"), ("Hangs", "timeout"), ("Raises", "nothing here")])
def test_a_class_that_fails_is_said_and_takes_nothing_down(call: Call, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(MINE + HOSTILE, encoding="utf-8")
    done = call("formula", f"./mine.py:{name}", "--mode", "inference", "--timeout", "6")
    assert (done.code, done.out) == (5, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_other_arguments_than_the_defaults_are_traced(call: Call, root: Path) -> None:
    write(root, SE, SHAPE)
    done = call("formula", "se[reduction=8]", "--mode", "inference", "--json")
    assert "looking for its forms" in done.err
    assert done.json["args"] == {"reduction": 8}
    assert "the kept ones are those of the default arguments" in done.json["source"]
    case = Case(SE, "se", {"reduction": 8}, SHAPE)
    assert eval(done.json["macs"]["expr"], {}, {"C": 64, "H": 9, "W": 7}) == trace_case(case).macs


# --- the report alone


def test_the_lines_for_explain_are_short_and_clean() -> None:
    long = Form(
        "peak_bytes", f"max({', '.join(['C*H*W'] * 40)})", "O(N)", "C >= 1", tuple([Piece("C*H*W", "C >= 1")] * 40), 200
    )
    forms = Forms("x", {}, "training", {"macs": Form("macs", "C*H*W", "O(C*N)", "C >= 1", draws=200), "peak_bytes": long})
    lines = report.summary_lines(replace(forms, missing={"flops": "a\x1b[31m reason\n" + "x" * 200}))
    assert lines[0] == "macs: O(C*N); C*H*W, for C >= 1"
    assert lines[-1] == "peak_bytes: O(N); max of 40 pieces, for C >= 1"
    even = Form("macs", "C*H*W//2", "O(C*N)", "C % 2 == 0", draws=200)
    any_ = Form("macs", "B*(C//r)*H*W", "O(B*C*N)", "C >= r", draws=200)
    both = Forms("x", {}, "training", {"macs": even}, {"macs": any_}, arguments={"r": 2})
    assert report.summary_lines(both, Shape(1, 4, 3, 3)) == ["macs: O(C*N); C*H*W//2, for C % 2 == 0"]
    (outside,) = report.summary_lines(both, Shape(1, 5, 3, 3))
    assert outside.startswith("macs: O(C*N); B*(C//r)*H*W, for C >= r, at B=1, r=2 (C*H*W//2, for")
    assert report.summary_lines(both, Shape(1, 1, 3, 3)) == ["macs: O(C*N); C*H*W//2, for C % 2 == 0: not at 1x1x3x3"]
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert any("flops: no closed form (a?[31m reason" in line for line in lines)


def test_a_mode_with_nothing_found_is_still_a_report() -> None:
    text = report.render("x", [Forms("x", {}, "inference", missing={"macs": "reads values"})], "Found now.")
    assert "macs: reads values" in text
    assert "Each for" not in text


def test_the_range_of_the_draws_and_what_was_held_are_said() -> None:
    drawn = {"B": (1, 3), "C": (8, 2048), "H": (1, 126), "W": (1, 129), "T": (1, 1), "r": (1, 7)}
    general = Form("macs", "B*C*H*W*r", "O(B*C*N*r)", "C % heads == 0", draws=200, drawn=drawn)
    single = Form("macs", "4*C*H*W", "O(C*N)", "True", draws=200, drawn={**drawn, "B": (1, 1), "r": (4, 4)})
    forms = Forms("x", {}, "inference", {"macs": single}, {"macs": general}, {}, {"r": 4, "heads": 8}, {"heads": 8})
    text = " ".join(report.render("x", [forms], "Found now.").split())
    assert "for every size (verified on 200 draws, drawn from C up to 2048, H and W up to 129, r 4)" in text
    assert "(verified on 200 draws, drawn from C up to 2048, H and W up to 129, B 1 to 3, r 1 to 7)" in text
    assert "With the batch and r as variables (held at their values: heads=8):" in text
    data = report.data(forms)
    assert data["held"] == {"heads": 8}
    assert data["general"]["macs"]["drawn"]["C"] == [8, 2048]
    alone = replace(forms, general={"macs": replace(general, expr="4*B*C*H*W")}, held={"heads": 8, "r": 4})
    text = " ".join(report.render("x", [alone], "Found now.").split())
    assert "With the batch as a variable (held at their values: heads=8, r=4):" in text


def test_what_orders_assume_and_where_gcd_is_from_are_said() -> None:
    form = Form("macs", "C*H*W*(H + W + gcd(H, 6))", "O(C*N**1.5)", "True", draws=200)
    text = " ".join(report.render("x", [Forms("x", {}, "inference", {"macs": form})], "Found now.").split())
    assert "Orders let H and W grow together: a single one counts as N**0.5." in text
    assert "from math import gcd" in text


def test_what_depends_on_data_has_a_form_of_its_parameters(call: Call, tmp_path: Path) -> None:
    (tmp_path / "picks.py").write_text(PICKS, encoding="utf-8")
    found = call("formula", "./picks.py:Picks", "--mode", "inference", "--json").json
    assert [eval(found["params"]["expr"], {}, {"C": channels}) for channels in (1, 7, 64)] == [2, 56, 4160]
    assert "depends on data" in found["missing"]["macs"]
    done = call("formula", "./picks.py:Picks", "--mode", "inference")
    assert done.code == 0
    assert "may help" not in done.out + done.err


PICKS = """
from torch import nn


class Picks(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x):
        rows = x.permute(0, 2, 3, 1)
        return self.linear(rows[rows[..., 0] > 0])
"""
