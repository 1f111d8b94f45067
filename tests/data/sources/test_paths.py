import pytest
from etils import epath

from audiotag_jax.data.sources import paths
from audiotag_jax.errors import UserError


def test_a_remote_folder_is_walked_as_a_local_one(bucket):
  for name in (
    "a.wav",
    "b/c d.m4a",
    "b/._c.wav",
    ".git/x.wav",
    "b/notes.md",
    "b/@eaDir/c d.m4a/y.wav",
  ):
    path = bucket / "set" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"audio")
  walked = paths.walk_audio(epath.Path("gs://bucket/set"))
  assert sorted(walked) == [("a.wav", None), ("b/c d.m4a", None)]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
  path = tmp_path / "file"
  path.write_text("no folder")
  with pytest.raises(UserError) as info:
    list(paths.walk_audio(epath.Path(path)))
  assert str(info.value) == (
    f"{path} cannot be listed (Not a directory): give a folder of recordings"
  )
