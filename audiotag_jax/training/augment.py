"""Augmentation of batches, on the accelerator: level, time roll, mixup.

It acts on the model's inputs, log-mels or waveforms. It draws only from its key and the
clips' places in the whole batch, so that the number of devices changes nothing. The
models apply SpecAugment themselves, after their first norm (models/layers.py); the
input pipeline mixes in background noise (data/noise.py).
"""

import jax
import jax.numpy as jnp
import ml_collections

from audiotag_jax.frontend import mel
from audiotag_jax.models import layers

Batch = dict[str, jax.Array]


def augment(
  key: jax.Array,
  batch: Batch,
  config: ml_collections.ConfigDict,
  axis_name: str | None = None,
) -> Batch:
  """Augments a device's share of a batch as a recipe says.

  Args:
    key: a JAX random key, the same on all devices.
    batch: `inputs`, log-mels <float32>[batch, frames, mels] in dB or waveforms
      <float32>[batch, samples], and `labels` <float32>[batch, classes].
    config: the config.
    axis_name: the axis of the devices; None if one device has the whole batch.

  Returns:
    The batch, with the same shapes; mixed labels are between 0 and 1.
  """
  settings, frontend = config.augment, config.frontend
  gain_keys, roll_keys, mixup_keys = (
    layers.clip_keys(key, len(batch["inputs"]), axis_name)
    for key in jax.random.split(key, 3)
  )
  if settings.gain_db:
    inputs = random_gain(gain_keys, batch["inputs"], settings.gain_db)
    batch = batch | {"inputs": inputs}
  if settings.roll_s:
    hop = 1 if batch["inputs"].ndim == 2 else frontend.hop_samples
    most = round(settings.roll_s * frontend.sample_rate_hz / hop)
    batch = batch | {"inputs": random_roll(roll_keys, batch["inputs"], most)}
  if settings.mixup_alpha:
    alpha, share = settings.mixup_alpha, settings.mixup_share
    batch = mixup(mixup_keys, batch, alpha, share, axis_name)
  return batch


def random_gain(keys: jax.Array, inputs: jax.Array, most_db: float) -> jax.Array:
  """Changes each clip's level by up to `most_db` up or down.

  In a log-mel the gain is added in dB, and values stay at or above the front-end's
  floor.
  """
  gain_db = jax.vmap(
    lambda key: jax.random.uniform(key, minval=-most_db, maxval=most_db)
  )(keys)
  gain_db = gain_db.reshape(-1, *(1,) * (inputs.ndim - 1))
  if inputs.ndim == 2:
    return inputs * 10.0 ** (gain_db / 20.0)
  return jnp.maximum(inputs + gain_db, 10.0 * jnp.log10(mel.MIN_POWER))


def random_roll(keys: jax.Array, inputs: jax.Array, most: int) -> jax.Array:
  """Rolls each clip around in time by up to `most` samples or frames, either way."""

  def roll(key: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.roll(x, jax.random.randint(key, (), -most, most + 1), axis=0)

  return jax.vmap(roll)(keys, inputs)


def mixup(
  keys: jax.Array,
  batch: Batch,
  alpha: float,
  share: float,
  axis_name: str | None = None,
) -> Batch:
  """Mixes a share of the clips, and their labels, with the clip before them.

  Zhang et al. 2018, equation 1: x = c * x1 + (1 - c) * x2, c from Beta(alpha, alpha),
  and the labels likewise. Log-mels are mixed in dB, as in PANNs; waveforms as they are,
  as in PSLA. The batch is in random order, so the clip before is any clip; a device's
  first clip takes the last one of the device before.
  """

  def draw(key: jax.Array) -> jax.Array:
    weight_key, chosen_key = jax.random.split(key)
    is_mixed = jax.random.bernoulli(chosen_key, share)
    return jnp.where(is_mixed, jax.random.beta(weight_key, alpha, alpha), 1.0)

  weights = jax.vmap(draw)(keys)

  def mix(x: jax.Array) -> jax.Array:
    own = weights.reshape(-1, *(1,) * (x.ndim - 1))
    return own * x + (1.0 - own) * clips_before(x, axis_name)

  return batch | {name: mix(batch[name]) for name in ("inputs", "labels")}


def clips_before(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Returns the clip before each of <float>[batch, …]; before the first is the last."""
  last = x[-1:]
  if axis_name is not None:
    count = jax.lax.axis_size(axis_name)
    to_next = [(i, (i + 1) % count) for i in range(count)]
    last = jax.lax.ppermute(last, axis_name, to_next)
  return jnp.concatenate([last, x[:-1]])
