"""The length of a recording is measured, not believed."""

import io
import logging
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import headers, lengths, libsndfile, opening, streams

RECORDINGS = Path(__file__).parent / "recordings"
RATE_HZ = 44_100

pytestmark = pytest.mark.usefixtures("path_without_ffmpeg")


def tone(seconds, hz=440, rate_hz=RATE_HZ):
  return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def written(path, seconds=1.0, hz=440, **options):
  """Writes a tone; returns the file's bytes."""
  soundfile.write(path, tone(seconds, hz), RATE_HZ, **options)
  return path.read_bytes()


def lengths_of(path):
  """The samples that a whole read and a stream give."""
  whole, rate_hz = audio_files.decode(path)
  stream = streams.AudioStream(path, rate_hz)
  samples = np.concatenate(list(stream))
  np.testing.assert_array_equal(samples, whole.mean(axis=1))
  assert stream.duration_s == len(whole) / rate_hz
  return len(whole)


def repairs_of(file):
  return headers.find_repairs(opening.Slice(file, 0, file.seek(0, os.SEEK_END)))


def pitch_hz(samples, rate_hz=RATE_HZ):
  spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
  return spectrum.argmax() * rate_hz / len(samples)


def test_a_vbr_mp3_without_a_header_is_read_whole(ffmpeg):
  path = RECORDINGS / "loud_then_quiet.mp3"
  assert lengths_of(path) == 531_072  # 461 frames
  loud = audio_files.read_audio(path, RATE_HZ, 5.5, 5.9)
  assert loud.std() > 0.1
  assert audio_files.read_audio(path, RATE_HZ, 11.0).std() < 1e-3


def test_joined_mp3s_are_read_to_the_end(ffmpeg):
  path = RECORDINGS / "joined.mp3"
  assert abs(lengths_of(path) - 443_567) <= 1_152
  assert pitch_hz(audio_files.decode(path, 1.0, 4.0)[0][:, 0]) == pytest.approx(440)
  assert pitch_hz(audio_files.decode(path, 6.0, 9.0)[0][:, 0]) == pytest.approx(880)


@pytest.mark.parametrize(
  ("name", "read_s", "there_s"),
  [("loud_then_quiet.mp3", "2.26", "12.04"), ("joined.mp3", "5.00", "10.07")],
)
def test_without_ffmpeg_a_warning_names_both_lengths(caplog, name, read_s, there_s):
  with caplog.at_level(logging.WARNING):
    audio_files.decode(RECORDINGS / name)
  assert caplog.messages == [
    f"{RECORDINGS / name}: libsndfile reads {read_s} s of {there_s} s: install ffmpeg, "
    "which reads all"
  ]


def test_a_part_that_libsndfile_reads_needs_no_warning(caplog):
  audio_files.decode(RECORDINGS / "loud_then_quiet.mp3", 0.5, 1.5)
  assert caplog.messages == []


def test_a_flac_stream_without_a_length_is_read_whole():
  path = RECORDINGS / "streamed.flac"
  assert lengths_of(path) == 4 * RATE_HZ
  part = audio_files.decode(path, 3.5, 9.0)[0]
  np.testing.assert_array_equal(part, audio_files.decode(path)[0][154_350:])


def put(data, place, form, value):
  return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


