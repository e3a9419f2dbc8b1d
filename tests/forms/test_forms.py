"""Closed forms found from traces: against published polynomials, against fresh traces, and against wrong forms."""

from __future__ import annotations

import dataclasses
import random
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from attnprof import mechanisms
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.forms import Form, kept, orders, peaks, poly, programs, regions
from attnprof.profiling.forms import atoms as shapes
from attnprof.profiling.forms import general as general_forms
from attnprof.profiling.forms.domains import Condition, learn, text
from attnprof.profiling.forms.expression import compile_text
from attnprof.profiling.forms.find import Found, find_forms, form_json
from attnprof.profiling.forms.programs import Fitted
from attnprof.profiling.forms.samples import TOTALS, Sampler
from attnprof.profiling.forms.solve import fit
from attnprof.profiling.forms.totals import column
from attnprof.profiling.forms.verify import DRAWS, draws, verified
from attnprof.records import Case, Counts, Shape

MINE = """
from torch import nn

class Mine(nn.Module):
    '''A gate of C//r hidden channels behind a strided convolution.'''

    def __init__(self, channels, reduction=4):
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        x = self.down(x)
        return x * self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]
"""


def natural_case(name: str, mode: str = "inference") -> Case:
    name = mechanisms.resolve(name)
    shape = mechanisms.load(name).natural or Shape(1, 512, 97, 97)
    return Case(name, name, {}, shape, mode=mode, settings={"sdpa": "auto"})


@cache
def found(name: str, mode: str = "inference") -> Found:
    return find_forms(natural_case(name, mode))


def value(form: Form, **values: int) -> int:
    return compile_text(form.expr)(values)


def traced(name: str, channels: int, height: int, width: int, mode: str = "inference", batch: int = 1) -> Counts:
    return trace_case(Case(mechanisms.resolve(name), name, {}, Shape(batch, channels, height, width), mode=mode))


def test_macs_of_criss_cross_attention_are_the_published_polynomial() -> None:
    forms = found("ccnet").forms
    form = forms.forms["macs"]
    assert form.expr == "C*H*W*(10*C + 9*H + 9*W)//4"
    assert form.order == "O(C*N**1.5 + C**2*N)"
    assert form.domain == "C % 8 == 0"
    assert form.draws >= DRAWS
    for c, h, w in ((512, 97, 97), (64, 1, 1), (2048, 7, 7), (8, 3, 11)):
        assert value(form, C=c, H=h, W=w) == c * h * w * (10 * c + 9 * (h + w)) // 4


def test_recurrence_and_reduction_are_variables_of_the_general_form() -> None:
    form = found("ccnet").forms.general["macs"]
    assert form.domain == "True"
    macs = mechanisms.load("ccnet").macs
    assert macs is not None
    for b, c, h, w, recurrence, reduction in ((1, 512, 97, 97, 3, 8), (2, 30, 5, 9, 1, 7), (1, 3, 4, 4, 2, 16)):
        by_hand = macs(Shape(b, c, h, w), recurrence=recurrence, reduction=reduction)
        assert value(form, B=b, C=c, H=h, W=w, recurrence=recurrence, reduction=reduction) == by_hand


def test_nonlocal_is_the_published_polynomial_and_its_peak_has_two_pieces() -> None:
    forms = found("nonlocal").forms
    assert forms.forms["macs"].expr == "C*H*W*(2*C + H*W)"
    assert forms.forms["macs"].order == "O(C*N**2 + C**2*N)"
    assert forms.general["macs"].expr == "2*B*(C//reduction)*H*W*(2*C + H*W)"
    peak = forms.forms["peak_bytes"]
    assert peak.order == "O(N**2 + C*N)"
    assert len(peak.pieces) == 2
    for c, h, w in ((1024, 14, 14), (64, 97, 65), (2048, 7, 7)):
        assert value(peak, C=c, H=h, W=w) == traced("nonlocal", c, h, w).peak_bytes
        inside = [piece for piece in peak.pieces if compile_text(piece.domain)({"C": c, "H": h, "W": w})]
        assert {compile_text(piece.expr)({"C": c, "H": h, "W": w}) for piece in inside} == {value(peak, C=c, H=h, W=w)}
    assert any("bmm" in part for piece in peak.pieces for part in piece.made_of)


