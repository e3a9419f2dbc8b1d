"""The cross-check: known differences found and explained, counters that fail in every way, modules left clean, every format."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof.errors import SpecError, UsageError
from attnprof.execute import Options
from attnprof.execute.crosscheck import attach, crosscheck_cases
from attnprof.profiling.counting.trace import trace_case
from attnprof.profiling.crosscheck import ask, counters
from attnprof.profiling.crosscheck.explain import Item, Ran, Tally, judge
from attnprof.profiling.crosscheck.names import EVERY, expand
from attnprof.records import Case, Opinion, Record, Shape, record_from_json, to_json
from attnprof.spec import parse_text
from tests.command import exit_code
from tests.makers.crosscheck_page import page
from tests.profiling.peers import PEERS

CHANNELS, HEIGHT, WIDTH = 32, 6, 9
PLACES = HEIGHT * WIDTH
PAIRS = 2 * PLACES**2 * CHANNELS  # scores and weighted sums of an attention over all places
FLASH = "_scaled_dot_product_flash_attention_for_cpu"
SHAPE = Shape(1, 16, 6, 5)


def opinions(name: str, batch: int = 1) -> dict[str, Opinion]:
    module = PEERS[name].build(CHANNELS)
    found = ask.crosscheck_module(module, [torch.randn(batch, CHANNELS, HEIGHT, WIDTH)])
    return {opinion.counter: opinion for opinion in found}


@pytest.mark.parametrize("name", PEERS)
def test_every_difference_is_attributed(name: str) -> None:
    """No counter crashes on the twelve, nothing is unexplained, and what is named sums to the difference."""
    truth = PEERS[name].macs(CHANNELS, HEIGHT, WIDTH)
    found = opinions(name)
    assert tuple(found) == EVERY
    for opinion in found.values():
        assert opinion.status in ("exact", "explained"), opinion
        assert opinion.macs is not None
        assert opinion.macs - truth == sum(opinion.extra.values()) - sum(opinion.missed.values())
        assert (opinion.error == 0.0) == (opinion.macs == truth)
        assert bool(opinion.missed or opinion.extra) == (opinion.status == "explained")
    assert found["attnprof real"].status == "exact"


@pytest.mark.parametrize(
    ("name", "counter", "missed"),
    [
        ("sdpa", "torch real", {f"aten::{FLASH}": PAIRS}),
        ("sdpa", "fvcore", {f"scaled_dot_product_attention ({FLASH})": PAIRS}),
        ("sdpa", "ptflops aten", {f"aten::{FLASH}": PAIRS}),
        ("sdpa", "ptflops pytorch", {f"scaled_dot_product_attention ({FLASH})": PAIRS}),
        ("sdpa", "torch meta", {}),
        ("mha", "torch real", {"aten::_native_multi_head_attention": PAIRS + 4 * PLACES * CHANNELS**2}),
        ("einsum", "ptflops pytorch", {"einsum (bmm)": PAIRS}),
        ("matmul", "ptflops pytorch", {"@ (bmm)": PAIRS}),
        ("matmul", "fvcore", {}),
        ("linalg", "fvcore", {"bmm": PLACES * CHANNELS**2}),
        ("linalg", "ptflops pytorch", {"linalg.matmul (bmm)": PLACES * CHANNELS**2}),
        ("fn", "ptflops pytorch", {"conv2d (convolution)": 9 * PLACES * CHANNELS, "linear (mm)": PLACES * CHANNELS**2}),
    ],
)
def test_known_misses_are_named(name: str, counter: str, missed: dict[str, int]) -> None:
    opinion = opinions(name)[counter]
    assert dict(opinion.missed) == missed
    for label in missed:
        assert label in opinion.sentence


def test_what_is_over_counted_is_named() -> None:
    found = opinions("se")
    pooled = CHANNELS * PLACES
    assert found["fvcore"].extra == {"adaptive_avg_pool2d": pooled}
    assert "convention" in found["fvcore"].sentence
    assert found["ptflops pytorch"].extra["nn.AdaptiveAvgPool2d"] == pooled
    assert found["ptflops aten"].extra == {"bias additions": CHANNELS + CHANNELS // 16}


def test_an_autograd_function_that_a_tracer_does_not_enter() -> None:
    assert "autograd.Function" in opinions("linalg")["fvcore"].sentence


def _gate(a: Tensor, b: Tensor) -> Tensor:
    return torch.sigmoid(a) * b + torch.matmul(a, b.transpose(-1, -2)).sum(-1, keepdim=True)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _GATE = torch.jit.script(_gate)  # of the module's file, as people have it: it cannot be copied


class Scripted(nn.Module):
    """A product in eager code, one in compiled code, and one in an autograd.Function where that is asked for."""

    def __init__(self, closed: bool = False) -> None:
        super().__init__()
        self.a, self.closed = nn.Conv2d(CHANNELS, CHANNELS, 1), closed

    def forward(self, x: Tensor) -> Any:
        y = _GATE(self.a(x), x)
        return _Doubled.apply(y) if self.closed else y  # type: ignore[no-untyped-call]


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.bmm(x.flatten(0, 1), x.flatten(0, 1).transpose(1, 2))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_that_the_cpu_runs_as_one_op_is_the_same(kind: type[nn.Module]) -> None:
    """The trace has products where the CPU may have one op: equal numbers in one submodule are no difference."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(CHANNELS, CHANNELS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.cell(x.flatten(2).transpose(1, 2))[0]
            return out

    (own,) = ask.crosscheck_module(Recurrent(), [torch.randn(1, CHANNELS, HEIGHT, WIDTH)], ["attnprof"])
    gates = 4 if kind is nn.LSTM else 3
    assert own.macs == 2 * gates * PLACES * CHANNELS**2
    assert (own.status, own.missed, own.extra) == ("exact", {}, {})


