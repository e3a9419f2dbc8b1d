"""Errors a user may see. Each says what is wrong, where, and what to do; `exit_code` is the command line's contract.

Nothing here prints: `cli` shows the message of an `AttnprofError` on stderr and exits with its code. Anything else that
reaches the top is a defect of ours (exit code 70).
"""

from __future__ import annotations

from dataclasses import dataclass

from attnprof.plain import printable


class AttnprofError(Exception):
    """Root of every error with a message meant for the user: it may quote anything, and what is quoted moves no cursor."""

    exit_code = 70

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(AttnprofError):
    """A wrong name, option, shape or file: the user can mend it (exit code 2)."""

    exit_code = 2


class NothingSelectedError(AttnprofError):
    """The selection is empty or nothing can be compared (exit code 3)."""

    exit_code = 3


class UntraceableError(AttnprofError):
    """The module cannot be traced without data (it reads values, or its shapes depend on them)."""

    exit_code = 5


_TOO_LARGE = ("Overflow when unpacking", "Storage size calculation overflowed")


def is_too_large(error: BaseException) -> bool:
    """Whether torch failed because a tensor would have more than 2^63 bytes."""
    return any(words in str(error) for words in _TOO_LARGE)


def told(error: BaseException) -> str:
    """An exception of somebody else's in one line: type and message, without the frames of C++ that torch adds to some."""
    if is_too_large(error):
        return "a tensor of it would have more than 2^63 bytes: torch cannot describe that, even without data"
    text = str(error).partition("\nException raised from")[0].strip()
    return f"{type(error).__name__}: {text}".rstrip(": ")


@dataclass(frozen=True)
class Problem:
    """One mistake in a spec file: where it stands, what it is, and the nearest thing that would be right."""

    file: str
    line: int
    column: int
    what: str
    hint: str = ""
    source_line: str = ""

    def text(self) -> str:
        """`file:line:col: what`, then the line with a caret and the hint."""
        out = f"{self.file}:{self.line}:{self.column}: {self.what}"
        if self.source_line:
            gutter = f"{self.line:>5} | "
            caret = " " * (len(gutter) + max(self.column - 1, 0)) + "^"
            out += f"\n{gutter}{self.source_line}\n{caret}"
            if self.hint:
                out += f"  {self.hint}"
        elif self.hint:
            out += f" ({self.hint})"
        return out


class SpecError(UsageError):
    """Every mistake found in a spec, together."""

    def __init__(self, problems: tuple[Problem, ...] | list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.text() for problem in self.problems))
