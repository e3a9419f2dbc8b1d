"""Facts of the mechanisms that the catalogue's sweep cannot see: it overwrites initial values and runs small sizes.

What a block gives as built, the objectives that training starts from, the defaults that come from the papers, dilations and
frequencies that need a larger map, and the inputs beside x.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from attnprof import mechanisms
from attnprof.records import Shape
from tests.catalogue import flatten, make, make_inputs, reference_of, small_shape

FRESH_IDENTITY = (
    "channel/cam",  # the scale starts at 0
    "channel/gct",  # gamma and beta 0
    "channel_spatial/cgnl",  # the group norm's scale and shift 0
    "spatial/ccnet",  # gamma 0, as all of the family
    "spatial/ccnet_bmm",
    "spatial/ccnet_hv",
    "spatial/dnl",  # batch norm with scale 0
    "spatial/gcnet",  # zero start of W_v2
    "spatial/glore",  # batch norm with scale 0
    "spatial/nonlocal",  # batch norm with scale 0, as its siblings
    "spatial/nonlocal_concat",
    "spatial/nonlocal_dot",
    "spatial/nonlocal_gaussian",
    "spatial/pam",  # gamma 0
    "spatial/stn",  # zero weights and the identity as the bias of theta
    "spatial_temporal/nonlocal3d",  # batch norm with scale 0
)


def fresh(name: str, shape: Shape | None = None, **args: Any) -> nn.Module:
    """A mechanism as it is built, in eval mode and float64: nothing filled in."""
    torch.manual_seed(0)
    module: nn.Module = mechanisms.build(mechanisms.load(name), shape or small_shape(name), args)
    return module.double().eval()


def run_fresh(name: str, shape: Shape | None = None, **args: Any) -> tuple[list[Tensor], Tensor, nn.Module]:
    """(inputs, first output, module) of a fresh mechanism."""
    module = fresh(name, shape, **args)
    inputs = [t.detach() for t in make_inputs(mechanisms.load(name), shape or small_shape(name), args)]
    with torch.no_grad():
        return inputs, flatten(module(*inputs))[0], module


@pytest.mark.parametrize("name", FRESH_IDENTITY)
def test_starts_as_the_identity_where_its_file_says_so(name: str) -> None:
    inputs, output, _ = run_fresh(name)
    assert float((output - inputs[0]).abs().max()) < 1e-12


def test_stn_starts_as_the_identity_with_either_meaning_of_the_corners() -> None:
    for align_corners in (False, True):
        (x,), output, _ = run_fresh("spatial/stn", align_corners=align_corners)
        torch.testing.assert_close(output, x, rtol=0, atol=1e-12)


def test_danet_starts_as_twice_its_input() -> None:
    (x,), output, _ = run_fresh("channel_spatial/danet")
    assert torch.equal(output, 2 * x)


@pytest.mark.parametrize("args", [{}, {"dilation": 3}, {"kernel": 5, "out": 7}, {"offset_groups": 4}])
def test_dcn_starts_as_the_plain_convolution_with_its_weight(args: dict[str, int]) -> None:
    (x,), output, module = run_fresh("spatial/dcn", Shape(2, 8, 9, 11), **args)
    weight = dict(module.named_parameters())["weight"]
    dilation = args.get("dilation", 1)
    want = F.conv2d(x, weight, padding=dilation * (args.get("kernel", 3) // 2), dilation=dilation)
    torch.testing.assert_close(output, want, rtol=1e-10, atol=1e-12)


def test_srm_starts_with_gates_of_one_half() -> None:
    (x,), output, _ = run_fresh("channel/srm")
    torch.testing.assert_close(output, x / 2, rtol=0, atol=1e-15)


def test_lwdn_starts_as_the_mean_of_the_nine_neighbours() -> None:
    (key, *_), output, _ = run_fresh("temporal/lwdn")
    torch.testing.assert_close(output, F.avg_pool2d(key, 3, 1, 1), rtol=1e-10, atol=1e-12)


def test_gltr_starts_as_the_time_average_of_convolutions_with_dilations_1_2_4() -> None:
    (x,), output, module = run_fresh("temporal/gltr", Shape(2, 8, 1, 1, 16))
    weights = dict(module.named_parameters())
    scales = [
        F.conv1d(x.transpose(1, 2), weights[f"pyramid.{index}.weight"], padding=rate, dilation=rate)
        for index, rate in enumerate((1, 2, 4))
    ]
    torch.testing.assert_close(output, torch.cat([scale.mean(dim=2) for scale in scales], dim=1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "part", "values"),
    [
        ("spatial/afnb", "w", (0,)),
        ("spatial/apnb", "w", (0,)),
        ("spatial/ocnet", "w", (0,)),
        *(("spatial/ocnet_pyramid", f"stages.{stage}.w", (0,)) for stage in range(4)),
        ("spatial/dcn", "offset", (0,)),
        ("spatial/deform_roi_pool", "offset", (0,)),
        ("spatial/deform_psroi_pool", "offset", (0,)),
        ("temporal/lwdn", "predict.2", (0,)),
        ("temporal/gltr", "w", (0,)),
        ("channel/gct", "alpha", (1,)),
        ("spatial/stn", "theta.bias", (0, 1)),
        ("spatial/hard_attention", "baseline", (0,)),
    ],
)
def test_a_layer_starts_with_the_values_that_its_file_names(name: str, part: str, values: tuple[float, ...]) -> None:
    module = fresh(name)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    of_part = [tensor for label, tensor in named.items() if label == part or label.startswith(f"{part}.")]
    assert of_part, f"{name} has no {part}"
    assert {value for tensor in of_part for value in tensor.unique().tolist()} == set(values)


def test_encnet_scales_start_between_minus_one_and_zero() -> None:
    scale = dict(fresh("channel/encnet").named_parameters())["scale"]
    assert -1 <= scale.min() < -0.7
    assert -0.3 < scale.max() <= 0


def test_condconv_experts_start_as_a_convolution_does() -> None:
    """A linear bound of 1/sqrt(fan-in) = 1/sqrt(32*9) for every expert, nearly reached by so many draws."""
    experts = dict(fresh("branch/condconv").named_parameters())["weight"]
    bound = 1 / math.sqrt(32 * 9)
    largest = experts.flatten(1).abs().amax(dim=1)
    assert len(largest) == 8
    assert (largest <= bound).all()
    assert (largest > 0.98 * bound).all()


def leaf(*size: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers that want a gradient."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def log_probs_of(logits: Tensor, picks: Tensor) -> Tensor:
    """Leaf log-probabilities whose largest entry is the class that `picks` says."""
    raised = logits.detach() + 9 * F.one_hot(picks, logits.shape[-1])
    return raised.log_softmax(dim=-1).requires_grad_()


def same_value_and_gradients(got: Tensor, want: Tensor, leaves: list[Tensor]) -> None:
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    actual = torch.autograd.grad(got, leaves, retain_graph=True, materialize_grads=True)
    expected = torch.autograd.grad(want, leaves, retain_graph=True, materialize_grads=True)
    for index, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14), f"gradient of tensor {index}: {mine}, not {theirs}"


def objective_of(name: str) -> Callable[[Any], Any]:
    objective = mechanisms.load(name).objective
    assert objective is not None
    return objective


def test_ram_objective() -> None:
    """Mean over images of -log p(class 0) and of -sum_t log pi_t (R - b_t), R a constant; mean of (b - R)^2."""
    batch, steps, classes = 4, 3, 5
    log_probs = log_probs_of(leaf(batch, classes), torch.tensor([0, 2, 0, 1]))
    log_pi, baselines = leaf(batch, steps, seed=1), leaf(batch, steps, seed=2)
    want = torch.zeros((), dtype=torch.float64)
    for image, hit in enumerate((1.0, 0.0, 1.0, 0.0)):
        want = want - log_probs[image, 0] / batch
        for step in range(steps):
            advantage = hit - float(baselines[image, step].detach())  # a number: no gradient through it
            want = want - advantage * log_pi[image, step] / batch
            want = want + (baselines[image, step] - hit) ** 2 / (batch * steps)
    outputs = {"log_probs": log_probs, "log_pi": log_pi, "baselines": baselines, "locations": leaf(batch, steps + 1, 2)}
    same_value_and_gradients(objective_of("spatial/ram")(outputs), want, list(outputs.values()))


def test_dram_objective() -> None:
    """As ram's, with -log p summed over the targets, and a reward of the hits up to the target that a glimpse belongs to."""
    batch, targets, glimpses, classes = 3, 4, 2, 5
    picks = torch.tensor([[0, 1, 0, 0], [2, 0, 0, 3], [1, 2, 3, 4]])
    log_probs = log_probs_of(leaf(batch, targets, classes), picks)
    log_pi, baselines = leaf(batch, targets * glimpses, seed=1), leaf(batch, targets * glimpses, seed=2)
    rewards = [[1, 1, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 2, 2], [0] * 8]
    want = torch.zeros((), dtype=torch.float64)
    for image in range(batch):
        for target in range(targets):
            want = want - log_probs[image, target, 0] / batch
        for step in range(targets * glimpses):
            reward = rewards[image][step]
            advantage = reward - float(baselines[image, step].detach())
            want = want - advantage * log_pi[image, step] / batch
            want = want + (baselines[image, step] - reward) ** 2 / (batch * targets * glimpses)
    outputs = {"log_probs": log_probs, "log_pi": log_pi, "baselines": baselines, "locations": leaf(batch, 8, 2)}
    same_value_and_gradients(objective_of("spatial/dram")(outputs), want, list(outputs.values()))


