"""Shards and merging: every case in one shard, the same on every machine; one store of several, whatever their order."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from attnprof import plan, store
from attnprof.cli import cli
from attnprof.errors import AttnprofError, UsageError
from attnprof.profiling.provenance import PROVENANCE, provenance
from attnprof.records import Case, Counts, Record, Shape, Timing

MADE = {PROVENANCE: {"attnprof": "1", "source": "abc"}}
SPEC = """
name: tiny
input: {channels: 16, hw: [5x5, 6x6, 7x7, 8x8]}
mechanisms: [se, eca]
metrics: [params, macs]
"""


def case(label: str, size: int = 8, **more: Any) -> Case:
    return Case(f"channel/{label}", label, {}, Shape(1, 16, size, size), **more)


def record(one: Case, macs: int = 3, **more: Any) -> Record:
    return Record(one, counts=Counts(1, macs, 7, 1, 1, 1, 1, 1), environment=MADE, **more)


def written(path: Path, records: list[Record], keys: tuple[str, ...] = (), **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {
        "name": "tiny",
        "keys": keys or tuple(each.case.key for each in records),
        "source": "s",
        "metrics": ("params", "macs"),
    }
    store.append(path, store.Run(**{**run, **more}))
    for each in records:
        store.append(path, each)
    return path


def merge(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["merge", *map(str, arguments)], standalone_mode=False)


def code_of(*arguments: object) -> int:
    found = CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)
    if isinstance(found.exception, AttnprofError):
        return found.exception.exit_code
    assert found.exception is None, found.exception
    return found.return_value or 0


def refusal(*arguments: object) -> str:
    error = merge(*arguments).exception
    assert isinstance(error, UsageError), error
    return str(error)


CASES = [case(label, size, mode=mode) for label in ("se", "eca") for size in range(4, 24) for mode in ("inference", "training")]


@pytest.mark.parametrize("of", [1, 2, 3, 16])
def test_every_case_falls_to_one_shard_and_blocks_stay_whole(of: int) -> None:
    parts = [plan.shard(CASES, index, of) for index in range(1, of + 1)]
    assert Counter(one.key for part in parts for one in part) == Counter(one.key for one in CASES)
    homes = [{one.block for one in part} for part in parts]
    assert sum(map(len, homes)) == len({one.block for one in CASES})
    sizes = sorted(len(part) for part in parts)
    largest = max(Counter(one.block for one in CASES).values())
    assert sizes[-1] - sizes[0] <= largest, "as even as whole blocks allow"


def test_shards_are_the_same_on_every_machine_and_in_every_order() -> None:
    dealt = plan.shards(CASES, 16)
    assert dealt == plan.shards(CASES[::-1], 16)
    assert dealt[CASES[0].key] == 8, "by hashes of the content: a change moves cases between the shards of old runs"
    code = "import json; from tests.store.test_merge import CASES, plan; print(json.dumps(plan.shards(CASES, 16)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == dealt
    there = [dataclasses.replace(one, device="cuda:0") for one in CASES]
    assert {one.block[:3]: plan.shards(there, 16)[one.key] for one in there} == {one.block[:3]: dealt[one.key] for one in CASES}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0/4", "count from 1; with Slurm use --array=1-4"),
        ("5/4", "the last is 4/4"),
        ("1/0", "no shard of none"),
        ("3", "write I/N"),
        ("a/b", "write I/N"),
        ("-1/4", "write I/N"),
        ("٣/4", "write I/N"),
    ],
)
def test_a_wrong_shard_is_told_what_to_write(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan.parse_shard(text)
    assert plan.parse_shard("3/16") == (3, 16)


def test_shards_of_a_run_merge_into_the_whole_run(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(SPEC)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert code_of("run", str(spec), "--device", "none", "-q", "--out", str(whole), "--format", "md,csv,json") == 0
    for number in range(1, 10):
        assert code_of("run", str(spec), "--device", "none", "-q", "--out", str(parts), "--shard", f"{number}/9") == 0
    assert len(list(parts.glob("tiny.shard-*-of-9.jsonl"))) == 9, "a shard without a block has a store, too"
    assert code_of("merge", str(parts), "-q", "--format", "md,csv,json") == 0
    for suffix in ("md", "csv", "json"):
        assert (parts / f"tiny.{suffix}").read_text() == (whole / f"tiny.{suffix}").read_text()
    (parts / "tiny.jsonl").unlink()
    lost = max(parts.glob("*.jsonl"), key=lambda path: path.stat().st_size)
    number = int(lost.name.split("-")[1])
    lost.unlink()
    found = merge(parts)
    assert found.return_value == 5
    assert f"shard {number}/9 is missing: " in found.stderr


def test_merging_again_and_in_any_order_gives_the_same(tmp_path: Path) -> None:
    parts = [
        written(tmp_path / f"{name}/tiny.jsonl", [record(case(label, size)) for label in ("se", "eca")])
        for name, size in (("a", 4), ("b", 5), ("c", 6))
    ]
    assert merge(*parts, "--out", tmp_path / "one").return_value == 0
    assert merge(*reversed(parts), "--out", tmp_path / "two").return_value == 0
    one, two = tmp_path / "one" / "tiny.jsonl", tmp_path / "two" / "tiny.jsonl"
    assert dict(store.load(one).records) == dict(store.load(two).records)
    assert len(store.load(one).records) == 6
    before = one.read_bytes()
    assert merge(*parts, "--out", tmp_path / "one").return_value == 0
    assert merge(tmp_path / "one").return_value == 0
    assert one.read_bytes() == before


def timed(one: Case, seconds: float) -> Record:
    return record(dataclasses.replace(one, device="cpu"), timing=Timing((seconds,) * 6, tuple(range(6)), "block"))


def test_a_block_comes_from_the_store_with_most_that_is_ok_then_timed(tmp_path: Path) -> None:
    se, eca = case("se"), case("eca")
    half = written(tmp_path / "half.jsonl", [timed(se, 1.0), dataclasses.replace(timed(eca, 1.0), status="crashed")])
    full = written(tmp_path / "full.jsonl", [timed(se, 2.0), timed(eca, 2.0)])
    bare = written(tmp_path / "bare.jsonl", [record(dataclasses.replace(one, device="cpu")) for one in (se, eca)])
    again = written(tmp_path / "again.jsonl", [timed(se, 3.0), timed(eca, 3.0)])
    for number, (order, wanted) in enumerate([((half, bare, full), 2.0), ((full, again), 2.0), ((again, full), 3.0)]):
        assert merge(*order, "--out", tmp_path / str(number)).return_value == 0
        found = store.load(tmp_path / str(number) / "tiny.jsonl").records.values()
        assert [each.timing.median_s for each in found if each.timing is not None] == [wanted, wanted]


def test_what_the_better_store_lacks_comes_from_another_and_is_said(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [timed(case("se"), 1.0), timed(case("eca"), 1.0)])
    two = written(tmp_path / "two.jsonl", [timed(case("srm"), 2.0)])
    found = merge(one, two, "--out", tmp_path / "out")
    assert found.return_value == 0
    assert f"{two} has 1 of the block that is otherwise from {one}" in found.stderr
    assert "latencies of such a block" in found.stderr
    bare = written(tmp_path / "bare" / "two.jsonl", [dataclasses.replace(timed(case("srm"), 2.0), timing=None)])
    found = merge(one, bare, "--out", tmp_path / "second")
    assert f"{bare} has 1 of the block" in found.stderr
    assert "latencies of such a block" not in found.stderr, "only one of the two has any"
    assert len(store.load(tmp_path / "out" / "tiny.jsonl").records) == 3


def test_stores_of_other_specs_or_names_are_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [record(case("se"))])
    other = written(tmp_path / "other.jsonl", [record(case("eca"))], source="another")
    stranger = written(tmp_path / "stranger.jsonl", [record(case("eca"))], name="night")
    assert code_of("merge", str(one), str(other)) == 2
    assert code_of("merge", str(one), str(stranger)) == 2
    assert "was run from another spec" in refusal(one, other)
    assert "the only one of" in refusal(one, stranger)
    more = [written(tmp_path / "x" / f"{n}.jsonl", [record(case("se", n))], name=name) for n, name in ((4, "a"), (5, "a"))]
    more += [written(tmp_path / "x" / f"{n}.jsonl", [record(case("se", n))], name=name) for n, name in ((6, "b"), (7, "b"))]
    assert merge(*more).return_value == 0
    assert [len(store.load(tmp_path / "x" / f"{name}.jsonl").records) for name in "ab"] == [2, 2]


def test_traced_counts_that_differ_are_refused_loudly(tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [record(case("se"))])
    two = written(tmp_path / "two.jsonl", [record(case("se"), macs=4)])
    said = refusal(one, two, "--out", tmp_path / "out")
    assert "contradict each other on se" in said
    assert "macs 3 and 4" in said
    assert not (tmp_path / "out" / "tiny.jsonl").exists()
    changed = dataclasses.replace(record(case("se"), macs=4), environment={PROVENANCE: {"attnprof": "2"}})
    other = written(tmp_path / "other.jsonl", [changed])
    said = refusal(one, other, "--out", tmp_path / "out")
    assert "have se from different code" in said or "from different code" in said
    assert "--resume" in said


def test_cases_that_failed_or_are_missing_are_exit_5_and_nothing_is_exit_3(tmp_path: Path) -> None:
    failed = written(tmp_path / "a" / "tiny.jsonl", [record(case("se"), status="timeout")])
    assert merge(failed).return_value == 5
    lacking = written(tmp_path / "b" / "tiny.jsonl", [record(case("se"))], keys=(case("se").key, case("eca").key))
    found = merge(lacking)
    assert found.return_value == 5
    assert "1 of 2 cases have no record" in found.stderr
    assert "1 of 2 cases have no record" in found.stdout, "a table that is read later says so too"
    (tmp_path / "empty").mkdir()
    assert code_of("merge", str(tmp_path / "empty")) == 3
    assert code_of("merge", str(tmp_path / "nowhere")) == 2


def test_what_lies_where_the_merged_store_goes_is_merged_not_lost(tmp_path: Path) -> None:
    there = written(tmp_path / "out" / "tiny.jsonl", [record(case("se"))])
    one = written(tmp_path / "one.jsonl", [record(case("eca"))])
    assert merge(one, "--out", there.parent).return_value == 0
    assert len(store.load(there).records) == 2


@pytest.mark.fault
def test_merge_imports_neither_torch_nor_the_users_code(tmp_path: Path) -> None:
    mine = dataclasses.replace(case("se"), mechanism=f"{tmp_path}/mine.py:Mine")
    (tmp_path / "mine.py").write_text("raise RuntimeError('imported')\n")
    path = written(tmp_path / "tiny.jsonl", [record(mine)])
    code = f"import sys; from attnprof.cli import cli; cli.main(['merge', {str(path)!r}, '-q'], standalone_mode=False)"
    found = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], check=True, capture_output=True)
    assert found.stdout.split()[-1] == b"False"


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["se", "eca", "srm"]), st.integers(4, 6)), min_size=1, max_size=12)
)
def test_no_case_is_lost_or_twice(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, str, int]]) -> None:
    folder = tmp_path_factory.mktemp("merge")
    by_store: dict[int, list[Record]] = {}
    for number, label, size in entries:
        by_store.setdefault(number, []).append(record(case(label, size)))
    paths = [written(folder / f"{number}.jsonl", records) for number, records in by_store.items()]
    assert merge(*paths, "--out", folder / "out", "--format", "md").return_value == 0
    lines = [json.loads(line) for line in (folder / "out" / "tiny.jsonl").read_text().splitlines()]
    keys = [line["record"]["case"]["key"] for line in lines if line["kind"] == "record"]
    assert Counter(keys) == Counter({case(label, size).key for _, label, size in entries})


def _shards(tmp_path: Path, folder: Path) -> list[int]:
    spec = str(tmp_path / "own.yaml")
    return [
        code_of("run", spec, "--device", "none", "-q", "--out", str(folder), "--allow-import", "own.py:*", "--shard", each)
        for each in ("1/2", "2/2")
    ]


_OWN = """
from torch import nn

