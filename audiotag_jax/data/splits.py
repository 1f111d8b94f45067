"""Splits of a set: clips to train on, to select the model with, and to score.

"official": FSD50K's own train, val and eval. "study": the protocol of the study that
this code carries out, drawn once from the dev clips and written to a file, so that
every model's run uses the same clips.
"""

import csv
import io

import numpy as np
from absl import logging
from etils import epath

from audiotag_jax import files
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.data.prepared_set import PreparedSet, describe_untrained
from audiotag_jax.data.sources.listing import read_rows
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.data.sources.stratify import draw_stratified
from audiotag_jax.errors import UserError
from audiotag_jax.text_files import stripped

# Numbers of the study's clips, out of FSD50K's dev clips; the shares are the same in a
# smaller set. The study selects no model; this codebase adds val to keep eval unseen.
STUDY_NUM_CLIPS = {"train": 12_000, "val": 1_500, "eval": 3_000}
FSD50K_NUM_DEV_CLIPS = 40_966
STUDY_SEED = 0


def split_clips(
  protocol: str,
  clips: ClipIndex,
  official: np.ndarray,
  prepared: PreparedSet,
) -> dict[str, ClipIndex]:
  """Returns train, val and eval of a prepared set, by "official" or "study" protocol.

  Warns of classes that train lacks and another split has.

  Args:
    protocol: a value of `config.data.protocol`.
    clips: all clips of the set.
    official: the official split of each <str>[clips].
    prepared: the set.

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
  counts = {name: _class_counts(split) for name, split in splits.items()}
  if untrained := describe_untrained(counts):
    logging.warning("%s", untrained)
  return splits


def _class_counts(clips: ClipIndex) -> dict[str, int]:
  """Returns the number of clips of each class that has some."""
  counts = clips.labels.sum(axis=0, dtype=np.int64)
  return {clips.classes[i]: int(counts[i]) for i in np.flatnonzero(counts)}


def study_splits(dev: ClipIndex, path: epath.Path) -> dict[str, ClipIndex]:
  """Returns the study's splits of the dev clips; draws them if the file is missing.

  Args:
    dev: the clips of official train and val.
    path: a csv file with the columns fname and split.

  Raises:
    UserError: the file is damaged, names clips that `dev` lacks, or cannot be written.
  """
  if not path.exists():
    split = draw_study_split(dev.labels.toarray())
    rows = [row for row in zip(dev.fname, split, strict=True) if row[1]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("fname", "split"), *rows])
    with files.written(path, "make room, or choose another --config.data.data_dir"):
      files.write_text(path, text.getvalue())
    logging.info("Drew the study's split: %s", path)
  split_of = {
    row["fname"]: row["split"] for _, row in read_rows(path, ("fname", "split"))
  }
  fnames = list(map(stripped, dev.fname.tolist()))
  missing = split_of.keys() - set(fnames)
  if missing:
    raise UserError(
      f"{path} names clip {min(missing)}, which the prepared set lacks: restore the "
      "clip to the source folder, or delete the file to draw the split again"
    )
  split = np.array([split_of.get(fname, "") for fname in fnames])
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
