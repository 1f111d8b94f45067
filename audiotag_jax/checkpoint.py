"""Checkpoints of a run: orbax, asynchronous, best and latest. Model directories.

What is saved is an unreplicated tree of host arrays, so that a checkpoint of eight
devices opens on one.
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

BEST_METRIC = "mAP"


def check_same_shapes(saved: Any, expected: Any, what: str) -> None:
  """Raises `UserError` listing what `saved` lacks, has too much or in another shape.

  Args:
    saved: a tree whose leaves have a `.shape`.
    expected: likewise.
    what: the name of `saved`, for the message.
  """
  saved, expected = _shapes(saved), _shapes(expected)
  faults = [f"missing {key}" for key in expected.keys() - saved.keys()]
  faults += [f"unexpected {key}" for key in saved.keys() - expected.keys()]
  faults += [
    f"{key} is {list(saved[key])}, not {list(expected[key])}"
    for key in saved.keys() & expected.keys()
    if saved[key] != expected[key]
  ]
  if faults:
    shown = ", ".join(sorted(faults)[:10])
    more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
    raise UserError(
      f"{what} is of another model: {shown}{more}; use the config it was made with"
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in leaves
  }


def _best_metric(metrics: dict[str, float]) -> float:
  return metrics[BEST_METRIC]


class RunCheckpoints:
  """The checkpoints of a workdir: the latest and the best by val/mAP."""

  def __init__(self, workdir: Path, num_latest: int):
    """Opens, or makes, `workdir`/checkpoints, which keeps the `num_latest` latest."""
    self._num_latest = num_latest
    policies = ocp.checkpoint_managers
    self._directory = (workdir / "checkpoints").absolute()
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_handlers=ocp.StandardCheckpointHandler(),
      options=ocp.CheckpointManagerOptions(
        best_fn=_best_metric,
        best_mode="max",
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(num_latest),
            policies.BestN(get_metric_fn=_best_metric, n=1),
          ]
        ),
        enable_async_checkpointing=True,
      ),
    )

  def save(self, step: int, state: Any, metrics: dict[str, float]) -> None:
    """Starts to save `state` in the background, with its validation metrics."""
    self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

  def latest_step(self) -> int | None:
    """The last complete checkpoint's step, or None without one."""
    return self._manager.latest_step()

  def steps_of(self, which: str) -> list[int]:
    """The steps of the "best", the "last" or all of the "latest" checkpoints.

    Raises:
      UserError: there is no checkpoint.
    """
    self._manager.wait_until_finished()
    steps = sorted(self._manager.all_steps())
    if not steps:
      raise UserError(
        f"{self._directory} holds no checkpoint: train first, with --mode=train"
      )
    if which == "best":
      return [self._manager.best_step()]
    return steps[-1:] if which == "last" else steps[-self._num_latest :]

  def restore(self, step: int, like: Any) -> Any:
    """Restores a state of the structure, shapes and types of `like` to the host.

    Raises:
      UserError: the checkpoint holds another structure or other shapes.
    """
    saved = self._manager.item_metadata(step).tree
    check_same_shapes(saved, like, f"checkpoint {self._directory}/{step}")
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def close(self) -> None:
    """Waits for saves under way."""
    self._manager.wait_until_finished()
    self._manager.close()


@dataclasses.dataclass(frozen=True)
class ModelDescription:
  """The model.json of a model directory.

  Attributes:
    architecture: name of the architecture.
    fields: fields of its module, but for the number of classes.
    front_end: parameters of the log-mel that the weights were trained with.
    class_names: names of the classes, in the order of the logits.
    source: where the weights are from, such as `file` and `sha256`.
    thresholds: the scores from which classes count as present, tuned for F1 on val:
      `global`, and `per_class` in the order of the logits; None if not tuned.
    normalize: how clips were scaled before the front-end: a value of
      `config.data.normalize`.
  """

  architecture: str
  fields: dict[str, Any]
  front_end: dict[str, Any]
  class_names: list[str]
  source: dict[str, Any]
  thresholds: dict[str, Any] | None = None
  normalize: str = "none"


def check_output(path: Path, overwrite: bool) -> None:
  """Raises `UserError` if something is at `path` that is not to be overwritten."""
  if path.exists() and not overwrite:
    raise UserError(f"{path} exists: give another --output, or --overwrite")


def save_model(
  directory: Path,
  description: ModelDescription,
  variables: dict[str, Any],
  *,
  overwrite: bool = False,
) -> None:
  """Writes a model directory, from one process: all of it or, where that fails, none.

  Args:
    directory: where to.
    description: the description.
    variables: a tree of numpy arrays: `params`, `batch_stats` and, of a converted
      model, `pytorch`: what its file holds beyond them.
    overwrite: whether to replace a model directory that is there.

  Raises:
    UserError: something is there that is not to be overwritten.
  """
  check_output(directory, overwrite)
  if directory.exists() and not (directory / "model.json").exists():
    raise UserError(f"{directory} is no model directory, and is not overwritten")
  with files.replaced_folder(directory) as new:
    alone = ocp.options.MultiprocessingOptions(
      primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = _frugal_handler(alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
      checkpointer.save(new / "checkpoints" / "0", variables)
    text = json.dumps(dataclasses.asdict(description), indent=2, ensure_ascii=False)
    (new / "model.json").write_text(text + "\n", encoding="utf-8")


def _frugal_handler(
  multiprocessing_options: ocp.options.MultiprocessingOptions,
) -> ocp.PyTreeCheckpointHandler:
  """What writes numpy arrays from where they lie.

  Copies and compressed copies of all arrays at once would take as much memory again,
  twice, and compression gains a twelfth on weights.
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
    UserError: there is none, or it is not as it should be.
  """
  path = directory / "model.json"
  if not path.exists():
    raise UserError(
      f"{directory} holds no model.json: give a model directory, such as "
      "tools/convert_panns.py writes"
    )
  try:
    return ModelDescription(**json.loads(path.read_text(encoding="utf-8")))
  except (TypeError, ValueError) as error:
    raise UserError(f"{path} is no description of a model: {error}") from error


def load_model(directory: Path) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a model directory; see `save_model`.

  Returns:
    The description, and the variables as numpy arrays.

  Raises:
    UserError: it is no model directory.
  """
  description = read_description(directory)
  path = (directory / "checkpoints" / "0").absolute()
  if not path.exists():
    raise UserError(f"{directory} holds no checkpoints/0: convert the model again")
  with ocp.StandardCheckpointer() as checkpointer:
    saved = checkpointer.metadata(path).item_metadata.tree
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved)
    return description, checkpointer.restore(path, like)
