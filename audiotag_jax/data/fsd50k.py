"""FSD50K, as its owner ships it (Zenodo record 4060432), to a prepared TFDS set.

    FSD50K.dev_audio/<fname>.wav      FSD50K.eval_audio/<fname>.wav
    FSD50K.ground_truth/dev.csv       fname,labels,mids,split
    FSD50K.ground_truth/eval.csv      fname,labels,mids
    FSD50K.ground_truth/vocabulary.csv   index,label,mid, without a header

A prepared set holds `audio` int16 at one sample rate and full length, `labels` and
`fname` in ArrayRecord shards, in the order of the csv files, and beside them
`clips.csv` (what a split is chosen from without reading audio) and `rejected.csv`.
"""

import collections
import contextlib
import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from audiotag_jax.data import audio_io
from audiotag_jax.errors import UserError

SPLITS = ("train", "val", "eval")
CLIPS_FILE = "clips.csv"
REJECTED_FILE = "rejected.csv"
# Of the source, so that shards are TFDS's 64 MB to 1 GB.
SHARD_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Clip:
  """A row of dev.csv or eval.csv; labels are indices in the vocabulary."""

  fname: str
  labels: tuple[int, ...]
  split: str


@dataclasses.dataclass(frozen=True)
class Source:
  """A folder in FSD50K's layout, its csv files read and checked."""

  folder: Path
  classes: tuple[str, ...] = dataclasses.field(repr=False)
  clips: tuple[Clip, ...] = dataclasses.field(repr=False)

  def audio_path(self, clip: Clip) -> Path:
    part = "eval" if clip.split == "eval" else "dev"
    return self.folder / f"FSD50K.{part}_audio" / f"{clip.fname}.wav"

  def fingerprint(self) -> str:
    """Changes with any csv file, and with any audio file's name, size or time."""
    digest = hashlib.sha256()
    for path in _csv_paths(self.folder).values():
      digest.update(path.read_bytes())
    for part in ("dev", "eval"):
      entries = os.scandir(self.folder / f"FSD50K.{part}_audio")
      for entry in sorted(entries, key=lambda e: e.name):
        stat = entry.stat()
        digest.update(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def read_source(folder: Path) -> Source:
  """Reads the csv files of a folder in FSD50K's layout.

  Raises:
    UserError: a file or folder is missing, a csv file lacks a column, an fname has a
      path in it or comes twice, a label is not in the vocabulary, a split is unknown.
  """
  csv_paths = _csv_paths(folder)
  audio_paths = [folder / f"FSD50K.{part}_audio" for part in ("dev", "eval")]
  for path in [*audio_paths, *csv_paths.values()]:
    if not path.exists():
      raise UserError(
        f"{path} does not exist: the source folder must hold FSD50K.dev_audio, "
        "FSD50K.eval_audio and FSD50K.ground_truth, as Zenodo record 4060432 has them"
      )
  classes = _read_vocabulary(csv_paths["vocabulary"])
  clips = [
    *_read_clips(csv_paths["dev"], classes),
    *_read_clips(csv_paths["eval"], classes, split="eval"),
  ]
  twice = [f for f, n in collections.Counter(c.fname for c in clips).items() if n > 1]
  if twice:
    raise UserError(f"{folder}: fname {twice[0]} comes more than once in the csv files")
  return Source(folder, classes, tuple(clips))


def _csv_paths(folder: Path) -> dict[str, Path]:
  names = ("dev", "eval", "vocabulary")
  return {name: folder / "FSD50K.ground_truth" / f"{name}.csv" for name in names}


def _read_vocabulary(path: Path) -> tuple[str, ...]:
  with path.open(newline="", encoding="utf-8-sig") as file:
    rows = [row for row in csv.reader(file) if row]
  for number, row in enumerate(rows):
    if len(row) != 3 or row[0] != str(number):
      raise UserError(
        f"{path}: row {number + 1} is {','.join(row)!r}, not {number},label,mid"
      )
  classes = tuple(label for _, label, _ in rows)
  if not classes or len(set(classes)) < len(classes):
    raise UserError(f"{path}: its {len(classes)} labels must be distinct, and some")
  return classes


def _read_clips(
  path: Path, classes: Sequence[str], split: str | None = None
) -> Iterator[Clip]:
  """Yields a csv file's clips, of the `split` given or of that in its own column."""
  class_index = {name: i for i, name in enumerate(classes)}
  columns = {"fname", "labels"} | (set() if split else {"split"})
  with path.open(newline="", encoding="utf-8-sig") as file:
    reader = csv.DictReader(file)
    if not columns <= set(reader.fieldnames or ()):
      raise UserError(f"{path}: its header must have the columns {sorted(columns)}")
    for row in reader:
      place = f"{path}, line {reader.line_num}"
      fname = row["fname"] or ""
      if fname in ("", ".", "..") or "/" in fname or "\\" in fname:
        raise UserError(f"{place}: fname {fname!r} must be a file's name, with no path")
      unknown = set((row["labels"] or "").split(",")) - class_index.keys()
      if unknown:
        raise UserError(
          f"{place}: label {min(unknown)!r} of clip {fname} is not in vocabulary.csv"
        )
      labels = sorted({class_index[label] for label in row["labels"].split(",")})
      if (split or row["split"]) not in SPLITS:
        raise UserError(f"{place}: split {row['split']!r} must be train or val")
      yield Clip(fname, tuple(labels), split or row["split"])


@dataclasses.dataclass(kw_only=True)
class Fsd50kConfig(tfds.core.BuilderConfig):
  """What a prepared set is made from.

  Attributes:
    source: the folder it is read from.
    sample_rate_hz: the rate it is stored at.
  """

  source: Source
  sample_rate_hz: int


class Fsd50k(tfds.core.ShardBasedBuilder):
  """TFDS builder of an FSD50K folder; clips keep the order of the csv files."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    config = self.builder_config
    audio = tfds.features.Tensor(
      shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
    )
    labels = tfds.features.ClassLabel(names=config.source.classes)
    return self.dataset_info_from_configs(
      description="Weakly labelled sound events (Fonseca et al. 2020).",
      features=tfds.features.FeaturesDict(
        {
          "audio": audio,
          "labels": tfds.features.Sequence(labels),
          "fname": tfds.features.Text(),
        }
      ),
      disable_shuffling=True,
    )

  def _shard_iterators_per_split(self, _) -> dict[str, list[Callable]]:
    source = self.builder_config.source
    return {
      split: [
        lambda shard=shard: self._generate_examples(shard)
        for shard in _shards(source, [c for c in source.clips if c.split == split])
      ]
      for split in SPLITS
    }

  def _download_and_prepare(self, dl_manager, download_config=None) -> None:
    source = self.builder_config.source
    self._accepted, self._rejected = [], []
    with (
      ThreadPoolExecutor(os.cpu_count()) as self._pool,
      tqdm(total=len(source.clips), desc="preparing", unit="clip", disable=None) as bar,
    ):
      self._bar = bar
      super()._download_and_prepare(dl_manager, download_config)
    header = ("fname", "split", "num_samples", "labels")
    _write_csv(Path(self.data_path) / CLIPS_FILE, header, self._accepted)
    header = ("fname", "split", "reason")
    _write_csv(Path(self.data_path) / REJECTED_FILE, header, self._rejected)

  def _generate_examples(self, clips: Sequence[Clip]) -> Iterator:
    source, rate_hz = self.builder_config.source, self.builder_config.sample_rate_hz

    def decode(clip: Clip) -> np.ndarray | audio_io.AudioError:
      try:
        waveform = audio_io.read_audio(source.audio_path(clip), rate_hz)
      except audio_io.AudioError as error:
        return error
      return audio_io.to_int16(waveform)

    for clip, audio in _map_ahead(self._pool, decode, clips):
      self._bar.update()
      if isinstance(audio, audio_io.AudioError):
        self._rejected.append((clip.fname, clip.split, str(audio)))
        continue
      labels = ";".join(source.classes[i] for i in clip.labels)
      self._accepted.append((clip.fname, clip.split, len(audio), labels))
      yield clip.fname, {"audio": audio, "labels": clip.labels, "fname": clip.fname}


def _shards(source: Source, clips: Sequence[Clip]) -> Iterator[list[Clip]]:
  """Cuts clips into runs of about `SHARD_BYTES` of audio; one run at the least."""
  shard, size = [], 0
  for clip in clips:
    path = source.audio_path(clip)
    size += path.stat().st_size if path.exists() else 0
    shard.append(clip)
    if size >= SHARD_BYTES:
      yield shard
      shard, size = [], 0
  if shard:
    yield shard


def _map_ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable):
  """Yields (item, function(item)) in order, computed a few items ahead on the pool."""
  pending = collections.deque()
  for item in items:
    pending.append((item, pool.submit(function, item)))
    if len(pending) > 4 * os.cpu_count():
      item, future = pending.popleft()
      yield item, future.result()
  for item, future in pending:
    yield item, future.result()


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
  with path.open("w", newline="", encoding="utf-8") as file:
    csv.writer(file).writerows([header, *rows])


@dataclasses.dataclass(frozen=True)
class PreparedSet:
  """Where a prepared set lies.

  Attributes:
    folder: holds the shards, `clips.csv` and `rejected.csv`.
    fingerprint: the source's.
  """

  folder: Path
  fingerprint: str

  @property
  def study_split_path(self) -> Path:
    """The file of the study's split, the same for all sample rates."""
    return self.folder.parents[1] / f"study_split-{self.fingerprint}.csv"


def prepare(
  source_dir: Path, *, data_dir: str, sample_rate_hz: int, allow_missing: int
) -> PreparedSet:
  """Prepares a source folder for a sample rate, unless that has been done.

  Args:
    source_dir: a folder in FSD50K's layout.
    data_dir: where prepared sets lie; empty for TFDS's default.
    sample_rate_hz: the rate to store the audio at.
    allow_missing: clips that may be missing or unreadable.

  Raises:
    UserError: see `read_source`; or more clips than `allow_missing` were rejected.
      The prepared set is kept all the same, so that allowing them costs nothing.
  """
  source = read_source(Path(source_dir))
  fingerprint = source.fingerprint()
  builder = Fsd50k(
    config=Fsd50kConfig(
      name=f"{sample_rate_hz}hz-{fingerprint}",
      source=source,
      sample_rate_hz=sample_rate_hz,
    ),
    data_dir=data_dir or None,
    file_format="array_record",
  )
  prepared = PreparedSet(Path(builder.data_dir), fingerprint)
  if not prepared.folder.exists():
    num_clips = len(source.clips)
    logging.info("Preparing %d clips of %s.", num_clips, source_dir)
    # TFDS prints of a download, of which there is none.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  _check_rejected(prepared, source_dir, allow_missing)
  return prepared


def _check_rejected(prepared: PreparedSet, source_dir: Path, allow_missing: int):
  rejected = _read_csv(prepared.folder / REJECTED_FILE)
  for clip in rejected:
    logging.warning("Clip %(fname)s of %(split)s %(reason)s.", clip)
  if len(rejected) > allow_missing:
    names = ", ".join(clip["fname"] for clip in rejected[:10])
    more = ", …" if len(rejected) > 10 else ""
    raise UserError(
      f"{source_dir}: {len(rejected)} clips are missing or unreadable ({names}{more}), "
      f"not at most {allow_missing}: mend them, or allow them with --allow_missing="
      f"{len(rejected)} (tools/prepare_data.py) or --config.data.allow_missing"
    )


def describe(prepared: PreparedSet, sample_rate_hz: int) -> str:
  """What a prepared set holds, for a person to read."""
  clips = _read_csv(prepared.folder / CLIPS_FILE)
  rejected = _read_csv(prepared.folder / REJECTED_FILE)
  counts = collections.Counter(
    label for clip in clips for label in clip["labels"].split(";")
  )
  seconds = sum(int(clip["num_samples"]) for clip in clips) / sample_rate_hz
  per_split = collections.Counter(clip["split"] for clip in clips)
  rarest = ", ".join(f"{name} {n}" for name, n in counts.most_common()[:-6:-1])
  reasons = collections.Counter(clip["reason"] for clip in rejected)
  return "\n".join(
    [
      f"Prepared set: {prepared.folder}",
      f"  clips     {len(clips)} ("
      + ", ".join(f"{name} {per_split[name]}" for name in SPLITS)
      + f"), {seconds / 3600:.2f} hours",
      f"  classes   {len(counts)}; {counts.total() / len(clips):.2f} labels per clip",
      f"  rarest    {rarest}",
      f"  rejected  {len(rejected)}"
      + "".join(f"\n            {n}: {reason}" for reason, n in reasons.items()),
    ]
  )


def _read_csv(path: Path) -> list[dict[str, str]]:
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))
