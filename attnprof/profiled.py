"""`attnprof.profile`: one case from Python, by name or by module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attnprof.errors import UsageError
from attnprof.records import MODES, Case, Record, Shape, TensorSpec


def by_name(name: str, shape: Any, device: str, mode: str, dtype: str, budget_s: float, args: dict[str, Any]) -> Record:
    """A catalogue name or import path: traced here where no device is wanted, else in children like a cell of a run."""
    from attnprof import spec

    _check(mode, dtype)
    entry = spec.make_entry(name, args)
    case = Case(entry.mechanism, entry.label, args, _shape(shape), dtype, mode, "none", settings={"sdpa": "auto"})
    if device == "none":
        from attnprof.profiling.trace import trace_case

        return Record(case, counts=trace_case(case))
    import dataclasses

    from attnprof.execute import Options, resolve_device, run_cases

    resolved, _ = resolve_device(device)
    (record,) = run_cases([dataclasses.replace(case, device=resolved)], Options(budget_s=budget_s))
    return record


def by_module(module: Any, inputs: Any, device: str, mode: str, dtype: str, budget_s: float) -> Record:
    """A module that is there: traced in this process. Measuring wants a child, and so an import path."""
    from attnprof.profiling.trace import trace_module

    _check(mode, dtype)
    kind = type(module)
    if device != "none":
        raise UsageError(
            f"a module object is only traced (device='none'). To measure it, give its import path: "
            f"profile('{kind.__module__}:{kind.__qualname__}', ...)."
        )
    specs = _inputs(inputs)
    counts = trace_module(module, specs, mode, dtype=dtype)
    sizes = next((tuple(value.shape) for value in specs if hasattr(value, "shape")), ())
    case = Case(f"{kind.__module__}:{kind.__qualname__}", kind.__name__, {}, _shape_of(sizes), dtype, mode)
    return Record(case, counts=counts)


def _check(mode: str, dtype: str) -> None:
    from attnprof.records import DTYPES

    if mode not in MODES:
        raise UsageError(f"mode='{mode}': there is {' and '.join(MODES)}.")
    if dtype not in DTYPES:
        raise UsageError(f"dtype='{dtype}': there is {', '.join(DTYPES)}.")


def _shape(value: Any) -> Shape:
    """Shape, 'BxCxHxW' or (B, C, H, W); B, T, C, H, W for video."""
    if isinstance(value, Shape):
        return value
    sizes = value.split("x") if isinstance(value, str) else value
    try:
        numbers = [int(size) for size in sizes]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (4, 5) or min(numbers) < 1:
        raise UsageError(f"a shape is written 'BxCxHxW' or (B, C, H, W), not {value!r}.")
    if len(numbers) == 5:
        batch, frames, channels, height, width = numbers
        return Shape(batch, channels, height, width, frames)
    batch, channels, height, width = numbers
    return Shape(batch, channels, height, width)


def _inputs(value: Any) -> Sequence[Any]:
    """Inputs of a module: one shape or tensor, or a list of them."""
    if isinstance(value, (str, Shape)):
        shape = _shape(value)
        return (TensorSpec((shape.batch, shape.channels, shape.height, shape.width)),)
    if hasattr(value, "shape") or isinstance(value, TensorSpec):
        return (value,)
    items = list(value)
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return (TensorSpec(tuple(items)),)
    return tuple(TensorSpec(tuple(item)) if _is_size(item) else item for item in items)


def _is_size(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and bool(item) and all(isinstance(extent, int) for extent in item)


def _shape_of(sizes: tuple[int, ...]) -> Shape:
    """The nearest Shape for a first input of any rank: (B, C, H, W), or tokens (B, N, C) as one row."""
    if len(sizes) == 4:
        return Shape(*sizes)
    if len(sizes) == 3:
        return Shape(sizes[0], sizes[2], 1, sizes[1])
    if len(sizes) == 5:
        return Shape(sizes[0], sizes[2], sizes[3], sizes[4], frames=sizes[1])
    return Shape(sizes[0] if sizes else 1, sizes[-1] if sizes else 1, 1, 1)