def test_what_a_counter_has_twice() -> None:
    """ptflops' formula of nn.MultiheadAttention holds the products that its patched functions count as well."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.MultiheadAttention(CHANNELS, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2).transpose(1, 2)
            out: Tensor = self.heads(tokens, tokens, tokens)[0]
            return out

    found = ask.crosscheck_module(Heads(), [torch.randn(1, CHANNELS, HEIGHT, WIDTH)], ["ptflops pytorch"])
    (patched,) = found
    assert any(amount == PAIRS for amount in patched.extra.values())
    assert "counts bmm twice" in patched.sentence
    assert "ran nothing of the kind" not in patched.sentence


@pytest.mark.parametrize("closed", [False, True])
def test_compiled_code_that_a_tracer_does_not_enter(closed: bool) -> None:
    """bmm of C maps H x W in TorchScript: C H W H MACs, which fvcore reports as an unsupported prim::CallFunction."""
    found = ask.crosscheck_module(Scripted(closed), [torch.randn(1, CHANNELS, HEIGHT, WIDTH)], ["fvcore", "torch"])
    opinion = found[0]
    assert opinion.status == "explained"
    assert opinion.missed == {"bmm": (2 if closed else 1) * CHANNELS * PLACES * HEIGHT}
    assert "code compiled by torch.jit.script (prim::CallFunction)" in opinion.sentence
    assert ("autograd.Function" in opinion.sentence) == closed
    assert "unexplained" not in opinion.sentence
    assert [other.status for other in found[1:]] == ["exact", "exact"]


class HalfScripted(Scripted):
    """The same after an eager product that the tracer sees and has no formula for."""

    def forward(self, x: Tensor) -> Any:
        rows = x.flatten(0, 1)
        return super().forward(x) + torch.baddbmm(rows[:, :, :1], rows, torch.ones(CHANNELS, WIDTH, WIDTH)).unflatten(
            0, (1, -1)
        )


def test_eager_code_beside_compiled_code_keeps_its_own_reason() -> None:
    (opinion,) = ask.crosscheck_module(HalfScripted(), [torch.randn(1, CHANNELS, HEIGHT, WIDTH)], ["fvcore"])
    assert opinion.status == "explained"
    assert opinion.missed == {"bmm": CHANNELS * PLACES * HEIGHT, "baddbmm": CHANNELS * PLACES * WIDTH}
    assert "has no formula for: baddbmm" in opinion.sentence
    assert "(prim::CallFunction), which runs: bmm" in opinion.sentence


def test_a_batch_that_a_counter_divides_by() -> None:
    opinion = opinions("shared", batch=3)["ptflops pytorch"]
    assert opinion.status == "explained"
    assert "by the batch" in opinion.sentence
    assert opinion.macs is not None
    assert sum(opinion.missed.values()) - sum(opinion.extra.values()) == 3 * PEERS["shared"].macs(32, 6, 9) - opinion.macs


class Unused(nn.Module):
    """A product whose result nothing uses: eager runs it, torch.jit drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.b(x)
        out: Tensor = self.a(x)
        return out


