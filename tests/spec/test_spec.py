"""Spec files: what is read, what is refused, and where each refusal points."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnprof import spec
from attnprof.errors import SpecError, UsageError
from attnprof.spec import near_file, yaml_loader
from attnprof.spec.imports import located
from attnprof.spec.scalars import format_scalar, parse_scalar

SPECS = Path(__file__).parents[2] / "specs"
SHIPPED = sorted(path for path in SPECS.rglob("*.yaml") if path.parent.name != "claims")
GOOD = "input: {channels: 64, hw: 33x33}\nmechanisms: [nonlocal, se]\n"


def problems_of(text: str, overrides: tuple[str, ...] = ()) -> list[tuple[int, int, str, str]]:
    """(line, column, what, hint) of every problem that the text is refused for."""
    with pytest.raises(SpecError) as caught:
        spec.parse_text(text, "bad.yaml", overrides)
    assert caught.value.exit_code == 2
    return [(problem.line, problem.column, problem.what, problem.hint) for problem in caught.value.problems]


def only_problem(text: str, overrides: tuple[str, ...] = ()) -> tuple[int, int, str, str]:
    """The one problem of a text that has one mistake."""
    (problem,) = problems_of(text, overrides)
    return problem


# --- what is read


def test_defaults() -> None:
    parsed = spec.parse_text(GOOD, "folder/quick.yaml")
    assert parsed == spec.Spec(
        name="quick",
        inputs=(spec.Input((64,), ((33, 33),), (1,), (1,)),),
        entries=(
            spec.Entry("spatial/nonlocal", "nonlocal", {}, line=2, column=14),
            spec.Entry("channel/se", "se", {}, line=2, column=24),
        ),
        dtype=("float32",),
        modes=("inference", "training"),
        baseline=None,
        metrics=("params", "macs", "flops", "peak_memory", "latency"),
        measure=spec.Measure(5.0, None, "auto"),
        sdpa=("auto",),
        memory_format=("contiguous",),
        compile=(False,),
        autocast=("none",),
        threads=(None,),
        source="folder/quick.yaml",
    )


def test_every_key() -> None:
    text = """\
name: all of it
input: {batch: [1, 2], channels: [64, 128], hw: [65x97, 33], frames: 8}
dtype: [float16, bfloat16]
modes: training
mechanisms:
  - spatial/nonlocal
  - {name: se, args: {reduction: [4, 8]}, as: gate}
  - {import: "mypkg.blocks:MyAttention", args: {dim: 512, sizes: [[1, 2]], act: null}, as: mine}
  - {import: ./mine.py:Other}
baseline: spatial/nonlocal
metrics: [latency, energy]
measure: {budget_s: 1e-1, run_budget_s: 60, device: cuda:1}
sdpa: [math, fused]
memory_format: channels_last
compile: [true, false]
autocast: bfloat16
threads: [1, 2]
"""
    parsed = spec.parse_text(text, "x.yaml")
    assert parsed.name == "all of it"
    assert parsed.inputs == (spec.Input((64, 128), ((65, 97), (33, 33)), (1, 2), (8,)),)
    assert (parsed.dtype, parsed.modes) == (("float16", "bfloat16"), ("training",))
    assert parsed.entries[1] == spec.Entry("channel/se", "gate", {"reduction": (4, 8)}, line=7, column=5)
    assert parsed.entries[2] == spec.Entry(
        "mypkg.blocks:MyAttention",
        "mine",
        {"dim": (512,), "sizes": ([1, 2],), "act": (None,)},
        imported=True,
        line=8,
        column=5,
    )
    assert parsed.entries[3] == spec.Entry("./mine.py:Other", "Other", {}, imported=True, line=9, column=5)
    assert parsed.baseline == "nonlocal"
    assert parsed.metrics == ("latency", "energy")
    assert parsed.measure == spec.Measure(0.1, 60.0, "cuda:1")
    assert (parsed.sdpa, parsed.memory_format, parsed.compile) == (("math", "fused"), ("channels_last",), (True, False))
    assert (parsed.autocast, parsed.threads) == (("bfloat16",), (1, 2))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("-12", -12),
        ("0", 0),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("0777", "0777"),
        ("0o17", "0o17"),
        ("0x41", "0x41"),
        ("1_000", "1_000"),
        ("65x65", "65x65"),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("-.inf", -math.inf),
        ("9" * 41, "9" * 41),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    document = yaml_loader.load(f"a: {text}", "x")
    assert document.problems == []
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=20).filter(
    lambda text: isinstance(parse_scalar(text), str)  # PyYAML, of YAML 1.1, would write 0E0 without quotes
)
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: isinstance(parse_scalar(key), str))
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_read_back(value: dict[str, Any], flow: bool) -> None:
    document = yaml_loader.load(json.dumps(value) if flow else yaml.safe_dump(value, allow_unicode=True), "x")
    assert document.problems == []
    assert document.value == value


@given(SCALARS | TEXTS)
def test_a_formatted_scalar_reads_back(value: Any) -> None:
    text = format_scalar(value)
    if isinstance(value, str) and text != value:
        assert text == repr(value)
    else:
        assert parse_scalar(text) == value
        assert type(parse_scalar(text)) is type(value)


@given(st.text(max_size=60) | st.text("[]{}:,-&*!|>'\"#%@ \n\tab1\\U", max_size=60))
def test_any_text_is_refused_with_a_place(text: str) -> None:
    with pytest.raises(SpecError) as caught:  # no text this short and strange is a spec
        spec.parse_text(text, "x.yaml")
    assert caught.value.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)
    assert str(caught.value).startswith("x.yaml:")


# --- mistakes in meaning


def test_five_mistakes_are_five_problems_at_their_places() -> None:
    text = """\
