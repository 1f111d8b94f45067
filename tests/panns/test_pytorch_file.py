"""A .pth file asks for no more memory than it has bytes."""

import zipfile

import numpy as np
import pytest
import torch

from audiotag_jax.errors import UserError
from audiotag_jax.panns import pytorch_file

WEIGHTS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_both_formats(tmp_path, is_new, prefix):
  path = tmp_path / "a.pth"
  state_dict = {f"{prefix}{key}": value for key, value in WEIGHTS.items()}
  torch.save({"model": state_dict}, path, _use_new_zipfile_serialization=is_new)
  read = pytorch_file.read_state_dict(path)
  assert list(read) == ["a", "b"]
  np.testing.assert_array_equal(read["a"].numpy(), WEIGHTS["a"].numpy())


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
  ("value", "reason"),
  [
    (torch.zeros(1).expand(900_000_000), "its tensors 3600000000: download"),
    (torch.zeros(1).expand(10**12), "its tensors 4000000000000: download"),
    (torch.zeros(2, dtype=torch.complex64), "x is not a plain tensor of real numbers"),
    (torch.zeros(2).to_sparse(), "x is not a plain tensor of real numbers"),
    ([1, 2], "is not a state_dict: it holds x"),
  ],
)
def test_refuses_what_is_larger_than_its_file(tmp_path, is_new, value, reason):
  path = tmp_path / "a.pth"
  torch.save({"x": value}, path, _use_new_zipfile_serialization=is_new)
  with pytest.raises(UserError, match=reason) as error:
    pytorch_file.read_state_dict(path)
  assert "\n" not in str(error.value)


def test_refuses_keys_that_are_not_names(tmp_path):
  torch.save({("a", "b"): 1, 5: torch.zeros(1)}, tmp_path / "a.pth")
  with pytest.raises(UserError, match="a key of type tuple, a key of type int"):
    pytorch_file.read_state_dict(tmp_path / "a.pth")


def test_refuses_a_compressed_archive(tmp_path):
  torch.save({"a": torch.zeros(250_000)}, tmp_path / "a.pth")
  path = tmp_path / "b.pth"
  with (
    zipfile.ZipFile(tmp_path / "a.pth") as old,
    zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
  ):
    for info in old.infolist():
      new.writestr(info.filename, old.read(info))
  assert path.stat().st_size < 10_000
  with pytest.raises(UserError, match="is a compressed archive of 100.... bytes"):
    pytorch_file.read_state_dict(path)
