import contextlib
import os
import struct
import subprocess
import zipfile

import numpy as np
import pytest
import soundfile
from etils import epath

from audiotag_jax.audio import ffmpeg as ffmpeg_lib
from audiotag_jax.audio import files as audio_files
from audiotag_jax.data.sources import archives

pytestmark = pytest.mark.usefixtures("path_without_ffmpeg")


@pytest.fixture
def folder(tmp_path):
  return epath.Path(tmp_path)


def sine(hz, rate_hz, seconds=1.0):
  return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)


def wav_header(num_bytes, rate_hz=16_000, channels=1, tag=1, bits=16):
  block = channels * bits // 8
  fmt = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block, block, bits)
  riff = b"RIFF" + struct.pack("<I", min(36 + num_bytes, 2**32 - 1)) + b"WAVE"
  chunk = b"fmt " + struct.pack("<I", len(fmt)) + fmt
  return riff + chunk + b"data" + struct.pack("<I", num_bytes)


def write_sparse_wav(path, num_bytes, **header):
  """A wav file of zeros that takes up no space on the disk."""
  with open(path, "wb") as file:
    file.write(wav_header(num_bytes, **header))
    file.truncate(44 + num_bytes)


def write_flac_of_unknown_length(path):
  """Writes FLAC without its length, as a program does that writes to a pipe."""
  soundfile.write(path, sine(440, 16_000), 16_000)
  data = bytearray(path.read_bytes())
  data[21] &= 0xF0  # the length has 36 bits, behind the 18 bytes of STREAMINFO
  data[22:26] = bytes(4)
  path.write_bytes(data)


def encode(ffmpeg, source, path, *options):
  command = [ffmpeg, "-v", "error", "-i", source, *options, f"file:{path}"]
  subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 192_000])
def test_a_tone_keeps_its_pitch_level_and_length(folder, subtype, rate_hz):
  path = folder / "tone.wav"
  soundfile.write(path, sine(440, rate_hz), rate_hz, subtype=subtype)
  waveform = audio_files.read_audio(path, 32_000)
  assert waveform.dtype == np.float32
  assert abs(len(waveform) - 32_000) <= 1
  middle = slice(4_000, 28_000)
  expected = sine(440, 32_000)[middle]
  np.testing.assert_allclose(waveform[middle], expected, atol=1e-3)


def test_what_lies_above_the_new_nyquist_does_not_fold_back(folder):
  path = folder / "tone.wav"
  soundfile.write(path, sine(15_000, 44_100), 44_100)
  waveform = audio_files.read_audio(path, 16_000)
  assert np.abs(waveform[1_000:-1_000]).max() < 1e-3  # 54 dB below the tone


@pytest.mark.parametrize("count", [2, 6, 25])
def test_channels_are_averaged(folder, count):
  path = folder / "many.wav"
  channels = np.stack([sine(100 * (i + 1), 16_000) for i in range(count)], axis=1)
  soundfile.write(path, channels, 16_000, subtype="FLOAT")
  assert audio_files.decode(path)[0].shape == (16_000, count)
  waveform = audio_files.read_audio(path, 16_000)
  np.testing.assert_allclose(waveform, channels.mean(axis=1), atol=1e-6)


def test_one_sample_stays_one_sample(folder):
  path = folder / "one.wav"
  soundfile.write(path, np.array([0.25]), 44_100, subtype="FLOAT")
  assert len(audio_files.read_audio(path, 16_000)) == 1


@pytest.mark.parametrize(
  "name",
  ["-i.wav", "a b.wav", "crow, café & 烏 #1 (a).wav", "UPPER.WAV", "none", "x.raw"],
)
def test_a_name_does_not_matter(folder, name):
  soundfile.write(folder / name, sine(440, 16_000), 16_000, format="FLAC")
  assert len(audio_files.read_audio(folder / name, 16_000)) == 16_000


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_a_part_is_what_the_whole_has_there(folder, ending):
  path = folder / f"tone.{ending}"
  tones = np.concatenate([sine(300, 16_000, 2), sine(700, 16_000, 2)])
  soundfile.write(path, tones, 16_000)
  whole, _ = audio_files.decode(path)
  part, rate_hz = audio_files.decode(path, 1.25, 3.5)
  assert rate_hz == 16_000
  np.testing.assert_array_equal(part, whole[20_000:56_000])
  rest, _ = audio_files.decode(path, 3.0)
  np.testing.assert_allclose(rest, whole[48_000:], atol=1e-6)


