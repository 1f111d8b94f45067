"""Audio decoded by libsndfile."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from audiotag_jax.audio.headers import Repairs
from audiotag_jax.audio.opening import Slice, one_line

# libsndfile's value for a length that the header lacks (SF_COUNT_MAX).
UNKNOWN_LENGTH = 2**63 - 1
# Decoding starts this long before a part, because a decoder of mp3 needs the frames
# before, and one of opus converges.
RUN_UP_S = 2.0
# More bytes than libFLAC reads ahead.
FLAC_BUFFER_BYTES = 2**16
# Samples times channels of a block.
BLOCK_VALUES = 2**20


class UnknownFormatError(Exception):
  """libsndfile does not read the file; the message is the reason."""


class _Seekable:
  """A file for libsndfile, which seeks to where a damaged header points.

  An exception in its callback would print a traceback, and decoding would continue.
  """

  def __init__(self, file: BinaryIO | Slice):
    self._file = file
    self.tell = file.tell
    self.readinto = file.readinto  # type: ignore[union-attr]

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Moves to a place, or stays if a file cannot have it, as C's fseek does."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
      return self._file.seek(offset, whence)
    return -1


class _Repaired(_Seekable):
  """A file with its header as it should be."""

  def __init__(self, file: BinaryIO | Slice, repairs: Repairs):
    super().__init__(file)
    self._patches = repairs.patches
    self._readinto, self.readinto = self.readinto, self._read_repaired

  def _read_repaired(self, buffer: Any) -> int:
    view = memoryview(buffer).cast("B")
    start = self.tell()
    num_bytes = self._readinto(view)
    for place, right in self._patches:
      for i in range(max(place, start), min(place + len(right), start + num_bytes)):
        view[i - start] = right[i - place]
    return num_bytes


def open_sound(file: BinaryIO | Slice, repairs: Repairs) -> soundfile.SoundFile:
  """Opens a file, which has to stay where libsndfile moves it.

  Raises:
    UnknownFormatError: libsndfile refuses the file.
  """
  file.seek(0)
  try:
    return soundfile.SoundFile(
      _Repaired(file, repairs) if repairs.patches else _Seekable(file)
    )
  except soundfile.LibsndfileError as error:
    raise UnknownFormatError(one_line(error.error_string)) from error


def length_at(rate_hz: int, sound: soundfile.SoundFile) -> int:
  """Returns the samples that a stream has at a rate; `UNKNOWN_LENGTH` if not known."""
  if sound.frames == UNKNOWN_LENGTH or sound.samplerate == rate_hz:
    return sound.frames
  return round(sound.frames * rate_hz / sound.samplerate)


def read_joined(
  sounds: Sequence[soundfile.SoundFile], start: int, stop: int
) -> Iterator[np.ndarray]:
  """Yields the samples of streams, one after another, as the first one has them.

  Args:
    sounds: the streams; one of another rate is resampled, and one with other channels
      has its mean in each.
    start: the first sample <float32>[samples, channels] that is wanted.
    stop: the sample before which to stop, perhaps beyond the end.

  Raises:
    LibsndfileError: a stream is damaged.
  """
  rate_hz, num_channels = sounds[0].samplerate, sounds[0].channels
  offset = 0
  for sound in sounds:
    length = length_at(rate_hz, sound)
    first, last = max(0, start - offset), min(stop - offset, length)
    if first < last and (sound.samplerate, sound.channels) == (rate_hz, num_channels):
      yield from _read(sound, first, last)
    elif first < last:
      at = 0
      for block in _converted(sound, rate_hz, num_channels):
        yield block[max(0, first - at) : max(0, last - at)]
        at += len(block)
    offset += length


def _converted(
  sound: soundfile.SoundFile, rate_hz: int, num_channels: int
) -> Iterator[np.ndarray]:
  """Yields a whole stream at another rate and with another number of channels."""
  blocks = _read(sound, 0, sound.frames)
  if sound.channels != num_channels:
    blocks = (np.repeat(x.mean(axis=1, keepdims=True), num_channels, 1) for x in blocks)
  if sound.samplerate == rate_hz:
    yield from blocks
    return
  stream = soxr.ResampleStream(sound.samplerate, rate_hz, num_channels, quality="HQ")
  for block in blocks:
    yield stream.resample_chunk(block)
  yield stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)


def _read(sound: soundfile.SoundFile, start: int, stop: int) -> Iterator[np.ndarray]:
  at = max(0, start - round(RUN_UP_S * sound.samplerate))
  # Also to 0 in an Opus stream that was cut from a longer one: that skips its first
  # samples, which are not to be heard.
  if at or sound.format == "OGG":
    sound.seek(at)
  # soundfile seeks after each read of a seekable file, which restarts decoders, and
  # fails at the end of a FLAC file.
  sound.seekable = lambda: False
  most = max(1, BLOCK_VALUES // sound.channels)
  while at < stop:
    block = sound.read(min(most, stop - at), dtype="float32", always_2d=True)
    if not len(block):
      return
    if at + len(block) > start:
      yield block[max(0, start - at) :]
    at += len(block)
