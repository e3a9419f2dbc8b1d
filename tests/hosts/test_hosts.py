"""The hosts: parameters of the public models, the papers' multiply-accumulates, and what their arguments change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnprof import hosts
from attnprof.errors import UsageError
from attnprof.hosts import resnet, vit
from attnprof.profiling.counting.trace import trace_case
from attnprof.records import ALONE, Case, Counts, Placement, Shape
from tests.makers import hosts_names

CLASSIFIER = 2048 * 1000 + 1000
STEM_7X7 = 7 * 7 * 3 * 64 + 2 * 64
DEEP_STEM = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128)
FIRST_BLOCK = (
    64 * 64 + 64 * 256
)  # how much more the first bottleneck's 1x1 and its shortcut take from 128 channels than from 64

PUBLIC = {  # torchvision's and timm's counts; those of fcn without the auxiliary classifier
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet50-caffe": 25_557_032,
    "resnet101-caffe": 44_549_160,
    "resnext50": 25_028_904,
    "mobilenetv2": 3_504_872,
    "vit-ti16": 5_717_416,
    "vit-s16": 22_050_664,
    "vit-b16": 86_567_656,
    "vit-l16": 304_326_632,
    "fcn-resnet50": 35_322_218 - (9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21),
    "fcn-resnet101": 54_314_346 - (9 * 1024 * 256 + 2 * 256 + 256 * 21 + 21),
    "head": 9 * 2048 * 512 + 2 * 512,
    "resnet50-d8": 25_557_032 - CLASSIFIER - STEM_7X7 + DEEP_STEM + FIRST_BLOCK,
    "resnet101-d8": 44_549_160 - CLASSIFIER - STEM_7X7 + DEEP_STEM + FIRST_BLOCK,
    "resnet101-d16": 44_549_160 - CLASSIFIER - STEM_7X7 + DEEP_STEM + FIRST_BLOCK,
}
MACS = {  # in billions at 224x224, as published
    "resnet18": "1.814",
    "resnet34": "3.664",
    "resnet50": "4.089",
    "resnet101": "7.801",
    "resnet152": "11.514",
    "resnet50-caffe": "3.858",
    "resnext50": "4.230",
    "mobilenetv2": "0.301",
    "vit-ti16": "1.254",
    "vit-b16": "17.564",
    "vit-l16": "61.555",
}


def counted(name: str, shape: Shape | None = None, mode: str = "inference", **args: object) -> Counts:
    return trace_case(Case(ALONE, name, {}, shape or hosts.describe(name).natural, mode=mode, host=Placement(name, args)))


def test_every_host_is_known_here() -> None:
    assert set(hosts.names()) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_parameters_are_the_public_models(name: str) -> None:
    found = counted(name)
    assert found.params == PUBLIC[name]
    assert hosts.load(name).params in (None, PUBLIC[name])
    assert not found.uncounted
    assert found.traced_by == "meta"


@pytest.mark.parametrize("name", MACS)
def test_multiply_accumulates_are_the_published(name: str) -> None:
    assert f"{counted(name, Shape(1, 3, 224, 224)).macs / 1e9:.3f}" == MACS[name]


DEEPER = {"resnet34", "resnet101", "resnet152", "resnet101-caffe", "resnet101-d8", "fcn-resnet101", "vit-b16", "vit-l16"}


@pytest.mark.parametrize("name", [name for name in hosts.names() if name not in DEEPER])  # the same code, more of it
def test_a_host_trains_on_data(name: str) -> None:
    channels = hosts.describe(name).natural.channels
    sides = (32, 64) if name.startswith("vit") else (9, 17) if name == "head" else (33, 65)  # a head stands at 1/8 of the image
    shape = Shape(2, channels, *sides)
    torch.manual_seed(0)
    network: nn.Module = hosts.build(name, shape, {}).train()
    out: Tensor = network(torch.randn(2, channels, shape.height, shape.width))
    out.square().mean().backward()
    assert out.isfinite().all()
    gradients = {label: part.grad for label, part in network.named_parameters()}
    lacking = [label for label, grad in gradients.items() if grad is None or not grad.sum().isfinite()]  # a NaN stays one
    assert not lacking


@pytest.mark.parametrize("name", hosts.names())
def test_the_usual_site_is_there(name: str) -> None:
    entry = hosts.describe(name)
    every = hosts_names.names_of(name)
    for glob in entry.sites.values():
        assert [label for label in every if hosts.matches(label, glob)], glob
    assert entry.site == next(iter(entry.sites))


def test_a_block_is_the_shortcut_plus_the_body() -> None:
    network = hosts.build("resnet18", Shape(1, 3, 32, 32), {}).eval()
    block = network.layer2[0]
    x = torch.randn(1, 64, 8, 8)
    assert torch.equal(block(x), (block.shortcut(x) + block.body(x)).relu())


def test_the_stride_stands_where_it_is_asked_for() -> None:
    for name, strides in (("resnet50", (1, 2, 1)), ("resnet50-caffe", (2, 1, 1))):
        body = hosts.build(name, Shape(1, 3, 32, 32), {}).layer2[0].body
        assert tuple(body.get_submodule(f"conv{i}").stride[0] for i in (1, 2, 3)) == strides


@pytest.mark.parametrize(("stride", "dilations"), [(32, (1, 1, 1, 1)), (16, (1, 1, 1, 2)), (8, (1, 1, 2, 4))])
def test_dilation_keeps_the_resolution(stride: int, dilations: tuple[int, ...]) -> None:
    network = resnet.build(50, output_stride=stride, classes=0).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 96)).shape == (1, 2048, 64 // stride, 96 // stride)
    for stage, dilation in enumerate(dilations, 1):
        convolutions = [part for name, part in network.named_modules() if hosts.matches(name, f"layer{stage}.*.body.conv2")]
        assert {part.dilation for part in convolutions if isinstance(part, nn.Conv2d)} == {(dilation, dilation)}


def test_dilation_changes_cost_and_not_parameters() -> None:
    plain, dilated = counted("resnet50"), counted("resnet50", output_stride=8)
    assert plain.params == dilated.params
    assert dilated.macs > 4 * plain.macs


def test_the_segmentation_network_answers_at_the_size_of_the_image() -> None:
    network = hosts.build("fcn-resnet50", Shape(1, 3, 65, 97), {}).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 3, 65, 97)).shape == (1, 21, 65, 97)


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    attention = vit.Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = (attention.qkv(x)[..., 12 * i : 12 * (i + 1)].unflatten(-1, (3, 4)).transpose(1, 2) for i in range(3))
    mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v  # sqrt(4)
    assert torch.allclose(attention(x), attention.out(mixed.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("resnet5", {}, "no host is called 'resnet5': did you mean 'resnet50'?"),
        ("net.py", {}, "write net.py:Class for a network in it"),
        ("resnet50", {"output_strid": 8}, "resnet50 has no argument 'output_strid': did you mean 'output_stride'?"),
        ("resnet50", {"depth": 18}, "resnet50 has depth=50 by its name"),
        ("head", {"nonsense": 1}, "head has no argument 'nonsense': it takes channels, width."),
    ],
)
def test_a_mistake_is_a_sentence(name: str, args: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        hosts.build(name, Shape(1, 3, 32, 32), args)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [({"output_stride": 4}, "8, 16 or 32"), ({"stride_in": "5x5"}, "'1x1' or '3x3'")],
)
def test_an_argument_out_of_range_is_refused(args: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hosts.build("resnet50", Shape(1, 3, 32, 32), args)
    with pytest.raises(ValueError, match="16x16 patches"):
        hosts.build("vit-b16", Shape(1, 3, 225, 224), {})


@pytest.mark.parametrize(
    ("name", "glob", "fits"),
    [
        ("layer1.0", "layer1.*", True),
        ("layer1.0.body", "layer1.*", False),
        ("layer1.0.body", "layer[1-4].*.body", True),
        ("layer3.22.body", "layer[1-4].*.body", True),
        ("layer1.0.body.conv2", "**.conv2", True),
        ("conv2", "**.conv2", True),
        ("layer1.0.body", "**", True),
        ("layer1", "layer1.**", True),
        ("layer1", "layer2", False),
        ("Layer1", "layer1", False),
        ("layer1.0.body.conv2", "layer1.**.conv?", True),
    ],
)
def test_a_glob_stays_between_dots(name: str, glob: str, fits: bool) -> None:
    assert hosts.matches(name, glob) is fits


def test_hosts_are_described_without_torch() -> None:
    code = (
        "import sys; from attnprof import hosts; [hosts.describe(n) for n in hosts.names()]; "
        "hosts.check_arguments('resnet50', {'output_stride': 8}); "
        "from attnprof.records import Placement; hosts.check_place(Placement('resnet50', {}, '**.conv2')); "
        "print('torch' in sys.modules)"
    )
    root = Path(hosts.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", hosts.names())
def test_the_names_of_submodules_are_those_of_the_network(name: str) -> None:
    assert list(hosts.submodules(name)) == hosts_names.names_of(name)


def test_the_file_of_names_is_current() -> None:
    assert hosts_names.FILE.read_text(encoding="utf-8") == hosts_names.text(), "make catalogue, and read the diff"


def test_a_place_in_a_host_with_arguments_is_left_to_its_building() -> None:
    hosts.check_place(Placement("resnet50", {"deep_stem": 64}, "stem.8"))
    with pytest.raises(UsageError, match=r"has no submodule 'stem\.8'"):
        hosts.check_place(Placement("resnet50", {}, "stem.8"))
