"""PANNs' Wavegram networks: a learned front-end, alone or beside the log-mel."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.models.panns_layers import (
  ConvBlock,
  Ops,
  PannsModel,
  avg_pool,
  max_pool,
  take_waveform,
)
from audiotag_jax.panns.architectures import (
  CNN14,
  WAVEGRAM_CHANNELS,
  WAVEGRAM_FILTERS,
)


class WavegramCnn(PannsModel, kw_only=True):
  """CNN14 on a wavegram, or on a wavegram beside the log-mel's first block.

  Attributes:
    with_log_mel: whether the log-mel is used. The reference's state_dict has the
      log-mel's `bn0` and `conv_block1` in either case.
    wavegram_bands: number of the wavegram's bands, in place of mel bands.
  """

  with_log_mel: bool
  wavegram_bands: int

  @property
  def min_samples(self) -> int:
    """Least length of a waveform: a stride of 5, three poolings by 4, five by 2."""
    return 5 * 4**3 * 2**5

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores waveforms, not log-mels; see `panns_cnn.Cnn`."""
    ops = self.ops(train)
    drop = ops.drop(self.conv_dropout)
    waveform = take_waveform(inputs, self.min_samples)
    x = self.wavegram(waveform, ops)
    # If this block is unused, its statistics must not change.
    y = self.first_block(waveform[..., 0], train=train and self.with_log_mel)
    if self.with_log_mel:
      # The reference fails on lengths that give x and y different numbers of frames.
      num_frames = min(x.shape[1], y.shape[1])
      x = jnp.concatenate([y[:, :num_frames], x[:, :num_frames]], axis=-1)
    x = drop(x)
    for i, filters in enumerate(CNN14["filters"][1:], 2):
      x = ConvBlock(filters, ops, name=f"conv_block{i}")(x)
      x = drop(avg_pool(x, (2, 2)) if i < 6 else x)
    return self.clip_outputs(x, ops)

  def wavegram(self, waveform: jax.Array, ops: Ops) -> jax.Array:
    """Maps <float32>[batch, samples, 1] to <float>[batch, frames, bands, 64]."""
    first, *filters = WAVEGRAM_FILTERS
    x = ops.conv(first, (11,), strides=5, padding=5, name="pre_conv0")(waveform)
    x = nn.relu(ops.norm(name="pre_bn0")(x))
    filters.append(WAVEGRAM_CHANNELS * self.wavegram_bands)
    for i, size in enumerate(filters, 1):
      block = ConvBlock(size, ops, (3,), dilations=(1, 2), name=f"pre_block{i}")
      x = max_pool(block(x), 4)
    x = x.reshape(*x.shape[:2], WAVEGRAM_CHANNELS, self.wavegram_bands).swapaxes(2, 3)
    block = ConvBlock(CNN14["filters"][0], ops, name="pre_block4")
    return avg_pool(block(x), (2, 1))

  def first_block(self, waveform: jax.Array, *, train: bool) -> jax.Array:
    """Maps <float32>[batch, samples] to <float>[batch, frames, mels, 64]."""
    ops = self.ops(train)
    x = self.normalize(self.log_mel(waveform), ops, train)
    return avg_pool(ConvBlock(CNN14["filters"][0], ops, name="conv_block1")(x), (2, 2))
