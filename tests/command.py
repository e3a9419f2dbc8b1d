"""`attnprof ARGS...` in this process or in one of its own: exit code, stdout, stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attnprof.__main__ import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed, where that is JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Call = Callable[..., Done]


def caller(capsys: pytest.CaptureFixture[str]) -> Call:
    """A function that runs a command in this process, with what pytest needs to see its streams."""

    def call(*args: str | Path) -> Done:
        capsys.readouterr()
        ended = exit_code(*args)
        captured = capsys.readouterr()
        return Done(ended, captured.out, captured.err)

    return call


def exit_code(*args: str | Path) -> int:
    """The exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["attnprof", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def process(*args: str | Path, cwd: Path) -> Done:
    """`python -m attnprof ARGS...` in a process of its own."""
    command = [sys.executable, "-m", "attnprof", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
