"""What a test run does once: garbage collection after collecting, and the exemptions from the catalogue's sweep at the end."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish() -> None:
    """What is alive now (torch, thousands of collected tests) lives to the end: no later collection walks it.

    A full collection takes 0.2 s otherwise, and traces and the memory observer ask for hundreds.
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per exemption, where the sweep was run."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    if not any("test_mechanisms.py::test_exemptions" in report.nodeid for report in reports):
        return
    from tests.catalogue import exemptions

    found = exemptions()
    terminalreporter.section(f"{len(found)} exemptions from the catalogue's sweep")
    for name, check, reason in found:
        terminalreporter.line(f"{name}  {check}  {reason}")
