import json
from pathlib import Path

import pytest

from audiotag_jax import files
from audiotag_jax.errors import UserError


def test_text_and_json_are_written_whole(tmp_path):
  path = tmp_path / "new" / "a.json"
  files.write_json(path, {"name": "烏", "share": 0.5})
  assert path.read_bytes() == b'{\n  "name": "\\u70cf",\n  "share": 0.5\n}\n'
  files.write_json(path, {"name": "烏"}, ensure_ascii=False)
  assert json.loads(path.read_text(encoding="utf-8")) == {"name": "烏"}
  files.write_text(path, "é\n")
  assert path.read_bytes() == "é\n".encode()
  assert list(path.parent.iterdir()) == [path]


def test_a_value_that_json_lacks_leaves_the_file_as_it_was(tmp_path):
  path = tmp_path / "a.json"
  files.write_json(path, 1)
  with pytest.raises(TypeError):
    files.write_json(path, {1j})
  assert path.read_text() == "1\n"


def test_an_output_is_overwritten_only_if_asked(tmp_path):
  files.check_output(tmp_path / "none", overwrite=False)
  files.check_output(tmp_path, overwrite=True)
  with pytest.raises(UserError, match="exists: give another --output, or --overwrite"):
    files.check_output(tmp_path, overwrite=False)


def test_a_folder_to_write_to_is_checked_without_being_created(tmp_path, monkeypatch):
  files.check_folder(tmp_path)
  files.check_folder(tmp_path / "a" / "b")
  monkeypatch.chdir(tmp_path)
  files.check_folder(Path("a/b"))
  assert not (tmp_path / "a").exists()
  (tmp_path / "file").write_text("")
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  for name, nearest in (("file", "file"), ("file/a", "file"), ("link", "link")):
    message = f"--output={name}: {tmp_path / nearest} is not a folder: give another"
    with pytest.raises(UserError, match=message):
      files.check_folder(Path(name))


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
  # Faked, because root may write to any folder.
  monkeypatch.setattr(files.os, "access", lambda *_: False)
  with pytest.raises(UserError, match=f"{tmp_path} may not be written to: "):
    files.check_folder(tmp_path / "out")
