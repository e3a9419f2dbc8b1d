"""What is asked: a case, the size of its input, the network that its mechanism stands in.

Frozen dataclasses in base units with the unit in the name. No torch, no I/O, no third party: every layer may import this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from attnprof.records.plain import plain, whole_characters

MODES = ("inference", "training")
DTYPES = ("float32", "float16", "bfloat16", "float64")
ALONE = "none"  # Case.mechanism of a network without a mechanism in it
HOW = ("after", "before", "instead", "around")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Shape:
    """The size of a feature map: batch B, channels C, height H, width W and, for video, frames T."""

    batch: int
    channels: int
    height: int
    width: int
    frames: int = 1

    @property
    def hw(self) -> tuple[int, int]:
        """(H, W)."""
        return (self.height, self.width)

    def text(self) -> str:
        """'1x512x97x97', or '1x8x512x14x14' with frames."""
        sizes = [self.batch, self.channels, self.height, self.width]
        if self.frames != 1:
            sizes.insert(1, self.frames)
        return "x".join(str(size) for size in sizes)


@dataclass(frozen=True)
class Placement:
    """Where a mechanism stands in a network: at every submodule of the host whose dotted name matches `at`.

    how: after, before, instead, or around (its output is added to that of what it stands around). Alone, `at` is "".
    """

    host: str  # a name of attnprof/hosts (resnet50), or the import path of the user's own network
    args: Mapping[str, Any] = field(default_factory=dict)  # of the host's build
    at: str = ""  # glob over dotted submodule names, or the name of one of the host's sites (block, body, stage)
    how: str = "after"

    @property
    def imported(self) -> bool:
        """True for a network of the user's own, given by import path."""
        return ":" in self.host

    @property
    def text(self) -> str:
        """The network alone, as it is written on the command line: 'resnet50[output_stride=8]'."""
        name = self.host.rpartition(":")[2]
        inside = ",".join(f"{key}={value}" for key, value in self.args.items())
        return f"{name}[{inside}]" if inside else name


@dataclass(frozen=True)
class Case:
    """One cell of a table: a mechanism with arguments at a shape, dtype and mode on a device under settings.

    With a host, `shape` is the input of the network, and `mechanism` with its `args` is what is placed in it, or ALONE.
    """

    mechanism: str  # "family/name", or "pkg.mod:Class" / "file.py:Class" for an imported one
    label: str
    args: Mapping[str, Any]
    shape: Shape
    dtype: str = "float32"
    mode: str = "inference"
    device: str = "none"
    host: Placement | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        """True where code of the user's own runs: the mechanism or the network is given by import path."""
        return ":" in self.mechanism or (self.host is not None and self.host.imported)

    @property
    def alone(self) -> bool:
        """True for a network without a mechanism in it."""
        return self.mechanism == ALONE

    @property
    def public(self) -> Case:
        """The case as it may leave this machine: of a file given by absolute path, only its name. It has the same key."""
        if not self.imported:
            return self
        host = None if self.host is None else replace(self.host, host=public_import(self.host.host))
        return replace(self, mechanism=public_import(self.mechanism), host=host)

    @cached_property
    def key(self) -> str:
        """Content hash: the same question has the same key on every machine and day."""
        text = _CANONICAL.encode(case_to_json(self.public))
        if "\\ud" in text:  # as a store gives it back
            text = _CANONICAL.encode(whole_characters(json.loads(text)))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def block(self) -> tuple[Any, ...]:
        """Cases with an equal block are timed interleaved in one child: same shape, dtype, mode, device, network, settings.

        Where in the network a mechanism stands is not asked: the network alone is held against every placement in it.
        """
        settings = json.dumps(dict(self.settings), sort_keys=True)
        network = (
            None if self.host is None else (public_import(self.host.host), json.dumps(dict(self.host.args), sort_keys=True))
        )
        return (self.shape, self.dtype, self.mode, self.device, network, settings)


def case_to_json(case: Case) -> dict[str, Any]:
    """A Case as plain JSON types, without its derived `key`, which is the hash of this."""
    host, shape = case.host, case.shape
    return {
        "mechanism": case.mechanism,
        "label": case.label,
        "args": plain(case.args),
        "shape": {
            "batch": shape.batch,
            "channels": shape.channels,
            "height": shape.height,
            "width": shape.width,
            "frames": shape.frames,
        },
        "dtype": case.dtype,
        "mode": case.mode,
        "device": case.device,
        "host": None if host is None else {"host": host.host, "args": plain(host.args), "at": host.at, "how": host.how},
        "settings": plain(case.settings),
    }


def public_import(path: str) -> str:
    """'/home/alice/mine.py:Mine' -> 'mine.py:Mine'; a relative path, a package's and a name of the catalogue as they are."""
    where, colon, name = path.rpartition(":")
    return f"{PurePath(where).name}:{name}" if colon and PurePath(where).is_absolute() else path