def test_calls_whose_result_nothing_uses() -> None:
    (opinion,) = ask.crosscheck_module(Unused(), [torch.randn(3, 8)], ["fvcore"])
    assert (opinion.status, opinion.missed) == ("explained", {"linear (mm)": 3 * 8 * 4})
    assert "nothing uses" in opinion.sentence


class UnusedBesideRecurrence(nn.Module):
    """A layer that the counter has no formula for, and another whose result nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.dead, self.gru = nn.Linear(8, 4, bias=False), nn.GRU(8, 8, bias=False, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        out: Tensor = self.gru(x)[0]
        return out


def test_calls_whose_result_nothing_uses_beside_what_has_no_formula() -> None:
    (opinion,) = ask.crosscheck_module(UnusedBesideRecurrence(), [torch.randn(1, 3, 8)], ["fvcore"])
    assert opinion.status == "explained"
    assert opinion.missed["linear (mm)"] == 3 * 8 * 4
    assert sum(opinion.missed.values()) == 3 * 8 * 4 + 3 * (2 * 3 * 8 * 8)
    assert "nothing uses" in opinion.sentence
    assert "no formula for" in opinion.sentence


class Carrying(nn.Module):
    """Holds everything that a counter may spoil: hooks, buffers, grads, own attributes, a part in another mode, randomness."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.note = {"calls": 0}
        self.conv.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:
        self.note["calls"] += 1
        out: Tensor = self.drop(self.bn(self.conv(x)))
        return out + random.random() + torch.rand(())


def test_the_module_is_left_clean() -> None:
    module = Carrying().train()
    module.bn.eval()
    module(torch.randn(2, 4, 5, 5)).sum().backward()
    x = torch.randn(2, 4, 5, 5, requires_grad=True)

    def state() -> list[Any]:
        parts = [(name, sorted(part.__dict__), part.training) for name, part in module.named_modules()]
        hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
        grads = {name: None if p.grad is None else (id(p), p.grad.tolist()) for name, p in module.named_parameters()}
        tensors = {name: (id(value), value.tolist()) for name, value in module.state_dict(keep_vars=True).items()}
        globally = len(torch.nn.modules.module._global_forward_hooks)
        return [
            parts,
            hooks,
            grads,
            tensors,
            dict(module.note),
            x.grad,
            globally,
            random.getstate(),
            torch.get_rng_state().tolist(),
        ]

    before = state()
    found = ask.crosscheck_module(module, [x])
    assert state() == before
    assert all(opinion.macs for opinion in found)


def _raises(module: nn.Module, inputs: Any) -> Any:
    print("half way")
    warnings.warn("a counter warns", UserWarning, stacklevel=1)
    raise ZeroDivisionError("of its own making")


def _exits(module: nn.Module, inputs: Any) -> Any:
    sys.exit(7)


def _absent(module: nn.Module, inputs: Any) -> Any:
    raise ModuleNotFoundError("No module named 'fvcore'", name="fvcore")


