"""Tags and events of files as text in each format, and the output of the text."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from audiotag_jax import files, names
from audiotag_jax.errors import UserError
from audiotag_jax.inference.events import Event

FORMATS = ("table", "json", "jsonl", "csv", "audacity", "dcase")
EVENT_FORMATS = ("audacity", "dcase")
# Formats whose output a second run continues.
APPENDED_FORMATS = ("jsonl", "csv", "dcase")
CSV_FIELDS = ("file", "duration_s", "label", "score", "error")
# https://dcase.community: tab-separated, in spite of the name.
DCASE_FIELDS = ("filename", "onset", "offset", "event_label")


class Tagged(NamedTuple):
  """The tags or events of a file.

  Attributes:
    file: the file's path, as given or as found in a given folder; see `file_name`.
    duration_s: the file's length.
    tags: names and scores, highest first.
    events: names and events, by start.
    error: the reason why the file was not tagged; empty if it was.
  """

  file: str
  duration_s: float = 0.0
  tags: tuple[tuple[str, float], ...] = ()
  events: tuple[tuple[str, Event], ...] = ()
  error: str = ""


def file_name(path: Path) -> str:
  """Returns a file's path as the formats have it, and an earlier run's output."""
  return names.encodable(str(path))


def as_json(tagged: Tagged) -> dict[str, Any]:
  """Returns a file's row in jsonl and json."""
  if tagged.error:
    return {"file": tagged.file, "error": tagged.error}
  return {
    "file": tagged.file,
    "duration_s": round(tagged.duration_s, 4),
    "tags": [
      {"label": label, "score": round(score, 6)} for label, score in tagged.tags
    ],
  }


def as_table(tagged: Tagged) -> str:
  """Returns a file's tags for a person; "" for an error, which goes to stderr."""
  if tagged.error:
    return ""
  lines = [f"{names.printable(tagged.file)} ({tagged.duration_s:.2f} s)"]
  lines += [
    f"  {score:6.3f}  {names.printable(label.replace('_', ' '))}"
    for label, score in tagged.tags
  ]
  if not tagged.tags:
    lines.append("  no tag reaches its threshold: --top_k shows the highest")
  return "\n".join(lines) + "\n"


def as_csv(tagged: Tagged) -> str:
  """Returns one row per tag, or one row without a tag; see `names.for_spreadsheet`."""
  duration_s = "" if tagged.error else f"{tagged.duration_s:.4f}"
  tags = [(label, f"{score:.6f}") for label, score in tagged.tags] or [("", "")]
  rows = [(tagged.file, duration_s, *tag, tagged.error) for tag in tags]
  return _csv(map(names.for_spreadsheet, row) for row in rows)


def as_dcase(tagged: Tagged) -> str:
  """Returns one row per event.

  A file without events has an empty row, as in DESED; a failed file has no row.
  """
  if tagged.error:
    return ""
  rows = [
    (tagged.file, f"{event.start_s:.3f}", f"{_end_s(event, tagged):.3f}", label)
    for label, event in tagged.events
  ]
  return _csv(rows or [(tagged.file, "", "", "")], "\t")


def as_audacity(tagged: Tagged) -> str:
  """Returns a label track, as Audacity imports it."""
  return "".join(
    f"{event.start_s:.6f}\t{_end_s(event, tagged):.6f}\t{names.printable(label)}\n"
    for label, event in tagged.events
  )


def _end_s(event: Event, tagged: Tagged) -> float:
  """Returns an event's end; its last frame may reach beyond the recording's end."""
  return min(event.end_s, tagged.duration_s)


def _csv(rows: Iterable[Iterable[str]], delimiter: str = ",") -> str:
  text = io.StringIO()
  csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
  return text.getvalue()


AS_TEXT = {
  "table": as_table,
  "jsonl": lambda tagged: json.dumps(as_json(tagged), ensure_ascii=False) + "\n",
  "csv": as_csv,
  "audacity": as_audacity,
  "dcase": as_dcase,
}
HEADERS = {"csv": _csv([CSV_FIELDS]), "dcase": _csv([DCASE_FIELDS], "\t")}