def test_a_part_that_ends_beyond_the_file_is_what_there_is(folder):
  path = folder / "tone.wav"
  soundfile.write(path, sine(440, 16_000), 16_000)
  assert len(audio_files.decode(path, 0.75, 9.0)[0]) == 4_000
  assert len(audio_files.decode(path, 0.75, float("inf"))[0]) == 4_000


def test_a_part_of_ten_hours_is_read_and_the_whole_is_refused(folder):
  path = folder / "day.wav"
  write_sparse_wav(path, 2 * 16_000 * 36_000)
  waveform = audio_files.read_audio(path, 16_000, 35_990.0, 35_992.0)
  assert len(waveform) == 32_000
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.read_audio(path, 16_000)
  assert str(info.value) == (
    "is 36000.0 s long, more than 600: cut it with start_s and end_s"
  )


def test_600_seconds_are_the_longest_clip(folder):
  path = folder / "long.wav"
  write_sparse_wav(path, 2 * 100 * 600, rate_hz=100)
  assert len(audio_files.decode(path)[0]) == 60_000
  write_sparse_wav(path, 2 * 100 * 601, rate_hz=100)
  with pytest.raises(audio_files.AudioError, match=r"is 601\.0 s long, more than 600"):
    audio_files.decode(path)


@pytest.mark.parametrize("promised", [2 * 80_000, 2**32 - 1])
def test_a_header_that_promises_more_gives_what_there_is(folder, promised):
  path = folder / "cut.wav"
  samples = (20_000 * sine(440, 16_000)).astype("<i2")
  path.write_bytes(wav_header(promised) + samples.tobytes() + b"\0")
  np.testing.assert_allclose(audio_files.decode(path)[0][:, 0], samples / 2**15)


def test_a_part_that_starts_beyond_all_numbers_is_refused(folder):
  path = folder / "tone.wav"
  soundfile.write(path, sine(440, 16_000), 16_000)
  with pytest.raises(audio_files.AudioError, match=r"1\.0 s long and ends before"):
    audio_files.decode(path, 1e308)


def zipped(path):
  """Packs a file into an archive beside it; returns the archive's member."""
  archive = path.with_name(f"{path.name}.zip")
  with zipfile.ZipFile(archive, "w") as file:
    file.write(path, path.name)
  return archives.open_archive(archive)[path.name]


def test_a_member_of_an_archive_is_decoded_as_a_file_is(folder):
  path = folder / "tone.flac"
  soundfile.write(path, sine(440, 16_000), 16_000)
  member = zipped(path)
  for part in [(0.0, None), (0.25, 0.5)]:
    np.testing.assert_array_equal(
      audio_files.decode(member, *part)[0], audio_files.decode(path, *part)[0]
    )


UNKNOWN = "cannot be decoded (libsndfile: {}; installing ffmpeg may help)"


def write_floats(path, *values):
  soundfile.write(path, np.array(values), 16_000, subtype="DOUBLE")


def write_cut_flac(path):
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000)
  soundfile.write(path, noise, 16_000, format="FLAC")
  path.write_bytes(path.read_bytes()[:30_000])


