"""The rows that an earlier run wrote to an output."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from audiotag_jax import names
from audiotag_jax.errors import UserError
from audiotag_jax.inference import tag_output


class Row(NamedTuple):
  """A row of an earlier run.

  Attributes:
    file: the file's name, as the output has it.
    is_tagged: whether the row is not that of an error.
    text: the row, with its line break.
  """

  file: str
  is_tagged: bool
  text: str


def read_rows(
  output: Path, file_format: str, *, is_ours: bool = False
) -> tuple[list[Row], str]:
  """Reads an earlier run's output.

  Args:
    output: the file, which may be missing, or a device.
    file_format: a value of `APPENDED_FORMATS`.
    is_ours: whether a record tells that the output was made here; then its first line
      may be unfinished.

  Returns:
    The finished rows, and the text behind them that the earlier run did not finish.

  Raises:
    UserError: the output is of another format.
  """
  # A device, such as /dev/full, may have no end.
  data = output.read_bytes() if output.is_file() else b""
  finished = data[: data.rfind(b"\n") + 1]
  rest = data[len(finished) :].decode(errors="replace")
  start = tag_output.HEADERS.get(file_format, '{"file": "')
  is_start = start.startswith(rest[: len(start)])
  if not data or (is_ours and is_start and not finished):
    return [], rest
  try:
    rows, behind = _parse(finished.decode(), file_format)
  except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
    raise UserError(
      f"{output} exists and is not in --format={file_format}: give another --output"
    ) from error
  return rows, behind + rest


def _parse(text: str, file_format: str) -> tuple[list[Row], str]:
  """Returns the rows of a text of whole lines, and an unfinished record behind them."""
  if file_format == "csv":
    return _parse_table(text, ",", tag_output.CSV_FIELDS, names.from_spreadsheet)
  if file_format == "dcase":
    return _parse_table(text, "\t", tag_output.DCASE_FIELDS, str)
  # Names may have other line breaks, such as U+2028.
  lines = [f"{line}\n" for line in text.split("\n")[:-1]]
  if not lines:
    raise ValueError("no finished line")
  rows = [json.loads(line) for line in lines]
  return [
    Row(row["file"], "error" not in row, line)
    for row, line in zip(rows, lines, strict=True)
  ], ""


def _parse_table(
  text: str, delimiter: str, header: tuple[str, ...], restore: Callable[[str], str]
) -> tuple[list[Row], str]:
  records = list(_records(text))
  fields = list(csv.reader(records, delimiter=delimiter))
  if tuple(fields[0] if fields else ()) != header:
    raise ValueError("another header")
  if {*map(len, fields)} - {0, len(header)}:
    raise ValueError("rows of another length")
  rows = [
    Row(
      restore(values[0]),
      not dict(zip(header, values, strict=True)).get("error"),
      record,
    )
    for values, record in zip(fields[1:], records[1:], strict=True)
    if values
  ]
  return rows, text[sum(map(len, records)) :]


def _records(text: str) -> Iterator[str]:
  """Yields the finished records of a csv file, which may have quoted line breaks."""
  lines, is_open = [], False
  for line in text.split("\n")[:-1]:
    lines.append(f"{line}\n")
    is_open ^= bool(line.count('"') % 2)
    if not is_open:
      yield "".join(lines)
      lines.clear()
