"""Which clips train, which select the model, and which are scored.

"official": FSD50K's own train, val and eval. "study": the protocol of the study that
this code carries out, drawn once from the dev clips and written to a file, so that
every model's run uses the same clips.
"""

import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_data_source
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

from audiotag_jax import files
from audiotag_jax.data import fsd50k
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
    labels: <uint8>[clips, classes].
    num_samples: <int64>[clips].
    record: <int64>[clips], positions in `records`.
    records: the serialised examples of the whole set.
    features: deserialises them.
  """

  classes: tuple[str, ...]
  fname: np.ndarray
  labels: np.ndarray
  num_samples: np.ndarray
  record: np.ndarray
  records: array_record_data_source.ArrayRecordDataSource
  features: tfds.features.FeaturesDict

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
    return self.records.__getitems__(self.record[clips].tolist())

  def select(self, clips: np.ndarray) -> "ClipIndex":
    """The clips of a mask or of positions."""
    columns = ("fname", "labels", "num_samples", "record")
    chosen = {name: getattr(self, name)[clips] for name in columns}
    return dataclasses.replace(self, **chosen)


def load_splits(protocol: str, prepared: fsd50k.PreparedSet) -> dict[str, ClipIndex]:
  """Returns train, val and eval of a prepared set, by "official" or "study" protocol.

  Raises:
    UserError: a split has no clips, or the study's file does not fit the set.
  """
  clips, official = load_clips(prepared.folder)
  if protocol == "official":
    splits = {name: clips.select(official == name) for name in fsd50k.SPLITS}
  else:
    dev = clips.select(official != "eval")
    splits = study_splits(dev, prepared.study_split_path)
  for name, split in splits.items():
    if not len(split):
      raise UserError(f"{prepared.folder}: split {name} has no clips")
  return splits


def load_clips(folder: Path) -> tuple[ClipIndex, np.ndarray]:
  """Reads the index of a prepared set.

  Returns:
    All clips, in record order, and the official split of each <str>[clips].
  """
  builder = tfds.builder_from_directory(folder)
  classes = tuple(builder.info.features["labels"].feature.names)
  class_index = {name: i for i, name in enumerate(classes)}
  with (folder / fsd50k.CLIPS_FILE).open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  labels = np.zeros((len(rows), len(classes)), np.uint8)
  for row, clip_labels in zip(rows, labels, strict=True):
    clip_labels[[class_index[label] for label in row["labels"].split(";")]] = 1
  shards = [
    Path(path) for name in fsd50k.SPLITS for path in builder.info.splits[name].filepaths
  ]
  index = ClipIndex(
    classes=classes,
    fname=np.array([row["fname"] for row in rows]),
    labels=labels,
    num_samples=np.array([row["num_samples"] for row in rows], np.int64),
    record=np.arange(len(rows)),
    records=array_record_data_source.ArrayRecordDataSource(shards),
    features=builder.info.features,
  )
  return index, np.array([row["split"] for row in rows])


def study_splits(dev: ClipIndex, path: Path) -> dict[str, ClipIndex]:
  """Returns the study's splits of the dev clips, drawing them if there is no file yet.

  Args:
    dev: the clips of official train and val.
    path: a csv file with the columns fname and split.

  Raises:
    UserError: the file names clips that `dev` lacks.
  """
  if not path.exists():
    split = draw_study_split(dev.labels)
    rows = [f"{f},{s}\n" for f, s in zip(dev.fname, split, strict=True) if s]
    files.write_whole(
      path, lambda partial: partial.write_text("".join(["fname,split\n", *rows]))
    )
    logging.info("Drew the study's split: %s", path)
  with path.open(newline="") as file:
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
    split[rest[_draw_stratified(labels[rest], size)]] = name
  return split


def _draw_stratified(labels: np.ndarray, size: int) -> np.ndarray:
  """Draws exactly `size` positions; the stratifier alone is off by a percent."""
  splitter = MultilabelStratifiedShuffleSplit(
    n_splits=1, test_size=size, random_state=STUDY_SEED
  )
  others, drawn = next(splitter.split(labels, labels))
  rng = np.random.default_rng(STUDY_SEED)
  shuffled = np.concatenate([rng.permutation(drawn), rng.permutation(others)])
  return shuffled[:size]