@pytest.mark.parametrize("name", ["se", "eca", "ppm", "swin"])
def test_forms_are_what_traces_give_elsewhere(name: str) -> None:
    forms = found(name).forms
    assert not forms.missing
    rng = random.Random(name)
    seen = 0
    while seen < 12:
        step = 7 if name == "swin" else 1  # its windows
        height, width = (step * rng.randint(2, 70 // step) for _ in "HW")
        values = {"C": rng.choice((32, 64, 96, 160, 192, 256)), "H": height, "W": width}
        if not all(compile_text(form.domain)(values | {"B": 1}) for form in forms.forms.values()):
            continue
        seen += 1
        counts = traced(name, values["C"], values["H"], values["W"])
        assert {metric: value(form, **values) for metric, form in forms.forms.items()} == {
            metric: getattr(counts, metric) for metric in (*TOTALS, "peak_bytes")
        }


def test_the_kernel_of_eca_is_found_from_its_steps_in_c() -> None:
    form = found("eca").forms.forms["params"]
    assert {c: value(form, C=c) for c in (4, 8, 64, 128, 2047, 2048, 4096)} == {
        4: 1, 8: 3, 64: 3, 128: 5, 2047: 5, 2048: 7, 4096: 7,
    }  # fmt: skip


def test_overlapping_pooling_bins_are_written_with_gcd() -> None:
    assert "gcd(H, 6)" in found("ppm").forms.forms["flops"].expr


def test_a_program_rebuilds_the_trace() -> None:
    for name, mode in (("se", "inference"), ("nonlocal", "inference")):
        (data, *_) = found(name, mode).programs
        program = kept.Program(data)
        for c, h, w in ((64, 14, 9), (2048, 7, 7), (256, 65, 33)):
            rebuilt = kept.rebuild(program, {"B": 1, "C": c, "H": h, "W": w, "T": 1})
            counts = traced(name, c, h, w, mode)
            for field in dataclasses.fields(Counts):
                if field.name != "at_peak":
                    assert getattr(rebuilt, field.name) == getattr(counts, field.name), field.name
            assert [holder.bytes for holder in rebuilt.at_peak] == [holder.bytes for holder in counts.at_peak]


def test_a_module_of_ones_own_has_forms(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    case = Case(f"{tmp_path / 'mine.py'}:Mine", "mine", {}, Shape(1, 64, 16, 16), settings={"sdpa": "auto"})
    forms = find_forms(case).forms
    assert set(forms.forms) == {*TOTALS, "peak_bytes"}
    assert forms.forms["params"].domain == "C % 4 == 0"
    general = forms.general["params"]
    for c, r in ((64, 4), (30, 7), (12, 5)):
        assert value(general, C=c, reduction=r) == 9 * c * c + c + 2 * c * (c // r) + c // r + c
    assert value(forms.forms["macs"], C=64, H=15, W=8) == 9 * 64 * 64 * 8 * 4 + 2 * 64 * 16


def test_a_module_that_no_trace_takes_has_no_forms_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(
        "from torch import nn\nclass Picky(nn.Module):\n    def __init__(self, channels):\n"
        "        super().__init__()\n        raise ValueError('never')\n"
    )
    case = Case(f"{tmp_path / 'picky.py'}:Picky", "picky", {}, Shape(1, 64, 16, 16))
    forms = find_forms(case).forms
    assert not forms.forms
    assert all("never" in reason for reason in forms.missing.values())


def sampled(name: str) -> tuple[Sampler, regions.Region, tuple[int, ...]]:
    case = natural_case(name)
    shape = case.shape
    region = regions.Region().every(regions.C, 8)
    return Sampler(case, mechanisms.load(name)), region, (1, shape.channels, shape.height, shape.width, 1)


def wrong(expr: str, region: regions.Region) -> Fitted:
    variables = {name: shapes.variable(name) for name in "BCHW"}
    return Fitted(({},), (expr,), variables, (Condition("C", "%", 0, 8),), region)


@pytest.mark.parametrize("error", ["+ 1", "+ C*H*W//1000"])
def test_draws_reject_a_wrong_form(error: str) -> None:
    sampler, region, seed = sampled("nonlocal")
    macs = column(TOTALS.index("macs"))
    assert isinstance(verified(sampler, wrong("B*C*H*W*(2*C + H*W)", region), macs, seed, [], region), tuple)
    assert isinstance(verified(sampler, wrong(f"B*C*H*W*(2*C + H*W) {error}", region), macs, seed, [], region), str)


def test_draws_narrow_the_domain_of_a_form_that_fails_elsewhere() -> None:
    sampler, region, seed = sampled("nonlocal")
    macs = column(TOTALS.index("macs"))
    tried = verified(sampler, wrong("B*C*H*W*(2*C + H*W) + H//60", region), macs, seed, [], region)
    assert isinstance(tried, tuple)
    assert tried[0].condition == "C % 8 == 0 and H <= 59"
    tried = verified(sampler, wrong("B*C*H*W*(2*C + H*W) + H % 2", region), macs, seed, [], region)
    assert isinstance(tried, tuple)
    assert tried[0].condition == "C % 8 == 0 and H % 2 == 0"


def test_draws_are_diverse_and_always_the_same() -> None:
    _, region, seed = sampled("nonlocal")
    points = draws("C % 8 == 0", region, seed)
    assert points == draws("C % 8 == 0", region, seed)
    assert len(set(points)) == len(points) == DRAWS + DRAWS // 5
    assert {(1, 2048, 7, 7, 1), (1, 64, 1, 1, 1), seed} <= set(points)
    assert {point[0] for point in points} == {1, 2, 3}
    assert any(point[2] % 2 and point[3] % 2 and point[2] != point[3] for point in points)


def test_exact_fits_are_fractions_and_nothing_else() -> None:
    values = np.arange(1, 30, dtype=np.int64) * 8
    functions = np.stack([values**0, values, values**2], axis=1)
    columns = np.stack([5 * values**2 // 4, values // 8 + 3, values**3, values % 3], axis=1)
    found_ = fit(functions, columns)
    assert found_ == [{2: Fraction(5, 4)}, {0: Fraction(3), 1: Fraction(1, 8)}, None, None]
    assert fit(functions[:6], columns[:6]) is None  # too few points prove nothing


def test_polynomials_are_written_with_their_common_factors_in_front() -> None:
    c, h, w = (("C", 1),), (("H", 1),), (("W", 1),)
    assert poly.text({(*c, *h): Fraction(9, 4), (("C", 2),): Fraction(5, 2)}) == "C*(10*C + 9*H)//4"
    assert poly.text({(): Fraction(-1), c: Fraction(2)}) == "2*C - 1"
    assert poly.text({(): Fraction(-3)}) == "-3"
    assert poly.text({h: Fraction(-1)}) == "-H"
    assert poly.text({}) == "0"
    assert poly.text({(("-(-H//2)", 2), *w): Fraction(3)}) == "3*(-(-H//2))**2*W"


ORDERS = {
    "C*H*W*(10*C + 9*H + 9*W)//4 + 7*C*H": "O(C*N**1.5 + C**2*N)",
    "0": "O(1)",
    "2*min(C//128, 1) + gcd(H, 6) + C % 8": "O(1)",
    "B*(C//reduction)*H*W*(2*C + H*W)": "O(B*C*N**2 + B*C**2*N)",
    "reduction*(C//reduction)*H": "O(C*N**0.5 + reduction*N**0.5)",
    "max(C//16, 8)*C": "O(C**2)",
    "max(3*C*H*W, 8*H**2*W**2)": "O(N**2 + C*N)",
    "C*max(H, W)": "O(C*N**0.5)",
    "min(C, 64)*H*W": "O(N)",
    "(-(-H//2))*(-(-W//2))*C": "O(C*N)",
    "C - 3*(C//3)": "O(1)",
    "H - 2*(H//2) + C": "O(C)",
    "C*max(C//4, 1) - C**2//4": "O(C)",
    "C*H - C*W": "O(C*N**0.5)",
    "(4*C**3 - 24*C**2*(C//3) + C**2 + 36*C*(C//3)**2 + 28*C*(C//3) + 11*C + 27*(C//3)**2 + 11*(C//3))//2": "O(C**2)",
}


@pytest.mark.parametrize(("written", "order"), ORDERS.items())
def test_orders_are_those_of_what_is_left_after_cancelling(written: str, order: str) -> None:
    assert orders.order(written) == order


def test_an_order_is_above_the_values_far_out() -> None:
    """Doubling C (H, W) eight times multiplies what is O(C**a N**b) by no more than that."""
    for written, order in ORDERS.items():
        bound = compile_text(order[2:-1].replace("N**0.5", "H").replace("N**1.5", "H**3").replace("N", "(H*H)"))
        values = [{"B": 1, "C": c, "H": h, "W": h, "reduction": 2} for c in (257, 8191) for h in (9, 2047)]
        ratios = [abs(compile_text(written)(each)) / bound(each) for each in values]
        assert max(ratios) < 100, written


def test_a_kept_file_gets_its_orders_again() -> None:
    old = {"expr": "C - 3*(C//3)", "order": "O(C)", "domain": "True", "draws": 200, "pieces": []}
    data = {"schema": 1, "modes": {"inference": {"forms": {"macs": old}, "general": {}, "programs": [1], "missing": {}}}}
    again = orders.restamped(data)
    assert again["modes"]["inference"] == {
        "forms": {"macs": {**old, "order": "O(1)"}},
        "general": {},
        "programs": [1],
        "missing": {},
    }
    assert old["order"] == "O(C)"
    assert orders.restamped(again) == again


def test_a_domain_is_learned_from_points_on_both_sides() -> None:
    rng = random.Random(0)
    points = [(rng.choice((1, 2)), 8 * rng.randint(1, 9), rng.randint(1, 20), rng.randint(1, 20), 1) for _ in range(400)]
    env = programs.environment(points)
    good = (env["H"] >= 3) & (env["W"] % 4 == 0) & (env["B"] == 1)
    seed = {"B": 1, "C": 64, "H": 8, "W": 8, "T": 1}
    domain = learn((Condition("C", "%", 0, 8),), env, good, seed, "BCHW")
    assert text(domain) == "C % 8 == 0 and H >= 3 and W % 4 == 0 and B == 1"
    with pytest.raises(LookupError, match="no condition"):  # the seed itself is bad
        learn((), programs.environment([(1, 64, 8, 8, 1)]), np.zeros(1, dtype=np.bool_), seed, "BCHW")


def test_a_domain_may_join_a_size_and_an_argument() -> None:
    rng = random.Random(1)
    points = [(1, 8 * rng.randint(1, 40), 4, 4, 1, rng.randint(1, 16), rng.choice((1, 2, 3, 4))) for _ in range(400)]
    env = programs.environment(points, ("B", "C", "H", "W", "T", "heads", "kv"))
    seed = {"B": 1, "C": 64, "H": 4, "W": 4, "T": 1, "heads": 4, "kv": 2}
    good = (env["C"] % env["heads"] == 0) & (env["heads"] % env["kv"] == 0)
    names = ("B", "C", "H", "W", "heads", "kv")
    domain = learn((Condition("C", "%", 0, 8),), env, good, seed, names)
    assert text(domain) == "C % 8 == 0 and C % heads == 0 and heads % kv == 0"
    assert compile_text(text(domain))({"C": 24, "heads": 3, "kv": 1})
    assert text(learn((), env, env["C"] >= env["heads"], seed, names)) == "C >= heads"


HEADS = """
import torch
import torch.nn.functional as F
from torch import nn


class Heads(nn.Module):
    # an argument that C has to be divided by, and padding to whole windows

    def __init__(self, channels, heads=4, window=5):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias = nn.Parameter(torch.zeros(heads, window**2, window**2))

    def forward(self, x):
        b, c, h, w = x.shape
        n = self.window
        y = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -w % n, 0, -h % n))
        rows, columns = y.shape[1] // n, y.shape[2] // n
        y = y.view(b, rows, n, columns, n, c).transpose(2, 3).reshape(-1, n * n, c)
        q, k, v = self.qkv(y).view(len(y), n * n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-1, -2) + self.bias).softmax(-1) @ v).transpose(1, 2).reshape(b, rows, columns, n, n, c)
        y = y.transpose(2, 3).reshape(b, rows * n, columns * n, c)[:, :h, :w]
        return x + y.permute(0, 3, 1, 2)
"""


def test_windows_with_padding_and_heads_have_forms(tmp_path: Path) -> None:
    """In inference; the kept forms of swin have both modes."""
    (tmp_path / "heads.py").write_text(HEADS)
    case = Case(
        f"{tmp_path / 'heads.py'}:Heads", "heads", {}, Shape(1, 64, 16, 16), mode="inference", settings={"sdpa": "auto"}
    )
    forms = find_forms(case).forms
    assert forms.arguments == {"heads": 4, "window": 5}
    for c, h, w in ((64, 16, 16), (8, 5, 5), (120, 1, 33)):
        windows = -(-h // 5) * -(-w // 5)
        by_hand = windows * (25 * 3 * c * c + 2 * 625 * c)
        assert value(forms.forms["macs"], C=c, H=h, W=w) == by_hand
    general = forms.general["params"]
    assert value(general, C=24, heads=3) == 3 * 24 * 24 + 3 * 24 + 3 * 625
    domain = compile_text(general.domain)
    sizes = {"B": 1, "H": 16, "W": 16, "T": 1, "window": 5}
    for c, heads in ((8, 3), (8, 16), (64, 7), (20, 8)):
        assert not domain({**sizes, "C": c, "heads": heads})
    assert domain({**sizes, "C": 24, "heads": 3})
    assert "window" in forms.held
    assert "heads" not in forms.held


GROUPED = """
import torch.nn.functional as F
from torch import nn


class Grouped(nn.Module):
    def __init__(self, channels, heads=4, kv=2):
        super().__init__()
        self.heads, self.kv = heads, kv
        self.q = nn.Linear(channels, heads * (channels // heads))
        self.k = nn.Linear(channels, kv * (channels // heads))

    def forward(self, x):
        b, c, h, w = x.shape
        rows = x.flatten(2).transpose(1, 2)
        q = self.q(rows).view(b, h * w, self.heads, -1).transpose(1, 2)
        k = self.k(rows).view(b, h * w, self.kv, -1).transpose(1, 2).repeat_interleave(self.heads // self.kv, 1)
        return (q @ k.transpose(-1, -2)).mean()
"""


def test_arguments_that_stay_at_their_values_are_named(tmp_path: Path) -> None:
    (tmp_path / "grouped.py").write_text(GROUPED)
    case = Case(f"{tmp_path / 'grouped.py'}:Grouped", "grouped", {}, Shape(1, 64, 16, 16), settings={"sdpa": "auto"})
    forms = find_forms(case).forms
    free = set().union(*(compile_text(form.expr).names for form in forms.general.values()))
    assert {"heads", "kv"} == set(forms.held) | (free & {"heads", "kv"})
    assert all(low <= high for form in forms.forms.values() for low, high in form.drawn.values())
    assert forms.forms["macs"].drawn["B"] == (1, 1)
    assert forms.forms["macs"].drawn["C"][1] >= 1024


def test_a_condition_that_another_says_is_not_written() -> None:
    both = (Condition("C", "%", 0, 4), Condition("C", "%", 0, 8), Condition("H", "%", 0, 4), Condition("C", "%", 0, 6))
    assert text(both) == "C % 8 == 0 and C % 6 == 0 and H % 4 == 0"


def test_an_atom_is_replaced_by_a_polynomial() -> None:
    square = {(("C", 1), ("H//5", 2)): Fraction(2), (("C", 1),): Fraction(1)}
    assert poly.text(poly.replaced(square, "H//5", {(("U", 1),): Fraction(1), (): Fraction(-1)})) == "C*(2*U**2 - 4*U + 3)"


def test_a_kept_general_form_that_the_module_refuses_is_told() -> None:
    case = natural_case("ccnet")
    macs = found("ccnet").forms.general["macs"]
    natural = (1, 512, 97, 97, 1)
    assert general_forms.contradiction(case, natural, regions.Region(), {"macs": macs}, 20) == ""
    wrong_ = dataclasses.replace(macs, expr=macs.expr + " + recurrence//3")
    assert "another number" in general_forms.contradiction(case, natural, regions.Region(), {"macs": wrong_}, 40)


def test_common_factors_that_are_never_0_leave_a_condition() -> None:
    up = "-(-H//7)"
    difference = {((up, 1), ("C", 1)): Fraction(3), ((up, 1),): Fraction(-196), ((up, 1), ("C//3", 1)): Fraction(-6)}
    assert "H" not in peaks._compared(difference)
    floor = {(("C//3", 1), ("H", 1)): Fraction(1), (("C//3", 1),): Fraction(-4)}
    assert peaks._compared(floor) == "(C//3)*H >= 4*(C//3)"


def test_kept_json_is_what_the_reader_reads() -> None:
    form = found("nonlocal").forms.forms["peak_bytes"]
    assert kept.form_from_json("peak_bytes", form_json(form)) == form


def test_pieces_are_only_those_that_lead_somewhere() -> None:
    made = found("nonlocal").forms.forms["peak_bytes"].pieces
    env = [{"C": c, "H": n, "W": n} for c in (4, 64, 2048) for n in (2, 9, 60, 300)]
    leads = {max(made, key=lambda piece: compile_text(piece.expr)(values)).expr for values in env}
    assert leads == {piece.expr for piece in made}
    assert callable(peaks.pieces)
