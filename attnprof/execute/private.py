"""What a record does not say: who ran it, and where on their disk.

Exceptions and what a child prints name files. In a record the working folder goes, the home folder is '~', of any other
absolute path the file's name stays, and the account's name is '~' where it tells a person from another.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
from collections.abc import Iterator
from pathlib import Path

_PATH = re.compile(r"(?<![\w.~/-])(?:/[^\s/'\"`<>|:;,()\[\]{}]+){2,}/?")
_QUOTED = re.compile(r"(?P<mark>['\"`])/[^'\"`\n]*/(?P<name>[^'\"`\n/]+)/?(?P=mark)")  # one with blanks in it
_ACCOUNTS = (
    "root",
    "user",
    "admin",
    "nobody",
    "guest",
    "ubuntu",
    "debian",
    "runner",
    "jovyan",
    "vscode",
    "docker",
    "container",
)
_WORDS = ("app", "test", "tests", "dev", "work", "worker", "home", "users", "tmp", "python", "torch", "cuda", "model", "data")
_ANYBODY = frozenset((*_ACCOUNTS, *_WORDS))
_SHORTEST = 3  # letters of a name that is looked for in text


def private(text: str) -> str:
    """The text without absolute paths and without the name of the account."""
    text = text.replace("file://", "")
    with contextlib.suppress(OSError):  # a working folder that was deleted
        text = _without(text, str(Path.cwd()), "")
    for folder in _homes():
        text = _without(text, folder, "~/", after="")  # wherever it stands: -I/home/NAME/include
    text = _QUOTED.sub(lambda found: f"{found['mark']}{found['name']}{found['mark']}", text)
    text = _PATH.sub(lambda found: found.group().rstrip("/").rpartition("/")[2], text)
    for name in _names():
        text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", "~", text)
    return text


def _without(text: str, folder: str, instead: str, after: str = r"(?<![\w.~-])") -> str:
    """Paths below a folder from there on; the folder itself is `instead`, or '.'."""
    if folder.count("/") < 1 or folder == "/":
        return text
    begins = f"{after}{re.escape(folder)}"
    text = re.sub(rf"{begins}/(?=[^\s/])", lambda _: instead, text)
    return re.sub(rf"{begins}/?(?![\w.-])", lambda _: instead.rstrip("/") or ".", text)


def _homes() -> Iterator[str]:
    with contextlib.suppress(RuntimeError, OSError):  # an account without a home folder
        home = Path.home()
        yield from dict.fromkeys((str(home), os.path.realpath(home)))


def _names() -> list[str]:
    """Names of the account, and of its home folder, that are not everybody's."""
    found = [Path(home).name for home in _homes()]
    found += [os.environ[word] for word in ("USER", "LOGNAME") if word in os.environ]
    with contextlib.suppress(OSError, KeyError, ImportError):
        found.append(getpass.getuser())
    telling = (name for name in found if len(name) >= _SHORTEST and name.lower() not in _ANYBODY)
    return sorted(set(telling), key=len, reverse=True)
