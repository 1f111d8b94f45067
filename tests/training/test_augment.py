import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax import config as config_lib
from audiotag_jax.models import layers
from audiotag_jax.training import augment

KEY = jax.random.key(0)


def clip_keys(num_clips):
  return layers.clip_keys(KEY, num_clips, None)


KEYS = clip_keys(64)


def augmented(batch, config, axis_name=None):
  step = lambda batch: augment.augment(KEY, batch, config, axis_name)  # noqa: E731
  step = step if axis_name is None else jax.vmap(step, axis_name=axis_name)
  return jax.jit(step)(batch)


def batch_of(shape, num_clips=64):
  rng = np.random.default_rng(0)
  inputs = rng.normal(-40, 10, (num_clips, *shape)).astype(np.float32)
  labels = (rng.random((num_clips, 5)) < 0.4).astype(np.float32)
  return {"inputs": jnp.array(inputs), "labels": jnp.array(labels)}


def test_nothing_is_the_default():
  batch = batch_of((20, 8))
  after = augmented(batch, config_lib.get_config())
  for name, value in batch.items():
    np.testing.assert_array_equal(after[name], value)


def test_a_gain_in_db_is_the_same_for_log_mels_and_waveforms():
  log_mel = batch_of((20, 8))["inputs"]
  gain_db = np.asarray(augment.random_gain(KEYS, log_mel, 6.0) - log_mel)
  assert np.ptp(gain_db, axis=(1, 2)).max() < 1e-4
  assert -6 <= gain_db.min() < -4
  assert 4 < gain_db.max() <= 6
  waveform = batch_of((50,))["inputs"]
  ratio = np.asarray(augment.random_gain(KEYS, waveform, 6.0) / waveform)
  assert 10 ** (-6 / 20) <= ratio.min() < ratio.max() <= 10 ** (6 / 20)
  np.testing.assert_allclose(20 * np.log10(ratio[:, 0]), gain_db[:, 0, 0], atol=1e-4)


def test_a_gain_leaves_silence_on_the_front_end_s_floor():
  silence = jnp.full((64, 3, 4), -100.0)
  after = np.asarray(augment.random_gain(KEYS, silence, 6.0))
  assert after.min() == -100.0


def test_a_roll_goes_around_by_up_to_so_many_steps():
  inputs = jnp.tile(jnp.arange(100.0), (500, 1))
  rolled = np.asarray(augment.random_roll(clip_keys(500), inputs, 10))
  shifts = rolled.argmin(axis=1)
  shifts = np.where(shifts > 50, shifts - 100, shifts)
  assert shifts.min() == -10
  assert shifts.max() == 10
  for row, shift in zip(rolled, shifts, strict=True):
    np.testing.assert_array_equal(row, np.roll(np.arange(100.0), shift))


def test_seconds_become_frames_or_samples():
  config = config_lib.get_config()
  config.augment.roll_s = 0.05  # 5 frames, 1600 samples
  frames = jnp.tile(jnp.arange(100.0)[:, None], (500, 1, 2))
  batch = {"inputs": frames, "labels": jnp.zeros((500, 1))}
  shifts = np.asarray(augmented(batch, config)["inputs"]).argmin(axis=1)
  assert set(shifts[:, 0]) == {*range(6), *range(95, 100)}
  batch["inputs"] = jnp.tile(jnp.arange(20_000.0), (64, 1))
  shifts = np.asarray(augmented(batch, config)["inputs"]).argmin(axis=1)
  assert 1400 < shifts[shifts < 10_000].max() <= 1600


@pytest.mark.parametrize("shape", [(20, 8), (50,)])
def test_mixup_mixes_inputs_and_labels_by_one_weight(shape):
  batch = batch_of(shape)
  mix = functools.partial(augment.mixup, alpha=1.0, share=1.0)
  mixed = jax.jit(mix)(KEYS, batch)
  x, before = (np.asarray(batch["inputs"]).reshape(64, -1) for _ in range(2))
  before = np.roll(x, 1, axis=0)
  y = np.asarray(mixed["inputs"]).reshape(64, -1)
  # Each clip's weight, by least squares on the line between the two clips.
  line = x - before
  weight = ((y - before) * line).sum(axis=1) / (line**2).sum(axis=1)
  assert 0 <= weight.min() < 0.2
  assert 0.8 < weight.max() <= 1.0
  mix = weight[:, None]
  np.testing.assert_allclose(y, mix * x + (1 - mix) * before, atol=1e-3)
  labels = np.asarray(batch["labels"])
  expected = mix * labels + (1 - mix) * np.roll(labels, 1, axis=0)
  np.testing.assert_allclose(mixed["labels"], expected, atol=1e-5)


def test_mixup_of_a_share_leaves_the_others():
  batch = batch_of((20, 8), num_clips=1000)
  mix = functools.partial(augment.mixup, alpha=10.0, share=0.3)
  mixed = jax.jit(mix)(clip_keys(1000), batch)
  same = (np.asarray(mixed["inputs"]) == batch["inputs"]).all(axis=(1, 2))
  assert 0.65 < same.mean() < 0.75


def test_weights_of_alpha_10_are_near_one_half():
  inputs = jnp.tile(jnp.array([[0.0], [1.0]]), (500, 1))
  batch = {"inputs": inputs, "labels": inputs}
  weights = np.asarray(augment.mixup(clip_keys(1000), batch, 10.0, 1.0)["inputs"])[
    1::2, 0
  ]
  # Beta(10, 10): mean 1/2, variance 1 / (4 * 21).
  assert abs(weights.mean() - 0.5) < 0.02
  assert abs(weights.std() - 84**-0.5) < 0.01


@pytest.mark.parametrize("num_devices", [2, 8, 64])
def test_the_augmentation_is_the_same_on_any_number_of_devices(num_devices):
  config = config_lib.get_config()
  config.augment.gain_db, config.augment.roll_s = 6.0, 0.1
  config.augment.mixup_alpha, config.augment.mixup_share = 1.0, 0.5
  batch = batch_of((20, 8))
  whole = augmented(batch, config)
  shares = {k: x.reshape(num_devices, -1, *x.shape[1:]) for k, x in batch.items()}
  shares = augmented(shares, config, "devices")
  for name, expected in whole.items():
    np.testing.assert_allclose(
      shares[name].reshape(expected.shape), expected, atol=1e-4
    )
