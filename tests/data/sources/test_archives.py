"""Zip archives, single ones made here and two in parts made by Info-ZIP.

`split_zip/` holds `noise("short", 1_000)`, `noise("long", 130_500)` and
`noise("last", 300)` as `clips/NAME.wav`, and the contents of `DEFLATED`, packed by

    zip -0 -s 64k stored.zip clips/short.wav clips/long.wav clips/last.wav
    zip -fz -s 64k -r deflated.zip text
"""

import hashlib
import os
import pickle
import shutil
import stat
import struct
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from absl import logging
from etils import epath

from audiotag_jax.data.sources import archives
from audiotag_jax.errors import UserError

SPLIT_ZIP = Path(__file__).parent / "split_zip"


def noise(seed: str, num_bytes: int) -> bytes:
  return hashlib.shake_256(seed.encode()).digest(num_bytes)


STORED = {
  "clips/short.wav": noise("short", 1_000),
  "clips/long.wav": noise("long", 130_500),
  "clips/last.wav": noise("last", 300),
}
DEFLATED = {
  "text/hum.wav": bytes(byte & 63 for byte in noise("hum", 88_000)),
  "text/labels.csv": b"fname,labels\n" * 1000,
}


@pytest.fixture
def parts(tmp_path) -> epath.Path:
  """A folder of the archives in parts, for a test to damage."""
  shutil.copytree(SPLIT_ZIP, tmp_path / "parts")
  return epath.Path(tmp_path / "parts")


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
  lines = []
  monkeypatch.setattr(logging, "warning", lambda line, *args: lines.append(line % args))
  return lines


def write_zip(folder, contents, method=zipfile.ZIP_DEFLATED) -> epath.Path:
  """Writes {name or ZipInfo: bytes} to a zip archive in one file."""
  path = epath.Path(folder) / "a.zip"
  with zipfile.ZipFile(path, "w", method) as file:
    for name, data in contents.items():
      file.writestr(name, data)
  return path


def patch(path, signature, offset, layout, *values):
  """Overwrites fields of the structure that begins with the last `signature`."""
  data = bytearray(path.read_bytes())
  struct.pack_into("<" + layout, data, data.rindex(signature) + offset, *values)
  path.write_bytes(data)


def only_member(path) -> archives.Member:
  (member,) = archives.open_archive(path).values()
  return member


@pytest.mark.parametrize("name", ["stored", "deflated"])
def test_archives_in_parts_give_the_bytes_that_were_packed(name):
  contents = {"stored": STORED, "deflated": DEFLATED}[name]
  members = archives.open_archive(epath.Path(SPLIT_ZIP / f"{name}.zip"))
  assert list(members) == list(contents)
  for key, data in contents.items():
    assert members[key].name == key
    assert members[key].num_bytes == len(data)
    assert members[key].read_bytes() == data


def test_the_fixtures_span_parts_and_one_is_zip64():
  members = archives.open_archive(epath.Path(SPLIT_ZIP / "stored.zip"))
  assert [(m.part, m.num_parts) for m in members.values()] == [(0, 3), (0, 3), (2, 3)]
  assert members["clips/long.wav"].num_packed_bytes > 2**16 + 1_000
  hum = archives.open_archive(epath.Path(SPLIT_ZIP / "deflated.zip"))["text/hum.wav"]
  assert hum.part == 0
  assert 2**16 < hum.num_packed_bytes < hum.num_bytes
  assert b"PK\6\6" in (SPLIT_ZIP / "deflated.zip").read_bytes()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_in_one_file_give_the_bytes_that_were_packed(tmp_path, method):
  contents = STORED | DEFLATED | {"empty.txt": b"", "Geräusch/ö.wav": b"abc"}
  path = write_zip(tmp_path, contents | {"folder/": b""}, method)
  members = archives.open_archive(path)
  assert {name: m.read_bytes() for name, m in members.items()} == contents


def test_comments_do_not_matter(tmp_path):
  path = write_zip(tmp_path, {"a.txt": b"abc"})
  with zipfile.ZipFile(path, "a") as file:
    file.comment = noise("comment", 65_535).replace(b"PK", b"pk")
  assert only_member(path).read_bytes() == b"abc"


