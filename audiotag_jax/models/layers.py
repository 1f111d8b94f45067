"""Layers that models share: recurrence, poolings, and what training drops."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class BiGRU(nn.Module):
  """A bidirectional GRU layer (Cho et al. 2014, with cuDNN's placement of r).

  Agrees with flax.linen.GRUCell run in both directions. The projections of the
  inputs are one product outside the scan; the scan runs both directions at once.

  Attributes:
    units: units of each direction.
    dtype: type of the computation.
  """

  units: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Maps <float>[batch, frames, features] to <float>[batch, frames, 2 * units].

    Where `valid` <bool>[frames] is false, the hidden state stays as it is.
    """
    projected = nn.DenseGeneral((2, 3 * self.units), name="input", dtype=self.dtype)(x)
    kernel = self.param(
      "recurrent_kernel",
      nn.initializers.orthogonal(),
      (2, self.units, 3 * self.units),
    )
    bias = self.param("recurrent_bias", nn.initializers.zeros, (2, self.units))
    kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)

    forward, backward = projected[:, :, 0], jnp.flip(projected[:, :, 1], axis=1)
    inputs = jnp.concatenate([forward[None], backward[None]]).transpose(2, 0, 1, 3)

    def step(hidden: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
      gates, active = inputs  # [2, batch, 3 * units], [2, 1, 1]
      reset_in, update_in, new_in = jnp.split(gates, 3, axis=-1)
      recurrent = jnp.einsum("dbh,dhk->dbk", hidden, kernel)
      reset_rec, update_rec, new_rec = jnp.split(recurrent, 3, axis=-1)
      reset = nn.sigmoid(reset_in + reset_rec)
      update = nn.sigmoid(update_in + update_rec)
      new = jnp.tanh(new_in + reset * (new_rec + bias[:, None]))
      updated = (1.0 - update) * new + update * hidden
      hidden = updated if active is None else jnp.where(active, updated, hidden)
      return hidden, hidden

    active = None
    if valid is not None:
      active = jnp.stack([valid, jnp.flip(valid)], axis=1)[..., None, None]
    initial = jnp.zeros((2, x.shape[0], self.units), self.dtype)
    _, hidden = jax.lax.scan(step, initial, (inputs, active))
    forward, backward = hidden[:, 0], jnp.flip(hidden[:, 1], axis=0)
    return jnp.concatenate([forward, backward], axis=-1).transpose(1, 0, 2)


def clip_keys(key: jax.Array, num_clips: int, axis_name: str | None) -> jax.Array:
  """Returns a random key for each clip of a device's share of a batch.

  A clip's key depends on the clip's place in the whole batch. So the draws are the same
  on any number of devices.

  Args:
    key: a JAX random key, the same on all devices.
    num_clips: clips of each device; the devices' shares follow one another.
    axis_name: the axis of the devices; None if one device has the whole batch.

  Returns:
    JAX random keys [num_clips].
  """
  first = 0 if axis_name is None else num_clips * jax.lax.axis_index(axis_name)
  places = first + jnp.arange(num_clips)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)


