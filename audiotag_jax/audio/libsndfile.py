"""Audio decoded by libsndfile."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from audiotag_jax.audio.headers import Repairs
from audiotag_jax.audio.opening import one_line

# libsndfile's value for a length that the header lacks (SF_COUNT_MAX).
UNKNOWN_LENGTH = 2**63 - 1
# Decoding starts this long before a part, because a decoder of mp3 needs the frames
# before, and one of opus converges.
RUN_UP_S = 2.0
# Samples times channels of a block.
BLOCK_VALUES = 2**20


class UnknownFormatError(Exception):
  """libsndfile does not read the file; the message is the reason."""


class _Repaired:
  """A file for libsndfile, which seeks to where a damaged header points.

  An exception in its callback would print a traceback, and decoding would continue.
  """

  def __init__(self, file: BinaryIO, repairs: Repairs):
    self._file = file
    self._repairs = repairs
    self._end = repairs.end
    self.tell = file.tell

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Moves to a place, or stays if a file cannot have it, as C's fseek does."""
    if whence == os.SEEK_END:
      offset, whence = offset + self._end, os.SEEK_SET
    with contextlib.suppress(OSError, ValueError, OverflowError):
      return self._file.seek(offset, whence)
    return -1

  def readinto(self, buffer: memoryview) -> int:
    """Reads, with the header as it should be."""
    start = self._file.tell()
    view = memoryview(buffer).cast("B")[: max(0, self._end - start)]
    num_bytes = self._file.readinto(view)  # type: ignore[attr-defined]
    for place, right in self._repairs.patches:
      for i in range(max(place, start), min(place + len(right), start + num_bytes)):
        view[i - start] = right[i - place]
    return num_bytes


def open_sound(file: BinaryIO, repairs: Repairs) -> soundfile.SoundFile:
  """Opens a file in libsndfile; raises `UnknownFormatError` if libsndfile refuses."""
  file.seek(0)
  try:
    return soundfile.SoundFile(_Repaired(file, repairs))
  except soundfile.LibsndfileError as error:
    raise UnknownFormatError(one_line(error.error_string)) from error


def read_blocks(
  sound: soundfile.SoundFile, start: int, stop: int
) -> Iterator[np.ndarray]:
  """Yields the samples <float32>[samples, channels] from `start` to `stop` or the end.

  Raises:
    LibsndfileError: the file is damaged.
  """
  at = max(0, start - round(RUN_UP_S * sound.samplerate))
  # Also to 0: where an Opus stream was cut from a longer one, that skips its first
  # samples, which are not to be heard.
  if sound.frames != UNKNOWN_LENGTH:
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
