"""The catalogue x a list of plain checks: adding a mechanism adds its tests.

A check is a function (mechanism, name, args); a mechanism is exempt where its `exempt` names the check, with a reason.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from attnprof import mechanisms
from attnprof.mechanisms import survey
from attnprof.profiling.counting.tracer import Tracer
from attnprof.records import MODES, Mechanism, Shape
from tests import observer
from tests.catalogue import (
    NAMES,
    exemptions,
    flatten,
    make,
    make_inputs,
    one_thread,
    reference_of,
    shape_like,
    small_shape,
    variants,
)

Check = Callable[[Mechanism, str, dict[str, Any]], None]


def equals_reference(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """Values and gradients (inputs and parameters), float64, in eval and in training mode."""
    shape = small_shape(name)
    full = mechanisms.complete_args(mechanism, shape, args)
    assert reference_of(name) is not None, f"tests/references/{mechanism.name}.py is missing"
    for training in (False, True):
        module = make(mechanism, shape, args).train(training)
        twin = make(mechanism, shape, args).train(training)
        inputs, twin_inputs = make_inputs(mechanism, shape, args), make_inputs(mechanism, shape, args)
        p = {**dict(twin.named_parameters(remove_duplicate=False)), **dict(twin.named_buffers(remove_duplicate=False))}
        torch.default_generator.manual_seed(7)
        got = flatten(module(*inputs))
        torch.default_generator.manual_seed(7)
        want = flatten(reference_of(name).reference(p, *twin_inputs, training=training, **full))
        assert len(got) == len(want)
        generator = torch.Generator().manual_seed(3)
        for actual, expected in zip(got, want, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
        weights = [torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) for tensor in got]
        torch.stack([(a * w).sum() for a, w in zip(got, weights, strict=True)]).sum().backward()
        torch.stack([(a * w).sum() for a, w in zip(want, weights, strict=True)]).sum().backward()
        for index, (mine, theirs) in enumerate(zip(inputs, twin_inputs, strict=True)):
            if not mine.requires_grad:
                continue
            assert mine.grad is not None, f"input {index} gets no gradient"
            assert theirs.grad is not None
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10)
        for (label, mine), theirs in zip(module.named_parameters(), twin.parameters(), strict=True):
            if not mine.requires_grad:
                continue
            assert mine.grad is not None, f"{label} gets no gradient"
            assert theirs.grad is not None, label
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-10)


def params_match_formula(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """The parameter count equals params() for several widths, and the docstring expression for the defaults.

    With the defaults also at widths that nothing divides, where the module can be built.
    """
    assert mechanism.params is not None, "MECHANISM has no params="
    for channels in (32, 64, 96) if args else (32, 64, 96, 3, 10, 33):
        shape = shape_like(name, 1, channels, *small_shape(name).hw)
        try:
            module = mechanisms.build(mechanism, shape, args)
        except ValueError:
            assert channels in (3, 10, 33), f"C={channels}"
            continue
        actual = sum(parameter.numel() for parameter in module.parameters())
        full = mechanisms.complete_args(mechanism, shape, args)
        assert actual == mechanism.params(channels, **full), f"C={channels}"
        if not args:
            line = mechanisms.describe(name).headings.get("Params", "").split("\n")[0]
            symbols = _symbols(mechanism, shape, full)
            try:
                written = eval(line, {}, symbols)
            except Exception as error:  # noqa: BLE001
                pytest.fail(f"the first line of the Params heading, {line!r}: {error!r}; it may use {', '.join(symbols)}")
            assert actual == written, f"the first line of the Params heading, {line!r}, at C={channels}"


def _symbols(mechanism: Mechanism, shape: Shape, args: dict[str, Any]) -> dict[str, Any]:
    """C, H, W, N, T, log2, every build argument by its name, and the first letter of each where it is free."""
    height, width = shape.hw
    symbols: dict[str, Any] = {"C": shape.channels, "H": height, "W": width, "N": height * width, "T": shape.frames}
    symbols["log2"] = math.log2
    for parameter in list(inspect.signature(mechanism.build).parameters.values())[1:]:
        value = args.get(parameter.name, parameter.default)
        symbols[parameter.name] = value
        symbols.setdefault(parameter.name[0], value)
    return symbols


def every_parameter_gets_a_finite_gradient(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """No dead branch: every parameter and input has a finite gradient, above rounding in the training or the eval state.

    A bias before a batch norm has none in training; one that has none in either state (before a softmax) is exempt by name.
    """
    largest: dict[str, float] = {}
    for training in (True, False):
        module = make(mechanism, small_shape(name), args).train(training)
        inputs = make_inputs(mechanism, small_shape(name), args)
        torch.default_generator.manual_seed(7)
        outputs = module(*inputs)
        generator = torch.Generator().manual_seed(3)
        roots = flatten(outputs if mechanism.objective is None else mechanism.objective(outputs))
        torch.stack([(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in roots]).sum().backward()
        for label, parameter in module.named_parameters():
            if not parameter.requires_grad:
                largest[label] = 0.0
        for label, tensor in [*module.named_parameters(), *((f"input {i}", t) for i, t in enumerate(inputs))]:
            if tensor.requires_grad:
                assert tensor.grad is not None or (not training and mechanism.objective is not None), label
                gradient = torch.zeros(1) if tensor.grad is None else tensor.grad
                assert torch.isfinite(gradient).all(), label
                largest[label] = max(largest.get(label, 0.0), float(gradient.abs().max()))
    without = {label for label, value in largest.items() if value < 1e-13}
    check = every_parameter_gets_a_finite_gradient.__name__
    exempt = {label for label in largest if f"{check}:{label}" in mechanism.exempt}
    assert without == exempt, f"no gradient: {sorted(without - exempt)}; exempt, but with one: {sorted(exempt - without)}"


def batch_items_are_independent_in_eval(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """f(x)[i] == f(x[i:i+1]) in eval mode, with the same seed."""
    shape = small_shape(name)
    module = make(mechanism, shape, args).eval()
    inputs = make_inputs(mechanism, shape, args)
    torch.default_generator.manual_seed(7)
    whole = flatten(module(*inputs))
    torch.default_generator.manual_seed(7)
    first = flatten(module(*(tensor[:1] for tensor in inputs)))
    for a, b in zip(whole, first, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=1e-9, atol=1e-11)


def odd_sizes_and_other_widths_run(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """Non-square odd maps, wide and tall, at C in {32, 64, 96}: finite output."""
    _, height, width = small_shape(name).batch, *small_shape(name).hw
    for channels, hw in ((32, (height, width)), (64, (width, height)), (96, (height + 2, width))):
        shape = shape_like(name, 1, channels, *hw)
        module = make(mechanism, shape, args, torch.float32).eval()
        with torch.no_grad():
            for tensor in flatten(module(*make_inputs(mechanism, shape, args, torch.float32))):
                assert torch.isfinite(tensor).all()


def runs_in_bfloat16(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """bfloat16 in, bfloat16 out, finite."""
    shape = small_shape(name)
    module = make(mechanism, shape, args, torch.bfloat16).eval()
    with torch.no_grad():
        for tensor in flatten(module(*make_inputs(mechanism, shape, args, torch.bfloat16))):
            assert tensor.dtype == torch.bfloat16
            assert torch.isfinite(tensor).all()


def traced_shapes_equal_real_ones(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """What the module gives on meta has the shapes and dtypes of what it gives on data, in both states."""
    for training in (True, False):
        module = make(mechanism, small_shape(name), args, torch.float32).train(training)
        inputs = make_inputs(mechanism, small_shape(name), args, torch.float32)
        real = flatten(module(*inputs))
        with Tracer():
            traced = flatten(module.to("meta")(*(tensor.to("meta") for tensor in inputs)))
        assert [(t.shape, t.dtype) for t in traced] == [(t.shape, t.dtype) for t in real]


def traced_peak_is_the_allocators(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """What torch's CPU allocator sees of a run without a mode is the traced peak, plus scratch that single ops explain."""
    shape = shape_like(name, 1, 32, 9, 9)
    with one_thread():
        for mode in MODES:
            row = observer.observe_mechanism(name, mode, shape)
            assert row.left_over == 0, f"{mode}: {row}"


