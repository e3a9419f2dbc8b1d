"""`host:` in a spec, `--host` in `compare`, and `sites`: what is read, what is refused, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnprof import plan, spec, store
from attnprof.errors import NothingSelectedError, SpecError, UsageError
from attnprof.execute.predict import Predictor, Rates, block_overhead_s, choose
from attnprof.records import ALONE, Case, Counts, Placement, Record, Shape, Timing
from attnprof.report import build, compare, csv, deltas, markdown
from attnprof.spec import Network
from tests.cli.test_cli import call  # noqa: F401  the fixture
from tests.command import Call, Done
from tests.hosts.test_placing import NETWORKS

GOOD = "input: {hw: 33x33}\nmechanisms: [se, eca]\n"
HOST = "host: {name: resnet18, at: body}\n"
TEN_LINES = """\
name: mine
input: {hw: 33x47}
mechanisms:
  - se
  - {name: ccnet, args: {recurrence: [1, 2]}}
host:
  import: own_networks.py:Net
  at: [first, second]
modes: inference
measure: {device: none}
"""


def only_problem(text: str) -> tuple[int, int, str, str]:
    with pytest.raises(SpecError) as caught:
        spec.parse_text(text, "bad.yaml")
    (problem,) = caught.value.problems
    return (problem.line, problem.column, problem.what, problem.hint)


def labels(text: str) -> list[str]:
    return list(dict.fromkeys(case.label for case in plan.expand(spec.parse_text(text, "x.yaml"), "none")))


# --- what is read


def test_a_host_gives_the_channels_and_the_baseline() -> None:
    parsed = spec.parse_text(GOOD + HOST, "x.yaml")
    assert parsed.hosts == (Network("resnet18", {}, ("body",), ("after",), 3),)
    assert parsed.inputs[0].channels == (3,)
    assert parsed.baseline == ALONE


def test_the_papers_site_is_the_default() -> None:
    for name, site in (("resnet18", "body"), ("fcn-resnet50", "slot"), ("vit-b16", "attention")):
        assert spec.parse_text(f"{GOOD}host: {{name: {name}}}\n", "x").hosts[0].at == (site,)
    assert spec.parse_text(f"{GOOD}host: {{name: head}}\n", "x").inputs[0].channels == (2048,)
    assert spec.parse_text(f"{GOOD}host: resnet18\n", "x") == spec.parse_text(
        f"{GOOD}host: {{name: resnet18, at: body}}\n", "x"
    )
    own = GOOD.replace("33x33", "33x33, channels: 5")
    assert spec.parse_text(own + HOST, "x").inputs[0].channels == (5,)


def test_the_network_alone_comes_first_in_every_block() -> None:
    text = (
        GOOD.replace("33x33", "[33x33, 65x65]")
        + "host: [{name: resnet18}, {name: resnet34, args: {stride_in: ['1x1', '3x3']}}]\n"
    )
    blocks = plan.blocks(plan.expand(spec.parse_text(text, "x"), "none"))
    assert len(blocks) == 2 * 2 * 3  # sizes, modes, networks
    for block in blocks:
        assert [case.alone for case in block] == [True, False, False]
        assert len({case.host.text for case in block if case.host}) == 1
    assert {block[0].label for block in blocks} == {"resnet18", "resnet34[stride_in=1x1]", "resnet34[stride_in=3x3]"}


def test_labels_name_what_varies() -> None:
    assert labels(GOOD + HOST) == ["resnet18", "se", "eca"]
    assert labels(GOOD + "host: {name: resnet18, at: [body, block]}\n")[1:3] == ["se[at=body]", "se[at=block]"]
    ratio = "input: {hw: 33x33}\nmechanisms: [{name: se, args: {reduction: [4, 8]}}]\n"
    found = labels(ratio + "host: {name: resnet18, how: [after, before]}\n")
    assert found[1:3] == ["se[reduction=4,how=after]", "se[reduction=4,how=before]"]
    two = "host: [{name: resnet18, at: body, how: [before, after]}, {name: resnet18, at: block}]\n"
    assert labels(GOOD + two)[:4] == ["resnet18", "se[at=body,how=before]", "se[at=body,how=after]", "se[at=block,how=after]"]


def test_a_chosen_mechanism_keeps_its_network() -> None:
    cases = plan.expand(spec.parse_text(GOOD + HOST, "x"), "none")
    assert [case.label for case in plan.select(cases, ["se"])] == ["resnet18", "se"] * 2
    assert [case.label for case in plan.select(cases, ["resnet18"])] == ["resnet18"] * 2
    with pytest.raises(NothingSelectedError):
        plan.select(cases, ["ccnet"])


def test_a_baseline_may_be_a_place() -> None:
    text = GOOD + "host: {name: resnet18, at: [body, block]}\n"
    assert spec.parse_text(text + "baseline: se[at=body]\n", "x").baseline == "se[at=body]"
    for alone in ("none", "resnet18"):
        assert spec.parse_text(f"{text}baseline: {alone}\n", "x").baseline == ALONE


def test_a_sweep_over_places_has_a_limit() -> None:
    many = "[" + ", ".join(f"a{i}" for i in range(60_000)) + "]"
    assert "hosts and their sites 60,000" in only_problem(f"{GOOD}host: {{name: resnet18, at: {many}}}\n")[2]


# --- what is refused, with its place


@pytest.mark.parametrize(
    ("line", "column", "what", "hint"),
    [
        ("host: {name: resnet19}", 14, "host.name: no host is called 'resnet19'", "did you mean 'resnet18'?"),
        ("host: {name: resnet18, att: body}", 24, "host: unknown key 'att'", "did you mean 'at'?"),
        ("host: {name: resnet18, how: befor}", 29, "host.how: 'befor' is no way to stand", "did you mean 'before'?"),
        ("host: {name: resnet18, at: [body, body]}", 35, "host.at.1: body stands twice on this axis", ""),
        ("host: {name: resnet18, at: blok}", 28, "host.at: resnet18 has no submodule 'blok'", "its sites are body, block,"),
        ("host: {name: resnet18, at: [body, conv2]}", 35, "host.at.1: resnet18 has no submodule 'conv2'", "'**.conv2' would"),
        ("host: {name: resnet18, at: '**'}", 28, "host.at: '**' matches stem and stem.0 inside it", "the mechanism would"),
        ("host: {name: resnet18, at: 3}", 28, "host.at: text is wanted, not 3", ""),
        ("host: {at: body}", 7, "host: give either `name:` (of a host) or `import:` (a network of your own)", ""),
        (
            "host: {name: resnet18, args: {output_strid: 8}}",
            31,
            "host.args: resnet18 has no argument 'output_strid'",
            "did you mean 'output_stride'?",
        ),
        (
            "host: {name: resnet18, args: {depth: 50}}",
            31,
            "host.args: resnet18 has depth=18 by its name",
            "choose another host",
        ),
        ("host: {name: resnet18, args: {classes: ten}}", 40, "host.args.classes: 'classes' of resnet18 is int, not 'ten'", ""),
        ("host: {import: net.py, at: x}", 16, "host.import: 'net.py' is no import path", "package.module:Net or ./file.py:Net"),
        ("host: {import: 'net.py:Net'}", 7, "host: where in it? The key 'at' is missing", "`attnprof sites net.py:Net` lists"),
        (
            "host: {name: 'net.py:Net'}",
            14,
            "host.name: 'net.py:Net' is no host",
            "for a network of your own write {import: ...}",
        ),
        ("host: [{name: resnet18}, {name: resnet18}]", 26, "host.1: this host stands twice", ""),
        ("host: {name: resnet18, hw: 65x65}", 24, "host: unknown key 'hw'", "the network's input stands under `input:`"),
        ("host: 18", 7, "host: a mapping of keys to values is wanted, not 18", ""),
        ("host: [resnet18, resnet19]", 18, "host.1: no host is called 'resnet19'", "did you mean 'resnet18'?"),
        (
            "host: {name: resnet18}\nbaseline: seq",
            11,
            "baseline: the baseline 'seq' is no label of this spec",
            "did you mean 'se'?",
        ),
        ("at: body", 1, "unknown key 'at'", "write it under `host:`"),
    ],
)
def test_a_mistake_in_a_host(line: str, column: int, what: str, hint: str) -> None:
    text = GOOD if line.startswith("host") else GOOD.replace("{hw", "{channels: 3, hw")
    found = only_problem(text + line + "\n")
    assert found[:2] == (3 + line.count("\n"), column)
    assert found[2].startswith(what)
    assert found[3].startswith(hint)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        (GOOD.replace("33x33", "33x33, frames: 8") + HOST, (1, 28), "input.frames: a host takes single images"),
        (
            GOOD.replace("[se", "[{name: se, input: {hw: 9}}") + HOST,
            (2, 25),
            "mechanisms.0: a mechanism in a host has no input",
        ),
        (GOOD, (1, 8), "input: the key 'channels' is missing"),
    ],
)
def test_what_does_not_go_with_a_host(text: str, place: tuple[int, int], what: str) -> None:
    found = only_problem(text)
    assert found[:2] == place
    assert found[2].startswith(what)


def test_a_network_of_ones_own_needs_leave(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEN_LINES)
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    parsed = spec.parse_file(tmp_path / "mine.yaml")
    assert parsed.hosts[0].host == f"{tmp_path}/own_networks.py:Net"
    with pytest.raises(UsageError, match=r"mine.yaml:7: 'own_networks.py:Net' .* pass --allow-import 'own_networks.py:Net'"):
        spec.check_import_permission(parsed, [])
    spec.check_import_permission(parsed, ["own_networks.py:*"])
    (tmp_path / "own_networks.py").unlink()
    with pytest.raises(UsageError, match=r"'own_networks.py:Net': there is no such file"):
        spec.parse_file(tmp_path / "mine.yaml")


# --- what is printed


def test_compare_prints_totals_and_deltas(call: Call) -> None:  # noqa: F811
    done = call(
        "compare", "se", "eca", "cbam", "--host", "resnet50", "--hw", "224x224", "--mode", "inference", "--device", "none"
    )
    assert (done.code, done.err) == (0, "")
    table = {line.split()[0]: line.split() for line in done.out.splitlines()[4:9] if line.strip()}
    assert table["resnet50"][1:] == ["25.6", "0", "4.09", "0", "8.24", "0", "9.95", "0"]
    assert table["se"][1:6] == ["28.1", "+2.515", "M", "4.09", "+2.515"]
    assert table["eca"][2] == "+86"
    assert "inside resnet50" in done.out
    assert "Placed after body of resnet50: se, eca, cbam." in done.out
    assert "cbam adds 2.533 M parameters to resnet50 (+9.9 %)" in done.out


def test_compare_has_deltas_in_json(call: Call) -> None:  # noqa: F811
    done = call("compare", "se", "--host", "resnet18", "--hw", "65x65", "--at", "block", "--device", "none", "--json")
    data = done.json
    assert [record["case"]["label"] for record in data["records"]] == ["resnet18", "se"] * 2
    assert data["records"][1]["case"]["host"] == {"host": "resnet18", "args": {}, "at": "block", "how": "after"}
    assert data["first"] == "resnet18"
    found = {(entry["metric"], entry["mode"]): entry for entry in data["deltas"]}
    params = found["params", "inference"]
    assert (params["alone"], params["with"], params["delta"]) == (11_689_512, 11_776_552, 87_040)
    assert params["ratio"] == pytest.approx(11_776_552 / 11_689_512)
    assert (params["network"], params["label"], params["at"], params["how"]) == ("resnet18", "se", "block", "after")
    assert found["latency", "training"]["delta"] is None
    assert "device none" in found["latency", "training"]["reason"]
    without = call("compare", "se", "eca", "--hw", "9x9", "--channels", "16", "--device", "none", "--json").json
    assert "deltas" not in without


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("se", "--host", "resnet5"), "no host is called 'resnet5': did you mean 'resnet50'?"),
        (("se", "--host", "resnet50[depth=3]"), "resnet50 has depth=50 by its name"),
        (("se", "--host", "resnet18", "--at", "blok"), "did you mean 'block'?"),
        (("se", "eca", "--at", "block"), "--at names a place in a network: give --host as well"),
        (("se", "--host", "resnet18", "--frames", "8"), "--frames 8: resnet18 takes single images"),
        (("se", "--host", "./own_networks.py:Net"), "there is no such file"),
        (("se",), "compare wants at least two mechanisms"),
    ],
)
def test_a_mistake_in_compare_is_a_sentence(call: Call, args: tuple[str, ...], words: str) -> None:  # noqa: F811
    done = call("compare", *args, "--hw", "33x33", "--device", "none")
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_what_cannot_stand_is_its_row(call: Call) -> None:  # noqa: F811
    done = call("compare", "se", "tam", "--host", "resnet18", "--hw", "33x33", "--device", "none", "--mode", "inference")
    assert done.code == 5
    assert "unsupported" in done.out
    assert "tam cannot stand after layer1.0.body of resnet18: it takes BTCHW" in " ".join(done.out.split())


def test_a_network_of_ones_own_from_a_spec_of_ten_lines(call: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "mine.yaml").write_text(TEN_LINES)
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    assert len(TEN_LINES.splitlines()) == 10
    done = call("run", "mine.yaml", "--allow-import", "own_networks.py:Net", "--out", "out", "--json", "-q")
    assert done.code == 0
    records = done.json["records"]
    assert [record["case"]["label"] for record in records][:3] == ["Net", "se[at=first]", "se[at=second]"]
    params = {record["case"]["label"]: record["counts"]["params"] for record in records}
    assert params["se[at=first]"] - params["Net"] == 2 * 8
    text = (tmp_path / "out" / "mine.md").read_text()
    assert "inside Net" in text
    assert "delta: value - value of the network alone." in text
    lines = (tmp_path / "out" / "mine.csv").read_text().splitlines()
    assert {"arg_at", "arg_how"} <= set(lines[0].split(","))
    again = call("run", "mine.yaml", "--allow-import", "own_networks.py:Net", "--out", "out", "--resume", "--json")
    assert "[trace" not in again.err
    (tmp_path / "own_networks.py").write_text(NETWORKS + "\n# changed\n")
    changed = call("run", "mine.yaml", "--allow-import", "own_networks.py:Net", "--out", "out", "--resume", "--json")
    assert changed.err.count("[trace") == 7
    assert store.load(tmp_path / "out" / "mine.jsonl").runs[-1].baseline == ALONE


def test_a_network_of_ones_own_on_the_command_line(call: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    done = call(
        *("compare", "se", "./own_networks.py:Halves", "--host", "./own_networks.py:Net[classes=3]", "--at", "first"),
        *("--how", "before", "--hw", "33x47", "--device", "none", "--json", "-q"),
    )
    assert done.code == 0
    params = {record["case"]["label"]: record["counts"]["params"] for record in done.json["records"]}
    alone = 3 * 8 * 9 + 8 + 8 * 16 * 9 + 16 + 1 + 1 + 16 * 16 + 16 + 16 * 3 + 3
    assert params == {"Net[classes=3]": alone, "se": alone + 6, "Halves": alone + 12}


def sites(done: Done) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in done.json["submodules"]}


def test_sites_lists_where(call: Call, tmp_path: Path) -> None:  # noqa: F811
    text = call("sites", "resnet18[output_stride=8]", "--hw", "65x65").out
    assert "layer[1-4].*.body" in text
    done = call("sites", "resnet18[output_stride=8]", "--hw", "65x65", "--json")
    assert sites(done)["layer4"] == {
        "name": "layer4",
        "type": "Sequential",
        "runs": 1,
        "input": [1, 256, 9, 9],
        "output": [1, 512, 9, 9],
        "outputs": [[1, 512, 9, 9]],
    }
    assert {"site": "body", "glob": "layer[1-4].*.body", "matches": 8} in done.json["sites"]
    only = call("sites", "resnet18", "--match", "**.conv2", "--json")
    assert len(sites(only)) == 8
    assert len(sites(call("sites", "resnet18", "--match", "block", "--json"))) == 8
    assert call("sites", "resnet18", "--match", "nothing").code == 3
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    own = sites(call("sites", "own_networks.py:Net", "--hw", "33x47", "--json"))
    assert own["twice"]["runs"] == 2
    assert own["twice"]["outputs"] == [[1, 8, 33, 47], [1, 16, 17, 24]]
    assert "1x8x33x47, 1x16x17x24" in " ".join(call("sites", "own_networks.py:Net", "--hw", "33x47").out.split())
    assert own["idle"] == {"name": "idle", "type": "Conv2d", "runs": 0, "input": None, "output": None, "outputs": []}
    assert own["pair"]["output"] is None
    assert "no single tensor" in call("sites", "own_networks.py:Net", "--hw", "33x47").out
    assert [each["name"] for each in json.loads(call("sites", "--json").out)["hosts"]][-1] == "vit-l16"
    assert "mobilenetv2" in call("sites").out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("resnet19",), 2, "did you mean 'resnet18'?"),
        (("resnet18[depth=4]",), 2, "by its name"),
        (("own_networks.py:Nets",), 5, "Did you mean 'Net'?"),
        (("other.py:Net",), 2, "there is no such file"),
        (("own_networks.py:Net", "--channels", "4"), 5, "Net"),
        (("vit-b16", "--hw", "33x33"), 5, "16x16 patches"),
    ],
)
def test_a_mistake_in_sites_is_a_sentence(call: Call, tmp_path: Path, args: tuple[str, ...], code: int, words: str) -> None:  # noqa: F811
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    done = call("sites", *args)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "internal" not in done.err


def test_explain_takes_a_network(call: Call, tmp_path: Path) -> None:  # noqa: F811
    asked = ("--hw", "64x64", "--mode", "inference", "--json")
    (alone,) = call("explain", "--host", "resnet18", *asked).json["records"]
    (placed,) = call("explain", "se[reduction=4]", "--host", "resnet18", "--how", "before", *asked).json["records"]
    assert alone["counts"]["params"] == 11_689_512
    assert (alone["case"]["label"], placed["case"]["label"]) == ("resnet18", "se[reduction=4,at=body,how=before]")
    inputs = (64, 64, 64, 128, 128, 256, 256, 512)  # channels before each body
    assert placed["counts"]["params"] - alone["counts"]["params"] == sum(2 * c * c // 4 for c in inputs)
    assert placed["counts"]["macs"] - alone["counts"]["macs"] == sum(2 * c * c // 4 for c in inputs)
    text = call("explain", "se", "--host", "resnet18", "--hw", "64x64", "--mode", "inference").out
    assert text.startswith("se[at=body]: 64x64, 3 channels")
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    (own,) = call("explain", "se", "--host", "own_networks.py:Net", "--at", "first", *asked).json["records"]
    assert own["case"]["host"] == {"host": "own_networks.py:Net", "args": {}, "at": "first", "how": "after"}


def test_a_place_that_ones_own_network_does_not_have_is_said_before_anything_is_counted(call: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    for command in (("compare", "se"), ("explain", "se")):
        done = call(*command, "--host", "own_networks.py:Net", "--at", "frist", "--hw", "16x16")
        assert (done.code, done.out) == (2, "")
        assert "Net has no submodule 'frist': did you mean 'first'?" in done.err
    (tmp_path / "own.yaml").write_text(
        "input: {hw: 16x16}\nmechanisms: [se]\nhost:\n  import: own_networks.py:Net\n"
        "  at: [first, secnd]\nmeasure: {device: none}\n"
    )
    done = call("run", "own.yaml", "--allow-import", "own_networks.py:Net")
    assert done.code == 2
    assert "own.yaml:4: Net has no submodule 'secnd': did you mean 'second'?" in done.err
    (alone,) = call("explain", "--host", "own_networks.py:Net", "--hw", "16x16", "--mode", "inference", "--json").json[
        "records"
    ]
    assert alone["case"]["host"]["at"] == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "explain wants a mechanism, or a network"),
        (("se", "--at", "body"), "give --host as well"),
        (("se", "--host", "resnet18", "--at", "blok"), "did you mean 'block'?"),
        (("se", "--host", "resnet18", "--frames", "4"), "takes single images"),
    ],
)
def test_a_mistake_in_explain_is_a_sentence(call: Call, args: tuple[str, ...], words: str) -> None:  # noqa: F811
    done = call("explain", *args, "--hw", "64x64")
    assert (done.code, done.out) == (2, "")
    assert words in done.err


# --- tables and sentences, from records


def made(mechanism: str, params: int, latency: list[float] | None = None, at: str = "body", device: str = "none") -> Record:
    label = "net" if mechanism == ALONE else f"{mechanism}[at={at}]"
    place = Placement("./n.py:net", {}, "" if mechanism == ALONE else at)
    case = Case(mechanism, label, {}, Shape(1, 3, 8, 8), device=device, host=place)
    timing = None if latency is None else Timing(tuple(latency), tuple(range(len(latency))), "block", stopped_by="interval")
    return Record(case, counts=Counts(params, 7 * params, 20 * params, 9, 9, 9, 4096, 4096), timing=timing)


ALONE_RECORD = made(ALONE, 1000)


def test_what_is_placed_is_ranked_and_the_network_is_not() -> None:
    report = build([ALONE_RECORD, made("se", 1010), made("eca", 1003), made("pam", 1500)], baseline=ALONE)
    column = next(i for i, column in enumerate(report.tables[0].columns) if column.key == "params")
    assert [row.cells[column].rank for row in report.tables[0].rows] == [0, 2, 1, 0]
    text = markdown.render(report)
    assert "| net " in text
    assert "+500" in text
    assert "1.50" in text


def test_csv_says_where_each_stands() -> None:
    rows = csv.render(build([ALONE_RECORD, made("se", 1010)], baseline=ALONE)).splitlines()
    heads = rows[0].split(",")
    values = [dict(zip(heads, row.split(","), strict=False)) for row in rows[1:]]
    placed = next(row for row in values if row["mechanism"] == "se" and row["metric"] == "params")
    assert (placed["host"], placed["baseline"], placed["delta"], placed["ratio"]) == ("net", "none", "10", "1.01")
    assert rows[0].endswith(",arg_at,arg_how")
    assert next(row for row in rows if ",se," in row).endswith(",body,after")
    assert next(row for row in rows if ",net," in row).endswith(",n/a,n/a")


def said(*records: Record, metrics: tuple[str, ...] = ("params", "latency")) -> tuple[str, ...]:
    return deltas.sentences(deltas.deltas_of(records, metrics))


def test_sentences_say_what_is_added() -> None:
    metrics = ("params", "peak_memory")
    assert said(ALONE_RECORD, made("se", 1100), metrics=metrics) == (
        "se[at=body] adds 100 parameters to net (+10.0 %)",
        "se[at=body] does not change the peak memory of net",
    )
    assert said(ALONE_RECORD, made("se", 900), metrics=metrics)[0] == "se[at=body] takes 100 parameters from net (-10.0 %)"
    assert said(ALONE_RECORD, made("se", 1001), metrics=metrics)[0] == "se[at=body] adds 1 parameters to net (+0.1 %)"


def test_sentences_on_time_come_from_pairs_alone() -> None:
    base = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01]
    alone = made(ALONE, 1000, base, device="cpu")
    slower = made("se", 1000, [1.2 * value for value in base], device="cpu")
    assert said(alone, slower, metrics=("latency",))[0].startswith(
        "the latency of net with se[at=body] is 1.200x that without (95"
    )
    same = made("se", 1000, [value + 0.001 * (-1) ** i for i, value in enumerate(base)], device="cpu")
    assert "could not be told" in said(alone, same, metrics=("latency",))[0]
    few = made("se", 1000, [1.2 * value for value in base[:3]], device="cpu")
    assert (
        said(alone, few, metrics=("latency",))[0]
        == "the latency of net with se[at=body] is 1.200x that without (n=3 pairs, no interval)"
    )
    untimed = made("se", 1000, device="cpu")
    assert said(alone, untimed, metrics=("latency",))[0].startswith("latency of net with se[at=body]: not measured")
    failed = Record(untimed.case, status="unsupported", detail="it does not fit")
    assert said(alone, failed)[0] == "se[at=body] has no numbers: unsupported: it does not fit"
    assert said(ALONE_RECORD, made("se", 1000))[1] == "latency: not measured (device none)"


def test_a_comparison_with_a_host_holds_the_network_against_each() -> None:
    records = [ALONE_RECORD, made("se", 1100)]
    compared = compare.comparison(records, "net", ("params",))
    assert compared.sentences == ("se[at=body] adds 100 parameters to net (+10.0 %)",)
    data = compare.data(compared)
    assert data["ratios"][0]["value"] == pytest.approx(1000 / 1100)
    (delta,) = data["deltas"]
    assert (delta["alone"], delta["with"], delta["delta"], delta["covers"]) == (1000, 1100, 100, "exact")


def test_a_network_is_timed_beside_what_is_placed_in_it(call: Call, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    done = call(
        *("compare", "se", "--host", "./own_networks.py:Net", "--at", "first", "--hw", "16x16", "--device", "cpu"),
        *("--budget", "0.2", "--mode", "inference", "--json", "-q"),
    )
    assert done.code == 0
    latency = next(entry for entry in done.json["deltas"] if entry["metric"] == "latency")
    assert latency["reason"] == ""
    assert latency["ratio"] > 0
    assert latency["delta"] is not None


def test_the_network_alone_is_timed_first() -> None:
    """Every ratio needs it: where the time suffices for one case, it is this one, though others cost less."""
    records = [made("se", 10, device="cpu"), made(ALONE, 1000, device="cpu"), made("eca", 10, at="stage", device="cpu")]
    predictor = Predictor({"float32": Rates(1e3, 1e9, 1e-6)}, free_bytes=2**30)
    enough = predictor.cell_s(records[1], 1) + block_overhead_s(1) + 1e-9
    assert predictor.cell_s(records[0], 1) < predictor.cell_s(records[1], 1)
    assert choose([records], predictor, 1, enough, first=ALONE) == [[records[1]]]
