"""Recordings of known content, of any coder, container, rate, length and damage.

Every reader is compared with the content and with ffmpeg's count of samples.
"""

import dataclasses
import functools
import struct
import subprocess

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import headers, streams

CLICK_SAMPLES = 150
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
# A recording is 1.5 to 3 s long, so that half of a file's bytes has its click.
SHORTEST_S, LONGEST_S = 1.5, 3.0
EARLIEST_CLICK_S, LATEST_CLICK_S = 0.1, 0.4


@dataclasses.dataclass(frozen=True)
class Coder:
  """A coder in a container.

  Attributes:
    name: the file's name.
    options: ffmpeg's options, or libsndfile's format and subtype.
    frame_samples: the samples of a frame, by which lengths may differ.
    delay_samples: what the coder adds before the first sample and no player removes.
    damages: the ways in which a file may be other than it should.
    rates_hz: the rates that it knows.
    max_channels: the most channels.
  """

  name: str
  options: tuple[str, ...]
  frame_samples: int = 1
  delay_samples: int = 0
  damages: tuple[str, ...] = ("whole",)
  rates_hz: tuple[int, ...] = RATES_HZ
  max_channels: int = 2

  @property
  def is_libsndfile_s(self):
    return self.options[:1] != ("-c:a",)


PCM = ("whole", "cut", "length 0", "largest length", "longer")
FLAC = ("whole", "cut", "joined", "length 0", "longer", "shorter")
PACKETS = ("whole", "cut", "joined")
CODERS = (
  Coder("a.wav", ("WAV", "PCM_16"), damages=PCM, max_channels=8),
  Coder("a.wav", ("WAV", "PCM_24"), damages=PCM, max_channels=8),
  Coder("a.wav", ("WAVEX", "FLOAT"), damages=PCM, max_channels=8),
  Coder("a.rf64", ("RF64", "PCM_16"), damages=PCM),
  Coder("a.w64", ("W64", "PCM_16"), damages=PCM),
  Coder("a.aiff", ("AIFF", "PCM_16"), damages=PCM),
  Coder("a.au", ("AU", "PCM_16"), damages=PCM),
  Coder("a.caf", ("CAF", "PCM_16"), 4_096, damages=PCM),
  Coder("a.wav", ("WAV", "IMA_ADPCM"), 4_100, damages=("whole", "cut"), max_channels=1),
  Coder("a.flac", ("FLAC", "PCM_16"), 4_608, damages=FLAC, max_channels=8),
  Coder("a.flac", ("FLAC", "PCM_24"), 4_608, damages=FLAC),
  Coder("a.ogg", ("OGG", "VORBIS"), 2_048, damages=("whole", "joined")),
  Coder("a.ogg", ("-c:a", "libvorbis", "-page_duration", "100000"), 2_048, 0, PACKETS),
  Coder("a.opus", ("OGG", "OPUS"), 960, damages=PACKETS, rates_hz=OPUS_RATES_HZ),
  Coder("a.mp3", ("MP3", "MPEG_LAYER_III"), 1_152, damages=PACKETS),
  Coder("a.mp3", ("-c:a", "libmp3lame"), 1_152, damages=PACKETS),
  Coder(
    "a.mp3",
    ("-c:a", "libmp3lame", "-q:a", "2", "-write_xing", "0"),
    1_152,
    1_105,
    PACKETS,
  ),
  Coder(
    "a.mp2",
    ("-c:a", "mp2"),
    1_152,
    481,
    PACKETS,
    (16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
  ),
  Coder("a.aac", ("-c:a", "aac"), 1_024, 1_024, PACKETS),
  Coder("a.ac3", ("-c:a", "ac3"), 1_536, 256, PACKETS, (32_000, 44_100, 48_000)),
  Coder("a.oga", ("-c:a", "flac"), 4_608, damages=("whole", "joined")),
  Coder("a.m4a", ("-c:a", "aac"), 1_024, damages=("whole", "late")),
  Coder("a.m4a", ("-c:a", "alac"), 4_096, damages=("whole", "late")),
  Coder("a.mov", ("-c:a", "pcm_s16le"), 1_024, damages=("whole", "late")),
  Coder("a.mka", ("-c:a", "flac"), 4_608, damages=("whole", "cut", "late")),
  Coder(
    "a.webm",
    ("-c:a", "libopus"),
    960,
    damages=("whole", "cut", "late"),
    rates_hz=OPUS_RATES_HZ,
  ),
  # ffmpeg drops the first frame, and the file stores its time coarsely.
  Coder("a.wma", ("-c:a", "wmav2"), 2_048, -2_048, rates_hz=(44_100,)),
)


@dataclasses.dataclass(frozen=True)
class Recording:
  """What a file contains, and what is wrong with it."""

  coder: Coder
  damage: str
  rate_hz: int
  num_channels: int
  length_s: float
  click_s: float
  late_s: float
  share: float

  @functools.cached_property
  def samples(self):
    """A soft tone and a click <float64>[samples, channels]."""
    t = np.arange(round(self.length_s * self.rate_hz)) / self.rate_hz
    samples = 0.02 * np.sin(2 * np.pi * 300 * t)
    start = round(self.click_s * self.rate_hz)
    click = samples[start : start + CLICK_SAMPLES]
    click += 0.7 * np.sin(2 * np.pi * 0.1 * np.arange(len(click)))
    return np.stack([samples] * self.num_channels, axis=1)


@st.composite
def recordings(draw):
  coder = draw(st.sampled_from(CODERS))
  damage, rate_hz = (
    draw(st.sampled_from(coder.damages)),
    draw(st.sampled_from(coder.rates_hz)),
  )
  # A decoder of packets loses the first ones after a joint, which refer to others.
  is_lossy = damage == "joined" and coder.frame_samples < 2_048
  lost_s = 5 * coder.frame_samples / rate_hz if is_lossy else 0.0
  return Recording(
    coder,
    damage,
    rate_hz,
    draw(st.integers(1, coder.max_channels)),
    draw(st.floats(SHORTEST_S, LONGEST_S)),
    draw(st.floats(EARLIEST_CLICK_S, LATEST_CLICK_S)) + lost_s,
    draw(st.floats(0.2, 2.0)),
    draw(st.floats(0.6, 0.95)),
  )


def write(recording, path, ffmpeg):
  """Writes a recording as its coder and its damage have it."""
  coder, damage = recording.coder, recording.damage
  samples, rate_hz = recording.samples, recording.rate_hz
  if coder.is_libsndfile_s:
    file_format, subtype = coder.options
    soundfile.write(path, samples, rate_hz, subtype, format=file_format)
  else:
    wav = path.with_name("source.wav")
    soundfile.write(wav, samples, rate_hz)
    late = ("-itsoffset", str(recording.late_s)) if damage == "late" else ()
    command = [
      ffmpeg,
      "-y",
      "-nostdin",
      "-v",
      "error",
      *late,
      "-i",
      wav,
      *coder.options,
    ]
    # Blocks of few samples, so that a cut file has some.
    small = ("-cluster_time_limit", "100") if damage == "cut" else ()
    subprocess.run(list(map(str, [*command, *small, path])), check=True)
  data = path.read_bytes()
  if damage == "cut":
    data = data[: int(len(data) * recording.share)]
  elif damage == "joined":
    data += data
  elif damage != "whole" and damage != "late":
    data = with_length(data, coder.options[0], damage)
  path.write_bytes(data)


def with_length(data, file_format, damage):
  """Changes the length in a header."""
  if file_format == "FLAC":
    packed = int.from_bytes(data[18:26])
    length = packed & (2**36 - 1)
    wrong = {"length 0": 0, "longer": 2 * length, "shorter": length // 2}[damage]
    return data[:18] + (packed - length + wrong).to_bytes(8) + data[26:]
  place, form = {
    "RF64": (28, "<Q"),
    "W64": (data.find(headers.W64_DATA) + 16, "<Q"),
    "AIFF": (data.find(b"SSND") + 4, ">I"),
    "AU": (8, "<I" if data[:4] == b"dns." else ">I"),
    "CAF": (data.find(b"data") + 4, ">Q"),
  }.get(file_format, (data.find(b"data") + 4, "<I"))
  num_bytes = struct.calcsize(form)
  (length,) = struct.unpack(form, data[place : place + num_bytes])
  largest = 256**num_bytes - 1
  wrong = {"length 0": 0, "largest length": largest, "longer": 2 * length + 2}[damage]
  return data[:place] + struct.pack(form, wrong) + data[place + num_bytes :]


def ffmpeg_s_count(ffmpeg, path):
  """The seconds that ffmpeg decodes; None if it does not know the file."""
  command = [ffmpeg, "-nostdin", "-v", "error", "-i", path, "-map", "0:a:0"]
  done = subprocess.run(
    list(map(str, [*command, "-c:a", "pcm_s16be", "-f", "au", "-"])),
    capture_output=True,
  )
  if len(done.stdout) < 24:
    return None
  _, offset, _, _, rate_hz, num_channels = struct.unpack(">6I", done.stdout[:24])
  return (len(done.stdout) - offset) / (2 * num_channels * rate_hz)


def click_s(samples, rate_hz):
  """Where the clicks of mono samples start."""
  loud = np.flatnonzero(np.abs(samples) > 0.3)
  starts = np.flatnonzero(np.diff(loud, prepend=-rate_hz) > 0.2 * rate_hz)
  return loud[starts] / rate_hz


@dataclasses.dataclass(frozen=True)
class Member:
  """A file that is not on the disk."""

  name: str
  data: bytes

  def read_bytes(self):
    return self.data


def check(recording, path, ffmpeg):
  """Checks that all readers agree, and agree with the content and with ffmpeg."""
  coder, damage = recording.coder, recording.damage
  theirs_s = ffmpeg_s_count(ffmpeg, path)
  if damage == "cut" and not theirs_s and coder.name.endswith(("ogg", "opus")):
    with pytest.raises(audio_files.AudioError):  # It ends before its first page does.
      audio_files.decode(path)
    return
  channels, rate_hz = audio_files.decode(path)
  length_s, mono = len(channels) / rate_hz, channels.mean(axis=1)
  frame_s = max(coder.frame_samples, 1) / min(rate_hz, recording.rate_hz)
  assert channels.shape[1] == recording.num_channels

  stream = streams.AudioStream(path, rate_hz)
  np.testing.assert_array_equal(np.concatenate(list(stream)), mono)
  assert stream.duration_s == length_s
  member = Member(path.name, path.read_bytes())
  np.testing.assert_array_equal(audio_files.decode(member)[0], channels)
  prepared = audio_files.read_audio(path, 16_000)
  assert abs(len(prepared) - length_s * 16_000) <= 1

  late_s = recording.late_s if damage == "late" else 0.0
  # ffmpeg keeps the padding between two Ogg streams, and may lose the first frame of a
  # FLAC file that follows another one.
  is_worse = damage == "joined" and coder.name in ("a.flac", "a.ogg", "a.opus")
  if theirs_s:
    tolerance_s = 2 * frame_s if is_worse else frame_s + 2e-3
    assert abs(length_s - late_s - theirs_s) <= tolerance_s
  num_parts = 2 if damage == "joined" else 1
  # Each file that was joined has its delay, its padding and perhaps a header's frame.
  slack_s = 3 * num_parts * frame_s + 2e-3 if coder.frame_samples > 1 else 2e-3
  slack_s = 2e-3 if is_worse else slack_s
  if damage != "cut":
    assert abs(length_s - late_s - num_parts * recording.length_s) <= slack_s

  if length_s < recording.click_s + 0.05:
    return  # It was cut off before the click.
  clicks = click_s(mono, rate_hz)
  assert len(clicks) == num_parts
  place_s = recording.click_s + late_s
  delay_s = coder.delay_samples / recording.rate_hz
  assert abs(clicks[0] - place_s - delay_s) <= 3e-3, clicks[0] - place_s - delay_s
  if damage == "joined":
    assert abs(clicks[1] - clicks[0] - recording.length_s) <= slack_s
  start_s = max(0.0, place_s - 0.05)
  part, _ = audio_files.decode(path, start_s, place_s + 0.25)
  (in_part,) = click_s(part.mean(axis=1), rate_hz)
  assert abs(in_part + start_s - clicks[0]) <= 3e-3


@pytest.mark.parametrize(
  "num_recordings", [25, pytest.param(3_000, marks=pytest.mark.exhaustive)]
)
def test_any_recording_is_read_whole_and_in_its_place(
  tmp_path, ffmpeg, num_recordings, capsys
):
  tried = []

  @settings(
    max_examples=num_recordings,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
  )
  @given(recordings())
  def try_one(recording):
    path = tmp_path / recording.coder.name
    write(recording, path, ffmpeg)
    check(recording, path, ffmpeg)
    tried.append((recording.coder, recording.damage))

  try_one()
  assert len(tried) >= num_recordings
  with capsys.disabled():
    print(f"\n{len(tried)} recordings, {len(set(tried))} kinds of file")
