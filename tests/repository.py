"""A scratch repository with a module of a user's own, and the edits that make its working tree slower, broken, or new."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from attnprof.execute.lockstep import Sampling
from attnprof.records import Case, Shape


def case(name: str = "a", mechanism: str = "spatial/ccnet", **fields: Any) -> Case:
    given: dict[str, Any] = {"shape": Shape(1, 8, 9, 9), "device": "cpu", "settings": {"sdpa": "auto"}}
    return Case(mechanism, name, {}, **{**given, **fields})


MINE = """
import ctypes, os, signal, time
from torch import nn

class Mine(nn.Module):
    UNITS = 20
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x):
        for _ in range(self.UNITS):
            x = self.conv(x)
        return x

class HeadRaises(Mine): pass
class BaseRaises(Mine): pass
class BothRaise(Mine):
    def forward(self, x): raise ValueError("never did")
class Killed(Mine): pass
class Hangs(Mine): pass
class NotFinite(Mine): pass
class Later(Mine): pass
"""
EDITS = {
    "UNITS = 20": "UNITS = 60",
    "class HeadRaises(Mine): pass": "class HeadRaises(Mine):\n    def forward(self, x): raise ValueError('no such luck')",
    "class Killed(Mine): pass": "class Killed(Mine):\n    def forward(self, x): os.kill(os.getpid(), signal.SIGKILL)",
    "class Hangs(Mine): pass": "class Hangs(Mine):\n    def forward(self, x): time.sleep(100)",
    "class NotFinite(Mine): pass": "class NotFinite(Mine):\n    def forward(self, x): return super().forward(x) / 0",
    "class Later(Mine): pass": (
        "class Later(Mine):\n    runs = 0\n    def forward(self, x):\n        self.runs += 1\n        print('words')\n"
        "        if self.runs > 3: ctypes.string_at(0)\n        return super().forward(x)\n"
        "class New(Mine): pass"
    ),
}
QUICK = Sampling(min_rounds=5, warmup_s=0.1, timeout_s=5.0)


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def edited(text: str) -> str:
    for before, after in EDITS.items():
        assert before in text
        text = text.replace(before, after)
    return text


def mine(name: str) -> Case:
    return case(name, f"mine.py:{name}", shape=Shape(1, 16, 32, 32))


def worktrees(folder: Path) -> int:
    return git(folder, "worktree", "list", "--porcelain").count("worktree ")
