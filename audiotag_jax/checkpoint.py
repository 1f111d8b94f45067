"""Checkpoints of a run: orbax, asynchronous, best and latest.

A checkpoint is an unreplicated tree of host arrays, so a checkpoint that eight devices
saved also opens on one.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError

BEST_METRIC = "mAP"


def check_same_shapes(saved: Any, expected: Any, what: str) -> None:
  """Raises `UserError` listing missing, unexpected and differently shaped arrays.

  Args:
    saved: a tree whose leaves have a `.shape`.
    expected: a tree of the same kind.
    what: the name of `saved` in the message.
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
    """Opens or creates a workdir's checkpoints; keeps `num_latest` and the best."""
    self._num_latest = num_latest
    policies = ocp.checkpoint_managers
    self._directory = (workdir / workdir_lib.CHECKPOINTS).absolute()
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
    """Returns the step of the last complete checkpoint, or None."""
    return self._manager.latest_step()

  def steps_of(self, which: str) -> list[int]:
    """Returns the steps of the "best", the "last" or all of the "latest" checkpoints.

    Raises:
      UserError: no checkpoint exists.
    """
    self._manager.wait_until_finished()
    steps = sorted(self._manager.all_steps())
    if not steps:
      raise UserError(
        f"{self._directory} has no checkpoint: train first, with --mode=train"
      )
    if which == "best":
      return [self._manager.best_step()]
    return steps[-1:] if which == "last" else steps[-self._num_latest :]

  def restore(self, step: int, like: Any) -> Any:
    """Restores a state to the host, with the structure, shapes and types of `like`.

    Raises:
      UserError: the checkpoint holds another structure or other shapes.
    """
    saved = self._manager.item_metadata(step).tree
    check_same_shapes(saved, like, f"checkpoint {self._directory}/{step}")
    return self._manager.restore(step, args=ocp.args.StandardRestore(like))

  def close(self) -> None:
    """Waits for unfinished saves, then closes the checkpoints."""
    self._manager.wait_until_finished()
    self._manager.close()
