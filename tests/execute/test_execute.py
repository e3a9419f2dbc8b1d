"""Running cases in children: whatever a module does costs its own row and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnprof import store
from attnprof.errors import AttnprofError, UsageError
from attnprof.execute import Calibrated, Counted, Options, Progress, blocks, forks, resolve_device, run_cases
from attnprof.execute import child as children
from attnprof.execute.run import Phases
from attnprof.profiling.provenance import PROVENANCE, provenance, source_hash
from attnprof.records import NOT_MEASURED_BUDGET, NOT_MEASURED_MEMORY, Case, Counts, Memory, Record, Shape, to_json

FAULTY = str(Path(__file__).parents[1] / "faulty.py")
GIB = 2**30
QUICK = Options(budget_s=0.1, timeout_s=3.0, tracer="tests.faulty:count", memory_bytes=GIB)


def case(name: str, **fields: Any) -> Case:
    defaults: dict[str, Any] = {"mode": "training", "device": "cpu", "shape": Shape(1, 8, 8, 8), "settings": {"cache": "warm"}}
    return Case(mechanism=f"{FAULTY}:{name}", label=name, args={}, **{**defaults, **fields})


def run(cases: Sequence[Case], options: Options) -> dict[str, Record]:
    records = list(run_cases(cases, options))
    assert len(records) == len(cases)
    return {record.case.label: record for record in records}


def is_measured(record: Record) -> bool:
    timing, memory = record.timing, record.memory
    return record.status == "ok" and timing is not None and timing.n >= 10 and memory is not None and memory.peak_bytes > 0


FAULTS = [
    ("Raises", "error", ("ValueError: no such luck", "faulty.py:", 'raise ValueError("no such luck")')),
    ("RaisesInInit", "error", ("8 channels are too many",)),
    ("Loops", "timeout", ("3 s",)),
    ("Segfaults", "crashed", ("SIGSEGV",)),
    ("Allocates", "oom", ("can't allocate memory",)),
    ("AllocatesInPython", "oom", ("MemoryError",)),
    ("LeavesSilently", "crashed", ("exit code 0",)),
    ("Exits", "error", ("SystemExit: 3",)),
    ("TalksThenDies", "crashed", ("SIGABRT", "the last words")),
    ("Half", "unsupported", ("not implemented for",)),
]


def test_faults_while_measuring_cost_their_own_row() -> None:
    faults = [*FAULTS, ("RaisesInBackward", "error", ("only in backward",)), ("DiesLater", "crashed", ("SIGABRT",))]
    faults.append(("GivesNan", "invalid_output", ("not finite",)))
    names = ["Good", *(name for name, _, _ in faults), "Talks", "LeavesChildren"]
    found = run([case(name) for name in names], QUICK)
    for name, status, words in faults:
        record = found[name]
        assert record.status == status, (name, record.detail)
        assert all(word in record.detail for word in words), (name, record.detail)
        assert record.timing is None, name
        assert record.counts is not None, name
    for name in ("Good", "Talks", "LeavesChildren"):
        assert is_measured(found[name]), (name, found[name].status, found[name].detail)
    good, talks = found["Good"].timing, found["Talks"].timing
    assert good is not None
    assert talks is not None
    assert good.block == talks.block
    assert len(set(good.rounds) & set(talks.rounds)) >= 10
    assert len(found["TalksThenDies"].detail) < 4000
    _wait_until_childless(forks.running_server().process.pid)


def test_a_measured_process_keeps_the_memory_that_its_heap_had() -> None:
    found = run([case("FaultsPages"), case("Good")], QUICK)
    assert is_measured(found["FaultsPages"]), found["FaultsPages"].detail


def test_faults_while_tracing_cost_their_own_row() -> None:
    options = Options(timeout_s=3.0, tracer="tests.faulty:run_on_data", memory_bytes=GIB)
    untraceable = case("Good", device="none", settings={"sdpa": "math"})
    cases = [case(name, device="none") for name in ["Good", *(name for name, _, _ in FAULTS), "RaisesInBackward", "Talks"]]
    faulty = {name: status for name, status, _ in FAULTS} | {"RaisesInBackward": "error"}
    records = list(run_cases([untraceable, *cases], options))
    assert records[0].status == "unsupported"
    assert records[0].detail == "it reads values"
    found = {record.case.label: record for record in records[1:]}
    assert {name: record.status for name, record in found.items()} == {"Good": "ok", "Talks": "ok", **faulty}
    assert found["Good"].counts is not None
    assert found["Good"].environment[PROVENANCE]["source"]


def test_records_come_as_they_get_final() -> None:
    cases = [case("Good", device="none", shape=Shape(1, 8, 8, n)) for n in range(1, 4)]
    records = run_cases([*cases, case("Loops", device="none")], Options(timeout_s=60, tracer="tests.faulty:run_on_data"))
    assert [next(records).status for _ in range(3)] == ["ok"] * 3
    began = time.monotonic()
    records.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert _children_of(forks.running_server().process.pid) == []


def test_a_case_is_run_once_however_often_it_is_named() -> None:
    assert len(list(run_cases([case("Good", device="none")] * 3, QUICK))) == 1


def _phases(
    calibrated: list[Case], measured: list[Case], interrupt: bool = False
) -> tuple[Phases, list[tuple[Case, Calibrated]]]:
    """Phases that count backwards, as children that work side by side may, calibrate, and measure or are interrupted."""
    found: list[tuple[Case, Calibrated]] = []

    def trace(cases: Sequence[Case], *_: Any) -> Iterator[Record]:
        yield from (Record(one, counts=Counts(0, 0, 0, 0, 0, 0, 0, 0)) for one in reversed(cases))

    def calibrate(cases: Sequence[Case], *_: Any) -> Iterator[tuple[Case, Calibrated]]:
        calibrated.extend(cases)
        found.extend((one, Calibrated(Memory(5 + number, "calibrated"))) for number, one in enumerate(cases))
        yield from found

    def measure(records: Sequence[Record], *_: Any) -> Iterator[Record]:
        measured.extend(one.case for one in records)
        yield records[0]
        if interrupt:
            raise KeyboardInterrupt
        yield from records[1:]

    return Phases(trace, calibrate, measure), found


PLANNED = [case(f"Good{number}") for number in range(4)]


def test_measuring_is_given_the_cases_in_the_plans_order() -> None:
    measured: list[Case] = []
    counted = Counted({PLANNED[2].key: Record(PLANNED[2], counts=Counts(0, 0, 0, 0, 0, 0, 0, 0))})
    phases, _ = _phases([], measured)
    records = list(run_cases(PLANNED, Options(), counted=counted, phases=phases))
    assert [one.label for one in measured] == [one.label for one in PLANNED]
    assert [one.case for one in records] == PLANNED


@pytest.mark.fault
def test_an_interrupt_while_measuring_keeps_the_calibrated_peaks() -> None:
    phases, found = _phases([], [], interrupt=True)
    running = run_cases(PLANNED, Options(calibrate=True), phases=phases)
    records = [next(running) for _ in PLANNED]
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert [one.status for one in records] == ["ok", *["interrupted"] * 3]
    assert [one.calibrated for one in records] == [peak.memory for _, peak in found]


def test_a_calibrated_peak_that_is_known_is_not_looked_for_again() -> None:
    calibrated: list[Case] = []
    known = {
        one.key: Record(one, counts=Counts(0, 0, 0, 0, 0, 0, 0, 0), calibrated=peak)
        for one, peak in ((PLANNED[0], Memory(99, "calibrated")), (PLANNED[1], None))
    }
    phases, _ = _phases(calibrated, [])
    records = list(run_cases(PLANNED, Options(calibrate=True), counted=Counted(known), phases=phases))
    assert calibrated == PLANNED[1:]
    assert [one.calibrated for one in records] == [Memory(peak, "calibrated") for peak in (99, 5, 6, 7)]
    calibrated.clear()
    before = {one.case.key: one for one in records}
    assert list(run_cases(PLANNED, Options(calibrate=True), counted=Counted(before), phases=phases)) == records
    assert calibrated == []


def test_no_case_is_blamed_for_a_tracer_that_cannot_be_imported() -> None:
    with pytest.raises(AttnprofError, match="no_such_tracer"):
        list(run_cases([case("Good", device="none")], Options(tracer="no_such_tracer:count")))


def test_memory_that_is_not_there_is_not_tried() -> None:
    record = next(run_cases([case("Segfaults")], Options(tracer="tests.faulty:huge")))
    assert record.status == "ok"
    assert record.detail.startswith(NOT_MEASURED_MEMORY)
    assert record.counts is not None
    assert record.timing is None


def test_the_run_budget_bounds_the_measuring_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CPU_TIMING", f"test-{os.getpid()}")  # other tests time on this machine: no waiting for them
    cases = [case(f"Good{n}", shape=Shape(1, 8, 8, n)) for n in range(8, 48)]
    cases = [replace(one, mechanism=f"{FAULTY}:Good") for one in cases]
    options = Options(budget_s=1.0, run_budget_s=3.0, tracer="tests.faulty:count")
    list(run_cases([case("Good", device="none")], options))  # the server is up
    began = time.monotonic()
    records = list(run_cases(cases, options))
    assert time.monotonic() - began < 15.0  # without it: a second for each of 40 cases
    assert len(records) == len(cases)
    measured = [record for record in records if record.timing is not None]
    left = [record for record in records if record.timing is None]
    assert measured
    assert left
    assert all(record.timing.n >= 10 for record in measured if record.timing)
    assert all(record.status == "ok" and record.detail.startswith(NOT_MEASURED_BUDGET) for record in left)


def test_a_hang_does_not_outlive_the_run_budget() -> None:
    began = time.monotonic()
    options = Options(budget_s=0.1, run_budget_s=2.0, timeout_s=60, tracer="tests.faulty:count")
    (record,) = run_cases([case("Loops")], options)
    assert time.monotonic() - began < 15
    assert record.status == "ok"
    assert record.detail.startswith(NOT_MEASURED_BUDGET)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"magic": 1}, "magic"), ({"memory_format": "sideways"}, "sideways"), ({"threads": 0}, "threads")],
)
def test_settings_that_cannot_be_kept_are_refused(settings: dict[str, Any], word: str) -> None:
    (record,) = run_cases([case("Good", settings=settings)], QUICK)
    assert record.status == "unsupported"
    assert word in record.detail


def test_settings_that_can_be_kept_are_kept() -> None:
    kept: list[dict[str, Any]] = [
        {"memory_format": "channels_last"},
        {"autocast": "bfloat16"},
        {"sdpa": "math", "threads": 1},
        {"autocast": "none"},
    ]
    for record in run_cases([case("Good", settings={**one, "cache": "warm"}) for one in kept], QUICK):
        assert is_measured(record), (record.case.settings, record.detail)


def test_a_device_must_be_concrete_and_exist() -> None:
    with pytest.raises(UsageError, match="auto"):
        list(run_cases([case("Good", device="auto")], QUICK))
    with pytest.raises(UsageError, match="tpu"):
        resolve_device("tpu")
    assert resolve_device("none") == ("none", "")
    assert resolve_device("cpu") == ("cpu", "")


def test_a_device_that_torch_cannot_use() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (record,) = run_cases([case("Good", device="cuda:7")], QUICK)
    assert record.status == "unsupported"
    assert "cuda:7" in record.detail
    with pytest.raises(UsageError, match="cuda"):
        resolve_device("cuda:0")


def test_a_fresh_interpreter_does_the_same() -> None:
    request = {"op": "measure", "cases": [to_json(case("Good"))], "plan": {"block": "b", "budget_s": 0.1}}
    said, ending = children.converse(request, spawn=True)
    assert isinstance(said, dict)
    assert said["event"] == "timed"
    assert said["timing"]["n"] >= 10
    assert isinstance(ending, children.Ending)
    assert ending.kind == "end"


def test_the_listener_hears_of_every_case() -> None:
    heard: list[Progress] = []
    list(run_cases([case("Good"), case("Raises")], QUICK, heard.append))
    assert [(event.stage, event.done, event.total) for event in heard if event.stage == "trace"] == [
        ("trace", 1, 2),
        ("trace", 2, 2),
    ]
    measured = [event for event in heard if event.stage == "measure"]
    assert [event.done for event in measured] == [0, 1, 2]
    assert measured[0].left_s is not None, "said before the first block, which says nothing until it is through"
    assert 0 < measured[0].left_s < 60


_INTERRUPTED = """
import sys
from attnprof.execute import Options, run_cases
from attnprof.records import Case, Shape
def case(name, device):
    return Case(mechanism=f"{sys.argv[1]}:{name}", label=name, args={}, shape=Shape(1, 8, 8, 8), device=device)
