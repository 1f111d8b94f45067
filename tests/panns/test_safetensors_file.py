"""Files of safetensors: read as they are, refused in one line, written whole."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from audiotag_jax.errors import UserError
from audiotag_jax.panns import state_dict_file

ARRAYS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
  "b": np.array(3, np.int64),
  "c": np.array([0.1, 300], ml_dtypes.bfloat16),
  "d": np.array([0.1, 300], np.float16),
  "e": np.array([0.1, 300], np.float64),
}


@pytest.mark.parametrize("name", ["x.safetensors", "x.SafeTensors"])
def test_there_and_back(tmp_path, name):
  state_dict_file.write(tmp_path / name, ARRAYS)
  assert os.listdir(tmp_path) == [name]
  read = state_dict_file.read(tmp_path / name)
  assert read.keys() == ARRAYS.keys()
  for key, array in ARRAYS.items():
    assert (read[key].dtype, read[key].shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read[key], array)
  with safetensors.safe_open(tmp_path / name, "np") as file:
    assert file.metadata() == {"format": "pt"}


def test_pytorch_reads_what_is_written(tmp_path):
  import safetensors.torch

  state_dict_file.write(tmp_path / "x.safetensors", ARRAYS)
  read = safetensors.torch.load_file(tmp_path / "x.safetensors")
  for key, array in ARRAYS.items():
    np.testing.assert_array_equal(read[key].double().numpy(), array.astype(np.float64))


def described(header, data=b"0000"):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def entry(**changes):
  return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


WHOLE = described(entry() | {"__metadata__": {"license": "MIT", "format": "tf"}})


def test_metadata_are_passed_by(tmp_path):
  (tmp_path / "x.safetensors").write_bytes(WHOLE)
  assert list(state_dict_file.read(tmp_path / "x.safetensors")) == ["a"]


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b"", "header too small"),
    (b"<!DOCTYPE html><html>", "header too large"),
    (b"PK\3\4" + b"\0" * 40, "damaged"),
    (WHOLE[:-1], "not fully covered"),
    (WHOLE[:30], "invalid header length"),
    (WHOLE + b"x", "not fully covered"),
    (struct.pack("<Q", 2**62) + b"{}", "header too large"),
    (struct.pack("<Q", 99_000_000) + b"{}", "invalid header length"),
    (described(entry() | {"__metadata__": {"a": 1}}), "invalid JSON in header"),
    (described(entry(shape=[10**12])), "invalid shape, data type, or offset"),
    (described(entry(shape=[2**62, 2**62])), "overflow"),
    (described(entry(shape=[-1])), "invalid JSON in header"),
    (described(entry(dtype="F99")), "invalid JSON in header"),
    (described(entry(dtype="F8_E4M3", shape=[4])), "float8"),
    (described(entry() | {"b": entry()["a"]}), "invalid offset for tensor"),
    (described(b"[" * 50_000), "invalid JSON in header"),
    (described({}, b""), "has no arrays: save the model's state_dict"),
    (described(entry(dtype="C64", data_offsets=[0, 8]), b"0" * 8), "a is not a plain"),
  ],
)
def test_damage_is_refused_in_one_line(tmp_path, content, reason):
  path = tmp_path / "x.safetensors"
  path.write_bytes(content)
  with pytest.raises(UserError, match=f"x.safetensors.*{reason}") as error:
    state_dict_file.read(path)
  assert "\n" not in str(error.value)
