"""Training: the loop, and the way from a config to a finished run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from clu import metric_writers, periodic_actions
from tqdm import tqdm

from audiotag_jax import logs, parallel, recipes
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.data import input_pipeline
from audiotag_jax.evaluation import evaluate, learning_curves
from audiotag_jax.training import examples, steps
from audiotag_jax.training.evaluate_run import evaluate_checkpoint
from audiotag_jax.training.meter import Meter
from audiotag_jax.training.run import Run, open_run, restore_or_init


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str) -> str:
  """Trains to the last step, resuming from the last checkpoint; then evaluates.

  Args:
    config: a recipe's config, validated.
    workdir: folder of the run; created if it does not exist.

  Returns:
    The results on the split `evaluation.split`, as text for a person.

  Raises:
    UserError: the config, the data or the workdir is invalid, or the loss diverged.
  """
  run = open_run(config, Path(workdir))
  logs.warn_of_bad_jax()
  try:
    state = restore_or_init(run)
    if state.step < config.train.num_steps:
      train(run, state)
      if parallel.is_main_process():
        learning_curves.plot_learning_curves(
          run.workdir, run.workdir / workdir_lib.LEARNING_CURVES
        )
    return evaluate_checkpoint(run)
  finally:
    run.checkpoints.close()


def train(run: Run, state: steps.TrainState) -> None:
  """Trains from a state to the last step, with validations and checkpoints."""
  config, num_steps = run.config, run.config.train.num_steps
  first_step = int(state.step)
  batches = train_batches(run, first_step)
  train_step = pmap_train_step(run)
  state = parallel.replicate(state)

  writer = metric_writers.create_default_writer(
    str(run.workdir), just_logging=not parallel.is_main_process()
  )
  progress = periodic_actions.ReportProgress(num_train_steps=num_steps)
  hooks = [progress]
  if config.train.profile and parallel.is_main_process():
    hooks.append(periodic_actions.Profile(logdir=str(run.workdir)))
  meter = Meter(run.checkpoints)
  bar = tqdm(total=num_steps, initial=first_step, desc="training", disable=None)
  with metric_writers.ensure_flushes(writer), bar:
    if first_step == 0:
      writer.write_hparams(hparams(config))
      examples.write_audio(writer, run.splits["val"], config)
    for step in range(first_step + 1, num_steps + 1):
      with meter.waiting_for_data():
        batch = next(batches)
      state, metrics = train_step(state, parallel.shard(batch))
      meter.add(step, metrics)
      bar.update()
      if is_due(step, config.train.log_every_steps, num_steps):
        writer.write_scalars(step, meter.summarize())
      if is_due(step, config.train.eval_every_steps, num_steps):
        meter.check_finite()
        with progress.timed("validation"), meter.paused():
          metrics = validate(run, state, writer, step)
        run.checkpoints.save(step, parallel.unreplicate(state), metrics)
        bar.set_postfix(mAP=f"{metrics['mAP']:.3f}")
      for hook in hooks:
        hook(step)


def hparams(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the config as TensorBoard takes it: flat, and tuples as text."""
  flat = recipes.flatten(config.to_dict())
  return {k: str(v) if isinstance(v, tuple) else v for k, v in flat.items()}


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


def validate(
  run: Run, state: steps.TrainState, writer: metric_writers.MetricWriter, step: int
) -> dict[str, float]:
  """Scores val, writes its metrics and some examples, returns the metrics."""
  predictions = run.predict(state.variables, "val")
  metrics, _ = predictions.metrics(run.config.evaluation.threshold)
  metrics["loss"] = predictions.loss
  writer.write_scalars(step, {f"val/{key}": value for key, value in metrics.items()})
  examples.write_predictions(writer, step, run.splits["val"], predictions, run.config)
  return metrics
