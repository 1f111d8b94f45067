"""Recordings on their own timeline, and the ffmpeg that reads them."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import ffmpeg as ffmpeg_lib
from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import streams

RECORDINGS = Path(__file__).parent / "recordings"
RATE_HZ = 44_100
CLICK_S = 0.5
VIDEO = ("-f", "lavfi", "-i", "color=c=black:s=64x64:r=25:d=3")

pytestmark = pytest.mark.usefixtures("path_without_ffmpeg")


@pytest.fixture
def click(tmp_path):
  """A second of a soft tone with a click in its middle."""
  t = np.arange(RATE_HZ) / RATE_HZ
  samples = 0.05 * np.sin(2 * np.pi * 440 * t)
  samples[round(CLICK_S * RATE_HZ) :][:200] += 0.8
  soundfile.write(tmp_path / "click.wav", samples, RATE_HZ)
  return tmp_path / "click.wav"


def run(ffmpeg, *arguments):
  command = [ffmpeg, "-y", "-nostdin", "-v", "error", *arguments]
  subprocess.run(list(map(str, command)), check=True)


def click_s(samples, rate_hz):
  """Where a click starts."""
  loud = np.flatnonzero(np.abs(samples) > 0.4)
  return loud[0] / rate_hz if len(loud) else None


def read(path):
  """A file's mono samples, which are the same as a whole and as a stream."""
  channels, rate_hz = audio_files.decode(path)
  stream = streams.AudioStream(path, rate_hz)
  np.testing.assert_array_equal(np.concatenate(list(stream)), channels.mean(axis=1))
  assert stream.duration_s == len(channels) / rate_hz
  return channels[:, 0], rate_hz


@pytest.mark.parametrize("name", ["late4.mp4", "late4.mkv"])
def test_a_track_that_starts_late_is_placed_there(ffmpeg, name):
  samples, rate_hz = read(RECORDINGS / name)
  assert len(samples) / rate_hz == pytest.approx(10.0, abs=1024 / rate_hz)
  levels = samples[: 40 * 11_025].reshape(40, 11_025).std(axis=1)  # of 0.25 s each
  assert levels[:15].max() == 0
  assert levels[16:20].max() < 0.002
  assert levels[21:29].min() > 0.015  # applause, from 5 s to 7.4 s
  assert levels[30:].max() < 0.002
  part, _ = audio_files.decode(RECORDINGS / name, 3.0, 5.0)
  assert part.shape == (88_200, 1)
  assert np.abs(part[:40_000]).max() == 0
  np.testing.assert_allclose(part[:, 0], samples[132_300:220_500], atol=0.02)


@pytest.mark.parametrize(
  ("ending", "options"),
  [
    ("mp4", ("-c:a", "aac")),
    ("mov", ("-c:a", "pcm_s16le")),
    ("mkv", ("-c:a", "libopus")),
    ("webm", ("-c:a", "libvorbis", "-c:v", "libvpx")),
    ("ts", ("-c:a", "aac")),
    ("flv", ("-c:a", "libmp3lame")),
    ("wmv", ("-c:a", "wmav2")),
  ],
)
def test_every_container_of_video_keeps_its_time(
  tmp_path, ffmpeg, click, ending, options
):
  path = tmp_path / f"a.{ending}"
  source = (*VIDEO, "-itsoffset", "1.5", "-i", click, "-map", "0:v", "-map", "1:a")
  run(ffmpeg, *source, *options, path)
  samples, rate_hz = read(path)
  assert click_s(samples, rate_hz) == pytest.approx(2.0, abs=0.002)
  assert len(samples) / rate_hz == pytest.approx(2.5, abs=0.06)
  part, _ = audio_files.decode(path, 1.8, 2.1)
  assert len(part) == round(0.3 * rate_hz)
  assert click_s(part[:, 0], rate_hz) == pytest.approx(0.2, abs=0.002)
  silence, _ = audio_files.decode(path, 0.25, 1.25)
  assert len(silence) == rate_hz
  assert not silence.any()


@pytest.mark.parametrize("ending", ["m4a", "mka", "webm"])
def test_a_file_of_audio_alone_keeps_its_time_as_well(tmp_path, ffmpeg, click, ending):
  path = tmp_path / f"a.{ending}"
  run(ffmpeg, "-itsoffset", "1.5", "-i", click, path)
  samples, rate_hz = read(path)
  assert click_s(samples, rate_hz) == pytest.approx(2.0, abs=0.002)
  assert len(samples) / rate_hz == pytest.approx(2.5, abs=0.03)


