"""Model directories: weights, and facts for the Tagger, fine-tuning and exports.

A model directory holds `model.json` and `checkpoints/0`, which orbax writes.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from audiotag_jax import checkpoint, config_checks, files, json_files
from audiotag_jax.errors import UserError, reason_of
from audiotag_jax.workdir import DESCRIPTION

WEIGHTS = "checkpoints/0"
# Largest weights that are read, a dozen times those of PANNs' largest network.
MAX_WEIGHTS_BYTES = 2**32
REMEDY = "convert or evaluate the model again"
_SCORE = json_files.number(0, 1)
_SIZE = json_files.whole(0, 2**16)
_FIELD = json_files.either(
  json_files.SWITCH,
  json_files.TEXT,
  _SIZE,
  _SCORE,
  json_files.list_of(_SIZE, range(65)),
)
# Endings of files that hold weights alone.
_WEIGHT_FILES = (".pth", ".pt", ".ckpt", ".safetensors")
_NAMES = json_files.list_of(json_files.TEXT, range(1, 2**20))
KINDS = {
  "architecture": json_files.choice(*config_checks.CHOICES["model.name"]),
  "fields": json_files.object_of(_FIELD),
  "front_end": json_files.object_of(json_files.number(0, math.inf)),
  "class_names": _NAMES,
  "source": json_files.OBJECT,
  "thresholds": json_files.optional(json_files.OBJECT),
  # Older model directories lack it.
  "normalize": dataclasses.replace(
    json_files.choice(*config_checks.CHOICES["data.normalize"]), optional=True
  ),
}


@dataclasses.dataclass(frozen=True)
class ModelDescription:
  """The model.json of a model directory.

  Attributes:
    architecture: name of the architecture.
    fields: fields of its module, except the number of classes.
    front_end: parameters of the log-mel that the weights were trained with.
    class_names: names of the classes, in the order of the logits.
    source: origin of the weights, such as `file` and `sha256`.
    thresholds: the scores from which classes count as present, tuned for F1 on val:
      `global`, and `per_class` in the order of the logits; None if not tuned.
    normalize: scaling of clips before the front-end: a value of
      `config.data.normalize`.
  """

  architecture: str
  fields: dict[str, Any]
  front_end: dict[str, Any]
  class_names: list[str]
  source: dict[str, Any]
  thresholds: dict[str, Any] | None = None
  normalize: str = "none"


def save_model(
  directory: Path,
  description: ModelDescription,
  variables: dict[str, Any],
  *,
  overwrite: bool = False,
) -> None:
  """Writes a model directory from one process, whole or not at all.

  Args:
    directory: the folder to write.
    description: the description.
    variables: a tree of numpy arrays: `params`, `batch_stats` and, for a converted
      model, `pytorch` with the other entries of its file.
    overwrite: whether to replace an existing model directory.

  Raises:
    UserError: `directory` exists and may not be overwritten, or the description is
      invalid.
  """
  fields = dataclasses.asdict(description)
  check_description(fields, directory / DESCRIPTION)
  files.check_output(directory, overwrite)
  if directory.exists() and not (directory / DESCRIPTION).exists():
    raise UserError(f"{directory} is not a model directory, and is not overwritten")
  with files.replaced_folder(directory) as new:
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = _frugal_handler(alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
      checkpointer.save(
        new / WEIGHTS,
        variables,
        custom_metadata={"crc32c": checkpoint.checksums(variables)},
      )
    files.write_json(new / DESCRIPTION, fields, ensure_ascii=False)


def _frugal_handler(
  multiprocessing_options: ocp.options.MultiprocessingOptions,
) -> ocp.PyTreeCheckpointHandler:
  """Returns a handler that writes numpy arrays without copying them.

  A copy and a compressed copy of all arrays would each take as much memory again, and
  compression saves only a twelfth of the weights.
  """
  numpy_handler = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
  return ocp.PyTreeCheckpointHandler(
    use_compression=False,
    multiprocessing_options=multiprocessing_options,
    type_handler_registry=ocp.type_handlers.create_type_handler_registry(
      (np.ndarray, numpy_handler), (jax.Array, ocp.type_handlers.ArrayHandler())
    ),
  )


def read_description(directory: Path) -> ModelDescription:
  """Reads the model.json of a model directory.

  Raises:
    UserError: model.json is missing or invalid.
  """
  path = directory / DESCRIPTION
  if directory.is_file() and directory.suffix in _WEIGHT_FILES:
    raise UserError(
      f"{directory} is a file of weights, not a model directory: make one of PANNs' "
      f"weights with tools/convert_panns.py --checkpoint={directory} --output=FOLDER"
    )
  if not path.exists():
    raise UserError(
      f"{directory} has no {DESCRIPTION}: give a model directory, such as "
      "tools/convert_panns.py writes"
    )
  description = json_files.read(path, REMEDY)
  check_description(description, path)
  return ModelDescription(**description)


def check_description(description: dict[str, Any], place: Path) -> None:
  """Raises `UserError` unless a model.json describes a model.

  Each field has its type and range, and the fields agree: the thresholds with the
  classes, and the front-end's values with each other. `models.create` compares them
  with the module and the weights.

  Args:
    description: the fields of `ModelDescription`, in the types of JSON.
    place: the file, which an error names.
  """
  what = f"{place} does not describe a model"
  json_files.check(description, KINDS, what, REMEDY, others=False)
  names = description["class_names"]
  if len(set(names)) < len(names):
    raise UserError(f"{what}: class_names has a name twice: {REMEDY}")
  thresholds = description.get("thresholds")
  if thresholds is not None:
    per_class = json_files.list_of(_SCORE, [len(names)])
    per_class = dataclasses.replace(
      per_class, name=f"a list of {_SCORE.name} for each of the {len(names)} classes"
    )
    kinds = {
      "global": json_files.optional(_SCORE),
      "per_class": json_files.optional(per_class),
    }
    json_files.check(thresholds, kinds, f"{what}: thresholds", REMEDY, others=False)
  try:
    config_checks.validate_front_end(description["front_end"])
  except UserError as error:
    raise UserError(f"{what}: front_end: {error}; {REMEDY}") from error


def load_model(
  directory: Path, expect: Callable[[ModelDescription], Any] | None = None
) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a model directory; see `save_model`.

  Args:
    directory: the folder to read.
    expect: returns the `params` and `batch_stats` that a description asks for, as a
      tree whose leaves have a shape. They are compared before memory is asked for.

  Returns:
    The description, and the variables as numpy arrays.

  Raises:
    UserError: `directory` is not a model directory, its weights are damaged or have
      more than `MAX_WEIGHTS_BYTES`, or they are not those of the description.
  """
  description = read_description(directory)
  path = (directory / WEIGHTS).absolute()
  if not path.exists():
    raise UserError(f"{directory} has no {WEIGHTS}: {REMEDY}")
  expected = expect(description) if expect else None
  checkpoint.quiet_closed_loops()
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      metadata = checkpointer.metadata(path)
      saved = metadata.item_metadata.tree
      num_bytes = sum(_num_bytes(leaf) for leaf in jax.tree.leaves(saved))
      if num_bytes > MAX_WEIGHTS_BYTES:
        raise UserError(
          f"{path} holds {num_bytes} bytes of weights, more than {MAX_WEIGHTS_BYTES}: "
          f"{REMEDY}"
        )
      if expected is not None:
        given = {key: saved.get(key, {}) for key in expected}
        checkpoint.check_same_shapes(given, expected, str(directory))
      like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
      variables = checkpointer.restore(path, like)
      checkpoint.check_checksums(variables, metadata.custom_metadata, str(path))
      return description, variables
  except checkpoint.DamagedError as error:
    raise UserError(f"{error}: {REMEDY}") from error
  except (UserError, MemoryError):
    raise
  except Exception as error:  # orbax and tensorstore may raise anything.
    raise UserError(f"{path} cannot be read ({reason_of(error)}): {REMEDY}") from error


def _num_bytes(leaf: Any) -> int:
  """Returns the size of an array that metadata describe; such a shape may be forged."""
  return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
