"""Preparation of a source as a TFDS set.

A prepared set has TFRecord shards with `audio` (int16, one sample rate, full length),
its `scale`, `labels` and `fname`, in the order of the source. Beside the shards are
`clips.csv`, from which splits are chosen without reading audio, `rejected.csv`, and
`sha256sums.txt` with the hashes of all files but the shards, whose records have
checksums of their own.

Shards are written to a folder apart. When all are written, TFDS makes the set's folder
with the lists, the shards move there, and `sha256sums.txt` is written last. A kill at
any moment loses at most the shard being written.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from audiotag_jax import files
from audiotag_jax.data.prepared_set import (
  CLIPS_FILE,
  CLIPS_HEADER,
  REJECTED_FILE,
  REJECTED_HEADER,
  SUMS_FILE,
  PreparedSet,
  check_rejected,
  csv_writer,
  damaged,
  lacks_shards,
  read_rows,
  write_sums,
)
from audiotag_jax.data.shards import (
  SET_NAME,
  Shard,
  clip_features,
  cut_into_shards,
  write_on_all_cores,
  write_shard,
  write_with_beam,
)
from audiotag_jax.data.sources.source import SPLITS, Source
from audiotag_jax.errors import UserError

# Examples of this version have no `scale`. A whole set of it is used as it is.
OLDER_VERSION = "2.0.0"


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

  name = SET_NAME
  VERSION = tfds.core.Version("3.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description="Recordings with weak labels, for audio tagging.",
      features=clip_features(self.builder_config.source.classes),
      disable_shuffling=True,
    )

  def _shard_iterators_per_split(self, _: Any) -> dict[str, list[Callable]]:
    raise NotImplementedError("shards.write_shard writes the shards")

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    config = self.builder_config
    finished = partial_folder(config, self.data_dir_root)
    shards = list(cut_into_shards(config.source))
    write = functools.partial(
      write_shard,
      folder=finished,
      features=self.info.features,
      sample_rate_hz=config.sample_rate_hz,
    )
    if download_config and download_config.beam_runner:
      write_with_beam(write, shards, download_config)
    else:
      write_on_all_cores(write, shards)
    self._join_lists(shards, finished)

  def _join_lists(self, shards: Sequence[Shard], finished: epath.Path) -> None:
    """Joins the lists of the finished shards, and tells TFDS the splits."""
    folder = epath.Path(self.data_dir)
    rejected: list[Sequence] = []
    rejected += map(dataclasses.astuple, self.builder_config.source.rejected)
    lengths = collections.defaultdict(list)
    sizes: dict[str, int] = collections.Counter()
    with csv_writer(folder / CLIPS_FILE, CLIPS_HEADER) as write_clips:
      for shard in shards:
        accepted = read_rows(finished / f"{shard.name}.{CLIPS_FILE}")
        write_clips(accepted)
        rejected += read_rows(finished / f"{shard.name}.{REJECTED_FILE}")
        lengths[shard.split].append(len(accepted))
        sizes[shard.split] += (finished / shard.name).stat().length
    with csv_writer(folder / REJECTED_FILE, REJECTED_HEADER) as write_rejected:
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


def partial_folder(config: AudioTagsConfig, root: epath.PathLike) -> epath.Path:
  """Folder of the shards until all are written; a killed preparation keeps it."""
  name = f"{config.name}-{AudioTags.VERSION}.partial"
  return epath.Path(root) / SET_NAME / name


def _older_folders(config: AudioTagsConfig, root: epath.Path) -> list[epath.Path]:
  """Folders of a set and of its finished shards, in the older version."""
  sets = root / SET_NAME
  return [sets / config.name / OLDER_VERSION, sets / f"{config.name}.partial"]


def _folders(config: AudioTagsConfig, root: epath.Path) -> list[epath.Path]:
  """Folders of a set and of its finished shards, in the version to use."""
  older, finished = _older_folders(config, root)
  if older.exists() and not _is_interrupted(config.source, older, finished):
    return [older, finished]
  folder = root / SET_NAME / config.name / str(AudioTags.VERSION)
  return [folder, partial_folder(config, root)]


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
  prepares the set, the call waits for it. Missing shards are written again. A whole set
  of an older version is returned as it is.

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
  folder, finished = _folders(config, root)
  if not folder.exists() or finished.exists() or lacks_shards(folder):
    advice = "make room, or choose another data_dir; the finished shards are kept"
    lock = folder.parent.with_name(f".{config.name}.lock")
    with (
      files.written(folder, advice),
      files.owned(lock, f"the set {folder}", wait=True),
    ):
      folder, finished = _folders(config, root)  # Its owner before may be older.
      if not folder.exists() or _is_interrupted(source, folder, finished):
        _prepare(config, root, folder, finished, download_config)
      elif lacks_shards(folder):
        _repair(config, folder)
      if finished.exists():
        write_sums(folder)
        finished.rmtree()
  prepared = PreparedSet(folder, source.classes, fingerprint, sample_rate_hz)
  check_rejected(prepared, source.place, allow_missing)
  return prepared


def _is_interrupted(source: Source, folder: epath.Path, finished: epath.Path) -> bool:
  """Returns whether a kill left some shards in `finished` and not in the set."""
  return (
    finished.exists()
    and not (folder / SUMS_FILE).exists()
    and not all(
      (folder / shard.final_name).exists() for shard in cut_into_shards(source)
    )
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
  for unfinished in _older_folders(config, root):
    if unfinished.exists():
      unfinished.rmtree()
  finished.mkdir(parents=True, exist_ok=True)
  files.clear_leftovers(finished)
  shards = list(cut_into_shards(source))
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
  rows = iter(read_rows(folder / CLIPS_FILE)[1:])
  lengths = [
    length
    for split in SPLITS
    if split in info.splits
    for length in info.splits[split].shard_lengths
  ]
  shards = list(cut_into_shards(config.source))
  if len(lengths) != len(shards):
    raise damaged(folder / CLIPS_FILE)
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
    found = [row[:columns] for row in read_rows(clips_file)]
    if found == expected:
      written.rename(path)
    for file in (clips_file, rejected_file, written):
      file.unlink(missing_ok=True)
    if found != expected:
      raise UserError(
        f"{path} is missing, and {config.source.place} does not give its clips as they "
        f"were: restore the file, or delete {folder} to prepare the whole set again"
      )
