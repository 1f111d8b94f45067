import numpy as np
import pytest

from audiotag_jax.data.demo.sounds import SOUNDS
from audiotag_jax.data.demo.soundscapes import loudness_normalized


@pytest.mark.parametrize("name", SOUNDS)
def test_sound_varies_and_is_neither_silent_nor_too_long(name):
  drawn = [
    SOUNDS[name](np.random.default_rng(seed), longest_s)
    for seed, longest_s in enumerate((2.5, 4.0, 6.0))
  ]
  for waveform, longest_s in zip(drawn, (2.5, 4.0, 6.0), strict=True):
    assert waveform.dtype == np.float32
    assert len(waveform) <= longest_s * 44_100
    assert np.isfinite(waveform).all()
    peak = np.abs(loudness_normalized(waveform)).max()
    assert 1 < peak < 10.001
  assert len({len(waveform) for waveform in drawn}) == 3
