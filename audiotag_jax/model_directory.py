"""Model directories: weights, and facts for the Tagger, fine-tuning and exports.

A model directory holds `model.json` and `checkpoints/0`, which orbax writes.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from audiotag_jax import files
from audiotag_jax.errors import UserError
from audiotag_jax.workdir import DESCRIPTION

WEIGHTS = "checkpoints/0"


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
    UserError: `directory` exists and may not be overwritten.
  """
  files.check_output(directory, overwrite)
  if directory.exists() and not (directory / DESCRIPTION).exists():
    raise UserError(f"{directory} is not a model directory, and is not overwritten")
  with files.replaced_folder(directory) as new:
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = _frugal_handler(alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
      checkpointer.save(new / WEIGHTS, variables)
    fields = dataclasses.asdict(description)
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
  if not path.exists():
    raise UserError(
      f"{directory} has no {DESCRIPTION}: give a model directory, such as "
      "tools/convert_panns.py writes"
    )
  try:
    return ModelDescription(**json.loads(path.read_text(encoding="utf-8")))
  except (TypeError, ValueError) as error:
    raise UserError(f"{path} does not describe a model: {error}") from error


def load_model(directory: Path) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a model directory; see `save_model`.

  Returns:
    The description, and the variables as numpy arrays.

  Raises:
    UserError: `directory` is not a model directory.
  """
  description = read_description(directory)
  path = (directory / WEIGHTS).absolute()
  if not path.exists():
    raise UserError(f"{directory} has no {WEIGHTS}: convert the model again")
  with ocp.StandardCheckpointer() as checkpointer:
    saved = checkpointer.metadata(path).item_metadata.tree
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
    return description, checkpointer.restore(path, like)