def test_zip64_fields_are_read(tmp_path):
  path = epath.Path(tmp_path / "a.zip")
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("a.wav", STORED["clips/short.wav"])
  # The extra field of a member of over 4 GiB: its sizes and place.
  extra = struct.pack("<HH3Q", 1, 24, 1_000, 1_000, 0)
  data = path.read_bytes()
  start, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
  entry = bytearray(data[start:end])
  struct.pack_into("<LL", entry, 20, 2**32 - 1, 2**32 - 1)
  struct.pack_into("<H", entry, 30, len(extra))
  struct.pack_into("<L", entry, 42, 2**32 - 1)
  directory = bytes(entry) + extra
  ends = (44, 45, 45, 0, 0, 1, 1, len(directory), start)
  path.write_bytes(
    data[:start]
    + directory
    + struct.pack("<4sQHHLL4Q", b"PK\6\6", *ends)
    + struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    + struct.pack("<4s4H2LH", b"PK\5\6", *[2**16 - 1] * 4, *[2**32 - 1] * 2, 0)
  )
  assert only_member(path).read_bytes() == STORED["clips/short.wav"]
  with zipfile.ZipFile(path) as file:
    assert file.read("a.wav") == STORED["clips/short.wav"]


def test_members_are_small_and_read_from_threads_and_after_pickling(parts):
  members = list(archives.open_archive(parts / "stored.zip").values())
  assert len(pickle.dumps(members[0])) < 400
  with ThreadPoolExecutor(4) as pool:
    read = list(pool.map(archives.Member.read_bytes, members * 20))
  assert read == list(STORED.values()) * 20
  assert pickle.loads(pickle.dumps(members)) == members
  copy = pickle.loads(pickle.dumps(members[1]))
  assert copy.read_bytes() == STORED["clips/long.wav"]


def test_only_the_parts_of_a_member_are_read(parts):
  members = archives.open_archive(parts / "stored.zip")
  (parts / "stored.z01").unlink()
  assert members["clips/last.wav"].read_bytes() == STORED["clips/last.wav"]
  with pytest.raises(FileNotFoundError):
    members["clips/long.wav"].read_bytes()


def test_missing_parts_are_named(parts):
  (parts / "stored.z02").unlink()
  with pytest.raises(
    UserError, match=r"last of 3 parts, and stored.z02 is missing beside it"
  ):
    archives.open_archive(parts / "stored.zip")
  (parts / "stored.z01").unlink()
  with pytest.raises(UserError, match=r"stored.z01, stored.z02 are missing"):
    archives.open_archive(parts / "stored.zip")
  (parts / "deflated.z01").unlink()
  with pytest.raises(UserError, match=r"last of 2 parts, and deflated.z01 is missing"):
    archives.open_archive(parts / "deflated.zip")


def test_a_part_that_ends_before_a_member_begins_is_named(parts):
  os.truncate(parts / "stored.z01", 1_000)
  with pytest.raises(
    UserError,
    match=r"stored.z01 is cut short: it has 1000 bytes, and 'clips/long.wav' begins",
  ):
    archives.open_archive(parts / "stored.zip")


def test_a_part_cut_in_the_middle_of_a_member_spoils_that_alone(parts):
  os.truncate(parts / "stored.z01", 40_000)
  members = archives.open_archive(parts / "stored.zip")
  assert members["clips/short.wav"].read_bytes() == STORED["clips/short.wav"]
  assert members["clips/last.wav"].read_bytes() == STORED["clips/last.wav"]
  with pytest.raises(archives.ArchiveError, match="is cut short in the archive"):
    members["clips/long.wav"].read_bytes()


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "is not a zip archive, or lacks its end"),
    (b"<html>404</html>", "is not a zip archive, or lacks its end"),
    (b"PK\5\6", "is not a zip archive, or lacks its end"),
    (None, "cannot be read: No such file"),
  ],
)
def test_anything_but_an_archive_is_refused(tmp_path, data, message):
  path = epath.Path(tmp_path / "a.zip")
  if data is not None:
    path.write_bytes(data)
  with pytest.raises(UserError, match=message) as info:
    archives.open_archive(path)
  assert "\n" not in str(info.value)


def test_archives_cut_anywhere_are_refused(tmp_path):
  path = write_zip(tmp_path, {"a.txt": b"abc" * 100, "b.txt": b"d"})
  whole = path.read_bytes()
  for size in range(len(whole)):
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match="lacks its end"):
      archives.open_archive(path)


@pytest.mark.parametrize("name", ["stored", "deflated"])
def test_no_damaged_byte_gives_wrong_bytes_or_another_error(parts, name):
  contents = {"stored": STORED, "deflated": DEFLATED}[name]
  path = parts / f"{name}.zip"
  whole = path.read_bytes()
  num_refused = 0
  for position in range(len(whole) - 600, len(whole)):
    data = bytearray(whole)
    data[position] ^= 0xFF
    path.write_bytes(data)
    try:
      members = archives.open_archive(path)
      for key in members.keys() & contents.keys():
        assert members[key].read_bytes() == contents[key]
    except (UserError, archives.ArchiveError):
      num_refused += 1
  assert num_refused > 150


