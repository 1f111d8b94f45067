"""Zip archives, in one file or in parts, read in place.

An archive in parts, as `zip -s` makes it, is `NAME.z01`, `NAME.z02` … and, last,
`NAME.zip`. Python's zipfile refuses parts, and joining them takes as much disk space
again. This module therefore reads the archive's end and its members, and leaves only
the directory between them to zipfile.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from absl import logging
from etils import epath

from audiotag_jax.errors import UserError

# The structures of PKWARE's APPNOTE 6.3.10, sections 4.3.7 and 4.3.14 to 4.3.16.
LOCAL_HEADER = struct.Struct("<4s22xHH")
END = struct.Struct("<4s4H2LH")
ZIP64_LOCATOR = struct.Struct("<4sLQL")
ZIP64_END = struct.Struct("<4s16xL4Q")
MAX_COMMENT_BYTES = 2**16 - 1
MAX_PARTS = 2**16
# Most missing parts named in an error; a damaged record can claim thousands.
MAX_NAMED = 10
# 600 s of stereo at 192 kHz and 32 bits, the longest clip that is decoded. The limit
# bounds the memory that a forged archive can make a process allocate, however well it
# compresses.
MAX_MEMBER_BYTES = 2**30
INFLATE_BYTES = 2**20


class ArchiveError(OSError):
  """A member that cannot be read; the message is the reason, in one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
  """A file in an archive.

  Attributes:
    name: its path in the archive.
    num_bytes: its size, uncompressed.
    crc: its CRC-32.
    archive: the archive's .zip file.
    num_parts: the number of files that make up the archive.
    part: the part that the member begins in, from 0.
    offset: the byte of that part at which the member begins.
    num_packed_bytes: its size in the archive.
    method: zip's number of the compression method.
    is_encrypted: whether reading it takes a password.
  """

  name: str
  num_bytes: int
  crc: int
  archive: epath.Path = dataclasses.field(repr=False)
  num_parts: int = dataclasses.field(repr=False)
  part: int = dataclasses.field(repr=False)
  offset: int = dataclasses.field(repr=False)
  num_packed_bytes: int = dataclasses.field(repr=False)
  method: int = dataclasses.field(repr=False)
  is_encrypted: bool = dataclasses.field(repr=False)

  def read_bytes(self) -> bytes:
    """Reads the member, and nothing else, from the parts that contain it.

    Raises:
      ArchiveError: the member is damaged, encrypted, compressed by a method other than
        deflate, or larger than it declares or than `MAX_MEMBER_BYTES`.
      FileNotFoundError: a part is gone.
    """
    self._check_readable()
    parts = _part_paths(self.archive, self.num_parts, self.part)
    with _reading(parts, self.offset) as read:
      header = read(LOCAL_HEADER.size)
      if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ArchiveError("does not begin where the archive's directory says")
      _, name_length, extra_length = LOCAL_HEADER.unpack(header)
      read(name_length + extra_length)
      if self.method == zipfile.ZIP_STORED:
        data = read(self.num_bytes)
      else:
        data = _inflate(read, self.num_packed_bytes, self.num_bytes)
    if len(data) < self.num_bytes:
      raise ArchiveError("is cut short in the archive")
    if zlib.crc32(data) != self.crc:
      raise ArchiveError("is damaged in the archive: its CRC-32 is wrong")
    return data

  def _check_readable(self) -> None:
    if self.is_encrypted:
      raise ArchiveError("is encrypted in the archive")
    if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ArchiveError(f"is compressed by method {self.method}, not by deflate")
    if self.num_bytes > MAX_MEMBER_BYTES:
      raise ArchiveError(f"declares more than {MAX_MEMBER_BYTES} bytes")
    is_stored = self.method == zipfile.ZIP_STORED
    if is_stored and self.num_packed_bytes != self.num_bytes:
      raise ArchiveError("is stored, yet its two sizes in the archive differ")


def open_archive(path: epath.Path) -> dict[str, Member]:
  """Reads an archive's directory.

  Args:
    path: the .zip file, with the archive's other parts, if any, beside it.

  Returns:
    Its files by name, in the directory's order. Names that lead out of a folder or come
    twice, links and devices are left out, each with a warning.

  Raises:
    UserError: the file or a part is missing, is not a zip archive, or is so damaged
      that the directory cannot be read or a file begins beyond a part's end.
  """
  end = _read_end(path)
  infos = _read_directory(path, end)
  counts = collections.Counter(info.orig_filename for info in infos)
  refused, members = {}, {}
  for info in infos:
    name = info.orig_filename
    if name.endswith("/"):
      continue
    if reason := _refusal(info, counts[name]):
      refused[name] = reason
    else:
      members[name] = _member(path, end.num_parts, info)
  for name, reason in refused.items():
    logging.warning("%s: %r is left out: it %s.", path, name, reason)
  return members


class _End(NamedTuple):
  """An archive's end: the number of parts, and the directory's place and size."""

  num_parts: int
  directory_part: int
  directory_offset: int
  directory_num_bytes: int
  num_entries: int


