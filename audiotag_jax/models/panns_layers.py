"""Parts that the PANNs architectures share: fields, input, blocks, pooling, head.

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
Recognition" (2020). Layers that have a name in the authors' PyTorch state_dicts have
the same name here; `audiotag_jax/panns/tables.py` has the mapping.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from audiotag_jax.errors import UserError
from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.models import layers

# Initial distribution of the reference's kernels; the reference's biases start at zero.
kernel_init = nn.initializers.xavier_uniform()
dense = partial(nn.Dense, kernel_init=kernel_init)


class Ops(NamedTuple):
  """Layers with their common arguments filled in.

  Attributes:
    conv: a convolution without bias; takes filters, kernel size and padding.
    norm: a BatchNorm.
    drop: a dropout; takes its rate.
  """

  conv: partial
  norm: partial
  drop: partial


class PannsModel(nn.Module):
  """The fields of all PANNs architectures, and the steps that most of them share.

  Attributes:
    num_classes: number of classes.
    front_end: parameters of the log-mel that the weights expect; a model without a
      log-mel uses only the sample rate.
    embedding_dim: units of `fc1`.
    conv_dropout: share of activations dropped after each convolution block.
    dropout: share of activations dropped before and after `fc1`.
    spec_augment: the stripes of the log-mel that training drops, if any.
    freeze_norm: whether BatchNorm's statistics stay as they are in training.
    axis_name: axis of the devices that share a batch in training; BatchNorm's
      statistics are averaged over it.
    dtype: type of the computation; parameters, the head and logits are float32.
  """

  num_classes: int
  front_end: mel.LogMelParams
  embedding_dim: int
  conv_dropout: float = 0.2
  dropout: float = 0.5
  spec_augment: layers.SpecAugment | None = None
  freeze_norm: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def min_frames(self) -> int:
    """Least number of frames of a log-mel that five poolings by two need."""
    return 2**5

  @property
  def min_samples(self) -> int:
    """Least length of a waveform; shorter ones are padded with zeros."""
    return (self.min_frames - 1) * self.front_end.hop_samples

  def ops(self, train: bool) -> Ops:
    """Returns the layers for training or for evaluation."""
    update_norm = train and not self.freeze_norm
    return Ops(
      conv=partial(nn.Conv, use_bias=False, kernel_init=kernel_init, dtype=self.dtype),
      norm=partial(
        nn.BatchNorm,
        use_running_average=not update_norm,
        momentum=0.9,  # PyTorch's 0.1
        epsilon=1e-5,
        axis_name=self.axis_name if update_norm else None,
        dtype=self.dtype,
      ),
      drop=partial(layers.Dropout, deterministic=not train, axis_name=self.axis_name),
    )

  def log_mel(self, inputs: jax.Array) -> jax.Array:
    """Turns either kind of input into a log-mel.

    Args:
      inputs: a waveform <float32>[batch, samples], which is padded with zeros if
        short, or a log-mel <float32>[batch, frames, mels] in dB.

    Returns:
      <float32>[batch, frames, mels].

    Raises:
      UserError: a log-mel has too few frames or another number of bands.
    """
    if inputs.ndim == 2:
      inputs = log_mel_jax.pad_short(inputs, self.min_samples)
      return log_mel_jax.log_mel(inputs, self.front_end)
    num_frames, num_mels = inputs.shape[1:]
    if num_mels != self.front_end.num_mels:
      raise UserError(
        f"the model takes {self.front_end.num_mels} mel bands, not {num_mels}"
      )
    if num_frames < self.min_frames:
      raise UserError(
        f"the model needs a log-mel of at least {self.min_frames} frames, not "
        f"{num_frames}: pad the waveform before the front-end"
      )
    return inputs

  def normalize(self, log_mel: jax.Array, ops: Ops, train: bool) -> jax.Array:
    """Applies `bn0` over mels, then SpecAugment: <float>[batch, frames, mels, 1]."""
    x = ops.norm(name="bn0")(log_mel)
    if train and self.spec_augment:
      key = self.make_rng("dropout")
      x = self.spec_augment(layers.clip_keys(key, len(x), self.axis_name), x)
    return x[..., None]

  def clip_outputs(
    self, x: jax.Array, ops: Ops, valid: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Pools <float>[batch, frames, …, features] to the clip and scores it.

    If `valid` <bool>[frames] is given, only the frames where it is true count. The
    dropout after `fc1` acts on the embedding only: the classifier sees all of `fc1`.
    """
    x = layers.at_least_float32(x)
    x = x.mean(axis=tuple(range(2, x.ndim - 1)))
    x = layers.frames_max(x, valid) + layers.frames_mean(x, valid)
    x = ops.drop(self.dropout)(x)
    x = nn.relu(dense(self.embedding_dim, name="fc1")(x))
    return {
      "logits": dense(self.num_classes, name="fc_audioset")(x),
      "embedding": ops.drop(self.dropout)(x),
    }


def take_waveform(inputs: jax.Array, min_samples: int) -> jax.Array:
  """Returns <float32>[batch, samples, 1], padded with zeros to `min_samples`.

  Raises:
    UserError: the inputs are not waveforms.
  """
  if inputs.ndim != 2:
    raise UserError(
      "the model takes only waveforms [batch, samples], "
      f"not inputs of shape {list(inputs.shape)}"
    )
  return log_mel_jax.pad_short(inputs, min_samples)[..., None]


class ConvBlock(nn.Module):
  """Convolutions in a row, each with BatchNorm and ReLU.

  Attributes:
    filters: filters of each convolution.
    ops: the layers.
    kernel: size of the kernels, over time or over time and frequency.
    dilations: an entry for each convolution.
    strides: stride of the first convolution.
  """

  filters: int
  ops: Ops
  kernel: Sequence[int] = (3, 3)
  dilations: Sequence[int] = (1, 1)
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps <float>[batch, frames, …, channels] to <float>[…, filters]."""
    for i, dilation in enumerate(self.dilations, 1):
      x = self.ops.conv(
        self.filters,
        self.kernel,
        strides=self.strides if i == 1 else 1,
        padding=[(dilation * (size // 2),) * 2 for size in self.kernel],
        kernel_dilation=dilation,
        name=f"conv{i}",
      )(x)
      x = nn.relu(self.ops.norm(name=f"bn{i}")(x))
    return x


def avg_pool(x: jax.Array, window: Sequence[int]) -> jax.Array:
  """Mean over adjacent windows; values beyond the last whole window are dropped."""
  if len(window) == 1:
    return nn.avg_pool(x, tuple(window), strides=tuple(window))
  return layers.avg_pool(x, (window[0], window[1]))


def max_pool(x: jax.Array, window: int, padding: int = 0) -> jax.Array:
  """Maximum over adjacent windows of time, <float>[batch, frames, channels]."""
  return nn.max_pool(x, (window,), strides=(window,), padding=[(padding, padding)])
