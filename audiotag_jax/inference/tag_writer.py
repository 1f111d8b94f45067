"""The output of tags: a file or a folder that a second run continues, or a terminal."""

import dataclasses
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audiotag_jax import files, names
from audiotag_jax.errors import UserError
from audiotag_jax.inference import made_by, tag_output
from audiotag_jax.inference.tag_output import (
  APPENDED_FORMATS,
  EVENT_FORMATS,
  FOLDER_FORMATS,
  HEADERS,
  Tagged,
  file_name,
)
from audiotag_jax.inference.tag_rows import read_rows

# Most bytes of a recording's name in the name of its labels; file systems take 255.
LONGEST_NAME = 180


def common_folder(paths: list[str]) -> str:
  """Returns the folder that holds all given files and folders."""
  return os.path.commonpath(
    [
      os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path))
      for path in paths
    ]
  )


def name_files(
  found: list[Path], root: str, file_format: str, is_folder: bool
) -> dict[str, str]:
  """Returns each file's name in the output, by its `file_name`.

  Tags have the path that was given. A dcase table has base names, which sed_eval and
  sed_scores_eval compare with those of the ground truth, and names of a folder's files
  are paths below `root`, for Raven without the ending. Where two files would have one
  name, all have their paths below `root`.
  """
  given = list(map(file_name, found))
  if file_format not in EVENT_FORMATS or (file_format != "dcase" and not is_folder):
    return dict(zip(given, given, strict=True))
  below = [names.as_key(os.path.relpath(os.path.abspath(path), root)) for path in found]
  short = below
  if file_format == "dcase":
    short = list(map(os.path.basename, below))
  elif file_format == "raven":
    short = [os.path.splitext(path)[0] for path in below]
  if len(set(short)) < len(set(below)):
    short = below
  return dict(zip(given, short, strict=True))