def _torchvision(module: nn.Module, inputs: Any) -> Any:
    raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        (_raises, "crashed", "ZeroDivisionError: of its own making"),
        (_exits, "crashed", "SystemExit: 7"),
        (_absent, "not installed", "pip install 'attnprof[crosscheck]'"),
        (_torchvision, "crashed", "torchvision::nms does not exist"),
    ],
)
def test_a_counter_that_fails(
    how: Any, status: str, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ask, "ASK", {**counters.ASK, "fvcore": how})
    first, second = ask.crosscheck_module(Unused(), [torch.randn(3, 8)], ["fvcore", "torch meta"])
    assert (first.status, first.macs, first.error) == (status, None, None)
    assert words in first.sentence
    assert second.status == "exact"
    assert capfd.readouterr() == ("", "")
    if how is _raises:
        assert first.warnings == ("half way", "UserWarning: a counter warns")


def test_a_mode_that_gives_no_number_says_what_it_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ptflops prints what went wrong and returns None."""

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad or torch.is_grad_enabled():
                raise ValueError("only without gradients")
            return x @ x

    found = ask.crosscheck_module(Odd(), [torch.randn(4, 4)], ["ptflops aten", "torch real"])
    assert [opinion.status for opinion in found] == ["crashed", "exact"]
    assert "only without gradients" in found[0].sentence


def test_what_does_not_fit_is_not_run() -> None:
    case = Case("spatial/nonlocal", "nonlocal", {}, SHAPE)
    counts = trace_case(case)
    for counter in EVERY:
        opinion = ask.ask_case(case, counter, counts, usable_bytes=1000)
        assert opinion.status == ("exact" if counter == "torch meta" else "not run")
        assert "which needs about" in opinion.sentence or counter == "torch meta"


FATAL = """\
import os, time
from torch import nn