def random_bits(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws 32 random bits for each cell of each clip, for dropout.

  The bits are a hash of the cell's number and the clip's key, with Wellons' "lowbias32"
  (hash-prospector, 2018) as its rounds. JAX's own bits take a CPU as long as a
  convolution, and XLA as long to compile; these become a part of the loop that uses
  them.

  Args:
    keys: JAX random keys [batch]: see `clip_keys`.
    shape: shape of a clip's cells.

  Returns:
    <uint32>[batch, *shape].
  """
  words = jax.random.key_data(keys)[:, :2]
  first, second = (words[:, i].reshape(-1, *(1 for _ in shape)) for i in range(2))
  cells = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
  return _hash(_hash(cells ^ first) ^ second)


def _hash(x: jax.Array) -> jax.Array:
  """Maps <uint32>[…] to <uint32>[…], one to one."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
  x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
  return x ^ (x >> 15)


class Dropout(nn.Module):
  """Dropout; its draws do not depend on the number of devices: see `clip_keys`.

  Attributes:
    rate: share of activations that training drops, below 1.
    deterministic: whether nothing is dropped.
    axis_name: the axis of the devices that share a batch, if any.
  """

  rate: float
  deterministic: bool
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps <float>[batch, …] to the same shape."""
    if self.deterministic or self.rate == 0.0:
      return x
    keys = clip_keys(self.make_rng("dropout"), len(x), self.axis_name)
    kept = random_bits(keys, x.shape[1:]) >= jnp.uint32(self.rate * 2**32)
    return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


def at_least_float32(x: jax.Array) -> jax.Array:
  """Widens narrower types, such as bfloat16, to float32."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def frames_mean(x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """Mean over the frames of <float>[batch, frames, features], or the `valid` ones."""
  if valid is None:
    return x.mean(axis=1)
  return jnp.where(valid[:, None], x, 0.0).sum(axis=1) / valid.sum()


def frames_max(x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """Maximum over the frames of <float>[batch, frames, features], or `valid` ones.

  The first of equal frames gets the gradient: see `largest_cell`.
  """
  if valid is not None:
    x = jnp.where(valid[:, None], x, -jnp.inf)
  first = jnp.argmax(jax.lax.stop_gradient(x), axis=1, keepdims=True)
  return jnp.take_along_axis(x, first, axis=1, mode="promise_in_bounds")[:, 0]


def clip(x: jax.Array, low: float, high: float) -> jax.Array:
  """Bounds <float>[…]; the gradient is zero at a bound and beyond.

  The gradient of `jnp.clip` and `nn.relu6` compares the result with its operand, which
  a compiled program may have computed twice: see `largest_cell`.
  """
  return jax.lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


def repeat_segments(
  x: jax.Array, num_frames: int, ratio: int, valid: jax.Array | None = None
) -> jax.Array:
  """Repeats each segment's values for its frames, the last one's for leftover frames.

  Args:
    x: <float>[batch, segments, features].
    num_frames: frames before they were pooled to segments.
    ratio: frames of a segment.
    valid: <bool>[segments], the segments that count; all if None.

  Returns:
    <float>[batch, num_frames, features].
  """
  num_segments = x.shape[1] if valid is None else valid.sum()
  return x[:, jnp.minimum(jnp.arange(num_frames) // ratio, num_segments - 1)]


def max_pool(x: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Max-pools <float>[batch, frames, mels, channels] in adjacent windows.

  Values and gradients equal those of nn.max_pool with strides equal to the window and
  padding "VALID".
  """
  return largest_cell(_windows(x, window), window)


def avg_pool(x: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Averages <float>[batch, frames, mels, channels] in adjacent windows.

  Values and gradients equal those of nn.avg_pool with strides equal to the window.
  """
  return _mean_cell(_windows(x, window), window)


def _windows(x: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Cuts into whole windows: [batch, frames, height, mels, width, channels]."""
  batch, frames, mels, channels = x.shape
  frames, mels = frames // window[0], mels // window[1]
  x = x[:, : frames * window[0], : mels * window[1]]
  return x.reshape(batch, frames, window[0], mels, window[1], channels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean_cell(windows: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Averages the cells of each window.

  A sum of slices takes a CPU a quarter of the time of XLA's windowed sum, and its
  gradient, spelled out below, a third.
  """
  cells = [windows[:, :, row, :, column] for row, column in np.ndindex(window)]
  return functools.reduce(jnp.add, cells) / len(cells)


def _mean_cell_forward(
  windows: jax.Array, window: tuple[int, int]
) -> tuple[jax.Array, None]:
  return _mean_cell(windows, window), None


def _spread_to_cells(
  window: tuple[int, int], _: None, gradient: jax.Array
) -> tuple[jax.Array]:
  """Gives each cell an equal share of its window's gradient."""
  batch, frames, mels, channels = gradient.shape
  share = (gradient / math.prod(window))[:, :, None, :, None]
  shape = (batch, frames, window[0], mels, window[1], channels)
  return (jnp.broadcast_to(share, shape),)


_mean_cell.defvjp(_mean_cell_forward, _spread_to_cells)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest_cell(windows: jax.Array, window: tuple[int, int]) -> jax.Array:
  """Takes the largest cell of each window; the first of equal ones gets the gradient.

  The gradient chooses the cell by its stored index. JAX's own gradient of a maximum
  compares cells with the maximum. For this comparison, XLA may compute the cells again
  and round them differently: then no cell equals the maximum, and the gradient is lost.

  Args:
    windows: <float>[batch, frames, height, mels, width, channels].
    window: (height, width).

  Returns:
    <float>[batch, frames, mels, channels].
  """
  return _largest_cell(windows, window)[0]


def _largest_cell(
  windows: jax.Array, window: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
  """Returns the largest cells and their indices <uint>, counted row by row."""
  largest = windows[:, :, 0, :, 0]
  index = jnp.zeros(largest.shape, np.min_scalar_type(math.prod(window) - 1))
  for i, (row, column) in enumerate(np.ndindex(window)):
    cell = windows[:, :, row, :, column]
    is_larger = (cell > largest) | jnp.isnan(cell)
    largest = jnp.where(is_larger, cell, largest)
    index = jnp.where(is_larger, index.dtype.type(i), index)
  return largest, index


def _scatter_to_cells(
  window: tuple[int, int], index: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
  """Gives each window's gradient to the cell of its index."""
  height, width = window
  cells = jnp.arange(height * width, dtype=index.dtype)
  cells = cells.reshape(height, 1, width, 1)
  index, gradient = index[:, :, None, :, None], gradient[:, :, None, :, None]
  return (jnp.where(index == cells, gradient, jnp.zeros((), gradient.dtype)),)


largest_cell.defvjp(_largest_cell, _scatter_to_cells)


@dataclasses.dataclass(frozen=True)
class SpecAugment:
  """Stripes along time and frequency that training drops (Park et al. 2019).

  Attributes:
    time_stripes: stripes along time.
    time_stripe_frames: bound of their width.
    mel_stripes: stripes along frequency.
    mel_stripe_bands: bound of their width.
  """

  time_stripes: int
  time_stripe_frames: int
  mel_stripes: int
  mel_stripe_bands: int

  def __call__(self, keys: jax.Array, x: jax.Array) -> jax.Array:
    """Sets stripes of normalised log-mels to zero.

    Args:
      keys: JAX random keys [batch]: see `clip_keys`.
      x: <float>[batch, frames, mels].

    Returns:
      <float>[batch, frames, mels].
    """
    return jax.vmap(self._drop)(keys, x)

  def _drop(self, key: jax.Array, x: jax.Array) -> jax.Array:
    time_key, mel_key = jax.random.split(key)
    x = drop_stripes(time_key, x, 0, self.time_stripes, self.time_stripe_frames)
    return drop_stripes(mel_key, x, 1, self.mel_stripes, self.mel_stripe_bands)


def drop_stripes(
  key: jax.Array, x: jax.Array, axis: int, num_stripes: int, width: int
) -> jax.Array:
  """Sets stripes along an axis of a clip to zero.

  As in torchlibrosa, a stripe is 0 to `width` - 1 wide, and stripes may overlap.

  Args:
    key: a JAX random key.
    x: <float>[…].
    axis: the axis along which a stripe has its width.
    num_stripes: stripes of the clip.
    width: bound of a stripe's width.

  Returns:
    <float>[…].
  """
  size = x.shape[axis]
  width_key, start_key = jax.random.split(key)
  shape = (num_stripes, 1)
  widths = jax.random.randint(width_key, shape, 0, max(1, min(width, size)))
  starts = jax.random.randint(start_key, shape, 0, size - widths)
  positions = jnp.arange(size)
  dropped = ((starts <= positions) & (positions < starts + widths)).any(axis=0)
  others = [i for i in range(x.ndim) if i != axis]
  return jnp.where(jnp.expand_dims(dropped, others), jnp.zeros((), x.dtype), x)


def pool_frames(
  logits: jax.Array,
  pooling: str,
  attention: jax.Array | None = None,
  valid: jax.Array | None = None,
) -> jax.Array:
  """Pools the frames' class probabilities to the clip's, in logits.

  The clip's probability is a weighted mean of the frames' probabilities p (the
  largest one with "max"), as in Wang, Li and Metze, "A comparison of five multiple
  instance learning pooling functions for sound event detection with weak labeling"
  (2019), table 1. The weights sum to one over the frames, so that the mean of p and
  of 1 - p can both be formed in the log domain, where neither underflows.

  Args:
    logits: <float32>[batch, frames, classes].
    pooling: "mean" (equal weights), "linear_softmax" (weights p), "attention"
      (weights softmax(attention) over frames) or "max".
    attention: <float32>[batch, frames, classes], only for "attention".
    valid: <bool>[frames], the frames that count; all if None.

  Returns:
    <float32>[batch, classes], logits of the pooled probabilities.
  """
  if pooling == "max":
    return frames_max(logits, valid)
  log_p, log_not_p = nn.log_sigmoid(logits), nn.log_sigmoid(-logits)
  weights = {
    "mean": jnp.zeros_like(logits),
    "linear_softmax": log_p,
    "attention": attention,
  }
  log_weights = weights[pooling]
  if log_weights is None:
    raise ValueError("pooling by attention needs the frames' attention")
  if valid is not None:
    log_weights = jnp.where(valid[:, None], log_weights, -jnp.inf)
  log_weights = nn.log_softmax(log_weights, axis=1)
  pool = jax.nn.logsumexp
  return pool(log_weights + log_p, axis=1) - pool(log_weights + log_not_p, axis=1)