try:
    for record in run_cases([case("Good", "none"), case("Loops", "cpu")], Options(tracer="tests.faulty:count")):
        print(record.case.label, record.status, record.counts is not None, flush=True)
except KeyboardInterrupt:
    print("torch" in sys.modules, flush=True)
    sys.exit(130)
"""


def hear_interrupts() -> None:
    """For a child: what is started in the background of a script ignores SIGINT, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_leaves_no_process_behind(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, FAULTY],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "Good ok True\n"
    family = _wait_for_grandchild(parent.pid)
    time.sleep(0.3)
    os.kill(parent.pid, number)
    rest = parent.stdout.read()
    parent.stdout.close()
    code = parent.wait(timeout=20)
    if number == signal.SIGINT:
        assert code == 130
        assert rest == "Loops interrupted True\nFalse\n"
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in family if _alive(pid)]


def _wait_for_grandchild(parent: int) -> list[int]:
    """The fork server and its present child."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        servers = _children_of(parent)
        family = servers + [pid for server in servers for pid in _children_of(server)]
        if len(family) >= 2:
            return family
        time.sleep(0.02)
    raise AssertionError("no child appeared")


def _wait_until_childless(server: int) -> None:
    """What a module left behind is the server's once its child is gone, and the server ends it."""
    deadline = time.monotonic() + 5
    while _children_of(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _children_of(server) == []


def _children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


EDITED = """
import time
from pathlib import Path

from torch import nn

from its_helper import KERNEL

MORE = 0


class Mine(nn.Module):
    def __init__(self, c, n=0):
        super().__init__()
        self.conv = nn.Conv2d(c, c, KERNEL + MORE, padding=(KERNEL + MORE) // 2)
        here = Path(__file__)
        if n == 1:
            here.with_name("loaded").touch()
            while not here.with_name("edited").exists():
                time.sleep(0.01)

    def forward(self, x):
        return self.conv(x)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "its_helper.py").write_text("KERNEL = 1\n")
    (tmp_path / "mine.py").write_text(EDITED)
    for file in tmp_path.iterdir():  # Python takes the compiled file of one that changed in the same second, in the same size
        os.utime(file, (1e9, 1e9))
    return tmp_path / "mine.py"


def _edit(mine: Path, name: str) -> None:
    file = mine.with_name(name)
    file.write_text(file.read_text().replace("KERNEL = 1", "KERNEL = 3").replace("MORE = 0", "MORE = 2"))
    mine.with_name("edited").touch()


@pytest.mark.fault
@pytest.mark.parametrize("name", ["mine.py", "its_helper.py"])
def test_counts_stand_under_the_hash_of_what_was_counted(mine: Path, name: str) -> None:
    """Edited while the second of three is counted: the first is of the old, the third of the new, the second of neither."""

    def edit() -> None:
        while not mine.with_name("loaded").exists():
            time.sleep(0.01)
        _edit(mine, name)

    cases = [Case(f"{mine}:Mine", f"mine{n}", {"n": n}, Shape(1, 8, 8, 8)) for n in range(3)]
    old = source_hash(f"{mine}:Mine")
    editor = threading.Thread(target=edit)
    editor.start()
    said: list[Progress] = []
    records = {record.case.label: record for record in run_cases(cases, Options(jobs=1, timeout_s=30.0), said.append)}
    editor.join()
    new = source_hash(f"{mine}:Mine")
    found = [records[case.label].environment[PROVENANCE]["source"] for case in cases]
    assert old != new
    assert found[0] == old
    assert found[1] not in (old, new)
    assert found[2] == new
    assert [record.counts.params for record in records.values() if record.counts] == [72, 72, 584]
    assert any("edited while it ran" in step.text for step in said)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["mine.py", "its_helper.py"])
@pytest.mark.parametrize("calibrate", [False, True])
def test_timings_of_an_edited_file_are_not_those_of_what_was_counted(mine: Path, name: str, calibrate: bool) -> None:
    asked = Case(f"{mine}:Mine", "mine", {"n": 0}, Shape(1, 8, 8, 8), device="cpu", settings={"cache": "warm"})
    old, said = source_hash(asked.mechanism), list[Progress]()
    options = Options(budget_s=0.1, timeout_s=30.0, jobs=1, replicates=2, calibrate=calibrate)
    counted = Counted(keep=lambda _: _edit(mine, name))
    (record,) = run_cases([asked], options, said.append, counted)
    assert is_measured(record), record.detail
    assert record.environment[PROVENANCE]["source"] not in (old, source_hash(asked.mechanism))
    stored = store.Stored(records={asked.key: record})
    now = provenance(asked)
    assert store.reusable(stored, asked, now) is None
    assert store.counted(stored, asked, now) is None
    assert any("edited while it ran" in step.text for step in said)
