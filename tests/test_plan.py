"""Plan: how many cases, in which order, under which keys; choosing and grouping them."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprof import plan
from attnprof.errors import NothingSelectedError, UsageError
from attnprof.records import DTYPES, MODES, Case, Shape, case_from_json, to_json
from attnprof.spec import Entry, Input, Spec, axes, parse_text, variants

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=2, unique=True).map(tuple)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["r", "k", "heads"]),
    st.lists(
        st.integers(0, 9) | st.sampled_from(["a", "1", "true", None, True, 0.5]), min_size=1, max_size=3, unique_by=repr
    ).map(tuple),
    max_size=2,
)
SIZE_AXES = ("channels", "hw", "batch", "frames")
AXIS = {
    "channels": SIZES,
    "hw": st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=2, unique=True).map(tuple),
    "batch": SIZES,
    "frames": SIZES,
    "dtype": st.lists(st.sampled_from(DTYPES), min_size=1, max_size=2, unique=True).map(tuple),
    "modes": st.lists(st.sampled_from(MODES), min_size=1, unique=True).map(tuple),
    "sdpa": st.lists(st.sampled_from(["auto", "math", "fused"]), min_size=1, max_size=2, unique=True).map(tuple),
    "memory_format": st.lists(st.sampled_from(["contiguous", "channels_last"]), min_size=1, unique=True).map(tuple),
    "compile": st.lists(st.booleans(), min_size=1, unique=True).map(tuple),
    "autocast": st.lists(st.sampled_from(["none", "float16"]), min_size=1, unique=True).map(tuple),
    "threads": st.sampled_from([(None,), (1,), (1, 2)]),
}


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A small Spec in which any axis may vary; labels are unique."""
    labels = draw(st.lists(st.sampled_from(["alpha", "beta", "gamma", "mine"]), min_size=1, max_size=3, unique=True))
    entries = tuple(Entry(f"spatial/{label}", label, draw(ARGUMENTS)) for label in labels)
    varied = draw(st.sets(st.sampled_from(sorted(AXIS)), max_size=5))
    fixed: dict[str, Any] = {"channels": (8,), "hw": ((3, 4),)}
    values = fixed | {name: draw(AXIS[name]) for name in sorted(varied)}
    size = Input(**{name: values.pop(name) for name in SIZE_AXES if name in values})
    return Spec((size,), entries, **values)


@given(specs())
def test_the_size_is_the_product_of_the_axes(spec: Spec) -> None:
    cases = plan.expand(spec, "none")
    per_entry = sum(math.prod(map(len, entry.args.values())) for entry in spec.entries)
    outer = math.prod(len(getattr(spec.inputs[0] if name in SIZE_AXES else spec, name)) for name in AXIS)
    assert len(cases) == outer * per_entry == math.prod(axes(spec).values())


@given(specs())
def test_keys_and_labels_are_unique(spec: Spec) -> None:
    cases = plan.expand(spec, "cpu")
    assert len({case.key for case in cases}) == len(cases)
    assert len({(case.block, case.label) for case in cases}) == len(cases)


@given(specs())
def test_the_order_is_stable_and_blocks_stand_together(spec: Spec) -> None:
    cases = plan.expand(spec, "cpu")
    assert [case.key for case in cases] == [case.key for case in plan.expand(spec, "cpu")]
    groups = plan.blocks(cases)
    assert tuple(case for group in groups for case in group) == cases
    assert all(len({case.block for case in group}) == 1 for group in groups)
    assert len({group[0].block for group in groups}) == len(groups)
    labels = [label for entry in spec.entries for label, _ in variants(entry)]
    assert all([case.label for case in group] == labels for group in groups)


@given(specs())
def test_a_case_survives_json(spec: Spec) -> None:
    for case in plan.expand(spec, "cpu")[:20]:
        back = case_from_json(json.loads(json.dumps(to_json(case))))
        assert back == case
        assert back.key == case.key