class Ends(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        if not x.is_meta:
            os.write(1, b"about to go")
            os._exit(3)
        return self.conv(x)


class Sleeps(Ends):
    def forward(self, x):
        if not x.is_meta:
            time.sleep(60)
        return self.conv(x)
"""


def test_a_counter_that_takes_its_process_along(tmp_path: Path) -> None:
    """It is named, and the rest are asked in a fresh process."""
    (tmp_path / "fatal.py").write_text(FATAL)
    case = Case(f"{tmp_path}/fatal.py:Ends", "Ends", {}, SHAPE)
    (record,) = crosscheck_cases([case], ("fvcore", "attnprof real", "torch meta"))
    assert [opinion.status for opinion in record.crosscheck] == ["crashed", "crashed", "exact"]
    assert "exit code 3" in record.crosscheck[0].sentence
    assert "about to go" in record.crosscheck[0].sentence
    assert record.counts is not None
    assert record.crosscheck[2].macs == record.counts.macs == 16 * 16 * 30


def test_a_counter_that_does_not_come_back(tmp_path: Path) -> None:
    (tmp_path / "fatal.py").write_text(FATAL)
    case = Case(f"{tmp_path}/fatal.py:Sleeps", "Sleeps", {}, SHAPE)
    (record,) = crosscheck_cases([case], ("attnprof real",), Options(timeout_s=4))
    assert [(each.status, each.macs) for each in record.crosscheck] == [("timeout", None)]
    assert "no answer within 4 s" in record.crosscheck[0].sentence


def test_a_module_that_cannot_be_traced_has_no_opinions(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError('not today')\n")
    (record,) = crosscheck_cases([Case(f"{tmp_path}/bad.py:Bad", "Bad", {}, SHAPE)], ("torch meta",))
    assert (record.status, record.counts, record.crosscheck) == ("error", None, ())
    assert "not today" in record.detail


# The explanation, on lists by hand --------------------------------------------------------------------------------------------


def tally(*items: Item, macs: int, known: tuple[str, ...] = ("mm", "bmm"), prunes: bool = False) -> Tally:
    return Tally(
        macs,
        items,
        group=lambda row: row.op,
        reason=lambda row: "" if row.op in known else "has no formula for",
        name=lambda row: row.op,
        prunes=prunes,
    )


def test_a_difference_without_a_cause_is_unexplained() -> None:
    rows = [Ran("mm", "a", "", 2, 100), Ran("bmm", "b", "", 1, 50)]
    opinion = judge("x", 150, rows, tally(Item("mm", "mm", 90), Item("bmm", "bmm", 50), macs=140))
    assert (opinion.status, opinion.missed) == ("unexplained", {"mm": 10})
    assert opinion.sentence.startswith("unexplained: mm")


def test_a_total_that_is_not_the_sum_of_its_parts_is_unexplained() -> None:
    opinion = judge("x", 100, [Ran("mm", "", "", 1, 100)], tally(Item("mm", "mm", 100), macs=101))
    assert opinion.status == "unexplained"
    assert sum(opinion.extra.values()) == 1


def test_errors_that_cancel_are_not_exact() -> None:
    rows = [Ran("mm", "", "", 1, 100), Ran("odd", "", "", 1, 7)]
    opinion = judge("x", 107, rows, tally(Item("mm", "mm", 100), Item("pool", "pool", 7, known=False), macs=107))
    assert (opinion.status, opinion.error) == ("explained", 0.0)
    assert (opinion.missed, opinion.extra) == ({"odd": 7}, {"pool": 7})


def test_rounding_of_einsum_has_a_bound() -> None:
    rows = [Ran("bmm", "", "torch.functional.einsum", 1, 12345)]
    near = judge("x", 12345, rows, tally(Item("bmm", "einsum", 12350), macs=12350))
    far = judge("x", 12345, rows, tally(Item("bmm", "einsum", 13000), macs=13000))
    assert (near.status, far.status) == ("explained", "unexplained")


def test_no_traced_macs_leave_the_error_open() -> None:
    opinion = judge("x", 0, [], tally(Item("pool", "pool", 9, known=False), macs=9))
    assert (opinion.status, opinion.error, opinion.extra) == ("explained", None, {"pool": 9})
    assert judge("x", 0, [], tally(macs=0)).error == 0.0


# Spec, run, report, command line ----------------------------------------------------------------------------------------------

SPEC = """\
name: checked
input: {{channels: 16, hw: 6x5}}
mechanisms: [se, nonlocal]
metrics: [macs]
measure: {{device: none}}
counters: {counters}
"""


@pytest.mark.parametrize(("status", "code"), [("unexplained", 4), ("explained", 0), ("crashed", 0)])
def test_an_unexplained_difference_is_an_exit_code_where_asked(
    status: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cases(asked: Any, *_: Any) -> list[Record]:
        counts = trace_case(asked[0])
        return [Record(asked[0], counts=counts, crosscheck=(Opinion("fvcore", status, 9, -0.1, {"bmm": 1}, {}, "why"),))]

    monkeypatch.setattr("attnprof.execute.crosscheck.crosscheck_cases", cases)
    arguments = ["crosscheck", "se", "--hw", "5x5", "--channels", "16", "-q"]
    assert exit_code(*arguments, "--strict") == code
    assert exit_code(*arguments) == 0, "only where asked"
    assert status in capsys.readouterr().out


def test_counters_in_a_spec() -> None:
    assert parse_text(SPEC.format(counters="[attnprof, fvcore, ptflops, torch]")).counters == (
        "attnprof",
        "fvcore",
        "ptflops",
        "torch",
    )
    assert parse_text(SPEC.format(counters="torch")).counters == ("torch",)
    assert expand(("ptflops", "torch meta")) == ("ptflops aten", "ptflops pytorch", "torch meta")
    with pytest.raises(UsageError, match="did you mean 'fvcore'"):
        expand(["fvcor"])


@pytest.mark.parametrize(
    ("text", "words"), [("[torch, fvcor]", "6:19: counters.1: 'fvcor' is no counter"), ("[torch, torch]", "stands twice")]
)
def test_a_wrong_counter_is_an_error_at_its_place(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_text(SPEC.format(counters=text))
    assert "did you mean 'fvcore'" in str(caught.value) or "twice" in words


def test_validating_counters_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC.format(counters="[torch]"))
    code = (
        "import sys\nfrom attnprof.__main__ import main\ntry: main()\nexcept SystemExit as e: print(e, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "validate", str(tmp_path / "s.yaml")], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 False", done


def test_run_and_report_show_the_cross_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the console, md, csv and json; `report` writes it again from the store, `--resume` asks nobody again."""
    (tmp_path / "s.yaml").write_text(SPEC.format(counters="[fvcore, torch]"))
    out = tmp_path / "out"
    assert exit_code("run", str(tmp_path / "s.yaml"), "--out", str(out), "--format", "md,csv,json", "-q") == 0
    printed = capsys.readouterr().out
    assert "Cross-check" in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    marked = (out / "checked.md").read_text()
    assert "## Cross-check" in marked
    assert marked.count("| nonlocal | 1x16x6x5 float32 |") == 4
    rows = [row for row in csv.DictReader(io.StringIO((out / "checked.csv").read_text())) if row["metric"].startswith("macs:")]
    assert {row["metric"] for row in rows} == {"macs:fvcore", "macs:torch real", "macs:torch meta"}
    assert {row["mode"] for row in rows} == {"inference"}
    for row in rows:
        assert row["baseline"] == "attnprof"
        assert (float(row["ratio"]) == 1) == (row["delta"] == "0")
    records = [record_from_json(data) for data in json.loads((out / "checked.json").read_text())["records"]]
    checked = {record.case.label: record.crosscheck for record in records if record.crosscheck}
    assert {len(found) for found in checked.values()} == {3}
    assert set(checked) == {"se", "nonlocal"}
    (out / "checked.md").unlink()
    assert exit_code("report", str(out), "--format", "md") == 0
    assert (out / "checked.md").read_text() == marked
    size = (out / "checked.jsonl").stat().st_size
    assert exit_code("run", str(tmp_path / "s.yaml"), "--out", str(out), "--resume", "-q") == 0
    added = (out / "checked.jsonl").read_bytes()[size:].splitlines()
    assert [json.loads(line)["kind"] for line in added] == ["run"]


def test_the_inference_record_holds_the_opinions() -> None:
    cases = [Case("channel/se", "se", {}, SHAPE, mode=mode) for mode in ("training", "inference")]
    records = [Record(case, counts=trace_case(case)) for case in cases]
    assert attach(records, ["fvcore"]) == [records[1]]
    assert attach(records[:1], ["fvcore"]) == records[:1]
    asked = Record(cases[1], counts=records[1].counts, crosscheck=(Opinion("fvcore", "exact"),))
    assert attach([asked], ["fvcore"]) == []
    assert attach([asked], ["fvcore", "torch meta"]) == [asked]


def test_records_with_and_without_opinions_survive_json() -> None:
    record = Record(Case("channel/se", "se", {}, SHAPE))
    assert "crosscheck" not in to_json(record)
    assert record_from_json(to_json(record)) == record
    opinion = Opinion("fvcore", "explained", 12, 0.2, {"a": 1}, {"b": 3}, "so", ("w",), 0.5)
    held = Record(record.case, crosscheck=(opinion,))
    assert record_from_json(json.loads(json.dumps(to_json(held)))) == held


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["crosscheck", "nonlocal", "mhsa", "--hw", "6x5", "--channels", "16", "-q"]
    assert exit_code(*arguments, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [entry["mechanism"] for entry in data["crosscheck"]] == ["spatial/nonlocal", "spatial/mhsa"]
    for entry in data["crosscheck"]:
        assert entry["shape"] == "1x16x6x5"
        assert tuple(opinion["counter"] for opinion in entry["counters"]) == EVERY
        for opinion in entry["counters"]:
            assert set(opinion) == {"counter", "status", "macs", "error", "missed", "extra", "sentence", "warnings", "seconds"}
            assert opinion["sentence"]
    assert exit_code(*arguments, "--counters", "torch") == 0
    printed = capsys.readouterr().out
    assert "torch real" in printed
    assert "fvcore" not in printed
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert exit_code(*arguments, "--counters", "thop") == 2


SECRET = """\
import torch
from torch import nn

library = torch.library.Library("crosscheck_test", "DEF")
library.define("secret(Tensor x) -> Tensor")
library.impl("secret", lambda x: x * 2, "CompositeExplicitAutograd")
library.impl("secret", lambda x: torch.empty_like(x), "Meta")


class Blind(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        return torch.ops.crosscheck_test.secret(self.conv(x))
"""


def test_what_is_not_counted_is_said_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An op without a formula: console, md, csv, json, compare, explain and crosscheck name it."""
    (tmp_path / "blind.py").write_text(SECRET)
    path, op = f"{tmp_path}/blind.py:Blind", "crosscheck_test::secret"
    spec = f'name: loud\ninput: {{channels: 16, hw: 6x5}}\nmechanisms: [se, {{import: "{path}"}}]\nmodes: inference\n'
    (tmp_path / "s.yaml").write_text(spec + "metrics: [macs, flops]\nmeasure: {device: none}\n")
    formats = ["--format", "md,csv,json", "--allow-import", "*", "-q"]
    assert exit_code("run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), *formats) == 0
    assert f"(1) NOT COUNTED, no formula: {op} 1" in capsys.readouterr().out
    marked = (tmp_path / "out" / "loud.md").read_text().replace(chr(92), "")
    assert f"(1) NOT COUNTED, no formula: {op} 1" in marked
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "loud.csv").read_text())))
    assert [row["reason"] for row in rows if row["label"] == "Blind"] == [f"NOT COUNTED, no formula: {op} 1"] * 2
    assert [row["reason"] for row in rows if row["label"] == "se"] == ["", ""]
    records = json.loads((tmp_path / "out" / "loud.json").read_text())["records"]
    assert [record["counts"]["uncounted"] for record in records] == [{}, {op: 1}]
    at = ["--hw", "6x5", "--channels", "16"]
    assert exit_code("compare", "se", path, *at, "--device", "none", "--mode", "inference", "--force", "-q") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"(Blind: NOT COUNTED, no formula: {op} 1)") == 2
    assert exit_code("explain", path, *at, "--mode", "inference") == 0
    assert f"Not counted (no formula), calls: {op} 1" in " ".join(capsys.readouterr().out.split())
    assert exit_code("crosscheck", path, *at, "--counters", "attnprof", "-q") == 0
    assert f"Not counted by the trace (no formula): {op} 1" in " ".join(capsys.readouterr().out.split())


def test_the_page_has_a_row_and_a_sentence_per_counter() -> None:
    case = Case("spatial/nonlocal", "nonlocal", {}, SHAPE)
    opinion = Opinion("fvcore", "explained", 120, 0.2, {"bmm": 10}, {"pool": 30}, "why", (), 0.1)
    crashed = Opinion("torch real", "crashed", sentence="crashed: no")
    record = Record(case, counts=trace_case(case), crosscheck=(opinion, crashed))
    text = page([record])
    assert "| fvcore | 0 | 1 | 0 | 0 | 0 | 0 | 0 | +20.0 % | +20.0 % | 0.10 |" in text
    assert "- **fvcore**: misses bmm in 1 mechanism (most in nonlocal" in text
    assert "- **torch real**: gave no number for nonlocal (crashed: no)." in text


def test_the_committed_page_covers_the_catalogue() -> None:
    """Every mechanism stands on it, and no verdict is 'unexplained'."""
    from attnprof import mechanisms

    text = (Path(__file__).parents[2] / "reports" / "crosscheck.md").read_text()
    for names in mechanisms.names().values():
        for name in names:
            assert f"\n| {name} |" in text.replace("\\", ""), name
    assert "| unexplained |" not in text.split("## Cross-check")[1]
