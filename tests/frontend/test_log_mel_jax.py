"""The log-mel in JAX against librosa, TensorFlow and itself."""

import dataclasses

import jax
import librosa
import numpy as np
import panns_reference
import pytest

from audiotag_jax.frontend import log_mel_jax, log_mel_tf, mel

FRONT_ENDS = {
  "32k": mel.LogMelParams(),
  "16k": mel.LogMelParams(16_000, 512, 512, 160, 64, 50.0, 8_000.0),
  "8k": mel.LogMelParams(8_000, 256, 256, 80, 64, 50.0, 4_000.0),
  "128 mels": mel.LogMelParams(num_mels=128),
  "short window, odd hop": mel.LogMelParams(
    window_samples=800, hop_samples=333, num_mels=40
  ),
  "hop above the window": mel.LogMelParams(
    window_samples=256, fft_samples=256, hop_samples=400, num_mels=8
  ),
}


def librosa_log_mel(waveform: np.ndarray, params: mel.LogMelParams) -> np.ndarray:
  """Computes in float64, except for the result."""
  half = params.fft_samples // 2
  power = librosa.feature.melspectrogram(
    y=np.pad(waveform.astype(np.float64), ((0, 0), (half, half)), mode="reflect"),
    sr=params.sample_rate_hz,
    n_fft=params.fft_samples,
    win_length=params.window_samples,
    hop_length=params.hop_samples,
    center=False,
    n_mels=params.num_mels,
    fmin=params.f_min_hz,
    fmax=params.f_max_hz,
  )
  return librosa.power_to_db(power, amin=1e-10, top_db=None).swapaxes(-1, -2)


@pytest.mark.parametrize("params", FRONT_ENDS.values(), ids=FRONT_ENDS.keys())
def test_agrees_with_librosa_and_tensorflow(params):
  waveform = panns_reference.waveforms(params.sample_rate_hz, 0.7)
  ours = np.asarray(log_mel_jax.log_mel(waveform, params))
  assert ours.dtype == np.float32
  assert ours.shape == (2, params.num_frames(waveform.shape[1]), params.num_mels)
  np.testing.assert_allclose(ours, librosa_log_mel(waveform, params), atol=1e-3)
  theirs = log_mel_tf.log_mel(waveform, params).numpy()
  np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_leading_axes_and_jit_change_nothing():
  params = mel.LogMelParams()
  waveform = panns_reference.waveforms(32_000, 0.2, 6)
  expected = log_mel_jax.log_mel(waveform, params)
  log_mel = jax.jit(log_mel_jax.log_mel, static_argnums=1)
  stacked = log_mel(waveform.reshape(2, 3, -1), params)
  np.testing.assert_allclose(stacked.reshape(expected.shape), expected, atol=1e-4)
  np.testing.assert_allclose(log_mel(waveform[4], params), expected[4], atol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 400, 512, 513])
def test_short_clips_are_padded_with_zeros_first(num_samples):
  params = mel.LogMelParams()
  waveform = panns_reference.waveforms(32_000, 0.1, 1)[:, :num_samples]
  ours = log_mel_jax.log_mel(waveform, params)
  padded = np.pad(waveform, ((0, 0), (0, max(0, 513 - num_samples))))
  num_frames = 1 + num_samples // 320
  assert ours.shape == (1, num_frames, 64)
  expected = librosa_log_mel(padded, params)[:, :num_frames]
  np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_silence_is_the_floor():
  ours = log_mel_jax.log_mel(np.zeros((1, 3200), np.float32), mel.LogMelParams())
  np.testing.assert_allclose(ours, -100.0, atol=1e-4)


def test_params_are_the_defaults_of_panns():
  assert dataclasses.astuple(mel.LogMelParams()) == (
    *(32_000, 1024, 1024, 320, 64),
    *(50.0, 14_000.0),
  )
