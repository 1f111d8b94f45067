"""TFRecord shards, written record by record and read at random.

TFRecord is what TFDS and tf.data read on every file system; with each record's size
known, any record is one read of a range, so no clip waits for a shuffle buffer.
"""

import dataclasses
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
      length = struct.pack("<Q", len(record))
      file.write(length + _masked_crc(length))
      file.write(record)
      file.write(_masked_crc(record))


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

  def read(self, clips: np.ndarray) -> list[bytes]:
    """Reads the parts of clips <int64>[n]."""
    return self.read_within(clips, np.zeros_like(clips), self.num_bytes[clips])

  def read_within(
    self, clips: np.ndarray, skip: np.ndarray, num_bytes: np.ndarray
  ) -> list[bytes]:
    """Reads `num_bytes` <int64>[n] of each clip's part, after its first `skip`."""
    paths = [self.paths[i] for i in self.file[clips]]
    start = self.start[clips] + skip
    return _read_ranges(paths, start.tolist(), (start + num_bytes).tolist())


def _read_ranges(
  paths: Sequence[str], starts: Sequence[int], ends: Sequence[int]
) -> list[bytes]:
  if "://" not in paths[0]:
    return list(map(_read_local, paths, starts, ends))
  # A bucket answers late, but answers many requests at once.
  with ThreadPoolExecutor(NUM_REMOTE_READS) as pool:
    return list(pool.map(_read_remote, paths, starts, ends))


def _read_local(path: str, start: int, end: int) -> bytes:
  with Path(path).open("rb", buffering=0) as file:
    file.seek(start)
    return file.read(end - start)


def _read_remote(path: str, start: int, end: int) -> bytes:
  with epath.Path(path).open("rb") as file:
    file.seek(start)
    return file.read(end - start)