def docstring_has_every_heading(mechanism: Mechanism, name: str, args: dict[str, Any]) -> None:
    """The fixed headings of a mechanism file are there, not empty, and Survey can be read; name and family are the file's."""
    entry = mechanisms.describe(name)
    assert entry.title.split(" ")[0] not in mechanisms.HEADINGS, "the docstring opens with a title line, before the headings"
    missing = [heading for heading in mechanisms.HEADINGS if not entry.headings.get(heading)]
    assert not missing, f"headings missing from the docstring, or empty: {', '.join(missing)}"
    assert (mechanism.family, mechanism.name) == tuple(name.split("/"))
    assert mechanism.layout in mechanisms.LAYOUTS
    assert mechanism.natural is not None, "MECHANISM has no natural= shape: Shape(batch, channels, height, width, frames)"
    columns = survey.read(entry.headings["Survey"])
    assert columns.domain == survey.DOMAINS.get(mechanism.family, mechanism.family)
    assert not set(columns.tasks) - set(survey.TASKS), f"Survey: {columns.tasks} must be of: {', '.join(survey.TASKS)}"
    assert set(columns.kind) in ({"soft"}, {"hard"}, {"soft", "hard"}), "Survey: kind is soft, hard, or both with a comma"
    assert set(columns.goals) <= {"I", "II", "III", "IV", "V", "VI", "VII"}, "Survey: goals are I to VII, or none"
    assert columns.stage in (*survey.STAGES, "none")
    assert columns.g, "Survey: g is empty"
    assert columns.f, "Survey: f is empty"


