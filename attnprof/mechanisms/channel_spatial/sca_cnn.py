"""Spatial and channel-wise attention of a captioning network (SCA-CNN).

Paper     Chen et al., "SCA-CNN: Spatial and Channel-wise Attention in Convolutional Networks for Image Captioning", CVPR 2017,
          arXiv:1611.05594, section 3
Idea      The state of the caption's LSTM decides, at every word, which channels and which positions of a map matter.
Formula   channel: beta = softmax_c(w_i' . tanh(w_c v_c + b_c + W_hc h) + b_i'), v_c the mean of channel c;
          position: alpha = softmax_n(w_i . tanh(W_s x_n + b_s + W_hs h) + b_i);  y = alpha * beta * x
Shapes    x: B C H W, h: B hidden -> y: B C H W
Params    a*(C + 2*hidden + 5) + 2
          channel 3a + a*hidden + 1, position a*C + 2a + a*hidden + 1 with a the width of the attention
Cost      a*(N*C + N + 2*C + 2*hidden) MACs per image; largest are the map of N*a elements and its tanh
Defaults  hidden 1000, attention a = 512 (official code); order channel-spatial, C-S, the better one in the paper; rescale False
Differs   follows the paper. The second attention sees the map under the first, as there. Both softmaxes make weights of about
          1/C and 1/N: the official code multiplies by C and by N (rescale). The biases before a softmax have no effect
Survey    domain: channel & spatial; g: fuse hidden state, 1x1 convolution, global average pooling, MLP, softmax; f: scale;
          tasks: ICap; kind: soft; goal: I, II, III; stage: 3
"""

from __future__ import annotations

from torch import Tensor, nn

from attnprof.records import Mechanism, Shape, TensorSpec


class SCACNN(nn.Module):
    """Softmax over channels and over positions, led by a state: x (B, C, H, W), h (B, hidden) -> (B, C, H, W)."""

    def __init__(
        self,
        channels: int,
        hidden: int = 1000,
        attention: int = 512,
        order: str = "channel-spatial",
        rescale: bool = False,
    ) -> None:
        super().__init__()
        if order not in ("channel-spatial", "spatial-channel"):
            raise ValueError(f"order is channel-spatial or spatial-channel, not {order}")
        self.channel_first = order == "channel-spatial"
        self.rescale = rescale
        self.channel_map = nn.Linear(1, attention)
        self.channel_state = nn.Linear(hidden, attention, bias=False)
        self.channel_score = nn.Linear(attention, 1)
        self.spatial_map = nn.Conv2d(channels, attention, 1)
        self.spatial_state = nn.Linear(hidden, attention, bias=False)
        self.spatial_score = nn.Conv2d(attention, 1, 1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        if self.channel_first:
            x = x * self.channel_weights(x, h)
            return x * self.spatial_weights(x, h)
        x = x * self.spatial_weights(x, h)
        return x * self.channel_weights(x, h)

    def channel_weights(self, x: Tensor, h: Tensor) -> Tensor:
        """beta: B C 1 1."""
        means = x.mean(dim=(2, 3)).unsqueeze(2)  # B C 1
        joint = (self.channel_map(means) + self.channel_state(h).unsqueeze(1)).tanh()  # B C a
        beta: Tensor = self.channel_score(joint).softmax(dim=1)  # B C 1
        if self.rescale:
            beta = beta * x.shape[1]
        return beta.unsqueeze(3)

    def spatial_weights(self, x: Tensor, h: Tensor) -> Tensor:
        """alpha: B 1 H W."""
        joint = (self.spatial_map(x) + self.spatial_state(h)[:, :, None, None]).tanh()  # B a H W
        alpha: Tensor = self.spatial_score(joint).flatten(2).softmax(dim=2)  # B 1 N
        if self.rescale:
            alpha = alpha * alpha.shape[2]
        return alpha.view(x.shape[0], 1, *x.shape[2:])


def params(
    channels: int,
    hidden: int = 1000,
    attention: int = 512,
    order: str = "channel-spatial",
    rescale: bool = False,
) -> int:
    """Closed form of the parameter count."""
    channel = 3 * attention + attention * hidden + 1
    return channel + attention * channels + 2 * attention + attention * hidden + 1


def macs(
    shape: Shape,
    hidden: int = 1000,
    attention: int = 512,
    order: str = "channel-spatial",
    rescale: bool = False,
) -> int:
    """Multiply-accumulates of one forward pass."""
    channels, positions = shape.channels, shape.height * shape.width
    return shape.batch * attention * (2 * channels + hidden + positions * (channels + 1) + hidden)


def inputs(shape: Shape, hidden: int = 1000, **_: object) -> tuple[TensorSpec, ...]:
    """The features and the LSTM's last state."""
    return TensorSpec((shape.batch, shape.channels, *shape.hw), "x"), TensorSpec((shape.batch, hidden), "h")


_SHIFT = "softmax is blind to a shift of all logits of a row"

MECHANISM = Mechanism(
    name="sca_cnn",
    family="channel_spatial",
    layout="BCHW",
    paper="Chen et al., CVPR 2017",
    build=SCACNN,
    params=params,
    macs=macs,
    inputs=inputs,
    natural=Shape(1, 2048, 7, 7),
    exempt={
        "every_parameter_gets_a_finite_gradient:channel_score.bias": _SHIFT,
        "every_parameter_gets_a_finite_gradient:spatial_score.bias": _SHIFT,
    },
)