def _read_end(path: epath.Path) -> _End:
  try:
    with path.open("rb") as file:
      file.seek(0, io.SEEK_END)
      file.seek(max(0, file.tell() - MAX_COMMENT_BYTES - END.size - ZIP64_LOCATOR.size))
      tail = file.read()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
  start = tail.rfind(b"PK\5\6")
  if start < 0 or len(tail) < start + END.size:
    raise UserError(
      f"{path} is not a zip archive, or lacks its end: download or copy it again"
    )
  _, part, directory_part, _, num_entries, num_bytes, offset, _ = END.unpack_from(
    tail, start
  )
  locator = tail[max(0, start - ZIP64_LOCATOR.size) : start]
  if not locator.startswith(b"PK\6\7"):
    _check_parts(path, part + 1)
    return _End(part + 1, directory_part, offset, num_bytes, num_entries)
  _, end_part, end_offset, num_parts = ZIP64_LOCATOR.unpack(locator)
  _check_parts(path, num_parts)
  end = _read_at(path, num_parts, end_part, end_offset, ZIP64_END.size)
  if not end.startswith(b"PK\6\6"):
    raise _damaged(path)
  _, directory_part, _, num_entries, num_bytes, offset = ZIP64_END.unpack(end)
  return _End(num_parts, directory_part, offset, num_bytes, num_entries)


def _check_parts(path: epath.Path, num_parts: int) -> None:
  if num_parts > MAX_PARTS:
    raise _damaged(path)
  missing = (part.name for part in _part_paths(path, num_parts) if not part.exists())
  if names := list(itertools.islice(missing, MAX_NAMED)):
    raise UserError(
      f"{path} is the last of {num_parts} parts, and {', '.join(names)} "
      f"{'is' if len(names) == 1 else 'are'} missing beside it: download or copy all "
      "parts to its folder"
    )


def _read_at(
  path: epath.Path, num_parts: int, part: int, offset: int, num_bytes: int
) -> bytes:
  """Reads bytes that an archive's end points to; `UserError` if they are missing."""
  parts = list(_part_paths(path, num_parts))[part:]
  if offset + num_bytes > sum(part.stat().length for part in parts):
    raise _damaged(path)
  with _reading(parts, offset) as read:
    return read(num_bytes)


def _read_directory(path: epath.Path, end: _End) -> list[zipfile.ZipInfo]:
  directory = _read_at(
    path,
    end.num_parts,
    end.directory_part,
    end.directory_offset,
    end.directory_num_bytes,
  )
  # An archive of the directory alone: zipfile reads the members' sizes and places from
  # it, and does not look for the members.
  whole = directory + END.pack(b"PK\5\6", 0, 0, 0, 0, len(directory), 0, 0)
  try:
    infos = zipfile.ZipFile(io.BytesIO(whole)).infolist()
  except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
    raise _damaged(path) from error
  # Without zip64 the number is written modulo 2**16.
  if (len(infos) - end.num_entries) % 2**16:
    raise _damaged(path)
  parts = list(_part_paths(path, end.num_parts))
  sizes = [part.stat().length for part in parts]
  for info in infos:
    if info.volume >= end.num_parts:
      raise _damaged(path)
    if info.header_offset >= sizes[info.volume]:
      raise UserError(
        f"{parts[info.volume]} is cut short: it has {sizes[info.volume]} bytes, and "
        f"{info.filename!r} begins at {info.header_offset}: download or copy it again"
      )
  return infos


def _damaged(path: epath.Path) -> UserError:
  return UserError(f"{path} has a damaged directory: download or copy it again")


def _refusal(info: zipfile.ZipInfo, count: int) -> str | None:
  """Returns why an entry must be left out; None if it may be used."""
  name = info.orig_filename
  if re.match("/|[A-Za-z]:|$", name) or ".." in name.split("/"):
    return "has a name that leads out of its folder"
  if "\\" in name or "\0" in name:
    return "has a backslash or a null in its name"
  if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
    return "is not a regular file"
  if count > 1:
    return f"comes {count} times"
  return None


def _member(path: epath.Path, num_parts: int, info: zipfile.ZipInfo) -> Member:
  return Member(
    name=info.orig_filename,
    num_bytes=info.file_size,
    crc=info.CRC,
    archive=path,
    num_parts=num_parts,
    part=info.volume,
    offset=info.header_offset,
    num_packed_bytes=info.compress_size,
    method=info.compress_type,
    is_encrypted=bool(info.flag_bits & 1),
  )


def _part_paths(
  path: epath.Path, num_parts: int, first: int = 0
) -> Iterator[epath.Path]:
  """Yields an archive's files, from number `first` on."""
  for number in range(first + 1, num_parts):
    yield path.with_suffix(f".z{number:02d}")
  yield path


@contextlib.contextmanager
def _reading(
  parts: Iterable[epath.Path], offset: int
) -> Iterator[Callable[[int], bytes]]:
  """Yields a function that reads from a place, and continues in the next part.

  Args:
    parts: the parts to read, in order; each is opened when reading reaches it.
    offset: the byte of the first part at which to begin.
  """
  with contextlib.ExitStack() as stack:
    files = (stack.enter_context(part.open("rb")) for part in parts)
    file = next(files)
    file.seek(offset)

    def read(num_bytes: int) -> bytes:
      nonlocal file
      data = file.read(num_bytes)
      while len(data) < num_bytes and (following := next(files, None)):
        file = following
        data += file.read(num_bytes - len(data))
      return data

    yield read


def _inflate(
  read: Callable[[int], bytes], num_packed_bytes: int, num_bytes: int
) -> bytes:
  """Inflates the bytes that `read` returns, to at most `num_bytes`."""
  inflater = zlib.decompressobj(-zlib.MAX_WBITS)
  blocks, room = [], num_bytes + 1
  while num_packed_bytes and room:
    packed = read(min(num_packed_bytes, INFLATE_BYTES))
    if not packed:
      break
    try:
      blocks.append(inflater.decompress(packed, room))
    except zlib.error as error:
      raise ArchiveError("is damaged in the archive: it does not inflate") from error
    num_packed_bytes -= len(packed)
    room -= len(blocks[-1])
  if not room:
    raise ArchiveError(f"inflates to more than the {num_bytes} bytes it declares")
  return b"".join(blocks)
