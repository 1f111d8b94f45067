import json

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
