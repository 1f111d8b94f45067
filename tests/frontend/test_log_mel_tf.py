import librosa
import numpy as np
import pytest

from audiotag_jax.frontend import log_mel_tf, mel

PARAMS = {
  "PANNs, 32 kHz": mel.LogMelParams(),
  "FSD50K paper, 22.05 kHz": mel.LogMelParams(
    sample_rate_hz=22_050,
    window_samples=661,
    hop_samples=220,
    num_mels=96,
    f_min_hz=0.0,
    f_max_hz=11_025.0,
  ),
  "16 kHz": mel.LogMelParams(
    sample_rate_hz=16_000,
    window_samples=512,
    fft_samples=512,
    hop_samples=160,
    f_max_hz=8_000.0,
  ),
}


def librosa_log_mel(waveform, params):
  power = librosa.feature.melspectrogram(
    y=waveform,
    sr=params.sample_rate_hz,
    n_fft=params.fft_samples,
    win_length=params.window_samples,
    hop_length=params.hop_samples,
    pad_mode="reflect",
    n_mels=params.num_mels,
    fmin=params.f_min_hz,
    fmax=params.f_max_hz,
  )
  return librosa.power_to_db(power, amin=1e-10, top_db=None).T


def sounds(rate_hz):
  """A sweep, a decaying chord, noise from loud to very soft, a sudden attack."""
  rng = np.random.default_rng(0)
  t = np.arange(2 * rate_hz) / rate_hz
  chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 554.4, 1318.5)) * np.exp(-4 * t)
  noise = rng.standard_normal(len(t)) * 10 ** (-3 * t)
  attack = np.where(t > 1, np.sin(2 * np.pi * 3_000 * t), 0.0)
  sweep = np.sin(2 * np.pi * (50 + rate_hz / 8 * t) * t)
  return np.stack([sweep, chord / 3, noise / 5, attack]).astype(np.float32)


@pytest.mark.parametrize("name", PARAMS)
def test_it_agrees_with_librosa_within_a_thousandth_of_a_db(name):
  params = PARAMS[name]
  waveforms = sounds(params.sample_rate_hz)
  ours = log_mel_tf.log_mel(waveforms, params).numpy()
  for waveform, log_mel in zip(waveforms, ours, strict=True):
    assert log_mel.shape == (params.num_frames(len(waveform)), params.num_mels)
    expected = librosa_log_mel(waveform, params)
    np.testing.assert_allclose(log_mel, expected, atol=1e-3)
    assert log_mel.min() >= -100.0


def test_silence_is_the_floor():
  log_mel = log_mel_tf.log_mel(np.zeros(32_000, np.float32), mel.LogMelParams())
  np.testing.assert_allclose(log_mel, -100.0, atol=1e-4)
