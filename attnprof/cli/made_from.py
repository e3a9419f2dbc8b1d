"""What a run was asked from: hash of the spec's text, and the commit of the repository that the spec lies in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 5


def source_of(spec: str, overrides: Sequence[str] = ()) -> str:
    """The first 16 digits of the SHA-256 of a spec file, with how many --set changed what it says; '' for no file."""
    try:
        digest = hashlib.sha256(Path(spec).read_bytes()).hexdigest()[:16]
    except (OSError, ValueError):
        return ""
    return f"{digest} with {len(overrides)} --set" if overrides else digest


def commit_of(spec: str) -> str:
    """The commit that the repository around a spec is at, '-dirty' where tracked files differ from it; '' without git."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(Path(spec).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    quiet = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=quiet)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
