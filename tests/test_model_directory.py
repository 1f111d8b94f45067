import re

import pytest
import tiny_models

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
  directory = tmp_path / "model"
  tiny_models.write(directory)
  model_directory.load_model(directory)
  data = [path for path in (directory / "checkpoints").rglob("d/*") if path.is_file()]
  largest = max(data, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 4
  largest.write_bytes(content)
  message = f"{directory}/checkpoints/0 is damaged: params/"
  with pytest.raises(UserError, match=re.escape(message)) as info:
    model_directory.load_model(directory)
  assert str(info.value).endswith(model_directory.REMEDY)
