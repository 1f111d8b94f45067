"""Recordings that libsndfile does not read to their end, found by their frames."""

import contextlib
import io
import mmap
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import soundfile

from audiotag_jax.audio import headers

# Kilobits a second of MPEG frames, by version (2.5 is as 2) and layer; ISO 11172-3 and
# 13818-3.
MPEG_KBPS = {
  (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
  (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
  (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
  (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
  (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
  (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES_HZ = (44_100, 48_000, 32_000)
# Bytes of frames in which a Xing or Info header, and LAME's part of it, has its place.
XING_PLACES = (13, 21, 36)
OGG_STARTS = 2  # the flag of a stream's first page


class Missed(NamedTuple):
  """A file that libsndfile may not read to its end.

  Attributes:
    read_s: seconds that libsndfile finds.
    there_s: seconds that are there, by the coder's frames.
  """

  read_s: float
  there_s: float


def find_missed(
  file: BinaryIO, sound: soundfile.SoundFile, repairs: headers.Repairs
) -> Missed | None:
  """Counts the frames of a file, and returns None if libsndfile reads all of them.

  libsndfile guesses the length of an MPEG file without a Xing header from its first
  frame, and believes a Xing header, which is that of the first of joined files.
  """
  read_s = sound.frames / sound.samplerate
  if repairs.is_too_long:
    return Missed(read_s, read_s * repairs.end / 2**32)
  if sound.format == "MP3" or sound.subtype.startswith("MPEG_LAYER"):
    with _content(file) as data:
      length = _count_mpeg(data, repairs.start)
    is_short = read_s < length.seconds - length.frame_s
    return Missed(read_s, length.seconds) if is_short or length.is_broken else None
  return None


def find_streams(file: BinaryIO, file_format: str, start: int) -> list[int]:
  """Returns the places of streams that were joined to the first one of a file.

  Args:
    file: an Ogg or FLAC file, of which libsndfile reads the first stream alone.
    file_format: "OGG" or "FLAC".
    start: where to look from; 0 in an Ogg file.
  """
  with _content(file) as data:
    if file_format == "OGG":
      return _find_ogg_starts(data)
    return _find_flac_starts(data, start)


@contextlib.contextmanager
def _content(file: BinaryIO) -> Iterator[Any]:
  """Yields the bytes of a file, without a copy of them."""
  if isinstance(file, io.BytesIO):
    yield file.getvalue()
    return
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    yield data


class _Stream(NamedTuple):
  """The properties that all frames of an MPEG stream share."""

  version_code: int
  layer: int
  rate_hz: int
  is_mono: bool


class _Frame(NamedTuple):
  """An MPEG frame: its bytes, its seconds and its stream's properties."""

  num_bytes: int
  seconds: float
  stream: _Stream


class _MpegLength(NamedTuple):
  """The length of the frames of a file.

  Attributes:
    seconds: all frames, without the encoder's delay and padding.
    frame_s: one of them.
    is_broken: whether there is something between frames, or frames of several streams.
  """

  seconds: float
  frame_s: float
  is_broken: bool


def _count_mpeg(data: Any, start: int) -> _MpegLength:
  """Counts the frames from a place on, as ffmpeg does: a frame cut off is a frame."""
  at, frame = _find_frame(data, start)
  if not frame:
    return _MpegLength(0.0, 0.0, is_broken=True)
  frame_s = frame.seconds
  seconds = -_padding_s(data[at : at + 200], frame)
  known = {data[at : at + 4]: frame}
  num_runs = 1
  while frame:
    at += frame.num_bytes
    seconds += frame.seconds
    header = data[at : at + 4]
    frame = known.get(header)
    if not frame:
      frame = _parse_mpeg(header)
      if not frame:
        at, frame = _find_frame(data, at)
        num_runs += frame is not None
        header = data[at : at + 4]
      if frame:
        known[header] = frame
  num_streams = len({frame.stream for frame in known.values()})
  return _MpegLength(seconds, frame_s, num_runs > 1 or num_streams > 1)


def _find_frame(data: Any, start: int) -> tuple[int, _Frame | None]:
  """Returns the next frame that another one of its stream follows, and its place."""
  at = start - 1
  while (at := data.find(b"\xff", at + 1)) >= 0:
    frame = _parse_mpeg(data[at : at + 4])
    if frame:
      following = _parse_mpeg(data[at + frame.num_bytes : at + frame.num_bytes + 4])
      if following and following.stream == frame.stream:
        return at, frame
  return len(data), None


def _parse_mpeg(header: bytes) -> _Frame | None:
  """Returns the frame that starts with 4 bytes; None if they are not a header."""
  if len(header) < 4 or header[0] != 255 or header[1] < 224:
    return None
  version_code, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
  kbps_code, rate_code = header[2] >> 4, header[2] >> 2 & 3
  if version_code == 1 or layer == 4 or kbps_code in (0, 15) or rate_code == 3:
    return None
  halvings = (2, 0, 1, 0)[version_code]  # of the rate, in MPEG 2.5 and 2
  rate_hz = MPEG_RATES_HZ[rate_code] >> halvings
  version = min(1 + halvings, 2)
  kbps = MPEG_KBPS[version, layer][kbps_code - 1]
  num_samples = 384 if layer == 1 else 576 if (version, layer) == (2, 3) else 1152
  slot = 4 if layer == 1 else 1
  num_slots = num_samples * kbps * 125 // (rate_hz * slot) + (header[2] >> 1 & 1)
  stream = _Stream(version_code, layer, rate_hz, header[3] >> 6 == 3)
  return _Frame(num_slots * slot, num_samples / rate_hz, stream)


def _padding_s(first: bytes, frame: _Frame) -> float:
  """Returns the seconds that a first frame takes from a file's length.

  A Xing, Info or VBRI header is a frame without samples. LAME's part of it counts the
  samples that the encoder added at the start and at the end.
  """
  if first[36:40] == b"VBRI":
    return frame.seconds
  for place in XING_PLACES:
    if first[place : place + 4] in (b"Xing", b"Info"):
      flags = first[place + 7]
      lame = place + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4)
      added = int.from_bytes(first[lame + (flags & 8) // 2 + 21 :][:3])
      num_added = (added >> 12) + (added & 4095)
      return frame.seconds + num_added / frame.stream.rate_hz
  return 0.0


def _find_ogg_starts(data: Any) -> list[int]:
  """Returns the places of pages that start a stream after the pages of another one."""
  starts, at, is_head = [], 0, True
  while (at := data.find(b"OggS", at)) >= 0:
    head = data[at : at + 27]
    if len(head) < 27:
      break
    if head[5] & OGG_STARTS and not is_head:
      starts.append(at)
    is_head = bool(head[5] & OGG_STARTS)
    table_end = at + 27 + head[26]
    at = table_end + sum(data[at + 27 : table_end])
  return starts


def _find_flac_starts(data: Any, start: int) -> list[int]:
  starts = []
  start = max(start, data.find(headers.FLAC_START) + 1)  # after an ID3v2 tag
  while (start := data.find(headers.FLAC_START, start)) >= 0:
    starts.append(start)
    start += 1
  return starts