name: five
input: {batch: 1, chanels: 512, channels: 0, hw: 65x65}
dtype: fp16
mechanisms:
  - nonlocal
  - name: se
    args:
      reducton: 2
baseline: nonlocl
"""
    with pytest.raises(SpecError) as caught:
        spec.parse_text(text, "specs/bad.yaml")
    assert str(caught.value) == (
        "specs/bad.yaml:2:19: input: unknown key 'chanels'\n"
        "    2 | input: {batch: 1, chanels: 512, channels: 0, hw: 65x65}\n"
        "                          ^  did you mean 'channels'?\n"
        "specs/bad.yaml:2:43: input.channels: must be at least 1, not 0\n"
        "    2 | input: {batch: 1, chanels: 512, channels: 0, hw: 65x65}\n"
        "                                                  ^\n"
        "specs/bad.yaml:3:8: dtype: 'fp16' is no dtype\n"
        "    3 | dtype: fp16\n"
        "               ^  did you mean 'float16'?\n"
        "specs/bad.yaml:8:7: mechanisms.1.args: se has no argument 'reducton'\n"
        "    8 |       reducton: 2\n"
        "              ^  did you mean 'reduction'?\n"
        "specs/bad.yaml:9:11: baseline: the baseline 'nonlocl' is no label of this spec\n"
        "    9 | baseline: nonlocl\n"
        "                  ^  did you mean 'nonlocal'?"
    )


@pytest.mark.parametrize(
    ("line", "column", "what", "hint"),
    [
        ("modes: [inference, trainig]", 20, "modes.1: 'trainig' is no mode", "did you mean 'training'?"),
        ("dtype: bf16", 8, "dtype: 'bf16' is no dtype", "did you mean 'bfloat16'?"),
        ("dtype: 16", 8, "dtype: 16 is no dtype", "one of float32, float16, bfloat16, float64"),
        ("metrics: [latncy]", 11, "metrics.0: 'latncy' is no metric", "did you mean 'latency'?"),
        ("metrics: [macs, macs]", 17, "metrics.1: macs stands twice on this axis", ""),
        ("sdpa: flash", 7, "sdpa: 'flash' is no sdpa kernel", "one of auto, math, fused"),
        ("compile: yes", 10, "compile: true or false is wanted, not 'yes'", ""),
        ("measure: {budget_s: 0}", 21, "measure.budget_s: must be more than 0, not 0", ""),
        ("measure: {run_budget_s: -1}", 25, "measure.run_budget_s: must be more than 0, not -1", ""),
        ("measure: {budget_s: .inf}", 21, "measure.budget_s: a finite number is wanted, not inf", ""),
        ("measure: {device: gpu}", 19, "measure.device: 'gpu' is no device", "did you mean 'cuda'?"),
        ("measure: {budget: 5}", 11, "measure: unknown key 'budget'", "did you mean 'budget_s'?"),
        ("measure: 5", 10, "measure: a mapping of keys to values is wanted, not 5", ""),
        ("mode: training", 1, "unknown key 'mode'", "did you mean 'modes'?"),
        ("budget_s: 5", 1, "unknown key 'budget_s'", "write it under `measure:`"),
        ("baseline: other", 11, "baseline: the baseline 'other' is no label of this spec", "one of nonlocal, se"),
        ("threads: 0", 10, "threads: must be at least 1, not 0", ""),
        ("autocast: [none, int8]", 18, "autocast.1: 'int8' is no autocast dtype", "one of none, float16, bfloat16"),
        ("name: 3", 7, "name: text is wanted, not 3", ""),
    ],
)
def test_a_mistake_at_the_top_level(line: str, column: int, what: str, hint: str) -> None:
    assert only_problem(GOOD + line + "\n") == (3, column, what, hint)


def test_an_unknown_key_like_no_other_lists_the_keys() -> None:
    line, column, what, hint = only_problem(GOOD + "whatever: {name: x}\n")
    assert (line, column, what) == (3, 1, "unknown key 'whatever'")
    assert hint.startswith("keys here: name, input, dtype, modes, mechanisms, ")


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", ".hidden", "-q", "'a:b'", "'x\ty'", "x" * 101, "''"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    line, _, what, _ = only_problem(GOOD + f"name: {name}\n")
    assert line == 3
    assert "cannot be used as a name" in what


@pytest.mark.parametrize(
    ("hw", "words"),
    [
        ("0", "between 1 and 1,000,000, not 0"),
        ("-3", "between 1 and 1,000,000, not -3"),
        ("65x0", "between 1 and 1,000,000, not 0"),
        ("1000001x1", "between 1 and 1,000,000, not 1000001"),
        ("65*65", "is written HxW, such as 97x97, or as one number for a square, not '65*65'"),
        ("6.5", "not float"),
        ("true", "not bool"),
        ("65x65x3", "not '65x65x3'"),
    ],
)
def test_a_size_that_is_none_is_refused(hw: str, words: str) -> None:
    line, column, what, _ = only_problem(GOOD.replace("33x33", f"[33x33, {hw}]"))
    assert (line, column) == (1, 35)
    assert what.startswith("input.hw.1: ")
    assert words in what


def test_the_same_size_in_two_spellings_stands_twice() -> None:
    assert only_problem(GOOD.replace("33x33", "[33x33, 33]")) == (1, 35, "input.hw.1: 33 stands twice on this axis", "")


@pytest.mark.parametrize("value", ["true", "1e3", "'8'", "[]", "null", "1000001", "8.0", "{a: 1}"])
def test_channels_are_whole_numbers(value: str) -> None:
    line, column, what, _ = only_problem(GOOD.replace("64", value))
    assert (line, column) == (1, 19)
    assert what.startswith("input.channels: ")


@pytest.mark.parametrize(
    ("item", "column", "what", "hint"),
    [
        ("nonlocl", 5, "mechanisms.0: no mechanism is called 'nonlocl'", "did you mean 'nonlocal'"),
        (
            "{name: spacial/ccnet}",
            12,
            "mechanisms.0.name: no mechanism is called 'spacial/ccnet'",
            "did you mean 'spatial/ccnet'",
        ),
        ("a.b:C", 5, "mechanisms.0: 'a.b:C' is no name of the catalogue", "for a class of your own write {import: ...}"),
        ("{name: se, args: {x: 1}}", 23, "mechanisms.0.args: se has no argument 'x'", "it takes reduction"),
        ("{name: se, args: {reduction: [2, x]}}", 38, "mechanisms.0.args.reduction.1: 'reduction' of se is int, not 'x'", ""),
        ("{name: se, args: {reduction: true}}", 34, "mechanisms.0.args.reduction: 'reduction' of se is int, not true", ""),
        ("{name: se, args: {reduction: []}}", 34, "mechanisms.0.args.reduction: the list is empty", ""),
        ("{name: se, args: {reduction: {a: 1}}}", 34, "mechanisms.0.args.reduction: an argument is a number, text", ""),
        ("{name: se, args: {reduction: [2, 4, 2]}}", 41, "mechanisms.0.args.reduction.2: 2 stands twice on this axis", ""),
        ("{name: se, args: 4}", 22, "mechanisms.0.args: a mapping of keys to values is wanted, not 4", ""),
        ("{name: se, reduction: 4}", 16, "mechanisms.0: unknown key 'reduction'", "write it under `args:`, {reduction: ...}"),
        ("{name: se, reducton: 4}", 16, "mechanisms.0: unknown key 'reducton'", "did you mean 'reduction'? Arguments stand"),
        ("{name: se, import: 'a:B'}", 5, "mechanisms.0: give either `name:`", ""),
        ("{as: x}", 5, "mechanisms.0: give either `name:`", ""),
        ("{import: a.b}", 14, "mechanisms.0.import: 'a.b' is no import path", "package.module:Class or ./file.py:Class"),
        ("{import: 'a:B', args: {1x: 2}}", 28, "mechanisms.0.args: '1x' cannot be the name of an argument", ""),
        ("{import: 'a:B', args: {x: .nan}}", 31, "mechanisms.0.args.x: nan is no number that an argument can have", ""),
        ('{name: se, as: "a\\nb"}', 20, "mechanisms.0.as: 'a\\nb' cannot be used as a name", ""),
        ("null", 5, "mechanisms.0: a mechanism is a name or a mapping such as {name: se}, not nothing", ""),
        ("[se]", 5, "mechanisms.0: a mechanism is a name or a mapping such as {name: se}, not a list", ""),
    ],
)
def test_a_mistake_in_a_mechanism(item: str, column: int, what: str, hint: str) -> None:
    found = only_problem(f"input: {{channels: 64, hw: 33}}\nmechanisms:\n  - {item}\n")
    assert found[:2] == (3, column)
    assert found[2].startswith(what)
    assert found[3].startswith(hint)


def test_a_list_argument_wants_a_list_in_the_axis() -> None:
    text = "input: {channels: 64, hw: 33}\nmechanisms:\n  - {name: ppm, args: {bins: [1, 2]}}\n"
    assert [(line, column) for line, column, *_ in problems_of(text)] == [(3, 31), (3, 34)]
    parsed = spec.parse_text(text.replace("[1, 2]", "[[1, 2], [1, 3]]"), "x")
    assert [label for label, _ in spec.variants(parsed.entries[0])] == ["ppm[bins=[1,2]]", "ppm[bins=[1,3]]"]


def test_a_label_that_stands_twice() -> None:
    text = "input: {channels: 64, hw: 33}\nmechanisms:\n  - se\n  - {name: se, args: {reduction: 4}}\n"
    what = "mechanisms.1: the label 'se' stands twice (first at line 3)"
    assert only_problem(text) == (4, 5, what, "give one of them `as: LABEL`")
    parsed = spec.parse_text(text.replace("4}}", "4}, as: se4}"), "x")
    assert [entry.label for entry in parsed.entries] == ["se", "se4"]


def test_a_label_that_an_axis_makes_counts_too() -> None:
    items = "  - {name: se, args: {reduction: [2, 4]}}\n  - {name: nonlocal, as: 'se[reduction=4]'}\n"
    line, column, what, _ = only_problem("input: {channels: 64, hw: 33}\nmechanisms:\n" + items)
    assert (line, column, what) == (4, 5, "mechanisms.1: the label 'se[reduction=4]' stands twice (first at line 3)")


def test_the_baseline_of_an_axis_names_its_value() -> None:
    text = GOOD.replace("se]", "{name: se, args: {reduction: [2, 4]}}]")
    assert spec.parse_text(text + "baseline: se[reduction=4]\n", "x").baseline == "se[reduction=4]"
    assert only_problem(text + "baseline: se\n")[3] == "one of nonlocal, se[reduction=2], se[reduction=4]"


def test_what_is_missing_is_named() -> None:
    assert [what for _, _, what, _ in problems_of("name: x\n")] == [
        "the key 'input' is missing",
        "the key 'mechanisms' is missing",
    ]
    assert only_problem(GOOD.replace("channels: 64, ", "")) == (1, 8, "input: the key 'channels' is missing", "")
    assert only_problem(GOOD.replace("[nonlocal, se]", "[]")) == (2, 13, "mechanisms: the list is empty", "")


def grid(batch: int, channels: int, hw: int, reduction: int) -> str:
    """A spec with axes of these lengths, and both modes."""
    axes = [", ".join(str(value + 1) for value in range(length)) for length in (batch, channels, hw, reduction)]
    text = "input: {batch: [%s], channels: [%s], hw: [%s]}\nmechanisms: [{name: se, args: {reduction: [%s]}}]\n"
    return text % tuple(axes)


def test_a_sweep_of_billions_of_points_is_refused_at_once() -> None:
    start = time.perf_counter()
    found = only_problem(grid(400, 400, 400, 400))
    assert time.perf_counter() - start < 5
    named = "batch 400 x channels 400 x hw 400 x modes 2 x mechanisms 400"
    assert found == (1, 1, f"the sweep has 51,200,000,000 points, more than 100,000: {named}", "")


def test_the_largest_sweep_is_accepted_and_one_more_is_not() -> None:
    parsed = spec.parse_text(grid(100, 50, 1, 10), "x")
    assert math.prod(spec.axes(parsed).values()) == spec.MAX_POINTS == 100_000
    assert "the sweep has 101,000 points" in only_problem(grid(101, 50, 1, 10))[2]


# --- hostile text


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "aliases": (BOMB, 6, 4, "aliases expand to more than 100,000 values or 50 levels"),
    "brackets": ("[" * 3000, 1, 51, "nested more than 50 levels deep"),
    "braces": ("{a: " * 3000, 1, 198, "nested more than 50 levels deep"),
    "half a million brackets": ("[" * 500_000, 1, 51, "nested more than 50 levels deep"),
    "chain of aliases": (
        "".join(f"a{i}: &a{i} [{'*a' + str(i - 1) if i else 'x'}]\n" for i in range(400)),
        50,
        6,
        "aliases expand to more than 100,000 values or 50 levels",
    ),
    "cycle": ("a: &a [*a]", 1, 4, "an alias inside the value that it stands for"),
    "undefined alias": ("a: *b", 1, 4, "found undefined alias 'b'"),
    "python tag": ("a: !!python/object/apply:os.system [x]", 1, 4, "tags are not supported: 'tag:yaml.org,2002:python/object"),
    "string tag": ("a: !!str 1", 1, 4, "tags are not supported: 'tag:yaml.org,2002:str'"),
    "own tag": ("!x {a: 1}", 1, 1, "tags are not supported: '!x'"),
    "empty": ("", 1, 1, "the file is empty"),
    "only a comment": ("# nothing\n", 1, 1, "the file is empty"),
    "two documents": (GOOD + "---\n" + GOOD, 3, 1, "a second document starts here: one spec per file"),
    "duplicate key": (GOOD + "input: 3\n", 3, 1, "the key 'input' stands twice (first at line 1, column 1)"),
    "inner duplicate": (
        GOOD.replace("hw", "channels: 3, hw"),
        1,
        23,
        "the key 'channels' stands twice (first at line 1, column 9)",
    ),
    "number as key": (GOOD + "1: 2\n", 3, 1, "a key must be a word"),
    "true as key": (GOOD + "true: 2\n", 3, 1, "a key must be a word"),
    "list as key": (GOOD + "? [a]\n: 2\n", 3, 3, "a key must be a word"),
    "merge key": (GOOD + "<<: {name: x}\n", 3, 1, "unknown key '<<'"),
    "null byte": ("name: x\na: \x00\n", 2, 4, "the character '\\x00' is not allowed in YAML"),
    "escape sequence": ("name: \x1b[31m", 1, 7, "the character '\\x1b' is not allowed in YAML"),
    "no such character": ('name: "\\UFFFFFFFF"', 1, 10, "an escape or a number that no character or version has"),
    "huge version": (f"%YAML {'9' * 5000}.1\n---\na: 1\n", 1, 7, "an escape or a number that no character or version has"),
    "surrogate": (GOOD + 'name: "\\uD800"\n', 3, 7, "half a surrogate pair is no text"),
    "tab": ("input:\n\tchannels: 3", 2, 1, "while scanning for the next token, found character '\\t'"),
    "unclosed": ("a: [1, 2", 1, 9, "while parsing a flow sequence, expected ',' or ']'"),
    "word": ("hello", 1, 1, "a mapping of keys to values is wanted, not 'hello'"),
    "null": ("~", 1, 1, "a mapping of keys to values is wanted, not nothing"),
    "huge number": (GOOD.replace("64", "9" * 6000), 1, 19, "input.channels: a whole number is wanted, not '999"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_one_clear_sentence(name: str) -> None:
    text, line, column, what = HOSTILE[name]
    start = time.perf_counter()
    found = only_problem(text)
    assert time.perf_counter() - start < 10
    assert found[:2] == (line, column)
    assert found[2].startswith(what)
    assert len(found[2]) < 200


def test_many_values_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml_loader.MAX_NODES == 100_000
    monkeypatch.setattr(yaml_loader, "MAX_NODES", 1_000)  # reading 100,000 takes seconds, and no other lines
    _, _, what, _ = only_problem("a: [" + "1," * 1_001 + "]")
    assert what == "more than 1,000 values in one file"


def test_a_message_shows_no_control_character_of_the_file() -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse_text('name: "\\e[31m"\ninput: {"a\\eb": 1, channels: 8, hw: 8}\nmechanisms: ["\\e[31m", "\x1b"]\n', "x")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(SpecError) as caught:
        spec.parse_text('name: "\\e[31m"\ninput: {"a\\eb": 1, channels: 8, hw: 8}\nmechanisms: ["\\e[31m"]\n', "x")
    assert len(caught.value.problems) == 3
    assert "\x1b" not in str(caught.value)


def test_many_problems_are_all_kept_and_the_first_hundred_shown() -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse_text("input: {channels: 8, hw: 8}\nmechanisms: [" + "se," * 301 + "]", "x")
    assert len(caught.value.problems) == 300
    assert str(caught.value).endswith("\nand 200 more")


def test_a_deep_stack_does_not_end_in_a_traceback() -> None:
    def deeper(levels: int) -> str:
        if levels:
            return deeper(levels - 1)
        return only_problem("[" * 3000)[2]

    depth = len(_frames())
    assert "nested" in deeper(sys.getrecursionlimit() - depth - 120)


def _frames() -> list[Any]:
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\x00", "is no text in UTF-8: byte 0 is 0x89."),
        (GOOD.encode("utf-16"), "is no text in UTF-8: byte 0 is 0xff."),
        (b"# " + b"x" * 2**20, "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_spec(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        spec.parse_file(path)
    assert str(caught.value).startswith(f"{path} {words}")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_with_a_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert spec.parse_file(path).inputs[0].channels == (64,)
    path.write_bytes(GOOD.replace("\n", "\r\n").encode() + b"hots: 3\r\n")
    with pytest.raises(SpecError) as caught:
        spec.parse_file(path)
    assert (caught.value.problems[0].line, caught.value.problems[0].source_line) == (3, "hots: 3")


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "segmentation.yaml").write_text(GOOD)
    with pytest.raises(UsageError, match=r"there is no such file\. Did you mean .*segmentation\.yaml\?"):
        spec.parse_file(tmp_path / "segmentatoin.yaml")
    with pytest.raises(UsageError, match=r"there is no such file\.$"):
        spec.parse_file(tmp_path / "no" / "such.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        spec.parse_file(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        spec.parse_file(tmp_path / "segmentation.yaml" / "x")


# --- --set


def test_overrides_are_applied_before_validation() -> None:
    text = GOOD.replace("64", "wrong")
    overrides = (
        "input.channels=256",
        "measure.budget_s=1e-1",
        "modes=[inference]",
        "dtype=float16",
        "mechanisms.1={name: se, args: {reduction: [2, 4]}}",
        "mechanisms.1.args.reduction=8",
        "name=",
    )
    parsed = spec.parse_text(text, "x.yaml", overrides)
    assert (parsed.inputs[0].channels, parsed.measure.budget_s, parsed.modes, parsed.dtype) == (
        (256,),
        0.1,
        ("inference",),
        ("float16",),
    )
    assert parsed.entries[1] == spec.Entry("channel/se", "se", {"reduction": (8,)}, line=0)
    assert parsed.name == "x"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("input.chanels=3", "unknown key 'chanels': did you mean 'channels'?"),
        ("input.channels=no", "a whole number is wanted, not 'no'"),
        ("inptu.channels=3", "unknown key 'inptu': did you mean 'input'?"),
        ("measure.budget_s=0", "must be more than 0, not 0"),
        ("mechanisms=[nonlocl, se]", "no mechanism is called 'nonlocl': did you mean 'nonlocal'"),
        ("baseline=x", "the baseline 'x' is no label of this spec: one of nonlocal, se"),
        ("input.hw=[1x1", "the value is no YAML: while parsing a flow sequence"),
        ("input.hw=!!int 3", "the value is no YAML: tags are not supported"),
        ("input", "write KEY=VALUE: for example input.channels=256"),
        ("=3", "write KEY=VALUE"),
        ("input..hw=3", "write KEY=VALUE"),
        ("input.channels.x=3", "'input.channels' is a value, not a mapping"),
        ("mechanisms.2=se", "'mechanisms' is a list of 2: write a position from 0 to 1"),
        ("mechanisms.one=se", "'mechanisms' is a list of 2: write a position from 0 to 1"),
    ],
)
def test_a_mistake_in_an_override(override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse_text(GOOD, "x.yaml", (override,))
    assert str(caught.value).startswith(f"--set {override}: {message}")
    assert len(caught.value.problems) == 1


def test_mistakes_of_overrides_and_of_the_file_come_together() -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse_text(GOOD + "dtype: int8\n", "x.yaml", ("input.chanels=3", "foo"))
    first, second, third = str(caught.value).splitlines()[:3]
    assert first.startswith("--set foo: ")
    assert second.startswith("--set input.chanels=3: ")
    assert third == "x.yaml:3:8: dtype: 'int8' is no dtype"


# --- import:


IMPORTS = spec.parse_text(
    "input: {channels: 8, hw: 8}\nmechanisms:\n  - se\n  - {import: 'mypkg.blocks:A'}\n  - {import: ./own/mine.py:B}\n",
    "x.yaml",
)


@pytest.mark.parametrize(
    "patterns", [["*"], ["mypkg.*", "own/*"], ["mypkg.blocks:A", "./own/mine.py:B"], ["my*:A", "own/mine.py:*"]]
)
def test_imports_that_a_pattern_allows(patterns: list[str]) -> None:
    spec.check_import_permission(IMPORTS, patterns)


def test_imports_that_no_pattern_allows_are_all_named() -> None:
    with pytest.raises(UsageError) as caught:
        spec.check_import_permission(IMPORTS, ["other.*", "blocks:A", "MYPKG.*"])
    assert str(caught.value).splitlines() == [
        "x.yaml:4: 'mypkg.blocks:A' is code of your own: to run it, pass --allow-import 'mypkg.blocks:A'.",
        "x.yaml:5: './own/mine.py:B' is code of your own: to run it, pass --allow-import './own/mine.py:B'.",
        *(f"--allow-import '{pattern}' matches nothing in this spec." for pattern in ("other.*", "blocks:A", "MYPKG.*")),
    ]
    with pytest.raises(UsageError, match=r"x\.yaml:5"):
        spec.check_import_permission(IMPORTS, ["mypkg.*"])


def test_a_pattern_for_a_folder_does_not_reach_outside_it() -> None:
    outside = spec.Spec((spec.Input((8,), ((8, 8),)),), (spec.Entry("own/../../evil.py:X", "X", imported=True),))
    with pytest.raises(UsageError, match=r"evil\.py:X"):
        spec.check_import_permission(outside, ["own/*"])


def test_an_imported_file_is_looked_for_beside_the_spec_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    for file in ("both.py", "here.py", "specs/both.py", "specs/there.py"):
        (tmp_path / file).touch()
    (tmp_path / "specs" / "linked.py").symlink_to(tmp_path / "here.py")
    (tmp_path / "linked.py").symlink_to(tmp_path / "here.py")
    expected = {
        "there.py:A": "specs/there.py:A",
        "./there.py:A": "specs/there.py:A",
        "both.py:A": "specs/both.py:A",
        "../here.py:A": "here.py:A",
        "here.py:A": "here.py:A",  # not beside the spec: the current folder's
        "linked.py:A": "linked.py:A",  # one file
        "gone.py:A": "gone.py:A",
        f"{tmp_path}/here.py:A": f"{tmp_path}/here.py:A",
        "package.module:A": "package.module:A",
    }
    for written, found in expected.items():
        assert located(written, "specs/own.yaml") == found
        assert located(written, "own.yaml") == written, "beside the spec is the current folder"
    assert located("there.py:A", f"{tmp_path}/specs/own.yaml") == f"{tmp_path}/specs/there.py:A"


def test_a_path_up_from_a_linked_folder_follows_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "specs").mkdir(parents=True)
    (tmp_path / "far" / "mine.py").touch()
    (tmp_path / "specs").symlink_to(tmp_path / "far" / "specs")
    assert located("../mine.py:A", "specs/own.yaml") == "specs/../mine.py:A"
    (tmp_path / "mine.py").touch()
    assert located("../mine.py:A", "specs/own.yaml") == "specs/../mine.py:A"


def test_what_is_written_keeps_its_place_in_labels_patterns_and_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "specs").mkdir()
    (tmp_path / "mine.py").touch()
    text = "input: {channels: 8, hw: 8}\nbaseline: ../mine.py:B\nmechanisms: [se, {import: ../mine.py:B, as: own}]\n"
    parsed = spec.parse_text(text, "specs/own.yaml")
    entry = parsed.entries[1]
    assert (entry.mechanism, entry.written, entry.text, entry.label) == ("mine.py:B", "../mine.py:B", "../mine.py:B", "own")
    assert parsed.baseline == "own"
    for pattern in ("../mine.py:B", "../*", "mine.py:*"):
        spec.check_import_permission(parsed, [pattern])
    with pytest.raises(
        UsageError, match=r"specs/own\.yaml:3: '\.\./mine\.py:B' \(mine\.py\) .* --allow-import '\.\./mine\.py:B'"
    ):
        spec.check_import_permission(parsed, ["other.py:*"])
    (tmp_path / "mine.py").unlink()
    with pytest.raises(SpecError) as caught:
        spec.parse_text(text, "specs/own.yaml", files=True)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (3, 27)
    assert problem.what == "mechanisms.1.import: '../mine.py:B': there is no such file"
    assert re.fullmatch(r"looked for /.*/mine\.py and /.*/mine\.py\.", problem.hint)


OWN = """
import os.path as paths
import torch.nn
from torch import nn as layers, Tensor
if True:
    class InIf: ...
