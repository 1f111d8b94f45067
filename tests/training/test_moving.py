"""A run goes on where another number of devices, or an older version, left it."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import chirp

from audiotag_jax import parallel
from audiotag_jax.evaluation import learning_curves
from audiotag_jax.inference import Tagger
from audiotag_jax.training import train
from audiotag_jax.training.run import open_run, restore_or_init

pytestmark = pytest.mark.slow

OLD_RUNS_DIR = Path(__file__).parent / "checkpoints_data"
OLD_RUNS = sorted(path.name for path in OLD_RUNS_DIR.iterdir() if path.is_dir())


@pytest.fixture
def config(tiny_config):
  """A recipe with every draw, and a checkpoint every 3 steps."""
  tiny_config.augment.mixup_alpha = 1.0
  tiny_config.augment.gain_db = 6.0
  tiny_config.augment.roll_s = 0.1
  tiny_config.augment.time_stripes = tiny_config.augment.mel_stripes = 1
  tiny_config.augment.time_stripe_frames = 10
  tiny_config.crnn.conv_dropout = tiny_config.crnn.dropout = 0.3
  tiny_config.train.log_every_steps = 1
  tiny_config.train.eval_every_steps = 3
  return tiny_config


# Numbers of devices, each with the step to stop at.
EVERY_MOVE = ((8, 3), (1, 6), (2, 9), (4, 12))


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


# Clips' draws on other numbers of devices are compared in test_steps and test_augment.
@pytest.mark.exhaustive
@pytest.mark.parametrize(
  ("accumulation_steps", "moves"),
  [
    (1, ((8, 3), (2, 6))),
    (1, EVERY_MOVE),
    (2, EVERY_MOVE),
  ],
)
def test_a_run_moves_between_numbers_of_devices(
  config, tmp_path, accumulation_steps, moves
):
  config.train.num_steps = num_steps = moves[-1][1]
  config.train.accumulation_steps = accumulation_steps
  config.train.batch_size *= accumulation_steps
  train.train_and_evaluate(config, str(tmp_path / "eight"))
  for num_devices, last_step in moves:
    train_until(config, tmp_path / "moved", num_devices, last_step)

  eight, moved = (
    learning_curves.read_scalars(tmp_path / run) for run in ("eight", "moved")
  )
  assert moved["train/loss"][0].tolist() == list(range(1, num_steps + 1))
  assert moved["val/loss"][0].tolist() == list(range(3, num_steps + 1, 3))
  for tag in ("train/loss", "val/loss", "val/mAP"):
    np.testing.assert_allclose(moved[tag][1], eight[tag][1], atol=1e-5)
  scores = [
    np.load(tmp_path / run / "results/predictions.npz")["scores"]
    for run in ("eight", "moved")
  ]
  np.testing.assert_allclose(*scores, atol=1e-5)


def old_config(config):
  """What the runs of `checkpoints_data` were made with."""
  config.frontend.num_mels = 16
  config.crnn.filters = (2, 2)
  config.crnn.mel_pooling = (2, 4)
  config.crnn.gru_units = (2,)
  config.train.ema_decay = 0.9
  config.train.num_steps = 4
  config.train.keep_checkpoints = 2
  return config


@pytest.mark.parametrize("version", OLD_RUNS)
def test_a_run_of_an_earlier_version_goes_on(version, tiny_config, tmp_path):
  shutil.copytree(OLD_RUNS_DIR / version, tmp_path / "run")
  config = old_config(tiny_config)
  run = open_run(config, tmp_path / "run")
  state, _ = restore_or_init(run)
  run.checkpoints.close()
  assert int(state.step) == 2
  # Sums of the absolute values, as they were when the checkpoint was made.
  sums = {
    name: sum(np.abs(x).sum() for x in jax.tree.leaves(getattr(state, name)))
    for name in ("params", "batch_stats", "ema")
  }
  expected = {"params": 69.17410, "batch_stats": 326.83052, "ema": 365.47685}
  assert sums == pytest.approx(expected, rel=1e-6)

  train.train_and_evaluate(config, str(tmp_path / "run"))
  scalars = learning_curves.read_scalars(tmp_path / "run")
  assert scalars["train/loss"][0].tolist() == [4]
  assert np.isfinite(scalars["train/loss"][1]).all()


@pytest.mark.parametrize("version", OLD_RUNS)
def test_a_model_of_an_earlier_version_tags_as_it_did(version):
  tagger = Tagger.load(OLD_RUNS_DIR / version / "model")
  assert tagger.class_names == ("Bell", "Rain", "Siren")
  scores = tagger.tag(chirp(1.0), 44_100)
  np.testing.assert_allclose(scores, [0.195892, 0.318643, 0.723692], atol=1e-4)