def test_the_order_of_the_axes() -> None:
    spec = parse_text(
        "input: {channels: [8, 16], hw: [3x4, 5]}\ndtype: [float32, float16]\n"
        "mechanisms: [nonlocal, {name: se, args: {reduction: [2, 4]}}]\n",
        "x",
    )
    cases = plan.expand(spec, "none")
    assert [(case.shape.text(), case.dtype, case.mode, case.label) for case in cases[:7]] == [
        ("1x8x3x4", "float32", "inference", "nonlocal"),
        ("1x8x3x4", "float32", "inference", "se[reduction=2]"),
        ("1x8x3x4", "float32", "inference", "se[reduction=4]"),
        ("1x8x3x4", "float32", "training", "nonlocal"),
        ("1x8x3x4", "float32", "training", "se[reduction=2]"),
        ("1x8x3x4", "float32", "training", "se[reduction=4]"),
        ("1x8x3x4", "float16", "inference", "nonlocal"),
    ]
    assert list(dict.fromkeys(case.shape.text() for case in cases)) == ["1x8x3x4", "1x8x5x5", "1x16x3x4", "1x16x5x5"]
    assert cases[1] == Case(
        "channel/se",
        "se[reduction=2]",
        {"reduction": 2},
        Shape(1, 8, 3, 4),
        "float32",
        "inference",
        "none",
        None,
        {"sdpa": "auto"},
    )


def test_sizes_of_its_own_come_after_those_of_the_spec() -> None:
    spec = parse_text(
        "input: [{channels: 8, hw: 3}, {channels: 16, hw: 2}]\nmodes: inference\n"
        "mechanisms: [{name: nonlocal, input: {hw: [2, 5]}}, se, {name: cam, input: {channels: 4, hw: 3, frames: 2}}]\n",
        "x",
    )
    assert [(case.shape.text(), case.label) for case in plan.expand(spec, "none")] == [
        ("1x8x3x3", "se"),
        ("1x16x2x2", "nonlocal"),
        ("1x16x2x2", "se"),
        ("1x8x2x2", "nonlocal"),
        ("1x8x5x5", "nonlocal"),
        ("1x16x5x5", "nonlocal"),
        ("1x4x3x3", "cam"),
    ]


def test_frames_are_for_what_takes_frames() -> None:
    spec = parse_text(
        "input: {channels: 8, hw: 3, frames: [2, 4]}\nmodes: inference\n"
        "mechanisms: [nonlocal, nonlocal3d, fgfa, {import: 'mine:Mine'}]\n",
        "x",
    )
    assert [(case.shape.text(), case.label) for case in plan.expand(spec, "none")] == [
        ("1x2x8x3x3", "nonlocal3d"),
        ("1x2x8x3x3", "fgfa"),
        ("1x4x8x3x3", "nonlocal3d"),
        ("1x4x8x3x3", "fgfa"),
        ("1x8x3x3", "nonlocal"),
        ("1x8x3x3", "Mine"),
    ]
    assert math.prod(axes(spec).values()) == 6


def test_a_label_names_only_the_axes_that_vary() -> None:
    entry = Entry("a/b", "b", {"r": (4,), "k": (1, 2), "act": ("relu", "1", None), "flag": (True, False)})
    labels = [label for label, _ in variants(entry)]
    assert labels[:4] == [
        "b[k=1,act=relu,flag=true]",
        "b[k=1,act=relu,flag=false]",
        "b[k=1,act='1',flag=true]",
        "b[k=1,act='1',flag=false]",
    ]
    assert [label for label, _ in variants(Entry("a/b", "b", {"r": (4,)}))] == ["b"]
    assert list(variants(Entry("a/b", "b"))) == [("b", {})]


def test_a_default_that_is_spelt_out_asks_the_same_question() -> None:
    plain = "input: {channels: 8, hw: 9}\nmechanisms: [spatial/nonlocal]\n"
    spelt = (
        "name: other\ninput: {batch: 1, channels: [8], hw: 9x9, frames: 1}\ndtype: float32\nmechanisms: [{name: nonlocal}]\n"
        "sdpa: auto\nmemory_format: contiguous\ncompile: false\nautocast: none\nmeasure: {budget_s: 1}\nmetrics: [macs]\n"
    )
    keys = [[case.key for case in plan.expand(parse_text(text, "x"), "cpu")] for text in (plain, spelt)]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 2


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("sdpa: math", {"sdpa": "math"}),
        ("compile: true", {"sdpa": "auto", "compile": True}),
        ("autocast: float16", {"sdpa": "auto", "autocast": "float16"}),
        ("memory_format: channels_last", {"sdpa": "auto", "memory_format": "channels_last"}),
        ("threads: 2", {"sdpa": "auto", "threads": 2}),
        ("threads: 1", {"sdpa": "auto", "threads": 1}),
    ],
)
def test_settings_hold_what_was_set(line: str, settings: dict[str, Any]) -> None:
    base = "input: {channels: 8, hw: 9}\nmechanisms: [nonlocal]\nmodes: inference\n"
    (plain,), (case,) = (plan.expand(parse_text(base + extra, "x"), "cpu") for extra in ("", line + "\n"))
    assert case.settings == settings
    assert case.key != plain.key
    assert case.block != plain.block


