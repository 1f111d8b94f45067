"""Sources of a few clips."""

import numpy as np
import pytest
import soundfile
from etils import epath

from audiotag_jax.data.sources.source import Clip, Source

RATE_HZ = 8_000
CLASSES = ("Bell", "Rain", "Siren")


@pytest.fixture
def make_source(tmp_path):
  """Writes clips (name, split, labels, samples[, rate]) and returns their source."""

  def make(*clips, rejected=()):
    written = []
    for name, split, labels, samples, *rate_hz in clips:
      path = tmp_path / name
      if samples is not None:
        # As integers, because libsndfile scales floats differently in FLAC and in WAV.
        integers = np.rint(samples * 32_767).astype(np.int16)
        soundfile.write(path, integers, *(rate_hz or [RATE_HZ]))
      written.append(Clip(path.stem, epath.Path(path), labels, split))
    place = epath.Path(tmp_path)
    return Source("manifest", place, CLASSES, tuple(written), tuple(rejected))

  return make
