"""Augmentation of batches, on the accelerator: level, time roll, mixup.

It acts on the model's inputs, log-mels or waveforms, and draws only from its key. The
models apply SpecAugment themselves, after their first norm (models/layers.py); the
input pipeline mixes in background noise (data/noise.py).
"""

import jax
import jax.numpy as jnp
import ml_collections

from audiotag_jax.frontend import mel

Batch = dict[str, jax.Array]


def augment(key: jax.Array, batch: Batch, config: ml_collections.ConfigDict) -> Batch:
  """Augments a batch as a recipe says.

  Args:
    key: a JAX random key.
    batch: `inputs`, log-mels <float32>[batch, frames, mels] in dB or waveforms
      <float32>[batch, samples], and `labels` <float32>[batch, classes].
    config: the config.

  Returns:
    The batch, with the same shapes; mixed labels are between 0 and 1.
  """
  settings, frontend = config.augment, config.frontend
  gain_key, roll_key, mixup_key = jax.random.split(key, 3)
  if settings.gain_db:
    inputs = random_gain(gain_key, batch["inputs"], settings.gain_db)
    batch = batch | {"inputs": inputs}
  if settings.roll_s:
    hop = 1 if batch["inputs"].ndim == 2 else frontend.hop_samples
    most = round(settings.roll_s * frontend.sample_rate_hz / hop)
    batch = batch | {"inputs": random_roll(roll_key, batch["inputs"], most)}
  if settings.mixup_alpha:
    batch = mixup(mixup_key, batch, settings.mixup_alpha, settings.mixup_share)
  return batch


def random_gain(key: jax.Array, inputs: jax.Array, most_db: float) -> jax.Array:
  """Changes each clip's level by up to `most_db` up or down.

  In a log-mel the gain is added in dB, and values stay at or above the front-end's
  floor.
  """
  shape = (len(inputs), *(1,) * (inputs.ndim - 1))
  gain_db = jax.random.uniform(key, shape, minval=-most_db, maxval=most_db)
  if inputs.ndim == 2:
    return inputs * 10.0 ** (gain_db / 20.0)
  return jnp.maximum(inputs + gain_db, 10.0 * jnp.log10(mel.MIN_POWER))


def random_roll(key: jax.Array, inputs: jax.Array, most: int) -> jax.Array:
  """Rolls each clip around in time by up to `most` samples or frames, either way."""
  shifts = jax.random.randint(key, (len(inputs),), -most, most + 1)
  return jax.vmap(lambda x, shift: jnp.roll(x, shift, axis=0))(inputs, shifts)


def mixup(key: jax.Array, batch: Batch, alpha: float, share: float) -> Batch:
  """Mixes a share of the clips, and their labels, with the clip before them.

  Zhang et al. 2018, equation 1: x = c * x1 + (1 - c) * x2, c from Beta(alpha, alpha),
  and the labels likewise. Log-mels are mixed in dB, as in PANNs; waveforms as they are,
  as in PSLA. The batch is in random order, so the clip before is any clip.
  """
  weight_key, chosen_key = jax.random.split(key)
  size = len(batch["inputs"])
  weight = jax.random.beta(weight_key, alpha, alpha, (size,))
  is_mixed = jax.random.bernoulli(chosen_key, share, (size,))
  weight = jnp.where(is_mixed, weight, 1.0)

  def mix(x: jax.Array) -> jax.Array:
    own = weight.reshape(size, *(1,) * (x.ndim - 1))
    return own * x + (1.0 - own) * jnp.roll(x, 1, axis=0)

  return batch | {name: mix(batch[name]) for name in ("inputs", "labels")}
