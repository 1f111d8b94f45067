"""Headers whose length is not the file's, as streams and crashes leave them.

libsndfile believes a header. A program that writes to a pipe, or that is killed, leaves
the length at 0, at the largest number or at an older value.
"""

import os
import struct
from typing import NamedTuple

from audiotag_jax.audio.opening import Slice

# The most chunks before the samples; a hostile file may have millions.
MAX_CHUNKS = 1000
# The start of a FLAC stream: a magic word, and the length of STREAMINFO.
FLAC_START = b"fLaC\0\0\0\x22"
# Bytes at the end of a FLAC file in which its last frame is looked for.
FLAC_TAIL_BYTES = 2**16
# Headers that are tried: a file that was cut off ends with no whole frame.
FLAC_TRIES = 2


class Repairs(NamedTuple):
  """The differences between a file and the file with a right header.

  Attributes:
    patches: places and the bytes that belong there.
    end: the place where the file ends.
    start: the place where samples or frames start; 0 if not known.
    is_too_long: whether the file has more samples than its header can count.
    num_unread: bytes after the last sample by the header that are no chunk.
  """

  patches: tuple[tuple[int, bytes], ...]
  end: int
  start: int = 0
  is_too_long: bool = False
  num_unread: int = 0


class Layout(NamedTuple):
  """A format made of chunks: an identifier, a length, the content.

  Attributes:
    first: the place of the first chunk.
    length_format: struct's format of the length.
    header_bytes: bytes of the identifier and the length.
    counted_bytes: how many of them the length includes.
    alignment: the multiple of bytes at which chunks start.
    samples: the identifier of the chunk that has the samples.
    prefix_bytes: bytes of its content before the samples.
  """

  first: int
  length_format: str
  header_bytes: int
  counted_bytes: int
  alignment: int
  samples: bytes
  prefix_bytes: int


W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
WAV = Layout(12, "<I", 8, 0, 2, b"data", 0)
AIFF = Layout(12, ">I", 8, 0, 2, b"SSND", 8)
CAF = Layout(8, ">Q", 12, 0, 1, b"data", 4)
W64 = Layout(40, "<Q", 24, 24, 8, W64_DATA, 0)
FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"caff", W64_RIFF[:4])
# The place of RF64's length of the samples, in its chunk ds64.
DS64_LENGTH = 28


def find_repairs(file: Slice) -> Repairs:
  """Finds what is wrong with the length in a file's header."""
  size = file.seek(0, os.SEEK_END)
  head = _read(file, 0, 64)
  layout = _layout_of(head)
  if layout:
    return _repair_chunks(file, size, layout, has_ds64=head[:4] in (b"RF64", b"BW64"))
  if head[:4] in (b".snd", b"dns."):
    return Repairs(((8, b"\xff" * 4),), size)  # "to the end of the file"
  start = _find_id3_end(head)
  return Repairs(_repair_flac(file, start, size), size, start)


def _layout_of(head: bytes) -> Layout | None:
  if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
    return WAV
  if head[:4] == b"RIFX" and head[8:12] == b"WAVE":
    return WAV._replace(length_format=">I")
  if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
    return AIFF
  if head[:4] == b"caff":
    return CAF
  return W64 if head[:16] == W64_RIFF else None


def _repair_chunks(
  file: Slice, size: int, layout: Layout, *, has_ds64: bool
) -> Repairs:
  content = _find_samples(file, size, layout)
  if not content:
    return Repairs((), size)
  length_format = layout.length_format
  place = content - struct.calcsize(length_format)
  if has_ds64 and _read(file, place, 4) == b"\xff" * 4:
    place, length_format = DS64_LENGTH, "<Q"
  num_bytes = struct.calcsize(length_format)
  largest = 256**num_bytes - 1
  (length,) = struct.unpack(length_format, _read(file, place, num_bytes))
  is_unknown = length == largest
  length = max(0, length - layout.counted_bytes)
  there = size - content
  is_empty = length <= layout.prefix_bytes < there
  is_unknown |= is_empty and not _is_chunk(file, size, layout, content + length)
  if is_unknown or length > there:
    right = struct.pack(length_format, min(there + layout.counted_bytes, largest))
    return Repairs(((place, right),), size, content, is_too_long=there > largest)
  after = content + length + -(content + length) % layout.alignment
  num_unread = 0 if _is_chunk(file, size, layout, after) else max(0, size - after)
  # libsndfile takes what follows in a W64 file for samples.
  end = content + length if layout is W64 else size
  return Repairs((), end, content, num_unread=num_unread)


