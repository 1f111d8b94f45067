import numpy as np
import pytest
import soundfile

from audiotag_jax.data import audio_io


def sine(hz, rate_hz, seconds=1.0):
  return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 96_000])
def test_a_tone_keeps_its_pitch_level_and_length(tmp_path, subtype, rate_hz):
  path = tmp_path / "tone.wav"
  soundfile.write(path, sine(440, rate_hz), rate_hz, subtype=subtype)
  waveform = audio_io.read_audio(path, 32_000)
  assert waveform.dtype == np.float32
  assert abs(len(waveform) - 32_000) <= 1
  middle = slice(4_000, 28_000)
  expected = sine(440, 32_000)[middle]
  np.testing.assert_allclose(waveform[middle], expected, atol=1e-3)


def test_what_lies_above_the_new_nyquist_does_not_fold_back(tmp_path):
  path = tmp_path / "tone.wav"
  soundfile.write(path, sine(15_000, 44_100), 44_100)
  waveform = audio_io.read_audio(path, 16_000)
  assert np.abs(waveform[1_000:-1_000]).max() < 1e-3  # 54 dB below the tone


def test_channels_are_averaged(tmp_path):
  path = tmp_path / "stereo.wav"
  left, right = sine(440, 16_000), sine(1_000, 16_000)
  soundfile.write(path, np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
  waveform = audio_io.read_audio(path, 16_000)
  np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


def test_one_sample_stays_one_sample(tmp_path):
  path = tmp_path / "one.wav"
  soundfile.write(path, np.array([0.25]), 44_100, subtype="FLOAT")
  assert len(audio_io.read_audio(path, 16_000)) == 1


@pytest.mark.parametrize(
  ("write", "reason"),
  [
    (lambda path: None, "is missing"),
    (lambda path: path.write_bytes(b""), "cannot be decoded"),
    (lambda path: path.write_text("not audio"), "cannot be decoded"),
    (lambda path: soundfile.write(path, np.zeros(0), 16_000), "holds no samples"),
    (
      lambda path: soundfile.write(
        path, np.array([0.1, np.nan, np.inf]), 16_000, subtype="FLOAT"
      ),
      "has 2 samples that are not finite",
    ),
  ],
)
def test_a_bad_file_gives_its_reason(tmp_path, write, reason):
  path = tmp_path / "bad.wav"
  write(path)
  with pytest.raises(audio_io.AudioError, match=reason) as info:
    audio_io.read_audio(path, 16_000)
  assert "\n" not in str(info.value)


def test_int16_is_exact_within_half_a_step_and_never_clips():
  waveform = sine(440, 16_000).astype(np.float32)
  back = audio_io.to_int16(waveform) / audio_io.INT16_MAX
  assert np.abs(back - waveform).max() <= 0.5 / audio_io.INT16_MAX + 1e-7
  loud = audio_io.to_int16(24 * waveform)
  np.testing.assert_allclose(loud / 32_767, 2 * waveform, atol=2e-4)
