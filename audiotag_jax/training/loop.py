"""The training loop: steps, log lines, validations, checkpoints."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import ml_collections
import numpy as np
from absl import logging
from clu import periodic_actions
from tqdm import tqdm

from audiotag_jax import config as config_lib
from audiotag_jax import parallel, recipes
from audiotag_jax.data import input_pipeline
from audiotag_jax.errors import Stopped
from audiotag_jax.evaluation import evaluate
from audiotag_jax.training import examples, preemption, steps
from audiotag_jax.training.meter import Meter
from audiotag_jax.training.run import Run
from audiotag_jax.training.tensorboard import RunWriter


class Loop:
  """Trains a run from a state to its last step."""

  def __init__(self, run: Run, state: steps.TrainState, saved_meter: dict[str, Any]):
    """Prepares the loop.

    Args:
      run: the run.
      state: the state to start from, on the host.
      saved_meter: the meter's state at that step; see `Meter.to_dict`.
    """
    self._run, self._train = run, run.config.train
    self._step = int(state.step)
    self._state = parallel.replicate(state)
    self._signals = preemption.StopSignals()
    self._progress = periodic_actions.ReportProgress(
      num_train_steps=self._train.num_steps
    )
    self._meter = Meter(run.checkpoints)
    self._meter.resume(saved_meter)
    self._saved_s = time.monotonic()

  def run(self) -> None:
    """Takes all steps that are left.

    Raises:
      UserError: the loss diverged, or a checkpoint cannot be saved.
      Stopped: SIGTERM or SIGINT arrived; the state is saved.
    """
    # A signal that stopped a validation has left a checkpoint without one.
    misses_validation = self._step > 0 and self._is_due(self._train.eval_every_steps)
    if misses_validation:
      misses_validation = not self._run.checkpoints.is_validated(self._step)
    if self._step == self._train.num_steps and not misses_validation:
      return
    with (
      contextlib.closing(RunWriter(self._run.workdir)) as self._writer,
      self._signals.noted(),
    ):
      if misses_validation:
        self._validate()
      self._run_steps()

  def _run_steps(self) -> None:
    run, train, first_step = self._run, self._train, self._step
    if first_step == 0:
      self._writer.write_hparams(hparams(run.config))
      examples.write_audio(self._writer, run.splits["val"], run.config)
    batches, train_step = train_batches(run, first_step), pmap_train_step(run)
    hooks = [self._progress]
    if train.profile and parallel.is_main_process():
      hooks.append(periodic_actions.Profile(logdir=str(run.workdir)))
    shown: dict[str, str] = {}
    with tqdm(
      total=train.num_steps, initial=first_step, desc="training", disable=None
    ) as bar:
      for self._step in range(first_step + 1, train.num_steps + 1):
        with self._meter.waiting_for_data():
          batch = next(batches)
        self._state, metrics = train_step(self._state, parallel.shard(batch))
        self._meter.add(self._step, metrics)
        bar.update()
        run.checkpoints.check_saved()
        received = self._signals.received(self._step)
        if self._is_due(train.log_every_steps):
          scalars = self._meter.summarize()
          self._writer.write_scalars(self._step, scalars)
          shown |= {"loss": f"{scalars['train/loss']:.4f}"}
          bar.set_postfix(shown)
        if received:
          self._save_and_stop(received)
        if self._is_due(train.eval_every_steps):
          metrics = self._validate()
          shown |= {"mAP": f"{metrics['mAP']:.3f}"}
          bar.set_postfix(shown)
        elif self._is_time_to_save():
          self._save()
        for hook in hooks:
          hook(self._step)

  def _is_due(self, every_steps: int) -> bool:
    return is_due(self._step, every_steps, self._train.num_steps)

  def _validate(self) -> dict[str, float]:
    """Scores val, writes its metrics and some examples, saves, returns the metrics."""
    run = self._run
    self._meter.check_finite()
    try:
      with (
        self._progress.timed("validation"),
        self._meter.paused(),
        self._signals.interrupting(),
      ):
        predictions = run.predict(self._state.variables, "val")
    except preemption.Interrupted as interrupted:
      self._save_and_stop(interrupted.signal)
    metrics, _ = predictions.metrics(run.config.evaluation.threshold)
    metrics["loss"] = predictions.loss
    with self._meter.paused():
      self._writer.write_scalars(
        self._step, {f"val/{key}": value for key, value in metrics.items()}
      )
      examples.write_predictions(
        self._writer, self._step, run.splits["val"], predictions, run.config
      )
    self._save(metrics)
    logging.info(
      "step %d of %d: val/mAP %.3f, val/f1 %.3f, val/loss %.4f",
      self._step,
      self._train.num_steps,
      *(metrics[key] for key in ("mAP", "f1", "loss")),
    )
    return metrics

  def _is_time_to_save(self) -> bool:
    minutes = (time.monotonic() - self._saved_s) / 60
    is_time = minutes >= self._train.checkpoint_every_minutes
    if parallel.process_count() == 1:
      return is_time
    # Processes agree on it only when they log, because that takes a message.
    return self._is_due(self._train.log_every_steps) and parallel.agree(is_time)

  def _save(self, metrics: dict[str, float] | None = None) -> None:
    """Starts to save the state; TensorBoard's files already hold what led to it."""
    self._writer.flush()
    state, meter = parallel.unreplicate(self._state), self._meter.to_dict()
    self._run.checkpoints.save(self._step, state, metrics, meter)
    self._saved_s = time.monotonic()

  def _save_and_stop(self, received: signal.Signals) -> NoReturn:
    """Saves, unless the checkpoint of this step is what the run started from."""
    if self._run.checkpoints.latest_step() != self._step:
      self._save()
    self._run.checkpoints.wait()
    raise Stopped(
      received,
      f"{self._run.workdir} is saved at step {self._step} of {self._train.num_steps}.",
    )


def hparams(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the keys by which runs are compared in TensorBoard.

  They are the model, the seed, and the keys with other values than the base's, but not
  the places of the data and the like (`recipes.FREE_KEYS`). Tuples become text.
  """
  base = recipes.flatten(config_lib.get_config().to_dict())
  return {
    key: str(value) if isinstance(value, tuple) else value
    for key, value in recipes.flatten(config.to_dict()).items()
    if key in ("model.name", "seed")
    or (value != base.get(key) and not key.startswith(recipes.FREE_KEYS))
  }


def train_batches(run: Run, first_step: int) -> Iterator[dict[str, np.ndarray]]:
  """Returns the training stream of this process from a step on."""
  return input_pipeline.train_batches(
    run.splits["train"],
    run.config,
    first_step=first_step,
    process=evaluate.this_process(),
  )


def pmap_train_step(run: Run) -> Callable:
  """Returns the run's training step, pmapped; it reuses the old state's buffers."""
  labels = run.splits["train"].labels
  train_step = steps.create_train_step(
    run.config, run.model, run.tx, run.scales, labels, parallel.AXIS
  )
  return parallel.pmap(train_step, donate_argnums=(0,))


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
  """Returns whether something is due after a step: periodically and at the end."""
  return step % every_steps == 0 or step == num_steps
