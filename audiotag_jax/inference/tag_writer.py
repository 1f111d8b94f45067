"""The output of tags: a file or a folder that a second run continues, or a terminal."""

import contextlib
import dataclasses
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.errors import UserError
from audiotag_jax.inference import made_by, tag_names, tag_output
from audiotag_jax.inference.made_by import MadeBy
from audiotag_jax.inference.tag_output import (
  APPENDED_FORMATS,
  FOLDER_FORMATS,
  Tagged,
)
from audiotag_jax.inference.tag_rows import Row, read_rows

# Most bytes of a recording's name in the name of its labels; file systems take 255.
LONGEST_NAME = 180


class Output:
  """Writes results, as they come, to standard output, a file or a folder.

  Attributes:
    names: the name of each given file in the output, by its `file_name`.
    done: the given files that an earlier run tagged, by their `file_name`.
    num_failed: the number of given files that an earlier run failed to tag.
  """

  def __init__(
    self,
    file_format: str,
    output: str | None,
    paths: list[str],
    found: list[Path],
    origin: MadeBy,
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
    self._record = self._find_record()
    self._text, self._is_changed = tag_output.HEADERS.get(file_format, ""), True
    self._lines: list[str] = []
    self._objects: list[dict[str, Any]] = []
    self.done: set[str] = set()
    self.num_failed = 0
    rows, rest, earlier = self._read(origin)
    self.names, self._origin = self._name(paths, found, origin, earlier)
    if self._is_folder:
      self._find_labels(earlier)
    elif self._record:
      self._find_rows(rows, rest)

  def start(self) -> None:
    """Gets the output ready for `add`.

    The record of the origin comes first, so that no row is without one. Then the rows
    of failed files that will be tried again, and a row that an earlier run did not
    finish, are dropped.
    """
    if self._record:
      made_by.write(self._record, self._origin)
    if self._record and self._path and self._path.is_file():
      if self._is_changed:
        files.write_text(os.path.realpath(self._path), self._text)
    elif self._text:
      self._write(self._text)
    self._text = ""

  def add(self, tagged: Tagged) -> None:
    """Writes a file's results, or keeps them for `finish`."""
    if self._format == "json":
      self._objects.append(tag_output.as_json(tagged))
      return
    name = self.names[tagged.file]
    text = tag_output.AS_TEXT[self._format](tagged._replace(file=name))
    if self._format not in FOLDER_FORMATS or not self._path:
      self._write(text)
    elif not tagged.error:
      files.write_text(self._labels(name), text)

  def finish(self) -> None:
    """Writes the formats that are written in one piece."""
    if self._format == "json":
      text = json.dumps(self._objects, indent=2, ensure_ascii=False) + "\n"
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

  def _find_record(self) -> Path | None:
    """Returns the path of the record, for outputs that a second run continues."""
    path = self._path
    if path and self._is_folder:
      return path / made_by.ENDING
    is_file = path and (path.is_file() or not path.exists())
    if path and is_file and self._format in APPENDED_FORMATS:
      return path.with_name(f"{path.name}.{made_by.ENDING}")
    return None

  def _read(self, origin: MadeBy) -> tuple[list[Row], str, MadeBy | None]:
    """Returns what an earlier run wrote: rows, an unfinished one, and its record.

    The record has the names that are in the output. An output without rows is new.
    """
    if not self._path or not self._record:
      return [], "", None
    earlier = made_by.read(self._record)
    rows: list[Row] = []
    rest, file_format = "", self._format
    resumed = FOLDER_FORMATS if self._is_folder else APPENDED_FORMATS
    if earlier and earlier.options.get("format") in resumed:
      file_format = earlier.options["format"]
    if self._is_folder:
      in_record = earlier.files if earlier else ()
      labels = {name: self._labels(name, file_format) for name in in_record}
      present = {name for name, path in labels.items() if path.exists()}
    else:
      rows, rest = read_rows(self._path, file_format, is_ours=earlier is not None)
      present = {row.file for row in rows}
    if not present:
      return [], "", None
    made_by.check(self._path, earlier, origin)
    assert earlier is not None
    kept = {name: place for name, place in earlier.files.items() if name in present}
    return rows, rest, dataclasses.replace(earlier, files=kept)

  def _name(
    self, paths: list[str], found: list[Path], origin: MadeBy, earlier: MadeBy | None
  ) -> tuple[dict[str, str], MadeBy]:
    """Returns `names` and the output's new record."""
    folder = self._record.parent if self._record else Path()
    if self._format == "dcase" or self._is_folder:
      naming = tag_names.of_labels(paths, found, self._format, folder, earlier)
    else:
      naming = tag_names.as_given(found, folder, earlier)
    now = dataclasses.replace(origin, root=naming.root, files=naming.files)
    if earlier and self._path:
      made_by.check_names(self._path, earlier, now)
      now = dataclasses.replace(now, files={**earlier.files, **now.files})
    return naming.names, now

  def _find_rows(self, rows: list[Row], rest: str) -> None:
    """Finds out which files are done, and which rows stay."""
    # The rows of one file may be cut off between two of them.
    cut = {rows[-1].file} if rows and rest and self._format != "jsonl" else set()
    failed = {row.file for row in rows if not row.is_tagged} - cut
    again = failed & {*self.names.values()}
    done = {row.file for row in rows} - failed - cut
    kept = [row.text for row in rows if row.file not in again | cut]
    self.done = {file for file, name in self.names.items() if name in done}
    self.num_failed = len(again)
    self._text += "".join(kept)
    self._is_changed = not rows or bool(rest) or len(kept) < len(rows)

  def _find_labels(self, earlier: MadeBy | None) -> None:
    """Finds out which files have labels; raises `UserError` for another's labels."""
    for file, name in self.names.items():
      labels = self._labels(name)
      if not labels.exists():
        continue
      if not earlier or name not in earlier.files:
        raise UserError(
          f"{labels} exists, and {made_by.ENDING} of its folder does not say that it "
          f"was made by this command: {made_by.REMEDY}"
        )
      self.done.add(file)

  def _write(self, text: str) -> None:
    if not self._path:
      tqdm.write(text, end="")
    elif self._format in APPENDED_FORMATS:
      # One write, so that an interrupted run does not leave half of the text.
      with self._path.open("ab", buffering=0) as file:
        size, data = os.fstat(file.fileno()).st_size, text.encode()
        try:
          while data:
            data = data[file.write(data) :]
        except OSError:
          # A full disk takes a part of the text. (A device has no length.)
          with contextlib.suppress(OSError):
            file.truncate(size)
          raise
    else:
      self._lines.append(text)

  def _labels(self, name: str, file_format: str | None = None) -> Path:
    """Returns the path of the labels of a file."""
    assert self._path is not None
    if not self._is_folder:
      return self._path
    folder, base = os.path.split(name)
    if len(base.encode()) > LONGEST_NAME:
      start = base.encode()[:LONGEST_NAME].decode(errors="ignore")
      base = f"{start}~{zlib.crc32(name.encode()):08x}"
    return self._path / folder / f"{base}{FOLDER_FORMATS[file_format or self._format]}"