else:
    InElse = 1
try:
    from a import Tried
except ImportError:
    def Failed(): ...
with open("x") as opened:
    InWith: int = 2
Left, (Right, *rest) = 1, (2, 3)
async def coroutine(): ...
def function():
    global Late
    Late, Inside = 1, 2
class Outer:
    class Nested: ...
"""


NAMES = ["paths", "torch", "layers", "Tensor", "InIf", "InElse", "Tried", "Failed", "InWith", "Left", "Right", "Late", "Outer"]


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_the_file_has(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    spec.parse_text(
        f"input: {{channels: 8, hw: 8}}\nmechanisms: [{{import: ./mine.py:{name}}}]\n", f"{tmp_path}/a.yaml", files=True
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Oter", "did you mean 'Outer'?"), ("Nested", ""), ("Zyx", "it has paths, torch, "), ("Inside", ""), ("nn", "")],
)
def test_a_class_that_the_file_lacks(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    text = f"input: {{channels: 8, hw: 8}}\nmechanisms:\n  - se\n  - import: ./mine.py:{name}\n  - sse\n"
    with pytest.raises(SpecError) as error:
        spec.parse_text(text, f"{tmp_path}/a.yaml", files=True)
    first, second = error.value.problems
    assert (first.line, first.column, first.what) == (4, 13, f"mechanisms.1.import: './mine.py' has no '{name}'")
    assert hint in first.hint
    assert (second.line, second.column) == (5, 5)


@pytest.mark.parametrize(
    "content", ["from x import *", "def __getattr__(name): ...", "globals()['A'] = 1", "class A(", "\0", "x = '\\d' +"]
)
def test_a_file_whose_text_does_not_show_what_it_has(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.py").write_text(content)
    spec.parse_text("input: {channels: 8, hw: 8}\nmechanisms: [{import: ./mine.py:A}]\n", f"{tmp_path}/a.yaml", files=True)


def test_an_empty_file_and_a_network_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    text = "input: {batch: 1, hw: 64}\nhost:\n  import: mine.py:Net\n  at: a\nmechanisms: [se]\n"
    with pytest.raises(SpecError, match=r"a\.yaml:3:11: host\.import: 'mine\.py' has no 'Net'\n.*\n.*it defines nothing"):
        spec.parse_text(text, f"{tmp_path}/a.yaml", files=True)


def test_a_near_file_is_near_by_its_stem(tmp_path: Path) -> None:
    for name in ("bin.yaml", "survey.yml", "survey.md"):
        (tmp_path / name).touch()
    assert near_file(tmp_path / "nope.yaml") == ""
    assert near_file(tmp_path / "survy.yml") == f" Did you mean {tmp_path}/survey.yml?"
    assert near_file(tmp_path / "survey.yaml").startswith(f" Did you mean {tmp_path}/survey.")


def test_entries_from_the_command_line() -> None:
    assert spec.make_entry("se", {"reduction": 4}) == spec.Entry("channel/se", "se", {"reduction": (4,)})
    assert spec.make_entry("./mine.py:Att") == spec.Entry("./mine.py:Att", "Att", {}, imported=True)
    with pytest.raises(UsageError, match="did you mean"):
        spec.make_entry("nonlocl")


# --- what is shipped, and what importing costs


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(SPECS)))
def test_every_shipped_spec_parses(path: Path) -> None:
    parsed = spec.parse_file(path)
    assert parsed.name == path.stem
    up = "../" * len(path.relative_to(SPECS).parent.parts)
    assert path.read_text().splitlines()[0] == f"# yaml-language-server: $schema={up}schema.json"


def test_the_specs_that_the_documentation_names_are_shipped() -> None:
    shipped = {str(path.relative_to(SPECS)) for path in SHIPPED}
    assert {"quickstart.yaml", "segmentation.yaml", "ablations/ccnet_recurrence.yaml", "ablations/reduction.yaml"} <= shipped


def test_the_shipped_schema_is_current() -> None:
    assert json.loads((SPECS / "schema.json").read_text()) == spec.json_schema()


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    schema = spec.json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"input", "mechanisms"}
    assert {"name", "input", "dtype", "modes", "mechanisms", "baseline", "metrics", "measure"} <= set(schema["properties"])
    assert set(schema["$defs"]["ItemModel"]["properties"]) == {"name", "import", "args", "as", "input"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import attnprof.spec, attnprof.plan", ("torch", "yaml", "pydantic", "attnprof.mechanisms")),
        (f"import attnprof.spec as s; s.parse_text({GOOD!r}, 'x')", ("torch", "numpy")),
        ("import attnprof.spec as s; s.make_entry('se')", ("torch", "yaml", "pydantic")),
    ],
)
def test_imports_stay_lazy(code: str, absent: tuple[str, ...]) -> None:
    check = f"{code}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=SPECS.parent)
    assert done.stdout == "[]\n"


# --- sizes: a list of inputs, and a mechanism with sizes of its own


STAGES = """\
input:
  - {channels: 256, hw: 56}
  - {channels: [512, 1024], hw: [28x28, 14]}
