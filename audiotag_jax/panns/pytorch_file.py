"""Files of PyTorch that hold a state_dict: read without running code, written whole."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax import files
from audiotag_jax.errors import UserError


def read_state_dict(path: Path) -> dict[str, Any]:
  """Reads the state_dict (of torch.Tensor) of a file.

  Raises:
    UserError: the file has no state_dict, holds more than weights, or its tensors are
      larger than the file, which then would ask for any amount of memory.
  """
  _check_zip(path)
  # Without the tensors' values at first, which takes no memory.
  _check_sizes(path, _state_dict(path, "meta"))
  state_dict = _state_dict(path, "cpu")
  # torch.nn.DataParallel puts `module.` in front of every key.
  if all(key.startswith("module.") for key in state_dict):
    return {key.removeprefix("module."): value for key, value in state_dict.items()}
  return dict(state_dict)


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


def _check_sizes(path: Path, state_dict: Mapping[str, Any]) -> None:
  """Raises `UserError` if tensors are larger than their file, or not plain numbers."""
  for key, tensor in state_dict.items():
    is_plain = str(tensor.layout) == "torch.strided" and not tensor.is_quantized
    if not is_plain or tensor.is_complex():
      raise UserError(f"{path}: {key} is not a plain tensor of real numbers")
  num_bytes = sum(x.numel() * x.element_size() for x in state_dict.values())
  if num_bytes > path.stat().st_size:
    raise UserError(
      f"{path} is damaged: it has {path.stat().st_size} bytes, and its tensors "
      f"{num_bytes}: download or save it again"
    )


def _state_dict(path: Path, device: str) -> dict[str, Any]:
  """Reads a state_dict to a device; see `read_state_dict`."""
  content = _load(path, device)
  import torch

  if isinstance(content, dict) and isinstance(content.get("model"), dict):
    content = content["model"]
  if not isinstance(content, dict) or not content:
    raise UserError(f"{path} has no state_dict, alone or under `model`")
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
  """Calls torch.load for weights only."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "PyTorch is needed to read .pth files: pip install torch"
    ) from error
  # Not mapped, because a mapped file's pages count as memory until all are released.
  try:
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
      "PyTorch is needed to write .pth files: pip install torch"
    ) from error
  tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
  files.write_whole(path, lambda partial: torch.save({"model": tensors}, partial))
