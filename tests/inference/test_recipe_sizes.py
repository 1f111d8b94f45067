"""The Tagger at recipes' sizes, compared with the model op by op in float64.

The Tagger pads a clip, masks the padding, and on a CPU has convolutions of its own.
"""

import dataclasses
from pathlib import Path

import numpy as np
import op_by_op
import pytest
import tiny_models
from conftest import chirp

from audiotag_jax import recipes
from audiotag_jax.inference import Tagger
from audiotag_jax.model_directory import ModelDescription
from audiotag_jax.models.create import create_model, model_fields

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = ("crnn_fsd50k", "crnn_fsd50k_small", "cnn10_fsd50k", "cnn14_fsd50k")


@pytest.mark.parametrize(
  "recipe",
  ["crnn_demo", *(pytest.param(x, marks=pytest.mark.exhaustive) for x in RECIPES)],
)
def test_outputs_are_those_of_the_definition(recipe, record_property):
  config = recipes.read_recipe(CONFIGS / f"{recipe}.py")
  model = create_model(config, num_classes=5, axis_name=None)
  variables = tiny_models.random_variables(model)
  description = ModelDescription(
    architecture=config.model.name,
    fields=model_fields(model),
    front_end=dataclasses.asdict(model.front_end),
    class_names=list("abcde"),
    source={},
  )
  tagger = Tagger(description, variables)

  def apply(variables, x):
    return model.clone(dtype=np.float64).apply(variables, x, train=False)

  for seconds in (config.data.clip_s, 0.37 * config.data.clip_s):
    rate_hz = tagger.sample_rate_hz
    waveform = np.float32(chirp(seconds, rate_hz=rate_hz))
    defined = op_by_op.evaluate(apply, variables, waveform[None])
    scores = 1.0 / (1.0 + np.exp(-defined["logits"][0]))
    assert np.ptp(scores) > 0.01
    pairs = {
      "scores": (tagger.tag(waveform, rate_hz), scores),
      "embedding": (tagger.embed(waveform, rate_hz), defined["embedding"][0]),
    }
    if tagger.has_frames:
      frames = tagger.frames(waveform, rate_hz).values
      pairs["framewise"] = (frames, defined["framewise"][0])
    for key, (ours, expected) in pairs.items():
      error = np.abs(ours - expected).max() / np.abs(expected).max()
      record_property(f"{key}, {seconds:g} s", float(error))
      assert error <= 5e-5, (key, seconds, error)
