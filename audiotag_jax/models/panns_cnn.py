"""PANNs' CNNs: Cnn6, Cnn10 and Cnn14, for clips or with scores at every frame."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax

from audiotag_jax.models import layers
from audiotag_jax.models.panns_layers import (
  ConvBlock,
  Ops,
  PannsModel,
  avg_pool,
  dense,
  kernel_init,
)

# Bound of the attention's logits before the softmax, as in the reference.
MAX_ATTENTION = 10.0


class Cnn(PannsModel, kw_only=True):
  """Blocks of convolutions; a pooling by two follows each, except CNN14's last.

  Attributes:
    filters: filters of each block.
    kernel_size: side of the square kernels.
    convs_per_block: convolutions of each block.
    pooling: "clip" pools features and classifies the clip; "max", "mean" and
      "attention" pool the segments' probabilities (decision level).
  """

  filters: Sequence[int]
  kernel_size: int
  convs_per_block: int
  pooling: str

  @property
  def num_poolings(self) -> int:
    """Number of poolings by two; the sixth block has no pooling."""
    return min(len(self.filters), 5)

  @property
  def min_frames(self) -> int:
    """Least number of frames of a log-mel that the poolings need."""
    return 2**self.num_poolings

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> dict[str, jax.Array]:
    """Scores clips.

    Args:
      inputs: a waveform <float32>[batch, samples] or a log-mel <float32>[batch,
        frames, mels] in dB.
      train: whether to drop activations and use the batch's statistics.

    Returns:
      `logits` <float32>[batch, classes] and `embedding` <float32>[batch, dim];
      at decision level also `framewise` <float32>[batch, frames, classes],
      probabilities.
    """
    ops = self.ops(train)
    log_mel = self.log_mel(inputs)
    x = self.normalize(log_mel, ops, train)
    for i, filters in enumerate(self.filters, 1):
      kernel, dilations = (self.kernel_size,) * 2, (1,) * self.convs_per_block
      x = ConvBlock(filters, ops, kernel, dilations, name=f"conv_block{i}")(x)
      if i <= self.num_poolings:
        x = avg_pool(x, (2, 2))
      x = ops.drop(self.conv_dropout)(x)
    if self.pooling == "clip":
      return self.clip_outputs(x, ops)
    num_frames = log_mel.shape[1]
    if inputs.ndim == 2:
      num_frames = self.front_end.num_frames(inputs.shape[1])
    return self.segment_outputs(x, ops, num_frames)

  def segment_outputs(
    self, x: jax.Array, ops: Ops, num_frames: int, valid: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Scores segments <float>[batch, segments, mels, features], then the clip.

    If `valid` <bool>[segments] is given, only the segments where it is true count.
    The reference has no embedding at decision level; ours is the segments' mean.
    """
    x = layers.at_least_float32(x).mean(axis=2)
    neighbours = {"window_shape": (3,), "strides": (1,), "padding": [(1, 1)]}
    x = nn.max_pool(x, **neighbours) + nn.avg_pool(x, **neighbours)
    x = ops.drop(self.dropout)(x)
    x = nn.relu(dense(self.embedding_dim, name="fc1")(x))
    x = ops.drop(self.dropout)(x)
    attention = None
    if self.pooling == "attention":
      logits, attention = AttentionHead(self.num_classes, ops, name="att_block")(x)
    else:
      logits = dense(self.num_classes, name="fc_audioset")(x)
    ratio = 2**self.num_poolings
    return {
      "logits": layers.pool_frames(logits, self.pooling, attention, valid),
      "embedding": layers.frames_mean(x, valid),
      "framewise": layers.repeat_segments(nn.sigmoid(logits), num_frames, ratio, valid),
    }


class AttentionHead(nn.Module):
  """Class and attention logits of each segment, as in Cnn14_DecisionLevelAtt."""

  num_classes: int
  ops: Ops

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps <float32>[batch, segments, features] to two [batch, segments, classes]."""
    conv = partial(nn.Conv, self.num_classes, (1,), kernel_init=kernel_init)
    attention = conv(name="att")(x)
    # The reference's state_dict has this norm, but the reference never applies it.
    self.ops.norm(use_running_average=True, name="bn_att")(attention)
    attention = layers.clip(attention, -MAX_ATTENTION, MAX_ATTENTION)
    return conv(name="cla")(x), attention
