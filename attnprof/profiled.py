"""`attnprof.profile`: one case from Python, by name or by module."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from attnprof.cli.options import check_entry
from attnprof.errors import UntraceableError, UsageError, is_too_large, told
from attnprof.records import MODES, Case, Record, Shape, TensorSpec


def by_name(name: str, shape: Any, device: str, mode: str, dtype: str, budget_s: float, args: dict[str, Any]) -> Record:
    """A catalogue name or import path: traced here where no device is wanted, else in children like a cell of a run."""
    from attnprof import spec

    _check(mode, dtype)
    check_entry(name, args)
    entry = spec.make_entry(name, args)
    case = Case(entry.mechanism, entry.label, args, _shape(shape), dtype, mode, "none", settings={"sdpa": "auto"})
    if device == "none":
        from attnprof.profiling.timeline import trace_record

        try:
            return trace_record(case)
        except Exception as error:
            if is_too_large(error):
                raise UntraceableError(f"{case.label} {case.shape.text()}: {told(error)}.") from None
            raise
    import dataclasses

    from attnprof.execute import Options, resolve_device, run_cases

    resolved, _ = resolve_device(device)
    (record,) = run_cases([dataclasses.replace(case, device=resolved)], Options(budget_s=budget_s))
    return record


def by_module(module: Any, inputs: Any, device: str, mode: str, dtype: str, args: dict[str, Any]) -> Record:
    """A module that is there: traced in this process. Measuring wants a child, and so an import path."""
    from torch import nn

    from attnprof.profiling.counting.trace import follow_module
    from attnprof.profiling.timeline import with_timeline

    _check(mode, dtype)
    kind = type(module)
    if not isinstance(module, nn.Module):
        raise UsageError(f"a module (torch.nn.Module), a name or an import path is wanted, not {module!r:.80}.")
    if args:
        raise UsageError(f"{', '.join(args)}: a module is built already and takes no arguments.")
    if device != "none":
        raise UsageError(
            f"a module object is only traced (device='none'). To measure it, give its import path: "
            f"profile('{kind.__module__}:{kind.__qualname__}', ...)."
        )
    specs = _inputs(inputs)
    counts, timeline = with_timeline(lambda make: follow_module(module, specs, mode, dtype=dtype, make_tracer=make))
    first = next((value for value in specs if hasattr(value, "shape")), None)
    sizes = () if first is None else tuple(first.shape)
    case = Case(f"{kind.__module__}:{kind.__qualname__}", kind.__name__, {}, _shape_of(sizes), _dtype_of(first, dtype), mode)
    return Record(case, counts=counts, memory_timeline=timeline)


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
    numbers = _sizes(value)
    if len(numbers) not in (4, 5):
        raise UsageError(f"a shape is written 'BxCxHxW' or (B, C, H, W), not {value!r:.80}.")
    if len(numbers) == 5:
        batch, frames, channels, height, width = numbers
        return Shape(batch, channels, height, width, frames)
    batch, channels, height, width = numbers
    return Shape(batch, channels, height, width)


def _sizes(value: Any) -> tuple[int, ...]:
    """The extents of 'AxBx...' or (A, B, ...), each from 1. Raises UsageError for anything else."""
    try:
        numbers = tuple(int(size) for size in value.split("x")) if isinstance(value, str) else tuple(map(operator.index, value))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise UsageError(f"a shape is whole numbers from 1, such as '1x64x33x33' or (1, 64, 33, 33), not {value!r:.80}.")
    return numbers


def _inputs(value: Any) -> Sequence[Any]:
    """Inputs of a module: one shape or tensor, or a list of them."""
    if isinstance(value, Shape):
        return (TensorSpec(_sizes(value.text())),)
    if isinstance(value, str) or _is_size(value):
        return (TensorSpec(_sizes(value)),)
    if hasattr(value, "shape") or isinstance(value, TensorSpec):
        return (value,)
    if not isinstance(value, (tuple, list)) or not value:
        raise UsageError(f"inputs are a shape, a tensor, or a list of them, not {value!r:.80}.")
    return tuple(TensorSpec(_sizes(item)) if _is_size(item) else item for item in value)


def _is_size(item: Any) -> bool:
    numbers = isinstance(item, (tuple, list)) and bool(item)
    return numbers and all(isinstance(extent, int) and not isinstance(extent, bool) for extent in item)


def _dtype_of(value: Any, dtype: str) -> str:
    """The type of an input: a tensor's own where it is one of ours, else `dtype`."""
    from attnprof.records import DTYPES

    own = str(getattr(value, "dtype", None)).removeprefix("torch.")
    return own if own in DTYPES else dtype


def _shape_of(sizes: tuple[int, ...]) -> Shape:
    """The nearest Shape for a first input of any rank: (B, C, H, W), or tokens (B, N, C) as one row."""
    if len(sizes) == 4:
        return Shape(*sizes)
    if len(sizes) == 3:
        return Shape(sizes[0], sizes[2], 1, sizes[1])
    if len(sizes) == 5:
        return Shape(sizes[0], sizes[2], sizes[3], sizes[4], frames=sizes[1])
    return Shape(sizes[0] if sizes else 1, sizes[-1] if sizes else 1, 1, 1)
