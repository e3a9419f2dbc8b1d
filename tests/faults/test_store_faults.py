"""Faults of a store: whatever happened to its file, reading it says what is wrong, loses no whole line and never breaks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnprof import store
from attnprof.cli import cli
from attnprof.errors import AttnprofError, UsageError
from attnprof.records import Case, Counts, Holder, Memory, OpCost, Opinion, Record, Shape, Timeline, Timing
from attnprof.store.writer import held, line_of

pytestmark = pytest.mark.fault

COUNTS = Counts(
    *(1, 2, 3, 4, 5, 6, 7, 8),
    at_peak=(Holder(4, "bmm", "", "forward", (1, 2)),),
    ops=(OpCost("bmm", "a", "forward", 1, 2, 3, 4),),
)
# As attnprof wrote it before Case.host was a mapping.
SCHEMA_1 = (
    b'{"schema":1,"kind":"record","record":{"case":{"mechanism":"channel/se","label":"se","args":{},"shape":{"batch":1,'
    b'"channels":64,"height":8,"width":8,"frames":1},"dtype":"float32","mode":"inference","device":"none","host":null,'
    b'"settings":{"sdpa":"auto"},"key":"0123456789abcdef0123"},"status":"ok","counts":{"params":512,"macs":512,"flops":5312,'
    b'"bytes_moved":52000,"activation_bytes":33296,"resident_bytes":18432,"peak_bytes":33024,"peak_cuda_bytes":33280,"at_peak":'
    b'[{"bytes":16384,"op":"mul","module":"","phase":"forward","shape":[1,64,8,8],"line":""}],"uncounted":{},"assumed":{},'
    b'"traced_by":"meta","ops":[{"op":"mul","module":"","phase":"forward","calls":1,"macs":0,"flops":4096,"bytes_moved":33024}]},'
    b'"timing":null,"memory":null,"energy_j":null,"environment":{},"detail":""}}\n'
)


def case(label: str) -> Case:
    return Case("channel/se", label, {"r": 2}, Shape(1, 8, 4, 4), settings={"sdpa": "auto"})


def records() -> list[Record]:
    timing = Timing((1.0, 2.0), (0, 1), "block", warnings=("slow",))
    full = Record(case("full"), counts=COUNTS, timing=timing, memory=Memory(1, "cpu_allocator"), energy_j=1.5, detail="Ü")
    told = Record(
        case("told"), counts=COUNTS, crosscheck=(Opinion("fvcore", "exact", 2, 0.0),), calibrated=Memory(1, "calibrated")
    )
    timeline = Timeline(2, (1, 2), (3, 4), (0, 1), (("forward", "", "x"),))
    return [full, told, Record(case("line"), counts=COUNTS, memory_timeline=timeline), Record(case("out"), status="oom")]


def written(path: Path) -> bytes:
    store.append(path, store.Run("night", tuple(each.case.key for each in records()), "se", ("macs",), "abc"))
    for each in records():
        store.append(path, each)
    return path.read_bytes()


def labels(stored: store.Stored) -> list[str]:
    return [stored.records[key].case.label for key in stored.records]


def read(path: Path) -> store.Stored | None:
    """Everything a reader does; None where the file is refused."""
    try:
        stored = store.load(path)
    except UsageError as error:
        return None if str(path) in str(error) else pytest.fail(f"no word of where: {error}")
    for key in stored.records:
        store.reusable(stored, case("full"), {})
        with contextlib.suppress(UsageError):
            assert stored.records[key].case.key == key
    assert len(stored.some(stored.records)[0]) <= len(stored.records)
    stored.some(stored.records, outlined=True)
    return stored


def test_store_truncated(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole.jsonl")
    ends = [i for i, byte in enumerate(whole) if byte == 10]
    path = tmp_path / "cut.jsonl"
    for at in range(len(whole) + 1):
        path.write_bytes(whole[:at])
        stored = store.load(path)
        lines = sum(end <= at for end in ends)  # whole but for their newline
        assert len(stored.runs) + len(stored.records) == lines, at
        assert bool(stored.warnings) == (at not in (0, *ends, *(end + 1 for end in ends))), at


def test_store_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    whole = written(path)
    path.write_bytes(whole[:-20])
    stored = store.load(path)
    assert labels(stored) == ["full", "told", "line"]
    assert "run.jsonl:5: the last line is torn" in stored.warnings[0]
    store.append(path, records()[-1])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage",
        b"\0" * 4096,
        b"\xff\xfe\x80",
        b'{"schema":2,"kind":"record","record":{"case":{"mech',
        b'{"schema":2,"kind":"record","rec{"schema":2,"kind":"record","record":{}}',
        b"[" * 100_000,
        b'{"schema":2,"kind":"record","record":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"1" * 10_000,
        b'{"schema":' + b"1" * 10_000 + b"}",
        b'{"schema":2,"kind":"poem"}',
        b'{"schema":2,"kind":"run","name":1}',
        b'{"schema":2,"kind":"run","name":"a","keys":["a"],"shard":3,"of":2,"shards":[1]}',
        b'{"schema":0,"kind":"record"}',
        b"null",
        b'"text"',
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
def test_store_line_of_garbage(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "run.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage, b"\n", *lines[2:]]))
    stored = store.load(path)
    assert labels(stored) == ["full", "told", "line", "out"]
    assert "run.jsonl:3: " in stored.warnings[0]
    assert "will run again" in stored.warnings[0]
    assert "attnprof merge" in stored.warnings[0]
    CliRunner().invoke(cli, ["merge", str(path), "--out", str(tmp_path / "new"), "-q"], standalone_mode=False)
    clean = store.load(tmp_path / "new" / "night.jsonl")
    assert clean.warnings == ()
    assert dict(clean.records) == dict(stored.records)


WRONG: list[tuple[str, ...]] = [
    ("counts", "macs", '"two"'),
    ("counts", "macs", "2.5"),
    ("counts", "ops", '[{"op":1}]'),
    ("counts", "at_peak", "{}"),
    ("counts", "uncounted", '{"op":"many"}'),
    ("timing", "latency_s", '["fast"]'),
    ("timing", "rounds", "[0]"),
    ("case", "shape", '{"batch":"1"}'),
    ("case", "args", "[]"),
    ("case", "host", '"resnet"'),
    ("status", '"fine"'),
    ("status", "null"),
    ("environment", "[]"),
    ("environment", '{"provenance":[]}'),
    ("detail", "{}"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: "-".join(wrong[:-1]))
def test_store_field_of_a_wrong_type(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    path = tmp_path / "run.jsonl"
    lines = written(path).splitlines(keepends=True)
    line = json.loads(lines[1])
    home = line["record"]
    for name in wrong[:-2]:
        home = home[name]
    home[wrong[-2]] = json.loads(wrong[-1])
    path.write_bytes(b"".join([lines[0], *lines[2:], json.dumps(line).encode() + b"\n"]))
    stored = read(path)
    assert stored is not None
    found, said = stored.some([each.case.key for each in records()])
    assert [each.case.label for each in found] == ["told", "line", "out"]
    assert "run.jsonl:5: " in " ".join((*stored.warnings, *said))
    assert store.reusable(stored, case("full"), {}) is None
    path.write_bytes(json.dumps(line).encode() + b"\n")
    with pytest.raises(UsageError, match=":1: "):
        store.load(path)


IMPOSSIBLE = [
    *(("timing", "latency_s", f"[0.1, {bad}]") for bad in ("NaN", "Infinity", "0.0", "-1.0", "5e-324", "1e308", "1e999")),
    ("timing", "latency_s", "[0.0, 0.0]"),
    ("timing", "latency_s", "[NaN, 1.0]"),
    *(("energy_j", bad) for bad in ("NaN", "-Infinity", "-1", "1e300")),
    *(("memory", "peak_bytes", bad) for bad in ("-1", "1" + "0" * 400)),
    ("memory", "absolute_bytes", "-1"),
    *(("environment", "flush_bytes", bad) for bad in ('"abc"', "NaN", "-1", "1.5", "[]", "null")),
    *(("counts", name, "-1") for name in ("macs", "peak_bytes")),
    ("counts", "params", "1" + "0" * 400),
    ("counts", "uncounted", '{"op":-1}'),
    ("counts", "ops", '[{"op":"a","module":"","phase":"forward","calls":1,"macs":-1,"flops":1,"bytes_moved":1}]'),
    ("case", "shape", "batch", "0"),
]


@pytest.mark.parametrize("wrong", IMPOSSIBLE, ids=lambda wrong: "-".join(wrong)[:60])
@pytest.mark.parametrize("first", [False, True], ids=["", "first"])
def test_store_number_that_cannot_be(tmp_path: Path, wrong: tuple[str, ...], first: bool) -> None:
    path = tmp_path / "night.jsonl"
    run, *lines = written(path).splitlines(keepends=True)
    line = json.loads(lines[0])
    home = line["record"]
    for name in wrong[:-2]:
        home = home[name]
    home[wrong[-2]] = "HERE"
    damaged = json.dumps(line).replace('"HERE"', wrong[-1]).encode() + b"\n"
    path.write_bytes(b"".join([damaged, run, *lines[1:]] if first else [run, *lines[1:], damaged]))
    stored = read(path)
    assert stored is not None
    found, said = stored.some(stored.records, outlined=True)
    assert [each.case.label for each in found] == ["told", "line", "out"]
    assert f"night.jsonl:{1 if first else 5}: this line holds a number that cannot be: " in said[0]
    assert store.reusable(stored, case("full"), {}) is None
    code, told = reported(path)
    assert code == 0, told
    assert f"night.jsonl:{1 if first else 5}: " in told
    merged = CliRunner().invoke(cli, ["merge", str(path), "--out", str(tmp_path / "new")])
    assert merged.exit_code == 0, merged.output
    clean = store.load(tmp_path / "new" / "night.jsonl")
    assert clean.warnings == ()
    assert labels(clean) == ["told", "line", "out"]


def reported(path: Path) -> tuple[int, str]:
    """The exit code of writing a store's tables, and what is said; a defect raises."""
    command = ["report", str(path), "--all", "--format", "md,csv,json,latex", "--out", str(path.parent / "out")]
    found = CliRunner().invoke(cli, command, standalone_mode=False)
    if found.exception is not None and not isinstance(found.exception, (AttnprofError, SystemExit)):
        raise found.exception
    return found.exit_code, found.output


