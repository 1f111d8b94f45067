"""An audio file, opened, and how a fault of the file is worded."""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

from audiotag_jax.audio import waveforms


class AudioFile(Protocol):
  """A path on any file system that etils reads, or an object that is read like one."""

  @property
  def name(self) -> str: ...

  def read_bytes(self) -> bytes: ...


class AudioError(ValueError):
  """A file that gives no usable waveform; the message is the reason, in one line."""


@contextlib.contextmanager
def opened(audio: AudioFile) -> Iterator[BinaryIO]:
  """Opens a local file, or a copy in memory of any other file.

  Raises:
    AudioError: the file cannot be opened or is empty, or the block ends with an error
      of reading or decoding, or for want of memory.
  """
  try:
    with _open(audio) as file:
      if not file.read(1):
        raise AudioError("is empty")
      file.seek(0)
      yield file
  except AudioError:
    raise
  except FileNotFoundError as error:
    raise AudioError("is missing") from error
  except OSError as error:
    reason = one_line(error.strerror or error)
    raise AudioError(f"cannot be read ({reason})") from error
  except (RuntimeError, ValueError) as error:
    raise AudioError(f"cannot be decoded ({one_line(error)})") from error
  except MemoryError as error:
    raise AudioError("cannot be decoded (there is not enough memory)") from error


@contextlib.contextmanager
def _open(audio: AudioFile) -> Iterator[BinaryIO]:
  if not isinstance(audio, os.PathLike) or "://" in str(audio):
    yield io.BytesIO(audio.read_bytes())
    return
  # A pipe would block, and a device would never end.
  if os.path.exists(audio) and not os.path.isfile(audio):
    raise AudioError("is not a file")
  # Opened by descriptor, because soundfile assumes that a file x.raw has no header.
  with open(os.open(audio, os.O_RDONLY), "rb") as file:
    yield file


class Slice(io.RawIOBase):
  """A part of an open file as a file of its own, with a place of its own."""

  def __init__(self, file: BinaryIO, start: int, end: int):
    self._file = file
    self._start = start
    self._size = end - start
    self._at = 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def tell(self) -> int:
    return self._at

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Moves to a place; raises ValueError if it is before the start."""
    place = offset + {os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence, 0)
    if place < 0:
      raise ValueError(f"cannot seek to {place}")
    self._at = place
    return place

  def readinto(self, buffer: Any) -> int:
    self._file.seek(self._start + self._at)
    view = memoryview(buffer).cast("B")[: max(0, self._size - self._at)]
    num_bytes = self._file.readinto(view)  # type: ignore[attr-defined]
    self._at += num_bytes
    return num_bytes


@contextlib.contextmanager
def path_of(file: BinaryIO, audio: AudioFile) -> Iterator[str]:
  """Yields an open file's path on disk; one in memory is copied there for the block."""
  if not isinstance(file, io.BytesIO):
    yield os.path.abspath(str(audio))
    return
  with tempfile.NamedTemporaryFile(suffix=PurePosixPath(audio.name).suffix) as copy:
    copy.write(file.getbuffer())
    copy.flush()
    yield copy.name


def check_rate(rate_hz: int) -> None:
  """Raises `AudioError` for a rate that no recording has."""
  fault = waveforms.find_rate_fault(rate_hz)
  if fault:
    raise AudioError(fault)


def one_line(reason: object) -> str:
  """Returns a message's first line, without ffmpeg's addresses or a full stop."""
  lines = str(reason).splitlines() or [type(reason).__name__]
  return re.sub(r"^(\[[^\]]* @ 0x[^\]]*\] )*", "", lines[0]).rstrip(". ")
