"""Rows -> JUnit XML: a test suite per class, a test case per row, in the form that Ant wrote and CI servers read.

A regression is a failure; a point that failed or cannot be compared is an error; what warns is skipped with its sentence.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime

from attnprof.gate.outputs import Result
from attnprof.gate.rows import CLASSES, Outcome, Row
from attnprof.report.text import clean

_ELEMENTS = {
    Outcome.REGRESSED: "failure",
    Outcome.MISMATCH: "error",
    Outcome.FAILED: "error",
    Outcome.INCONCLUSIVE: "error",
    Outcome.INTERRUPTED: "error",
    Outcome.WARN: "skipped",
}


def render(result: Result, when: datetime, seconds: float) -> bytes:
    """The document in UTF-8. `when` the gate began (UTC), and how long it took."""
    root = ET.Element("testsuites")
    present = [kind for kind in CLASSES if any(row.kind == kind for row in result.rows)]
    for index, kind in enumerate(present):
        rows = [row for row in result.rows if row.kind == kind]
        root.append(_suite(result, kind, rows, index, when, seconds / len(present)))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(result: Result, kind: str, rows: Sequence[Row], index: int, when: datetime, seconds: float) -> ET.Element:
    found = [_ELEMENTS.get(row.outcome, "") for row in rows]
    counts = {plural: str(found.count(name)) for plural, name in (("failures", "failure"), ("errors", "error"))}
    suite = ET.Element(
        "testsuite",
        {
            "id": str(index),
            "name": f"attnprof.{kind}",
            "package": clean(result.spec),
            "tests": str(len(rows)),
            **counts,
            "skipped": str(found.count("skipped")),
            "hostname": "localhost",  # no name of a machine leaves it
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%S"),
            "time": f"{seconds:.3f}",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (("spec", result.file), ("baseline", result.baseline or ""), ("exit_code", str(result.code))):
        ET.SubElement(properties, "property", {"name": name, "value": clean(value) if value else ""})
    for row, element in zip(rows, found, strict=True):
        name = f"{row.point}:{row.metric}" if row.point else row.metric
        case = ET.SubElement(
            suite, "testcase", {"classname": clean(row.label or result.spec), "name": clean(name), "time": "0.000"}
        )
        if element == "skipped":
            ET.SubElement(case, element, {"message": clean(row.sentence)})
        elif element:
            found_wrong = ET.SubElement(case, element, {"message": clean(row.sentence), "type": row.reason.value})
            found_wrong.text = clean(row.sentence)
    ET.SubElement(suite, "system-out").text = "\n".join(map(clean, [*result.notes, result.verdict]))
    ET.SubElement(suite, "system-err")
    return suite
