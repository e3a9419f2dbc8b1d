"""Disks that are full, stores and checkouts that are read-only, two runs that want one store."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from attnprof import store
from attnprof.errors import UsageError
from attnprof.records import Case, Record, Shape
from attnprof.store import writer as writer_module
from tests.faults.driver import counts_by_key, run, start, wait_for_records, write_sweep

pytestmark = pytest.mark.fault

COMMAND = ("run", "sweep.yaml", "--allow-import", "slow.py:*", "--out", "out", "--jobs", "2")


def _may_mount() -> bool:
    tried = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    try:
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


mounts = pytest.mark.skipif(not _may_mount(), reason="this machine lets nobody mount a file system of their own")


def _record(number: int) -> Record:
    return Record(Case("m", str(number), {}, Shape(1, 1, 1, 1)), detail="x" * 500)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_full_takes_the_half_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The disk takes a part of a line and no more."""
    path = tmp_path / "s.jsonl"
    real = os.write

    def fills(descriptor: int, data: bytes) -> int:
        if len(data) > 100:
            return real(descriptor, data[:100])
        raise OSError(number, os.strerror(number))

    with store.writing(path) as writer:
        writer.append(_record(1))
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", fills)
        monkeypatch.setattr(writer_module, "_mend", lambda *_: None)
        with pytest.raises(UsageError, match="--resume") as said:
            writer.append(_record(2))
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert ("Make room" in str(said.value)) == (number != errno.EIO)
        writer.append(_record(3))
    assert [record.case.label for record in store.load(path).records.values()] == ["1", "3"]
    assert store.load(path).warnings == ()


@mounts
def test_disk_full_in_a_run_and_resume_once_there_is_room(tmp_path: Path) -> None:
    """A file system of 24 KiB, about 15 records."""
    write_sweep(tmp_path, 40, seconds=0.0)
    (tmp_path / "out").mkdir()
    kept = tmp_path / "kept"
    script = f'mount -t tmpfs -o size=24k none out && "$@"; code=$?; cp out/sweep.jsonl {kept}; exit $code'
    full = run(tmp_path, *COMMAND, before=["unshare", "-rm", "sh", "-c", script, "sh"])
    assert full.process.returncode == 2, full.stderr
    assert "No space left on device" in full.stderr
    assert "Make room on the disk" in full.stderr
    assert "--resume" in full.stderr
    assert "Traceback" not in full.stderr
    there = counts_by_key(kept)
    assert there, "what the disk took is whole"
    (tmp_path / "out" / "sweep.jsonl").write_bytes(kept.read_bytes())
    again = run(tmp_path, *COMMAND, "--resume")
    assert again.process.returncode == 0, again.stderr
    found = counts_by_key(tmp_path / "out" / "sweep.jsonl")
    assert len(found) == 40
    assert there.items() <= found.items()


def test_a_file_that_may_not_grow_is_said_and_whole(tmp_path: Path) -> None:
    """The kernel's own bound on the size of a file (RLIMIT_FSIZE) cuts a line off in its middle."""
    write_sweep(tmp_path, 20, seconds=0.0)
    code = (
        "import resource, signal, sys, os; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12345, 12345)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = run(tmp_path, *COMMAND, before=[sys.executable, "-c", code])
    assert done.process.returncode == 2, done.stderr
    assert "Make room" in done.stderr
    size = (tmp_path / "out" / "sweep.jsonl").stat().st_size
    assert 0 < size <= 12345
    assert counts_by_key(tmp_path / "out" / "sweep.jsonl")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 12345


def _read_only(place: str) -> list[str]:
    return ["unshare", "-rm", "sh", "-c", f'mount --bind {place} {place} && mount -o remount,bind,ro {place} && "$@"', "sh"]


@mounts
def test_store_read_only_is_said_before_anything_is_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, 2, seconds=0.0)
    (tmp_path / "out").mkdir()
    done = run(tmp_path, *COMMAND, before=_read_only("out"))
    assert done.process.returncode == 2
    assert "--out out: Read-only file system: give --out a folder that can be written." in done.stderr
    assert "[trace" not in done.stderr


