"""AudioSet (Gemmeke et al. 2017): the owner's lists, and the audio files at hand.

class_labels_indices.csv          index,mid,display_name
balanced_train_segments.csv       YTID, start_seconds, end_seconds, "mid,mid"
unbalanced_train_segments.csv     after three lines of comment
eval_segments.csv
"""

import collections
import dataclasses
import posixpath
import re

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
from audiotag_jax.data.sources.paths import walk_audio
from audiotag_jax.data.sources.source import Clip, Rejected, Source
from audiotag_jax.errors import UserError
from audiotag_jax.text_files import add_name, normal_name

CLASSES_FILE = "class_labels_indices.csv"
LISTS = {
  "balanced_train_segments.csv": "train",
  "unbalanced_train_segments.csv": "train",
  "eval_segments.csv": "eval",
}
LIST_HEADER = ("ytid", "start_s", "end_s", "mids")
VAL_SHARE = 1 / 20
VAL_SEED = 0
# A video's id has 11 characters, `_` and `-` among them.
FILE_STEM = re.compile(
  r"Y?(?P<ytid>[\w-]{11})(?:_(?P<start>\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.ASCII
)


def read_audioset(folder: epath.Path, *, audio_dir: epath.Path | None) -> Source:
  """Reads AudioSet's lists, and finds the audio of their segments.

  A segment's file may be anywhere below `audio_dir` and have any ending. Its name is
  <id>, <id>_<start> or <id>_<start>_<end>, perhaps after a Y; times are in seconds or
  milliseconds. The file is taken to hold the segment and no more, even if its name is
  the id alone, because the programs that fetch AudioSet write such files.

  Segments without a file are left out and counted in the log, because many of the
  videos are gone. A video's second row is left out too; the owner's lists have no such
  row. A twentieth of train is drawn for val, which AudioSet lacks; the draw keeps the
  classes in proportion up to 50,000 clips.

  Args:
    folder: holds class_labels_indices.csv and some of the lists of segments.
    audio_dir: the folder of the audio; None for `folder`.

  Returns:
    The clips in the lists' order, named by their ids; the classes are the display
    names.

  Raises:
    UserError: all lists are missing, a list cannot be read, or no segment has a file.
  """
  audio_dir = audio_dir or folder
  classes, class_index = _read_classes(folder / CLASSES_FILE)
  lists = [folder / name for name in LISTS if (folder / name).exists()]
  if not lists:
    raise UserError(f"{folder} lacks all of {', '.join(LISTS)}: give AudioSet's lists")
  files = _SegmentFiles(audio_dir)
  clips, rejected, num_absent = [], files.rejected, 0
  labels_of: dict = {}
  for path in lists:
    split = LISTS[path.name]
    for _, row in read_rows(path, LIST_HEADER, LIST_HEADER):
      try:
        file = files.take(row)
        if not file:
          num_absent += 1
          continue
        labels = _labels(row, class_index)
        labels = labels_of.setdefault(labels, labels)  # millions share thousands
        clips.append(Clip(row["ytid"], audio_dir / file, labels, split))
      except RowError as error:
        rejected.append(Rejected(row["ytid"], split, str(error)))
  if num_absent:
    logging.warning(
      "%d of AudioSet's segments have no file below %s and are left out; %d have.",
      num_absent,
      audio_dir,
      len(clips),
    )
  check_any(audio_dir, clips, rejected)
  _draw_val(clips, len(classes))
  return Source("audioset", folder, classes, tuple(clips), tuple(rejected))


class _SegmentFiles:
  """The files below a folder that have a segment's name.

  Attributes:
    rejected: links that are not followed.
  """

  def __init__(self, audio_dir: epath.Path):
    self.rejected: list[Rejected] = []
    # Most ids have one file; a list for each of millions would take too much memory.
    self._file_of: dict[str, str] = {}
    self._others: dict[str, list[str]] = collections.defaultdict(list)
    for path, reason in walk_audio(audio_dir):
      match = _match(path)
      if reason and match:
        self.rejected.append(Rejected(path, NO_SPLIT, reason))
      elif match and self._file_of.setdefault(match["ytid"], path) != path:
        self._others[match["ytid"]].append(path)

  def take(self, row: dict[str, str]) -> str | None:
    """Returns a segment's file; None if it has no file or its video was taken before.

    Raises:
      RowError: the row is malformed.
    """
    file = self._file_of.pop(row["ytid"], None)
    if not file:
      return None
    check_fields(row)
    try:
      start_ms = round(1000 * float(row["start_s"]))
    except (ValueError, OverflowError) as error:
      reason = f"has start {row['start_s']!r}, which is not a number"
      raise RowError(reason) from error
    files = [file, *self._others.get(row["ytid"], ())]
    matches = ((f, _match(f)) for f in files)
    fitting = (f for f, match in matches if match and _fits(match["start"], start_ms))
    return min(fitting, default=None)


def _match(path: str) -> re.Match | None:
  stem, _ = posixpath.splitext(posixpath.basename(path))
  return FILE_STEM.fullmatch(stem)


def _fits(start: str | None, start_ms: int) -> bool:
  """Returns whether a name's start, if it has one, is the segment's start."""
  if start is None:
    return True
  # In milliseconds, in seconds, or in whole seconds, rounded down.
  return float(start) in (start_ms, start_ms / 1000, start_ms // 1000)


def _labels(row: dict[str, str], class_index: dict[str, int]) -> tuple[int, ...]:
  mids = [mid.strip() for mid in row["mids"].split(",")]
  for mid in mids:
    if mid not in class_index:
      raise RowError(f"has label {mid!r}, which {CLASSES_FILE} lacks")
  return tuple(sorted({class_index[mid] for mid in mids}))


def _read_classes(path: epath.Path) -> tuple[tuple[str, ...], dict[str, int]]:
  """Returns the display names, and the index of each mid."""
  line_of_class: dict[str, int] = {}
  line_of_mid: dict[str, int] = {}
  for line, row in read_rows(path, ("index", "mid", "display_name")):
    if row["index"] != str(len(line_of_mid)):
      raise UserError(
        f"{path}, line {line}: index {row['index']!r} is not {len(line_of_mid)}"
      )
    add_name(line_of_mid, row["mid"], line, path)
    add_name(line_of_class, normal_name(row["display_name"]), line, path)
  if not line_of_class:
    raise UserError(f"{path}: it has no classes: give AudioSet's {CLASSES_FILE}")
  return tuple(line_of_class), {mid: i for i, mid in enumerate(line_of_mid)}


def _draw_val(clips: list[Clip], num_classes: int) -> None:
  """Makes a share of the train clips val, in place."""
  train = [i for i, clip in enumerate(clips) if clip.split == "train"]
  if len(train) < 2:
    return
  size = max(1, round(len(train) * VAL_SHARE))
  labels = [clips[i].labels for i in train]
  for position in stratify.stratified_sample(labels, num_classes, size, VAL_SEED):
    i = train[position]
    clips[i] = dataclasses.replace(clips[i], split="val")
