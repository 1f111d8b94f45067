"""Converts a PANNs file for PyTorch to a model directory.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
"""

import dataclasses
import hashlib
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from audiotag_jax import files, model_directory
from audiotag_jax.errors import UserError, exit_on_user_error
from audiotag_jax.frontend import mel
from audiotag_jax.models import panns
from audiotag_jax.models.create import described_fields
from audiotag_jax.panns import class_names, convert, fixed, tables

# Differences of the fixed matrices up to here are rounding: they are at most 1, and
# float32 has 24 bits.
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
    path: PANNs' file.
    output: where to.
    model: the architecture, if it is not to be recognised.
    class_names_file: names of the classes, one a line, or a model directory that has
      the same classes, if they are not AudioSet's.
    overwrite: whether to replace a model directory that is there.

  Raises:
    UserError: the file is not PANNs' or not what it is said to be, or the output
      is not to be overwritten. Nothing is written then.
  """
  files.check_output(output, overwrite)
  if not path.is_file():
    raise UserError(f"there is no file {path}: give the .pth file of a PANNs model")
  state_dict = read_state_dict(path)
  shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
  try:
    name = choose_architecture(shapes, model, path)
    widths = convert.find_widths(shapes, name)
    table = tables.TABLES[name](convert.num_classes(shapes), **widths)
    faults = convert.find_faults(shapes, table)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  if faults:
    raise UserError(f"{path} is not of {name}: {convert.describe_faults(faults)}")
  names = choose_class_names(convert.num_classes(shapes), class_names_file)

  created = panns.create(name, num_classes=len(names), **widths)
  variables, rest = convert.to_flax(_drain(state_dict), table)
  _keep_what_differs(rest, created.front_end)
  description = model_directory.ModelDescription(
    architecture=name,
    fields=described_fields(created),
    front_end=dataclasses.asdict(created.front_end),
    class_names=names,
    source={"file": path.name, "sha256": _sha256(path)},
    normalize="none",  # PANNs take waveforms as they are.
  )
  model_directory.save_model(
    output, description, variables | {"pytorch": rest}, overwrite=overwrite
  )
  return description


def read_state_dict(path: Path) -> dict[str, Any]:
  """Reads the state_dict (of torch.Tensor) of a file.

  Raises:
    UserError: it holds none, or holds more than weights.
  """
  content = _load(path)
  if isinstance(content, dict) and isinstance(content.get("model"), dict):
    content = content["model"]
  if not isinstance(content, dict) or not content:
    raise UserError(f"{path} holds no state_dict, alone or under `model`")
  others = [str(key) for key, value in content.items() if not hasattr(value, "detach")]
  if others:
    raise UserError(f"{path} holds no state_dict, but {', '.join(others[:10])}")
  # torch.nn.DataParallel puts `module.` in front of every key.
  if all(key.startswith("module.") for key in content):
    return {key.removeprefix("module."): value for key, value in content.items()}
  return dict(content)


def _load(path: Path) -> Any:
  """torch.load, of weights alone."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "PyTorch is needed to read .pth files: pip install torch"
    ) from error
  # Not mapped: pages of a mapped file count as memory until all of it is let go.
  try:
    return torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
      raise UserError(f"{path} is no file of PyTorch, or is damaged") from error
    raise UserError(
      f"{path} holds more than weights ({named[1]}), and loading that could run any "
      "code: save the model's state_dict alone"
    ) from error
  except (RuntimeError, EOFError, ValueError, KeyError) as error:
    reason = str(error).partition("\n")[0]
    raise UserError(f"{path} is no file of PyTorch, or is damaged: {reason}") from error


def choose_architecture(shapes: convert.Shapes, model: str | None, path: Path) -> str:
  """Returns the architecture of a state_dict: as said, recognised or, last, named.

  Args:
    shapes: the state_dict's.
    model: the architecture that the user says it is, if any.
    path: the file, whose name tells between architectures that look the same.

  Raises:
    UserError: there is no such architecture, or it is none of them.
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
      "%s could be of %s: taken for %s, as --model was not given.",
      path,
      " or ".join(names),
      chosen,
    )
  return chosen


def choose_class_names(num_classes: int, path: str | None) -> list[str]:
  """Returns the classes' names: from a file, a model directory's, or AudioSet's.

  Raises:
    UserError: there are not as many names as classes.
  """
  if not path:
    names = class_names.audioset_class_names()
    if len(names) != num_classes:
      raise UserError(
        f"the model has {num_classes} classes, not AudioSet's {len(names)}: give "
        "their names with --class_names=FILE, one a line"
      )
    return names
  if (Path(path) / "model.json").is_file():
    names = model_directory.read_description(Path(path)).class_names
  elif Path(path).is_file():
    names = Path(path).read_text(encoding="utf-8").splitlines()
  else:
    raise UserError(f"--class_names: there is no file {path}")
  if len(names) != num_classes:
    raise UserError(f"{path} has {len(names)} names for {num_classes} classes")
  return names


def _drain(state_dict: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields a state_dict's arrays and forgets them, so that their memory is freed."""
  while state_dict:
    key = next(iter(state_dict))
    tensor = state_dict.pop(key).detach()
    yield key, (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _keep_what_differs(
  rest: dict[str, np.ndarray], front_end: mel.LogMelParams
) -> None:
  """Drops from `rest` the fixed matrices that are ours, and reports the others."""
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


def define_flags() -> None:
  """Defines the command line, which an import leaves alone."""
  flags.DEFINE_string("checkpoint", None, "PANNs' file (.pth).", required=True)
  flags.DEFINE_string("output", None, "Model directory to write.", required=True)
  flags.DEFINE_string(
    "model", None, f"One of {', '.join(tables.TABLES)}, if not to be recognised."
  )
  flags.DEFINE_string(
    "class_names",
    None,
    "File of class names, one a line, or a model directory of the same classes, if "
    "they are not AudioSet's.",
  )
  flags.DEFINE_bool("overwrite", False, "Replace an existing model directory.")


@exit_on_user_error
def main(_) -> None:
  # orbax tells of every step at the level of info.
  logging.set_verbosity(logging.WARNING)
  args = flags.FLAGS
  description = convert_file(
    Path(args.checkpoint),
    Path(args.output),
    model=args.model,
    class_names_file=args.class_names,
    overwrite=args.overwrite,
  )
  print(
    f"{args.output}: {description.architecture}, "
    f"{len(description.class_names)} classes, from {args.checkpoint}"
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
