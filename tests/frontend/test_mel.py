import librosa
import numpy as np
import pytest

from audiotag_jax.frontend import mel


def test_defaults_are_panns():
  params = mel.LogMelParams()
  assert (params.sample_rate_hz, params.window_samples, params.hop_samples) == (
    32_000,
    1024,
    320,
  )
  assert (params.num_mels, params.f_min_hz, params.f_max_hz) == (64, 50.0, 14_000.0)


@pytest.mark.parametrize(
  ("samples", "frames"), [(1, 1), (319, 1), (320, 2), (320_000, 1001)]
)
def test_frames_are_centred(samples, frames):
  assert mel.LogMelParams().num_frames(samples) == frames
  waveform = np.zeros(max(samples, 1024), np.float32)
  spectrogram = librosa.stft(waveform, n_fft=1024, hop_length=320, center=True)
  if samples >= 1024:
    assert spectrogram.shape[1] == frames


def test_the_window_is_periodic_and_centred_in_the_fft():
  window = mel.hann_window(mel.LogMelParams(window_samples=512))
  expected = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
  np.testing.assert_allclose(window[256:768], expected, atol=1e-7)
  assert not window[:256].any()
  assert not window[768:].any()


def test_the_mel_matrix_is_librosa_s():
  expected = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
  np.testing.assert_array_equal(mel.mel_matrix(mel.LogMelParams()), expected.T)