mechanisms:
  - se
  - {name: nonlocal, input: {channels: 64, hw: 7, frames: [8, 16]}}
  - {name: gcnet, input: {channels: 3}}
"""


def test_a_list_of_inputs_and_sizes_of_its_own() -> None:
    parsed = spec.parse_text(STAGES, "x")
    stages = (spec.Input((256,), ((56, 56),)), spec.Input((512, 1024), ((28, 28), (14, 14))))
    assert parsed.inputs == stages
    assert spec.inputs_of(parsed, parsed.entries[0]) == stages
    assert spec.inputs_of(parsed, parsed.entries[1]) == (spec.Input((64,), ((7, 7),), (1,), (1,)),)  # an image
    assert [given.channels for given in spec.inputs_of(parsed, parsed.entries[2])] == [(3,), (3,)]
    assert math.prod(spec.axes(parsed).values()) == (5 + 1 + 3) * 2


@pytest.mark.parametrize(
    ("before", "after", "place", "what"),
    [
        ("hw: 56", "hw: 56, heigth: 3", (2, 29), "input.0: unknown key 'heigth'"),
        ("hw: 56", "batch: 1", (2, 5), "input.0: the key 'hw' is missing"),
        ("[512, 1024]", "[512, 512]", (3, 22), "input.1.channels.1: 512 stands twice on this axis"),
        ("[8, 16]", "[8, 0]", (6, 63), "mechanisms.1.input.frames.1: must be at least 1, not 0"),
        ("[8, 16]", "[8, 8]", (6, 63), "mechanisms.1.input.frames.1: 8 stands twice on this axis"),
        ("{channels: 3}", "{chanels: 3}", (7, 27), "mechanisms.2.input: unknown key 'chanels'"),
    ],
)
def test_mistakes_in_them_are_found_at_their_place(before: str, after: str, place: tuple[int, int], what: str) -> None:
    line, column, said, _ = only_problem(STAGES.replace(before, after))
    assert ((line, column), said) == (place, what)


def test_a_resolution_as_an_argument_is_written_as_elsewhere() -> None:
    text = GOOD.replace("[nonlocal, se]", "[{name: fcanet, args: {hw: [7x7, 14]}}]")
    assert spec.parse_text(text, "x").entries[0].args == {"hw": ([7, 7], [14, 14])}
    assert spec.make_entry("fcanet", {"hw": "7x5"}).args == {"hw": ([7, 5],)}
    _, _, what, hint = only_problem(text.replace("7x7", "7y7"))
    assert "not '7y7'" in what
    assert hint == "write HxW, such as 7x7"
