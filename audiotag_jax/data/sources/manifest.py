"""A user's own recordings: listed in a csv file, or in a folder for each class."""

import collections
import dataclasses
import math
import posixpath
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from audiotag_jax.data.sources import stratify
from audiotag_jax.data.sources.listing import (
  NO_SPLIT,
  RowError,
  check_any,
  check_fields,
  read_rows,
)
from audiotag_jax.data.sources.paths import LEADS_OUT, Fence, walk_audio
from audiotag_jax.data.sources.source import Clip, Rejected, Source
from audiotag_jax.errors import UserError
from audiotag_jax.text_files import normal_name

SPLIT_SEED = 0
SPLIT_NAMES = {
  "train": "train",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "eval": "eval",
  "test": "eval",
}


class _Row(NamedTuple):
  """A clip whose labels are still names; a split of None is drawn later."""

  fname: str
  file: str
  labels: tuple[str, ...]
  split: str | None
  start_s: float = 0.0
  end_s: float | None = None


def read_manifest(
  csv_path: epath.Path, *, audio_dir: epath.Path | None, label_separator: str
) -> Source:
  """Reads a table with the columns path, labels[, split, start_s, end_s].

  `listing.parse_rows` says how a table is read; a label is a `normal_name`. Other
  columns are ignored. `split` is train, val (valid, validation) or eval (test). Without
  that column, a tenth of the files is drawn for val and a tenth for eval. With the
  column but no row of val, a tenth of train's files is drawn for val. Draws are the
  same for the same csv file, keep the classes in proportion (up to 50,000 files), and
  keep the parts of one file together.

  A row that names no usable clip is rejected: it has no path or one outside the folder,
  no label, an unknown split or invalid times, or it repeats a clip. Whether the file
  exists is not checked here.

  Args:
    csv_path: the table; a clip is named by its path, and a part by its path and
      `:start-end`.
    audio_dir: the folder that paths are relative to and must stay in; None for the csv
      file's folder.
    label_separator: the text between a clip's labels.

  Returns:
    The clips in the csv file's order; the classes are the labels, sorted.

  Raises:
    UserError: the file or folder is missing, or the file cannot be read as a table, or
      lacks a column or names too few usable clips.
  """
  if not label_separator:
    raise UserError("label_separator is empty: give the text between labels")
  root = audio_dir or csv_path.parent
  if not root.is_dir():
    raise UserError(f"{root} is not a folder: give the folder that paths start from")
  fence = Fence(root)
  rows, rejected = [], []
  line_of: dict[tuple, int] = {}
  for line, row in read_rows(csv_path, ("path", "labels")):
    try:
      parsed = _parse_row(row, fence, label_separator)
      clip = (parsed.file, parsed.start_s, parsed.end_s)
      first = line_of.setdefault(clip, line)
      if first != line:
        raise RowError(f"comes more than once (lines {first} and {line})")
      rows.append(parsed)
    except RowError as error:
      fname = row["path"] or f"line {line}"
      split = row.get("split", NO_SPLIT)
      rejected.append(Rejected(fname, split, str(error)))
  return _source("manifest", csv_path, root, rows, rejected)


def read_folders(folder: epath.Path) -> Source:
  """Reads a folder for each class: <class>/**/<recording>, or <split>/<class>/**.

  The `normal_name` of the folder is the class's.
  The top folders are splits if all of them have a name that `read_manifest` accepts as
  a split. Otherwise splits are drawn, as `read_manifest` draws them. What
  `folders.taken` passes by is skipped, and never becomes a class.

  Returns:
    The clips, sorted by name, which is the path below the folder.

  Raises:
    UserError: the folder cannot be listed, or holds too few usable recordings.
  """
  walked = sorted(walk_audio(folder))
  tops = {path.split("/")[0].lower() for path, _ in walked if "/" in path}
  has_splits = bool(tops) and tops <= SPLIT_NAMES.keys()
  rows, rejected = [], []
  for path, reason in walked:
    *folders, _ = path.split("/")
    split = SPLIT_NAMES.get(folders[0].lower()) if has_splits and folders else None
    classes = folders[1:2] if has_splits else folders[:1]
    if reason or not classes:
      reason = reason or "lies in no class's folder"
      rejected.append(Rejected(path, split or NO_SPLIT, reason))
    else:
      rows.append(_Row(path, path, tuple(map(normal_name, classes)), split))
  return _source("folders", folder, folder, rows, rejected)


