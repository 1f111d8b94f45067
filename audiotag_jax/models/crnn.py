"""CRNN: convolutions, a recurrence over pooled frames, pooling to the clip."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.models import layers


class CRNN(nn.Module):
  """Convolutional recurrent network (after Cakir et al. 2017; Fonseca et al. 2020).

  Attributes:
    num_classes: number of classes.
    front_end: parameters of the log-mel that it computes from waveforms.
    filters: filters of each convolution block.
    time_pooling: max-pooling over time of each block; frames beyond a whole pool
      are dropped.
    mel_pooling: max-pooling over frequency of each block.
    kernel_size: side of the square kernels.
    gru_units: units of each bidirectional GRU layer, in one direction.
    pooling: pooling of frames to the clip: see `layers.pool_frames`.
    conv_dropout: share of activations dropped after each block.
    dropout: share of activations dropped before the classifier.
    spec_augment: the stripes of the log-mel that training drops, if any.
    freeze_norm: whether BatchNorm's statistics stay as they are in training.
    axis_name: axis of the devices that share a batch in training; BatchNorm's
      statistics are averaged over it.
    dtype: type of the computation; parameters and logits are float32.
  """

  num_classes: int
  front_end: mel.LogMelParams
  filters: Sequence[int]
  time_pooling: Sequence[int]
  mel_pooling: Sequence[int]
  kernel_size: int
  gru_units: Sequence[int]
  pooling: str
  conv_dropout: float
  dropout: float
  spec_augment: layers.SpecAugment | None = None
  freeze_norm: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def min_samples(self) -> int:
    """Least length of a waveform, which leaves a segment; shorter ones are padded."""
    return (math.prod(self.time_pooling) - 1) * self.front_end.hop_samples

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores clips.

    Args:
      inputs: a waveform <float32>[batch, samples] or a log-mel <float32>[batch,
        frames, mels] in dB.
      train: whether to drop activations and use the batch's statistics.

    Returns:
      `logits` <float32>[batch, classes]; `embedding` <float32>[batch, dim], the mean
      over time of the recurrence; `framewise` <float32>[batch, frames, classes],
      probabilities, repeated to the resolution of the input.
    """
    log_mel = self.log_mel(inputs)
    update_norm = train and not self.freeze_norm
    kernel = (self.kernel_size, self.kernel_size)
    conv = partial(nn.Conv, kernel_size=kernel, use_bias=False, dtype=self.dtype)
    norm = partial(
      nn.BatchNorm,
      use_running_average=not update_norm,
      momentum=0.9,
      axis_name=self.axis_name if update_norm else None,
      dtype=self.dtype,
    )

    x = norm(name="input_norm")(log_mel)
    if train and self.spec_augment:
      key = self.make_rng("dropout")
      x = self.spec_augment(layers.clip_keys(key, len(x), self.axis_name), x)
    x = x[..., None]
    windows = zip(self.time_pooling, self.mel_pooling, strict=True)
    for i, (filters, window) in enumerate(zip(self.filters, windows, strict=True)):
      x = conv(filters, name=f"conv{i}")(x)
      x = nn.relu(norm(name=f"norm{i}")(x))
      x = layers.max_pool(x, window)
      x = layers.Dropout(self.conv_dropout, not train, self.axis_name)(x)
    x = x.reshape(*x.shape[:2], -1)
    for i, units in enumerate(self.gru_units):
      x = layers.BiGRU(units, name=f"gru{i}", dtype=self.dtype)(x)
    x = layers.at_least_float32(x)
    return self.segment_outputs(x, log_mel.shape[1], train=train)

  def log_mel(self, inputs: jax.Array) -> jax.Array:
    """Turns either kind of input into a log-mel <float32>[batch, frames, mels]."""
    if inputs.ndim != 2:
      return inputs
    waveform = log_mel_jax.pad_short(inputs, self.min_samples)
    return log_mel_jax.log_mel(waveform, self.front_end)

  def segment_outputs(
    self,
    x: jax.Array,
    num_frames: int,
    *,
    train: bool,
    valid: jax.Array | None = None,
  ) -> dict[str, jax.Array]:
    """Scores segments <float32>[batch, segments, features], then the clip.

    If `valid` <bool>[segments] is given, only the segments where it is true count.
    """
    embedding = layers.frames_mean(x, valid)
    x = layers.Dropout(self.dropout, not train, self.axis_name)(x)
    logits = nn.Dense(self.num_classes, name="classifier")(x)
    attention = None
    if self.pooling == "attention":
      attention = nn.Dense(self.num_classes, name="attention")(x)
    ratio = math.prod(self.time_pooling)
    return {
      "logits": layers.pool_frames(logits, self.pooling, attention, valid),
      "embedding": embedding,
      "framewise": layers.repeat_segments(nn.sigmoid(logits), num_frames, ratio, valid),
    }