@pytest.mark.parametrize(
  ("write", "reason"),
  [
    (lambda path: None, "is missing"),
    (lambda path: path.mkdir(), "is not a file"),
    (lambda path: os.mkfifo(path), "is not a file"),
    (lambda path: path.write_bytes(b""), "is empty"),
    (lambda path: path.write_text("no audio"), UNKNOWN.format("Format not recognised")),
    (
      lambda path: path.write_bytes(wav_header(8)[:30]),
      UNKNOWN.format("Error in WAV file. No 'data' chunk marker"),
    ),
    (
      lambda path: path.write_bytes(wav_header(8, rate_hz=0) + bytes(8)),
      UNKNOWN.format("Internal error : SF_INFO struct incomplete"),
    ),
    (
      lambda path: path.write_bytes(wav_header(8, channels=0) + bytes(8)),
      UNKNOWN.format("Channel count is zero"),
    ),
    (
      lambda path: path.write_bytes(wav_header(8, tag=0x674F) + bytes(8)),
      UNKNOWN.format("Error in WAV/W64/RF64 file. Malformed 'fmt ' chunk"),
    ),
    (
      lambda path: path.write_bytes(wav_header(4_000, channels=2_000) + bytes(4_000)),
      UNKNOWN.format("Too many channels specified"),
    ),
    (
      lambda path: path.write_bytes(wav_header(2**21, rate_hz=1) + bytes(2**21)),
      "has a rate of 1 Hz, which is not from 100 to 10000000",
    ),
    (
      lambda path: path.write_bytes(wav_header(8, rate_hz=2**31 - 1) + bytes(8)),
      "has a rate of 2.14748e+09 Hz, which is not from 100 to 10000000",
    ),
    (write_cut_flac, "cannot be decoded (Error : flac decoder lost sync)"),
    (lambda path: soundfile.write(path, np.zeros(0), 16_000), "has no samples"),
    (
      lambda path: write_floats(path, 0.1, np.nan, np.inf),
      "has 2 samples that are not finite",
    ),
    (
      lambda path: write_floats(path, 0.1, -3e20),
      "has samples as large as 3e+20, where full scale is 1",
    ),
    (
      lambda path: write_sparse_wav(
        path, 2 * 1024 * 16_000 * 20, channels=1024, rate_hz=16_000
      ),
      "holds 327680000 values in all its channels, more than 268435456: cut it with "
      "start_s and end_s",
    ),
    (
      lambda path: path.symlink_to(path.name),
      "cannot be read (Too many levels of symbolic links)",
    ),
  ],
)
def test_a_bad_file_gives_its_reason(tmp_path, write, reason):
  path = tmp_path / "bad.wav"
  write(path)
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.read_audio(epath.Path(path), 16_000)
  assert str(info.value) == reason


@contextlib.contextmanager
def as_nobody():
  """Drops root's right to read files that nobody may read."""
  user = os.geteuid()
  if user == 0:
    os.seteuid(65_534)
  try:
    yield
  finally:
    os.seteuid(user)


def test_a_file_without_permission_gives_its_reason(folder):
  path = folder / "locked.wav"
  soundfile.write(path, sine(440, 16_000), 16_000)
  os.chmod(path, 0)
  with as_nobody(), pytest.raises(audio_files.AudioError) as info:
    audio_files.decode(path)
  assert str(info.value) == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
  ("start_s", "end_s", "reason"),
  [
    (-1.0, None, "has start_s -1.0, which is not 0 or more"),
    (float("nan"), None, "has start_s nan, which is not 0 or more"),
    (0.5, 0.5, "has end_s 0.5, which is not after start_s 0.5"),
    (0.5, 0.2, "has end_s 0.2, which is not after start_s 0.5"),
    (1.0, None, "is 1.0 s long and ends before start_s 1.0"),
    (7.0, 9.0, "is 1.0 s long and ends before start_s 7.0"),
    (0.5, 0.5 + 1e-9, "has no samples"),
  ],
)
def test_a_part_that_is_none_gives_its_reason(folder, start_s, end_s, reason):
  path = folder / "tone.wav"
  soundfile.write(path, sine(440, 16_000), 16_000)
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.decode(path, start_s, end_s)
  assert str(info.value) == reason