def test_a_track_that_an_edit_list_cuts_starts_where_a_player_starts(
  tmp_path, ffmpeg, click
):
  run(ffmpeg, "-i", click, tmp_path / "whole.m4a")
  run(
    ffmpeg, "-ss", "0.3", "-i", tmp_path / "whole.m4a", "-c", "copy", tmp_path / "a.m4a"
  )
  samples, rate_hz = read(tmp_path / "a.m4a")
  assert click_s(samples, rate_hz) == pytest.approx(0.2, abs=0.002)
  assert len(samples) / rate_hz == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("a.m4a", ()),
    ("a.mp3", ()),
    ("a.opus", ("-c:a", "libopus")),
    ("a.webm", ()),
    ("a.mka", ("-c:a", "aac")),
  ],
)
def test_what_an_encoder_adds_is_cut(tmp_path, ffmpeg, click, name, options):
  path = tmp_path / name
  run(ffmpeg, "-i", click, *options, path)
  samples, rate_hz = read(path)
  assert click_s(samples, rate_hz) == pytest.approx(CLICK_S, abs=0.002)
  assert len(samples) / rate_hz == pytest.approx(1.0, abs=0.024)


@pytest.mark.parametrize("ending", ["mkv", "m4a"])
def test_a_gap_is_silence(tmp_path, ffmpeg, ending):
  t = np.arange(4 * RATE_HZ) / RATE_HZ
  soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * t), RATE_HZ)
  path = tmp_path / f"a.{ending}"
  gap = "aselect=lt(t\\,1)+gt(t\\,2.5)"
  run(ffmpeg, "-i", tmp_path / "a.wav", "-af", gap, "-c:a", "aac", path)
  samples, rate_hz = read(path)
  assert len(samples) / rate_hz == pytest.approx(4.0, abs=0.03)
  seconds = samples[: 4 * rate_hz].reshape(8, -1).std(axis=1)  # of 0.5 s each
  assert seconds[[0, 1, 6, 7]] == pytest.approx(0.354, abs=0.01)
  assert seconds[[3, 4]].max() < 1e-3
  part, _ = audio_files.decode(path, 2.6, 3.6)
  np.testing.assert_allclose(
    part[:, 0], samples[round(2.6 * rate_hz) :][:RATE_HZ], atol=0.1
  )


def test_times_that_start_again_where_files_were_joined_are_no_gaps(
  tmp_path, ffmpeg, click
):
  data = b""
  for rate_hz in (44_100, 22_050):
    run(ffmpeg, "-i", click, "-ar", str(rate_hz), tmp_path / "a.aac")
    data += (tmp_path / "a.aac").read_bytes()
  (tmp_path / "a.aac").write_bytes(data)
  samples, rate_hz = read(tmp_path / "a.aac")
  assert rate_hz == 44_100  # the first file's
  assert len(samples) / rate_hz == pytest.approx(2.0, abs=0.2)


def test_a_part_after_the_end_is_refused(tmp_path, ffmpeg, click):
  for name in ("a.m4a", "a.aac"):
    run(ffmpeg, "-i", click, tmp_path / name)
    with pytest.raises(audio_files.AudioError, match=r"^ends before start_s 1\.5$"):
      audio_files.decode(tmp_path / name, 1.5)


def test_many_channels_come_in_order(tmp_path, ffmpeg):
  path = tmp_path / "a.wav"
  channels = np.arange(1, 17) / 32 * np.ones((1_000, 1))
  soundfile.write(path, channels, 16_000)
  run(ffmpeg, "-i", path, "-c:a", "pcm_s16le", tmp_path / "a.mka")
  ours, rate_hz = audio_files.decode(tmp_path / "a.mka")
  assert rate_hz == 16_000
  np.testing.assert_allclose(ours, channels, atol=2**-15)


def test_the_path_s_ffmpeg_comes_first(ffmpeg, monkeypatch):
  monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
  assert ffmpeg_lib.find_ffmpeg() == str(ffmpeg)
  packaged = str(ffmpeg.readlink())
  ffmpeg.unlink()
  assert ffmpeg_lib.find_ffmpeg() == packaged


def test_a_package_without_a_program_is_no_ffmpeg(monkeypatch):
  def fail():
    raise RuntimeError("No ffmpeg exe could be found.")

  assert ffmpeg_lib.find_ffmpeg() == ""
  monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", fail)
  assert ffmpeg_lib.find_ffmpeg() == ""
  with pytest.raises(audio_files.AudioError, match="installing ffmpeg may help"):
    audio_files.decode(RECORDINGS / "late4.mp4")
