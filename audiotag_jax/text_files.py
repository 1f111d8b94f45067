"""Text files as people save them: decoded, line by line, and names read as meant."""

import codecs
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from etils import epath

from audiotag_jax.errors import UserError

# A row of a table names a clip and its labels, in fewer characters.
MAX_LINE_CHARACTERS = 2**20
BUFFER_BYTES = 2**18
# Characters that programs leave in texts and nobody sees: zero-width spaces, byte order
# marks, and marks of the writing direction.
INVISIBLE = dict.fromkeys(
  [0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A)]
  + [0xFEFF]
)


def stripped(text: str) -> str:
  """Returns a text without spaces around it and without invisible characters.

  Spaces include those that no line breaks at (U+00A0).
  """
  return (text if text.isascii() else text.translate(INVISIBLE)).strip()


def normal_name(text: str) -> str:
  """Returns a name in the one form that texts of the same look share.

  It is in Unicode's form NFC, `stripped`, and has single spaces.
  """
  name = " ".join(stripped(text).split())
  return name if name.isascii() else unicodedata.normalize("NFC", name)


class _Readable(io.RawIOBase):
  """A file of etils, which may have no method but `read`, as one of Python's."""

  def __init__(self, file: BinaryIO):
    self._file = file

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: Any) -> int:
    data = self._file.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)


def read_lines(file: BinaryIO, path: epath.PathLike) -> Iterator[str]:
  r"""Yields a file's lines, each with its end, be it `\n`, `\r\n` or `\r`.

  Args:
    file: UTF-8 with or without a byte order mark, or UTF-16 with one, as Excel's
      "Unicode text".
    path: the file's path, for messages.

  Raises:
    UserError: the file is of another code, or has a NUL or a line too long to be meant.
  """
  buffered = io.BufferedReader(_Readable(file), BUFFER_BYTES)
  is_utf_16 = buffered.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
  code, errors = (
    ("utf-16", "replace") if is_utf_16 else ("utf-8-sig", "surrogateescape")
  )
  text = io.TextIOWrapper(buffered, code, errors, newline="")
  number = 0
  while line := text.readline(MAX_LINE_CHARACTERS + 1):
    number += 1
    if len(line) > MAX_LINE_CHARACTERS:
      raise UserError(
        f"{path}, line {number}: it has more than {MAX_LINE_CHARACTERS} characters: "
        "give a text file"
      )
    fault = "holds a NUL byte" if "\0" in line else None
    if "\ufffd" in line if is_utf_16 else _has_surrogates(line):
      fault = f"is not {'UTF-16' if is_utf_16 else 'UTF-8'}"
    if fault:
      raise UserError(f"{path}, line {number}: {fault}: save the file as UTF-8 text")
    yield line


def _has_surrogates(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return True
  return False


def read_names(path: Path) -> list[str]:
  """Reads a list of names, one per line; blank lines are passed over.

  Raises:
    UserError: the file cannot be read, or has a name twice; see `read_lines`.
  """
  line_of: dict[str, int] = {}
  try:
    with path.open("rb") as file:
      for number, line in enumerate(read_lines(file, path), 1):
        if name := normal_name(line):
          add_name(line_of, name, number, path)
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror or error}): give UTF-8 text, one name "
      "per line"
    ) from error
  return list(line_of)


def add_name(
  line_of: dict[str, int], name: str, line: int, path: epath.PathLike
) -> None:
  """Adds a class's name and its line to those before.

  Raises:
    UserError: the name is empty, or a line before has it.
  """
  if not name:
    raise UserError(f"{path}, line {line}: its name is empty: give each class a name")
  first = line_of.setdefault(name, line)
  if first != line:
    raise UserError(
      f"{path}: lines {first} and {line} are both {name!r}: give each class a name of "
      "its own"
    )