def read_done(output: Path, file_format: str) -> dict[str, bool]:
  """Returns the files in an earlier run's output, and whether each was tagged.

  A line that the earlier run did not finish is cut off.

  Raises:
    UserError: the output is of another format.
  """
  # A device, such as /dev/full, may have no end.
  data = output.read_bytes() if output.is_file() else b""
  finished = data[: data.rfind(b"\n") + 1]
  try:
    done = _parse(finished.decode(), file_format) if data else {}
  except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
    raise UserError(
      f"{output} exists and is not in --format={file_format}: give another --output"
    ) from error
  if len(finished) < len(data):
    os.truncate(output, len(finished))
  return done


def _parse(text: str, file_format: str) -> dict[str, bool]:
  if file_format == "jsonl":
    rows = [json.loads(line) for line in text.splitlines()]
    if not rows:
      raise ValueError("no finished line")
    return {row["file"]: "error" not in row for row in rows}
  fields = CSV_FIELDS if file_format == "csv" else DCASE_FIELDS
  delimiter = "," if file_format == "csv" else "\t"
  reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
  if tuple(reader.fieldnames or ()) != fields:
    raise ValueError("another header")
  restore = names.from_spreadsheet if file_format == "csv" else str
  return {restore(row[fields[0]]): not row.get("error") for row in reader}


class Output:
  """Writes results, as they come, to standard output, a file or a folder."""

  def __init__(
    self, file_format: str, output: str | None, paths: list[str], found: list[Path]
  ):
    """Reads what an earlier run has written.

    Args:
      file_format: a value of `FORMATS`.
      output: the file or folder to write to; None or "" for standard output.
      paths: the files and folders that were given.
      found: the files that will be tagged.

    Raises:
      UserError: `output` does not fit the format and the files.
    """
    self._format, self._path = file_format, Path(output) if output else None
    several = len(found) > 1 or any(map(os.path.isdir, paths))
    self._is_folder = self._format == "audacity" and several
    if self._path and self._path.is_dir() and not self._is_folder:
      raise UserError(f"--output={self._path} is a folder: give a file")
    is_whole = self._format not in APPENDED_FORMATS and not self._is_folder
    if self._path and is_whole and self._path.exists() and not self._path.is_file():
      # The file that is moved to its place would replace a device, such as /dev/null.
      raise UserError(f"--output={self._path} is not a file: give a file")
    if self._is_folder and not self._path:
      raise UserError(
        f"--format=audacity of {len(found)} files needs --output=FOLDER, for a label "
        "track of each file"
      )
    self._root = os.path.commonpath([path.absolute().parent for path in found])
    self._rows: list[dict[str, Any]] = []
    self._lines: list[str] = []
    self.done: dict[str, bool] = {}
    if self._path and self._format in APPENDED_FORMATS:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self.done = read_done(self._path, self._format)
    if self._is_folder:
      given = map(file_name, found)
      self.done = {file: True for file in given if self._track(file).exists()}
    is_new = not (self._path and self._path.exists() and self._path.stat().st_size)
    if is_new and self._format in HEADERS:
      self._write(HEADERS[self._format])

  def add(self, tagged: Tagged) -> None:
    """Writes a file's results, or keeps them for `finish`."""
    if self._format == "json":
      self._rows.append(as_json(tagged))
    elif self._format == "audacity" and self._path:
      if not tagged.error:
        files.write_text(self._track(tagged.file), as_audacity(tagged))
    else:
      self._write(AS_TEXT[self._format](tagged))

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

  def _write(self, text: str) -> None:
    if not self._path:
      tqdm.write(text, end="")
    elif self._format in APPENDED_FORMATS:
      # One write, so that an interrupted run does not leave half of the text.
      with self._path.open("ab", buffering=0) as file:
        file.write(text.encode())
    else:
      self._lines.append(text)

  def _track(self, file: str) -> Path:
    """Returns the path of a file's label track."""
    assert self._path is not None
    if not self._is_folder:
      return self._path
    return self._path / f"{os.path.relpath(file, self._root)}.txt"
