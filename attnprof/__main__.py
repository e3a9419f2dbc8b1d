"""`python -m attnprof` and the console script: run the command line, turn errors into messages and exit codes."""

from __future__ import annotations

import io
import os
import re
import sys

from attnprof.errors import AttnprofError
from attnprof.plain import printable


def main() -> None:
    """Entry point. Exit codes: 0 fine, 2 usage or spec error, 3 nothing to select or compare, 4 unexplained (where asked), 5 a
    case failed, 70 internal, 130 interrupted, 141 the reader of stdout has gone.
    """
    import click

    from attnprof.cli import cli

    try:
        code = cli.main(prog_name="attnprof", standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of Ctrl-C
        print("attnprof: interrupted.", file=sys.stderr)
        code = 130
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        print(printable(said.getvalue()), end="", file=sys.stderr)
        code = error.exit_code
    except AttnprofError as error:
        at_a_place = re.match(r"[^\n]+:\d+:\d+: ", str(error))
        print(error if at_a_place else f"attnprof: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except SystemExit as left:  # click's, where the pipe broke while it wrote; its code 1 would mean a regression
        gone = type(sys.stdout).__name__.endswith("PacifyFlushWrapper")
        code = 141 if gone else left.code
    except Exception as error:  # noqa: BLE001
        code = _internal(error)
    sys.exit(code if isinstance(code, int) else 0)


def _internal(error: Exception) -> int:
    """A defect of ours: one sentence, and the traceback where it is asked for."""
    if os.environ.get("ATTNPROF_TRACEBACK"):
        import traceback

        traceback.print_exc()
    text = printable(f"{type(error).__name__}: {error}")
    print(f"attnprof: internal error: {text}\nSet ATTNPROF_TRACEBACK=1 to see where; please report it.", file=sys.stderr)
    return 70


if __name__ == "__main__":
    main()
