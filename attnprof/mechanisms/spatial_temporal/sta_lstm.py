"""Spatio-temporal attention LSTM (STA-LSTM).

Paper     Song, Lan, Xing, Zeng, Liu, "An End-to-End Spatio-Temporal Attention Model for Human Action Recognition from Skeleton
          Data", AAAI 2017, arXiv:1611.06067
Idea      In every frame one small LSTM network weighs the joints, another one the frame; a main LSTM network reads the weighed
          joints, and its class scores are added up over the frames with the frames' weights.
Formula   s_t = U_s tanh(W_xs x_t + W_hs h^s_{t-1} + b_s) + b_us;  alpha_t = softmax(s_t) over the K joints;
          x'_tk = alpha_tk x_tk;  beta_t = relu(w_x . x_t + w_h . h^b_{t-1} + b);  z_t = W LSTM(LSTM(LSTM(x'_t))) + b_z;
          o = sum_t beta_t z_t;  h^s and h^b: the hidden states of LSTMs that read x_t
Shapes    x: B T C, the coordinates of joint k at 3k to 3k + 2 -> o: B classes; in training also penalties: B 3
Params    (13*h + 1)*(C + h + 1) + 4*h*(layers - 1)*(2*h + 1) + (h + 1)*((C + coordinates - 1)//coordinates + classes)
          LSTMs 4h(inputs + h + 1): two of the gates and the first of the main network read C values; joint gate
          (C + h + 1)h + (h + 1)K; frame gate C + h + 1; classifier (h + 1)*classes
Cost      T*((13h + 1)*(C + h) + 8*h^2*(layers - 1) + h*(K + classes)) MACs per sequence; in training the largest of the kept
          tensors are the gates of the LSTMs, 4h elements per frame and layer
Defaults  h = hidden = 100 in all LSTMs, layers 3 in the main network, one in each gate's; classes 60 (NTU, where 25 joints
          make C = 75); spatial_weight 1e-3, temporal_weight 1e-4, l1_weight 5e-4 (public ports)
Differs   interpretation (there is no official code): the joint gate's tanh layer has h units; an LSTM has no peepholes and one
          bias per gate, its four gates are one linear layer on [x_t, h_{t-1}]; states start at 0. C = 3K in the paper: where 3
          does not divide C the last joint has fewer coordinates. Training also returns, per sequence, the three terms that the
          paper adds to the cross entropy, weighed: sum_k (1 - mean_t alpha_tk)^2, mean_t |beta_t| and the sum of |W| over
          all matrices; the objective is the mean of class 0's negative log likelihood and of these. Dropout and the training of
          the three networks in turn are the host's
Survey    domain: spatial & temporal; g: a) spatial, fuse hidden state, MLP, softmax, b) temporal, fuse hidden state, MLP, ReLU;
          f: scale joints, weighted sum over frames; tasks: Action; kind: soft; goal: I; stage: 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnprof.records import Mechanism, Shape


class LSTMCell(nn.Module):
    """One step of an LSTM: x (B, inputs), state (hidden, cell) -> the next state."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden, cell = state
        gates = self.gates(torch.cat([x, hidden], dim=1))  # B 4h
        write, forget, read, new = gates.chunk(4, dim=1)  # B h each
        cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
        return read.sigmoid() * cell.tanh(), cell


