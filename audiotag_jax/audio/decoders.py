"""The one place where an audio file, or a part of it, becomes samples.

libsndfile decodes what it knows and reads to the end, because it is faster; the program
ffmpeg decodes the rest.
"""

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
from absl import logging

from audiotag_jax.audio import ffmpeg, headers, lengths, libsndfile
from audiotag_jax.audio.opening import (
  AudioError,
  AudioFile,
  Slice,
  check_rate,
  one_line,
  opened,
  path_of,
)

# The largest difference between two lengths of a file that is not worth a warning: some
# frames of a coder.
MAX_DIFFERENCE_S = 0.1
# The most bytes at a file's end that are not worth a warning: a block of a disk.
MAX_UNREAD_BYTES = 2**12


class Decoded(NamedTuple):
  """A file, or a part of it, that is being decoded.

  Attributes:
    rate_hz: its rate, one that recordings have.
    num_channels: its number of channels.
    num_samples: its length according to its header; None if not known.
    blocks: its samples <float32>[samples, channels], perhaps fewer than `num_samples`.
  """

  rate_hz: int
  num_channels: int
  num_samples: int | None
  blocks: Iterator[np.ndarray]


@contextlib.contextmanager
def decoding(
  audio: AudioFile, start_s: float = 0.0, end_s: float = math.inf
) -> Iterator[Decoded]:
  """Decodes a file in the block, from `start_s` to `end_s` or the file's end.

  Raises:
    AudioError: the file is missing, unreadable, empty or damaged, neither libsndfile
      nor ffmpeg knows its format, it has a rate that no recording has, or it ends
      before `start_s`. The blocks may raise it too.
  """
  with opened(audio) as file, contextlib.ExitStack() as stack:
    yield _Recording(audio, file, stack, start_s, end_s).decode()


