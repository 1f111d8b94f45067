import pytest
from etils import epath

from audiotag_jax.data.sources import listing
from audiotag_jax.errors import UserError


def test_a_remote_folder_is_walked_as_a_local_one(bucket):
  for name in ("a.wav", "b/c d.m4a", "b/._c.wav", ".git/x.wav", "b/notes.md"):
    path = bucket / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"audio")
  walked = listing.walk_audio(epath.Path("gs://bucket/set"))
  assert sorted(walked) == [("a.wav", None), ("b/c d.m4a", None)]


def test_rows_come_with_their_lines(tmp_path):
  path = epath.Path(tmp_path) / "rows.csv"
  path.write_text('a,b\n1,"2\n3"\n\n4\n5,6,7\n')
  assert list(listing.read_rows(path, ("a", "b"))) == [
    (3, {"a": "1", "b": "2\n3"}),
    (5, {"a": "4", "b": ""}),
    (6, {"a": "5", "b": "6", None: ["7"]}),
  ]


def test_a_file_without_a_header_may_have_comments_and_spaces(tmp_path):
  path = epath.Path(tmp_path) / "rows.csv"
  path.write_text('# a, b\n1, "2,3"\n# 4, 5\n-#6, 7\n')
  assert list(listing.read_rows(path, ("a", "b"), ("a", "b"))) == [
    (2, {"a": "1", "b": "2,3"}),
    (4, {"a": "-#6", "b": "7"}),
  ]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
  path = tmp_path / "file"
  path.write_text("no folder")
  with pytest.raises(UserError) as info:
    list(listing.walk_audio(epath.Path(path)))
  assert str(info.value) == (
    f"{path} cannot be listed (Not a directory): give a folder of recordings"
  )