def test_unsafe_names_links_and_duplicates_are_left_out(tmp_path, warnings):
  link = zipfile.ZipInfo("link.wav")
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  unsafe = ["/etc/passwd", "../a.wav", "clips/../../a.wav", "C:a.wav", "a\\b.wav"]
  contents = dict.fromkeys([*unsafe, link], b"x") | {"twice.wav": b"1", "a..b": b"2"}
  path = write_zip(tmp_path, contents)
  with (
    zipfile.ZipFile(path, "a") as file,
    pytest.warns(UserWarning, match="Duplicate name"),
  ):
    file.writestr("twice.wav", b"3")
  assert list(archives.open_archive(path)) == ["a..b"]
  assert len(warnings) == 7
  for name, line in zip([*unsafe, "link.wav", "twice.wav"], warnings, strict=True):
    assert f"{path}: {name!r} is left out: it " in line
  assert "leads out of its folder" in warnings[0]
  assert "is not a regular file" in warnings[5]
  assert "comes 2 times" in warnings[6]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_members_are_refused(tmp_path, method):
  path = write_zip(tmp_path, {"a.wav": noise("a", 3_000)}, method)
  data = bytearray(path.read_bytes())
  data[2_000] ^= 1
  path.write_bytes(data)
  with pytest.raises(archives.ArchiveError, match="is damaged in the archive"):
    only_member(path).read_bytes()


# Offsets in an entry of the directory, APPNOTE 4.3.12: flags 8, method 10, packed
# size 20, size 24, disk 34, place 42.
@pytest.mark.parametrize(
  ("method", "offset", "layout", "values", "message"),
  [
    (zipfile.ZIP_STORED, 8, "H", [1], "is encrypted in the archive"),
    (zipfile.ZIP_STORED, 10, "H", [12], "is compressed by method 12, not by deflate"),
    (zipfile.ZIP_STORED, 10, "H", [8], "does not inflate|is cut short"),
    (zipfile.ZIP_STORED, 20, "L", [2_999], "its two sizes in the archive differ"),
    (zipfile.ZIP_STORED, 20, "2L", [3_001, 3_001], "its CRC-32 is wrong"),
    (zipfile.ZIP_STORED, 20, "2L", [99_999, 99_999], "is cut short in the archive"),
    (zipfile.ZIP_DEFLATED, 24, "L", [2_999], "more than the 2999 bytes it declares"),
    (zipfile.ZIP_DEFLATED, 24, "L", [0], "more than the 0 bytes it declares"),
    (zipfile.ZIP_DEFLATED, 24, "L", [3_001], "is cut short in the archive"),
    (zipfile.ZIP_DEFLATED, 20, "L", [100], "is cut short in the archive"),
    (
      zipfile.ZIP_DEFLATED,
      42,
      "L",
      [7],
      "does not begin where",
    ),
  ],
)
def test_wrong_entries_are_refused(tmp_path, method, offset, layout, values, message):
  path = write_zip(tmp_path, {"a.wav": noise("a", 3_000)}, method)
  patch(path, b"PK\1\2", offset, layout, *values)
  with pytest.raises(archives.ArchiveError, match=message) as info:
    only_member(path).read_bytes()
  assert "\n" not in str(info.value)


def test_a_bomb_is_inflated_no_further_than_it_declares(tmp_path):
  path = write_zip(tmp_path, {"a.wav": bytes(50_000_000)})
  patch(path, b"PK\1\2", 24, "L", 1_000)
  member = only_member(path)
  tracemalloc.start()
  with pytest.raises(archives.ArchiveError, match="more than the 1000 bytes"):
    member.read_bytes()
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 3_000_000


def test_a_member_that_declares_too_much_is_not_read(tmp_path, monkeypatch):
  path = write_zip(tmp_path, {"a.wav": bytes(1_001)})
  monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1_000)
  with pytest.raises(archives.ArchiveError, match="declares more than 1000 bytes"):
    only_member(path).read_bytes()


def test_directories_that_cannot_be_are_refused(tmp_path):
  for signature, offset, layout, value in [
    (b"PK\1\2", 34, "H", 5),
    (b"PK\5\6", 6, "H", 1),
    (b"PK\5\6", 10, "H", 2),
    (b"PK\5\6", 12, "L", 2**31),
    (b"PK\5\6", 16, "L", 2**31),
    (b"PK\5\6", 16, "L", 1),
  ]:
    path = write_zip(tmp_path, {"a.wav": b"abc"})
    patch(path, signature, offset, layout, value)
    with pytest.raises(UserError, match="has a damaged directory"):
      archives.open_archive(path)
