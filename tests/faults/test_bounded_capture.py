"""What a child prints, and what it writes where it should not, costs its own row at most, and the driver no memory."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnprof.execute import Options, child, forks, run_cases, side
from attnprof.execute import board as boards
from attnprof.records import Case, Record, Shape

pytestmark = pytest.mark.fault

RUDE = "tests/faults/rude.py"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    yield
    forks.close_server()


def cases(*names: str, device: str = "none") -> list[Case]:
    return [Case(f"{RUDE}:{name}", f"{index} {name}", {}, Shape(1, 8, 4, 4), device=device) for index, name in enumerate(names)]


def outcome(found: list[Record]) -> dict[str, str]:
    return {record.case.label: record.status for record in found}


def test_rude_modules_cost_their_own_row_only() -> None:
    names = ("Good", "Garbles", "Forges", "Shrinks", "Good", "Closes", "Floods", "PrintsForEver", "Good")
    found = list(run_cases(cases(*names), Options(timeout_s=3)))
    assert outcome(found) == {
        "0 Good": "ok",
        "1 Garbles": "ok",  # what it wrote is no message, and its own came through
        "2 Forges": "ok",
        "3 Shrinks": "ok",
        "4 Good": "ok",
        "5 Closes": "crashed",
        "6 Floods": "crashed",
        "7 PrintsForEver": "timeout",
        "8 Good": "ok",
    }
    by_label = {record.case.label: record for record in found}
    counts = [record.counts for record in found if record.status == "ok"]
    assert counts == counts[:1] * 6
    assert "closing" in by_label["5 Closes"].detail
    assert by_label["6 Floods"].detail.startswith("it wrote more than 64 MiB where its results go")
    assert by_label["7 PrintsForEver"].detail.startswith("killed after 3 s\nlast output:\nxxxx")
    assert all(len(record.detail) < 2200 for record in found)


def test_rude_modules_while_they_are_measured() -> None:
    options = Options(timeout_s=4, budget_s=0.05, min_samples=3)
    found = list(run_cases(cases("Good", "Garbles", "Forges", device="cpu"), options))
    assert outcome(found) == {"0 Good": "ok", "1 Garbles": "ok", "2 Forges": "ok"}
    assert all(record.timing is not None and record.memory is not None for record in found)


Pair = tuple[child._Child, socket.socket]


@pytest.fixture
def listening() -> Iterator[Pair]:
    """A child that is a socket, and the end that it would write to."""
    ours, theirs = socket.socketpair()
    with boards.page() as page, ours, theirs:
        board = boards.create(page.fileno(), 1)
        yield child._Child(child.Task({}), 0, forks.Server(None, ours), ours, -1, board, "7f"), theirs  # type: ignore[arg-type]


def test_only_lines_with_the_token_are_events(listening: Pair) -> None:
    heard, theirs = listening
    event = {"event": "traced", "key": "k"}
    theirs.sendall(
        b'{"event": "end"}\nnoise\n\xff\n7f7f {}\n\n7f ' + json.dumps(event).encode() + b"\n7f [1]\n7f nonsense\nhalf"
    )
    assert heard._listen() == [event]
    assert not heard.done
    assert b"noise" in heard.tail
    theirs.sendall(b'\n7f {"event": "end"}\n')
    assert heard._listen() == []
    assert heard.done


def test_a_line_without_an_end_is_cut_off(listening: Pair) -> None:
    heard, theirs = listening
    theirs.setblocking(False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = 0
    while not heard.flooded and sent < 4 * child.LINE_BYTES:
        try:
            sent += theirs.send(b"x" * 2**20)
        except BlockingIOError:
            heard._listen()
    assert heard.flooded
    assert len(heard.said) <= child.LINE_BYTES + 2**21
    assert len(heard.tail) <= child.RING_BYTES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * child.LINE_BYTES // 1024


def test_noise_is_kept_in_the_ring_only(listening: Pair) -> None:
    heard, theirs = listening
    for _ in range(200):
        theirs.sendall(b"noise " * 1000 + b"\n")
        heard._listen()
    assert len(heard.tail) <= child.RING_BYTES
    assert len(heard.said) < 2**20


def test_a_board_that_somebody_wrote_into_names_nobody() -> None:
    with boards.page() as page:
        board = boards.create(page.fileno(), 2)
        for wrong in (float("nan"), float("inf"), 1e300, -7.0, 2.0):
            board.cells[0] = wrong
            assert board.current == -1
            board.turn_to(1)
            assert board.current == 1
        board.cells[3] = float("nan")
        assert board.spent_s(1) == float("inf")  # its time is up, rather than never
        board.cells[3] = 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="pages are sealed on Linux only")
def test_nobody_can_write_into_a_board_but_through_its_map() -> None:
    with boards.page() as page:
        ours = boards.create(page.fileno(), 2)
        theirs = boards.attach(page.fileno())
        theirs.turn_to(1)
        assert ours.current == 1
        for attempt in (lambda: os.write(page.fileno(), b"x"), lambda: os.ftruncate(page.fileno(), 0)):
            with pytest.raises(PermissionError):
                attempt()
        theirs.turn_to(0)
        assert ours.current == 0


@pytest.mark.parametrize("said", [b"garbage \xff\n", b"[1]\n", b"{}\n", b"7\n", b'{"event"\n'])
def test_a_side_of_a_pair_that_writes_what_is_no_answer(said: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = side.Side("head", None, ours, -1)  # type: ignore[arg-type]
        theirs.sendall(said)
        with pytest.raises(side.SideError, match="it wrote into its own connection: b'") as caught:
            one.answer(5)
    assert (caught.value.side, caught.value.status) == ("head", "crashed")