@pytest.mark.parametrize("name", ["-tone.m4a", "tone b.aac", "tone.webm"])
def test_ffmpeg_reads_what_libsndfile_does_not(folder, ffmpeg, name):
  wav, path = folder / "tone.wav", folder / name
  t = np.arange(6 * 48_000) / 48_000
  sweep = 0.5 * np.sin(2 * np.pi * (300 + 200 * t) * t)
  soundfile.write(wav, np.stack([sweep, sweep / 2], axis=1), 48_000)
  encode(ffmpeg, wav, path)
  whole, rate_hz = audio_files.decode(path)
  assert rate_hz == 48_000
  assert whole.dtype == np.float32
  assert whole.shape[1] == 2
  assert abs(len(whole) - len(sweep)) <= 2_048
  middle = whole[96_000:192_000]
  np.testing.assert_allclose(middle.std(axis=0), [0.354, 0.177], rtol=0.02)
  part, _ = audio_files.decode(path, 4.5, 5.0)
  assert part.shape == (24_000, 2)
  around = whole[216_000 - 480 : 240_000 + 480, 0]
  match = np.correlate(around, part[:, 0])
  assert abs(match.argmax() - 480) <= 96  # 2 ms
  member = zipped(path)
  np.testing.assert_array_equal(audio_files.decode(member)[0], whole)


def test_a_flac_file_of_unknown_length_needs_no_ffmpeg(folder):
  path = folder / "piped.flac"
  write_flac_of_unknown_length(path)
  waveform = audio_files.read_audio(path, 16_000)
  np.testing.assert_allclose(waveform, sine(440, 16_000), atol=2**-15)


def test_what_ffmpeg_refuses_gives_its_reason(folder, ffmpeg):
  path = folder / "text.wav"
  path.write_text("no audio")
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.decode(path)
  assert str(info.value) == (
    "cannot be decoded (libsndfile: Format not recognised; ffmpeg: Error opening "
    "input: Invalid data found when processing input)"
  )


def test_ffmpeg_s_clips_have_bounds_as_well(folder, ffmpeg):
  wav, path = folder / "long.wav", folder / "long.m4a"
  write_sparse_wav(wav, 2 * 8_000 * 605, rate_hz=8_000)
  encode(ffmpeg, wav, path)
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.decode(path)
  assert str(info.value) == "is more than 600 s long: cut it with start_s and end_s"
  assert len(audio_files.decode(path, 590.0, 600.0)[0]) == 80_000
  with pytest.raises(audio_files.AudioError) as info:
    audio_files.decode(path, 700.0)
  assert str(info.value) == "ends before start_s 700.0"


def test_ffmpeg_is_stopped_when_it_takes_too_long(
  folder, path_without_ffmpeg, monkeypatch
):
  program = path_without_ffmpeg / "ffmpeg"
  program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
  program.chmod(0o755)
  monkeypatch.setattr(ffmpeg_lib, "TIMEOUT_S", 0.1)
  (folder / "clip.m4a").write_text("no audio")
  with pytest.raises(
    audio_files.AudioError, match=r"; ffmpeg: gives nothing for 0\.1 s\)$"
  ):
    audio_files.decode(folder / "clip.m4a")


def test_an_ffmpeg_that_crashes_is_named(folder, path_without_ffmpeg):
  program = path_without_ffmpeg / "ffmpeg"
  program.write_text("#!/bin/sh\nexit 11\n")
  program.chmod(0o755)
  (folder / "clip.m4a").write_text("no audio")
  with pytest.raises(
    audio_files.AudioError, match=r"; ffmpeg: ended with the exit code 11\)$"
  ):
    audio_files.decode(folder / "clip.m4a")


def test_ffmpeg_fetches_nothing_that_a_file_names(folder, ffmpeg):
  secret = folder / "secret.wav"
  soundfile.write(secret, sine(440, 16_000), 16_000)
  path = folder / "list.m3u8"
  path.write_text(f"#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/{secret.name}\n")
  with pytest.raises(audio_files.AudioError, match="cannot be decoded") as info:
    audio_files.decode(path)
  assert "\n" not in str(info.value)
