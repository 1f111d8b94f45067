"""Clips of a prepared set: their index, and their waveforms, read and normalised."""

import array
import csv
import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from scipy import sparse

from audiotag_jax.audio.waveforms import INT16_SCALE, SCALE_SAMPLES
from audiotag_jax.data import prepared_set
from audiotag_jax.data.records import Chunks, DamagedError, Records, record_offsets
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClipIndex:
  """Clips of a prepared set: everything about them but their audio.

  Attributes:
    classes: the class names, in vocabulary order.
    fname: <str>[clips].
    labels: <uint8>[clips, classes], sparse, because there may be two million clips.
    num_samples: <int64>[clips].
    source_hash: <str>[clips], of the file that each comes from; empty in a set of an
      older version.
    record: <int64>[clips], positions in `records` and `log_mels`.
    records: the serialised examples of the whole set.
    features: deserialises the examples.
    log_mels: the log-mels of the whole set <float16>[frames, mels], if they are cached.
  """

  classes: tuple[str, ...]
  fname: np.ndarray
  labels: sparse.csr_array
  num_samples: np.ndarray
  source_hash: np.ndarray
  record: np.ndarray
  records: Records
  features: tfds.features.FeaturesDict
  log_mels: Chunks | None = None

  def __len__(self) -> int:
    return len(self.fname)

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  @property
  def sha256(self) -> str:
    """SHA-256 of the fnames in order, a line each."""
    text = "".join(f"{fname}\n" for fname in self.fname)
    return hashlib.sha256(text.encode()).hexdigest()

  def read(self, clips: np.ndarray) -> list[bytes]:
    """Reads the examples of clips <int64>[n], positions in this index.

    Raises:
      UserError: an example is missing, or not what was written.
    """
    try:
      return self.records.read(self.record[clips])
    except DamagedError as error:
      raise self._user_error(error) from error

  def read_log_mels(
    self, clips: np.ndarray, skip: np.ndarray, num_bytes: np.ndarray
  ) -> list[memoryview]:
    """Reads `num_bytes` <int64>[n] of cached log-mels, after the first `skip`.

    Raises:
      UserError: a log-mel is missing, or not what was written.
    """
    assert self.log_mels is not None
    try:
      return self.log_mels.read_within(self.record[clips], skip, num_bytes)
    except DamagedError as error:
      raise self._user_error(error) from error

  def _user_error(self, error: DamagedError) -> UserError:
    names = self.fname[self.record == error.clip]
    return UserError(
      f"{error.path} {error}, where clip {names[0]} is read: delete the file and start "
      "the same command again, which then writes this file alone"
    )

  def select(self, clips: np.ndarray) -> "ClipIndex":
    """Returns the clips that a mask or positions choose."""
    columns = ("fname", "labels", "num_samples", "source_hash", "record")
    chosen = {name: getattr(self, name)[clips] for name in columns}
    return dataclasses.replace(self, **chosen)


class Errors:
  """Carries a `UserError` out of tf.data, which would bury it in a message of its own.

  Wrap the functions that tf.data calls in `kept`, and the iterator in `raised`.
  """

  def __init__(self) -> None:
    """Starts without an error."""
    self._first: UserError | None = None

  def kept(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, which now keeps the `UserError` that it raises."""

    def wrapped(*args: Any) -> Any:
      try:
        return function(*args)
      except UserError as error:
        self._first = self._first or error
        raise

    return wrapped

  def raised(self, items: Iterator) -> Iterator:
    """Yields the items, and raises the kept error where tf.data raises its own."""
    try:
      yield from items
    except tf.errors.OpError:
      if self._first:
        raise self._first from None
      raise


def read_index(folder: epath.PathLike) -> tuple[ClipIndex, np.ndarray]:
  """Reads the index of a prepared set.

  Returns:
    All clips, in record order, and the official split of each <str>[clips].
  """
  folder = epath.Path(folder)
  info = tfds.builder_from_directory(folder).info
  classes = tuple(info.features["labels"].feature.names)
  fname, split, source_hash = [], [], []
  num_samples, num_bytes = array.array("q"), array.array("q")
  indices, indptr = array.array("i"), array.array("q", [0])
  with (folder / prepared_set.CLIPS_FILE).open(encoding="utf-8") as file:
    rows = csv.reader(file)
    next(rows)
    for name, split_name, samples, labels, size, *hashed in rows:
      fname.append(name)
      split.append(sys.intern(split_name))
      num_samples.append(int(samples))
      num_bytes.append(int(size))
      source_hash += hashed or [""]
      indices.extend(map(int, labels.split()))
      indptr.append(len(indices))
  ones = np.ones(len(indices), np.uint8)
  shape = (len(fname), len(classes))
  index = ClipIndex(
    classes=classes,
    fname=np.array(fname, np.dtypes.StringDType()),
    labels=sparse.csr_array((ones, indices, indptr), shape),
    num_samples=np.array(num_samples),
    source_hash=np.array(source_hash, np.dtypes.StringDType()),
    record=np.arange(len(fname)),
    records=_record_ranges(info, np.array(num_bytes)),
    features=info.features,
  )
  return index, np.array(split)


def _record_ranges(info: tfds.core.DatasetInfo, num_bytes: np.ndarray) -> Records:
  splits = [info.splits[name] for name in SPLITS if name in info.splits]
  lengths = [length for split in splits for length in split.shard_lengths]
  shard = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
  paths = tuple(str(path) for split in splits for path in split.filepaths)
  return Records(paths, shard, record_offsets(num_bytes, shard), num_bytes)


def read_waveform(
  clips: ClipIndex, clip: int, data: ml_collections.ConfigDict
) -> tf.Tensor:
  """Reads one clip's normalised waveform <float32>[samples] at full length."""
  recording = decode(clips.read(np.array([clip]))[0], clips.features)
  return normalize(recording, data)


def decode(record: tf.Tensor, features: tfds.features.FeaturesDict) -> tf.Tensor:
  """Decodes an example to its waveform <float32>[samples], full scale at 1."""
  example = features.deserialize_example(record)
  audio = tf.cast(example["audio"], tf.float32)
  if "scale" not in example:  # A set of an older version.
    return audio * INT16_SCALE
  return audio * tf.repeat(example["scale"], SCALE_SAMPLES)[: tf.size(audio)]


def normalize(waveform: tf.Tensor, data: ml_collections.ConfigDict) -> tf.Tensor:
  """Scales a waveform <float32>[samples] to a peak of 1, or leaves it as it is."""
  if data.normalize == "none":
    return waveform
  return tf.math.divide_no_nan(waveform, tf.reduce_max(tf.abs(waveform)))
