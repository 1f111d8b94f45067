import io
from pathlib import Path

import pytest

from audiotag_jax import text_files
from audiotag_jax.errors import UserError


def lines(data):
  return list(text_files.read_lines(io.BytesIO(data), Path("x.txt")))


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_end_as_on_any_system(code):
  text = "é\u2028\x85 x\r\ny\rz\n\n\r\nlast"
  expected = ["é\u2028\x85 x\r\n", "y\r", "z\n", "\n", "\r\n", "last"]
  assert lines(text.encode(code)) == expected
  assert lines("".encode(code)) == []


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"a\nb\xe9\n", "x.txt, line 2: is not UTF-8: save the file as UTF-8 text"),
    (b"a\n\n\0", "x.txt, line 3: holds a NUL byte: save the file as UTF-8 text"),
    (b"\xfe\xff\0a\xd8\0", "x.txt, line 1: is not UTF-16: save the file as UTF-8 text"),
    (b"a" * 2**21, "x.txt, line 1: it has more than 1048576 characters: give a text "
     "file"),
  ],
)  # fmt: skip
def test_what_is_not_text_is_refused(data, message):
  with pytest.raises(UserError) as info:
    lines(data)
  assert str(info.value) == message


def test_a_replacement_character_is_a_character():
  assert lines("a\ufffd\n".encode()) == ["a\ufffd\n"]


def test_spaces_and_what_nobody_sees_do_not_count():
  text = "\ufeff\u00a0\u200b Bell \u202a church\u2060\u3000\n"
  assert text_files.stripped(text) == "Bell  church"
  assert text_files.normal_name(text) == "Bell church"
  assert text_files.normal_name("cafe\u0301") == "café"
  # These are not the same name in another form.
  assert text_files.normal_name("ﬁsh Ⅳ²") == "ﬁsh Ⅳ²"
  # A joiner shapes letters and emoji, and is seen so.
  assert text_files.normal_name("👩\u200d🚒") == "👩\u200d🚒"


def test_a_list_of_names_is_read_as_meant(tmp_path):
  path = tmp_path / "names.txt"
  path.write_bytes("\ufeffBell \r\n\r\n cafe\u0301\n\u00a0\nRain, heavy\n\n".encode())
  assert text_files.read_names(path) == ["Bell", "café", "Rain, heavy"]
  path.write_text("Bell\ncafé\n\ncafe\u0301 \n", encoding="utf-8")
  with pytest.raises(UserError) as info:
    text_files.read_names(path)
  assert str(info.value) == (
    f"{path}: lines 2 and 4 are both 'café': give each class a name of its own"
  )
  with pytest.raises(UserError, match=r"none cannot be read \(No such file"):
    text_files.read_names(tmp_path / "none")
