"""FSD50K, as its owner ships it (Zenodo record 4060432).

    FSD50K.dev_audio/<fname>.wav      FSD50K.eval_audio/<fname>.wav
    FSD50K.ground_truth/dev.csv       fname,labels,mids,split
    FSD50K.ground_truth/eval.csv      fname,labels,mids
    FSD50K.ground_truth/vocabulary.csv   index,label,mid, without a header

Each folder may be unpacked, or still be the archive that is downloaded.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from etils import epath

from audiotag_jax.audio.files import AudioFile
from audiotag_jax.data.sources import archives
from audiotag_jax.data.sources.listing import RowError, check_fields, parse_rows
from audiotag_jax.data.sources.paths import Names
from audiotag_jax.data.sources.source import SPLITS, Clip, Rejected, Source
from audiotag_jax.errors import UserError
from audiotag_jax.text_files import add_name, normal_name

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
  tables = files["ground_truth"]
  classes = _read_vocabulary(tables, folder)
  dev = _read_table(tables, folder, "dev.csv", ("fname", "labels", "split"))
  rows = [(row, row["split"]) for _, row in dev]
  eval_rows = _read_table(tables, folder, "eval.csv", ("fname", "labels"))
  rows += [(row, "eval") for _, row in eval_rows]
  clips, rejected = [], []
  class_index = {name: i for i, name in enumerate(classes)}
  seen: set[str] = set()
  for row, split in rows:
    fname = row["fname"]
    labels = [name for name in map(normal_name, row["labels"].split(",")) if name]
    try:
      _check_row(fname, labels or [""], split, class_index, seen)
      check_fields(row)
    except RowError as error:
      rejected.append(Rejected(fname, split, str(error)))
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
    names = Names(() if "://" in str(directory) else os.listdir(directory))
    return lambda file: directory / names.find(file)
  for path in (folder / f"FSD50K.{name}.zip", folder / f"{name}.zip"):
    if path.exists():
      members = archives.open_archive(path)
      names = Names(members)
      # A file that the archive lacks is looked for in the folder, and is missing there.
      return lambda file: members.get(
        names.find(f"{directory.name}/{file}"), directory / file
      )
  raise UserError(
    f"{directory} does not exist, nor does {directory.name}.zip: the source folder "
    "must hold FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth, each as a "
    "folder or as the archive of Zenodo record 4060432"
  )


def _read_table(
  files: Callable[[str], AudioFile],
  folder: epath.Path,
  name: str,
  columns: Sequence[str],
  header: Sequence[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields the rows of a csv file, and the line of each; see `listing.parse_rows`."""
  path = folder / "FSD50K.ground_truth" / name
  try:
    data = files(name).read_bytes()
  except FileNotFoundError:
    raise UserError(
      f"{path} does not exist: FSD50K.ground_truth must hold dev.csv, eval.csv and "
      "vocabulary.csv, as Zenodo record 4060432 has them"
    ) from None
  except (OSError, MemoryError) as error:
    raise UserError(
      f"{path} cannot be read ({error}): download FSD50K.ground_truth.zip again"
    ) from error
  yield from parse_rows(io.BytesIO(data), path, columns, header)


def _read_vocabulary(
  files: Callable[[str], AudioFile], folder: epath.Path
) -> tuple[str, ...]:
  path = folder / "FSD50K.ground_truth/vocabulary.csv"
  line_of: dict[str, int] = {}
  header = ("index", "label", "mid")
  for line, row in _read_table(files, folder, path.name, header, header):
    number = len(line_of)
    if row["index"] != str(number) or None in row:
      found = ",".join(row[name] for name in header)
      raise UserError(f"{path}, line {line}: {found!r} is not {number},label,mid")
    add_name(line_of, normal_name(row["label"]), line, path)
  if not line_of:
    raise UserError(f"{path} has no labels: give FSD50K's")
  return tuple(line_of)


def _check_row(
  fname: str,
  labels: Sequence[str],
  split: str,
  class_index: Mapping[str, int],
  seen: set[str],
) -> None:
  """Raises `RowError` for a row that is unusable."""
  if fname in ("", ".", "..") or "/" in fname or "\\" in fname:
    raise RowError("must be a file's name, with no path")
  if fname in seen:
    raise RowError("comes more than once in the csv files")
  unknown = set(labels) - class_index.keys()
  if unknown:
    raise RowError(f"has the label {min(unknown)!r}, which is not in vocabulary.csv")
  if split not in SPLITS:
    raise RowError(f"has the split {split!r}, which must be train or val")