class _Recording:
  """An open file, a part of which is wanted."""

  def __init__(
    self,
    audio: AudioFile,
    file: BinaryIO,
    stack: contextlib.ExitStack,
    start_s: float,
    end_s: float,
  ):
    self._audio = audio
    self._file = file
    self._stack = stack
    self._size = file.seek(0, os.SEEK_END)
    self._start_s, self._end_s = start_s, end_s

  def decode(self) -> Decoded:
    repairs = headers.find_repairs(Slice(self._file, 0, self._size))
    if repairs.num_unread > MAX_UNREAD_BYTES:
      self._warn(
        f"the samples end {repairs.num_unread} bytes before the file's end, according "
        "to its header; the rest is not read"
      )
    is_longer = repairs.end < self._size
    file = Slice(self._file, 0, repairs.end) if is_longer else self._file
    try:
      sound = self._stack.enter_context(libsndfile.open_sound(file, repairs))
      check_rate(sound.samplerate)
      missed = lengths.find_missed(self._file, sound, repairs)
      if not missed or not ffmpeg.find_ffmpeg():
        return self._with_libsndfile(sound, missed.there_s if missed else 0.0)
      cause = f"reads {missed.read_s:.2f} s of {missed.there_s:.2f} s"
    except libsndfile.UnknownFormatError as error:
      cause = str(error)
    return self._with_ffmpeg(cause)

  def _with_ffmpeg(self, cause: str) -> Decoded:
    process = self._start_ffmpeg(cause, self._start_s, self._stack)
    check_rate(process.rate_hz)
    start, stop = self._bounds(process.rate_hz)
    blocks = _first(process.blocks(start), stop - start)
    return Decoded(process.rate_hz, process.num_channels, None, blocks)

  def _with_libsndfile(self, sound: soundfile.SoundFile, there_s: float) -> Decoded:
    start, stop = self._bounds(sound.samplerate)
    sounds = [sound]
    if sound.format == "OGG" or (
      sound.format == "FLAC" and not start < sound.frames < libsndfile.UNKNOWN_LENGTH
    ):
      sounds = self._open_joined(sound, 0)
    length = sum(libsndfile.length_at(sound.samplerate, part) for part in sounds)
    if start and start >= length:
      raise AudioError(
        f"is {length / sound.samplerate:.1f} s long and ends before start_s "
        f"{self._start_s}"
      )
    is_known = length < libsndfile.UNKNOWN_LENGTH
    num_samples = min(stop, length) - start if is_known else None
    blocks = self._read(sounds, start, stop, there_s)
    return Decoded(sound.samplerate, sound.channels, num_samples, blocks)

  def _open_joined(
    self, sound: soundfile.SoundFile, place: int
  ) -> list[soundfile.SoundFile]:
    """Opens the streams of an Ogg or FLAC file, of which all but one are after a place.

    Returns `sound` alone, which is the file as one stream, if no other follows.
    """
    places = lengths.find_streams(self._file, sound.format, place)
    if not places:
      return [sound]
    sounds = []
    for start, end in itertools.pairwise([0, *places, self._size]):
      piece = Slice(self._file, start, end)
      part = libsndfile.open_sound(piece, headers.find_repairs(piece))
      sounds.append(self._stack.enter_context(part))
      check_rate(part.samplerate)
    return sounds

  def _read(
    self,
    sounds: list[soundfile.SoundFile],
    start: int,
    stop: int,
    there_s: float,
  ) -> Iterator[np.ndarray]:
    """Yields libsndfile's samples, and ffmpeg's from where libsndfile cannot go on."""
    at, rate_hz = start, sounds[0].samplerate
    try:
      for block in self._read_all(sounds, start, stop):
        at += len(block)
        yield block
    except (soundfile.LibsndfileError, libsndfile.UnknownFormatError) as error:
      if not ffmpeg.find_ffmpeg():
        raise
      length = sum(libsndfile.length_at(rate_hz, sound) for sound in sounds)
      yield from self._rest(sounds[0], error, at, min(stop, length))
      return
    if min(there_s, self._end_s) > at / rate_hz + MAX_DIFFERENCE_S:
      self._warn(
        f"libsndfile reads {at / rate_hz:.2f} s of {there_s:.2f} s: install ffmpeg, "
        "which reads all"
      )

  def _read_all(
    self, sounds: list[soundfile.SoundFile], start: int, stop: int
  ) -> Iterator[np.ndarray]:
    """Yields the samples of all streams."""
    at, sound = start, sounds[0]
    for block in libsndfile.read_joined(sounds, start, stop):
      at += len(block)
      yield block
    if len(sounds) == 1 and sound.format == "FLAC" and at == sound.frames < stop:
      # A search of the whole file would take a twentieth of the time of decoding.
      place = max(1, self._file.tell() - libsndfile.FLAC_BUFFER_BYTES)
      sounds = self._open_joined(sound, place)
      if len(sounds) > 1:
        yield from libsndfile.read_joined(sounds, at, stop)

  def _rest(
    self, sound: soundfile.SoundFile, error: Exception, start: int, stop: int
  ) -> Iterator[np.ndarray]:
    """Yields what ffmpeg reads of a damaged file from a sample on.

    Args:
      sound: the file, or its first stream, in libsndfile.
      error: libsndfile's.
      start: the first sample that is wanted.
      stop: the end of what is wanted, or the file's by its header.
    """
    at, rate_hz = start, sound.samplerate
    with contextlib.ExitStack() as stack:
      process = self._start_ffmpeg(one_line(error), 0.0, stack)
      if (process.rate_hz, process.num_channels) != (rate_hz, sound.channels):
        raise error
      for block in _first(process.blocks(start), stop - start):
        at += len(block)
        yield block
    if at < stop:
      promised = f"{stop / rate_hz:.2f} s"
      if stop >= libsndfile.UNKNOWN_LENGTH:
        promised = "unknown length"
      self._warn(
        f"the file is damaged or cut off: {at / rate_hz:.2f} s of {promised} were read"
      )

  def _start_ffmpeg(
    self, cause: str, start_s: float, stack: contextlib.ExitStack
  ) -> ffmpeg.Ffmpeg:
    self._file.seek(0)
    timeline = ffmpeg.find_timeline(self._file.read(ffmpeg.HEAD_BYTES))
    path = stack.enter_context(path_of(self._file, self._audio))
    return ffmpeg.Ffmpeg(path, cause, timeline, stack, start_s)

  def _bounds(self, rate_hz: int) -> tuple[int, int]:
    """Returns the samples at which the part starts and ends."""
    start, stop = (
      round(min(time_s * rate_hz, libsndfile.UNKNOWN_LENGTH))
      for time_s in (self._start_s, self._end_s)
    )
    return start, stop

  def _warn(self, message: str) -> None:
    has_path = isinstance(self._audio, os.PathLike)
    name = self._audio if has_path else self._audio.name
    logging.warning("%s: %s", name, message)


def _first(blocks: Iterator[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
  """Yields the first samples of blocks."""
  for block in blocks:
    if num_samples <= 0:
      return
    yield block[:num_samples]
    num_samples -= len(block)
