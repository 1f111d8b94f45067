import functools

import jax
import numpy as np
import optax
import pytest
import tiny_models

from audiotag_jax.evaluation.eval_step import eval_step
from audiotag_jax.models.create import create_model

pytestmark = pytest.mark.slow


def test_scores_are_probabilities_and_the_rest_is_handed_back(tiny_config):
  model = create_model(tiny_config, num_classes=3, axis_name=None)
  rng = np.random.default_rng(0)
  batch = {
    "inputs": rng.normal(-40, 15, (4, 26, 64)).astype(np.float32),
    "labels": (rng.random((4, 3)) < 0.4).astype(np.float32),
    "mask": np.ones(4),
    "clip": np.arange(4),
  }
  variables = tiny_models.random_variables(model)
  rows = jax.jit(functools.partial(eval_step, model=model))(variables, batch)
  logits = tiny_models.apply(model, variables, batch["inputs"])["logits"]
  np.testing.assert_allclose(rows["scores"], 1 / (1 + np.exp(-logits)), rtol=1e-5)
  assert rows["loss"].shape == (4,)
  cross_entropy = optax.sigmoid_binary_cross_entropy(logits, batch["labels"])
  np.testing.assert_allclose(rows["loss"], cross_entropy.mean(axis=1), rtol=1e-6)
  assert set(rows) == {"scores", "loss", "mask", "clip"}
