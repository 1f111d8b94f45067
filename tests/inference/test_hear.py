"""The checks of hearvalidator 2021.0.2; embeddings compared with the Tagger's.

The package itself requires `tensorflow`, which has the files of `tensorflow-cpu`.
"""

import numpy as np
import pytest
import tiny_models
import torch

from audiotag_jax.errors import UserError
from audiotag_jax.inference import hear
from audiotag_jax.panns import architectures

pytestmark = pytest.mark.slow


def load(directory, front_end):
  return hear.load_model(str(tiny_models.write(directory, "Cnn6", front_end=front_end)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return load(tmp_path_factory.mktemp("models") / "model", architectures.FRONT_END_16K)


def noise(num_clips, seconds, rate_hz):
  generator = torch.Generator().manual_seed(0)
  shape = (num_clips, int(seconds * rate_hz))
  return 2 * torch.rand(shape, generator=generator) - 1


def test_the_attributes_of_a_model(model):
  assert isinstance(model.to("cpu"), torch.nn.Module)
  assert model.sample_rate == 16_000
  assert type(model.scene_embedding_size) is type(model.timestamp_embedding_size) is int


@pytest.mark.parametrize(
  ("front_end", "rate_hz"),
  [(architectures.FRONT_END_8K, 16_000), (architectures.FRONT_END, 44_100)],
)
def test_a_rate_that_hear_lacks_becomes_the_next_higher_one(
  front_end, rate_hz, tmp_path
):
  model = load(tmp_path / "model", front_end)
  assert model.sample_rate == rate_hz
  audio = noise(1, 1.0, rate_hz)
  expected = model.tagger.embed(audio[0].numpy(), rate_hz)
  np.testing.assert_array_equal(hear.get_scene_embeddings(audio, model)[0], expected)


def test_scene_embeddings_are_the_taggers(model):
  audio = noise(8, 3.74, 16_000) * torch.logspace(0, -3, 8)[:, None]
  embeddings = hear.get_scene_embeddings(audio, model)
  assert embeddings.dtype == torch.float32
  assert embeddings.shape == (8, model.scene_embedding_size)
  for clip, embedding in zip(audio.numpy(), embeddings.numpy(), strict=True):
    np.testing.assert_array_equal(embedding, model.tagger.embed(clip, 16_000))
  assert np.ptp(embeddings.numpy(), axis=0).max() > 1e-3


def test_timestamp_embeddings_are_the_taggers_at_even_times(model):
  audio = noise(16, 2.0, 16_000)
  embeddings, times_ms = hear.get_timestamp_embeddings(audio, model)
  assert embeddings.dtype == times_ms.dtype == torch.float32
  assert embeddings.shape == (*times_ms.shape, model.timestamp_embedding_size)
  assert embeddings.shape[0] == 16
  expected, times_s = model.tagger.embed_frames(audio[3].numpy(), 16_000)
  np.testing.assert_array_equal(embeddings[3], expected)
  np.testing.assert_allclose(times_ms[3], 1000 * times_s)
  steps_ms = torch.diff(times_ms)
  assert torch.all(torch.abs(steps_ms - steps_ms.mean()) < 1e-3)
  assert 0 <= times_ms.min() < times_ms.max() <= 2000


def test_anything_but_a_batch_or_a_model_is_refused(model, tmp_path):
  with pytest.raises(UserError, match=r"must be \[clips, samples\], .* not \[16000\]"):
    hear.get_scene_embeddings(torch.ones(16_000), model)
  with pytest.raises(UserError, match="--model is missing: give a model directory"):
    hear.load_model()
  with pytest.raises(UserError, match="has no model.json"):
    hear.load_model(str(tmp_path))
