"""Preparation of a source as a TFDS set.

A prepared set has TFRecord shards with `audio` (int16, one sample rate, full length),
`labels` and `fname` in the order of the source. Beside the shards are `clips.csv`, from
which splits are chosen without reading audio, and `rejected.csv`.
"""

import collections
import contextlib
import csv
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import waveforms
from audiotag_jax.data import records
from audiotag_jax.data.sources.source import SPLITS, Clip, Source
from audiotag_jax.errors import UserError

CLIPS_FILE = "clips.csv"
REJECTED_FILE = "rejected.csv"
CLIPS_HEADER = ("fname", "split", "num_samples", "labels", "num_bytes")
REJECTED_HEADER = ("fname", "split", "reason")
# Clips in a shard: 128 MB of FSD50K at 32 kHz, the most that a kill can cost.
SHARD_CLIPS = 256


@dataclasses.dataclass(kw_only=True)
class AudioTagsConfig(tfds.core.BuilderConfig):
  """The source and the sample rate of a prepared set.

  Attributes:
    source: the source.
    sample_rate_hz: the rate that the audio is stored at.
  """

  source: Source
  sample_rate_hz: int


class AudioTags(tfds.core.ShardBasedBuilder):
  """TFDS builder of a source.

  TFDS's own writer makes one shard after the other and holds each in memory. This
  builder decodes on all cores, keeps the finished shards of a killed preparation, and
  hands the same shards to Beam's workers if TFDS is given a Beam runner.
  """

  VERSION = tfds.core.Version("2.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Recordings with weak labels, for audio tagging.",
      features=clip_features(self.builder_config.source.classes),
      disable_shuffling=True,
    )

  def _shard_iterators_per_split(self, _: Any) -> dict[str, list[Callable]]:
    raise NotImplementedError("shards are written by write_shard")

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    config = self.builder_config
    finished = partial_folder(config, self.data_dir_root)
    finished.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(config.source))
    write = functools.partial(
      write_shard,
      folder=finished,
      features=self.info.features,
      sample_rate_hz=config.sample_rate_hz,
    )
    if download_config and download_config.beam_runner:
      _write_with_beam(write, shards, download_config)
    else:
      _write_on_all_cores(write, shards, len(config.source.clips))
    self._gather(shards, finished)

  def _gather(self, shards: Sequence["Shard"], finished: epath.Path) -> None:
    """Moves the shards to the set, joins their lists, and tells TFDS the splits."""
    folder = epath.Path(self.data_dir)
    rejected: list[Sequence] = []
    rejected += map(dataclasses.astuple, self.builder_config.source.rejected)
    lengths = collections.defaultdict(list)
    sizes: dict[str, int] = collections.Counter()
    template = self._get_filename_template
    with _csv_writer(folder / CLIPS_FILE, CLIPS_HEADER) as write_clips:
      for shard in shards:
        accepted = _read_rows(finished / f"{shard.name}.{CLIPS_FILE}")
        write_clips(accepted)
        rejected += _read_rows(finished / f"{shard.name}.{REJECTED_FILE}")
        path = template(split_name=shard.split).sharded_filepath(
          shard_index=shard.index, num_shards=shard.count
        )
        (finished / shard.name).rename(path)
        lengths[shard.split].append(len(accepted))
        sizes[shard.split] += path.stat().length
    with _csv_writer(folder / REJECTED_FILE, REJECTED_HEADER) as write_rejected:
      write_rejected(rejected)
    self.info.set_splits(
      tfds.core.splits.SplitDict(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=lengths[split],
          num_bytes=sizes[split],
          filename_template=template(split_name=split),
        )
        for split in lengths
      )
    )
    finished.rmtree()


def clip_features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
  """Features of a set's examples; TFDS encodes bytes many times faster than int16."""
  audio = tfds.features.Tensor(
    shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
  )
  labels = tfds.features.Sequence(tfds.features.ClassLabel(names=classes))
  return tfds.features.FeaturesDict(
    {"audio": audio, "labels": labels, "fname": tfds.features.Text()}
  )


def partial_folder(config: AudioTagsConfig, root: epath.PathLike) -> epath.Path:
  """Folder of the shards until all are written; a killed preparation keeps it."""
  return epath.Path(root) / AudioTags.name / f"{config.name}.partial"


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
    return f"{self.split}-{self.index:05d}"


def _shards(source: Source) -> Iterator[Shard]:
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
  path = folder / shard.name
  if path.exists():
    for _ in shard.clips:
      on_clip()
    return
  accepted, rejected = [], []

  def serialized(clip: Clip) -> tuple[int, bytes | audio_files.AudioError]:
    try:
      waveform = audio_files.read_audio(
        clip.audio, sample_rate_hz, clip.start_s, clip.end_s
      )
    except audio_files.AudioError as error:
      return 0, error
    audio = waveforms.to_int16(waveform)
    example = {"audio": audio, "labels": clip.labels, "fname": clip.fname}
    return len(audio), features.serialize_example(example)

  def examples() -> Iterator[bytes]:
    for clip, (num_samples, example) in _map_ahead(pool, serialized, shard.clips):
      on_clip()
      if isinstance(example, audio_files.AudioError):
        rejected.append((clip.fname, clip.split, str(example)))
        continue
      labels = " ".join(map(str, clip.labels))
      accepted.append((clip.fname, clip.split, num_samples, labels, len(example)))
      yield example

  def write(partial: epath.Path) -> None:
    records.write_records(partial, examples())
    for name, rows in ((CLIPS_FILE, accepted), (REJECTED_FILE, rejected)):
      with _csv_writer(folder / f"{shard.name}.{name}") as write_rows:
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