class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.layer(x)
"""


def test_an_earlier_merge_does_not_hide_what_its_shards_say_now(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(_OWN)
    (tmp_path / "own.yaml").write_text(
        "name: own\ninput: {channels: 8, hw: [5x5, 7x7]}\nmodes: inference\nmeasure: {device: none}\n"
        "mechanisms: [{import: 'own.py:Own'}]\n"
    )
    folder = tmp_path / "out"
    assert _shards(tmp_path, folder) == [0, 0]
    assert merge(folder).return_value == 0
    (tmp_path / "own.py").write_text(_OWN.replace("return self.layer(x)", "raise ValueError('broken since')"))
    assert _shards(tmp_path, folder) == [5, 5]
    found = merge(folder)
    assert found.return_value == 5
    assert "error" in found.stdout
    (tmp_path / "own.py").write_text(_OWN.replace("channels, channels, 1", "channels, channels, 3"))
    spec, first = str(tmp_path / "own.yaml"), ("--device", "none", "-q", "--out", str(folder), "--allow-import", "own.py:*")
    assert code_of("run", spec, *first, "--shard", "1/2") == 0
    (tmp_path / "own.py").write_text(_OWN)
    assert code_of("run", spec, *first, "--shard", "2/2") == 0
    assert "own.py:Own from different code (source)" in refusal(folder)
    assert code_of("run", spec, *first, "--shard", "1/2", "--resume") == 0
    (tmp_path / "own.yaml").write_text((tmp_path / "own.yaml").read_text() + "# a remark\n")
    assert code_of("run", spec, *first, "--shard", "2/2", "--resume") == 0
    assert merge(folder).return_value == 0, "the same cases, whatever else the text of the spec says"


@pytest.mark.fault
def test_merge_of_damaged_stores_says_what_is_missing_and_loses_no_whole_line(tmp_path: Path) -> None:
    """A line of garbage in the middle of one, a torn last line of the other."""
    one = written(tmp_path / "one.jsonl", [record(case(label, 4)) for label in ("se", "eca", "srm")])
    two = written(tmp_path / "two.jsonl", [record(case(label, 5)) for label in ("se", "eca")])
    lines = one.read_bytes().splitlines(keepends=True)
    one.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[3:]]))
    two.write_bytes(two.read_bytes()[:-20])
    found = merge(one, two, "--out", tmp_path / "out")
    assert found.return_value == 5
    assert "one.jsonl:3: this line is no JSON" in found.stderr
    assert "two.jsonl:3: the last line is torn" in found.stderr
    assert "2 of 5 cases have no record" in found.stderr
    whole = store.load(tmp_path / "out" / "tiny.jsonl")
    assert whole.warnings == ()
    assert {(each.case.label, each.case.shape.height) for each in whole.records.values()} == {("se", 4), ("srm", 4), ("se", 5)}


@pytest.mark.fault
def test_a_store_that_is_written_anew_while_it_is_merged_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnprof.store import merging

    parts = [written(tmp_path / f"{name}.jsonl", [record(case(name))]) for name in ("se", "eca")]
    real = merging.write

    def late(merged: merging.Merged, path: Path) -> None:
        parts[0].write_bytes(parts[1].read_bytes())
        real(merged, path)

    monkeypatch.setattr(merging, "write", late)
    assert "written anew while it was read" in refusal(*parts, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "tiny.jsonl").exists()


def waiting(one: Case, **more: Any) -> Record:
    """A case as a killed run leaves it: counted, and no further."""
    return record(dataclasses.replace(one, device="cpu"), status="interrupted", detail="not measured yet", **more)


def test_counts_of_other_code_are_refused_though_their_run_was_killed(tmp_path: Path) -> None:
    edited = {PROVENANCE: {"attnprof": "1", "source": "edited"}}
    killed = written(tmp_path / "killed.jsonl", [waiting(case("se", 5))])
    whole = written(tmp_path / "whole.jsonl", [dataclasses.replace(timed(case("se", 6), 1.0), environment=edited)])
    assert "have channel/se from different code (source)" in refusal(killed, whole)
    assert "Run the older one again with --resume" in refusal(killed, whole), "neither is the code that lies here"


@pytest.mark.parametrize("order", [1, -1])
def test_the_store_of_older_code_is_named(tmp_path: Path, order: int) -> None:
    old = written(tmp_path / "old.jsonl", [waiting(case("se", 5))])
    now = {PROVENANCE: provenance(case("se"))}
    new = written(tmp_path / "new.jsonl", [dataclasses.replace(timed(case("se", 6), 1.0), environment=now)])
    assert f"Run {old} again with --resume" in refusal(*(old, new)[::order], "--out", tmp_path / "out")


def test_a_killed_shard_is_told_to_be_run_again(tmp_path: Path) -> None:
    cases = [dataclasses.replace(case("se", size), device="cpu") for size in (5, 6, 7)]
    keys, cut = tuple(one.key for one in cases), {"of": 2, "shards": (1, 2, 2)}
    one = written(tmp_path / "a" / "1.jsonl", [timed(cases[0], 1.0)], keys, shard=1, **cut)
    two = written(tmp_path / "a" / "2.jsonl", [waiting(cases[1])], keys, shard=2, **cut)
    found = merge(one, two, "--format", "md,json")
    said = (
        "shard 2/2 is not complete: 1 of 2 cases have no record yet, 1 of 2 cases are counted and not measured yet: run it "
        "again with --resume."
    )
    assert said in found.stderr
    assert said in (tmp_path / "a" / "tiny.md").read_text()
    assert json.loads((tmp_path / "a" / "tiny.json").read_text())["missing"] == [said]
    assert found.return_value == 5
    alone = written(tmp_path / "b" / "tiny.jsonl", [waiting(case("se")), timed(case("eca"), 1.0)])
    assert "1 of 2 cases are counted and not measured yet." in merge(alone).stderr


def test_a_failure_is_an_answer_and_an_interrupted_case_none(tmp_path: Path) -> None:
    se, eca = case("se"), case("eca")
    killed = written(tmp_path / "killed.jsonl", [waiting(se)])
    through = written(tmp_path / "through.jsonl", [dataclasses.replace(waiting(se), status="crashed", detail="died")])
    most = written(tmp_path / "most.jsonl", [timed(eca, 1.0), waiting(se)])
    for number, stores in enumerate([(killed, through), (through, killed), (most, through)]):
        assert merge(*stores, "--out", tmp_path / str(number)).return_value == 5
        found = {one.case.label: one.status for one in store.load(tmp_path / str(number) / "tiny.jsonl").records.values()}
        assert found["se"] == "crashed", "on a tie, and where the rest of the block is from another store"


def test_stores_of_other_devices_are_refused(tmp_path: Path) -> None:
    here = written(tmp_path / "here.jsonl", [timed(case("se"), 1.0)])
    bare = written(tmp_path / "bare.jsonl", [record(case("se"))])
    said = refusal(here, bare)
    assert f"{here} was measured on cpu, {bare} traced only: " in said
    assert "Name one, or run both with the same --device." in said
    assert merge(here, "--out", tmp_path / "out").return_value == 0


def test_rows_of_different_code_in_one_store_are_said(tmp_path: Path) -> None:
    edited = {PROVENANCE: {"attnprof": "1", "source": "edited"}}
    rows = [timed(case("se", 5), 1.0), dataclasses.replace(waiting(case("se", 6)), environment=edited)]
    found = merge(written(tmp_path / "tiny.jsonl", rows))
    assert "warning: Rows of channel/se are from different code: the same `attnprof run` with --resume renews" in found.stderr
    assert "Rows of channel/se are from different code" in (tmp_path / "tiny.md").read_text()
