import numpy as np
import pytest

from audiotag_jax.data.demo import synthesis


def test_noise_has_its_level_and_band():
  noise = synthesis.noise(np.random.default_rng(0), 44_100, 1000, 2000)
  assert np.std(noise) == pytest.approx(1, abs=0.02)
  power = np.abs(np.fft.rfft(noise)) ** 2
  # The noise falls by 12 dB an octave beyond the corners, which are at -3 dB.
  assert power[500:4000].sum() > 0.9 * power.sum()
  assert power[:250].sum() < 0.001 * power.sum()
