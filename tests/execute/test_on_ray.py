"""What the Ray executor decides by itself, without a cluster: where it connects, what goes where, what is tried again."""

from __future__ import annotations

import importlib.util
import math
import os
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner

from attnprof.errors import UsageError
from attnprof.execute import Options, Progress
from attnprof.execute.on_ray import connecting, measuring, phases, tasks
from attnprof.execute.on_ray import crew as crews
from attnprof.execute.on_ray.crew import Lane, Node, Outcome, Retries
from attnprof.execute.predict import Predictor, Rates
from attnprof.profiling.provenance import code, source_hash
from attnprof.records import NOT_MEASURED_BUDGET, NOT_MEASURED_MEMORY, Case, Counts, Record, Shape, record_from_json

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install 'attnprof[ray]'")
RATES = {"float32": Rates(1e9, 1e9, 0.0)}


def record(label: str, size: int = 8, macs: int = 1000, peak: int = 1000) -> Record:
    counts = Counts(0, macs, 0, 0, 0, 0, peak, peak)
    return Record(Case("spatial/nonlocal", label, {"label": label}, Shape(1, 8, size, size), device="cpu"), counts=counts)


@contextmanager
def answering(reply: bytes) -> Iterator[str]:
    """Something that listens and is no Ray."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            channel, _ = listening.accept()
            with channel:
                channel.recv(1024)
                channel.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(timeout=5)


def refusal(address: str) -> str:
    began = time.monotonic()
    with pytest.raises(UsageError) as caught, connecting.connected(address):
        pass
    assert time.monotonic() - began < 10
    return str(caught.value)


@needs_ray
@pytest.mark.fault
def test_ray_address_at_which_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert "nobody answers there (Connection refused)" in refusal(f"127.0.0.1:{port}")


@needs_ray
@pytest.mark.fault
def test_ray_address_at_which_something_else_answers() -> None:
    with answering(b"HTTP/1.0 400 Bad Request\r\n\r\n") as address:
        assert "no Ray head" in refusal(address)
    with answering(b"") as address:
        assert "no Ray head" in refusal(address)


@pytest.mark.fault
def test_a_driver_whose_ray_call_does_not_come_back_ends_with_a_word_when_the_head_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    code = (
        "import threading; from attnprof.execute.on_ray import connecting; connecting.GLANCE_S = 0.05;"
        f"connecting._leave_without_a_head('127.0.0.1:{port}', threading.Event())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70
    assert done.stderr.startswith("attnprof: the head of the Ray cluster is gone.")
    assert "--resume" in done.stderr


@needs_ray
@pytest.mark.parametrize(
    ("address", "word"),
    [("ray://somewhere:10001", "node of the cluster"), ("somewhere", "HOST:PORT"), ("127.0.0.1:99999", "nobody answers")],
)
def test_ray_address_that_is_none(address: str, word: str) -> None:
    assert word in refusal(address)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'attnprof[ray]'" in refusal("127.0.0.1:1")


def test_ray_address_without_the_executor_is_a_usage_error(tmp_path: Path) -> None:
    from attnprof.cli.running import run_command

    spec = tmp_path / "one.yaml"
    spec.write_text("name: one\ninput: {channels: 8, hw: [4x4]}\nmechanisms: [se]\n")
    result = CliRunner().invoke(run_command, [str(spec), "--ray-address", "auto", "--out", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "--executor ray" in str(result.exception)


def node(name: str, host: str = "h", gpus: int = 0, cpus: int = 1) -> Node:
    return Node(name * 8, cpus, gpus, host)


def test_one_cpu_lane_per_host_and_one_lane_per_gpu() -> None:
    nodes = [node("a"), node("b"), node("c", "other", gpus=2), node("d", "bare", cpus=0)]
    on_cpu = phases.device_lanes(nodes, "cpu")
    assert [[one.id[0] for one in lane.nodes] for lane in on_cpu] == [["a", "b"], ["c"]]
    on_gpu = phases.device_lanes(nodes, "cuda:0")
    assert [(lane.nodes[0].id[0], lane.gpu) for lane in on_gpu] == [("c", True), ("c", True)]


@pytest.mark.fault
def test_what_ray_lost_is_tried_as_it_was_then_case_by_case_then_given_up() -> None:
    said: list[Progress] = []
    retries: Retries[str] = Retries(said.append, str)
    where = node("a")

    def lose(members: Sequence[str]) -> tuple[list[list[str]], list[str]]:
        return retries.after(Outcome(Lane((where,)), where, list(members), None, "NodeDiedError: gone"))

    assert lose("xyz") == ([["x", "y", "z"]], [])
    assert lose("xyz") == ([["x"], ["y"], ["z"]], [])
    assert lose("y") == ([], ["y"])
    assert [step.text.rpartition(": ")[2] for step in said] == ["tried again", "tried again", "given up"]
    assert all("NodeDiedError: gone" in step.text and "aaaaaaaa" in step.text for step in said)


class FakeCrew:
    """Tasks that end in the order in which they began, with what `fate` says of each."""

    def __init__(self, fate: Callable[[list[Record]], str]) -> None:
        self.fate, self.out, self.started = fate, list[tuple[Lane, list[Record], dict[str, Any]]](), list[dict[str, Any]]()
        self.dead: set[Lane] = set()
        self.wait: Callable[[], float] = lambda: 0.0  # seconds that a task waits for its device

    def __call__(self, options: Options, listener: Callable[[Progress], None]) -> FakeCrew:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.out.clear()

    @property
    def busy(self) -> list[Lane]:
        return [lane for lane, _, _ in self.out]

    def alive(self, lanes: Sequence[Lane]) -> list[Lane]:
        return [lane for lane in lanes if lane not in self.dead]

    def offer(self, lanes: Sequence[Lane], give: Callable[[Lane], None]) -> None:
        for lane in self.alive(lanes):
            if lane not in self.busy:
                give(lane)

    def start(self, lane: Lane, order: dict[str, Any], group: list[Record]) -> None:
        self.started.append(order)
        self.out.append((lane, group, order))

    def next(self) -> Outcome:
        lane, group, order = self.out.pop(0)
        death = self.fate(group)
        records = [data | {"detail": "measured"} for data in order["records"]]
        waited_s = self.wait()
        return Outcome(lane, lane.nodes[0], group, None if death else {"records": records, "waited_s": waited_s}, death)


def lane(name: str, free: int = 10**9) -> Lane:
    return Lane((node(name),), predictor=Predictor(RATES, free))


def measured(
    monkeypatch: pytest.MonkeyPatch,
    records: list[Record],
    lanes: list[Lane],
    fate: Callable[[list[Record]], str],
    **options: Any,
) -> tuple[dict[str, Record], FakeCrew]:
    crew = FakeCrew(fate)
    monkeypatch.setattr(measuring, "Crew", crew)
    phase = measuring.Measuring(lanes, "cpu", Options(**options), lambda _: None, time.monotonic())
    found = list(phase.run(records))
    assert len(found) == len({one.case.key for one in found}) == len(records)
    return {one.case.label: one for one in found}, crew


def labels(order: dict[str, Any]) -> list[str]:
    return [data["case"]["label"] for data in order["records"]]


SIZES = [record("small", 8, macs=10**6), record("large", 16, macs=10**8), record("middle", 12, macs=10**7)]


def test_without_a_budget_the_longest_block_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found, crew = measured(monkeypatch, SIZES, [lane("a")], lambda _: "")
    assert [labels(order) for order in crew.started] == [["large"], ["middle"], ["small"]]
    assert {one.environment["node"] for one in found.values()} == {"aaaaaaaa"}
    assert all(order["share"] == (math.inf, math.inf) for order in crew.started)


def test_without_a_budget_every_lane_has_a_block_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fate(group: list[Record]) -> str:
        together.append(1 + len(crew.busy))
        return ""

    together: list[int] = []
    crew = FakeCrew(fate)
    monkeypatch.setattr(measuring, "Crew", crew)
    lanes = [lane("a"), lane("b")]
    list(measuring.Measuring(lanes, "cpu", Options(), lambda _: None, time.monotonic()).run(SIZES))
    assert together == [2, 2, 1]
    assert all(order["share"] == (math.inf, math.inf) for order in crew.started)


def test_within_a_budget_a_resumed_run_begins_with_the_smallest_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    new = [record(name, 9, macs=10**7) for name in "bcde"]
    _, crew = measured(monkeypatch, [record("a", 17, macs=10**7), *new], [lane("a")], lambda _: "", run_budget_s=2.0)
    assert labels(crew.started[0]) == ["b", "c", "d", "e"]


@pytest.mark.fault
def test_what_the_last_large_device_leaves_is_found_too_large_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [lane("a", 10**6), lane("b", 10**9)]

    def fate(group: list[Record]) -> str:
        crew.dead.add(lanes[1])  # while it has "wide", which is lost a turn later
        return "NodeDiedError: gone" if group[0].case.label == "wide" else ""

    crew = FakeCrew(fate)
    monkeypatch.setattr(measuring, "Crew", crew)
    records = [record("wide", 12, macs=10**6, peak=10**8), record("slim", 8), record("thin", 9)]
    found = list(measuring.Measuring(lanes, "cpu", Options(), lambda _: None, time.monotonic()).run(records))
    details = {one.case.label: one.detail for one in found}
    assert details["wide"].startswith(NOT_MEASURED_MEMORY)
    assert details["slim"] == details["thin"] == "measured"


def test_choosing_takes_a_ray_run_of_a_thousand_blocks_little(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(str(number), 8 + number, macs=10**6 * (1 + number * 7919 % 100)) for number in range(1000)]
    began = time.process_time()
    _, crew = measured(monkeypatch, records, [lane(name) for name in "abcd"], lambda _: "")
    assert time.process_time() - began < 15.0
    assert len(crew.started) == 1000


def test_within_a_budget_the_cheapest_goes_first_and_the_rest_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found, crew = measured(monkeypatch, SIZES, [lane("a")], lambda _: "", run_budget_s=1.5)
    assert [labels(order) for order in crew.started] == [["small"], ["middle"]]
    assert found["large"].detail.startswith(NOT_MEASURED_BUDGET)
    assert all(order["share"][1] <= 1.5 == round(order["options"]["run_budget_s"], 1) for order in crew.started)


def test_what_a_task_waits_for_its_device_is_charged_to_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def wait() -> float:
        now[0] += 5.0
        return 5.0

    crew = FakeCrew(lambda _: "")
    crew.wait = wait
    monkeypatch.setattr(measuring, "Crew", crew)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    list(measuring.Measuring([lane("a")], "cpu", Options(run_budget_s=1.5), lambda _: None, 0.0).run(SIZES))
    assert [labels(order) for order in crew.started] == [["small"], ["middle"]], "as without waiting"


def test_a_block_goes_where_its_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("slim", 8), record("wide", 12, peak=10**8), record("huge", 16, peak=10**10)]
    found, _ = measured(monkeypatch, records, [lane("a", 10**6), lane("b", 10**9)], lambda _: "")
    assert found["wide"].environment["node"] == "bbbbbbbb"
    assert found["huge"].detail.startswith(NOT_MEASURED_MEMORY)
    assert found["huge"].timing is None


@pytest.mark.fault
def test_a_case_that_takes_three_ray_workers_with_it_costs_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("good"), record("bad"), record("fine")]
    fate = lambda group: "OutOfMemoryError: killed" if "bad" in [one.case.label for one in group] else ""  # noqa: E731
    found, crew = measured(monkeypatch, records, [lane("a")], fate)
    assert [found[name].status for name in ("good", "bad", "fine")] == ["ok", "crashed", "ok"]
    assert "lost by the Ray cluster" in found["bad"].detail
    assert "OutOfMemoryError: killed" in found["bad"].detail
    assert [len(order["records"]) for order in crew.started] == [3, 3, 1, 1, 1]


@pytest.mark.fault
def test_no_ray_node_left_is_said_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [lane("a")]
    crew_of: list[FakeCrew] = []

    def fate(group: list[Record]) -> str:
        crew_of[0].dead.update(lanes)
        return "NodeDiedError: gone"

    crew = FakeCrew(fate)
    crew_of.append(crew)
    monkeypatch.setattr(measuring, "Crew", crew)
    phase = measuring.Measuring(lanes, "cpu", Options(), lambda _: None, time.monotonic())
    found = list(phase.run(SIZES))
    assert [(one.status, "no node is left" in one.detail) for one in found] == [("crashed", True)] * 3


class FakeRay(types.ModuleType):
    """A cluster of nodes a and b, as far as a Crew calls it: tasks end in the order in which they began."""

    def __init__(self, deaths: list[bool]) -> None:
        super().__init__("ray")
        self.deaths, self.asked = deaths, list[str]()
        self.exceptions = types.SimpleNamespace(RayTaskError=KeyError, RayError=OSError)
        self.strategies = types.ModuleType("ray.util.scheduling_strategies")
        vars(self.strategies)["NodeAffinitySchedulingStrategy"] = lambda node, **_: node

    def remote(self, **_: object) -> Callable[..., Any]:
        def start(node: str) -> Any:
            self.asked.append(node[0])
            return types.SimpleNamespace(remote=lambda _: object())

        def options(scheduling_strategy: str, **_: object) -> Any:
            return start(scheduling_strategy)

        return lambda _: types.SimpleNamespace(options=options)

    def wait(self, references: list[object], **_: object) -> tuple[list[object], list[object]]:
        return references[:1], references[1:]

    def get(self, _: object) -> dict[str, Any]:
        if self.deaths.pop(0):
            raise OSError("Worker died.")
        return {"said": []}


@pytest.mark.fault
def test_a_node_that_lost_a_task_is_asked_where_no_other_node_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay([True, False, False, False])
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util", types.ModuleType("ray.util"))
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", ray.strategies)
    nodes = [node("a"), node("b")]
    monkeypatch.setattr(crews, "live_nodes", lambda: nodes)
    monkeypatch.setattr(crews, "require_head", lambda: None)
    lanes = [Lane((one,)) for one in nodes]
    work = list(range(4))
    with crews.Crew(Options(), lambda _: None) as crew:

        def give(lane: Lane) -> None:
            if work:
                crew.start(lane, {"op": "trace"}, work.pop())

        def heard() -> str:
            outcome = crew.next()
            assert outcome is not None
            return outcome.node.id[0] + (" lost" if outcome.answer is None else "")

        crew.offer(lanes, give)
        assert ray.asked == ["a", "b"]
        assert heard() == "a lost"
        crew.offer(lanes, give)
        assert ray.asked == ["a", "b"], "a is doubted while b works"
        assert heard() == "b"
        crew.offer(lanes, give)
        assert ray.asked == ["a", "b", "b"]
        assert heard() == "b"
        nodes.pop()
        crew.offer(lanes, give)
        assert ray.asked == ["a", "b", "b", "a"], "nobody else is left"
        assert heard() == "a"


def test_a_ray_worker_that_gets_another_gpu_has_another_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(tasks, "_served", [])
    monkeypatch.setattr(tasks, "close_server", lambda: closed.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    order = {"op": "greet", "options": vars(Options()), "cwd": str(Path.cwd()), "path": sys.path, "modules": []}
    for visible in ("0", "0", "1", "1", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        tasks.work(order)
    assert closed == ["1", "0"]


def test_a_task_traces_in_a_child_and_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from attnprof.records import to_json

    case = replace(record("se").case, mechanism="channel/se", args={}, device="none")
    order = {
        "op": "trace",
        "options": vars(Options()),
        "cwd": str(tmp_path / "not here"),
        "path": sys.path,
        "cases": [to_json(case)],
    }
    before = list(sys.path)
    answer = tasks.work(order)
    (found,) = (record_from_json(data) for data in answer["records"])
    assert found.counts is not None
    assert found.counts.params == 8 * 1 * 2
    assert sys.path == before
    assert "there is no" not in str(answer["said"])


@pytest.mark.fault
@pytest.mark.parametrize(("there", "says"), [("", "has no"), ("0123456789abcdef", "is not the driver's")])
def test_a_node_whose_file_of_the_users_is_another_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: str, says: str
) -> None:
    """Else a table would hold numbers of two versions of a module, or the errors of a node that lacks it."""
    mine = tmp_path / "mine.py"
    mine.write_text("class Mine: ...\n")
    case = Case(f"{mine}:Mine", "mine", {}, Shape(1, 8, 8, 8))
    here = source_hash(f"{mine}:Mine")
    nodes = [Node("a" * 20, 1, 0), Node("b" * 20, 1, 0)]
    monkeypatch.setattr(phases, "live_nodes", lambda: nodes)

    def answers(lanes: Sequence[Lane], order: dict[str, Any], *_: object) -> Iterator[tuple[Lane, dict[str, Any]]]:
        assert order["modules"] == [(f"{mine}:Mine", None)]
        for lane, source in zip(lanes, (here, there), strict=True):
            yield lane, {"host": "h", "code": code(), "sources": [source]}

    monkeypatch.setattr(phases, "ask_each", answers)
    said: list[Progress] = []
    assert [node.id for node in phases._nodes([case], Options(), said.append)] == ["a" * 20]
    assert says in said[0].text
    assert "bbbbbbbb is left out" in said[0].text