def test_hard_attention_objective() -> None:
    """Maximised: R + 0.1 (R - b) log alpha_s + 0.002 H with R = log softmax(z)_0, R - b a constant; mean over images."""
    batch, width = 4, 5
    z, log_prob, entropy = leaf(batch, width), leaf(batch, seed=1), leaf(batch, seed=2)
    baseline = leaf(batch, seed=3).detach()  # a buffer of the module
    want = torch.zeros((), dtype=torch.float64)
    for image in range(batch):
        reward = z[image, 0] - z[image].exp().sum().log()
        reinforce = 0.1 * (float(reward.detach()) - float(baseline[image])) * log_prob[image]
        want = want - (reward + reinforce + 0.002 * entropy[image]) / batch
    alpha = leaf(batch, 6, seed=4)
    outputs = {"z": z, "alpha": alpha, "log_prob": log_prob, "entropy": entropy, "baseline": baseline}
    same_value_and_gradients(objective_of("spatial/hard_attention")(outputs), want, [z, alpha, log_prob, entropy])


def test_sta_lstm_objective() -> None:
    """Mean over sequences of -log softmax(scores)_0 and, in training, of the three penalties, which come weighed."""
    batch, classes = 4, 6
    scores, penalties = leaf(batch, classes), leaf(batch, 3, seed=1)
    entropy = torch.zeros((), dtype=torch.float64)
    for sequence in range(batch):
        entropy = entropy - (scores[sequence, 0] - scores[sequence].exp().sum().log()) / batch
    objective = objective_of("spatial_temporal/sta_lstm")
    same_value_and_gradients(objective(scores), entropy, [scores])
    total = entropy
    for sequence in range(batch):
        for term in range(3):
            total = total + penalties[sequence, term] / batch
    same_value_and_gradients(objective((scores, penalties)), total, [scores, penalties])


