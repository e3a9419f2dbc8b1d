"""Claims files: what is read and refused, what a convention counts, which one speaks for a table, and what a verdict means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof import claims
from attnprof.claims import Claim, Paper, Table, conventions, judge, laws, reading
from attnprof.claims.expression import ExpressionError, compile_value
from attnprof.claims.judge import Tools
from attnprof.claims.parse import parse, parse_files
from attnprof.errors import SpecError, UntraceableError, UsageError
from attnprof.records import Case, Counts, OpCost, Outputs, Shape
from attnprof.spec import yaml_loader
from tests.makers import claims_page
from tests.shipped import papers_of_claims

GOOD = """\
paper: Test
title: "A test"
source: "somewhere"
cases:
  a: {mechanism: se, input: 1x64x8x8}
  b: {mechanism: ccnet, args: {recurrence: 1}, input: 1x64x8x8}
tables:
  flops: {metric: compute, unit: MFLOPs, convention: {count: mac}}
  memory: {metric: memory, unit: MB, fixed: [mode]}
claims:
  test.a: {table: flops, published: 1.5, value: a, verdict: exact, why: "because"}
  test.ratio: {table: memory, unit: x, published: "2.0", value: (a + b) / (2 * b), verdict: close, why: "because"}
"""


def read(text: str) -> Paper:
    paper, problems = parse(yaml_loader.load(text, "test.yaml"))
    assert paper is not None, [problem.text() for problem in problems]
    return paper


def problems_of(text: str) -> list[tuple[int, int, str, str]]:
    """(line, column, what, hint) of every problem that the text is refused for."""
    paper, problems = parse(yaml_loader.load(text, "test.yaml"))
    assert paper is None
    return [(problem.line, problem.column, problem.what, problem.hint) for problem in problems]


def only_problem(old: str, new: str) -> tuple[int, int, str, str]:
    """The one problem of the good file with a change in it."""
    assert GOOD.count(old) == 1, old
    (problem,) = problems_of(GOOD.replace(old, new))
    return problem


# --- what is read


def test_a_file_becomes_cases_tables_and_claims() -> None:
    paper = read(GOOD)
    assert paper.cases["b"] == Case("spatial/ccnet", "b", {"recurrence": 1}, Shape(1, 64, 8, 8), settings={"sdpa": "auto"})
    first, second = paper.claims
    assert (first.unit, first.published.low, first.published.decimals, first.grade) == ("MFLOPs", 1.5, 1, "P")
    assert (second.published.decimals, second.unit, second.source) == (1, "x", "somewhere")
    assert second.value is not None
    assert second.value({"a": 6.0, "b": 2.0}) == 2.0


def test_a_case_may_stand_in_a_network_or_be_one_alone() -> None:
    text = GOOD.replace(
        "  a: {mechanism: se, input: 1x64x8x8}",
        "  a: {host: {name: resnet50}, input: 1x3x224x224}\n"
        "  c: {mechanism: se, host: {name: resnet50, at: body}, input: 1x3x224x224}",
    )
    cases = read(text).cases
    assert cases["a"].alone
    placement = cases["c"].host
    assert placement is not None
    assert (placement.host, placement.at, placement.how) == ("resnet50", "body", "after")


@pytest.mark.parametrize(
    ("text", "low", "high", "decimals"),
    [("0.50", 0.5, 0.5, 2), ("108", 108, 108, 0), ("24.4..28.2", 24.4, 28.2, 1), ("9 438 208", 9438208, 9438208, 0)],
)
def test_printed_numbers(text: str, low: float, high: float, decimals: int) -> None:
    printed = reading.parse_published(text)
    assert printed is not None
    assert (printed.low, printed.high, printed.decimals) == (low, high, decimals)


@pytest.mark.parametrize("value", ["about 3", "", "3..", "4..3", True, None, [1]])
def test_what_is_no_printed_number(value: object) -> None:
    assert reading.parse_published(value) is None


# --- what is refused, and where


@pytest.mark.parametrize(
    ("old", "new", "at", "what", "hint"),
    [
        ("  test.a: {table: flops, ", "  test.a: {tabel: flops, table: flops, ", "tabel:", "unknown key 'tabel'", "'table'"),
        ("mechanism: se", "mechanism: sse", "sse", "no mechanism is called 'sse'", "'se'"),
        ("args: {recurrence: 1}", "args: {recurence: 1}", "recurence", "no argument 'recurence'", "'recurrence'"),
        ("args: {recurrence: 1}", "args: {recurrence: one}", "one", "'recurrence' of ccnet is int", ""),
        ("unit: MFLOPs", "unit: MB, what: ops", "MB, what", "'MB' is no unit of compute", "one of"),
        ("unit: MFLOPs, ", "", "{table: flops", "there is no unit", ""),
        ("unit: x", "unit: GFLOPs", "GFLOPs", "'GFLOPs' is no unit of memory", "one of"),
        ("count: mac", "count: macs", "macs", "'macs' is no convention of count", "'mac'"),
        ("count: mac", "counts: mac", "counts", "compute has no axis 'counts'", "'count'"),
        ("fixed: [mode]", "fixed: [moode]", "moode", "memory has no axis 'moode'", "'mode'"),
        ("metric: memory", "metric: memry", "memry", "'memry' is no metric", "'memory'"),
        ("table: memory", "table: memorys", "memorys", "there is no table 'memorys'", "'memory'"),
        ("verdict: exact", "verdict: exakt", "exakt", "'exakt' is no verdict", "'exact'"),
        ("published: 1.5", "published: about 1.5", "about", "is no printed number", "108"),
        ("value: a,", "value: c,", "c, verdict", "there is no case 'c'", "there are a, b"),
        ("value: a,", "value: a ** 2,", "a ** 2", "'a ** 2' cannot stand here", ""),
        ("value: a,", "value: eval(a),", "eval", "'eval(a)' cannot stand here", ""),
        ("value: a,", "value: a.b,", "a.b", "'a.b' cannot stand here", ""),
        ("value: a, ", "", "exact", "without `value:` nothing is counted", ""),
        ("exact, why", "exact, grade: M-high, why", "exact", "only remembered", ""),
        ("exact, why", "exact, tolerance: 3, why", "{table: flops", "wants a reason", ""),
        ("exact, why", "exact, again: test.ratoi, why", "test.ratoi", "'test.ratoi'", "'test.ratio'"),
        ("  test.ratio:", "  test.a:", "test.a: {table: memory", "the key 'test.a' stands twice (first at line 11", ""),
        ("  test.a:", "  Test a:", "Test a:", "is no id of a claim", "ccnet.r2.gflops"),
        ("se, input: 1x64x8x8", "se, input: 64x8", "64x8", "'64x8' is no shape of an input", "1x512x97x97"),
        ("se, input: 1x64x8x8", "se, input: 0x64x8x8", "0x64", "'0x64x8x8' is no shape of an input", "1x512x97x97"),
        ("unit: MFLOPs", "unit: Mflops", "Mflops", "'Mflops' is no unit of compute", "'MFLOPs'"),
        ("mechanism: se, ", "", "{input: 1x64x8x8}", "give `mechanism:`, or a network alone", ""),
        ("mechanism: se, ", "host: {name: resnet50, args: {dept: 5}}, ", "dept", "no argument 'dept'", ""),
        ("mechanism: se, ", "host: {name: resnet50, at: blok}, ", "blok", "resnet50 has no submodule 'blok'", "'block'"),
        ("mechanism: se, ", "host: {name: resnet500}, ", "resnet500", "no network is called 'resnet500'", "'resnet50'"),
    ],
)
def test_a_mistake_at_its_place(old: str, new: str, at: str, what: str, hint: str) -> None:
    line, column, found, advice = only_problem(old, new)
    before = GOOD.replace(old, new).partition(at)[0]
    assert (line, column) == (before.count("\n") + 1, len(before) - before.rfind("\n")), found
    assert what in found
    assert hint in advice


def test_one_row_has_one_verdict() -> None:
    row = 'table: flops, quote: "row", published: 1.5, value: a, verdict: exact, why: "because"'
    text = f"{GOOD}  test.one: {{{row}}}\n  test.two: {{{row}}}\n"
    lines = text.splitlines()
    assert problems_of(text) == [
        (len(lines), 3, "claims: the number of 'test.one' once more: one row has one verdict",
         "give `again: test.one` for another configuration")
    ]  # fmt: skip
    read(f"{GOOD}  test.one: {{{row}}}\n  test.two: {{{row}, again: test.one}}\n")
    read(
        f"{GOOD}  test.one: {{{row}}}\n  test.two: {{{row}}}\n".replace(
            '"row", published: 1.5, value: a', '"row", published: 1.4, value: a', 1
        )
    )


def test_what_cannot_be_counted_for_a_mistake_is_said_with_its_place() -> None:
    tools = tools_of({"a": (1, 1e6)})
    for old, new, words in (
        ("value: a,", "value: a / 0,", "divides by zero"),
        ("mechanism: se, ", "host: {name: resnet50, args: {deep_stem: 64}, at: blok}, mechanism: se, ", "no submodule 'blok'"),
    ):
        paper = read(GOOD.replace(old, new))

        def count(case: Case, fused: bool) -> tuple[Counts, int]:
            if case.host is not None:
                raise UsageError("resnet50 has no submodule 'blok'")
            return tools.count(dataclasses.replace(case, label="a"), fused)

        with pytest.raises(UsageError, match=rf"test\.yaml:11: test\.a: .*{words}"):
            judge.judge(paper, dataclasses.replace(tools, count=count))


def test_a_row_that_cannot_be_counted_is_explained_by_no_convention() -> None:
    rows = {"a": (10, 10e6), "b": (20, 20e6)}  # as MAC, where 2 x MAC is stated
    table = dataclasses.replace(MACS, fixed=("base",))
    assert verdicts_of(rows, table) == ["convention", "convention"]
    tools = tools_of(rows)

    def count(case: Case, fused: bool) -> tuple[Counts, int]:
        if case.label == "b":
            raise UntraceableError("it reads values")
        return tools.count(case, fused)

    found = judge.judge(paper_of(rows, table), dataclasses.replace(tools, count=count))
    assert [each.verdict for each in found] == ["direction", "unverifiable"]
    assert (found[0].explained, found[0].rows) == (0, 2)


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace("mechanism: se", "mechanism: sse").replace("unit: MFLOPs", "unit: MB").replace("value: a,", "value: z,")
    assert [problem[0] for problem in problems_of(text)] == [5, 8, 11]


def test_a_verdict_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        file.write_text(GOOD)
    with pytest.raises(SpecError) as caught:
        parse_files(files)
    assert f"{files[1]}:11:3: " in str(caught.value)
    assert f"{files[0]}:11" in str(caught.value)
    assert "'test.a' has a verdict already" in str(caught.value)


def test_a_fused_case_wants_a_table_of_tensors() -> None:
    text = GOOD.replace("a: {mechanism: se,", "a: {mechanism: pam, attention: fused,")
    assert [problem[0] for problem in problems_of(text)] == [12]
    assert read(text.replace("fixed: [mode]", "fixed: [mode, by]")).fused == {"a"}


def test_growth_is_that_of_one_case() -> None:
    text = GOOD.replace("{metric: memory, unit: MB, fixed: [mode]}", '{metric: order, unit: "N^"}').replace("unit: x, ", "")
    assert "write its name alone" in problems_of(text)[0][2]


@pytest.mark.parametrize(("name", "words"), [("missing.yaml", "there is no such file"), ("latin.yaml", "is no text in UTF-8")])
def test_what_is_no_file_of_text(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("paper: é".encode("latin-1"))
    with pytest.raises(UsageError, match=words):
        parse_files([tmp_path / name])


# --- arithmetic


TERMS = st.recursive(
    st.sampled_from(["a", "b", "2", "0.5"]),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
)


@given(TERMS)
def test_arithmetic_is_that_of_python(text: str) -> None:
    values = {"a": 3.0, "b": 7.0}
    value = compile_value(text)
    assert set(value.names) <= set(values)
    try:
        wanted = eval(text, {}, values)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="divides by zero"):
            value(values)
        return
    assert value(values) == wanted


@pytest.mark.parametrize(
    "text", ["", "a b", "a(1)", "a if b else 1", "[a]", "a < b", "'a'", "True", "a // b", "a\nb", "9" * 500]
)
def test_nothing_else_is_arithmetic(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_value(text)


# --- conventions


def counted() -> Counts:
    """Counts with two convolutions (one with a bias) and an attention product."""
    ops = (
        OpCost("convolution", "", "forward", 1, 100, 210, 0),
        OpCost("convolution", "", "forward", 1, 300, 600, 0),
        OpCost("bmm", "", "forward", 1, 1000, 2000, 0),
        OpCost("_softmax", "", "forward", 1, 0, 50, 0),
    )
    return Counts(
        params=500,
        macs=1400,
        flops=2860,
        bytes_moved=0,
        activation_bytes=70,
        resident_bytes=3000,
        peak_bytes=5000,
        peak_cuda_bytes=6144,
        ops=ops,
    )


@pytest.mark.parametrize(
    ("count", "amount"),
    [
        ("2mac", 2800),
        ("2mac+bias", 2820),  # ten outputs with a bias: one more multiplication and addition each
        ("mac", 1400),
        ("mac+other", 1460),
        ("all", 2860),
        ("mixed", 2400),
        ("mac-layers", 400),
        ("2mac-layers", 800),
    ],
)
def test_what_a_convention_of_operations_counts(count: str, amount: int) -> None:
    assert conventions.stated("compute", {"count": count}).amount(counted(), 0) == amount


@pytest.mark.parametrize(
    ("says", "amount"),
    [
        ({}, 5000),
        ({"by": "allocator"}, 6144),
        ({"what": "+params"}, 5000 + 3000 - 1000),
        ({"what": "+params+inputs"}, 8000),
        ({"what": "kept"}, 70),
    ],
)
def test_what_a_convention_of_memory_counts(says: Mapping[str, str], amount: int) -> None:
    assert conventions.stated("memory", says).amount(counted(), 1000) == amount


def test_units_are_scaled_by_the_base_of_the_convention() -> None:
    decimal, binary = (conventions.stated("params", {"base": base}) for base in ("decimal", "binary"))
    assert (decimal.scale("M"), binary.scale("M"), decimal.scale("Mi"), decimal.scale("")) == (1e6, 2**20, 2**20, 1)


def test_the_stated_convention_is_tried_first_and_fixed_axes_stay() -> None:
    found = conventions.candidates("memory", {"mode": "training"}, ["mode", "what"])
    assert found[0].of == {"mode": "training", "what": "module", "by": "tensors", "base": "binary"}
    assert len(found) == 4
    assert {one.of["mode"] for one in found} == {"training"}
    assert len(conventions.candidates("memory", {}, [], "MiB")) == 2 * 7  # what is kept has no allocator; MiB settles the base


# --- verdicts


def paper_of(rows: Mapping[str, tuple[object, float]], table: Table, **fields: object) -> Paper:
    """A paper whose claim NAME prints the first number of its row; its case counts the second as MACs."""
    claims_ = []
    for name, (published, _) in rows.items():
        printed = reading.parse_published(published)
        assert printed is not None
        claim = Claim(f"t.{name}", table, printed, table.unit, compile_value(name), "exact", "because", "P", "here")
        claims_.append(dataclasses.replace(claim, **fields))  # type: ignore[arg-type]
    cases = {name: Case("channel/se", name, {}, Shape(1, 8, 1, 1)) for name in rows}
    return Paper("T", "T", "", "", "t.yaml", cases, frozenset(), {table.name: table}, tuple(claims_))


def tools_of(rows: Mapping[str, tuple[object, float]]) -> Tools:
    def count(case: Case, fused: bool) -> tuple[Counts, int]:
        macs = round(rows[case.label][1])
        ops = (OpCost("convolution", "", "forward", 1, macs, 2 * macs, 0),)
        return Counts(macs, macs, 2 * macs, 0, 0, 0, macs, macs, ops=ops), 0

    def grow(table: Table, case: Case) -> laws.Growth:
        raise UntraceableError("no growth here")

    def outputs(case: Case) -> Outputs:
        return Outputs(round(rows[case.label][1]), 1000)

    return Tools(count, grow, outputs)


MACS = Table("flops", "compute", "M", says={"count": "2mac"}, fixed=("base",))


def verdicts_of(rows: Mapping[str, tuple[object, float]], table: Table = MACS, **fields: object) -> list[str]:
    return [each.verdict for each in judge.judge(paper_of(rows, table, **fields), tools_of(rows))]


def test_exact_close_direction_contradicted() -> None:
    rows = {"a": (20, 10.2e6), "b": ("40.0", 20.2e6), "c": (60, 32e6), "d": (80, 200e6), "e": (100, 38e6)}
    assert verdicts_of(rows, dataclasses.replace(MACS, fixed=("count", "base"))) == [
        "exact",  # 20.4 prints as 20
        "close",  # 40.4: 1 %
        "direction",  # 64: in its place between 40 and 80
        "contradicted",  # 400: off by five
        "direction",  # 76: in its place, since the row that is off by five is not asked
    ]
    assert verdicts_of({"a": (20, 10e6), "b": (30, 9e6)}, dataclasses.replace(MACS, fixed=("count", "base"))) == [
        "exact",
        "contradicted",  # 18, and printed as the larger of the two
    ]


def test_what_is_printed_alike_stands_either_way() -> None:
    fixed = dataclasses.replace(MACS, fixed=("count", "base"))
    assert verdicts_of({"a": ("0.20..0.40", 0.08e6), "b": ("0.20..0.40", 0.11e6)}, fixed) == ["direction", "exact"]
    assert verdicts_of({"a": ("0.31..0.40", 0.11e6), "b": ("0.20..0.30", 0.12e6)}, fixed) == ["contradicted", "exact"]


def test_activations_are_elements_of_outputs() -> None:
    table = Table("acts", "activations", "M")
    assert verdicts_of({"a": ("1.001", 1e6), "b": ("2.5", 2e6)}, table) == ["exact", "direction"]  # 1000 products are added
    blind = {"a": ("0.100", 1e5), "b": ("0.200", 2e5)}
    assert verdicts_of(blind, table) == ["convention", "convention"]  # with the products a were 1 % off


def test_another_convention_has_to_explain_every_row() -> None:
    assert verdicts_of({"a": (10, 10e6), "b": (20, 20e6)}) == ["convention", "convention"]
    some = {"a": (10, 10e6), "b": (20, 20e6), "c": (30, 16e6)}
    assert "convention" not in verdicts_of(some)  # two of three: the stated one
    assert verdicts_of({"a": (10, 10e6), "b": (20, 10e6)}) == ["contradicted", "exact"]  # one each: the stated one


def test_what_was_only_remembered_does_not_vote_and_is_unverifiable() -> None:
    rows = {"a": (10, 10e6), "b": (20, 10e6), "c": (30, 30e6)}
    paper = paper_of(rows, MACS)
    remembered = tuple(
        dataclasses.replace(claim, grade="M-high") if claim.name in ("t.a", "t.c") else claim for claim in paper.claims
    )
    found = judge.judge(dataclasses.replace(paper, claims=remembered), tools_of(rows))
    assert [(each.verdict, each.arithmetic) for each in found] == [
        ("unverifiable", "contradicted"),
        ("exact", ""),
        ("unverifiable", "direction"),
    ]
    assert judge.tally(found) == {
        **dict.fromkeys(claims.VERDICTS, 0),
        **{f"{name}_{kind}": 0 for name in claims.VERDICTS for kind in ("orders", "own")},
        "claims": 3,
        "seen": 1,
        "remembered": 2,
        "again": 0,
        "own": 0,
        "orders": 0,
        "exact": 1,
    }


def test_a_ratio_of_the_right_side_is_a_direction() -> None:
    table = dataclasses.replace(MACS, unit="x", fixed=("count", "base"))
    for published, found, verdict in (
        (11, 3, "direction"),
        (11, 0.5, "contradicted"),
        (0.5, 0.1, "direction"),
        (3, 3.01, "exact"),
    ):
        rows = {"a": (published, found * 1e6), "b": (1, 1e6)}
        paper = paper_of(rows, table)
        ratio = dataclasses.replace(paper.claims[0], value=compile_value("a / b"))
        (one,) = judge.judge(dataclasses.replace(paper, claims=(ratio,)), tools_of(rows))
        assert one.verdict == verdict


def test_what_cannot_be_counted_says_so() -> None:
    rows = {"a": (1, 1e6)}
    tools = tools_of(rows)

    def fail(case: Case, fused: bool) -> tuple[Counts, int]:
        raise UntraceableError("it reads values")

    (found,) = judge.judge(paper_of(rows, MACS), dataclasses.replace(tools, count=fail))
    assert (found.verdict, found.reproduced) == ("unverifiable", None)
    assert "it reads values" in found.why


NUMBERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@settings(max_examples=60)
@given(NUMBERS)
def test_the_chosen_convention_explains_every_row_or_is_the_stated_one(numbers: list[tuple[int, int]]) -> None:
    table = Table("flops", "compute", "M", says={"count": "2mac"})
    rows = {f"r{index}": (published, macs * 1e6) for index, (published, macs) in enumerate(numbers)}
    paper = paper_of(rows, table)
    read_ = judge._Amounts(paper, tools_of(rows)).of
    choice = judge.choose(table, paper.claims, read_)

    def explained(convention: conventions.Convention) -> int:
        return sum(judge.explains(claim, convention, read_(claim, convention)) for claim in paper.claims)

    assert choice.explained == explained(choice.convention)
    assert choice.tried[0] == choice.stated
    whole = [each for each in choice.tried if explained(each) == len(rows)]
    assert choice.convention in whole if whole and choice.stated not in whole else choice.convention == choice.stated


@pytest.mark.parametrize(("seconds", "verdict"), [(3.0, "close"), (5.0, "direction"), (0.5, "contradicted"), (None, "exact")])
def test_a_ratio_of_latencies_is_judged_from_measurement_only(seconds: float | None, verdict: str) -> None:
    rows = {"a": (2, 1e6), "b": (1, 1e6)}
    table = Table("time", "latency", "x")
    paper = paper_of(rows, table)
    ratio = dataclasses.replace(paper.claims[0], value=compile_value("a / b"))
    known = {"a": seconds or 0.0, "b": 1.0}
    times = {case.key: known[name] for name, case in paper.cases.items()}
    tools = dataclasses.replace(tools_of(rows), time=None if seconds is None else lambda cases: times)
    (found,) = judge.judge(dataclasses.replace(paper, claims=(ratio,)), tools)
    assert found.verdict == verdict
    assert found.kept == (seconds is None)  # the verdict on record, marked so
    if seconds is None:
        assert "not measured" in found.why


# --- growth


@pytest.mark.parametrize(
    ("growth", "verdict", "kept"),
    [
        (laws.Growth("O(N**2)", 2.0, 1.9), "exact", False),
        (laws.Growth("O(N)", 1.0, 1.0), "contradicted", False),
        (laws.Growth("", None, 1.2), "exact", True),  # no closed form: the verdict on record
    ],
)
def test_growth_is_judged_by_the_closed_form(growth: laws.Growth, verdict: str, kept: bool) -> None:
    def grow(table: Table, case: Case) -> laws.Growth:
        return growth

    rows = {"a": (2, 1e6)}
    paper = paper_of(rows, Table("law", "order", "N^"))
    (one,) = judge.judge(paper, dataclasses.replace(tools_of(rows), grow=grow))
    assert (one.verdict, one.kept) == (verdict, kept)


# --- what is shipped


SHIPPED = papers_of_claims()


def test_more_than_a_hundred_numbers_were_seen_in_a_source() -> None:
    rows = [claim for paper in SHIPPED for claim in paper.claims]
    seen = [claim for claim in rows if claim.seen and not claim.again]
    assert len(seen) >= 100
    assert sum(claim.value is not None for claim in seen) >= 100
    assert all(claim.why and claim.source for claim in rows)


def test_the_schema_for_editors_is_that_of_the_code() -> None:
    from tests.makers.claims_page import SCHEMA, schema_text

    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), "make claims"


def test_the_index_is_what_the_files_say() -> None:
    assert claims_page.INDEX.read_text(encoding="utf-8") == claims_page.index_text(), "`make claims` writes it"


def test_claims_are_found_by_what_they_are_about() -> None:
    found = claims.about("spatial/ccnet", "spatial/nonlocal")
    assert found[0].claim == "ccnet.mem_ratio"
    assert found[0].text() == 'CCNet: "11x less GPU memory usage" 11x: direction (ccnet.mem_ratio)'
    assert {"ccnet.nl.mem", "ccnet.r2.mem"} <= {each.claim for each in found}
    assert not [each for each in found if "bmm" in each.claim]
    assert claims.about("channel/se")
    assert claims.about("temporal/local_alignment") == ()
