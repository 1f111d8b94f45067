"""Files of state_dicts, in the format that their names tell."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag_jax.panns import pytorch_file, safetensors_file


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads a state_dict with the keys and types of its file.

  Args:
    path: a file of safetensors, if its name says so; otherwise of PyTorch.

  Raises:
    UserError: the file is damaged, lacks a state_dict, or holds more than weights.
  """
  if _is_safetensors(path):
    return safetensors_file.read_state_dict(path)
  return pytorch_file.read_state_dict(path)


def write(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a state_dict, whole or not at all; see `read`.

  Raises:
    UserError: `path` is a folder or a device, or PyTorch is needed and not installed.
  """
  if _is_safetensors(path):
    safetensors_file.write_state_dict(path, state_dict)
  else:
    pytorch_file.write_state_dict(path, state_dict)


def _is_safetensors(path: Path) -> bool:
  return path.suffix.lower() == safetensors_file.ENDING