def test_sta_lstm_penalties() -> None:
    """1e-3 sum_k (1 - mean_t alpha_tk)^2, 1e-4 mean_t |beta_t| and 5e-4 sum |W| over the matrices, for every sequence."""
    module: Any = fresh("spatial_temporal/sta_lstm", Shape(2, 9, 1, 1, 4), hidden=5, classes=3)
    alphas, betas = leaf(2, 4, 3).detach(), leaf(2, 4, 1, seed=1).detach()
    size = math.fsum(float(weight.abs().sum()) for label, weight in module.state_dict().items() if label.endswith("weight"))
    want = torch.zeros(2, 3, dtype=torch.float64)
    for sequence in range(2):
        for joint in range(3):
            mean = math.fsum(alphas[sequence, :, joint].tolist()) / 4
            want[sequence, 0] += 1e-3 * (1 - mean) ** 2
        want[sequence, 1] = 1e-4 * math.fsum(abs(beta) for beta in betas[sequence, :, 0].tolist()) / 4
        want[sequence, 2] = 5e-4 * size
    torch.testing.assert_close(module.penalties(alphas, betas).detach(), want, rtol=1e-12, atol=1e-15)


def test_encnet_objective() -> None:
    """y as it is and, with classes, 0.2 times the mean of -log sigmoid(logit): every class is present."""
    batch, classes = 3, 4
    y, logits = leaf(batch, 2, 3, 3), leaf(batch, classes, seed=1)
    objective = objective_of("channel/encnet")
    assert objective(y) is y
    same, loss = objective((y, logits))
    assert same is y
    want = torch.zeros((), dtype=torch.float64)
    for image in range(batch):
        for label in range(classes):
            want = want + 0.2 * torch.log(1 + torch.exp(-logits[image, label])) / (batch * classes)
    same_value_and_gradients(loss, want, [y, logits])