CHECKS: tuple[Check, ...] = (
    equals_reference,
    params_match_formula,
    every_parameter_gets_a_finite_gradient,
    batch_items_are_independent_in_eval,
    odd_sizes_and_other_widths_run,
    runs_in_bfloat16,
    traced_shapes_equal_real_ones,
    traced_peak_is_the_allocators,
    docstring_has_every_heading,
)
OF_THE_DEFAULTS = (traced_peak_is_the_allocators, docstring_has_every_heading)  # not of every variant


def _sweep() -> Iterator[Any]:
    for name in NAMES:
        for check in CHECKS:
            for args in variants(name) if check not in OF_THE_DEFAULTS else ({},):
                label = ",".join(f"{key}={value}" for key, value in args.items())
                yield pytest.param(name, check, args, id=f"{name}-{check.__name__}" + (f"-{label}" if label else ""))


@pytest.mark.parametrize(("name", "check", "args"), list(_sweep()))
def test_mechanism(name: str, check: Check, args: dict[str, Any]) -> None:
    mechanism = mechanisms.load(name)
    if check.__name__ in mechanism.exempt:
        pytest.skip(f"exempt: {mechanism.exempt[check.__name__]}")
    check(mechanism, name, args)


def test_exemptions_are_few_and_name_what_there_is() -> None:
    """At most one (mechanism, check) pair in twenty, those for a single parameter included; `make test` prints them."""
    known = {check.__name__ for check in CHECKS}
    pairs = set()
    for name, key, reason in exemptions():
        check, _, part = key.partition(":")
        assert check in known, f"{name}: there is no check '{check}'"
        assert reason.strip()
        mechanism = mechanisms.load(name)
        parameters = dict(make(mechanism, small_shape(name), {}).named_parameters())
        assert not part or part in parameters, f"{name} has no parameter '{part}'"
        pairs.add((name, check))
    assert len(pairs) <= 0.05 * len(NAMES) * len(CHECKS)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("temporal/tam", Shape(1, 3, 7, 7, 8), "3 channels leave tam none for"),
        ("branch/sknet", Shape(1, 50, 7, 7), "50 channels do not divide into 32 groups"),
        ("channel/srm", Shape(1, 32, 1, 1), "needs a map of two or more"),
    ],
)
def test_a_size_that_cannot_be_is_refused_in_words(name: str, shape: Shape, words: str) -> None:
    mechanism = mechanisms.load(name)
    with pytest.raises(ValueError, match=words):
        mechanisms.build(mechanism, shape, {})(*make_inputs(mechanism, shape, {}, torch.float32))
