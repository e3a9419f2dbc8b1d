"""The pydantic model of a spec file: its keys, the form of every value, and the JSON Schema for editors.

Everything that a value says about itself is checked here; what needs the catalogue or two places of the file at once is in
`check`. There is no union in the model, so that the path of an error is the path in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from attnprof.errors import UsageError
from attnprof.records import DTYPES, HOW, MODES
from attnprof.spec.scalars import format_scalar
from attnprof.spec.values import (
    AUTOCAST,
    COUNTERS,
    DEFAULT_METRICS,
    MAX_SIZE,
    MEMORY_FORMATS,
    METRICS,
    SDPA,
    nearest,
    parse_hw,
)

T = TypeVar("T")
_NAME = r'^[^\s./\\:*?"<>|\x00-\x1f\x7f-][^/\\:*?"<>|\x00-\x1f\x7f]{0,99}$'
_LABEL = r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,79}$"


def wrong(what: str, hint: str = "") -> PydanticCustomError:
    """An error with our own sentence."""
    return PydanticCustomError("attnprof", "{what}", {"what": what, "hint": hint})


@dataclass(frozen=True)
class OneOrMany:
    """Marks a list that may be written as its only element: every axis of the sweep."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.listed, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        array = handler(schema)
        return {"anyOf": [array["items"], array]}

    @staticmethod
    def listed(value: Any) -> Any:
        """[value], unless it is a list already."""
        return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Checked:
    """Marks a value that `check` turns into its final form, or refuses; `schema` is what an editor is told."""

    check: Callable[[Any], Any]
    schema: tuple[tuple[str, Any], ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


def choice(kind: str, names: tuple[str, ...]) -> Checked:
    """One of `names`."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise wrong(f"{shown(value)} is no {kind}", nearest(value, names) or f"one of {', '.join(names)}")

    return Checked(check, (("enum", list(names)),))


def _hw(value: Any) -> tuple[int, int]:
    try:
        return parse_hw(value)
    except UsageError as error:
        raise wrong(str(error)) from error


def _argument(value: Any) -> Any:
    """A value of an argument: a scalar, or a list of them (a list inside the axis)."""
    if isinstance(value, list):
        return [_argument(item) for item in value]
    if isinstance(value, dict):
        raise wrong("an argument is a number, text, true, false, null or a list of them, not a mapping")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(f"{value} is no number that an argument can have")
    return value


def _tolerance(value: Any) -> Any:
    """A share or an amount; whether it is one of that metric is seen where the metric is known."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return value
    raise wrong(f"{shown(value)} is no tolerance", "write a share such as 5%, or so much on top such as +16MiB")


def _device(value: Any) -> str:
    if isinstance(value, str):
        kind, colon, index = value.partition(":")
        if value in ("auto", "none", "cpu", "cuda") or (kind == "cuda" and colon and index.isdecimal() and index.isascii()):
            return value
    raise wrong(
        f"{shown(value)} is no device", nearest(value, ("auto", "none", "cpu", "cuda")) or "auto, none, cpu, cuda or cuda:N"
    )


def shown(value: Any) -> str:
    """A value as it is quoted in a message: short and printable."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "nothing" if value is None else ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    text = format_scalar(value) if isinstance(value, bool) else text
    return text if len(text) <= 48 else text[:45] + "..."


Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Axis = Annotated[list[T], Field(min_length=1), OneOrMany()]
HW = Annotated[
    Any, Checked(_hw, (("anyOf", [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]+x[0-9]+$"}]),))
]
ArgumentValue = Annotated[Any, Checked(_argument, (("type", ["number", "string", "boolean", "null", "array"]),))]
Seconds = Annotated[float, Field(gt=0, le=10**7, allow_inf_nan=False)]


class Closed(BaseModel):
    """No unknown keys, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class OwnInputModel(Closed):
    """Sizes that one mechanism has of its own."""

    batch: Axis[Size] = Field([], description="B, or a list of them")
    channels: Axis[Size] = Field([], description="C, or a list of them")
    hw: Axis[HW] = Field([], description="HxW such as 97x97, or one number for a square; or a list of them")
    frames: Axis[Size] = Field([], description="T, for mechanisms on video")


class InputModel(Closed):
    """The feature map."""

    batch: Axis[Size] = Field([1], description="B, or a list of them")
    channels: Axis[Size] = Field([], description="C, or a list of them; with a host its input's, an image's 3 unless given")
    hw: Axis[HW] = Field(description="HxW such as 97x97, or one number for a square; or a list of them")
    frames: Axis[Size] = Field([1], description="T, for mechanisms on video")


class HostModel(Closed):
    """A network that mechanisms are placed in: one of ours (`name`) or your own (`import`)."""

    name: str | None = Field(None, description="resnet50, vit_b16 ...: `attnprof sites NAME` lists where")
    import_: str | None = Field(None, alias="import", description="package.module:Net, or ./file.py:Net; takes (B, C, H, W)")
    args: dict[str, Axis[ArgumentValue]] = Field({}, description="arguments of the network; a list is an axis")
    at: Axis[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        [], description="name of a site (body, block, stage), or glob over dotted submodule names; a list is an axis"
    )
    how: Axis[Annotated[str, choice("way to stand", HOW)]] = Field(
        ["after"], description="after, before, instead, or around (beside it: both outputs are added)"
    )


class MeasureModel(Closed):
    """How to time."""

    budget_s: Seconds = Field(5.0, description="seconds per cell")
    run_budget_s: Seconds | None = Field(None, description="seconds for measuring all cells, after tracing; default: no limit")
    device: Annotated[str, Checked(_device, (("type", "string"),))] = Field(
        "auto", description="auto, none, cpu, cuda or cuda:N"
    )


class ItemModel(Closed):
    """A mechanism of the catalogue (`name`) or a class of your own (`import`)."""

    name: str | None = Field(None, description="a name of the catalogue: `attnprof list`")
    import_: str | None = Field(
        None,
        alias="import",
        description="package.module:Class, or ./file.py:Class from this file's folder, else from the current one",
    )
    args: dict[str, Axis[ArgumentValue]] = Field({}, description="arguments; a list is an ablation axis")
    as_: Annotated[str, Field(pattern=_LABEL)] | None = Field(None, alias="as", description="label in the tables")
    input: OwnInputModel | None = Field(None, description="sizes of its own, in place of the spec's")


@dataclass(frozen=True)
class NameOrItem:
    """Marks a mapping with a `name` that may be written as its name alone."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: {"name": value} if isinstance(value, str) else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


class SpecModel(Closed):
    """An attnprof spec."""

    name: Annotated[str, Field(pattern=_NAME)] | None = Field(None, description="name of the run; default: the file's")
    input: Axis[InputModel] = Field(description="sizes of the feature map, or a list of such mappings")
    dtype: Axis[Annotated[str, choice("dtype", DTYPES)]] = Field(["float32"], description="data type, or a list of them")
    modes: Axis[Annotated[str, choice("mode", MODES)]] = Field(
        list(MODES), description="inference, training (forward + backward)"
    )
    mechanisms: list[Annotated[ItemModel, NameOrItem()]] = Field(min_length=1, description="what to compare")
    host: Axis[Annotated[HostModel, NameOrItem()]] = Field(
        [], description="network that mechanisms stand in, or a list of them"
    )
    baseline: str | None = Field(None, description="label that ratios refer to; with a host none: the network alone")
    metrics: Axis[Annotated[str, choice("metric", METRICS)]] = Field(list(DEFAULT_METRICS), description="columns")
    counters: Axis[Annotated[str, choice("counter", tuple(COUNTERS))]] = Field(
        [], description="whose MACs to hold against ours"
    )
    measure: MeasureModel = Field(default_factory=MeasureModel.model_construct)
    sdpa: Axis[Annotated[str, choice("sdpa kernel", SDPA)]] = Field(["auto"], description="kernel that attention is traced as")
    memory_format: Axis[Annotated[str, choice("memory format", MEMORY_FORMATS)]] = Field(["contiguous"])
    compile: Axis[bool] = Field([False], description="torch.compile")
    autocast: Axis[Annotated[str, choice("autocast dtype", AUTOCAST)]] = Field(["none"])
    bounds: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        "auto", description="whose rates bound: auto, measured (doctor --roofline), or a published device such as h100-sxm"
    )
    threads: Axis[Size] | None = Field(None, description="CPU threads while measuring; default: 1")
    claims: Axis[str] = Field(
        [], description="what `gate` holds true, such as macs(ccnet) < macs(nonlocal) @ hw >= 65x65, or a list of such texts"
    )
    tol: dict[str, Annotated[Any, Checked(_tolerance, (("type", ["number", "string"]),))]] = Field(
        {}, description="{metric: how much more than its baseline `gate` allows, such as 5% or +16MiB}"
    )


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys that a mapping of this model may have, as they are written in the file."""
    return tuple(field.alias or name for name, field in model.model_fields.items())