# Where a format has its length, the length's struct format, and what it counts beside
# the bytes of the samples.
LENGTHS = {
  "WAV": (lambda data: data.find(b"data") + 4, "<I", 0),
  "WAVEX": (lambda data: data.find(b"data") + 4, "<I", 0),
  "RF64": (lambda data: 28, "<Q", 0),
  "W64": (lambda data: data.find(headers.W64_DATA) + 16, "<Q", 24),
  "AIFF": (lambda data: data.find(b"SSND") + 4, ">I", 8),
  "AU": (lambda data: 8, ">I", 0),
  "CAF": (lambda data: data.find(b"data") + 4, ">Q", 4),
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("wrong", ["0", "empty", "largest", "too large"])
def test_a_wrong_length_does_not_matter(tmp_path, name, wrong):
  path = tmp_path / "a"
  data = written(path, format=name, subtype="PCM_16")
  find, form, more = LENGTHS[name]
  value = {
    "0": 0,
    "empty": more,
    "largest": 256 ** struct.calcsize(form) - 1,
    "too large": 200_000 + more,
  }[wrong]
  path.write_bytes(put(data, find(data), form, value))
  assert lengths_of(path) == RATE_HZ
  np.testing.assert_allclose(audio_files.decode(path)[0][:, 0], tone(1.0), atol=2**-15)
  assert len(audio_files.decode(path, 0.75)[0]) == RATE_HZ // 4


@pytest.mark.parametrize("name", LENGTHS)
def test_a_file_that_was_cut_off_gives_what_there_is(tmp_path, name):
  path = tmp_path / "a"
  path.write_bytes(written(path, format=name, subtype="PCM_16")[:-20_001])
  end = 4_096 if name == "CAF" else 0  # libsndfile puts some chunks at the end
  assert abs(lengths_of(path) - (RATE_HZ - 10_000)) <= end + 1


def test_a_chunk_after_no_samples_is_no_sound(tmp_path):
  path = tmp_path / "a.wav"
  data = written(path)[:44]
  chunk = b"LIST" + struct.pack("<I", 400) + b"x" * 400
  path.write_bytes(put(data, 40, "<I", 0) + chunk)
  with pytest.raises(audio_files.AudioError, match="^has no samples$"):
    audio_files.decode(path)


def test_a_chunk_after_the_samples_of_a_w64_file_is_no_sound(tmp_path):
  path = tmp_path / "a.w64"
  data = written(path, format="W64")
  path.write_bytes(data + b"list" + bytes(12) + struct.pack("<Q", 824) + b"\x40" * 800)
  assert lengths_of(path) == RATE_HZ


def test_samples_that_the_header_leaves_out_are_warned_of(tmp_path, caplog):
  path = tmp_path / "a.wav"
  data = written(path)
  path.write_bytes(put(data, 40, "<I", RATE_HZ))
  assert len(audio_files.decode(path)[0]) == RATE_HZ // 2  # as ffmpeg does
  assert caplog.messages == [
    f"{path}: the samples end 44100 bytes before the file's end, according to its "
    "header; the rest is not read"
  ]


def test_a_wav_stream_of_more_than_4_gib_is_read_to_its_end(tmp_path, ffmpeg):
  path = tmp_path / "a.wav"
  soundfile.write(path, np.zeros((1, 16)), 4_000_000, subtype="DOUBLE")
  data = path.read_bytes()
  place = data.find(b"data") + 4
  path.write_bytes(put(data[: place + 4], place, "<I", 2**32 - 1))
  frame_bytes, num_frames = 16 * 8, 2**26
  with path.open("r+b") as file:
    file.truncate(place + 4 + frame_bytes * num_frames)  # 8 GiB without space on disk
    repairs = repairs_of(file)
    sound = libsndfile.open_sound(opening.Slice(file, 0, repairs.end), repairs)
    missed = lengths.find_missed(file, sound, repairs)
  assert missed.read_s == pytest.approx(2**25 / 4e6)
  assert missed.there_s == pytest.approx(2**26 / 4e6)


def set_flac_length(data, length):
  packed = int.from_bytes(data[18:26])
  packed += length - (packed & (2**36 - 1))
  return data[:18] + packed.to_bytes(8) + data[26:]


@pytest.mark.parametrize("length", [0, 1, 22_050, 44_099, 44_101, 10**6])
def test_a_wrong_length_of_flac_does_not_matter(tmp_path, length):
  path = tmp_path / "a.flac"
  path.write_bytes(set_flac_length(written(path), length))
  assert lengths_of(path) == RATE_HZ
  assert len(audio_files.decode(path, 0.75)[0]) == RATE_HZ // 4


def write_joined(path, streams_, **options):
  """Writes files of (hz, rate_hz, channels), 1.5 s each, joined."""
  data = b""
  for hz, rate_hz, num_channels in streams_:
    samples = np.stack([tone(1.5, hz, rate_hz)] * num_channels, axis=1)
    soundfile.write(path, samples, rate_hz, **options)
    data += path.read_bytes()
  path.write_bytes(data)


@pytest.mark.parametrize("subtype", ["PCM_16", "VORBIS", "OPUS"])
@pytest.mark.parametrize(
  "second", [(48_000, 2), (48_000, 1), (16_000, 2)], ids=["same", "mono", "slow"]
)
def test_joined_streams_are_read_to_the_end(tmp_path, caplog, subtype, second):
  path = tmp_path / "a"
  file_format = "FLAC" if subtype == "PCM_16" else "OGG"
  write_joined(
    path,
    [(440, 48_000, 2), (880, *second), (660, 48_000, 2)],
    format=file_format,
    subtype=subtype,
  )
  assert lengths_of(path) == 216_000
  for start_s, hz in ((0.2, 440), (1.7, 880), (3.2, 660)):
    part, rate_hz = audio_files.decode(path, start_s, start_s + 1.0)
    assert part.shape == (48_000, 2)
    assert pitch_hz(part[:, 1], rate_hz) == pytest.approx(hz, abs=1)
  assert caplog.messages == []


def test_a_flac_file_that_was_cut_off_gives_what_there_is(tmp_path, ffmpeg, caplog):
  path = tmp_path / "a.flac"
  noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE_HZ)
  soundfile.write(path, noise, RATE_HZ)
  path.write_bytes(path.read_bytes()[:-30_000])
  num_samples = lengths_of(path)
  assert 24_576 <= num_samples <= 28_672
  np.testing.assert_allclose(
    audio_files.decode(path)[0][:, 0], noise[:num_samples], atol=2**-15
  )
  assert set(caplog.messages) == {
    f"{path}: the file is damaged or cut off: {num_samples / RATE_HZ:.2f} s of 1.00 s "
    "were read"
  }


def encode(source, path, *options):
  program = path.parent / "programs/ffmpeg"
  command = [program, "-y", "-v", "error", "-i", source, *options, path]
  subprocess.run(list(map(str, command)), check=True)


@pytest.mark.parametrize("options", [[], ["-write_xing", "0"], ["-b:a", "64k"]])
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_mpeg_frames_are_counted(tmp_path, ffmpeg, options, rate_hz):
  wav, path = tmp_path / "a.wav", tmp_path / "a.mp3"
  soundfile.write(wav, tone(1.3, rate_hz=rate_hz), rate_hz)
  encode(wav, path, *options)
  data = path.read_bytes()
  length = lengths._count_mpeg(data, 0)
  num_samples = lengths_of(path)
  assert not length.is_broken
  assert round(length.seconds * rate_hz) == num_samples


def test_a_member_of_an_archive_is_counted_too(ffmpeg):
  class Member:
    name = "joined.mp3"

    def read_bytes(self):
      return (RECORDINGS / self.name).read_bytes()

  ours = audio_files.decode(Member())[0]
  np.testing.assert_array_equal(ours, audio_files.decode(RECORDINGS / "joined.mp3")[0])


def test_a_flac_frame_s_end_is_read_from_its_header(tmp_path):
  path = tmp_path / "a.flac"
  data = written(path, seconds=0.5)
  assert repairs_of(io.BytesIO(data)).patches == ()
  wrong = set_flac_length(data, 0)
  ((place, right),) = repairs_of(io.BytesIO(wrong)).patches
  assert (place, right) == (18, data[18:26])
