"""The lists of a data set, and rows that are rejected."""

import contextlib
import csv
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO

from etils import epath
from tqdm import tqdm

from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.errors import UserError
from audiotag_jax.names import printable
from audiotag_jax.text_files import read_lines, stripped

# What may separate the fields of a table.
DELIMITERS = ",\t;"
# The split of a rejected clip where splits are drawn.
NO_SPLIT = "no split"
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
  """Yields the rows of a csv file, and the line of each; see `parse_rows`.

  Raises:
    UserError: the file is missing, or as `parse_rows` says.
  """
  try:
    with path.open("rb") as file:
      yield from parse_rows(file, path, columns, header)
  except OSError as error:
    reason = error.strerror or "no such file"
    raise UserError(f"{path} cannot be read ({reason}): give a csv file") from error


def parse_rows(
  file: BinaryIO,
  path: epath.Path,
  columns: Collection[str],
  header: Sequence[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields the rows of a table, and the line of each, read as meant.

  Spaces and invisible characters around a field do not count, nor do upper and lower
  case in the header. Rows whose fields are all blank, and columns without a name, are
  passed over. Tabs or semicolons separate the fields if the header says so.

  A field that a row lacks is empty; fields beyond the header's are stored under None.

  Args:
    file: the table, in a code that `read_lines` knows.
    path: its path, for messages.
    columns: the columns that the header must have.
    header: the columns of a file without a header, as AudioSet's: there, `#` begins a
      comment.

  Raises:
    UserError: the file is not text or not csv, lacks a column or has one twice, or has
      a line or a field too long to be meant.
  """
  lines = read_lines(file, path)
  delimiter = ","
  if header:
    # Comments become empty lines, so that later lines keep their numbers.
    lines = ("\n" if line.startswith("#") else line for line in lines)
  else:
    first: list[str] = []
    for line in lines:
      first.append(line)
      if stripped(line).strip(f'{DELIMITERS} "'):
        break
    delimiter = _find_delimiter(first[-1:], columns)
    lines = itertools.chain(first, lines)
  reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
  try:
    rows = _filled_rows(reader)
    if not header:
      header = _check_header(next(rows, (0, []))[1], path, columns)
    empty = dict.fromkeys(header, "")
    for line, fields in tqdm(rows, printable(path.name), unit=" rows", **PROGRESS):
      row: dict = {**empty, **dict(zip(header, fields, strict=False))}
      if any(beyond := fields[len(header) :]):
        row[None] = beyond
      row.pop("", None)
      yield line, row
  except csv.Error as error:
    place = f"{path}, line {reader.line_num}"
    raise UserError(f"{place}: {error}: correct its quotes and commas") from error


def _find_delimiter(first: Sequence[str], columns: Collection[str]) -> str:
  """Returns what separates the columns in a table's first line, of `DELIMITERS`."""
  for delimiter in DELIMITERS:
    with contextlib.suppress(csv.Error):
      for fields in csv.reader(first, delimiter=delimiter, skipinitialspace=True):
        if set(columns) <= {stripped(name).lower() for name in fields}:
          return delimiter
  return ","


def _filled_rows(reader: Any) -> Iterator[tuple[int, list[str]]]:
  for fields in reader:
    fields = [stripped(field) for field in fields]
    if any(fields):
      yield reader.line_num, fields


def _check_header(
  names: Sequence[str], path: epath.Path, columns: Collection[str]
) -> list[str]:
  """Returns a header in lower case; raises `UserError` if it lacks or repeats one."""
  header = [name.lower() for name in names]
  if not set(columns) <= set(header):
    raise UserError(
      f"{path}: its first line must name the columns {', '.join(columns)}, "
      f"separated by commas, but is {','.join(names)[:80]!r}"
    )
  for name in header:
    if name and header.count(name) > 1:
      raise UserError(f"{path}: its first line names the column {name} twice: keep one")
  return header


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
