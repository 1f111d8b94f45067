"""ESC-50 (Piczak 2015), as its owner ships it: meta/esc50.csv and audio/."""

from etils import epath

from audiotag_jax.data.sources.listing import (
  RowError,
  check_any,
  check_fields,
  read_rows,
)
from audiotag_jax.data.sources.paths import LEADS_OUT, Fence
from audiotag_jax.data.sources.source import Clip, Rejected, Source
from audiotag_jax.errors import UserError
from audiotag_jax.text_files import normal_name

NUM_FOLDS = 5
MAX_TARGET_DIGITS = 9


def read_esc50(folder: epath.Path, *, fold: int) -> Source:
  """Reads a folder in ESC-50's layout.

  Args:
    folder: holds meta/esc50.csv and audio/.
    fold: the fold for eval; the fold before it (5 before 1) is val, and the other three
      are train.

  Returns:
    The clips in the csv file's order; the classes in the order of `target`.

  Raises:
    UserError: the fold is invalid, a file or column is missing, or no clip is usable.
  """
  if fold not in range(1, NUM_FOLDS + 1):
    raise UserError(f"ESC-50 has no fold {fold}: choose 1 to {NUM_FOLDS}")
  splits = dict.fromkeys(map(str, range(1, NUM_FOLDS + 1)), "train")
  splits |= {str(fold): "eval", str((fold - 2) % NUM_FOLDS + 1): "val"}
  csv_path, audio_dir = folder / "meta" / "esc50.csv", folder / "audio"
  fence = Fence(audio_dir)
  rows, rejected = [], []
  category_of: dict[int, str] = {}
  line_of: dict[str, int] = {}
  for line, row in read_rows(csv_path, ("filename", "fold", "target", "category")):
    try:
      file, target = _check_row(row, splits, fence, category_of)
      first = line_of.setdefault(file, line)
      if first != line:
        raise RowError(f"comes more than once (lines {first} and {line})")
      rows.append((row["filename"], file, target, splits[row["fold"]]))
    except RowError as error:
      fname = row["filename"] or f"line {line}"
      split = splits.get(row["fold"], row["fold"])
      rejected.append(Rejected(fname, split, str(error)))
  check_any(csv_path, rows, rejected)
  targets = sorted({target for _, _, target, _ in rows})
  position = {target: i for i, target in enumerate(targets)}
  clips = tuple(
    Clip(fname, audio_dir / file, (position[target],), split)
    for fname, file, target, split in rows
  )
  classes = tuple(category_of[target] for target in targets)
  return Source("esc50", folder, classes, clips, tuple(rejected))


def _check_row(
  row: dict[str, str], splits: dict[str, str], fence: Fence, category_of: dict[int, str]
) -> tuple[str, int]:
  """Returns a row's file and target, whose category it adds to `category_of`."""
  check_fields(row)
  fname, category = row["filename"], normal_name(row["category"])
  if fname in ("", ".", "..") or "/" in fname:
    raise RowError("has no file's name")
  file = fence.place(fname)
  if file is None:
    raise RowError(LEADS_OUT)
  if row["fold"] not in splits:
    raise RowError(f"has fold {row['fold']!r}, which is not from 1 to {NUM_FOLDS}")
  # More digits are no number of a class, and Python refuses thousands of them.
  if not row["target"].isdecimal() or len(row["target"]) > MAX_TARGET_DIGITS:
    raise RowError(f"has target {row['target']!r}, which is not a number")
  target = int(row["target"])
  if not category:
    raise RowError("has no category")
  is_new = target not in category_of and category not in category_of.values()
  if not is_new and category_of.get(target) != category:
    raise RowError(f"has target {target} and category {category!r}, unlike other rows")
  category_of[target] = category
  return file, target