def _parse_row(row: dict[str, str], fence: Fence, label_separator: str) -> _Row:
  check_fields(row)
  path = row["path"]
  if not path:
    raise RowError("has no path")
  if posixpath.basename(path) in ("", ".", ".."):
    raise RowError("names no file")
  file = fence.place(path)
  if file is None:
    raise RowError(LEADS_OUT)
  given = map(normal_name, row["labels"].split(label_separator))
  labels = tuple(sorted({label for label in given if label}))
  if not labels:
    raise RowError("has no label")
  split = row.get("split")
  if split is not None:
    split = SPLIT_NAMES.get(split.lower())
    if not split:
      raise RowError(f"has split {row['split']!r}, which is not train, val or eval")
  start_s, end_s = _parse_part(row)
  fname = path
  if start_s or end_s is not None:
    end = "" if end_s is None else _seconds(end_s)
    fname = f"{path}:{_seconds(start_s)}-{end}"
  return _Row(fname, file, labels, split, start_s, end_s)


def _parse_part(row: dict[str, str]) -> tuple[float, float | None]:
  times = []
  for column in ("start_s", "end_s"):
    text = row.get(column, "")
    try:
      time_s = float(text) if text else None
    except ValueError:
      time_s = math.nan
    if time_s is not None and not 0 <= time_s < math.inf:
      raise RowError(f"has {column} {text!r}, which is not a number of seconds")
    times.append(time_s)
  start_s, end_s = times[0] or 0.0, times[1]
  if end_s is not None and end_s <= start_s:
    raise RowError(f"has end_s {end_s}, which is not after start_s {start_s}")
  return start_s, end_s


def _seconds(time_s: float) -> str:
  return np.format_float_positional(time_s, trim="-")


def _source(
  dataset: str,
  place: epath.Path,
  root: epath.Path,
  rows: Sequence[_Row],
  rejected: Sequence[Rejected],
) -> Source:
  check_any(place, rows, rejected)
  classes = tuple(sorted({label for row in rows for label in row.labels}))
  class_index = {name: i for i, name in enumerate(classes)}
  clips = [
    Clip(
      row.fname,
      root / row.file,
      tuple(class_index[label] for label in row.labels),
      row.split or "train",
      row.start_s,
      row.end_s,
    )
    for row in rows
  ]
  clips = _draw_splits(place, clips, [row.split for row in rows], len(classes))
  return Source(dataset, place, classes, tuple(clips), tuple(rejected))


def _draw_splits(
  place: epath.Path,
  clips: Sequence[Clip],
  given: Collection[str | None],
  num_classes: int,
) -> list[Clip]:
  """Draws the splits that are not given: all of them, or val."""
  if None in given:
    logging.info(
      "%s has no splits: a tenth of the files is drawn for val, and a tenth for eval.",
      place,
    )
    clips = _split_off("eval", 1 / 10, place, clips, num_classes)
    return _split_off("val", 1 / 9, place, clips, num_classes)
  if "val" not in given and "train" in given:
    logging.info("%s has no val: a tenth of train's files is drawn for it.", place)
    return _split_off("val", 1 / 10, place, clips, num_classes)
  return list(clips)


def _split_off(
  split: str,
  share: float,
  place: epath.Path,
  clips: Sequence[Clip],
  num_classes: int,
) -> list[Clip]:
  """Draws a share of train's files for another split, all parts of a file together."""
  labels_of: dict[str, set[int]] = collections.defaultdict(set)
  for clip in clips:
    if clip.split == "train":
      labels_of[str(clip.audio)].update(clip.labels)
  files = list(labels_of)
  if len(files) < 2:
    raise UserError(
      f"{place} has too few train files to draw {split} from: add some, or give the "
      "splits"
    )
  size = max(1, round(len(files) * share))
  drawn = stratify.stratified_sample(
    list(labels_of.values()), num_classes, size, SPLIT_SEED
  )
  chosen = {files[position] for position in drawn}
  return [
    dataclasses.replace(clip, split=split)
    if clip.split == "train" and str(clip.audio) in chosen
    else clip
    for clip in clips
  ]
