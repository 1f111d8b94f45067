"""Files of which any clip's part is read at random, and checked.

The prepared set's files are TFRecord shards, which TFDS and tf.data read on every file
system; with each record's size known, any record is one read of a range, so no clip
waits for a shuffle buffer. A record carries its own checksums. Files without any have
the checksums of their chunks in a file beside them.
"""

import dataclasses
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import google_crc32c
import numpy as np
from etils import epath

# Bytes before a record (its length and the length's checksum) and after it (its own
# checksum).
HEADER_BYTES, FOOTER_BYTES = 12, 4
NUM_REMOTE_READS = 32


def write_records(path: epath.Path, records: Iterable[bytes]) -> None:
  """Writes a TFRecord file; see tensorflow/core/lib/io/record_writer.h."""
  with path.open("wb") as file:
    for record in records:
      file.write(_header(record))
      file.write(record)
      file.write(_masked_crc(record))


def _header(record: bytes) -> bytes:
  length = struct.pack("<Q", len(record))
  return length + _masked_crc(length)


def _masked_crc(data: bytes) -> bytes:
  crc = google_crc32c.value(data)
  return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record_offsets(num_bytes: np.ndarray, shard: np.ndarray) -> np.ndarray:
  """Returns the byte where each record starts in its shard <int64>[records].

  Args:
    num_bytes: <int64>[records], their sizes, in the order of the shards.
    shard: <int32>[records], the shard of each, ascending.
  """
  return HEADER_BYTES + start_in_shard(num_bytes + HEADER_BYTES + FOOTER_BYTES, shard)


def start_in_shard(sizes: np.ndarray, shard: np.ndarray) -> np.ndarray:
  """Sums, for each item, the sizes <int64>[n] before it in its shard <int32>[n]."""
  starts = sizes.cumsum() - sizes
  first_of_shard = np.searchsorted(shard, shard)
  return starts - starts[first_of_shard]


class DamagedError(Exception):
  """A clip's part of a file is not what was written.

  Attributes:
    path: the file.
    clip: the clip's position in the whole set.
  """

  def __init__(self, path: str, clip: int, reason: str):
    """Takes the reason, which follows the path, as "is cut short" does."""
    super().__init__(reason)
    self.path, self.clip = path, clip


@dataclasses.dataclass(frozen=True)
class Ranges:
  """Parts of some files, one for each of a set's clips.

  Attributes:
    paths: the files, of any file system that etils knows.
    file: <int32>[clips], position in `paths`.
    start: <int64>[clips], where the clip's part starts, in bytes.
    num_bytes: <int64>[clips], its length.
  """

  paths: tuple[str, ...]
  file: np.ndarray
  start: np.ndarray
  num_bytes: np.ndarray

  def _read(
    self, clips: np.ndarray, first: np.ndarray, pieces: Sequence[np.ndarray]
  ) -> Iterator[tuple[int, str, list[bytes]]]:
    """Yields clip, file, and the pieces that follow one another in the file.

    Args:
      clips: <int64>[n].
      first: <int64>[n], where the first piece starts, counted from the part's start.
      pieces: <int64>[n] each, their sizes.
    """
    paths = [self.paths[i] for i in self.file[clips]]
    starts = (self.start[clips] + first).tolist()
    sizes = np.stack(pieces, axis=1).tolist()
    for clip, path, size, found in zip(
      clips, paths, sizes, _read_all(paths, starts, sizes), strict=True
    ):
      if isinstance(found, OSError):
        reason = f"cannot be read ({found.strerror or found})"
        raise DamagedError(path, clip, reason) from found
      if list(map(len, found)) != size:
        raise DamagedError(path, clip, "is cut short")
      yield clip, path, found


class Records(Ranges):
  """Records of TFRecord files, each with its checksums around it."""

  def read(self, clips: np.ndarray) -> list[bytes]:
    """Reads the records of clips <int64>[n].

    Raises:
      DamagedError: a record is missing, or not what was written.
    """
    header, footer = (np.full_like(clips, n) for n in (HEADER_BYTES, FOOTER_BYTES))
    pieces = header, self.num_bytes[clips], footer
    records = []
    for clip, path, (before, record, after) in self._read(clips, -header, pieces):
      if before != _header(record):
        raise DamagedError(path, clip, "has a wrong length before a record")
      if after != _masked_crc(record):
        raise DamagedError(path, clip, "has a wrong checksum after a record")
      records.append(record)
    return records


@dataclasses.dataclass(frozen=True)
class Chunks(Ranges):
  """Parts that are read whole or in part, with a checksum for each chunk of a part.

  Attributes:
    chunk_bytes: the size of a chunk; the last one of a part is shorter.
    first_chunk: <int64>[clips], position of the part's first checksum in `crcs`.
    crcs: <uint32>[chunks], the crc32c of each chunk.
  """

  chunk_bytes: int
  first_chunk: np.ndarray
  crcs: np.ndarray

  def read_within(
    self, clips: np.ndarray, skip: np.ndarray, num_bytes: np.ndarray
  ) -> list[memoryview]:
    """Reads `num_bytes` <int64>[n] of each clip's part, after its first `skip`.

    Raises:
      DamagedError: a part is missing, or not what was written.
    """
    size = self.chunk_bytes
    first = skip // size
    end = np.minimum(-(-(skip + num_bytes) // size) * size, self.num_bytes[clips])
    parts = []
    read = self._read(clips, first * size, [end - first * size])
    positions = zip(first, skip, num_bytes, strict=True)
    for (clip, path, (data,)), (chunk, skipped, wanted) in zip(
      read, positions, strict=True
    ):
      found = chunk_crcs(data, size)
      place = self.first_chunk[clip] + chunk
      if found != self.crcs[place : place + len(found)].tolist():
        raise DamagedError(path, clip, "has a wrong checksum")
      late = skipped - chunk * size
      parts.append(memoryview(data)[late : late + wanted])
    return parts


def chunk_crcs(data: bytes, chunk_bytes: int) -> list[int]:
  """The crc32c of each chunk."""
  starts = range(0, len(data), chunk_bytes)
  return [google_crc32c.value(data[i : i + chunk_bytes]) for i in starts]


def _read_all(
  paths: Sequence[str], starts: Sequence[int], sizes: Sequence[list[int]]
) -> list[list[bytes] | OSError]:
  """Reads, of each file, pieces of some sizes that follow one another."""
  if not paths or "://" not in paths[0]:
    return list(map(_read_local, paths, starts, sizes))
  # A bucket answers late, but answers many requests at once.
  with ThreadPoolExecutor(NUM_REMOTE_READS) as pool:
    return list(pool.map(_read_remote, paths, starts, sizes))


def _read_local(path: str, start: int, sizes: list[int]) -> list[bytes] | OSError:
  try:
    with Path(path).open("rb", buffering=0) as file:
      file.seek(start)
      # Apart, because cutting a large piece to size would copy it.
      return [_read_piece(file, size) for size in sizes]
  except OSError as error:
    return error


def _read_piece(file: FileIO, size: int) -> bytes:
  data = file.read(size)
  # A signal may cut a read short.
  while len(data) < size and (rest := file.read(size - len(data))):
    data += rest
  return data


def _read_remote(path: str, start: int, sizes: list[int]) -> list[bytes] | OSError:
  try:
    with epath.Path(path).open("rb") as file:
      file.seek(start)
      data = file.read(sum(sizes))
  except OSError as error:
    return error
  ends = itertools.accumulate(sizes)
  return [data[end - size : end] for size, end in zip(sizes, ends, strict=True)]