NONLOCAL = {"reduction": 2, "subsample": False}  # half the channels (section 3.3)
DEFAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("condconv", {"experts": 8, "kernel": 3, "stride": 1, "groups": 1}),  # section 4
    ("sknet", {"branches": 2, "groups": 32, "reduction": 16, "least": 32, "stride": 1}),  # SK[2, 32, 16], section 3.1
    ("bilinear", {"reduction": 16}),  # official code
    ("cam", {"reverse": True}),  # official code: (row maximum - energy)
    ("eca", {"kernel": None}),  # section 3.2: k from C
    ("encnet", {"codes": 32, "classes": 0}),  # official code
    ("fcanet", {"frequencies": 16, "reduction": 16}),  # official code, top16
    ("gct", {"mode": "l2"}),  # section 3
    ("gsop", {"dims": 128, "stride": 1, "rectify": False}),  # official code
    ("se", {"reduction": 16, "bias": False, "divisor": 1}),  # sections 4, 6.4
    ("srm", {"styles": 2}),  # section 3: mean and standard deviation
    ("bam", {"reduction": 16, "dilation": 4, "combine": "add"}),  # official code; section 3
    ("cbam", {"reduction": 16, "kernel": 7, "bias": True, "norm": True}),  # section 3; official code
    ("cgnl", {"kernel": "dot", "groups": 8, "order": 2, "gamma": 1e-4, "scale": False}),  # official code
    ("coordinate", {"reduction": 32, "smallest": 8}),  # official code
    ("danet", {"reduction": 8}),  # official code
    ("mixed_pooling", {"grids": (20, 12)}),  # official code
    ("residual_attention", {"p": 1, "t": 2, "r": 1}),  # section 3
    ("rga", {"reduction": 8, "order": "sc"}),  # official code; RGA-SC
    ("sca_cnn", {"hidden": 1000, "attention": 512, "order": "channel-spatial", "rescale": False}),  # official code; C-S
    ("scnet", {"rate": 4, "stride": 1}),  # official code
    ("scse", {"reduction": 2, "combine": "max"}),  # journal version, authors' code
    ("simam", {"lam": 1e-4}),  # official code
    ("triplet", {"kernel": 7, "spatial": True}),  # official code
    ("aspp", {"rates": (12, 24, 36), "out": 256, "dropout": 0.5}),  # output stride 8, section 3.3; torchvision
    ("ppm", {"bins": (1, 2, 3, 6)}),  # section 3.2
    ("a2net", {"cm": None, "cn": None, "reconstruct": True}),  # section 3.3
    ("aanet", {"heads": 8, "kappa": 0.2, "upsilon": 0.1, "min_key": 20, "kernel": 3, "relative": True}),  # the paper's ResNets
    ("afnb", {"grids": (1, 3, 6, 8), "dropout": 0.05}),  # section 3; official code
    ("apnb", {"grids": (1, 3, 6, 8), "dropout": 0.05}),  # section 3; official code
    ("attention_gate", {"form": "grid", "gating_stride": 2}),  # official code
    ("axial", {"heads": 8}),  # public port
    ("ccnet", {"recurrence": 2, "reduction": 8}),  # section 3.3; official code
    ("ccnet_bmm", {"recurrence": 2, "reduction": 8}),  # section 3.3; official code
    ("ccnet_hv", {"reduction": 8}),  # official code
    ("cot", {"kernel_size": 3, "share": 8}),  # official code
    ("dcn", {"kernel": 3, "dilation": 1, "offset_groups": 1}),  # section 2.1
    ("deform_roi_pool", {"bins": 7, "gamma": 0.1, "samples": 4, "boxes": 128}),  # section 2.2; official code
    ("deform_psroi_pool", {"bins": 7, "gamma": 0.1, "num_classes": 20, "samples": 4, "boxes": 128}),  # section 2.2; VOC
    ("dnl", {"reduction": 2, "temperature": 0.05}),  # segmentation heads
    ("dram", {"targets": 6, "glimpses": 3, "classes": 11, "scales": 2, "scale": 2, "patch": 12}),  # multi-digit SVHN, section 4
    ("dram", {"features": 1024, "hidden": 512, "std": 0.1}),  # std: saccader
    ("eanet", {"memory": 64}),  # paper and official code
    ("emanet", {"bases": 64, "iterations": 3}),  # section 4
    ("gcnet", {"reduction": 16}),  # section 4.3
    ("genet", {"form": "theta-minus", "extent": 0, "reduction": 16}),  # section 3
    ("ham_nmf", {"rank": 64, "steps": 6, "eval_steps": 7}),  # official code, as the other two
    ("ham_vq", {"rank": 64, "steps": 6, "eval_steps": 7, "inverse_temperature": 100.0}),
    ("ham_cd", {"rank": 64, "steps": 6, "eval_steps": 7, "inverse_temperature": 100.0, "beta": 0.1}),
    ("hard_attention", {"sample_share": 0.5, "evaluation": "argmax"}),  # section 4.1
    ("soft_attention", {"gate": "none", "activation": "tanh"}),  # section 4.2; official code
    ("isa", {"down_factor": 8, "dropout": 0.05}),  # official code
    ("linear", {"form": "elu", "heads": 8}),  # official code; "Attention Is All You Need"
    ("lka", {"local": 5, "spread": 7, "dilation": 3}),  # section 3.1: K = 21
    ("lrnet", {"kernel": 7, "m": 8, "similarity": "squared"}),  # the paper's defaults
    ("mhsa", {"heads": 8}),  # section 3.2.2
    *((name, NONLOCAL) for name in ("nonlocal", "nonlocal_concat", "nonlocal_dot", "nonlocal_gaussian", "nonlocal3d")),
    ("ocnet", {"dropout": 0.05}),  # official code
    ("ocnet_pyramid", {"grids": (1, 2, 3, 6), "dropout": 0.05}),  # official code
    ("ocrnet", {"num_classes": 19, "dropout": 0.05}),  # Cityscapes; official code
    ("pam", {"reduction": 8}),  # official code
    ("psanet", {"mid": 512, "shrink": 2}),  # official code
    ("ram", {"glimpse_hidden": 128, "location_hidden": 128, "hidden": 256, "glimpses": 6}),  # section 4
    ("ram", {"patch": 12, "scales": 3, "scale": 2, "std": 0.05, "classes": 10}),  # section 4.1, 60 x 60; kevinzakka
    *((name, {"kernel": 7, "relation_reduction": 16, "share": 8}) for name in ("san_pairwise", "san_patchwise")),  # official
    ("sasa", {"kernel": 7, "heads": 8, "relative": True}),  # the paper's ImageNet models
    ("sra", {"sr_ratio": 8}),  # section 3.4: first stage
    ("stn", {"hidden": 32, "align_corners": False, "downsample": 1}),  # PyTorch's tutorial
    ("swin", {"window": 7, "shift": 0}),  # section 3.3
    ("vit", {"mlp_ratio": 4}),  # table 1
    ("xvolution", {"kernel": 3, "directions": 8, "shift": 1, "depth": 1}),  # choices of the file
    ("rstan", {"streams": 1, "classes": 101, "spatial_sharpness": 1.0, "temporal_sharpness": 1.0}),  # UCF101
    ("rstan", {"hidden": 512, "attention": 512}),  # choices of the file
    ("sta", {"stripes": 4}),  # paper
    ("sta_lstm", {"hidden": 100, "layers": 3, "classes": 60}),  # paper; NTU
    ("sta_lstm", {"spatial_weight": 1e-3, "temporal_weight": 1e-4, "l1_weight": 5e-4}),  # public ports
    ("stgcn", {"patches": 4, "layers": 3}),  # choices of the file
    ("fgfa", {"embedding": "conv", "warp": True}),  # mmtracking
    ("flow_warp", {"scale": True, "alignment": "exact", "padding": "zeros"}),  # section 3; official operators
    ("gltr", {"rates": (1, 2, 4), "reduction": 2, "width": None, "keep_input": False}),  # paper
    ("high_performance_vod", {"interval": 10, "threshold": 0.0}),  # the paper's baseline
    ("local_alignment", {"radius": 3, "boundary": "mask"}),  # choices of the file
    ("lwdn", {"kernel": 3, "correlation": 4, "mid": 256, "update": False}),  # interpretations
    ("tam", {"kernel_size": 3, "alpha": 2, "beta": 4}),  # section 3; official code
)


