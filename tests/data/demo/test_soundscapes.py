"""Soundscapes: their levels and the frequencies of their classes."""

from collections import Counter

import numpy as np

from audiotag_jax.data.demo import soundscapes
from audiotag_jax.data.demo.everyday_sounds import rain
from audiotag_jax.data.demo.sounds import SOUNDS


def test_events_are_audible_over_the_background():
  softest_db = []
  for index in range(40):
    clip = soundscapes.synthesize_clip(0, "train", index)
    for event in clip.events:
      assert -12 <= event.level_db <= 0
      softest_db.append(event.level_db - clip.background_db)
    assert 1 <= len(clip.events) <= 4
  assert min(softest_db) >= 10
  assert max(softest_db) <= 30 + 12
  rng = np.random.default_rng(0)
  sound = soundscapes.loudness_normalized(rain(rng, 4.0))
  noise = soundscapes.background(rng, len(sound)) * 10 ** (-10 / 20)
  assert 8 < 20 * np.log10(np.std(sound) / np.std(noise)) < 10.5


def test_classes_are_imbalanced_but_none_is_missing():
  def counts(split: str, num_clips: int) -> dict[str, int]:
    drawn = (soundscapes.draw_labels(0, split, index) for index in range(num_clips))
    return Counter(label for labels in drawn for label in set(labels))

  train, evaluation = counts("train", 1200), counts("eval", 400)
  assert len(train) == len(SOUNDS) == 20
  assert 6 < max(train.values()) / min(train.values()) < 9
  assert min(evaluation.values()) >= 10
  assert max(train, key=train.get) == "Acoustic_guitar"