def _find_samples(file: Slice, size: int, layout: Layout) -> int:
  """Returns the place of the content of the chunk that has the samples; 0 if none."""
  at = layout.first
  for _ in range(MAX_CHUNKS):
    if at + layout.header_bytes > size:
      return 0
    identifier, length = _read_chunk(file, layout, at)
    if identifier == layout.samples:
      return at + layout.header_bytes
    at += layout.header_bytes + max(0, length)
    at += -at % layout.alignment
  return 0


def _is_chunk(file: Slice, size: int, layout: Layout, at: int) -> bool:
  """Returns whether a chunk starts at a place; otherwise there are samples."""
  if at + layout.header_bytes > size:
    return False
  identifier, length = _read_chunk(file, layout, at)
  is_name = all(32 <= byte < 127 for byte in identifier[:4])
  is_name = is_name and identifier[:4] not in FILES  # where files were joined
  return is_name and 0 <= length <= size - at - layout.header_bytes


def _read_chunk(file: Slice, layout: Layout, at: int) -> tuple[bytes, int]:
  """Reads a chunk's identifier and the length of its content."""
  header = _read(file, at, layout.header_bytes)
  num_bytes = struct.calcsize(layout.length_format)
  (length,) = struct.unpack(layout.length_format, header[-num_bytes:])
  return header[:-num_bytes], length - layout.counted_bytes


def _find_id3_end(head: bytes) -> int:
  """Returns the place after an ID3v2 tag at the file's start; 0 if it has none."""
  if head[:3] != b"ID3" or len(head) < 10:
    return 0
  return 10 + sum(
    (x & 127) << bits for x, bits in zip(head[6:10], (21, 14, 7, 0), strict=True)
  )


def _repair_flac(file: Slice, first: int, size: int) -> tuple[tuple[int, bytes], ...]:
  """Writes the end of a FLAC file's last frame into STREAMINFO, if that ends before."""
  head = _read(file, first, 42)
  if head[:4] != b"fLaC" or len(head) < 42:
    return ()
  fixed_samples = int.from_bytes(head[8:10])
  packed = int.from_bytes(head[18:26])
  length = packed & (2**36 - 1)
  start = max(first + 42, size - FLAC_TAIL_BYTES)
  tail = _read(file, start, size - start)
  at, num_tries = len(tail), FLAC_TRIES
  while num_tries and (at := tail.rfind(b"\xff", 0, at)) >= 0:
    end = _frame_end(tail[at : at + 17], fixed_samples)
    if end and end == length:
      return ()
    if end > length and not _crc(tail[at:], 16, 0x8005):
      if FLAC_START in _read(file, first + 4, size):
        return ()  # It is the last frame of another stream, joined to this one.
      return ((first + 18, (packed - length + end).to_bytes(8)),)
    num_tries -= end > 0
  return ()


def _frame_end(header: bytes, fixed_samples: int) -> int:
  """Returns the sample at which a FLAC frame ends; 0 if the bytes are not its header.

  The format's section 9.1 (RFC 9639).
  """
  if len(header) < 6 or header[1] & 0xFE != 0xF8:
    return 0
  # The number of the frame or of its first sample, coded like a character of UTF-8.
  num_ones = 8 - (header[4] ^ 255).bit_length()
  number = header[4] & 127 >> num_ones
  at = 5 + max(0, num_ones - 1)
  for byte in header[5:at]:
    number = number << 6 | byte & 63
  code = header[2] >> 4
  num_bytes = {6: 1, 7: 2}.get(code, 0)
  num_samples = int.from_bytes(header[at : at + num_bytes]) + 1
  if code == 1:
    num_samples = 192
  elif 2 <= code <= 5:
    num_samples = 576 << code - 2
  elif code >= 8:
    num_samples = 256 << code - 8
  at += num_bytes + {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
  if not code or at >= len(header) or _crc(header[: at + 1], 8, 0x07):
    return 0
  is_variable = header[1] & 1
  return number * (1 if is_variable else fixed_samples) + num_samples


def _crc(data: bytes, num_bits: int, polynomial: int) -> int:
  """Returns the remainder of a polynomial; 0 for data that end with their checksum."""
  crc, top, mask = 0, 1 << num_bits - 1, (1 << num_bits) - 1
  for byte in data:
    crc ^= byte << num_bits - 8
    for _ in range(8):
      crc = (crc << 1 ^ (polynomial if crc & top else 0)) & mask
  return crc


def _read(file: Slice, place: int, num_bytes: int) -> bytes:
  file.seek(place)
  return file.read(num_bytes) or b""
