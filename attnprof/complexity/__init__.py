"""pytest plugin: budgets and orders of your own modules in your own test suite.

    def test_attention_stays_linear(complexity):
        module = Mine(64).eval()
        cost = complexity(module, "1x64x33x33", mode="training")
        assert cost.peak_bytes <= "3 MiB"
        assert cost.macs <= "600 MMACs"
        assert cost.order("peak", "N") <= 1

What is counted is what `attnprof.profile` counts: exact integers, without running the module and without a GPU. Installing
attnprof registers the plugin (`-p no:attnprof.complexity` leaves it out). It imports pytest alone; torch and the rest are
imported when a test first calls `complexity`.

counted.py   Complexity, and the numbers that it gives: Amount, Order
budget.py    '2 GiB', '1.5 GMACs' -> a number
frames.py    errors of a module without the frames of attnprof and torch
larger.py    inputs at a multiple of their size
words.py     what a failed comparison says
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import nn

    from attnprof.complexity.counted import Complexity

__all__ = ["Counter", "complexity"]


class Counter:
    """What the fixture `complexity` gives: call it with what is to be counted. Annotate a test's argument with it."""

    def __init__(self) -> None:
        self._named: dict[str, Complexity] = {}

    def __call__(
        self,
        module_or_name: nn.Module | str,
        shape_or_inputs: Any,
        mode: str = "inference",
        dtype: str = "float32",
        **args: Any,
    ) -> Complexity:
        """What one pass costs.

        module_or_name: a module, used in its own train or eval state and left as it was; a catalogue name ('ccnet'); or an
            import path ('mine.py:Mine', 'pkg.blocks:Mine').
        shape_or_inputs: 'BxCxHxW' or (B, C, H, W); for a module also tokens (B, N, C), frames (B, T, C, H, W), a tensor, or a
            list of its inputs.
        mode: inference (forward) or training (forward and backward).
        args: build arguments of a name or path.

        A name or path is counted once in a session; a module every time, since it may have changed.
        Raises what `attnprof.profile` raises: UsageError, UntraceableError, and whatever the module raises.
        """
        __tracebackhide__ = True
        from attnprof.complexity.counted import count

        if not isinstance(module_or_name, str):
            return count(module_or_name, shape_or_inputs, mode, dtype, args)
        asked = repr((module_or_name, shape_or_inputs, mode, dtype, sorted(args.items())))
        if asked not in self._named:
            self._named[asked] = count(module_or_name, shape_or_inputs, mode, dtype, args)
        return self._named[asked]


@pytest.fixture(scope="session")
def complexity() -> Counter:
    """Budgets of modules, counted without running them: `complexity(module, '1x64x33x33').peak_bytes <= '2 GiB'`."""
    return Counter()


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """What a comparison of a count or an order says when it fails; other comparisons are left to pytest."""
    from attnprof.complexity import words

    return words.compared(op, left, right)
