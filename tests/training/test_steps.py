import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_models

from audiotag_jax import parallel
from audiotag_jax.models.create import create_model
from audiotag_jax.training import finetune, optim, steps

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tiny_config):
  tiny_config.crnn.dropout = 0.0
  tiny_config.crnn.conv_dropout = 0.0
  return tiny_config


def batch_of(num_clips, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "inputs": rng.normal(-40, 15, (num_clips, 26, 64)).astype(np.float32),
    "labels": (rng.random((num_clips, 3)) < 0.4).astype(np.float32),
  }


def setup(config, num_devices):
  """Returns a step pmapped over some devices, the sharding of a batch, the state."""
  model = create_model(config, num_classes=3, axis_name=parallel.AXIS)
  scales = finetune.learning_rate_scales(model, config, (1, 26, 64))
  tx = optim.create_optimizer(config.train, scales)
  labels = batch_of(16)["labels"]
  step = steps.create_train_step(config, model, tx, scales, labels, parallel.AXIS)
  devices = jax.devices()[:num_devices]
  with_ema = config.train.ema_decay > 0
  state = steps.create_state(model, tx, config.seed, (1, 26, 64), with_ema=with_ema)
  state = jax.tree.map(lambda x: np.stack([x] * num_devices), state)

  def shard(batch):
    return {k: v.reshape(num_devices, -1, *v.shape[1:]) for k, v in batch.items()}

  return jax.pmap(step, axis_name=parallel.AXIS, devices=devices), shard, state


def run(config, num_devices, num_steps=5):
  step, shard, state = setup(config, num_devices)
  metrics = []
  for i in range(num_steps):
    state, step_metrics = step(state, shard(batch_of(16, seed=i)))
    metrics.append({k: np.asarray(v)[0] for k, v in step_metrics.items()})
  return jax.tree.map(lambda x: np.asarray(x)[0], state), metrics


def assert_close(a, b, **tolerance):
  jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


@pytest.mark.parametrize(
  "accumulation_steps", [1, pytest.param(2, marks=pytest.mark.exhaustive)]
)
def test_eight_devices_train_as_one_does(tiny_config, accumulation_steps):
  assert jax.local_device_count() == 8
  tiny_config.train.accumulation_steps = accumulation_steps
  one, one_metrics = run(tiny_config, 1)
  eight, eight_metrics = run(tiny_config, 8)
  assert_close(one_metrics, eight_metrics, atol=1e-5)
  assert_close(one.batch_stats, eight.batch_stats, rtol=1e-4, atol=1e-4)
  assert int(one.step) == int(eight.step) == 5


def test_all_devices_hold_the_same_state(config):
  config.crnn.dropout = 0.3  # each clip drops other units, yet all take the same step
  step, shard, state = setup(config, 8)
  state, _ = step(state, shard(batch_of(16)))
  for leaf in jax.tree.leaves(state):
    for device in range(1, 8):
      np.testing.assert_array_equal(leaf[0], leaf[device])


def test_the_loss_is_the_mean_binary_cross_entropy(config):
  _, metrics = run(config, 1, num_steps=1)
  model = create_model(config, num_classes=3, axis_name=None)
  state = steps.create_state(model, optax.identity(), config.seed, (1, 26, 64))
  batch = batch_of(16)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  outputs, _ = tiny_models.apply_in_training(model, variables, batch["inputs"])
  p = jax.nn.sigmoid(outputs["logits"])
  labels = batch["labels"]
  expected = -(labels * jnp.log(p) + (1 - labels) * jnp.log(1 - p)).mean()
  np.testing.assert_allclose(metrics[0]["loss"], expected, rtol=1e-5)


def test_the_learning_rate_is_that_of_the_step(config):
  _, metrics = run(config, 1, num_steps=3)
  schedule = optim.learning_rate_schedule(config.train)
  assert [m["learning_rate"] for m in metrics] == [schedule(i) for i in range(3)]


def test_accumulating_two_equal_halves_is_one_step_on_the_half(config):
  config.train.warmup_share = 0.0
  half = batch_of(8)
  step, shard, state = setup(config, 1)
  expected, metrics = step(state, shard(half))
  config.train.accumulation_steps = 2
  step, shard, state = setup(config, 1)
  both = {k: np.repeat(v, 2, axis=0) for k, v in half.items()}  # dealt out in turn
  accumulated, accumulated_metrics = step(state, shard(both))
  assert_close(metrics, accumulated_metrics, rtol=1e-5)
  assert_close(expected.params, accumulated.params, atol=1e-6)


def test_dropout_is_drawn_from_the_step(config):
  config.crnn.dropout = 0.5
  step, shard, state = setup(config, 1)
  batch = shard(batch_of(16))
  _, first = step(state, batch)
  _, again = step(state, batch)
  _, other = step(state.replace(step=state.step + 1), batch)
  assert first["loss"] == again["loss"] != other["loss"]


def test_the_moving_average_is_the_hand_computed_one(config):
  config.train.ema_decay = 0.15
  config.train.warmup_share = 0.0
  step, shard, state = setup(config, 1)
  kernel, expected = state.params["conv0"]["kernel"], state.params["conv0"]["kernel"]
  for decay in (0.1, 0.15):  # 1 / 10, then 0.15 and not 2 / 11
    state, _ = step(state, shard(batch_of(16)))
    new = state.params["conv0"]["kernel"]
    assert not np.allclose(new, kernel, atol=1e-6)
    expected = decay * expected + (1 - decay) * np.asarray(new)
  np.testing.assert_allclose(
    state.ema["params"]["conv0"]["kernel"], expected, atol=1e-6
  )
  assert state.variables is state.ema
  assert set(state.ema) == {"params", "batch_stats"}


def test_without_a_moving_average_the_weights_are_evaluated(config):
  _, _, state = setup(config, 1)
  assert not jax.tree.leaves(state.ema)
  assert state.variables == {"params": state.params, "batch_stats": state.batch_stats}


def test_the_recipe_s_augmentation_and_loss_are_trained_with(config):
  _, plain = run(config, 1, num_steps=1)
  config.augment.mixup_alpha = 1.0
  _, mixed = run(config, 1, num_steps=1)
  config.augment.mixup_alpha = 0.0
  config.loss.name = "focal"
  _, focal = run(config, 1, num_steps=1)
  losses = [float(m[0]["loss"]) for m in (plain, mixed, focal)]
  assert losses[1] != losses[0]
  assert losses[2] < 0.5 * losses[0]  # (1 - p)^2 is about a quarter at first