def _write_on_all_cores(write: Callable, shards: Sequence[Shard], total: int) -> None:
  with (
    ThreadPoolExecutor(os.cpu_count()) as pool,
    tqdm(total=total, desc="preparing", unit="clip", disable=None) as bar,
  ):
    for shard in shards:
      write(shard, pool=pool, on_clip=bar.update)


def _write_with_beam(
  write: Callable, shards: Sequence[Shard], config: tfds.download.DownloadConfig
) -> None:
  import apache_beam as beam

  pipeline = beam.Pipeline(runner=config.beam_runner, options=config.beam_options)
  with pipeline:
    pipeline | beam.Create(shards) | beam.Reshuffle() | beam.Map(write)


@contextlib.contextmanager
def _csv_writer(path: epath.Path, header: Sequence[str] = ()) -> Iterator[Callable]:
  with path.open("w", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([header] if header else [])
    yield writer.writerows


def _read_rows(path: epath.Path) -> list[list[str]]:
  with path.open(encoding="utf-8") as file:
    return list(csv.reader(file))


@dataclasses.dataclass(frozen=True)
class PreparedSet:
  """A prepared set on disk.

  Attributes:
    folder: holds the shards, `clips.csv` and `rejected.csv`.
    classes: the class names, in vocabulary order.
    fingerprint: the source's fingerprint.
    sample_rate_hz: the rate of its audio.
  """

  folder: epath.Path
  classes: tuple[str, ...] = dataclasses.field(repr=False)
  fingerprint: str
  sample_rate_hz: int

  @property
  def study_split_path(self) -> epath.Path:
    """The file of the study's split, the same for all sample rates."""
    return self.folder.parents[1] / f"study_split-{self.fingerprint}.csv"


def prepare(
  source: Source,
  *,
  data_dir: str,
  sample_rate_hz: int,
  allow_missing: int,
  download_config: tfds.download.DownloadConfig | None = None,
) -> PreparedSet:
  """Prepares a source for a sample rate, unless it is prepared already.

  After a kill, the next call resumes with the unfinished shards.

  Args:
    source: the source.
    data_dir: the folder of prepared sets; empty for TFDS's default.
    sample_rate_hz: the rate to store the audio at.
    allow_missing: clips that may be missing or unreadable.
    download_config: TFDS's settings, of which only `beam_runner` and `beam_options` are
      used.

  Raises:
    UserError: more clips than `allow_missing` were rejected. The prepared set is kept,
      so that allowing them afterwards costs nothing.
  """
  fingerprint = source.fingerprint()
  builder = AudioTags(
    config=AudioTagsConfig(
      name=f"{source.dataset}-{sample_rate_hz}hz-{fingerprint}",
      source=source,
      sample_rate_hz=sample_rate_hz,
    ),
    data_dir=data_dir or None,
    file_format="tfrecord",
  )
  prepared = PreparedSet(
    epath.Path(builder.data_dir), source.classes, fingerprint, sample_rate_hz
  )
  if not prepared.folder.exists():
    logging.info("Preparing %d clips of %s.", len(source.clips), source.place)
    # TFDS prints about a download, although nothing is downloaded.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(download_config=download_config)
  _check_rejected(prepared, source.place, allow_missing)
  return prepared


def _check_rejected(
  prepared: PreparedSet, place: epath.Path, allow_missing: int
) -> None:
  rejected = _read_rows(prepared.folder / REJECTED_FILE)[1:]
  for fname, split, reason in rejected:
    logging.warning("Clip %s of %s %s.", fname, split, reason)
  if len(rejected) > allow_missing:
    names = ", ".join(fname for fname, _, _ in rejected[:10])
    more = ", …" if len(rejected) > 10 else ""
    raise UserError(
      f"{place}: {len(rejected)} clips are missing or unusable ({names}{more}), more "
      f"than the {allow_missing} allowed: repair them, or allow them with "
      f"--allow_missing={len(rejected)} (tools/prepare_data.py) or "
      "--config.data.allow_missing"
    )


def describe(prepared: PreparedSet) -> str:
  """Describes the contents of a prepared set, for a person to read."""
  rejected = _read_rows(prepared.folder / REJECTED_FILE)[1:]
  per_split: collections.Counter[str] = collections.Counter()
  per_class: collections.Counter[str] = collections.Counter()
  num_samples = 0
  with (prepared.folder / CLIPS_FILE).open(encoding="utf-8") as file:
    for clip in csv.DictReader(file):
      per_split[clip["split"]] += 1
      per_class.update(prepared.classes[int(i)] for i in clip["labels"].split())
      num_samples += int(clip["num_samples"])
  num_clips = per_split.total()
  seconds = num_samples / prepared.sample_rate_hz
  rarest = ", ".join(f"{name} {n}" for name, n in per_class.most_common()[:-6:-1])
  reasons = collections.Counter(reason for _, _, reason in rejected)
  return "\n".join(
    [
      f"Prepared set: {prepared.folder}",
      f"  clips     {num_clips} ("
      + ", ".join(f"{name} {per_split[name]}" for name in SPLITS)
      + f"), {seconds / 3600:.2f} hours",
      f"  classes   {len(per_class)}; "
      f"{per_class.total() / max(1, num_clips):.2f} labels per clip",
      f"  rarest    {rarest}",
      f"  rejected  {len(rejected)}"
      + "".join(f"\n            {n}: {reason}" for reason, n in reasons.items()),
    ]
  )
