"""What a test run says at its end: which checks of the catalogue's sweep some mechanism is exempt from, and why."""

from __future__ import annotations

import pytest


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
