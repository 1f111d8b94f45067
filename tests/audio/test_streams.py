import os
import subprocess

import numpy as np
import pytest
import soundfile
import soxr

from audiotag_jax.audio import ffmpeg as ffmpeg_lib
from audiotag_jax.audio import libsndfile, streams
from audiotag_jax.audio.opening import AudioError

pytestmark = pytest.mark.usefixtures("path_without_ffmpeg")


def noise(num_samples, channels=1, seed=0):
  return np.random.default_rng(seed).uniform(-0.5, 0.5, (num_samples, channels))


def read(path, rate_hz=16_000):
  stream = streams.AudioStream(path, rate_hz)
  return np.concatenate(list(stream)), stream.duration_s


def error_of(path):
  with pytest.raises(AudioError) as error:
    list(streams.AudioStream(path, 16_000))
  assert "\n" not in str(error.value)
  return str(error.value)


def test_reads_and_mixes_block_by_block(tmp_path, monkeypatch):
  monkeypatch.setattr(libsndfile, "BLOCK_VALUES", 3_000)
  path = tmp_path / "a.wav"
  x = noise(16_123, 3)
  soundfile.write(path, x, 16_000, subtype="FLOAT")
  blocks = list(streams.AudioStream(path, 16_000))
  assert [len(block) for block in blocks] == [1_000] * 16 + [123]
  np.testing.assert_allclose(np.concatenate(blocks), x.mean(axis=1), atol=1e-7)
  assert blocks[0].dtype == np.float32


@pytest.mark.parametrize("rate_hz", [8_000, 32_000])
def test_resamples_as_a_whole_waveform_is(tmp_path, monkeypatch, rate_hz):
  monkeypatch.setattr(libsndfile, "BLOCK_VALUES", 2_345)
  path = tmp_path / "a.wav"
  x = noise(44_100 * 2)[:, 0].astype(np.float32)
  soundfile.write(path, x, 44_100, subtype="FLOAT")
  ours, duration_s = read(path, rate_hz)
  expected = soxr.resample(x, 44_100, rate_hz, "HQ")
  assert duration_s == pytest.approx(2.0)
  assert ours.shape == expected.shape
  np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_a_sample_stays_a_sample(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, [0.5], 192_000, subtype="FLOAT")
  waveform, duration_s = read(path)
  assert waveform.tolist() == [0.5]
  assert duration_s == pytest.approx(1 / 192_000)


def test_says_what_is_wrong_with_a_file(tmp_path):
  path = tmp_path / "a.wav"
  assert error_of(path) == "is missing"
  path.write_bytes(b"")
  assert error_of(path) == "is empty"
  path.write_text("text\n" * 100)
  assert error_of(path) == (
    "cannot be decoded (libsndfile: Format not recognised; installing ffmpeg may help)"
  )
  soundfile.write(path, np.zeros(0), 16_000)
  assert error_of(path) == "has no samples"
  soundfile.write(path, [0.0, np.nan, np.inf], 16_000, subtype="FLOAT")
  assert error_of(path) == "has 2 samples that are not finite"
  soundfile.write(path, [0.0, 1e30], 16_000, subtype="FLOAT")
  assert error_of(path) == "has samples as large as 1e+30, where full scale is 1"
  assert error_of(tmp_path) == "is not a file"
  os.mkfifo(tmp_path / "pipe.wav")
  assert error_of(tmp_path / "pipe.wav") == "is not a file"


def test_goes_by_content_and_not_by_name(tmp_path):
  for name in ("a.wav", "a.raw", "no_ending", "crow, café & 烏 #1.WAV"):
    soundfile.write(tmp_path / "b.flac", noise(1_600), 16_000)
    (tmp_path / "b.flac").rename(tmp_path / name)
    assert len(read(tmp_path / name)[0]) == 1_600


def test_a_damaged_file_is_an_error(tmp_path):
  path = tmp_path / "a.flac"
  soundfile.write(path, noise(160_000), 16_000)
  path.write_bytes(path.read_bytes()[:100_000])
  assert error_of(path).startswith("cannot be decoded (")


def encode(ffmpeg, source, path, *options):
  command = [ffmpeg, "-v", "error", "-i", source, *options, path]
  subprocess.run([str(x) for x in command], check=True)


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "weird [1] %d.wma"])
def test_ffmpeg_reads_what_libsndfile_does_not(tmp_path, ffmpeg, name):
  t = np.arange(44_100 * 2) / 44_100
  x = np.stack([0.5 * np.sin(2 * np.pi * 440 * t), np.zeros_like(t)], axis=1)
  soundfile.write(tmp_path / "a.wav", x, 44_100)
  encode(ffmpeg, tmp_path / "a.wav", f"file:{tmp_path / name.replace('%', '%%')}")
  waveform, duration_s = read(next(tmp_path.glob(f"*{name[-4:]}")))
  assert duration_s == pytest.approx(2.0, abs=0.1)
  spectrum = np.abs(np.fft.rfft(waveform[8_000:24_000]))
  assert spectrum.argmax() == 440
  assert np.abs(waveform[8_000:24_000]).max() == pytest.approx(0.25, abs=0.02)


def test_ffmpeg_is_ended_when_its_reader_has_had_enough(tmp_path, ffmpeg, monkeypatch):
  soundfile.write(tmp_path / "a.wav", noise(16_000 * 120), 16_000)
  encode(ffmpeg, tmp_path / "a.wav", tmp_path / "a.m4a")
  processes, popen = [], subprocess.Popen

  def watched(*args, **kwargs):
    processes.append(popen(*args, **kwargs))
    return processes[-1]

  monkeypatch.setattr(subprocess, "Popen", watched)
  monkeypatch.setattr(ffmpeg_lib, "BLOCK_VALUES", 1_000)
  blocks = iter(streams.AudioStream(tmp_path / "a.m4a", 16_000))
  assert len(next(blocks))
  blocks.close()
  assert processes[0].returncode is not None


def test_ffmpeg_s_reason_is_given_too(tmp_path, ffmpeg):
  path = tmp_path / "a.wav"
  path.write_text("text\n" * 100)
  message = error_of(path)
  assert message.startswith(
    "cannot be decoded (libsndfile: Format not recognised; ffmpeg: "
  )
  assert "Invalid data" in message


def test_a_header_without_a_length_does_not_matter(tmp_path):
  # Without a length, as a program writes a header to a pipe.
  path = tmp_path / "a.wav"
  soundfile.write(path, noise(16_000), 16_000)
  data = bytearray(path.read_bytes())
  data[4:8] = data[40:44] = b"\xff" * 4
  path.write_bytes(data)
  assert len(read(path)[0]) == 16_000
