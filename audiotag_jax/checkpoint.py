"""Checkpoints of a run: orbax, asynchronous, best and latest, verified when read.

A checkpoint is an unreplicated tree of host arrays, so a checkpoint that eight devices
saved also opens on one.
"""

import contextlib
import dataclasses
import functools
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from audiotag_jax import parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError, reason_of

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


class DamagedError(UserError):
  """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


def checksums(tree: Any) -> dict[str, int]:
  """Returns the CRC-32C of each array's bytes, by the array's path in the tree."""
  import google_crc32c  # Here, because a model without a checkpoint needs none of it.

  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): google_crc32c.value(
      np.ascontiguousarray(leaf).tobytes()
    )
    for path, leaf in leaves
  }


def check_checksums(tree: Any, metadata: Mapping[str, Any] | None, what: str) -> None:
  """Compares restored arrays with the checksums that were saved with them.

  Args:
    tree: the restored arrays.
    metadata: orbax's custom metadata; that of version 0.2 and older has no `crc32c`.
    what: the name of the checkpoint in the message.

  Raises:
    DamagedError: an array has changed.
  """
  saved = (metadata or {}).get("crc32c", {})
  for key, value in checksums(tree).items():
    if saved.get(key, value) != value:
      raise DamagedError(f"{what} is damaged: {key} is not what was saved")


@functools.cache
def quiet_closed_loops() -> None:
  """Hides, from now on, what orbax and TensorStore print after a failure.

  The first failure closes orbax's event loop. Each read or write that ends later prints
  a traceback because of that, and each that was not begun a warning.
  """
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
  hook = sys.unraisablehook

  def filtered(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
      hook(unraisable)

  sys.unraisablehook = filtered


def _best_metric(metrics: dict[str, float]) -> float:
  return metrics[BEST_METRIC]


@dataclasses.dataclass(frozen=True)
class _OfValidated:
  """Preserves, of the checkpoints with metrics, those that a policy preserves."""

  policy: ocp.checkpoint_managers.PreservationPolicy

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    validated = [info for info in checkpoints if info.metrics is not None]
    kept = self.policy.should_preserve(validated, context=context)
    steps = {info.step for info, keep in zip(validated, kept, strict=True) if keep}
    return [info.step in steps for info in checkpoints]


class RunCheckpoints:
  """The checkpoints of a workdir.

  Kept are the latest with a validation, the best of them by val/mAP, and the last two
  of all, so that a run resumes from the one before if the last is damaged.
  """

  def __init__(self, workdir: Path, num_latest: int):
    """Opens or creates a workdir's checkpoints; keeps `num_latest` and the best."""
    self._num_latest = num_latest
    self._directory = (workdir / workdir_lib.CHECKPOINTS).absolute()
    self._damaged = workdir / workdir_lib.DAMAGED_CHECKPOINTS
    self._saving: int | None = None
    self._has_failed = False
    quiet_closed_loops()
    with parallel.main_process_first():
      for step in _unreadable_steps(self._directory):
        self._set_aside(step, "its metadata cannot be read")
    policies = ocp.checkpoint_managers
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_handlers=ocp.StandardCheckpointHandler(),
      options=ocp.CheckpointManagerOptions(
        best_fn=_best_metric,
        best_mode="max",
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(2),
            _OfValidated(policies.LatestN(num_latest)),
            _OfValidated(policies.BestN(get_metric_fn=_best_metric, n=1)),
          ]
        ),
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
      ),
    )

  def save(
    self,
    step: int,
    state: Any,
    metrics: dict[str, float] | None = None,
    meter: dict[str, Any] | None = None,
  ) -> None:
    """Starts to save a state in the background.

    Args:
      step: the step; a checkpoint of it without metrics is replaced.
      state: a tree of host arrays.
      metrics: metrics of the validation at this step, if there was one.
      meter: the state of the training metrics; see `training.meter.Meter`.

    Raises:
      UserError: this or an earlier save failed.
    """
    if step in self._manager.all_steps():
      self._manager.delete(step)
    facts = {"crc32c": checksums(state), "meter": meter or {}}
    self._finish(
      lambda: self._manager.save(
        step,
        args=ocp.args.StandardSave(state),
        metrics=metrics,
        custom_metadata=facts,
      )
    )
    self._saving = step

  def check_saved(self) -> None:
    """Raises `UserError` if a save in the background has failed; does not wait."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits for a save in the background.

    Raises:
      UserError: the save failed.
    """
    self._finish(self._manager.wait_until_finished)
    self._saving = None

  def _finish(self, action: Callable[[], Any]) -> None:
    """Runs an action that reports, late, the failure of a save in the background."""
    try:
      action()
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      saving, self._saving, self._has_failed = self._saving, None, True
      what = "a checkpoint" if saving is None else f"the checkpoint of step {saving}"
      raise UserError(
        f"{self._directory}: {what} cannot be saved: {reason_of(error)}. "
        "Mend that and start the same command again: it resumes from the last "
        "checkpoint"
      ) from error

  def latest_step(self) -> int | None:
    """Returns the step of the last complete checkpoint, or None."""
    return self._manager.latest_step()

  def is_validated(self, step: int) -> bool:
    """Returns whether the checkpoint of a step has the metrics of a validation."""
    return self._manager.metrics(step) is not None

  def steps_of(self, which: str) -> list[int]:
    """Returns the steps of the "best", the "last" or all of the "latest" checkpoints.

    Only checkpoints with a validation count, so that the results do not depend on the
    moments at which a run was stopped.

    Raises:
      UserError: no checkpoint with a validation exists.
    """
    self.wait()
    steps = [
      step for step in sorted(self._manager.all_steps()) if self.is_validated(step)
    ]
    if not steps:
      raise UserError(
        f"{self._directory} has no validated checkpoint: train first, with --mode=train"
      )
    if which == "best":
      return [self._manager.best_step()]
    return steps[-1:] if which == "last" else steps[-self._num_latest :]

  def restore(self, step: int, like: Any) -> Any:
    """Restores a state to the host, with the structure, shapes and types of `like`.

    Raises:
      DamagedError: the checkpoint is damaged.
      UserError: the checkpoint holds another structure or other shapes.
    """
    what = f"checkpoint {self._directory}/{step}"
    try:
      saved = self._manager.item_metadata(step).tree
      facts = self._facts(step)
    except MemoryError:
      raise
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      raise DamagedError(f"{what} cannot be read: {reason_of(error)}") from error
    check_same_shapes(saved, like, what)
    try:
      state = self._manager.restore(step, args=ocp.args.StandardRestore(like))
    except MemoryError:
      raise
    except Exception as error:
      raise DamagedError(f"{what} cannot be read: {reason_of(error)}") from error
    check_checksums(state, facts, what)
    return state

  def restore_latest(self, like: Any) -> tuple[Any, int, dict[str, Any]] | None:
    """Restores the last whole checkpoint, and sets damaged ones after it aside.

    Returns:
      The state, its step and the state of the meter; None without a checkpoint.

    Raises:
      UserError: the checkpoint holds another structure or other shapes.
    """
    while (step := self.latest_step()) is not None:
      state, reason = None, ""
      try:
        state = self.restore(step, like)
      except DamagedError as error:
        reason = str(error)
      if parallel.agree(state is not None):
        return state, step, self._facts(step).get("meter", {})
      with parallel.main_process_first():
        self._set_aside(step, reason)
      self._manager.reload()
    return None

  def _facts(self, step: int) -> dict[str, Any]:
    return self._manager.metadata(step).custom_metadata or {}

  def _set_aside(self, step: int, reason: str) -> None:
    """Moves a damaged checkpoint out of the way, on the main process."""
    if not parallel.is_main_process():
      return
    target = self._damaged / str(step)
    for i in range(1, 1000):
      if not target.exists():
        break
      target = self._damaged / f"{step}.{i}"
    target.parent.mkdir(parents=True, exist_ok=True)
    (self._directory / str(step)).rename(target)
    logging.warning(
      "The checkpoint of step %d is damaged (%s); it is now %s.", step, reason, target
    )

  def close(self) -> None:
    """Waits for unfinished saves, then closes the checkpoints.

    Raises:
      UserError: a save failed, and no other call has said so.
    """
    if not self._has_failed:
      self._finish(self._manager.close)
      return
    with contextlib.suppress(Exception):  # Orbax reports a failure again.
      self._manager.close()


def _unreadable_steps(directory: Path) -> list[int]:
  """Returns the steps whose folders lack files that every checkpoint has."""
  if not directory.exists():
    return []
  steps = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
  return [step for step in sorted(steps) if not _is_readable(directory / str(step))]


def _is_readable(checkpoint: Path) -> bool:
  described = [
    checkpoint / "_CHECKPOINT_METADATA",
    checkpoint / "default/_METADATA",
    *checkpoint.glob("metrics/metrics"),
  ]
  try:
    jsons = [json.loads(path.read_bytes()) for path in described]
    database = (checkpoint / "default/manifest.ocdbt").stat()
  except (OSError, ValueError):
    return False
  return all(isinstance(each, dict) for each in jsons) and database.st_size > 0
