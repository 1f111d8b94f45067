"""Files of safetensors: a state_dict without a pickle, which needs no PyTorch."""

import os
from collections.abc import Mapping
from pathlib import Path

# Importing it makes bfloat16 known to numpy, and so to safetensors.
import ml_dtypes  # noqa: F401
import numpy as np
import safetensors.numpy

from audiotag_jax import files
from audiotag_jax.errors import UserError

ENDING = ".safetensors"
# Metadata by which libraries for PyTorch know a file of theirs.
METADATA = {"format": "pt"}


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
  """Reads a file's arrays, with the keys and types that they have there.

  Raises:
    UserError: the file is damaged, or has no arrays, or others than of real numbers.
  """
  try:
    arrays = safetensors.numpy.load_file(path)
  except MemoryError:
    raise
  except Exception as error:  # numpy, too, may refuse a type.
    reason = str(error).partition("\n")[0][:200]
    raise UserError(
      f"{path} is not a safetensors file of numbers, or it is damaged ({reason}): "
      "download or save it again"
    ) from error
  if not arrays:
    raise UserError(f"{path} has no arrays: save the model's state_dict")
  for key, array in arrays.items():
    if np.iscomplexobj(array):
      raise UserError(f"{path}: {key} is not a plain tensor of real numbers")
  return arrays


def write_state_dict(path: Path, state_dict: Mapping[str, np.ndarray]) -> None:
  """Writes a state_dict, whole or not at all.

  Raises:
    UserError: `path` is a folder or a device.
  """
  # safetensors writes an array's memory, whatever its strides are.
  arrays = {key: np.asarray(value, order="C") for key, value in state_dict.items()}
  files.write_whole(
    path,
    lambda partial: safetensors.numpy.save_file(arrays, os.fspath(partial), METADATA),
  )
