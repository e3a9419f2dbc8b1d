"""Hard attention of Show, Attend and Tell: one step of the decoder.

Paper     Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention", ICML 2015,
          arXiv:1502.03044, sections 3.1.2 and 4.1
Idea      Before each word, draw one position of the feature map, the likelier the better it goes with the decoder's state, and
          pass on its features; learned by REINFORCE.
Formula   e_i = w . tanh(W_a a_i + W_h h) + c;  alpha = softmax_i(e);  s ~ Multinoulli(alpha);  z = a_s; with the reward
          R = log p(word): gradient of R + l_r (R - b) log alpha_s + l_e H(alpha), b <- 0.9 b + 0.1 R
Shapes    features a: B N D with D = C, state h: B hidden -> z: B D, alpha: B N, log_prob: B, entropy: B, baseline: B
Params    2*C**2 + 3*C + 1
          D A + R A + 3A + 1 with R = hidden and A = attention, both D by default
Cost      N D A + R A + N A MACs per image and step; N D more where the expectation is taken; an N x A map
Defaults  hidden = attention = D (attention as in the official code; both 512 at D = 512 in sgrvinod's tutorial; the official
          state has 1000); sample_share = 0.5 (section 4.1: with probability 0.5 the expectation stands in for the sample);
          l_r = 0.1 and l_e = 0.002 (official code); the paper's features are 196 x 512, of VGG
Differs   W_a and W_h have a bias each, as in the tutorial for soft attention; the official code has one for both. In training
          it is decided for every image (section 4.1) whether the sample or the expectation is taken, in the official code once
          for all. As there, the weights of an expectation are constants in the gradient, and log_prob is that of the mixture,
          sum_i w_i log alpha_i. Samples are drawn by inverting the cumulative sum of alpha. Eval mode takes the likeliest
          position, a hard choice still; the official code has both that and the expectation (evaluation "expectation").
          baseline is a buffer, 0 at first, and an output: the moving average of the reward, like the reward itself, is the
          training loop's. The objective that stands in for it takes z for the logits of the word and class 0 for its target
Survey    domain: spatial; g: compute similarity between visual features and previous hidden state, interpret attention weight;
          f: sample; tasks: ICap; kind: hard; goal: I; stage: 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape, TensorSpec


class HardAttention(nn.Module):
    """One position drawn: features (B, N, D), state (B, hidden) -> z (B, D) and what REINFORCE needs."""

    baseline: Tensor

    def __init__(
        self,
        channels: int,
        hidden: int | None = None,
        attention: int | None = None,
        sample_share: float = 0.5,
        evaluation: str = "argmax",
    ) -> None:
        super().__init__()
        if evaluation not in ("argmax", "expectation"):
            raise ValueError(f"evaluation is 'argmax' or 'expectation', not {evaluation!r}")
        hidden, attention = hidden or channels, attention or channels
        self.sample_share = sample_share
        self.expects = evaluation == "expectation"
        self.features = nn.Linear(channels, attention)
        self.state = nn.Linear(hidden, attention)
        self.score = nn.Linear(attention, 1)
        self.register_buffer("baseline", torch.zeros(()))

    def forward(self, features: Tensor, state: Tensor) -> dict[str, Tensor]:
        joint = (self.features(features) + self.state(state).unsqueeze(1)).tanh()  # B N A
        log_alpha = self.score(joint).squeeze(2).log_softmax(dim=1)  # B N
        alpha = log_alpha.exp()  # B N
        if self.training:
            sampled = torch.rand(len(alpha), 1, dtype=alpha.dtype, device=alpha.device) < self.sample_share  # B 1
            z, log_prob = self.chosen(features, log_alpha, self.draw(alpha.detach()))
            mean, mean_log_prob = self.expected(features, log_alpha, alpha.detach())
            z = torch.where(sampled, z, mean)
            log_prob = torch.where(sampled, log_prob, mean_log_prob)
        elif self.expects:
            z, log_prob = self.expected(features, log_alpha, alpha.detach())
        else:
            z, log_prob = self.chosen(features, log_alpha, log_alpha.argmax(dim=1, keepdim=True))
        return {
            "z": z,
            "alpha": alpha,
            "log_prob": log_prob.squeeze(1),
            "entropy": -(alpha * log_alpha).sum(dim=1),
            "baseline": self.baseline.expand(len(alpha)),
        }

    def draw(self, alpha: Tensor) -> Tensor:
        """A position per image, each with its probability: B 1."""
        threshold = torch.rand(len(alpha), 1, dtype=alpha.dtype, device=alpha.device)
        below = (alpha.cumsum(dim=1) <= threshold).sum(dim=1, keepdim=True)
        return below.clamp(max=alpha.shape[1] - 1)

    def chosen(self, features: Tensor, log_alpha: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """The features of a position (B, 1), and its log-probability: B D, B 1."""
        z = features.gather(1, position.unsqueeze(2).expand(-1, -1, features.shape[2])).squeeze(1)
        return z, log_alpha.gather(1, position)

    def expected(self, features: Tensor, log_alpha: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The mean features under weights (B, N), and the mean log-probability: B D, B 1."""
        z = torch.bmm(weights.unsqueeze(1), features).squeeze(1)
        return z, (weights * log_alpha).sum(dim=1, keepdim=True)


def objective(outputs: dict[str, Tensor]) -> Tensor:
    """Minus log-likelihood, REINFORCE surrogate and entropy, for a word that is class 0 of z."""
    reward = outputs["z"].log_softmax(dim=1)[:, 0]  # B
    reinforce = 0.1 * (reward.detach() - outputs["baseline"]) * outputs["log_prob"]
    return -(reward + reinforce + 0.002 * outputs["entropy"]).mean()


def params(
    channels: int,
    hidden: int | None = None,
    attention: int | None = None,
    sample_share: float = 0.5,
    evaluation: str = "argmax",
) -> int:
    """Closed form of the parameter count."""
    r, a = hidden or channels, attention or channels
    return channels * a + r * a + 3 * a + 1


def macs(
    shape: Shape,
    hidden: int | None = None,
    attention: int | None = None,
    sample_share: float = 0.5,
    evaluation: str = "argmax",
) -> int:
    """Multiply-accumulates of one forward pass in eval mode."""
    d, n = shape.channels, shape.height * shape.width
    r, a = hidden or d, attention or d
    expectation = n * d if evaluation == "expectation" else 0
    return shape.batch * (n * d * a + r * a + n * a + expectation)


def inputs(shape: Shape, hidden: int | None = None, **_: object) -> tuple[TensorSpec, ...]:
    """The features of all positions and the decoder's state."""
    features = TensorSpec((shape.batch, shape.height * shape.width, shape.channels), "features")
    return features, TensorSpec((shape.batch, hidden or shape.channels), "state")


MECHANISM = Mechanism(
    name="hard_attention",
    family="spatial",
    layout="BNC",
    paper="Xu et al., ICML 2015",
    build=HardAttention,
    params=params,
    macs=macs,
    inputs=inputs,
    objective=objective,
    natural=Shape(1, 512, 14, 14),
    exempt={
        "every_parameter_gets_a_finite_gradient:score.bias": "softmax is blind to a shift of all logits of a row",
    },
)
