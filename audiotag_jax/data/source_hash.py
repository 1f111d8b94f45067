"""The hash of the file that a clip comes from, taken when the clip is prepared."""

import functools
import hashlib
import os

from etils import epath

from audiotag_jax.audio.opening import AudioFile, opened

# 64 bits, so that a change goes unnoticed once in 2**64 times.
HASH_DIGITS = 16
BLOCK_BYTES = 2**20


class ReadOnce:
  """A file that is not local, kept in memory for its audio and its hash.

  Attributes:
    name: the file's name.
  """

  def __init__(self, audio: AudioFile):
    """Reads nothing yet."""
    self.name = audio.name
    self._audio = audio

  @functools.cached_property
  def _bytes(self) -> bytes:
    return self._audio.read_bytes()

  def read_bytes(self) -> bytes:
    return self._bytes


def read_once(audio: AudioFile) -> AudioFile:
  """Returns the file itself if it is local, or else as one that is read once."""
  return audio if _is_local(audio) else ReadOnce(audio)


def hash_of(audio: AudioFile, start_s: float, end_s: float | None) -> str:
  """Hashes a file's bytes and the part of it that a clip is.

  Args:
    audio: the file.
    start_s: where the clip starts in the file.
    end_s: where the clip ends in the file; None for the file's end.

  Returns:
    The first digits of the file's SHA-256 or, of a part, of that with its times.

  Raises:
    AudioError: the file cannot be read.
  """
  if not start_s and end_s is None:
    return _hash(audio)[:HASH_DIGITS]
  if _is_local(audio):
    path = str(audio)
    stat = os.stat(path)
    whole = _hash_local(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
  else:
    whole = _hash(audio)
  part = f"{whole} {start_s} {end_s}"
  return hashlib.sha256(part.encode()).hexdigest()[:HASH_DIGITS]


def _is_local(audio: AudioFile) -> bool:
  return isinstance(audio, os.PathLike) and "://" not in str(audio)


# The latest files, because many clips may be parts of one.
@functools.lru_cache(maxsize=64)
def _hash_local(path: str, *_: int) -> str:
  return _hash(epath.Path(path))


def _hash(audio: AudioFile) -> str:
  digest = hashlib.sha256()
  with opened(audio) as file:
    while block := file.read(BLOCK_BYTES):
      digest.update(block)
  return digest.hexdigest()