class STALSTM(nn.Module):
    """Class scores of a skeleton sequence: x (B, T, C) -> (B, classes), in training with penalties (B, 3)."""

    def __init__(
        self,
        channels: int,
        hidden: int = 100,
        classes: int = 60,
        coordinates: int = 3,
        layers: int = 3,
        spatial_weight: float = 1e-3,
        temporal_weight: float = 1e-4,
        l1_weight: float = 5e-4,
    ) -> None:
        super().__init__()
        check_layers(layers)
        self.hidden = hidden
        self.coordinates = coordinates
        self.joints = -(-channels // coordinates)
        self.penalty_weights = (spatial_weight, temporal_weight, l1_weight)
        self.joint_lstm = LSTMCell(channels, hidden)
        self.joint_hidden = nn.Linear(channels + hidden, hidden)
        self.joint_score = nn.Linear(hidden, self.joints)
        self.frame_lstm = LSTMCell(channels, hidden)
        self.frame_score = nn.Linear(channels + hidden, 1)
        self.main = nn.ModuleList(LSTMCell(channels if layer == 0 else hidden, hidden) for layer in range(layers))
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        batch, frames, channels = x.shape
        start = x.new_zeros(batch, self.hidden)
        joint_state = frame_state = (start, start)
        states = [(start, start) for _ in self.main]
        alphas, betas, outputs = [], [], []
        for t in range(frames):
            frame = x[:, t]  # B C
            hidden = self.joint_hidden(torch.cat([frame, joint_state[0]], dim=1)).tanh()  # B h
            alpha = self.joint_score(hidden).softmax(dim=1)  # B K
            beta = self.frame_score(torch.cat([frame, frame_state[0]], dim=1)).relu()  # B 1
            joint_state = self.joint_lstm(frame, joint_state)
            frame_state = self.frame_lstm(frame, frame_state)
            spread = alpha.unsqueeze(2).expand(-1, -1, self.coordinates).reshape(batch, -1)[:, :channels]  # B C
            y = frame * spread
            for layer, cell in enumerate(self.main):
                states[layer] = cell(y, states[layer])
                y = states[layer][0]  # B h
            outputs.append(y)
            alphas.append(alpha)
            betas.append(beta)
        weights = torch.stack(betas, dim=1)  # B T 1
        scores = self.classify(torch.stack(outputs, dim=1))  # B T classes
        total = (weights * scores).sum(dim=1)  # B classes
        return (total, self.penalties(torch.stack(alphas, dim=1), weights)) if self.training else total

    def penalties(self, alphas: Tensor, betas: Tensor) -> Tensor:
        """The weighed terms of the objective beside the cross entropy; alphas B T K, betas B T 1 -> B 3."""
        spatial = (1 - alphas.mean(dim=1)).square().sum(dim=1)  # B
        temporal = betas.abs().mean(dim=(1, 2))  # B
        matrices = [parameter for parameter in self.parameters() if parameter.dim() == 2]
        l1 = torch.stack([matrix.abs().sum() for matrix in matrices]).sum()
        terms = (spatial, temporal, l1.expand_as(spatial))
        return torch.stack([weight * term for weight, term in zip(self.penalty_weights, terms, strict=True)], dim=1)


def check_layers(layers: int) -> None:
    """Raises where the main network has none."""
    if layers < 1:
        raise ValueError(f"the main network has one layer or more, not {layers}")


def params(
    channels: int,
    hidden: int = 100,
    classes: int = 60,
    coordinates: int = 3,
    layers: int = 3,
    spatial_weight: float = 1e-3,
    temporal_weight: float = 1e-4,
    l1_weight: float = 5e-4,
) -> int:
    """Closed form of the parameter count."""
    check_layers(layers)
    c, h, joints = channels, hidden, -(-channels // coordinates)
    reading = 3 * 4 * h * (c + h + 1)
    upper = (layers - 1) * 4 * h * (2 * h + 1)
    gates = (c + h + 1) * h + (h + 1) * joints + (c + h + 1)
    return reading + upper + gates + (h + 1) * classes


def macs(
    shape: Shape,
    hidden: int = 100,
    classes: int = 60,
    coordinates: int = 3,
    layers: int = 3,
    spatial_weight: float = 1e-3,
    temporal_weight: float = 1e-4,
    l1_weight: float = 5e-4,
) -> int:
    """Multiply-accumulates of one forward pass."""
    check_layers(layers)
    c, h, joints = shape.channels, hidden, -(-shape.channels // coordinates)
    lstms = 3 * 4 * h * (c + h) + (layers - 1) * 4 * h * 2 * h
    gates = (c + h) * h + h * joints + (c + h)
    return shape.batch * shape.frames * (lstms + gates + h * classes)


def objective(outputs: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy with class 0 as the label, and the penalties where there are any."""
    scores = outputs if isinstance(outputs, Tensor) else outputs[0]
    loss = -scores.log_softmax(dim=1)[:, 0].mean()
    return loss if isinstance(outputs, Tensor) else loss + outputs[1].sum(dim=1).mean()


MECHANISM = Mechanism(
    name="sta_lstm",
    family="spatial_temporal",
    layout="BTC",
    paper="Song et al., AAAI 2017",
    build=STALSTM,
    params=params,
    macs=macs,
    objective=objective,
    natural=Shape(1, 75, 1, 1, 100),
)
