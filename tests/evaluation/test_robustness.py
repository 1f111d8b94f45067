import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax import parallel
from audiotag_jax.audio.waveforms import INT16_SCALE
from audiotag_jax.data import dataset, input_pipeline, shards
from audiotag_jax.data.clips import read_waveform
from audiotag_jax.evaluation import evaluate, robustness

pytestmark = pytest.mark.slow

NAMES = [
  "clean",
  "white noise, 20 dB", "white noise, 10 dB", "white noise, 0 dB",
  "pink noise, 20 dB", "pink noise, 10 dB", "pink noise, 0 dB",
  "low-pass, 4 kHz", "telephone band, 300-3400 Hz", "MP3, 32 kbit/s",
  "8 kHz and back", "reverberation, 0.5 s", "reverberation, 1.5 s",
  "excerpt, 1 s", "excerpt, 3 s", "excerpt, 5 s",
]  # fmt: skip
# The clips are 0.3, 1 and 2.5 s long, so that longer excerpts change nothing.
UNCHANGED = {"clean", "excerpt, 3 s", "excerpt, 5 s"}


def eval_step(variables, batch):
  """Scores three classes by the levels of three bands, 0 to -100 dB as 1 to 0."""
  bands = jnp.stack(jnp.array_split(batch["inputs"], 3, axis=2)[:3])
  scores = 1.0 + variables["scale"] * bands.mean(axis=(2, 3)).T / 100.0
  rest = {key: batch[key] for key in ("mask", "clip")}
  return rest | {"scores": jnp.clip(scores, 0, 1), "loss": scores.mean(axis=1)}


@pytest.fixture
def config(tiny_config):
  tiny_config.frontend.sample_rate_hz = 16_000
  tiny_config.frontend.f_max_hz = 8_000.0
  tiny_config.frontend.num_mels = 63
  tiny_config.evaluation.threshold = 0.7
  return tiny_config


@pytest.fixture
def clips(config):
  return dataset.load_splits(config)["eval"]


@pytest.fixture
def model():
  """An eval step and its variables, on eight devices."""
  return parallel.pmap(eval_step), parallel.replicate({"scale": np.ones(3, np.float32)})


def scores_of(model, clips, config):
  """The scores that `measure` bases its metrics on, by condition."""
  rate_hz = config.frontend.sample_rate_hz
  return {
    name: evaluate.predict(
      *model,
      condition.shorten(clips, rate_hz),
      config,
      perturb=condition.perturb(rate_hz),
    ).scores
    for name, condition in robustness.conditions().items()
  }


def test_the_conditions_in_order(model, clips, config):
  results = robustness.measure(*model, clips, config)
  assert list(results) == NAMES
  plain, _ = evaluate.predict(*model, clips, config).metrics(threshold=0.7)
  assert results["clean"] == {"mAP": plain["mAP"], "f1": plain["f1"]}
  assert results["white noise, 0 dB"] != results["clean"]
  for metrics in results.values():
    assert list(metrics) == ["mAP", "f1"]
    assert all(0 <= value <= 1 for value in metrics.values())


def test_conditions_change_the_scores_of_the_clips_they_touch(model, clips, config):
  config.evaluation.crop = "windows"
  scores = scores_of(model, clips, config)
  for name in NAMES:
    same = np.isclose(scores[name], scores["clean"], rtol=0, atol=1e-5).all(axis=1)
    if name == "excerpt, 1 s":
      assert same.tolist() == (clips.num_samples <= 16_000).tolist()
    else:
      assert same.all() == (name in UNCHANGED), name
      assert same.any() == same.all(), name
  again = scores_of(model, clips, config)
  for name in NAMES:
    np.testing.assert_array_equal(again[name], scores[name], err_msg=name)


def test_an_excerpt_is_all_that_is_heard_of_a_clip(clips, config):
  config.evaluation.crop, config.evaluation.hop_s = "windows", 0.25
  config.data.clip_s, config.data.features = 0.5, "waveform"
  config.data.normalize = "none"
  condition = robustness.conditions()["excerpt, 1 s"]
  shortened = condition.shorten(clips, 16_000)
  assert sorted(set(shortened.num_samples.tolist())) == [4_800, 16_000]
  batches = input_pipeline.eval_batches(
    shortened,
    config,
    process=input_pipeline.Process(),
    perturb=condition.perturb(16_000),
  )
  longest = int(clips.num_samples.argmax())
  waveform = read_waveform(clips, longest, config.data).numpy()
  windows = [
    row
    for batch in batches
    for row, clip in zip(batch["inputs"], batch["clip"], strict=True)
    if clip == longest
  ]
  # From 2.5 s, the part from 0.75 s to 1.75 s is left, in windows of half a second.
  starts = [12_000, 16_000, 20_000]
  np.testing.assert_array_equal(
    windows, [waveform[start : start + 8_000] for start in starts]
  )


def test_clips_of_a_sample_and_of_silence_have_scores(model, clips, config):
  class Records:
    """Clips of one sample, 0.3 s of noise and silence."""

    def read(self, records):
      rng = np.random.default_rng(0)
      waveforms = [[9_000], rng.integers(-9_000, 9_000, 4_800), np.zeros(4_800)]
      return [self.encode(np.array(waveforms[i % 3], np.int16)) for i in records]

    def encode(self, waveform):
      audio = shards.quantized(waveform * INT16_SCALE, clips.features)
      return clips.features.serialize_example({**audio, "labels": [0], "fname": "1"})

  few = dataclasses.replace(clips.select(np.arange(3)), records=Records())
  few = dataclasses.replace(few, num_samples=np.array([1, 4_800, 4_800]))
  few = dataclasses.replace(few, record=np.arange(3))
  for name, scores in scores_of(model, few, config).items():
    assert np.isfinite(scores).all(), name
