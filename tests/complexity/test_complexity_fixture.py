"""The pytest plugin: the fixture `complexity`, its numbers, its orders of growth, and what failed assertions say."""

from __future__ import annotations

import copy
import json
import operator
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attnprof
import attnprof.complexity
import attnprof.profiling.counting.trace
from attnprof import mechanisms
from attnprof.complexity import Counter, budget
from attnprof.complexity.counted import Amount, ComplexityWarning, Order
from attnprof.errors import UntraceableError, UsageError
from attnprof.profiling.forms import kept
from attnprof.profiling.growth import exponent
from attnprof.records import Shape

pytest_plugins = ("pytester",)

ROOT = Path(__file__).resolve().parents[2]
# The name that an installation registers the plugin under; a checkout alone registers none, and takes it by its module.
NAME = next(
    (each.name for each in entry_points(group="pytest11") if each.value == "attnprof.complexity"), "attnprof.complexity"
)
PLUGIN = ("-p", NAME)

MINE = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, channels, wide=False):
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 3 if wide else 1, padding=1 if wide else 0)

    def forward(self, x):
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = (q.transpose(1, 2) @ k).softmax(-1)
        return x + self.out((v @ weights.transpose(1, 2)).view(x.shape))
"""


class Plain(nn.Module):
    """A convolution, a batch normalisation and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)))


class Windows(nn.Module):
    """Attention inside 7x7 windows: sides have to be multiples of 7."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.view(b, c, h // 7, 7, w // 7, 7).permute(0, 2, 4, 3, 5, 1).reshape(-1, 49, c)
        return (y @ y.transpose(1, 2)).softmax(-1) @ y


class Clip(nn.Module):
    """Attention of every pixel over all pixels, frame by frame of (B, T, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(3)
        return (y.transpose(2, 3) @ y).softmax(-1)


class Rows(nn.Module):
    """A loop over the rows of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.linear(x[:, :, row].transpose(1, 2)) for row in range(x.shape[2])])


class Halving(nn.Module):
    """n * floor(log2(n)) element-wise operations on n tokens."""

    def forward(self, x: Tensor) -> Tensor:
        left = x.shape[1]
        while left > 1:
            x, left = 2 * x, left // 2
        return x


class OneSize(nn.Module):
    """A position for every pixel of a 9x9 map."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 8, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class ByValue(nn.Module):
    """What is positive."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Across(nn.Module):
    """Attention of a map's pixels over tokens."""

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) @ tokens.transpose(1, 2)


class Gated(nn.Module):
    """A map times a vector of its channels."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return x * gate[:, :, None, None]


def counter() -> Counter:
    """A counter of its own for every use."""
    return Counter()


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with mine.py, whose tests may import it."""
    pytester.makepyfile(mine=MINE)
    pytester.syspathinsert()
    return pytester


