"""PANNs' plain networks on waveforms: LeeNet11, LeeNet24 and DaiNet19."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from audiotag_jax.models.panns_layers import (
  ConvBlock,
  Ops,
  PannsModel,
  max_pool,
  take_waveform,
)
from audiotag_jax.panns.architectures import DAINET_FILTERS


class LeeNet(PannsModel, kw_only=True):
  """Sample-level convolutions: Lee et al. (2017), and a deeper one.

  Attributes:
    filters: filters of each block.
    convs_per_block: convolutions of each block.
    pool_last: whether the last block pools too.
  """

  filters: Sequence[int]
  convs_per_block: int
  pool_last: bool

  @property
  def min_samples(self) -> int:
    """Least length of a waveform: one sample, because the poolings are padded."""
    return 1

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores waveforms, not log-mels; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    x = take_waveform(inputs, self.min_samples)
    last = len(self.filters)
    for i, filters in enumerate(self.filters, 1):
      x = ConvBlock(
        filters,
        ops,
        kernel=(3,),
        dilations=(1,) * self.convs_per_block,
        strides=3 if i == 1 else 1,
        name=f"conv_block{i}",
      )(x)
      if 1 < i < last or (i == last and self.pool_last):
        x = self.pool(x)
      if i < last:
        x = ops.drop(self.conv_dropout)(x)
    return self.clip_outputs(x, ops)

  def pool(self, x: jax.Array) -> jax.Array:
    """Pools <float>[batch, frames, channels] by three, padded by a frame per side."""
    return max_pool(x, 3, padding=1)


class DaiNet(PannsModel):
  """A long strided convolution, then residual blocks of four: Dai et al. (2017)."""

  @property
  def min_samples(self) -> int:
    """Least length of a waveform: 80 samples, strides of 4, three poolings by 4."""
    return 80 + 4 * (4**3 - 1)

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores waveforms, not log-mels; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    x = take_waveform(inputs, self.min_samples)
    x = ops.conv(DAINET_FILTERS[0], (80,), strides=4, padding="VALID", name="conv0")(x)
    x = ops.norm(name="bn0")(x)
    for i, filters in enumerate(DAINET_FILTERS, 1):
      x = DaiNetBlock(filters, ops, name=f"conv_block{i}")(x)
      if i < len(DAINET_FILTERS):
        x = max_pool(x, 4)
    return self.clip_outputs(x, ops)


class DaiNetBlock(nn.Module):
  """Four convolutions over time beside a shortcut.

  Attributes:
    filters: filters of each convolution.
    ops: the layers.
  """

  filters: int
  ops: Ops

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Maps <float>[batch, frames, channels] to <float>[batch, frames, filters]."""
    x = inputs
    for i in range(1, 5):
      x = self.ops.conv(self.filters, (3,), padding=1, name=f"conv{i}")(x)
      # The reference starts from identities: the last scale is zero.
      scale_init = nn.initializers.zeros if i == 4 else nn.initializers.ones
      x = self.ops.norm(scale_init=scale_init, name=f"bn{i}")(x)
      if i < 4:
        x = nn.relu(x)
    # The reference has a projection in every block, but applies it only where the shape
    # changes; in other blocks the projection's statistics must not change.
    same = inputs.shape == x.shape
    frozen = {"use_running_average": True} if same else {}
    projected = self.ops.conv(self.filters, (1,), name="downsample")(inputs)
    projected = self.ops.norm(name="bn_downsample", **frozen)(projected)
    return nn.relu(x + (inputs if same else projected))
