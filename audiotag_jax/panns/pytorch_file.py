"""Files of PyTorch that hold a state_dict: read without running code, written whole."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax.errors import UserError


def read_state_dict(path: Path) -> dict[str, Any]:
  """Reads the state_dict (of torch.Tensor) of a file.

  Raises:
    UserError: the file has no state_dict, or holds more than weights.
  """
  content = _load(path)
  if isinstance(content, dict) and isinstance(content.get("model"), dict):
    content = content["model"]
  if not isinstance(content, dict) or not content:
    raise UserError(f"{path} has no state_dict, alone or under `model`")
  others = [str(key) for key, value in content.items() if not hasattr(value, "detach")]
  if others:
    raise UserError(f"{path} holds {', '.join(others[:10])}, not a state_dict")
  # torch.nn.DataParallel puts `module.` in front of every key.
  if all(key.startswith("module.") for key in content):
    return {key.removeprefix("module."): value for key, value in content.items()}
  return dict(content)


def _load(path: Path) -> Any:
  """Calls torch.load for weights only."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "PyTorch is needed to read .pth files: pip install torch"
    ) from error
  # Not mapped, because a mapped file's pages count as memory until all are released.
  try:
    return torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
      raise UserError(f"{path} is not a PyTorch file, or it is damaged") from error
    raise UserError(
      f"{path} holds more than weights ({named[1]}), and loading that could run any "
      "code: save only the model's state_dict"
    ) from error
  except (RuntimeError, EOFError, ValueError, KeyError) as error:
    reason = str(error).partition("\n")[0]
    raise UserError(
      f"{path} is not a PyTorch file, or it is damaged: {reason}"
    ) from error


def write_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes {"model": state_dict}, as PANNs' own files have it: whole or not at all.

  Raises:
    UserError: PyTorch is not installed.
  """
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "PyTorch is needed to write .pth files: pip install torch"
    ) from error
  tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
  path.absolute().parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f".{path.name}.{os.getpid()}.new")
  try:
    torch.save({"model": tensors}, new)
    new.replace(path)
  finally:
    new.unlink(missing_ok=True)
