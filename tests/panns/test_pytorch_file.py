"""PyTorch's files are read without running code, in no more memory than their bytes."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from audiotag_jax.errors import UserError
from audiotag_jax.panns import pytorch_file

FORMATS = pytest.mark.parametrize("is_new", [True, False])

WEIGHTS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.int64)}


def save(path, content, is_new):
  torch.save(content, path, _use_new_zipfile_serialization=is_new)
  return path


def assert_is_read(path):
  read = pytorch_file.read_state_dict(path)
  assert list(read) == ["a", "b"]
  for key, tensor in WEIGHTS.items():
    np.testing.assert_array_equal(read[key], tensor.numpy())
    assert read[key].dtype == tensor.numpy().dtype


@FORMATS
@pytest.mark.parametrize("container", [None, *pytorch_file.CONTAINERS])
def test_reads_both_formats(tmp_path, is_new, container):
  content = {container: WEIGHTS, "epoch": 3} if container else WEIGHTS
  assert_is_read(save(tmp_path / "a.pth", content, is_new))


def rewritten(path, old, new):
  """Replaces a text in the pickle of a file of the newer format."""
  with zipfile.ZipFile(path) as file:
    parts = [(info, file.read(info)) for info in file.infolist()]
  with zipfile.ZipFile(path, "w") as file:
    for info, data in parts:
      file.writestr(info.filename, data.replace(old, new))
  return path


SAMPLER = {
  "pointer": 7,
  "indexes": np.arange(20),
  "indexes_per_class": [np.array([1, 2]), np.zeros((2, 3), np.float32, order="F")],
  "best_mAP": np.float64(0.43),
  "names": np.array(["a", "b"]),
  "objects": np.array([None, {"a": 1}], dtype=object),
}


@FORMATS
@pytest.mark.parametrize("numpy_version", [1, 2])
def test_numpy_arrays_beside_the_weights_are_left_out(tmp_path, is_new, numpy_version):
  optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
  optimizer.param_groups[0]["params"][0].sum().backward()
  optimizer.step()
  content = {"iteration": 700_000, "model": WEIGHTS, "sampler": SAMPLER}
  content["optimizer"] = optimizer.state_dict()
  path = save(tmp_path / "a.pth", content, is_new)
  if numpy_version == 1:
    names = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if is_new:
      rewritten(path, *names)
    else:
      path.write_bytes(path.read_bytes().replace(*names))
  assert b"multiarray" in path.read_bytes()
  assert_is_read(path)


def test_reading_leaves_nothing_allowed(tmp_path):
  save(tmp_path / "a.pth", {"model": WEIGHTS, "sampler": SAMPLER}, True)
  before = torch.serialization.get_safe_globals()
  pytorch_file.read_state_dict(tmp_path / "a.pth")
  assert set(torch.serialization.get_safe_globals()) == set(before)


class Call:
  """An object whose pickle calls a function."""

  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


class Forged(Call):
  """An object whose pickle calls a function and sets the state of what it returns."""

  def __reduce__(self):
    return (*self.call, (1, (1,), np.dtype(object), False, [Call(os.mkdir, "harm")]))


reconstruct = np.zeros(1).__reduce__()[0]


@FORMATS
@pytest.mark.parametrize(
  ("value", "name"),
  [
    (Call(os.mkdir, "harm"), "posix.mkdir"),
    (np.array([Call(os.mkdir, "harm")], dtype=object), "posix.mkdir"),
    (Forged(reconstruct, np.ndarray, (0,), b"b"), "posix.mkdir"),
    (Call(eval, "1"), "eval"),
    (np.random.RandomState(0), r"numpy.random._pickle.__\w+"),
    (Call(np.load, "x.npy"), "numpy.load"),
    (Call(np.frombuffer, b"1234"), "numpy.frombuffer"),
    (pickle.PickleBuffer, "pickle.PickleBuffer"),
    (io.FileIO, "_io.FileIO"),
    (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
  ],
)
def test_whatever_else_would_be_called_is_refused(
  tmp_path, monkeypatch, is_new, value, name
):
  monkeypatch.chdir(tmp_path)
  path = save(tmp_path / "a.pth", {"model": WEIGHTS, "sampler": value}, is_new)
  with pytest.raises(UserError, match=rf"more than weights \({name}\), and loading"):
    pytorch_file.read_state_dict(path)
  assert os.listdir(tmp_path) == ["a.pth"]


@FORMATS
def test_no_array_of_numpy_takes_memory(tmp_path, is_new):
  shape = (10**15,)
  sampler = [Call(reconstruct, np.ndarray, shape, b"d"), Call(np.ndarray, shape)]
  path = save(tmp_path / "a.pth", {"model": WEIGHTS, "sampler": sampler}, is_new)
  assert_is_read(path)


@FORMATS
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_values_keep_their_type(tmp_path, is_new, dtype):
  values = torch.tensor([1.0, -0.1, 3e-5, 300.7]).to(getattr(torch, dtype))
  read = pytorch_file.read_state_dict(save(tmp_path / "a.pth", {"a": values}, is_new))
  assert read["a"].dtype.name == dtype
  np.testing.assert_array_equal(read["a"].astype(np.float64), values.double().numpy())


@FORMATS
@pytest.mark.parametrize(
  ("value", "reason"),
  [
    (torch.zeros(1).expand(900_000_000), "its tensors 3600000000: download"),
    (torch.zeros(1).expand(10**12), "its tensors 4000000000000: download"),
    (torch.zeros(2, dtype=torch.complex64), "x is not a plain tensor of real numbers"),
    (torch.zeros(2).to_sparse(), "x is not a plain tensor of real numbers"),
    (torch.zeros(2, device="meta"), "x has no values: save the model with weights"),
    ([1, 2], "is not a state_dict: it holds x"),
  ],
)
def test_refuses_what_is_larger_than_its_file(tmp_path, is_new, value, reason):
  path = tmp_path / "a.pth"
  torch.save({"x": value}, path, _use_new_zipfile_serialization=is_new)
  with pytest.raises(UserError, match=reason) as error:
    pytorch_file.read_state_dict(path)
  assert "\n" not in str(error.value)


def test_refuses_values_of_eight_bits(tmp_path):
  path = save(tmp_path / "a.pth", {"x": torch.zeros(2).to(torch.float8_e5m2)}, True)
  with pytest.raises(UserError, match="x is not a plain tensor of real numbers"):
    pytorch_file.read_state_dict(path)


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