class Output:
  """Writes results, as they come, to standard output, a file or a folder.

  Attributes:
    names: see `name_files`.
    done: the given files that an earlier run tagged, by their `file_name`.
    num_failed: the number of given files that an earlier run failed to tag.
  """

  def __init__(
    self,
    file_format: str,
    output: str | None,
    paths: list[str],
    found: list[Path],
    origin: made_by.MadeBy,
  ):
    """Reads what an earlier run has written; `start` writes.

    Args:
      file_format: a value of `tag_output.FORMATS`.
      output: the file or folder to write to; None or "" for standard output.
      paths: the files and folders that were given.
      found: the files that will be tagged.
      origin: the model and the options.

    Raises:
      UserError: `output` does not fit the format and the files, or holds rows of
        another model or of other options.
    """
    self._format, self._path = file_format, Path(output) if output else None
    several = len(found) > 1 or any(map(os.path.isdir, paths))
    self._is_folder = file_format in FOLDER_FORMATS and several
    self._check_path(len(found))
    self.names = name_files(found, common_folder(paths), file_format, self._is_folder)
    self.done: set[str] = set()
    self.num_failed = 0
    self._origin = origin
    self._record: Path | None = None
    self._rows: list[dict[str, Any]] = []
    self._lines: list[str] = []
    self._text, self._is_changed = HEADERS.get(file_format, ""), True
    if self._path and (file_format in APPENDED_FORMATS or self._is_folder):
      self._resume(self._path, found)

  def start(self) -> None:
    """Gets the output ready for `add`.

    The record of the origin comes first, so that no row is without one. Then the rows
    of failed files that will be tried again, and a row that an earlier run did not
    finish, are dropped.
    """
    if self._record:
      made_by.write(self._record, self._origin)
    if self._path and self._path.is_file():
      if self._is_changed:
        files.write_text(os.path.realpath(self._path), self._text)
    elif self._text:
      self._write(self._text)

  def add(self, tagged: Tagged) -> None:
    """Writes a file's results, or keeps them for `finish`."""
    if self._format == "json":
      self._rows.append(tag_output.as_json(tagged))
      return
    text = tag_output.AS_TEXT[self._format](
      tagged._replace(file=self.names[tagged.file])
    )
    if self._format not in FOLDER_FORMATS or not self._path:
      self._write(text)
    elif not tagged.error:
      files.write_text(self._labels(self.names[tagged.file]), text)

  def finish(self) -> None:
    """Writes the formats that are written in one piece."""
    if self._format == "json":
      text = json.dumps(self._rows, indent=2, ensure_ascii=False) + "\n"
      self._lines.append(text)
    text = "".join(self._lines)
    if self._path and self._lines:
      files.write_text(self._path, text)
    elif self._lines:
      sys.stdout.write(text)

  def _check_path(self, num_files: int) -> None:
    path = self._path
    if path and path.is_dir() and not self._is_folder:
      raise UserError(f"--output={path} is a folder: give a file")
    is_whole = self._format not in APPENDED_FORMATS and not self._is_folder
    if path and is_whole and path.exists() and not path.is_file():
      # The file that is moved to its place would replace a device, such as /dev/null.
      raise UserError(f"--output={path} is not a file: give a file")
    if self._is_folder and not path:
      raise UserError(
        f"--format={self._format} of {num_files} files needs --output=FOLDER, for the "
        "labels of each file"
      )

  def _resume(self, path: Path, found: list[Path]) -> None:
    """Finds out which files are done; see `__init__`."""
    if self._is_folder:
      self._record = path / made_by.ENDING
    elif path.is_file() or not path.exists():
      self._record = path.with_name(f"{path.name}.{made_by.ENDING}")
    earlier = made_by.read(self._record) if self._record else None
    has_rows = (self._resume_folder if self._is_folder else self._resume_file)(earlier)
    if self._record and self._format in EVENT_FORMATS:
      folder = os.path.abspath(self._record.parent)
      self._origin = dataclasses.replace(
        self._origin,
        files={
          self.names[file_name(x)]: names.as_key(os.path.relpath(x, folder))
          for x in found
        },
      )
    if has_rows:
      made_by.check(path, earlier, self._origin)
      assert earlier is not None
      merged = {**earlier.files, **self._origin.files}
      self._origin = dataclasses.replace(self._origin, files=merged)

  def _resume_file(self, earlier: made_by.MadeBy | None) -> bool:
    assert self._path is not None
    rows, rest = read_rows(self._path, self._format, is_ours=earlier is not None)
    # The rows of one file may be cut off between two of them.
    cut = rows[-1].file if rows and rest and self._format != "jsonl" else None
    failed = {row.file for row in rows if not row.is_tagged}
    done = {row.file for row in rows if row.file != cut} - failed
    again = (failed & {*self.names.values()}) | {cut}
    kept = [row.text for row in rows if row.file not in again]
    self.done = {file for file, name in self.names.items() if name in done}
    self.num_failed = len(again - {cut})
    self._text += "".join(kept)
    self._is_changed = bool(rest or not kept or len(kept) < len(rows))
    return bool(rows)

  def _resume_folder(self, earlier: made_by.MadeBy | None) -> bool:
    known = earlier.files if earlier else {}
    for file, name in self.names.items():
      labels = self._labels(name)
      if not labels.exists():
        continue
      if name not in known:
        raise UserError(
          f"{labels} exists, and {made_by.ENDING} of its folder does not say that it "
          f"was made by this command: {made_by.REMEDY}"
        )
      self.done.add(file)
    return any(self._labels(name).exists() for name in known)

  def _write(self, text: str) -> None:
    if not self._path:
      tqdm.write(text, end="")
    elif self._format in APPENDED_FORMATS:
      # One write, so that an interrupted run does not leave half of the text. A full
      # disk takes a part of it, and refuses the rest.
      with self._path.open("ab", buffering=0) as file:
        data = text.encode()
        while data:
          data = data[file.write(data) :]
    else:
      self._lines.append(text)

  def _labels(self, name: str) -> Path:
    """Returns the path of the labels of a file."""
    assert self._path is not None
    if not self._is_folder:
      return self._path
    folder, base = os.path.split(name)
    if len(base.encode()) > LONGEST_NAME:
      start = base.encode()[:LONGEST_NAME].decode(errors="ignore")
      base = f"{start}~{zlib.crc32(name.encode()):08x}"
    return self._path / folder / f"{base}{FOLDER_FORMATS[self._format]}"
