"""Training metrics between two log lines."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import jax

from audiotag_jax import checkpoint, parallel
from audiotag_jax.errors import UserError


class Meter:
  """Gathers the training metrics of the steps between two log lines.

  The metrics stay on the devices until they are logged or a checkpoint is saved. The
  meter lets the devices work on one step while the next is prepared, and stops the run
  if the loss of a step was not finite.
  """

  def __init__(self, checkpoints: checkpoint.RunCheckpoints):
    self._checkpoints = checkpoints
    self._pending: list[tuple[int, dict[str, jax.Array]]] = []
    self._last: dict[str, float] = {}
    self._restart()

  def _restart(self) -> None:
    self._sums: dict[str, float] = {}
    self._num_steps = 0
    self._wait_s = 0.0
    self._start_s = time.monotonic()

  @contextlib.contextmanager
  def waiting_for_data(self) -> Iterator[None]:
    """Measures the time spent in the block as waiting for data."""
    start_s = time.monotonic()
    yield
    self._wait_s += time.monotonic() - start_s

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves the time spent in the block out of the step rate."""
    start_s = time.monotonic()
    yield
    self._start_s += time.monotonic() - start_s

  def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes a step's replicated metrics; waits for the step before."""
    if self._pending:
      jax.block_until_ready(self._pending[-1][1])
    self._pending.append((step, metrics))

  def check_finite(self) -> None:
    """Fetches the metrics of all steps so far.

    Raises:
      UserError: the loss of a step, or its gradient, was not finite.
    """
    pending, self._pending = self._pending, []
    for step, metrics in pending:
      self._add(step, {k: float(v) for k, v in parallel.unreplicate(metrics).items()})

  def _add(self, step: int, values: dict[str, float]) -> None:
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
      good_step = self._checkpoints.latest_step()
      good = f"the last good checkpoint is that of step {good_step}"
      if good_step is None:
        good = "the run has no checkpoint yet"
      raise UserError(
        f"the loss is {values['loss']} and its gradient's norm "
        f"{values['grad_norm']} at step {step}; {good}. "
        "Start again in another --workdir, with a lower config.train.learning_rate or "
        "config.train.clip_norm"
      )
    for key, value in values.items():
      self._sums[key] = self._sums.get(key, 0.0) + value
    self._last = values
    self._num_steps += 1

  def to_dict(self) -> dict[str, Any]:
    """Returns what is gathered since the last log line, for a checkpoint."""
    self.check_finite()
    return {
      "sums": self._sums,
      "num_steps": self._num_steps,
      "wait_s": self._wait_s,
      "elapsed_s": time.monotonic() - self._start_s,
    }

  def resume(self, saved: dict[str, Any]) -> None:
    """Resumes from what `to_dict` returned; an empty one leaves the meter as it is."""
    if saved:
      self._sums, self._num_steps = dict(saved["sums"]), saved["num_steps"]
      self._wait_s = saved["wait_s"]
      self._start_s = time.monotonic() - saved["elapsed_s"]

  def summarize(self) -> dict[str, float]:
    """Returns the scalars of the steps since the last call, and resets the meter."""
    self.check_finite()
    elapsed_s = time.monotonic() - self._start_s
    scalars = {
      "train/loss": self._sums["loss"] / self._num_steps,
      "train/grad_norm": self._sums["grad_norm"] / self._num_steps,
      "train/learning_rate": self._last["learning_rate"],
      "train/steps_per_second": self._num_steps / elapsed_s,
      "train/data_wait_share": self._wait_s / elapsed_s,
    }
    self._restart()
    return scalars
