"""PANNs' residual networks: ResNet22, 38 and 54 on log-mels, Res1dNets on waveforms."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from audiotag_jax.models.panns_layers import (
  ConvBlock,
  Ops,
  PannsModel,
  avg_pool,
  max_pool,
  take_waveform,
)
from audiotag_jax.panns.architectures import (
  RES1DNET_FILTERS,
  RESNET_FILTERS,
  RESNET_LAST_FILTERS,
)

# Share of activations dropped inside each residual block.
BLOCK_DROPOUT = 0.1


class ResNet(PannsModel, kw_only=True):
  """A convolution block, residual blocks, a convolution block.

  Attributes:
    depths: residual blocks of each stage; stages from the second on pool by two.
    bottleneck: whether a block has 1x1, 3x3 and 1x1 convolutions, the last with four
      times the filters (ResNet54), instead of two 3x3 convolutions.
    block_dropout: share of activations dropped inside each residual block.
  """

  depths: Sequence[int]
  bottleneck: bool
  block_dropout: float = BLOCK_DROPOUT

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores clips; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    drop = ops.drop(self.conv_dropout)
    x = self.log_mel(inputs)
    x = self.normalize(x, ops, train)
    x = ConvBlock(RESNET_FILTERS[0], ops, name="conv_block1")(x)
    x = drop(avg_pool(x, (2, 2)))
    fields = {"ops": ops, "dropout": self.block_dropout, "bottleneck": self.bottleneck}
    x = residual_stages(x, self.depths, RESNET_FILTERS, (2, 2), **fields)
    x = drop(avg_pool(x, (2, 2)))
    x = drop(ConvBlock(RESNET_LAST_FILTERS, ops, name="conv_block_after1")(x))
    return self.clip_outputs(x, ops)


class Res1dNet(PannsModel, kw_only=True):
  """A strided convolution over the waveform, then residual blocks.

  Attributes:
    depths: residual blocks of each stage; stages from the second on pool by four.
    block_dropout: share of activations dropped inside each residual block.
  """

  depths: Sequence[int]
  block_dropout: float = BLOCK_DROPOUT

  @property
  def min_samples(self) -> int:
    """Least length of a waveform: a stride of five, then six poolings by four."""
    return 5 * 4**6

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores waveforms, not log-mels; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    x = take_waveform(inputs, self.min_samples)
    filters = RES1DNET_FILTERS
    x = ops.conv(filters[0], (11,), strides=5, padding=[(5, 5)], name="conv0")(x)
    x = ops.norm(name="bn0")(x)
    fields = {"ops": ops, "dropout": self.block_dropout}
    x = residual_stages(x, self.depths, filters, (4,), **fields)
    return self.clip_outputs(x, ops)


def residual_stages(
  x: jax.Array,
  depths: Sequence[int],
  filters: Sequence[int],
  pool: Sequence[int],
  **fields: Any,
) -> jax.Array:
  """Applies stages of residual blocks; stages from the second on start with a pooling.

  Args:
    x: <float>[batch, frames, …, channels].
    depths: residual blocks of each stage.
    filters: filters of each stage.
    pool: window of the pooling.
    **fields: other fields of `ResidualBlock`.

  Returns:
    <float>[batch, frames, …, features].
  """
  for stage, depth in enumerate(depths, 1):
    for i in range(depth):
      x = ResidualBlock(
        filters=filters[stage - 1],
        pool=pool if stage > 1 and i == 0 else (1,) * len(pool),
        name=f"layer{stage}_{i}",
        **fields,
      )(x)
  return x


class ResidualBlock(nn.Module):
  """Two or three convolutions beside a shortcut, in two dimensions or over time.

  Attributes:
    filters: filters of the 3x3 (or 3) convolutions.
    ops: the layers.
    dropout: share of activations dropped before the last convolution.
    pool: window of the pooling in front, over time or over time and frequency. It takes
      the mean, or the maximum if convolutions are over time; the shortcut always takes
      the mean.
    bottleneck: see `ResNet`.
  """

  filters: int
  ops: Ops
  dropout: float
  pool: Sequence[int]
  bottleneck: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps <float>[batch, frames, …, channels] to [batch, frames, …, filters or 4x]."""
    over_time = len(self.pool) == 1
    ones, threes = (1,) * len(self.pool), (3,) * len(self.pool)
    # (filters, kernel, dilation) of each convolution.
    convs = [(self.filters, threes, 1), (self.filters, threes, 2 if over_time else 1)]
    if self.bottleneck:
      convs = [(self.filters, ones, 1), convs[0], (4 * self.filters, ones, 1)]
    shortcut = x
    if max(self.pool) > 1:
      shortcut = avg_pool(x, self.pool)
      x = max_pool(x, *self.pool) if over_time else shortcut
    for i, (filters, kernel, dilation) in enumerate(convs, 1):
      if i == len(convs):
        x = self.ops.drop(self.dropout)(x)
      padding = [(dilation * (size // 2),) * 2 for size in kernel]
      conv = self.ops.conv(
        filters, kernel, padding=padding, kernel_dilation=dilation, name=f"conv{i}"
      )
      # The reference starts from identities: the last scale is zero.
      scale_init = nn.initializers.zeros if i == len(convs) else nn.initializers.ones
      x = self.ops.norm(scale_init=scale_init, name=f"bn{i}")(conv(x))
      if i < len(convs):
        x = nn.relu(x)
    if max(self.pool) > 1 or shortcut.shape != x.shape:
      shortcut = self.ops.conv(x.shape[-1], ones, name="downsample_conv")(shortcut)
      shortcut = self.ops.norm(name="downsample_bn")(shortcut)
    return nn.relu(x + shortcut)