def test_store_that_may_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(UsageError, match=r"s\.jsonl: cannot be written: Permission denied\. Give another --out\."),
        store.writing(tmp_path / "s.jsonl"),
    ):
        pass


@mounts
def test_read_only_checkout(tmp_path: Path) -> None:
    """The whole repository and the spec's folder: counting works, and the results go where --out says."""
    repository = Path(__file__).parents[2]
    checkout, results = tmp_path / "checkout", tmp_path / "results"
    for folder in (checkout, results):
        folder.mkdir()
    write_sweep(checkout, 2, seconds=0.0)
    streams = tmp_path / "streams"
    streams.mkdir()
    both = f"for place in {repository} {checkout}; do mount --bind $place $place && mount -o remount,bind,ro $place; done"
    inside: Sequence[str] = ["unshare", "-rm", "sh", "-c", f'{both}; cd {checkout}; "$@"', "sh"]
    command = [*COMMAND[:-4], "--jobs", "1"]
    refused = run(streams, *command, before=inside, PYTHONPATH=str(repository))
    assert refused.process.returncode == 2
    assert "--out reports/sweep: Read-only file system: give --out a folder" in refused.stderr
    done = run(streams, *command, "--out", str(results), before=inside, PYTHONPATH=str(repository))
    assert done.process.returncode == 0, done.stderr
    assert len(counts_by_key(results / "sweep.jsonl")) == 2
    assert [entry.name for entry in checkout.iterdir() if entry.name not in ("slow.py", "sweep.yaml")] == []


@pytest.mark.parametrize("fresh", [False, True], ids=["", "fresh"])
def test_two_drivers_on_one_store(tmp_path: Path, fresh: bool) -> None:
    """The second is told at once; the first neither notices nor loses anything, not even to --fresh."""
    write_sweep(tmp_path, 12)
    path = tmp_path / "out" / "sweep.jsonl"
    first = start(tmp_path, *COMMAND)
    wait_for_records(path, 1)
    first.kill(signal.SIGSTOP)  # it has the store, however slow the other one starts
    second = run(tmp_path, *COMMAND, *(["--fresh"] if fresh else []))
    assert second.process.returncode == 2
    assert "another run is writing this store" in second.stderr
    assert "--shard" in second.stderr
    first.kill(signal.SIGCONT)
    assert first.wait() == 0, first.stderr
    assert len(counts_by_key(path)) == 12


def test_a_store_that_vanishes_under_a_run_is_said(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with store.writing(path) as writer:
        writer.append(_record(1))
        path.unlink()
        with pytest.raises(UsageError, match="was removed or replaced while it was written to"):
            writer.append(_record(2))


def test_merge_while_a_shard_runs_and_while_its_target_is_written(tmp_path: Path) -> None:
    """Shards that are written on are read as far as they are; the store that would be replaced is not taken from a run."""
    write_sweep(tmp_path, 3, seconds=0.0)
    assert run(tmp_path, *COMMAND, "--shard", "1/1").process.returncode == 0
    with store.writing(tmp_path / "out" / "sweep.shard-1-of-1.jsonl"):
        done = run(tmp_path, "merge", "out")
    assert done.process.returncode == 0, done.stderr
    assert len(counts_by_key(tmp_path / "out" / "sweep.jsonl")) == 3
    before = (tmp_path / "out" / "sweep.jsonl").read_bytes()
    with store.writing(tmp_path / "out" / "sweep.jsonl"):
        refused = run(tmp_path, "merge", "out")
    assert refused.process.returncode == 2
    assert "out/sweep.jsonl: a run is writing this store: merge when it is through" in refused.stderr
    assert (tmp_path / "out" / "sweep.jsonl").read_bytes() == before
