import numpy as np
import pytest
import tiny_models
from conftest import chirp

from audiotag_jax.inference import Tagger, masking
from audiotag_jax.models.create import create_from_description
from audiotag_jax.panns import architectures

pytestmark = pytest.mark.slow

RATE_HZ = 8_000
WIDE = {"front_end": architectures.FRONT_END_8K}
ARCHITECTURES = {
  **{name: {} for name in tiny_models.FIELDS},
  "crnn, attention": {"fields": tiny_models.FIELDS["crnn"] | {"pooling": "attention"}},
  "crnn, max": {"fields": tiny_models.FIELDS["crnn"] | {"pooling": "max"}},
  "DaiNet19": {},
  "MobileNetV1": WIDE,
  "ResNet22": WIDE | {"fields": {"depths": [1, 1, 1, 1]}},
  "Res1dNet31": {"fields": {"depths": [1, 1, 1, 1, 1, 1, 1]}},
  "Wavegram_Logmel_Cnn14": WIDE,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_clip_s_outputs_are_those_of_the_clip_alone(name):
  description = tiny_models.describe(name.split(",")[0], **ARCHITECTURES[name])
  variables = tiny_models.random_variables(create_from_description(description))
  model = Tagger(description, variables)
  for num_samples in (model.model.min_samples + 301, RATE_HZ - 1):
    waveform = chirp(num_samples / RATE_HZ, rate_hz=RATE_HZ).astype(np.float32)
    outputs = tiny_models.apply(model.model, model.variables, waveform[None])
    expected = {key: x[0] for key, x in outputs.items()}
    expected["logits"] = 1 / (1 + np.exp(-expected["logits"]))
    assert np.ptp(expected["logits"]) > 0.01
    assert np.ptp(expected["embedding"]) > 0.1
    np.testing.assert_allclose(
      model.tag(waveform, RATE_HZ), expected["logits"], atol=1e-5
    )
    scale = np.abs(expected["embedding"]).max()
    np.testing.assert_allclose(
      model.embed(waveform, RATE_HZ), expected["embedding"], atol=1e-5 * scale
    )
    assert ("framewise" in expected) == model.has_frames
    if model.has_frames:
      frames = model.frames(waveform, RATE_HZ).values
      np.testing.assert_allclose(frames, expected["framewise"], atol=1e-5)


def test_frames_are_counted_through_poolings():
  description = tiny_models.describe("Cnn6")
  model = create_from_description(description)
  variables = tiny_models.random_variables(model)
  # 1 + 8160 // 80 frames, by two, by two again.
  counts = masking.count_frames(model, variables, 8_160)
  assert counts.tolist() == [103, 51, 25]
  assert counts.dtype == np.int32
