import numpy as np
import pytest
import soundfile
import tensorflow as tf

from audiotag_jax.data import noise
from audiotag_jax.errors import UserError


def test_a_folder_s_recordings_follow_one_another_at_one_rate(tmp_path):
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
  (tmp_path / "deep").mkdir()
  soundfile.write(tmp_path / "b.flac", tone, 44_100)
  soundfile.write(tmp_path / "deep/a.wav", np.stack([tone, tone], 1), 16_000)
  for name in ("notes.txt", "._b.wav", ".Trash-1000/c.wav", "@eaDir/b.wav/d.wav"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("no recording")
  recordings = noise.read_folder(str(tmp_path), 8_000)
  assert recordings.dtype == np.int16
  assert abs(len(recordings) - (8_000 + 22_050)) <= 2
  assert (
    np.abs(recordings[:22_000]).max() == np.abs(recordings[22_100:]).max() == 32_767
  )


def test_quiet_noise_keeps_its_quality(tmp_path):
  tone = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
  soundfile.write(tmp_path / "a.flac", 1e-4 * tone, 8_000, subtype="PCM_24")
  recordings = noise.read_folder(str(tmp_path), 8_000)
  error = recordings / 32_767 - tone
  # At -80 dB, 24 bits have 839 steps; 16 bits have 3.
  assert np.abs(error).max() < 1.5 / 839


def test_an_empty_folder_is_one_line(tmp_path):
  with pytest.raises(UserError, match="has no recordings"):
    noise.read_folder(str(tmp_path), 8_000)


def test_an_unreadable_recording_is_named(tmp_path):
  (tmp_path / "broken.wav").write_bytes(b"RIFF....")
  with pytest.raises(UserError, match="broken.wav cannot be decoded"):
    noise.read_folder(str(tmp_path), 8_000)


def test_the_window_goes_round_and_has_the_ratio_asked_for():
  rng = np.random.default_rng(0)
  waveform = tf.constant(rng.normal(0, 0.1, 4000), tf.float32)
  recordings = rng.normal(0, 3000, 1000).astype(np.int16)
  key = tf.constant([1, 2], tf.int64)
  noisy = noise.add_noise(waveform, recordings, key, 1.0, (12.0, 12.0)).numpy()
  added = noisy - waveform.numpy()
  ratio_db = 10 * np.log10((waveform.numpy() ** 2).mean() / (added**2).mean())
  assert abs(ratio_db - 12.0) < 0.01
  np.testing.assert_allclose(added[:1000], added[1000:2000], atol=1e-6)


def test_silent_noise_adds_nothing():
  waveform = tf.constant([0.1, -0.2, 0.3])
  recordings = np.zeros(10, np.int16)
  key = tf.constant([1, 2], tf.int64)
  noisy = noise.add_noise(waveform, recordings, key, 1.0, (0.0, 0.0))
  np.testing.assert_array_equal(noisy, waveform)
