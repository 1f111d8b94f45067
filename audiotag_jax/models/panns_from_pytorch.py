"""Converts a PANNs file, for PyTorch or of safetensors, to a model directory."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from audiotag_jax import files, model_directory, text_files, workdir
from audiotag_jax.errors import UserError
from audiotag_jax.frontend import mel
from audiotag_jax.models import panns
from audiotag_jax.models.create import model_fields
from audiotag_jax.panns import (
  class_names,
  convert,
  entry_names,
  fixed,
  state_dict_file,
  tables,
)

# Largest difference of fixed matrices that counts as rounding: their values are at most
# 1, and float32 has 24 bits.
ROUNDING = 1e-6


def convert_file(
  path: Path,
  output: Path,
  *,
  model: str | None = None,
  class_names_file: str | None = None,
  overwrite: bool = False,
) -> model_directory.ModelDescription:
  """Converts a file to a model directory; returns its description.

  Args:
    path: the PANNs file.
    output: the model directory to write.
    model: the architecture; recognised if not given.
    class_names_file: a file with the names of the classes, one per line, or a model
      directory that has the same classes; AudioSet's if not given.
    overwrite: whether to replace an existing model directory.

  Raises:
    UserError: the file is not a PANNs file or not of `model`, or `output` exists and
      may not be overwritten. Nothing is written then.
  """
  files.check_output(output, overwrite)
  if not path.is_file():
    raise UserError(
      f"{path} is not a file: give the .pth or .safetensors file of a PANNs model"
    )
  state_dict = state_dict_file.read(path)
  try:
    keys, notes = entry_names.find({key: x.shape for key, x in state_dict.items()})
    shapes = {name: state_dict[key].shape for key, name in keys.items()}
    name = choose_architecture(shapes, model, path)
    widths = convert.find_widths(shapes, name)
    table = tables.TABLES[name](convert.num_classes(shapes), **widths)
    faults = convert.find_faults(shapes, table)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  if faults:
    raise UserError(f"{path} is not of {name}: {convert.describe_faults(faults)}")
  for note in notes:
    logging.warning("%s: %s.", path, note)
  names = choose_class_names(convert.num_classes(shapes), class_names_file)

  created = panns.create(name, num_classes=len(names), **widths)
  variables, rest = convert.to_flax(_drain(state_dict, keys), table)
  _keep_what_differs(rest, created.front_end)
  description = model_directory.ModelDescription(
    architecture=name,
    fields=model_fields(created),
    front_end=dataclasses.asdict(created.front_end),
    class_names=names,
    source={"file": path.name, "sha256": _sha256(path)},
    normalize="none",  # PANNs take waveforms as they are.
  )
  model_directory.save_model(
    output, description, variables | {"pytorch": rest}, overwrite=overwrite
  )
  return description


def choose_architecture(shapes: convert.Shapes, model: str | None, path: Path) -> str:
  """Returns the architecture of a state_dict: the given one, or the recognised one.

  Args:
    shapes: shapes of the state_dict's entries.
    model: the architecture that the user gives, if any.
    path: the file, whose name tells architectures of the same shapes apart.

  Raises:
    UserError: `model` is unknown, or the shapes fit no architecture.
  """
  if model:
    if model not in tables.TABLES:
      raise UserError(f"--model={model}: choose from {', '.join(tables.TABLES)}")
    return model
  names = convert.recognize(shapes)
  named = [name for name in names if path.name.lower().startswith(name.lower())]
  chosen = max(named, key=len, default=names[0])
  if len(names) > 1 and not named:
    logging.warning(
      "%s fits %s: taken for %s, because --model was not given.",
      path,
      " or ".join(names),
      chosen,
    )
  return chosen


def choose_class_names(num_classes: int, path: str | None) -> list[str]:
  """Returns the classes' names: from a file, from a model directory, or AudioSet's.

  Raises:
    UserError: the names are missing, not as many as the classes, or not all different.
  """
  if not path:
    names = class_names.audioset_class_names()
    if len(names) != num_classes:
      raise UserError(
        f"the model has {num_classes} classes, not AudioSet's {len(names)}: give "
        "their names with --class_names=FILE, one per line"
      )
    return names
  if (Path(path) / workdir.DESCRIPTION).is_file():
    names = model_directory.read_description(Path(path)).class_names
  elif Path(path).is_file():
    names = text_files.read_names(Path(path))
  else:
    raise UserError(f"--class_names: {path} is not a file or a model directory")
  if len(names) != num_classes:
    raise UserError(f"{path} has {len(names)} names for {num_classes} classes")
  return names


def _drain(
  state_dict: dict[str, np.ndarray], keys: Mapping[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields a state_dict's arrays under PANNs' keys, and frees each one's memory."""
  for key, name in keys.items():
    yield name, state_dict.pop(key)


def _keep_what_differs(
  rest: dict[str, np.ndarray], front_end: mel.LogMelParams
) -> None:
  """Drops fixed matrices that equal ours from `rest`, and reports the others."""
  ours = fixed.matrices(front_end.fft_samples, mel.mel_matrix(front_end))
  different = fixed.differences(rest, ours)
  for key in ours.keys() - different.keys():
    rest.pop(key, None)
  for key, difference in different.items():
    meaning = (
      "rounding"
      if difference <= ROUNDING
      else "it was trained with another front-end, and scores will differ"
    )
    logging.warning("%s differs from ours by up to %.2g: %s.", key, difference, meaning)


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