def run(suite: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    suite.makepyfile(test_it="import pytest\nfrom mine import Mine\n\n" + body)
    return suite.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider", *options)


def test_budgets_that_hold_pass(suite: pytest.Pytester) -> None:
    body = """
def test_one(complexity):
    cost = complexity(Mine(64), "1x64x33x33")
    assert cost.params == 16_640 == cost.counts.params
    assert cost.macs <= "170 MMACs" and cost.macs < 169_640_065 and not cost.macs < "0.1 GMACs"
    assert cost.flops > "339 MFLOPs" and "1 GFLOPs" >= cost.flops
    assert cost.peak_bytes <= "9.9 MiB" and cost.peak_bytes <= "10.4 MB" and cost.peak_bytes != "10 MiB"
    assert cost.resident_bytes == 4 * (16_640 + 64 * 33 * 33)
    assert cost.activation_bytes >= cost.peak_bytes and cost.peak_cuda_bytes >= cost.peak_bytes
    assert cost.bytes_moved >= 1 and cost.record.case.mode == "inference"

def test_orders(complexity):
    cost = complexity(Mine(64), (1, 64, 33, 33))
    assert cost.order("peak", "N") == 2 and cost.order("macs", "B") == 1 and cost.order("params", "N") == 0
    assert cost.order("peak", "H") == 2

@pytest.mark.parametrize("name", ["mine.py:Mine", "mine:Mine"])
def test_paths_and_names(complexity, name):
    wide, narrow = (complexity(name, "1x64x33x33", mode="training", channels=64, wide=wide) for wide in (True, False))
    assert wide.macs > narrow.macs and wide.params == narrow.params + 8 * 64 * 64
    assert complexity("ccnet", "1x64x33x33").order("peak") <= 1.5 < complexity("nonlocal", "1x64x33x33").order("peak")
    assert complexity("ccnet", "1x64x33x33", recurrence=1).order("macs", "C") <= 2
"""
    run(suite, body).assert_outcomes(passed=4)


# each: what is asserted, and what its message has to have
FAILING = {
    "budget": (
        'complexity(Mine(64), "1x64x33x33").peak_bytes <= "2 MiB"',
        "*assert peak memory 9.85 MiB <= 2 MiB",
        "*Mine, 1x64x33x33, inference: 10,323,720, 7.85 MiB (4.92 times) over 2,097,152",
        "*alive at the peak:",
        "* 45.9 % *4.52 MiB  _softmax, 1x1089x1089",
        "* 8.1 % *817 KiB  convolution in qkv, 1x192x33x33",
    ),
    "order": (
        'complexity(Mine(64), "1x64x33x33").order("peak", "N") <= 1',
        "*assert order of peak memory in N: 2 <= 1",
        "*Mine, 1x64x33x33, inference: 9.85 MiB, and it grows as N[*][*]2",
        "*exact: 7 sizes, 1x64x1584x1584 to 1x64x11088x11088",
        "*alive at the peak:",
        "* 45.9 % *4.52 MiB  bmm, 1x1089x1089",
    ),
    "operations": (
        'complexity(Mine(64), "1x64x33x33").macs < 160_000_000',
        "*assert 169.6 MMACs < 160.0 MMACs",
        "*: 169,640,064, 9.640 MMACs (6.03 %) over 160,000,000",
        "*by op:",
        "* 89.5 % *151.8 MMACs  bmm",
        "* 7.9 % *13.38 MMACs  convolution in qkv",
    ),
    "parameters": (
        'complexity(Mine(64), "1x64x33x33").params <= "16 K"',
        "*assert parameters 16.64 K <= 16 K",
        "*: 16,640, 640 (4 %) over 16,000",
        "* 73.8 % *12.29 K  qkv.weight",
    ),
    "the other way round": (
        '"1 GiB" <= complexity("nonlocal", "1x64x33x33", mode="training").peak_bytes',
        "*assert 1 GiB <= peak memory 14.5 MiB",
        "*nonlocal, 1x64x33x33, training: 15,215,756, 1009 MiB (98.6 %) under 1,073,741,824",
        "*_softmax_backward_data (backward), 1x1089x1089",
        "*and 8 more",
    ),
    "two modules": (
        'complexity("nonlocal", "1x64x33x33").macs < complexity("ccnet", "1x64x33x33").macs',
        "*assert 84.82 MMACs < 21.50 MMACs",
        "*63.32 MMACs (3.94 times) over 21,501,216 of ccnet, 1x64x33x33, inference",
    ),
    "nearly": (
        'complexity(Mine(64), "1x64x33x33").macs + 1 < complexity(Mine(64), "1x64x33x33").macs',
        "*assert 169,640,065 MACs < 169,640,064 MACs",
        "*: 169,640,064, 1* under 169,640,065",
    ),
    "an order the other way round": (
        '1 >= complexity(Mine(64), "1x64x33x33").order("peak", "N")',
        "*assert order of peak memory in N: 1 >= 2",
    ),
    "exactly": ('complexity("se", "1x64x9x9").params != 512', "*assert parameters 512 != 512", "*: 512, equal to 512"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_a_failed_assertion_says(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in ("CI", "BUILD_NUMBER"):  # where they are set, pytest cuts nothing off
        monkeypatch.delenv(variable, raising=False)
    condition, *lines = FAILING[name]
    result = run(suite, f"def test_it(complexity):\n    assert {condition}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E {line}" for line in lines])
    result.stdout.no_fnmatch_line("*truncated*")
    result.stdout.no_fnmatch_line("*counted.py*")


def examples() -> list[str]:
    """The test modules in the plugin's docstring and in README."""
    assert attnprof.complexity.__doc__ is not None
    ours = textwrap.dedent(attnprof.complexity.__doc__.split("\n\n")[1])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return [ours, *(block for block in fenced if "(complexity" in block)]


@pytest.mark.parametrize("number", range(len(examples())))
def test_documented_examples_pass(pytester: pytest.Pytester, number: int) -> None:
    """With the module of README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (mine,) = re.findall(r"^```python\n((?:(?!^```).)*?^class Mine.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    pytester.makepyfile(
        mine=mine, test_it="from mine import Mine\n\n" + examples()[number].replace("from mine import Mine", "")
    )
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= 1


def test_comparisons_of_others_are_left_to_pytest(suite: pytest.Pytester) -> None:
    result = run(suite, "def test_it(complexity):\n    assert [1, 2] == [1, 3]\n")
    result.stdout.fnmatch_lines(["E * At index 1 diff: 2 != 3"])


def test_mistakes_end_the_traceback_at_the_line_of_the_test(suite: pytest.Pytester) -> None:
    result = run(suite, 'def test_it(complexity):\n    assert complexity("se", "1x64x9x9").macs <= "2 GFLOPs"\n')
    result.stdout.fnmatch_lines(["E *UsageError: '2 GFLOPs' counts flops: write a budget of macs as '1.5 GMACs'."])
    result.stdout.no_fnmatch_line("*budget.py*")


@pytest.mark.parametrize(
    ("made", "shape", "lines", "frames"),
    [
        (
            "Fails(64)",
            "1x64x33x33",
            ["E *ValueError: not today", "E *Fails, 1x64x33x33, inference: fails.py:8: raise ValueError*"],
            True,
        ),
        ("Mine(64)", "64x33", ["E *Error: *", "E *Mine, 64x33, inference: mine.py:10: q, k, v = self.qkv(x)*"], True),
        ("torch.nn.Conv2d(3, 4, 1)", "1x64x9x9", ["E *Error: *", "E *counted: Conv2d, 1x64x9x9, inference"], False),
        ("'se'", "64x33", ["E *UsageError: a shape is written 'BxCxHxW'*"], False),
        (
            "'fails.py:Fails'",
            "1x64x9x9",
            ["E *ValueError: not today", "E *fails.py:Fails, 1x64x9x9, inference: fails.py:8: *"],
            True,
        ),
    ],
)
def test_what_a_module_raises_is_told_without_our_frames(
    suite: pytest.Pytester, made: str, shape: str, lines: list[str], frames: bool
) -> None:
    failing = """
from torch import nn

class Fails(nn.Module):
    def __init__(self, channels=64):
        super().__init__()

    def forward(self, x):
        raise ValueError("not today")
"""
    suite.makepyfile(fails=failing)
    body = f"import torch\nfrom fails import Fails\n\ndef test_it(complexity):\n    complexity({made}, {shape!r})\n"
    result = run(suite, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(lines)
    text = result.stdout.str()
    assert "attnprof/" not in text.partition("= FAILURES")[2].partition("short test summary")[0]
    assert "site-packages" not in text
    assert ("def forward" in text) == frames
    assert len(result.outlines) < 60


def test_an_error_of_a_module_keeps_its_type_and_its_cause() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise LookupError("second") from error

    with pytest.raises(LookupError, match="second") as caught:
        counter()(Raises(), "1x8x9x9")
    assert isinstance(caught.value.__cause__, KeyError)
    files = {Path(str(entry.path)).name for entry in caught.traceback}
    assert files == {"test_complexity_fixture.py", "__init__.py"}, "the test, a hidden one, and the module"


def test_in_every_worker_of_xdist(suite: pytest.Pytester) -> None:
    body = """
@pytest.mark.parametrize("channels", [8, 16, 24])
def test_one(complexity, channels):
    assert complexity(Mine(channels), (1, channels, 9, 9)).params <= 4 * channels**2

@pytest.fixture(scope="session")
def cost(complexity):
    return complexity("se", "1x64x9x9")

def test_a_fixture_of_the_session(cost):
    assert cost.params == 512
"""
    result = run(suite, body, "-n", "2")
    result.assert_outcomes(failed=3, passed=1)
    result.stdout.fnmatch_lines(["E *assert parameters 288 <= 256"])


def test_it_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\n\ndef test_it():\n    assert 'torch' not in sys.modules\n")
    plain = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", f"no:{NAME}")
    with_it = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error", *PLUGIN)
    with_it.assert_outcomes(passed=1)
    assert [line.partition(" in ")[0] for line in with_it.outlines] == [line.partition(" in ")[0] for line in plain.outlines]
    assert pytester.runpytest_subprocess("--help", *PLUGIN).ret == 0
    pytester.runpytest_subprocess("--fixtures", *PLUGIN).stdout.fnmatch_lines(["complexity*session*", "*Budgets of modules*"])


def test_importing_the_plugin_imports_pytest_alone() -> None:
    code = "import pytest, sys; before = set(sys.modules); import attnprof.complexity; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {name for name in done.stdout.split() if not name.startswith("__editable__")} == {"attnprof", "attnprof.complexity"}


_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=_GPU)])
def test_the_module_is_left_as_it_was(device: str) -> None:
    module = Plain().to(device)
    module.conv.train(mode=False)
    module.conv.weight.requires_grad_(False)
    before = {name: (id(value), value.clone()) for name, value in module.state_dict(keep_vars=True).items()}
    states = [part.training for part in module.modules()]
    drawn = torch.get_rng_state()
    cost = counter()(module, "2x8x9x9", mode="training")
    assert cost.order("peak") == 1 == cost.order("macs", "B")
    after = module.state_dict(keep_vars=True)
    assert list(after) == list(before)
    for name, (address, value) in before.items():
        assert id(after[name]) == address
        assert after[name].device.type == device
        assert device == "meta" or torch.equal(after[name], value)
        assert after[name].grad is None
    assert [part.training for part in module.modules()] == states
    assert not module.conv.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), drawn)


def test_train_and_eval_are_counted_as_the_module_stands() -> None:
    module, counted = Plain(), counter()
    noisy = counted(module, "2x8x9x9", mode="training").flops
    assert counted(module.eval(), "2x8x9x9", mode="training").flops < noisy


# The orders of the closed forms that are kept beside the catalogue were verified on 200 draws each.
PICKED = ("se", "cbam", "ccnet", "nonlocal", "isa", "psanet", "axial", "eanet", "swin", "gsop", "tam", "ppm")


@pytest.mark.parametrize("name", PICKED)
def test_orders_are_those_of_the_kept_closed_forms(name: str) -> None:
    mechanism = mechanisms.load(name)
    full, natural = f"{mechanism.family}/{mechanism.name}", mechanism.natural
    assert natural is not None
    cost = counter()(name, Shape(1, natural.channels, natural.height, natural.width, natural.frames))
    forms = kept.forms_of(full, "inference")
    assert forms is not None
    for metric in ("macs", "flops", "peak_bytes"):
        found = cost.order(metric, "N")
        assert found == exponent(forms.forms[metric].order), metric
        assert found.growth.exact


@pytest.mark.parametrize(
    ("module", "inputs", "metric", "variable", "order"),
    [
        (Plain(), "1x8x33x35", "macs", "N", 1),  # sides are rounded up
        (Plain(), "1x8x33x35", "peak", "W", 1),
        (Windows(), "1x8x14x14", "peak", "N", 1),
        (Rows(), "1x8x9x9", "macs", "N", 1),
        (Rows(), "1x8x9x9", "macs", "B", 1),
        (nn.MultiheadAttention(16, 4, batch_first=True), [(2, 10, 16)] * 3, "macs", "N", 2),
        (Clip(), (1, 4, 3, 9, 9), "macs", "T", 1),
        (Clip(), (1, 4, 3, 9, 9), "macs", "N", 2),
        (Across(), [(1, 8, 5, 5), torch.ones(1, 25, 8)], "macs", "N", 2),
        (nn.Linear(8, 8), (5, 8), "macs", "B", 1),
        (nn.Embedding(9, 8), torch.ones(2, 5, dtype=torch.long), "bytes_moved", "N", 1),
        (Gated(), [(1, 8, 9, 9), (1, 8)], "flops", "N", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value)[:20],
)
def test_orders_of_modules(module: nn.Module, inputs: object, metric: str, variable: str, order: float) -> None:
    found = counter()(module, inputs).order(metric, variable)
    assert (float(found), found.growth.exact) == (order, True)


def test_what_is_no_polynomial_gets_a_slope_and_says_so() -> None:
    found = counter()(Halving(), "1x64x8").order("flops")
    assert not found.growth.exact
    assert 1 < found < 1.2


def test_a_size_is_traced_once_for_all_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = counter()(Plain(), "1x8x9x9")
    cost.order("macs")
    monkeypatch.setattr("attnprof.profiling.counting.trace.follow_module", None)
    assert cost.order("peak") == 1 == cost.order("flops")


def test_names_are_counted_once_and_modules_every_time() -> None:
    counted, module = counter(), Plain()
    assert counted("se", "1x64x9x9") is counted("se", "1x64x9x9")
    assert counted("se", "1x64x9x9", reduction=4) is not counted("se", "1x64x9x9")
    before = counted(module, "1x8x9x9").macs
    module.conv = nn.Conv2d(8, 8, 1)
    assert counted(module, "1x8x9x9").macs != before


@pytest.mark.parametrize(
    ("metric", "variable", "words"),
    [
        ("peka", "N", "no count is called 'peka': did you mean 'peak'?"),
        ("latency", "N", "no count is called 'latency'"),
        ("peak", "M", "'M' is nothing that a count grows in: there are N, H, W, B, T, C."),
        ("peak", "C", "Plain, 1x8x9x9, inference: what is counted has no C .*; there are N, H, W, B."),
    ],
)
def test_wrong_words_of_an_order(metric: str, variable: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        counter()(Plain(), "1x8x9x9").order(metric, variable)


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("peak_bytes", "2", "'2' is no size of memory: write a budget of peak_bytes as '2 GiB'."),
        ("peak_bytes", "2 Gib", "'Gib' is no unit: did you mean 'GiB'?"),
        ("peak_bytes", "2 GMACs", "'2 GMACs' counts macs"),
        ("macs", "2 GiB", "'2 GiB' is a size of memory: write a budget of macs as '1.5 GMACs'."),
        ("params", "much", "'much' is no amount"),
    ],
)
def test_budgets_that_are_none(field: str, text: str, words: str) -> None:
    amount = getattr(counter()(Plain(), "1x8x9x9"), field)
    for compare in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
        with pytest.raises(UsageError) as caught:
            getattr(amount, compare)(text)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("field", "text", "number"),
    [
        ("macs", "1.5 GMACs", 1_500_000_000),
        ("macs", "1.5GMAC", 1_500_000_000),
        ("macs", "15 MACs", 15),
        ("flops", "2e3 FLOPs", 2000),
        ("params", "0.6 K", 600),
        ("params", " 25.6 M params", 25_600_000),
        ("peak_bytes", "2 GiB", 2**31),
        ("peak_bytes", "2 GB", 2 * 10**9),
        ("resident_bytes", "0.5 KiB", 512),
    ],
)
def test_budgets_as_text(field: str, text: str, number: int) -> None:
    assert budget.number(text, field) == number


@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_amounts_compare_as_their_numbers_do(name: str, off: int) -> None:
    cost, compare = counter()(Plain(), "1x8x9x9"), getattr(operator, name)
    expected = compare(0, off)
    for amount, unit in ((cost.macs, ""), (cost.macs, " MACs"), (cost.peak_bytes, " B")):
        other = int(amount) + off
        assert compare(amount, other) == compare(amount, float(other)) == compare(amount, f"{other}{unit}") == expected


def test_amounts_and_orders_are_numbers() -> None:
    cost = counter()(Plain(), "1x8x9x9")
    assert (type(cost.macs), type(cost.order("macs"))) == (Amount, Order)
    assert f"{cost.params:,}" == "600"
    assert hash(cost.params) == hash(600)
    assert hash(cost.order("macs")) == hash(1)
    assert sum([cost.params, cost.params]) == 1200
    assert (
        copy.deepcopy([cost.params, cost.order("macs")])
        == pickle.loads(pickle.dumps([cost.params, cost.order("macs")]))
        == [600, 1]
    )
    assert json.dumps([cost.params]) == "[600]"
    assert repr(cost) == "<complexity of Plain, 1x8x9x9, inference>"
    assert repr(cost.params) == "600"


def test_what_takes_one_size_or_depends_on_values_has_no_order() -> None:
    with pytest.raises(UntraceableError, match="OneSize, 1x8x9x9, inference: no order in N: it cannot be traced at twice"):
        counter()(OneSize(), "1x8x9x9").order("peak")
    cost = counter()(ByValue(), "1x8x9x9")
    with pytest.warns(ComplexityWarning, match=r"depends on data \(index 1\) and was counted on one run on seeded values"):
        assert cost.peak_bytes > 0
    with pytest.raises(UntraceableError, match=r"no order, its cost depends on data \(index\)"):
        cost.order("peak")


def test_ops_without_a_rule_are_told_where_the_test_asks() -> None:
    @torch.library.custom_op("fixture_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return 2 * x

    twice.register_fake(torch.empty_like)

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return twice(x)

    cost = counter()(Twice(), "1x8x9x9")
    for ask in (lambda: cost.macs, lambda: cost.order("flops")):
        with pytest.warns(ComplexityWarning, match=r"not counted: fixture_tests::twice 1 \(attnprof.register_cost") as told:
            ask()
        assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cost.peak_bytes == 4 * 8 * 81


def test_the_numbers_are_those_of_profile() -> None:
    cost = counter()("nonlocal", "1x64x9x9", mode="training", dtype="float16")
    assert cost.record == attnprof.profile("nonlocal", "1x64x9x9", mode="training", dtype="float16")
