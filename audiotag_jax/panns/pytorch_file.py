"""Files of PyTorch that hold a state_dict: read without running code, written whole."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from audiotag_jax import files
from audiotag_jax.errors import UserError

if TYPE_CHECKING:
  import torch

# Keys of the state_dict in files that hold more, as Lightning, PyTorch's tutorials and
# PANNs' training write them.
CONTAINERS = ("state_dict", "model_state_dict", "model")
DTYPES = {
  *("float64", "float32", "float16", "bfloat16"),
  *("int64", "int32", "int16", "int8", "uint8", "bool"),
}


class _LeftOut:
  """Takes the place of numpy's arrays and scalars while a file is read.

  PANNs' training stores its sampler's state beside the weights, as arrays. Nothing of
  numpy is called for them, and their values are not kept.
  """

  def __init__(self, *_: Any):
    pass

  def __setstate__(self, state: Any) -> None:
    pass


# The names by which pickles rebuild arrays and scalars, in numpy 1 and 2.
NUMPY = [
  *("numpy.ndarray", "numpy.dtype"),
  *("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar"),
  *("numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar"),
]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
  """Reads the state_dict of a file, with the keys and types that it has there.

  Raises:
    UserError: the file has no state_dict, holds more than weights and numpy's arrays,
      or its tensors are larger than the file, which then would ask for any amount of
      memory.
  """
  _check_zip(path)
  # Without the tensors' values at first, which takes no memory.
  _check_sizes(path, _state_dict(path, "meta"))
  tensors = _state_dict(path, "cpu")
  without = [key for key, tensor in tensors.items() if tensor.device.type != "cpu"]
  if without:
    raise UserError(f"{path}: {without[0]} has no values: save the model with weights")
  return {key: _to_numpy(tensor) for key, tensor in tensors.items()}


def _to_numpy(tensor: "torch.Tensor") -> np.ndarray:
  tensor = tensor.detach().contiguous()
  if str(tensor.dtype) == "torch.bfloat16":  # PyTorch has no array of it.
    import torch

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()


def _check_zip(path: Path) -> None:
  """Raises `UserError` for a zip archive with compressed parts, unlike torch's.

  A few bytes could inflate to gigabytes.
  """
  try:
    with path.open("rb") as file:
      if file.read(4) != b"PK\3\4":
        return  # torch's older format, which is not compressed
      with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
  except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
    raise UserError(
      f"{path} is not a PyTorch file, or it is damaged: {error}"
    ) from error
  num_bytes = sum(info.file_size for info in infos)
  is_stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
  if not is_stored or num_bytes > path.stat().st_size:
    raise UserError(
      f"{path} is a compressed archive of {num_bytes} bytes, and PyTorch writes none: "
      "save the state_dict with torch.save"
    )


def _check_sizes(path: Path, state_dict: Mapping[str, "torch.Tensor"]) -> None:
  """Raises `UserError` if tensors are larger than their file, or not plain numbers."""
  for key, tensor in state_dict.items():
    is_plain = str(tensor.layout) == "torch.strided" and not tensor.is_quantized
    if not is_plain or str(tensor.dtype).removeprefix("torch.") not in DTYPES:
      raise UserError(f"{path}: {key} is not a plain tensor of real numbers")
  num_bytes = sum(x.numel() * x.element_size() for x in state_dict.values())
  if num_bytes > path.stat().st_size:
    raise UserError(
      f"{path} is damaged: it has {path.stat().st_size} bytes, and its tensors "
      f"{num_bytes}: download or save it again"
    )


def _state_dict(path: Path, device: str) -> "dict[str, torch.Tensor]":
  """Reads a state_dict to a device; see `read_state_dict`."""
  content = _load(path, device)
  import torch

  if isinstance(content, dict):
    inner = [content.get(name) for name in CONTAINERS]
    content = next((each for each in inner if isinstance(each, dict)), content)
  if not isinstance(content, dict) or not content:
    raise UserError(
      f"{path} has no state_dict, alone or under {', '.join(CONTAINERS)}: save the "
      "model's state_dict with torch.save"
    )
  others = [
    # A key that is not text may be a nest, which fills the memory as text.
    key if isinstance(key, str) else f"a key of type {type(key).__name__}"
    for key, value in content.items()
    if not (isinstance(key, str) and isinstance(value, torch.Tensor))
  ]
  if others:
    raise UserError(f"{path} is not a state_dict: it holds {', '.join(others[:10])}")
  return content


def _load(path: Path, device: str) -> Any:
  """Calls torch.load for weights only; numpy's arrays beside them are left out."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f"PyTorch is needed to read {path}: pip install -e '.[convert]'"
    ) from error
  # Not mapped, because a mapped file's pages count as memory until all are released.
  try:
    with torch.serialization.safe_globals([(_LeftOut, name) for name in NUMPY]):
      return torch.load(path, map_location=device, weights_only=True)
  except pickle.UnpicklingError as error:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
      raise UserError(f"{path} is not a PyTorch file, or it is damaged") from error
    raise UserError(
      f"{path} holds more than weights ({named[1]}), and loading that could run any "
      "code: save only the model's state_dict"
    ) from error
  except Exception as error:  # A damaged pickle may raise anything.
    reason = str(error).partition("\n")[0][:200] or type(error).__name__
    raise UserError(
      f"{path} is not a PyTorch file, or it is damaged: {reason}"
    ) from error


def write_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes {"model": state_dict}, as PANNs' own files have it: whole or not at all.

  Raises:
    UserError: PyTorch is not installed, or `path` is a folder or a device.
  """
  try:
    import torch
  except ImportError as error:
    raise UserError(
      f"PyTorch is needed to write {path}: pip install -e '.[convert]', or give a name "
      "that ends in .safetensors"
    ) from error
  tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
  files.write_whole(path, lambda partial: torch.save({"model": tensors}, partial))
