"""FSD50K, as its owner ships it (Zenodo record 4060432).

    FSD50K.dev_audio/<fname>.wav      FSD50K.eval_audio/<fname>.wav
    FSD50K.ground_truth/dev.csv       fname,labels,mids,split
    FSD50K.ground_truth/eval.csv      fname,labels,mids
    FSD50K.ground_truth/vocabulary.csv   index,label,mid, without a header

Each folder may be unpacked, or still be the archive that is downloaded.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from audiotag_jax.audio.files import AudioFile
from audiotag_jax.data.sources import archives
from audiotag_jax.data.sources.source import SPLITS, Clip, Rejected, Source
from audiotag_jax.errors import UserError

FOLDERS = ("dev_audio", "eval_audio", "ground_truth")


def read_source(folder: epath.PathLike) -> Source:
  """Reads the csv files of a folder in FSD50K's layout.

  A row that names no usable clip is rejected: its fname is a path or came before, a
  label is not in the vocabulary, or its split is neither train nor val.

  Raises:
    UserError: a folder and its archive, a csv file or a column is missing.
  """
  folder = epath.Path(folder)
  files = {name: _files(folder, name) for name in FOLDERS}
  texts = {
    name: _read_text(files["ground_truth"], folder, f"{name}.csv")
    for name in ("dev", "eval", "vocabulary")
  }
  classes = _read_vocabulary(texts["vocabulary"], folder)
  rows = [
    *_read_rows(texts["dev"], folder / "FSD50K.ground_truth/dev.csv"),
    *_read_rows(texts["eval"], folder / "FSD50K.ground_truth/eval.csv", "eval"),
  ]
  clips, rejected = [], []
  class_index = {name: i for i, name in enumerate(classes)}
  seen: set[str] = set()
  for fname, labels, split in rows:
    reason = _fault(fname, labels, split, class_index, seen)
    if reason:
      rejected.append(Rejected(fname, split, reason))
      continue
    seen.add(fname)
    audio = files["eval_audio" if split == "eval" else "dev_audio"](f"{fname}.wav")
    indices = sorted({class_index[label] for label in labels})
    clips.append(Clip(fname, audio, tuple(indices), split))
  return Source("fsd50k", folder, classes, tuple(clips), tuple(rejected))


def _files(folder: epath.Path, name: str) -> Callable[[str], AudioFile]:
  """Returns the map from a file's name in a part of FSD50K to the file."""
  directory = folder / f"FSD50K.{name}"
  if directory.is_dir():
    return directory.joinpath
  for path in (folder / f"FSD50K.{name}.zip", folder / f"{name}.zip"):
    if path.exists():
      members = archives.open_archive(path)
      # A file that the archive lacks is looked for in the folder, and is missing there.
      return lambda file: members.get(f"{directory.name}/{file}", directory / file)
  raise UserError(
    f"{directory} does not exist, nor does {directory.name}.zip: the source folder "
    "must hold FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth, each as a "
    "folder or as the archive of Zenodo record 4060432"
  )


def _read_text(files: Callable[[str], AudioFile], folder: epath.Path, name: str) -> str:
  try:
    return files(name).read_bytes().decode("utf-8-sig")
  except FileNotFoundError:
    raise UserError(
      f"{folder}/FSD50K.ground_truth/{name} does not exist: FSD50K.ground_truth must "
      "hold dev.csv, eval.csv and vocabulary.csv, as Zenodo record 4060432 has them"
    ) from None
  except (OSError, MemoryError, UnicodeDecodeError) as error:
    raise UserError(
      f"{folder}/FSD50K.ground_truth/{name} cannot be read ({error}): download "
      "FSD50K.ground_truth.zip again"
    ) from error


def _parse(reader: Any, path: epath.Path) -> Iterator[Any]:
  """Yields a csv reader's rows; `UserError` for text that is not csv."""
  try:
    yield from reader
  except csv.Error as error:
    raise _csv_error(path, reader.line_num, error) from error


def _csv_error(path: epath.Path, line: int, error: csv.Error) -> UserError:
  return UserError(f"{path}, line {line}: {error}: correct its quotes and commas")


def _read_vocabulary(text: str, folder: epath.Path) -> tuple[str, ...]:
  path = folder / "FSD50K.ground_truth/vocabulary.csv"
  rows = [row for row in _parse(csv.reader(io.StringIO(text)), path) if row]
  for number, row in enumerate(rows):
    if len(row) != 3 or row[0] != str(number):
      raise UserError(
        f"{path}: row {number + 1} is {','.join(row)!r}, not {number},label,mid"
      )
  classes = tuple(label for _, label, _ in rows)
  if not classes or len(set(classes)) < len(classes):
    raise UserError(
      f"{path}: its {len(classes)} labels must be distinct, and at least one"
    )
  return classes


def _read_rows(
  text: str, path: epath.Path, split: str | None = None
) -> Iterator[tuple[str, list[str], str]]:
  """Yields fname, labels and split: the split that is given, or else the row's."""
  columns = {"fname", "labels"} | (set() if split else {"split"})
  reader = csv.DictReader(io.StringIO(text, newline=""))
  try:
    header = reader.fieldnames or ()
  except csv.Error as error:
    raise _csv_error(path, reader.line_num, error) from error
  if not columns <= set(header):
    raise UserError(f"{path}: its header must have the columns {sorted(columns)}")
  for row in _parse(reader, path):
    yield row["fname"] or "", (row["labels"] or "").split(","), split or row["split"]


def _fault(
  fname: str,
  labels: Sequence[str],
  split: str,
  class_index: Mapping[str, int],
  seen: set[str],
) -> str:
  """Returns why a row is unusable; empty if it is usable."""
  if fname in ("", ".", "..") or "/" in fname or "\\" in fname:
    return "must be a file's name, with no path"
  if fname in seen:
    return "comes more than once in the csv files"
  unknown = set(labels) - class_index.keys()
  if unknown:
    return f"has the label {min(unknown)!r}, which is not in vocabulary.csv"
  if split not in SPLITS:
    return f"has the split {split!r}, which must be train or val"
  return ""
