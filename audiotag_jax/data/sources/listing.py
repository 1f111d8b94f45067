"""The lists of a data set, the files in its folder, and rows that are rejected."""

import csv
import functools
import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO

from etils import epath
from tqdm import tqdm

from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.errors import UserError
from audiotag_jax.names import encodable, printable

# Endings of files beside recordings; any other file counts as a recording.
NOT_AUDIO = (
  ".bib", ".cfg", ".csv", ".db", ".doc", ".docx", ".gif", ".gz", ".htm", ".html",
  ".ini", ".ipynb", ".jams", ".jpeg", ".jpg", ".json", ".jsonl", ".lab", ".log", ".md",
  ".npy", ".npz", ".pdf", ".pickle", ".pkl", ".png", ".py", ".rst", ".sh", ".svg",
  ".tar", ".textgrid", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip",
)  # fmt: skip
# Longest line of a csv file, whose rows name a clip and its labels.
MAX_LINE_BYTES = 2**20
# The split of a rejected clip where splits are drawn.
NO_SPLIT = "no split"
LEADS_OUT = "lies outside of the audio folder"
# tqdm's settings for steps that take seconds only in large sets.
PROGRESS = {"delay": 2, "leave": False, "disable": None}


class RowError(Exception):
  """A row that names no usable clip; the message follows the clip's name.

  The message is part of the source's fingerprint: with other words, sets that are
  prepared already would be prepared again.
  """


