"""Preparation of a source as a TFDS set.

A prepared set has TFRecord shards with `audio` (int16, one sample rate, full length),
`labels` and `fname` in the order of the source. Beside the shards are `clips.csv`, from
which splits are chosen without reading audio, `rejected.csv`, and `sha256sums.txt` with
the hashes of all files but the shards, whose records have checksums of their own.

Shards are written to a folder apart. When all are written, TFDS makes the set's folder
with the lists, the shards move there, and `sha256sums.txt` is written last. A kill at
any moment loses at most the shard being written.
"""

import collections
import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import itertools
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
from audiotag_jax.data import records, source_hash
from audiotag_jax.data.sources.source import SPLITS, Clip, Source
from audiotag_jax.errors import UserError

CLIPS_FILE = "clips.csv"
REJECTED_FILE = "rejected.csv"
SUMS_FILE = "sha256sums.txt"
# Sets of older versions lack the last column; see `source_hash`.
CLIPS_HEADER = ("fname", "split", "num_samples", "labels", "num_bytes", "source_hash")
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
      _write_on_all_cores(write, shards)
    self._join_lists(shards, finished)

  def _join_lists(self, shards: Sequence["Shard"], finished: epath.Path) -> None:
    """Joins the lists of the finished shards, and tells TFDS the splits."""
    folder = epath.Path(self.data_dir)
    rejected: list[Sequence] = []
    rejected += map(dataclasses.astuple, self.builder_config.source.rejected)
    lengths = collections.defaultdict(list)
    sizes: dict[str, int] = collections.Counter()
    with _csv_writer(folder / CLIPS_FILE, CLIPS_HEADER) as write_clips:
      for shard in shards:
        accepted = _read_rows(finished / f"{shard.name}.{CLIPS_FILE}")
        write_clips(accepted)
        rejected += _read_rows(finished / f"{shard.name}.{REJECTED_FILE}")
        lengths[shard.split].append(len(accepted))
        sizes[shard.split] += (finished / shard.name).stat().length
    with _csv_writer(folder / REJECTED_FILE, REJECTED_HEADER) as write_rejected:
      write_rejected(rejected)
    self.info.set_splits(
      tfds.core.splits.SplitDict(
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=lengths[split],
          num_bytes=sizes[split],
          filename_template=self._get_filename_template(split_name=split),
        )
        for split in lengths
      )
    )


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
    """The name of its file until the set is whole."""
    return f"{self.split}-{self.index:05d}"

  @property
  def final_name(self) -> str:
    """The name of its file in the set, as TFDS has it."""
    place = f"{self.index:05d}-of-{self.count:05d}"
    return f"{AudioTags.name}-{self.split}.tfrecord-{place}"

  def files(self, folder: epath.Path) -> list[epath.Path]:
    """The shard's file and lists in a folder of finished shards, in writing order."""
    names = (f"{self.name}.{CLIPS_FILE}", f"{self.name}.{REJECTED_FILE}", self.name)
    return [folder / name for name in names]


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
    audio = waveforms.to_int16(waveform)
    example = features.encode_example(
      {"audio": audio, "labels": clip.labels, "fname": clip.fname}
    )
    # Protobuf's usual order of a map's entries differs from process to process.
    proto = serializer.get_tf_example(example)
    return len(audio), hashed, proto.SerializeToString(deterministic=True)

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
      with _csv_writer(file) as write_rows:
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


