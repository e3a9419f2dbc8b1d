"""How counts grow: exponents of kept forms, degrees found by equal differences, slopes over the sizes that there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnprof.errors import UntraceableError
from attnprof.profiling.growth import Sizes, exponent, of_form, over_multiples, over_sizes, slope
from attnprof.records import Case, Counts, OpCost, Shape

SIDES = (65, 97, 129, 193, 257)


def counts_of(macs: int, calls: int = 1) -> Counts:
    op = OpCost("mm", "", "forward", calls, macs, 2 * macs, 0)
    return Counts(0, macs, 2 * macs, 0, 0, 0, 0, 0, ops=(op,))


def sizes_of(macs: Callable[[int], int]) -> Sizes:
    return Sizes(lambda k: counts_of(macs(k)))


def case_of(mechanism: str, side: int) -> Case:
    return Case(mechanism, mechanism, {}, Shape(1, 64, side, side), settings={"sdpa": "auto"})


@pytest.mark.parametrize(
    ("order", "variable", "power"),
    [
        ("O(C**2*N + C*N**1.5)", "N", 1.5),
        ("O(C**2*N + C*N**1.5)", "C", 2),
        ("O(C*N**2)", "N", 2),
        ("O(C**2)", "N", 0),
        ("O(N)", "N", 1),
        ("O(1)", "N", 0),
    ],
)
def test_the_exponent_of_an_order(order: str, variable: str, power: float) -> None:
    assert exponent(order, variable) == power


@given(st.floats(0, 3), st.floats(0.1, 1e6))
def test_the_slope_of_a_power_is_its_exponent(power: float, factor: float) -> None:
    points = [(float(side**2), factor * float(side**2) ** power) for side in SIDES]
    assert math.isclose(slope(points), power, abs_tol=1e-9)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 9))
def test_multiples_give_the_degree_of_a_polynomial_whatever_its_lower_terms(lower: list[int], highest: int) -> None:
    found = over_multiples(sizes_of(lambda k: sum(c * k**i for i, c in enumerate([*lower, highest]))), "macs", "W")
    assert (found.exponent, found.exact) == (len(lower), True)


def test_the_exponent_in_what_grows_with_the_square_of_a_multiple_is_half_its_degree() -> None:
    found = over_multiples(sizes_of(lambda k: 3 * k**4 + 7 * k**2 + 100), "macs", "N", power=2)
    assert (found.exponent, found.exact, found.variable) == (2, True, "N")


def test_what_is_a_line_between_two_powers_of_two_only_is_no_line() -> None:
    found = over_multiples(sizes_of(lambda k: k * int(math.log2(k) + 1e-9) + k), "macs", "N")
    assert not found.exact
    assert 1 < found.exponent < 1.5


def test_a_module_that_takes_no_other_size_has_no_order() -> None:
    def refuse(k: int) -> Counts:
        if k > 1:
            raise ValueError("no")
        return counts_of(5)

    with pytest.raises(UntraceableError, match="twice or three times that size: ValueError: no"):
        over_multiples(Sizes(refuse), "macs", "N")


def test_over_sizes_a_slope_and_what_it_is_over() -> None:
    found = over_sizes({81: 810, 9: 90, 27: 270}, "macs", "N")
    assert (found.exact, found.sizes) == (False, (9, 27, 81))
    assert math.isclose(found.exponent, 1, abs_tol=1e-12)
    assert found.text == "1.000, the slope over 3 sizes from N = 9 to 81"
    assert over_sizes({9: 0, 81: 0}, "macs", "N").exponent == 0


@pytest.mark.parametrize(
    ("counts", "words"), [({81: 5}, r"wants two sizes \(there is 81\)"), ({9: 0, 81: 5}, "macs is 0 at some of the sizes")]
)
def test_over_sizes_that_give_no_slope(counts: dict[int, int], words: str) -> None:
    with pytest.raises(UntraceableError, match=words):
        over_sizes(counts, "macs", "N")


def test_a_kept_form_is_exact_and_there_is_none_of_ones_own() -> None:
    cases = [case_of("spatial/nonlocal", side) for side in (33, 65)]
    known = of_form(cases, "macs", "N")
    assert known is not None
    assert (known.exponent, known.exact, known.text[:26]) == (2, True, "2, by the closed form O(C*")
    assert of_form([replace(case, mechanism="./mine.py:Mine") for case in cases], "macs", "N") is None


def test_a_form_says_nothing_of_the_batch() -> None:
    assert of_form([case_of("spatial/nonlocal", 33)], "macs", "B") is None
