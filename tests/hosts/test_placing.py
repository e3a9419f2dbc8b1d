"""Mechanisms placed in networks: the numbers, the values, every way to stand, and what is refused with its site."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnprof import mechanisms
from attnprof.errors import UsageError
from attnprof.profiling import placing
from attnprof.profiling.counting.trace import count_real, trace_case
from attnprof.profiling.loading import load
from attnprof.profiling.measuring import prepare
from attnprof.profiling.placing import UnplaceableError
from attnprof.profiling.provenance import source_hash
from attnprof.records import ALONE, HOW, Case, Counts, Placement, Record, Shape, case_from_json, record_from_json, to_json
from tests.catalogue import NAMES

IMAGE = Shape(1, 3, 224, 224)
SMALL = Shape(2, 3, 33, 47)

NETWORKS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Reads attributes of its own submodules, and reaches one of them through a list as well."""

    def __init__(self, classes=10):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.twice = nn.ReLU()
        self.idle = nn.Conv2d(1, 1, 1)
        self.pair = Pair()
        self.listed = nn.Conv2d(16, 16, 1)
        self.ways = [self.listed]
        self.last = nn.Linear(16, classes)

    def forward(self, x):
        assert self.first.weight.shape[0] == self.first.out_channels == 8
        x = self.twice(self.first(x))
        x = self.pair(self.twice(self.second(x)))[0]
        return self.last(self.ways[0](x).mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Tied(nn.Module):
    """One convolution under two names, which runs under the second."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 3, 1)
        self.other = self.one

    def forward(self, x):
        return self.other(x)


class Asks(nn.Module):
    """Needs values."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.first(x)
        return y[y > 0].sum() + (1 if y.mean().item() > 1e9 else 0)


class Normed(nn.Module):
    """Does not run on a single image while it trains."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        return self.norm(self.first(x).mean((2, 3)))


class Halves(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, stride=2)

    def forward(self, x):
        return self.conv(x)


class Steps(nn.Module):
    """Strides itself where it is told to."""

    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 1, stride=stride)

    def forward(self, x):
        return self.conv(x)


class Stumbles(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv, self.stride = nn.Conv2d(channels, 2 * channels, 1), stride

    def forward(self, x):
        if self.stride > 1:
            raise ValueError("not that far")
        return self.conv(x)


class Wrong(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


class Both(nn.Module):
    def forward(self, x):
        return x, x


built = Net()
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("own") / "own_networks.py"
    file.write_text(NETWORKS)
    return file


def case(mechanism: str, host: str, at: str = "", how: str = "after", shape: Shape = IMAGE, mode: str = "inference") -> Case:
    name = mechanism if ":" in mechanism or mechanism == ALONE else mechanisms.resolve(mechanism)
    return Case(name, mechanism, {}, shape, mode=mode, host=Placement(host, {}, at, how))


def counted(mechanism: str, host: str, at: str = "", how: str = "after", shape: Shape = IMAGE) -> Counts:
    return trace_case(case(mechanism, host, at, how, shape))


def built(asked: Case) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = mechanisms.build(load(asked), asked.shape, asked.args)
    return module.eval()


@pytest.mark.parametrize(
    ("mechanism", "params", "macs"),
    [
        (ALONE, 25_557_032, "3.8580"),
        ("se", 28_071_976, "3.8605"),
        ("eca", 25_557_118, "3.8581"),
        ("cbam", 28_089_624, "3.8644"),
    ],
)
def test_the_papers_totals(mechanism: str, params: int, macs: str) -> None:
    """SENet section 6.4 and table 2, ECA-Net table 3, CBAM table 4: stride in the first 1x1."""
    found = counted(mechanism, "resnet50-caffe", "" if mechanism == ALONE else "body")
    assert (found.params, f"{found.macs / 1e9:.4f}") == (params, macs)


@pytest.mark.parametrize(
    ("mechanism", "host", "at", "params", "macs"),
    [
        ("bam", "resnet50-caffe", "layer[1-3]", "25.915", "3.9401"),
        ("srm", "resnet50-caffe", "body", "25.617", "3.8580"),
        ("gcnet", "resnet50", "layer[2-4].*.body", "28.079", "4.0979"),
        ("triplet", "resnet50", "body", "25.562", "4.1355"),
        ("bam", "resnext50", "layer[1-3]", "25.387", "4.3126"),
        ("eca", "resnet152", "body", "60.193", "11.5139"),
    ],
)
def test_more_totals_of_papers(mechanism: str, host: str, at: str, params: str, macs: str) -> None:
    """BAM: 25.92 M, 3.94 G, in ResNeXt-50 25.4 M, 4.31 G; SRM 25.62 M; GCNet, c3 to c5, 28.08 M; triplet 25.56 M."""
    found = counted(mechanism, host, at)
    assert (f"{found.params / 1e6:.3f}", f"{found.macs / 1e9:.4f}") == (params, macs)


GROUPED = {"groups": 32, "group_width": 4}  # SKNet's blocks are those of ResNeXt 32x4d


@pytest.mark.parametrize(
    ("mechanism", "host", "args", "params", "macs"),
    [
        ("sknet", "resnet50", GROUPED, 27_479_784, 4_462_710_784),
        ("sknet", "resnet101", GROUPED, 48_736_040, 8_448_675_840 + 4 * 3 * 256 * 16),
        ("scnet", "resnet50", {}, 25_564_584, 3_925_286_912),
        ("scnet", "resnet101", {}, 44_565_416, 7_168_745_472),
    ],
)
def test_totals_of_papers_whose_units_stride(mechanism: str, host: str, args: dict[str, int], params: int, macs: int) -> None:
    """SKNet-50 27.5 M, 4.47 G, -101 48.9 M, 8.46 G: the layers of sknet50.prototxt and sknet101.prototxt, added up; in the
    second d is 16 in the four units of 256 channels, where max(C/r, L) is 32. SCNet-50 25.56 M, 4.0 G, -101 44.57 M, 7.2 G: the
    layers of scnet.py, added up. Here the host's BN stands behind the unit's own: two parameters more per channel.
    """
    found = trace_case(replace(case(mechanism, host), host=Placement(host, args, "conv3x3", "instead")))
    blocks, width = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}[host], 128 if args else 64
    twice = sum(2 * width * 2**stage * count for stage, count in enumerate(blocks))
    assert (found.params, found.macs) == (params + twice, macs)


def test_what_is_added_is_the_sum_over_the_sites() -> None:
    widths = [64] * 2 + [128] * 2 + [256] * 2 + [512] * 2
    alone, placed = counted(ALONE, "resnet18"), counted("se", "resnet18", "body")
    se = mechanisms.load("se")
    assert se.params is not None
    assert se.macs is not None
    assert placed.params - alone.params == sum(se.params(width) for width in widths)
    assert placed.macs - alone.macs == sum(se.macs(Shape(1, width, 1, 1)) for width in widths)


WHERE = [
    ("cbam", "resnet18", "body", "after"),
    ("mhsa", "resnet18", "layer4.1", "around"),
    ("sknet", "resnext50", "layer[12].*.body.conv2", "instead"),
]


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize(("mechanism", "host", "at", "how"), WHERE)
def test_a_traced_network_equals_a_real_run(mechanism: str, host: str, at: str, how: str, mode: str) -> None:
    asked = replace(case(mechanism, host, at, how, SMALL, mode), settings={"target": "cpu"})
    traced = trace_case(asked)
    inputs = [torch.randn(2, 3, 33, 47)]
    real = count_real(built(asked).train(mode == "training"), inputs, mode)
    assert (traced.params, traced.macs, traced.flops) == (real.params, real.macs, real.flops)
    assert (traced.peak_bytes, traced.activation_bytes) == (real.peak_bytes, real.activation_bytes)


WAYS: dict[str, Callable[[nn.Module, nn.Module, Tensor], Tensor]] = {
    "after": lambda inner, mechanism, x: mechanism(inner(x)),
    "before": lambda inner, mechanism, x: inner(mechanism(x)),
    "around": lambda inner, mechanism, x: inner(x) + mechanism(x),
    "instead": lambda inner, mechanism, x: mechanism(x),
}


@pytest.mark.parametrize("how", HOW)
def test_every_way_to_stand(how: str) -> None:
    network = built(case("se", "resnet18", "layer2.1.body", how, SMALL))
    plain = built(case(ALONE, "resnet18", shape=SMALL))
    placed = network.get_submodule("layer2.1.body")
    mechanism = placed if how == "instead" else placed.get_submodule("mechanism")
    inner = plain.get_submodule("layer2.1.body")
    if how != "instead":
        inner.load_state_dict(placed.get_submodule("inner").state_dict())
    x = torch.randn(2, 128, 5, 6)
    assert torch.equal(placed(x), WAYS[how](inner, mechanism, x))
    assert not torch.equal(placed(x), inner(x))


def test_before_the_addition_or_after_it() -> None:
    x = torch.randn(2, 64, 9, 9)
    for at in ("body", "block"):
        block = built(case("se", "resnet18", at, shape=SMALL)).get_submodule("layer1.0")
        gate = block.get_submodule("body.mechanism" if at == "body" else "mechanism")
        inner = block if at == "body" else block.get_submodule("inner")
        body = inner.get_submodule("body.inner" if at == "body" else "body")
        wanted = (x + gate(body(x))).relu() if at == "body" else gate((x + body(x)).relu())
        assert torch.allclose(block(x), wanted)


def test_tokens_at_a_map_are_laid_out_row_by_row() -> None:
    placed = built(case("mhsa", "resnet18", "layer4", shape=SMALL)).get_submodule("layer4.mechanism")
    x = torch.randn(2, 512, 2, 3)
    tokens = x.permute(0, 2, 3, 1).reshape(2, 6, 512)
    wanted = placed.get_submodule("mechanism")(tokens).reshape(2, 2, 3, 512).permute(0, 3, 1, 2)
    assert torch.allclose(placed(x), wanted)


def test_tokens_at_tokens_take_attentions_place() -> None:
    alone, placed = counted(ALONE, "vit-ti16"), counted("mhsa", "vit-ti16", "attention", "instead")
    assert (alone.params, alone.macs) == (placed.params, placed.macs)  # it is the same function


def test_in_place_of_a_strided_convolution_the_mechanism_is_pooled() -> None:
    network = built(case("mhsa", "resnet50", "layer4.*.body.conv2", "instead", SMALL))
    strided, plain = (network.get_submodule(f"layer4.{i}.body.conv2") for i in (0, 1))
    assert strided(torch.randn(2, 512, 3, 3)).shape == (2, 512, 2, 2)
    assert plain(torch.randn(2, 512, 2, 2)).shape == (2, 512, 2, 2)


STRIDING = [name for name in NAMES if any(each.name == "stride" for each in mechanisms.describe(name).arguments)]
STAYING = ["channel/gsop"]  # a stride inside, and the resolution of its input


@pytest.mark.parametrize("name", STRIDING)
def test_in_place_of_a_strided_convolution_a_mechanism_that_can_stride_does(name: str) -> None:
    asked = case(name, "resnet50", "layer2.*.body.conv2", "instead", SMALL)
    network, x = built(asked), torch.randn(2, 128, 9, 12)
    strided, plain = (network.get_submodule(f"layer2.{i}.body.conv2") for i in (0, 1))
    assert isinstance(strided, placing.Pooled) == (name in STAYING)
    assert (strided(x).shape, plain(x).shape) == ((2, 128, 5, 6), (2, 128, 9, 12))
    if name not in STAYING:
        mechanism = mechanisms.load(name)
        twin = mechanisms.build(mechanism, Shape(2, 128, 9, 12), {"stride": 2}).eval()
        twin.load_state_dict(strided.state_dict())
        assert torch.equal(strided(x), twin(x))
    pooled = built(replace(asked, args={"stride": 1})).get_submodule("layer2.0.body.conv2")
    assert isinstance(pooled, placing.Pooled)  # as it is told to
    assert pooled(x).shape == (2, 128, 5, 6)


def test_a_unit_of_ones_own_that_can_stride_does(own: Path) -> None:
    network = built(case(f"{own}:Steps", f"{own}:Net", "second", "instead", SMALL))
    assert type(network.get_submodule("second")).__name__ == "Steps"
    assert network.get_submodule("second")(torch.randn(2, 8, 33, 47)).shape == (2, 16, 17, 24)
    with pytest.raises(UnplaceableError, match="Stumbles cannot stand instead of second of Net: ValueError: not that far"):
        counted(f"{own}:Stumbles", f"{own}:Net", "second", "instead", shape=SMALL)
    asked = case(f"{own}:Stumbles", f"{own}:Net", "second", "instead", SMALL)
    assert isinstance(built(replace(asked, args={"stride": 1})).get_submodule("second"), placing.Pooled)


def test_the_same_weights_every_time() -> None:
    """The pass that finds the sizes draws nothing and leaves the batch statistics alone."""
    first, second = (built(case("se", "resnet18", "body", shape=SMALL)) for _ in range(2))
    for (name, one), (_, other) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert int(first.get_submodule("stem.1").num_batches_tracked) == 0  # type: ignore[arg-type]


def test_a_network_of_ones_own(own: Path) -> None:
    alone, placed = counted(ALONE, f"{own}:Net", shape=SMALL), counted("se", f"{own}:Net", "first", shape=SMALL)
    assert placed.params - alone.params == 2 * 8 * 1  # 8 channels, one hidden
    assert placed.macs - alone.macs == 2 * 2 * 8
    assert counted("se", f"{own}:built", "first", shape=SMALL).params == placed.params
    assert counted(f"{own}:Halves", f"{own}:Net", "first", "before", shape=SMALL).params == alone.params + 3 * 3 + 3
    for at in ("one", "other", "*"):
        tied = built(case("se", f"{own}:Tied", at, shape=SMALL))
        assert isinstance(tied.get_submodule("one"), placing.Placed)
        assert tied.get_submodule("one") is tied.get_submodule("other")


def test_a_placed_submodule_answers_for_itself_and_is_copied_whole(own: Path) -> None:
    network = built(case("se", f"{own}:Net", "first", shape=SMALL))
    placed: Any = network.get_submodule("first")
    assert placed.out_channels == 8
    assert placed.weight is placed.inner.weight
    with pytest.raises(AttributeError, match="nothing"):
        placed.nothing  # noqa: B018
    twin, x = copy.deepcopy(network), torch.randn(2, 3, 33, 47)
    assert type(twin.get_submodule("first")) is type(placed)
    assert torch.equal(twin(x), network(x))


class Singleton(nn.Identity):
    """Is never copied."""

    def __deepcopy__(self, memo: object) -> Singleton:
        return self


def test_what_python_asks_an_object_is_not_the_submodules_to_answer() -> None:
    placed = placing.Placed(Singleton(), nn.ReLU(), "after")
    twin = copy.deepcopy(placed)
    assert type(twin) is placing.Placed
    assert twin.inner is placed.inner


def test_sizes_are_found_in_evaluation(own: Path) -> None:
    single = Shape(1, 3, 33, 47)
    assert counted("se", f"{own}:Normed", "first", shape=single).params == 3 * 8 * 9 + 8 + 16 + 16


def test_a_network_that_asks_for_values_is_run_on_some(own: Path) -> None:
    found = counted("se", f"{own}:Asks", "first", shape=SMALL)
    assert found.traced_by == "real"
    assert found.params == 3 * 8 * 9 + 8 + 16


REFUSED = [
    ("se", "{own}:Net", "twice", "after", "se cannot stand after twice of Net: it runs 2 times in a forward pass"),
    ("se", "{own}:Net", "idle", "after", "idle of Net: it does not run in a forward pass"),
    ("se", "{own}:Net", "pair", "after", "pair of Net: it does not return a single tensor"),
    ("se", "{own}:Net", "listed", "after", "listed of Net: the network does not reach the submodule by its name"),
    ("se", "{own}:Net", "last", "after", "the tensor there is 2x10, neither a map (B C H W) nor tokens (B N C)"),
    (
        "{own}:Halves",
        "{own}:Net",
        "second",
        "instead",
        "Halves cannot stand instead of second of Net: it returns 2x8x17x24, and 2x16x17x24 is",
    ),
    ("{own}:Wrong", "{own}:Net", "first", "after", "Wrong cannot stand after first of Net: ValueError: not today"),
    ("{own}:Both", "{own}:Net", "first", "after", "it does not return a single tensor"),
    ("se", "resnet18", "layer2.0.body", "around", "se cannot stand around layer2.0.body of resnet18: it returns 2x64x9x12"),
    ("se", "vit-ti16", "attention", "after", "it takes BCHW, and the tensor there is 2x7x192"),
    ("tam", "resnet18", "body", "after", "it takes BTCHW, and the tensor there is 2x64x9x12"),
]


@pytest.mark.parametrize(("mechanism", "host", "at", "how", "words"), REFUSED)
def test_what_cannot_stand_is_said_with_its_site(own: Path, mechanism: str, host: str, at: str, how: str, words: str) -> None:
    shape = Shape(2, 3, 32, 48) if host.startswith("vit") else SMALL
    with pytest.raises(UnplaceableError) as caught:
        counted(mechanism.format(own=own), host.format(own=own), at, how, shape=shape)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("at", "how", "words"),
    [
        ("blok", "after", "resnet18 has no submodule 'blok': its sites are body, block, stage"),
        ("blok", "after", "did you mean 'block'?"),
        ("conv2", "after", "'**.conv2' would match 8"),
        ("layer?.**", "after", "matches layer1 and layer1.0 inside it: the mechanism would stand there twice"),
        ("body", "beside", "'beside' is no way to place a mechanism: after, before, instead, around"),
    ],
)
def test_a_wrong_place_is_a_usage_error(at: str, how: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        counted("se", "resnet18", at, how, shape=SMALL)
    assert words in str(caught.value)


REASONS = ("it takes ", "it does not return a single tensor", "is wanted there")


@pytest.mark.parametrize("name", NAMES)
def test_every_mechanism_of_the_catalogue_stands_or_says_why_not(name: str) -> None:
    asked = case(name, "resnet18", "layer3.0", shape=Shape(2, 3, 64, 96))
    mechanism, inner = mechanisms.load(name), Shape(2, 256, 4, 6)
    specs = mechanisms.input_specs(mechanism, inner, {})
    plain = mechanism.layout in ("BCHW", "BNC") and len(specs) == 1
    refused = ""
    try:
        counts = trace_case(asked)
    except UnplaceableError as error:
        refused = str(error)
    if refused:
        assert any(reason in refused for reason in REASONS)
        assert not plain or "it takes" not in refused
    else:
        assert plain
        assert (counts.uncounted, counts.traced_by) == ({}, "meta")
        assert mechanism.params is not None
        assert counts.params == 11_689_512 + mechanism.params(256, **mechanisms.complete_args(mechanism, inner, {}))


def test_mechanisms_with_several_inputs_are_refused() -> None:
    several = next(
        name
        for family, members in mechanisms.names().items()
        for name in members
        if (one := mechanisms.load(f"{family}/{name}")).layout == "BCHW"
        and one.inputs is not None
        and len(mechanisms.input_specs(one, Shape(1, 64, 8, 8), {})) > 1
    )
    with pytest.raises(UnplaceableError, match=f"{several} cannot stand after .* it takes . inputs of its own"):
        counted(several, "resnet18", "layer1.0", shape=SMALL)


def test_a_visit_says_what_a_submodule_is_given_and_returns() -> None:
    found = {visit.name: visit for visit in placing.visits_of(case(ALONE, "resnet18", shape=SMALL)).visits}
    assert (found["layer2"].given, found["layer2"].returned, found["layer2"].runs) == ((2, 64, 9, 12), (2, 128, 5, 6), 1)
    assert found["layer1.0.body.conv1"].kind == "Conv2d"


# --- nouns


def test_a_case_with_a_host_comes_back_from_json() -> None:
    asked = replace(case("se", "resnet50", "body"), args={"reduction": 4})
    assert case_from_json(to_json(asked)) == asked
    assert record_from_json(to_json(Record(asked))).case == asked
    assert asked.key != replace(asked, host=None).key != case("se", "resnet50", "block").key


def test_the_key_of_a_case_without_a_host_is_what_it_was() -> None:
    plain = Case("channel/se", "se", {}, Shape(1, 64, 33, 33), settings={"sdpa": "auto"})
    assert plain.key == "3d6300e8e3b7dcefc6b6"


def test_places_share_a_block_and_networks_do_not() -> None:
    alone, body, block = case(ALONE, "resnet50"), case("se", "resnet50", "body"), case("se", "resnet50", "block")
    assert alone.block == body.block == block.block
    assert alone.block != case(ALONE, "resnet18").block
    assert alone.block != replace(alone, host=Placement("resnet50", {"output_stride": 8})).block
    assert {alone.block: 1}


def test_the_source_of_a_case_is_its_host_as_well(own: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.py"
    copy.write_text(NETWORKS)
    before = source_hash("channel/se", f"{copy}:Net")
    assert len({source_hash("channel/se"), source_hash("channel/se", "resnet50"), source_hash(ALONE, "resnet50"), before}) == 4
    copy.write_text(NETWORKS + "\n")
    assert source_hash("channel/se", f"{copy}:Net") != before


# --- measured


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_a_network_is_made_ready_to_be_timed(mode: str) -> None:
    asked = replace(case("se", "resnet18", "body", shape=SMALL, mode=mode), device="cpu")
    ready = prepare.prepare(asked, seed=0)
    with prepare.conditions(asked):
        assert prepare.first_pass(ready)[1] == ""
    assert sum(parameter.numel() for parameter in ready.module.parameters()) == 11_689_512 + 87_040