def _write_on_all_cores(write: Callable, shards: Sequence[Shard]) -> None:
  total = sum(len(shard.clips) for shard in shards)
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
  files.sync(path)


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

  After a kill, the next call resumes with the unfinished shards. If another process
  prepares the set, the call waits for it. Missing shards are written again.

  Args:
    source: the source.
    data_dir: the folder of prepared sets; empty for TFDS's default.
    sample_rate_hz: the rate to store the audio at.
    allow_missing: clips that may be missing or unreadable.
    download_config: TFDS's settings, of which only `beam_runner` and `beam_options` are
      used.

  Raises:
    UserError: more clips than `allow_missing` were rejected. The prepared set is kept,
      so that allowing them afterwards costs nothing. Or the set cannot be written, or
      its lists are damaged, or its missing shards do not come from the source anymore.
  """
  fingerprint = source.fingerprint()
  config = AudioTagsConfig(
    name=f"{source.dataset}-{sample_rate_hz}hz-{fingerprint}",
    source=source,
    sample_rate_hz=sample_rate_hz,
  )
  root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
  folder = root / AudioTags.name / config.name / str(AudioTags.VERSION)
  prepared = PreparedSet(folder, source.classes, fingerprint, sample_rate_hz)
  finished = partial_folder(config, root)
  if not folder.exists() or finished.exists() or _lacks_shards(folder):
    advice = "make room, or choose another data_dir; the finished shards are kept"
    lock = folder.parent.with_name(f".{config.name}.lock")
    with (
      files.written(folder, advice),
      files.owned(lock, f"the set {folder}", wait=True),
    ):
      if not folder.exists() or _is_interrupted(source, folder, finished):
        _prepare(config, root, folder, finished, download_config)
      elif _lacks_shards(folder):
        _repair(config, folder)
      if finished.exists():
        _write_sums(folder)
        finished.rmtree()
  _check_rejected(prepared, source.place, allow_missing)
  return prepared


def _is_interrupted(source: Source, folder: epath.Path, finished: epath.Path) -> bool:
  """Returns whether a kill left some shards in `finished` and not in the set."""
  return (
    finished.exists()
    and not (folder / SUMS_FILE).exists()
    and not all((folder / shard.final_name).exists() for shard in _shards(source))
  )


def _prepare(
  config: AudioTagsConfig,
  root: epath.Path,
  folder: epath.Path,
  finished: epath.Path,
  download_config: tfds.download.DownloadConfig | None,
) -> None:
  """Prepares a set; see the module's docstring."""
  source = config.source
  logging.info("Preparing %d clips of %s.", len(source.clips), source.place)
  finished.mkdir(parents=True, exist_ok=True)
  files.clear_leftovers(finished)
  shards = list(_shards(source))
  for killed in (folder, *folder.parent.glob("incomplete.*")):
    for shard in shards:
      if (killed / shard.final_name).exists():
        (killed / shard.final_name).rename(finished / shard.name)
    if killed.exists():
      killed.rmtree()
  builder = AudioTags(config=config, data_dir=str(root), file_format="tfrecord")
  # TFDS prints about a download, although nothing is downloaded.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(download_config=download_config)
  # The lists are on the disk before the set has all its shards.
  for path in folder.iterdir():
    files.sync(path)
  for shard in shards:
    (finished / shard.name).rename(folder / shard.final_name)
  files.sync(folder)


def _repair(config: AudioTagsConfig, folder: epath.Path) -> None:
  """Writes the shards that are missing in a set, which otherwise is whole.

  Raises:
    UserError: the source does not give the clips of the set.
  """
  info = tfds.builder_from_directory(folder).info
  rows = iter(_read_rows(folder / CLIPS_FILE)[1:])
  lengths = [
    length
    for split in SPLITS
    if split in info.splits
    for length in info.splits[split].shard_lengths
  ]
  shards = list(_shards(config.source))
  if len(lengths) != len(shards):
    raise _damaged(folder / CLIPS_FILE)
  files.clear_leftovers(folder)
  for shard, length in zip(shards, lengths, strict=True):
    expected = list(itertools.islice(rows, length))
    path = folder / shard.final_name
    if path.exists():
      continue
    logging.info("Preparing the missing %s.", path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      write_shard(
        shard,
        folder=folder,
        features=info.features,
        sample_rate_hz=config.sample_rate_hz,
        pool=pool,
      )
    clips_file, rejected_file, written = shard.files(folder)
    columns = len(expected[0]) if expected else 0
    found = [row[:columns] for row in _read_rows(clips_file)]
    if found == expected:
      written.rename(path)
    for file in (clips_file, rejected_file, written):
      file.unlink(missing_ok=True)
    if found != expected:
      raise UserError(
        f"{path} is missing, and {config.source.place} does not give its clips as they "
        f"were: restore the file, or delete {folder} to prepare the whole set again"
      )


def _lacks_shards(folder: epath.Path) -> bool:
  """Returns whether a set lacks shards, and checks its lists by their sums.

  Raises:
    UserError: a list is not what was written.
  """
  _check_sums(folder)
  found = {path.name for path in folder.iterdir()}
  splits = tfds.builder_from_directory(folder).info.splits.values()
  return any(path.name not in found for split in splits for path in split.filepaths)


def _write_sums(folder: epath.Path) -> None:
  """Writes the hashes of a set's lists, as sha256sum does, unless they are written."""
  if (folder / SUMS_FILE).exists():
    return
  files.clear_leftovers(folder)
  lists = [p for p in folder.iterdir() if p.is_file() and ".tfrecord" not in p.name]
  lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(lists, key=str)]
  files.write_text(folder / SUMS_FILE, "".join(lines))


def _check_sums(folder: epath.Path) -> None:
  if not (folder / SUMS_FILE).exists():
    return  # A set of an older version.
  for line in (folder / SUMS_FILE).read_text().splitlines():
    expected, _, name = line.partition("  ")
    if not (folder / name).is_file() or _sha256(folder / name) != expected:
      raise _damaged(folder / name)


def _sha256(path: epath.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _damaged(path: epath.Path) -> UserError:
  return UserError(
    f"{path} is missing or damaged: delete {path.parent} and start the same command "
    "again, which then prepares the set again"
  )


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
