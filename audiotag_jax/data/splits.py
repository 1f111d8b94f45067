"""Which clips train, which select the model, and which are scored.

"official": FSD50K's own train, val and eval. "study": the protocol of the study that
this code carries out, drawn once from the dev clips and written to a file, so that
every model's run uses the same clips.
"""

import array
import csv
import dataclasses
import hashlib
import sys

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from scipy import sparse

from audiotag_jax import files
from audiotag_jax.data import builder
from audiotag_jax.data.records import Ranges, record_offsets
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.data.sources.stratify import draw_stratified
from audiotag_jax.errors import UserError

# The study's clips among the dev clips of FSD50K; of a smaller set, the same shares.
# The study selects nothing; val is what the codebase adds to keep eval unseen.
STUDY_NUM_CLIPS = {"train": 12_000, "val": 1_500, "eval": 3_000}
FSD50K_NUM_DEV_CLIPS = 40_966
STUDY_SEED = 0


@dataclasses.dataclass(frozen=True)
class ClipIndex:
  """Some clips of a prepared set: all about them but their audio.

  Attributes:
    classes: the class names, in vocabulary order.
    fname: <str>[clips].
    labels: <uint8>[clips, classes], sparse: of two million clips, most are zero.
    num_samples: <int64>[clips].
    record: <int64>[clips], positions in `records` and `log_mels`.
    records: the serialised examples of the whole set.
    features: deserialises them.
    log_mels: the log-mels of the whole set <float16>[frames, mels], if they are cached.
  """

  classes: tuple[str, ...]
  fname: np.ndarray
  labels: sparse.csr_array
  num_samples: np.ndarray
  record: np.ndarray
  records: Ranges
  features: tfds.features.FeaturesDict
  log_mels: Ranges | None = None

  def __len__(self) -> int:
    return len(self.fname)

  @property
  def num_classes(self) -> int:
    return len(self.classes)

  @property
  def sha256(self) -> str:
    """Of the fnames in order, a line each."""
    text = "".join(f"{fname}\n" for fname in self.fname)
    return hashlib.sha256(text.encode()).hexdigest()

  def read(self, clips: np.ndarray) -> list[bytes]:
    """Reads the examples of clips <int64>[n], positions in this index."""
    return self.records.read(self.record[clips])

  def select(self, clips: np.ndarray) -> "ClipIndex":
    """The clips of a mask or of positions."""
    columns = ("fname", "labels", "num_samples", "record")
    chosen = {name: getattr(self, name)[clips] for name in columns}
    return dataclasses.replace(self, **chosen)


def load_splits(protocol: str, prepared: builder.PreparedSet) -> dict[str, ClipIndex]:
  """Returns train, val and eval of a prepared set; see `split_clips`."""
  return split_clips(protocol, *load_clips(prepared.folder), prepared)


def split_clips(
  protocol: str, clips: ClipIndex, official: np.ndarray, prepared: builder.PreparedSet
) -> dict[str, ClipIndex]:
  """Returns train, val and eval of a prepared set, by "official" or "study" protocol.

  Args:
    protocol: a value of `config.data.protocol`.
    clips: all clips of the set.
    official: the official split of each <str>[clips].
    prepared: where the set lies.

  Raises:
    UserError: a split has no clips, or the study's file does not fit the set.
  """
  if protocol == "official":
    splits = {name: clips.select(official == name) for name in SPLITS}
  else:
    dev = clips.select(official != "eval")
    splits = study_splits(dev, prepared.study_split_path)
  for name, split in splits.items():
    if not len(split):
      raise UserError(f"{prepared.folder}: split {name} has no clips")
  return splits


def load_clips(folder: epath.PathLike) -> tuple[ClipIndex, np.ndarray]:
  """Reads the index of a prepared set.

  Returns:
    All clips, in record order, and the official split of each <str>[clips].
  """
  folder = epath.Path(folder)
  info = tfds.builder_from_directory(folder).info
  classes = tuple(info.features["labels"].feature.names)
  fname, split = [], []
  num_samples, num_bytes = array.array("q"), array.array("q")
  indices, indptr = array.array("i"), array.array("q", [0])
  with (folder / builder.CLIPS_FILE).open(encoding="utf-8") as file:
    rows = csv.reader(file)
    next(rows)
    for name, split_name, samples, labels, size in rows:
      fname.append(name)
      split.append(sys.intern(split_name))
      num_samples.append(int(samples))
      num_bytes.append(int(size))
      indices.extend(map(int, labels.split()))
      indptr.append(len(indices))
  ones = np.ones(len(indices), np.uint8)
  shape = (len(fname), len(classes))
  index = ClipIndex(
    classes=classes,
    fname=np.array(fname, np.dtypes.StringDType()),
    labels=sparse.csr_array((ones, indices, indptr), shape),
    num_samples=np.array(num_samples),
    record=np.arange(len(fname)),
    records=_record_ranges(info, np.array(num_bytes)),
    features=info.features,
  )
  return index, np.array(split)


def _record_ranges(info: tfds.core.DatasetInfo, num_bytes: np.ndarray) -> Ranges:
  splits = [info.splits[name] for name in SPLITS if name in info.splits]
  lengths = [length for split in splits for length in split.shard_lengths]
  shard = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
  paths = tuple(str(path) for split in splits for path in split.filepaths)
  return Ranges(paths, shard, record_offsets(num_bytes, shard), num_bytes)


def study_splits(dev: ClipIndex, path: epath.Path) -> dict[str, ClipIndex]:
  """Returns the study's splits of the dev clips, drawing them if there is no file yet.

  Args:
    dev: the clips of official train and val.
    path: a csv file with the columns fname and split.

  Raises:
    UserError: the file names clips that `dev` lacks.
  """
  if not path.exists():
    split = draw_study_split(dev.labels.toarray())
    rows = [f"{f},{s}\n" for f, s in zip(dev.fname, split, strict=True) if s]
    files.write_whole(
      path, lambda partial: partial.write_text("".join(["fname,split\n", *rows]))
    )
    logging.info("Drew the study's split: %s", path)
  with path.open() as file:
    split_of = {row["fname"]: row["split"] for row in csv.DictReader(file)}
  missing = split_of.keys() - set(dev.fname.tolist())
  if missing:
    raise UserError(
      f"{path} names clip {min(missing)}, which the prepared set lacks: restore the "
      "clip to the source folder, or delete the file to draw the split anew"
    )
  split = np.array([split_of.get(fname, "") for fname in dev.fname])
  return {name: dev.select(split == name) for name in STUDY_NUM_CLIPS}


def draw_study_split(labels: np.ndarray) -> np.ndarray:
  """Draws the study's split, stratified by labels (Sechidis et al. 2011).

  Args:
    labels: <uint8>[clips, classes] of the dev clips.

  Returns:
    <str>[clips]: "train", "val", "eval" or, for a clip not drawn, "".
  """
  share = min(1.0, len(labels) / FSD50K_NUM_DEV_CLIPS)
  split = np.full(len(labels), "", dtype="<U5")
  for name in ("eval", "val", "train"):
    rest = np.flatnonzero(split == "")
    size = max(1, round(STUDY_NUM_CLIPS[name] * share))
    split[rest[draw_stratified(labels[rest], size, STUDY_SEED)]] = name
  return split