@pytest.mark.parametrize(("name", "values"), DEFAULTS, ids=[f"{name}-{'-'.join(values)}" for name, values in DEFAULTS])
def test_defaults_are_those_that_the_file_takes_from_its_sources(name: str, values: dict[str, Any]) -> None:
    parameters = inspect.signature(mechanisms.load(name).build).parameters
    assert {argument: parameters[argument].default for argument in values} == values


def test_psanet_takes_512_channels_at_most() -> None:
    for channels, mid in ((1024, 512), (64, 64)):
        module = fresh("spatial/psanet", Shape(1, channels, 5, 5))
        assert dict(module.named_parameters())["reduce_collect.0.weight"].shape[0] == mid


def test_aspp_convolves_with_dilations_12_24_36() -> None:
    """On a map that the taps of rate 36 reach into, against plain dilated convolutions."""
    shape, mechanism = Shape(2, 3, 53, 51), mechanisms.load("context/aspp")
    module = make(mechanism, shape, {"out": 4}).eval()
    (x,) = (tensor.detach() for tensor in make_inputs(mechanism, shape, {}))
    p = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var = p[f"{name}.running_mean"], p[f"{name}.running_var"]
        scale = p[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (y - mean[:, None, None]) * scale[:, None, None] + p[f"{name}.bias"][:, None, None]

    with torch.no_grad():
        branches = [F.conv2d(x, p["convs.0.weight"])]
        for index, rate in enumerate((12, 24, 36), start=1):
            branches.append(F.conv2d(x, p[f"convs.{index}.weight"], padding=rate, dilation=rate))
        maps = [norm(branch, f"bns.{index}").clamp(min=0) for index, branch in enumerate(branches)]
        pooled = norm(F.conv2d(x.mean(dim=(2, 3), keepdim=True), p["pool_conv.weight"]), "pool_bn").clamp(min=0)
        maps.append(pooled.expand(-1, -1, 53, 51))
        want = norm(F.conv2d(torch.cat(maps, dim=1), p["project.weight"]), "project_bn").clamp(min=0)
        torch.testing.assert_close(module(x), want, rtol=1e-9, atol=1e-11)


def test_fcanet_with_32_frequencies_at_the_papers_map() -> None:
    shape, mechanism, args = Shape(2, 64, 14, 14), mechanisms.load("channel/fcanet"), {"frequencies": 32}
    module = make(mechanism, shape, args).eval()
    (x,) = (tensor.detach() for tensor in make_inputs(mechanism, shape, args))
    p = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        want = reference_of("channel/fcanet").reference(p, x, training=False, hw=(14, 14), **args)
        torch.testing.assert_close(module(x), want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "shape", "args", "wanted"),
    [
        ("fgfa", Shape(2, 8, 6, 7, 3), {}, {"x": (2, 8, 6, 7), "references": (2, 3, 8, 6, 7), "flow": (2, 3, 2, 6, 7)}),
        ("fgfa", Shape(2, 8, 6, 7, 3), {"warp": False}, {"x": (2, 8, 6, 7), "references": (2, 3, 8, 6, 7)}),
        (
            "high_performance_vod",
            Shape(2, 8, 6, 7, 4),
            {},
            {"x": (2, 4, 8, 6, 7), "flow": (2, 3, 2, 6, 7), "quality": (2, 3, 1, 6, 7)},
        ),
        ("flow_warp", Shape(2, 8, 6, 7), {}, {"x": (2, 8, 6, 7), "flow": (2, 2, 6, 7), "scale": (2, 8, 6, 7)}),
        ("flow_warp", Shape(2, 8, 6, 7), {"scale": False}, {"x": (2, 8, 6, 7), "flow": (2, 2, 6, 7)}),
        ("attention_gate", Shape(2, 8, 10, 14), {}, {"x": (2, 8, 10, 14), "g": (2, 16, 5, 7)}),
        ("attention_gate", Shape(2, 8, 10, 14), {"form": "unet"}, {"x": (2, 8, 10, 14), "g": (2, 8, 10, 14)}),
        ("hard_attention", Shape(2, 8, 5, 7), {"hidden": 6}, {"features": (2, 35, 8), "state": (2, 6)}),
        ("lwdn", Shape(2, 8, 5, 7), {}, {"key": (2, 8, 5, 7), "low_key": (2, 8, 5, 7), "low_current": (2, 8, 5, 7)}),
    ],
)
def test_inputs_beside_x_have_the_shapes_of_the_file(
    name: str, shape: Shape, args: dict[str, Any], wanted: dict[str, tuple[int, ...]]
) -> None:
    specs = mechanisms.input_specs(mechanisms.load(name), shape, args)
    assert {spec.name: spec.shape for spec in specs} == wanted


def test_warps_without_motion_leave_a_map_as_it_is() -> None:
    """flow_warp with a scale of 1; fgfa over copies of one frame; a vod key frame over copies whose quality is high."""
    x = leaf(2, 8, 6, 7).detach()
    still = torch.zeros(2, 3, 2, 6, 7, dtype=torch.float64)
    copies = x.unsqueeze(1).expand(-1, 3, -1, -1, -1)
    with torch.no_grad():
        warped = fresh("flow_warp", Shape(2, 8, 6, 7))(x, still[:, 0], torch.ones_like(x))
        mixed = fresh("fgfa", Shape(2, 8, 6, 7, 3))(x, copies, still)
        clip = torch.cat([x.unsqueeze(1), copies * 0], dim=1)
        quality = torch.full((2, 3, 1, 6, 7), 3.0, dtype=torch.float64)
        aggregates = fresh("high_performance_vod", Shape(2, 8, 6, 7, 4))(clip, still, quality)
    torch.testing.assert_close(warped, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(aggregates, x.unsqueeze(1).expand(-1, 4, -1, -1, -1), rtol=0, atol=1e-12)