def test_store_of_an_older_schema(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_bytes(SCHEMA_1)
    (found,) = store.load(path).records.values()
    assert found.case.host is None
    assert found.counts is not None
    assert (found.counts.macs, found.counts.ops[0].flops, found.counts.at_peak[0].shape) == (512, 4096, (1, 64, 8, 8))
    store.append(path, records()[0])
    assert labels(store.load(path)) == ["se", "full"]
    assert path.read_bytes().startswith(SCHEMA_1)


@pytest.mark.parametrize("where", [0, 2])
def test_store_of_a_newer_schema(tmp_path: Path, where: int) -> None:
    path = tmp_path / "run.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:where], b'{"schema":99,"kind":"record","record":{}}\n', *lines[where:]]))
    with pytest.raises(UsageError, match=rf"run\.jsonl:{where + 1}: schema 99 is newer .* update attnprof"):
        store.load(path)


@pytest.mark.parametrize("content", [b"# notes", b"# notes\n", b"PK\x03\x04\0\0", b"{}", b'{"some": "json"}\n', b"\0" * 100])
def test_store_that_is_a_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.jsonl:1: .* is no store of attnprof"):
        store.load(path)
    if not content.endswith(b"\n") and content != b"{}":
        with pytest.raises(UsageError, match="nothing was written"):
            store.append(path, records()[0])
    assert path.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything: the folder's test stands for it")
def test_store_read_only(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    whole = written(path)
    path.chmod(0o444)
    with pytest.raises(UsageError, match=r"run\.jsonl: cannot be written: Permission denied. Give another --out"):
        store.append(path, records()[0])
    assert path.read_bytes() == whole


def test_store_read_only_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.jsonl"
    whole = written(path)

    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=r"run\.jsonl: cannot be written: Read-only file system. Give another --out"):
        store.append(path, records()[0])
    monkeypatch.undo()
    assert path.read_bytes() == whole


_FULL = """
import resource, signal, sys
from pathlib import Path
from attnprof.errors import UsageError
from attnprof import store
from tests.faults.test_store_faults import records
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.append(path, records()[0])
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 1, 100])
def test_store_on_a_full_disk(tmp_path: Path, room: int) -> None:
    path = tmp_path / "run.jsonl"
    whole = written(path)
    command = [sys.executable, "-c", _FULL, str(path), str(len(whole) + room)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Make room" in found.stdout
    assert dict(store.load(path).records) == {each.case.key: each for each in records()}
    store.append(path, records()[0])
    assert store.load(path).warnings == ()
    assert path.read_bytes().startswith(whole)


def test_store_replaced_while_a_writer_waits(tmp_path: Path) -> None:
    path, new = tmp_path / "run.jsonl", tmp_path / "new.jsonl"
    whole = written(path)
    new.write_bytes(whole)
    code = f"from pathlib import Path; from attnprof import store; from tests.faults.test_store_faults import *; {_LATE}"
    with held(path):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        new.replace(path)
    assert writer.wait(timeout=60) == 0
    writer.stdout.close()
    assert labels(store.load(path)) == ["full", "told", "line", "out", "late"]


_LATE = "print('ready', flush=True); store.append(Path(sys.argv[1]), Record(case('late')))"


def _mutated(data: st.DataObject, lines: list[bytes]) -> bytes:
    """Lines of a store with one thing wrong: a byte, a cut, a swap, a value of another type."""
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    kind = data.draw(st.sampled_from(("bytes", "cut", "join", "value", "random")))
    at = data.draw(st.integers(0, len(line) - 1))
    if kind == "bytes":
        line = line[:at] + data.draw(st.binary(max_size=4)) + line[at + data.draw(st.integers(0, 3)) :]
    elif kind == "cut":
        line = line[:at]
    elif kind == "join":
        line = line[:at] + lines[data.draw(st.integers(0, len(lines) - 1))][at // 2 :]
    elif kind == "random":
        line = data.draw(st.binary(max_size=60)) + b"\n"
    else:
        content = json.loads(line)
        home, name = content, "record" if "record" in content else "keys"
        while isinstance(home.get(name), dict) and home[name] and data.draw(st.booleans()):
            home = home[name]
            name = data.draw(st.sampled_from(sorted(home)))
        home[name] = data.draw(_JSON)
        line = json.dumps(content).encode() + b"\n"
    return b"".join([*lines[:number], line, *lines[number + 1 :]])


_NUMBERS = [
    2**64,
    -(2**70),
    10**400,
    0,
    -1,
    0.0,
    -1.0,
    5e-324,
    1e308,
    float("nan"),
    float("inf"),
    [0.0, 0.0],
    [float("nan"), 1.0],
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(_NUMBERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_RUN = store.Run("night", ("k",), "se", ("macs",), "abc")
_WHOLE = line_of(_RUN) + b"".join(map(line_of, records()))


def _survives(folder: Path, data: st.DataObject) -> None:
    path, lines = folder / "run.jsonl", _WHOLE.splitlines(keepends=True)
    path.write_bytes(data.draw(st.binary(max_size=200)) if data.draw(st.integers(0, 9)) == 0 else _mutated(data, lines))
    stored = read(path)
    assert stored is None or len(stored.records) <= len(records()) + 1
    if stored is not None and data.draw(st.integers(0, 3)) == 0:
        reported(path)


_CALM = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=300, suppress_health_check=_CALM)
@given(st.data())
def test_store_reader_takes_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    _survives(_folder(tmp_path_factory), data)


@pytest.mark.longest
@pytest.mark.timeout(7200)
@settings(max_examples=100_000, suppress_health_check=_CALM, database=None)
@given(st.data())
def test_store_reader_takes_any_bytes_100_000_times(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    _survives(_folder(tmp_path_factory), data)


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp()
