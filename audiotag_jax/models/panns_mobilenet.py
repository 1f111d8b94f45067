"""PANNs' MobileNetV1 and MobileNetV2, which pool where the originals stride."""

from functools import partial

import flax.linen as nn
import jax

from audiotag_jax.models import layers
from audiotag_jax.models.panns_layers import Ops, PannsModel, avg_pool
from audiotag_jax.panns.architectures import (
  MOBILENET_FIRST_FILTERS,
  MOBILENET_LAST_FILTERS,
  MOBILENET_V1_BLOCKS,
  MOBILENET_V2_BLOCKS,
)

relu6 = partial(layers.clip, low=0.0, high=6.0)


class MobileNet(PannsModel, kw_only=True):
  """A convolution, then depthwise separable convolutions.

  Attributes:
    inverted: whether it is MobileNetV2, with inverted residuals, linear bottlenecks,
      ReLU6, a last convolution and no dropout before `fc1`.
  """

  inverted: bool

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores clips; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    activation = relu6 if self.inverted else nn.relu
    x = self.log_mel(inputs)
    x = self.normalize(x, ops, train)
    x = ops.conv(MOBILENET_FIRST_FILTERS, (3, 3), padding=1, name="conv_first")(x)
    x = activation(ops.norm(name="bn_first")(avg_pool(x, (2, 2))))
    blocks = MOBILENET_V2_BLOCKS if self.inverted else MOBILENET_V1_BLOCKS
    for i, (expansion, filters, pool) in enumerate(blocks, 1):
      x = SeparableBlock(
        filters, ops, pool, expansion, self.inverted, name=f"block{i}"
      )(x)
    if self.inverted:
      x = ops.conv(MOBILENET_LAST_FILTERS, (1, 1), name="conv_last")(x)
      x = activation(ops.norm(name="bn_last")(x))
    return self.clip_outputs(x, ops)


class SeparableBlock(nn.Module):
  """An expansion (if any), a depthwise convolution, a pooling, a pointwise convolution.

  Attributes:
    filters: filters of the pointwise convolution.
    ops: the layers.
    pool: side of the pooling.
    expansion: channels of the depthwise convolution, as a multiple of the input's.
    inverted: see `MobileNet`; if true, blocks that keep their shape are residual.
  """

  filters: int
  ops: Ops
  pool: int
  expansion: int
  inverted: bool

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Maps <float>[batch, frames, mels, channels] to <float>[…, filters]."""
    activation = relu6 if self.inverted else nn.relu
    channels = inputs.shape[-1] * self.expansion
    x = inputs
    if self.expansion > 1:
      x = self.ops.conv(channels, (1, 1), name="expand")(x)
      x = activation(self.ops.norm(name="bn_expand")(x))
    x = self.ops.conv(
      channels, (3, 3), padding=1, feature_group_count=channels, name="depthwise"
    )(x)
    x = avg_pool(x, (self.pool, self.pool))
    x = activation(self.ops.norm(name="bn_depthwise")(x))
    x = self.ops.conv(self.filters, (1, 1), name="pointwise")(x)
    x = self.ops.norm(name="bn_pointwise")(x)
    if not self.inverted:
      return activation(x)
    return x + inputs if x.shape == inputs.shape else x
