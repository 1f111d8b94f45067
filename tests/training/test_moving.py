"""A run goes on where another number of devices left it."""

import jax
import numpy as np
import pytest

from audiotag_jax import parallel
from audiotag_jax.evaluation import learning_curves
from audiotag_jax.training import train

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tiny_config):
  """12 steps with every draw, a checkpoint every 3 steps."""
  tiny_config.augment.mixup_alpha = 1.0
  tiny_config.augment.gain_db = 6.0
  tiny_config.augment.roll_s = 0.1
  tiny_config.augment.time_stripes = tiny_config.augment.mel_stripes = 1
  tiny_config.augment.time_stripe_frames = 10
  tiny_config.crnn.conv_dropout = tiny_config.crnn.dropout = 0.3
  tiny_config.train.num_steps = 12
  tiny_config.train.log_every_steps = 1
  tiny_config.train.eval_every_steps = 3
  return tiny_config


class Stopped(Exception):
  """A stop before a step."""


def train_until(config, workdir, num_devices, last_step):
  """Trains on some of the eight devices, and stops before the step after the last."""
  shard, num_calls = parallel.shard, 0

  def stop(batch):
    nonlocal num_calls
    num_calls += "mask" not in batch
    if num_calls > 3 and last_step < config.train.num_steps:
      raise Stopped
    return shard(batch)

  devices = jax.devices()[:num_devices]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "local_devices", lambda: devices)
    for count in ("device_count", "local_device_count"):
      patch.setattr(jax, count, lambda: num_devices)
    patch.setattr(parallel, "shard", stop)
    try:
      train.train_and_evaluate(config, str(workdir))
    except Stopped:
      assert last_step < config.train.num_steps


@pytest.mark.parametrize(
  "accumulation_steps", [1, pytest.param(2, marks=pytest.mark.exhaustive)]
)
def test_a_run_moves_between_eight_one_two_and_four_devices(
  config, tmp_path, accumulation_steps
):
  config.train.accumulation_steps = accumulation_steps
  config.train.batch_size *= accumulation_steps
  train.train_and_evaluate(config, str(tmp_path / "eight"))
  for num_devices, last_step in ((8, 3), (1, 6), (2, 9), (4, 12)):
    train_until(config, tmp_path / "moved", num_devices, last_step)

  eight, moved = (
    learning_curves.read_scalars(tmp_path / run) for run in ("eight", "moved")
  )
  assert moved["train/loss"][0].tolist() == list(range(1, 13))
  assert moved["val/loss"][0].tolist() == [3, 6, 9, 12]
  for tag in ("train/loss", "val/loss", "val/mAP"):
    np.testing.assert_allclose(moved[tag][1], eight[tag][1], atol=1e-5)
  scores = [
    np.load(tmp_path / run / "results/predictions.npz")["scores"]
    for run in ("eight", "moved")
  ]
  np.testing.assert_allclose(*scores, atol=1e-5)