def read_rows(
  path: epath.Path, columns: Collection[str], header: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields the rows of a csv file, and the line of each.

  A field that a row lacks is empty; fields beyond the header's are stored under None.

  Args:
    path: UTF-8, with or without a byte order mark.
    columns: the columns that the header must have.
    header: the columns of a file without a header, as AudioSet's: there, `#` begins a
      comment, and spaces may follow commas.

  Raises:
    UserError: the file is missing, is not UTF-8 or not csv, lacks a column, or has a
      line or a field too long to be meant.
  """
  try:
    with path.open("rb") as file:
      yield from _read_rows(path, _lines(path, file), columns, header)
  except OSError as error:
    reason = error.strerror or "no such file"
    raise UserError(f"{path} cannot be read ({reason}): give a csv file") from error


def _read_rows(
  path: epath.Path,
  lines: Iterator[str],
  columns: Collection[str],
  header: Sequence[str] | None,
) -> Iterator[tuple[int, dict[str, str]]]:
  if header:
    # Comments become empty lines, so that later lines keep their numbers.
    lines = ("\n" if line.startswith("#") else line for line in lines)
  reader = csv.DictReader(
    lines, header, restval="", skipinitialspace=header is not None, strict=True
  )
  try:
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    if not set(columns) <= set(reader.fieldnames):
      found = ",".join(reader.fieldnames)[:80]
      raise UserError(
        f"{path}: its first line must name the columns {', '.join(columns)}, "
        f"separated by commas, but is {found!r}"
      )
    for row in tqdm(reader, printable(path.name), unit=" rows", **PROGRESS):
      yield reader.line_num, row
  except csv.Error as error:
    place = f"{path}, line {reader.reader.line_num}"
    raise UserError(f"{place}: {error}: correct its quotes and commas") from error


def _lines(path: epath.Path, file: BinaryIO) -> Iterator[str]:
  read = functools.partial(file.readline, MAX_LINE_BYTES + 1)
  for number, line in enumerate(iter(read, b""), 1):
    if len(line) > MAX_LINE_BYTES:
      raise UserError(
        f"{path}, line {number}: it has more than {MAX_LINE_BYTES} bytes: give a csv "
        "file"
      )
    try:
      text = line.decode("utf-8-sig" if number == 1 else "utf-8")
      fault = "holds a NUL byte" if "\0" in text else None
    except UnicodeDecodeError:
      fault = "is not UTF-8"
    if fault:
      raise UserError(f"{path}, line {number}: {fault}: save the file as UTF-8 text")
    yield text


class Fence:
  """Tells whether files are in a folder, following links; lists each folder once."""

  def __init__(self, root: epath.Path):
    self._root = str(root)
    self._is_local = "://" not in self._root
    self._real_root = os.path.realpath(root) if self._is_local else self._root
    self._folders: dict[str, tuple[str | None, frozenset[str]]] = {}

  def place(self, path: str) -> str | None:
    """Returns a file's normalised path below the folder; None if it leads out.

    Args:
      path: relative to the folder, or absolute.
    """
    folder, name = posixpath.split(path)
    if folder not in self._folders:
      look = self._look_local if self._is_local else self._look_remote
      self._folders[folder] = look(folder)
    below, links = self._folders[folder]
    if below is None:
      return None
    place = posixpath.join(below, name)
    if name in links and self._below(os.path.join(self._real_root, place)) is None:
      return None
    return place

  def _look_local(self, folder: str) -> tuple[str | None, frozenset[str]]:
    """Returns a folder's path below the root, and the names of its links."""
    path = os.path.join(self._root, folder)
    below = self._below(path)
    if below is None or not os.path.isdir(path):
      return below, frozenset()
    with os.scandir(path) as entries:
      return below, frozenset(entry.name for entry in entries if entry.is_symlink())

  def _below(self, path: str) -> str | None:
    real = os.path.realpath(path)
    if os.path.commonpath([real, self._real_root]) != self._real_root:
      return None
    below = os.path.relpath(real, self._real_root)
    return "" if below == "." else below

  def _look_remote(self, folder: str) -> tuple[str | None, frozenset[str]]:
    root = f"{self._root}/"
    if f"{folder}/".startswith(root):
      folder = folder.removeprefix(self._root).lstrip("/")
    below = posixpath.normpath(folder)
    if "://" in folder or below.startswith(("/", "..")):
      return None, frozenset()
    return "" if below == "." else below, frozenset()


def walk_audio(folder: epath.Path) -> Iterator[tuple[str, str | None]]:
  """Yields each recording's path below a folder, and why it is unusable, or None.

  Hidden files and files with an ending of `NOT_AUDIO` are skipped. The order is the
  file system's.

  Raises:
    UserError: the folder, or one in it, cannot be listed.
  """
  walk = _walk_remote if "://" in str(folder) else _walk_local
  try:
    for path, reason in tqdm(walk(folder), "listing", unit=" files", **PROGRESS):
      if posixpath.splitext(path)[1].lower() not in NOT_AUDIO:
        yield path, reason
  except OSError as error:
    place = epath.Path(error.filename or folder)
    reason = error.strerror or "no such folder"
    raise UserError(
      f"{place} cannot be listed ({reason}): give a folder of recordings"
    ) from error


def _walk_remote(folder: epath.Path) -> Iterator[tuple[str, None]]:
  root = _in_bucket(folder)
  for parent, _, names in folder.walk():
    below = _in_bucket(parent).removeprefix(root).lstrip("/")
    for name in names:
      path = posixpath.join(below, name)
      if "/." not in f"/{path}":
        yield path, None


def _in_bucket(path: epath.Path) -> str:
  """A path without its scheme, which some file systems leave out."""
  return str(path).rpartition("://")[2].strip("/")


def _walk_local(folder: epath.Path) -> Iterator[tuple[str, str | None]]:
  fence, pending = Fence(folder), [""]
  while pending:
    below = pending.pop()
    with os.scandir(os.path.join(folder, below)) as entries:
      for entry in entries:
        path = f"{below}{entry.name}"
        if entry.name.startswith("."):
          continue
        if (shown := encodable(path)) != path:
          yield shown, "has a name that is not UTF-8"
          continue
        if not entry.is_symlink():
          if entry.is_dir():
            pending.append(f"{path}/")
          else:
            yield path, None
        elif entry.is_dir():
          yield path, "is a link to a folder, which is not followed"
        else:
          yield path, LEADS_OUT if fence.place(path) is None else None


def check_fields(row: dict) -> None:
  """Raises `RowError` for a row with more fields than the header."""
  if None in row:
    raise RowError("has more fields than the header: quote those that hold commas")


def check_any(place: epath.Path, clips: Sequence, rejected: Sequence[Rejected]) -> None:
  """Raises `UserError` if a data set has no clips."""
  if clips:
    return
  if not rejected:
    raise UserError(f"{place} has no clips: training needs some")
  first = rejected[0]
  raise UserError(
    f"{place} has no usable clip: all {len(rejected)} are rejected, the first "
    f"because {first.fname} {first.reason}"
  )
