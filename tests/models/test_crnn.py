import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from audiotag_jax import config as config_lib
from audiotag_jax.models.create import create_model

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def recipe(name):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def num_params(config, num_frames):
  model = create_model(config, num_classes=200, axis_name=None)
  log_mel = jnp.zeros((1, num_frames, config.frontend.num_mels))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), log_mel, train=False))
  return sum(x.size for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
  ("name", "num_frames", "expected"),
  [("crnn_fsd50k", 1001, 1_949_136), ("crnn_fsd50k_paper", 101, 1_047_504)],
)
def test_number_of_parameters(name, num_frames, expected):
  assert num_params(recipe(name), num_frames) == expected


@pytest.fixture
def config():
  config = config_lib.get_config()
  config.crnn.filters = (4, 8)
  config.crnn.time_pooling = (2, 4)
  config.crnn.mel_pooling = (4, 4)
  config.crnn.gru_units = (6,)
  return config


def log_mels(num_clips=2, num_frames=50):
  rng = np.random.default_rng(0)
  return rng.normal(-40, 15, (num_clips, num_frames, 64)).astype(np.float32)


def init(config):
  model = create_model(config, num_classes=5, axis_name=None)
  return model, tiny_models.random_variables(model)


def test_outputs(config):
  log_mel = log_mels()
  model, variables = init(config)
  outputs = tiny_models.apply(model, variables, log_mel)
  shapes = {name: value.shape for name, value in outputs.items()}
  assert shapes == {"logits": (2, 5), "embedding": (2, 12), "framewise": (2, 50, 5)}
  assert ((outputs["framewise"] >= 0) & (outputs["framewise"] <= 1)).all()
  again = tiny_models.apply(model, variables, log_mel)
  np.testing.assert_array_equal(outputs["logits"], again["logits"])


def test_time_is_pooled_before_the_recurrence(config):
  log_mel = log_mels(num_frames=50)
  model, variables = init(config)
  framewise = tiny_models.apply(model, variables, log_mel)["framewise"]
  distinct = np.unique(np.asarray(framewise)[0], axis=0)
  assert len(distinct) == 50 // 8


def test_max_pooling_takes_the_largest_frame(config):
  config.crnn.pooling = "max"
  log_mel = log_mels()
  model, variables = init(config)
  outputs = tiny_models.apply(model, variables, log_mel)
  expected = outputs["framewise"].max(axis=1)
  np.testing.assert_allclose(jax.nn.sigmoid(outputs["logits"]), expected, rtol=1e-5)


def test_bfloat16_gives_float32_logits_near_those_of_float32(config):
  log_mel = log_mels()
  model, variables = init(config)
  exact = tiny_models.apply(model, variables, log_mel)["logits"]
  config.model.dtype = "bfloat16"
  model, _ = init(config)
  rough = tiny_models.apply(model, variables, log_mel)["logits"]
  assert rough.dtype == jnp.float32
  np.testing.assert_allclose(rough, exact, atol=0.05)
  assert not np.array_equal(rough, exact)


def test_training_updates_the_batch_statistics(config):
  log_mel = log_mels()
  model, variables = init(config)
  _, updated = tiny_models.apply_in_training(model, variables, log_mel)
  before = variables["batch_stats"]["input_norm"]["mean"]
  expected = 0.9 * before + 0.1 * log_mel.mean(axis=(0, 1))
  np.testing.assert_allclose(updated["input_norm"]["mean"], expected, rtol=1e-4)


def test_the_embedding_is_the_mean_of_the_recurrence_in_float32(config):
  config.model.dtype = "bfloat16"
  log_mel = log_mels()
  model, variables = init(config)
  outputs, state = model.apply(
    variables, log_mel, train=False, capture_intermediates=True
  )
  recurrence = state["intermediates"]["gru0"]["__call__"][0]
  assert recurrence.shape == (2, 50 // 8, 12)
  assert outputs["embedding"].dtype == jnp.float32
  expected = recurrence.astype(jnp.float32).mean(axis=1)
  np.testing.assert_allclose(outputs["embedding"], expected, rtol=1e-6)


def test_pooled_frames_are_held_in_their_order(config):
  log_mel = log_mels(num_clips=1, num_frames=50)
  model, variables = init(config)
  framewise = tiny_models.apply(model, variables, log_mel)["framewise"][0]
  changes = np.flatnonzero(np.diff(framewise, axis=0).any(axis=1)) + 1
  # Six segments of 2 x 4 frames; the last segment also gets the two leftover frames.
  assert changes.tolist() == [8, 16, 24, 32, 40]


def test_activations_are_dropped_in_training_alone(config):
  log_mel = log_mels()
  model, variables = init(config)

  def logits(seed):
    return tiny_models.apply_in_training(model, variables, log_mel, seed)[0]["logits"]

  np.testing.assert_array_equal(logits(0), logits(0))
  assert not np.array_equal(logits(0), logits(1))


def test_frozen_batch_statistics_stay_as_they_are(config):
  config.finetune.mode = "linear"
  log_mel = log_mels()
  model, variables = init(config)
  _, updated = tiny_models.apply_in_training(model, variables, log_mel)
  jax.tree.map(np.testing.assert_array_equal, updated, variables["batch_stats"])