def test_the_device_is_part_of_the_question() -> None:
    spec = Spec((Input((8,), ((9, 9),)),), (Entry("spatial/nonlocal", "nonlocal"),))
    assert {case.device for case in plan.expand(spec, "cuda:0")} == {"cuda:0"}
    assert plan.expand(spec, "cpu")[0].key != plan.expand(spec, "none")[0].key


def test_a_sweep_that_is_too_large_is_not_expanded() -> None:
    many = tuple(range(1, 1001))
    spec = Spec((Input(many, ((9, 9),), many),), (Entry("a/b", "b", {"x": many, "y": many}),))
    start = time.perf_counter()
    with pytest.raises(UsageError) as caught:
        plan.expand(spec, "none")
    assert time.perf_counter() - start < 1
    assert str(caught.value) == (
        "the sweep has 2,000,000,000,000 points, more than 100,000: "
        "batch 1,000 x channels 1,000 x modes 2 x mechanisms 1,000,000"
    )


CASES = plan.expand(
    parse_text(
        "input: {channels: 8, hw: [9, 10]}\nmodes: inference\n"
        "mechanisms: [nonlocal, pam, {name: se, args: {reduction: [2, 4]}, as: gate}, {import: 'my.mod:Att', as: own}]\n",
        "x",
    ),
    "none",
)


@pytest.mark.parametrize(
    ("globs", "labels"),
    [
        ([], ["nonlocal", "pam", "gate[reduction=2]", "gate[reduction=4]", "own"]),
        (["nonlocal"], ["nonlocal"]),
        (["non*", "p?m"], ["nonlocal", "pam"]),
        (["spatial/*"], ["nonlocal", "pam"]),
        (["gate"], ["gate[reduction=2]", "gate[reduction=4]"]),
        (["gate[reduction=4]"], ["gate[reduction=4]"]),
        (["se"], ["gate[reduction=2]", "gate[reduction=4]"]),
        (["Att"], ["own"]),
        (["my.mod:*"], ["own"]),
        (["nothing", "own"], ["own"]),
    ],
)
def test_selection(globs: list[str], labels: list[str]) -> None:
    chosen = plan.select(CASES, globs)
    assert [case.label for case in chosen] == [*labels, *labels]
    assert [CASES.index(case) for case in chosen] == sorted(CASES.index(case) for case in chosen)


def test_selection_by_the_start_of_a_key() -> None:
    assert plan.select(CASES, [CASES[3].key[:8]]) == (CASES[3],)
    assert plan.select(CASES, [CASES[3].key]) == (CASES[3],)
    with pytest.raises(NothingSelectedError):
        plan.select(CASES, [CASES[3].key[:5]])


def test_nothing_selected_names_what_there_is() -> None:
    with pytest.raises(NothingSelectedError) as caught:
        plan.select(CASES, ["ccnet", "x*"])
    assert str(caught.value) == (
        "nothing matches 'ccnet' or 'x*': there is nonlocal, pam, gate[reduction=2], gate[reduction=4], own."
    )
    assert caught.value.exit_code == 3
    with pytest.raises(NothingSelectedError, match="there is no case"):
        plan.select([], [])


def test_blocks_keep_the_order_of_first_sight() -> None:
    mixed = (CASES[0], CASES[5], CASES[1], CASES[6])
    assert plan.blocks(mixed) == ((CASES[0], CASES[1]), (CASES[5], CASES[6]))
    assert plan.blocks([]) == ()
