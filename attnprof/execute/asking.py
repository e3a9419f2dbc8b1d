"""One question about one case, answered by a function in a child: what a user's module does to the process stays there."""

from __future__ import annotations

from typing import Any

from attnprof.errors import UntraceableError
from attnprof.execute.child import Ending, converse
from attnprof.execute.options import Options
from attnprof.execute.tracing import child_memory, ended
from attnprof.records import Case, Record, to_json


def ask(function: str, case: Case, options: Options | None = None) -> dict[str, Any]:
    """The JSON of the noun that `function` ("package.module:name", of a Case) returns, run in a child.

    Raises UntraceableError with the reason where the function raises, ends its process or takes longer than options.bound_s.
    """
    options = options or Options()
    request = {"op": "trace", "tracer": function, "cases": [to_json(case)], "memory_bytes": child_memory(options)}
    status, detail = "crashed", "the child ended without an answer"
    for item in converse(request, timeout_s=options.bound_s, spawn=options.start == "spawn"):
        if isinstance(item, Ending):
            if item.kind != "end":
                record = ended(Record(case), item, options.bound_s)
                status, detail = record.status, record.detail
        elif item["event"] == "traced":
            answer: dict[str, Any] = item["counts"]
            return answer
        else:
            status, detail = item["status"], item["detail"]
    reason = detail.replace("\n", ", at ", 1) if status not in ("crashed", "timeout") else detail
    raise UntraceableError(f"{case.label}: {status}: {reason}")
