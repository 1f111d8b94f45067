"""Shards of a set in preparation: clips that are decoded and written to one file."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import waveforms
from audiotag_jax.data import records, source_hash
from audiotag_jax.data.prepared_set import CLIPS_FILE, REJECTED_FILE, csv_writer
from audiotag_jax.data.sources.source import SPLITS, Clip, Source

# The name of all sets, as TFDS has it.
SET_NAME = "audio_tags"
# Clips in a shard: 128 MB of FSD50K at 32 kHz, the most that a kill can cost.
SHARD_CLIPS = 256


def clip_features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
  """Features of a set's examples: `audio` and `scale` as of `waveforms.quantize`.

  TFDS encodes bytes many times faster than numbers.
  """

  def tensor(dtype: type) -> tfds.features.Tensor:
    encoding = tfds.features.Encoding.BYTES
    return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding=encoding)

  return tfds.features.FeaturesDict(
    {
      "audio": tensor(np.int16),
      "scale": tensor(np.float32),
      "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=classes)),
      "fname": tfds.features.Text(),
    }
  )


def quantized(
  waveform: np.ndarray, features: tfds.features.FeaturesDict
) -> dict[str, np.ndarray]:
  """Returns the part of an example that holds a waveform <float32>[samples]."""
  if "scale" not in features:  # A set of an older version, which is repaired.
    return {"audio": waveforms.to_int16(waveform)}
  audio, scale = waveforms.quantize(waveform)
  return {"audio": audio, "scale": scale}


@dataclasses.dataclass(frozen=True)
class Shard:
  """Consecutive clips of a split that are stored in one file.

  Attributes:
    split: the split.
    index: the shard's number in the split.
    count: shards in the split.
    clips: the clips.
  """

  split: str
  index: int
  count: int
  clips: tuple[Clip, ...] = dataclasses.field(repr=False)

  @property
  def name(self) -> str:
    """The name of its file until the set is whole."""
    return f"{self.split}-{self.index:05d}"

  @property
  def final_name(self) -> str:
    """The name of its file in the set, as TFDS has it."""
    place = f"{self.index:05d}-of-{self.count:05d}"
    return f"{SET_NAME}-{self.split}.tfrecord-{place}"

  def files(self, folder: epath.Path) -> list[epath.Path]:
    """The shard's file and lists in a folder of finished shards, in writing order."""
    names = (f"{self.name}.{CLIPS_FILE}", f"{self.name}.{REJECTED_FILE}", self.name)
    return [folder / name for name in names]


def cut_into_shards(source: Source) -> Iterator[Shard]:
  """Yields the shards of a source, split by split, in order."""
  for split in SPLITS:
    clips = [clip for clip in source.clips if clip.split == split]
    count = -(-len(clips) // SHARD_CLIPS)
    for i in range(count):
      part = clips[i * SHARD_CLIPS : (i + 1) * SHARD_CLIPS]
      yield Shard(split, i, count, tuple(part))


def write_shard(
  shard: Shard,
  *,
  folder: epath.Path,
  features: tfds.features.FeaturesDict,
  sample_rate_hz: int,
  pool: ThreadPoolExecutor | None = None,
  on_clip: Callable[[], Any] = lambda: None,
) -> None:
  """Writes a shard and the lists of its clips, unless they are written already.

  Args:
    shard: the shard.
    folder: the folder to write to.
    features: serialises the clips.
    sample_rate_hz: the rate to store the audio at.
    pool: decodes the clips; None for the caller's thread alone.
    on_clip: called after each clip.
  """
  clips_file, rejected_file, path = shard.files(folder)
  if all(file.exists() for file in (clips_file, rejected_file, path)):
    for _ in shard.clips:
      on_clip()
    return
  accepted, rejected = [], []
  serializer = tfds.core.example_serializer.ExampleSerializer(
    features.get_serialized_info()
  )

  def serialized(clip: Clip) -> tuple[int, str, bytes | audio_files.AudioError]:
    try:
      file = source_hash.read_once(clip.audio)
      waveform = audio_files.read_audio(file, sample_rate_hz, clip.start_s, clip.end_s)
      hashed = source_hash.hash_of(file, clip.start_s, clip.end_s)
    except audio_files.AudioError as error:
      return 0, "", error
    audio = quantized(waveform, features)
    example = features.encode_example(
      {**audio, "labels": clip.labels, "fname": clip.fname}
    )
    # Protobuf's usual order of a map's entries differs from process to process.
    proto = serializer.get_tf_example(example)
    return len(waveform), hashed, proto.SerializeToString(deterministic=True)

  def examples() -> Iterator[bytes]:
    for clip, (num_samples, hashed, example) in _map_ahead(
      pool, serialized, shard.clips
    ):
      on_clip()
      if isinstance(example, audio_files.AudioError):
        rejected.append((clip.fname, clip.split, str(example)))
        continue
      labels = " ".join(map(str, clip.labels))
      row = (clip.fname, clip.split, num_samples, labels, len(example), hashed)
      accepted.append(row)
      yield example

  def write(partial: epath.Path) -> None:
    records.write_records(partial, examples())
    for file, rows in ((clips_file, accepted), (rejected_file, rejected)):
      with csv_writer(file) as write_rows:
        write_rows(rows)

  files.write_whole(path, write)


def _map_ahead(
  pool: ThreadPoolExecutor | None, function: Callable, items: Iterable
) -> Iterator[tuple[Any, Any]]:
  """Yields (item, function(item)) in order, computed a few items ahead on the pool."""
  if pool is None:
    yield from ((item, function(item)) for item in items)
    return
  pending: collections.deque[tuple[Any, Future]] = collections.deque()
  for item in items:
    pending.append((item, pool.submit(function, item)))
    if len(pending) > 4 * (os.cpu_count() or 1):
      item, future = pending.popleft()
      yield item, future.result()
  for item, future in pending:
    yield item, future.result()


def write_on_all_cores(write: Callable, shards: Sequence[Shard]) -> None:
  """Writes shards one by one; `write` is `write_shard` but for pool and progress."""
  total = sum(len(shard.clips) for shard in shards)
  with (
    ThreadPoolExecutor(os.cpu_count()) as pool,
    tqdm(total=total, desc="preparing", unit="clip", disable=None) as bar,
  ):
    for shard in shards:
      write(shard, pool=pool, on_clip=bar.update)


def write_with_beam(
  write: Callable, shards: Sequence[Shard], config: tfds.download.DownloadConfig
) -> None:
  """Hands shards to Beam's workers, which write them by `write`."""
  import apache_beam as beam

  pipeline = beam.Pipeline(runner=config.beam_runner, options=config.beam_options)
  with pipeline:
    pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(write)
