"""What a test run does once, or now and then: garbage collection, every claim's verdict, the exemptions of the catalogue.

And the scratch repository of `tests/repository.py`.
"""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.repository import MINE, git

if TYPE_CHECKING:
    from attnprof.claims import Verdict


_MANY = 5_000  # objects: a full collection walks so many in 3 ms
_EVERY = 10  # tests between two looks: a look takes 1 ms where there are 40,000
_finished = 0

# A busy machine makes no test fail; what must not take long is bounded in its own test
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_sessionstart() -> None:
    """What a script starts in the background ignores Ctrl-C, and so would all that tests start, whatever is sent to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is alive now (torch, thousands of collected tests) lives to the end: no later collection walks it.

    A full collection takes 0.2 s otherwise, and traces and the memory observer ask for hundreds.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """The same for what tests have imported since (0.03 to 0.07 s in each collection), now that no test has anything alive."""
    global _finished
    _finished += 1
    if _finished % _EVERY == 0 and len(gc.get_objects(generation=2)) > _MANY:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def every_verdict(tmp_path_factory: pytest.TempPathFactory) -> list[Verdict]:
    """What `verify` finds of every shipped claim, found once for all workers: half a minute of traces."""
    from attnprof.claims import Verdict
    from attnprof.cli.verify import verified
    from tests.shipped import papers_of_claims

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a worker's folder lies in that of the run
    kept = shared / "every_verdict.pickle"
    papers = papers_of_claims()
    with (shared / "every_verdict.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():  # a claim's `value` is code: it stays here
            found = verified(papers, None, "none", 2.0, True)
            kept.write_bytes(pickle.dumps([(each.claim.name, {**vars(each), "claim": None}) for each in found]))
    given = {claim.name: claim for paper in papers for claim in paper.claims}
    return [Verdict(**{**made, "claim": given[name]}) for name, made in pickle.loads(kept.read_bytes())]


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


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a user's module, committed; its working tree is clean."""
    folder = tmp_path / "repo"
    (folder / "specs").mkdir(parents=True)
    (folder / "mine.py").write_text(MINE.replace("class BaseRaises(Mine): pass", "class BaseRaises(Mine):\n    forward = None"))
    (folder / "specs" / "own.yaml").write_text("name: own\n")
    (folder / ".gitignore").write_text("built\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder
