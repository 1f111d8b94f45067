"""A run: wiring and the loop."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax
import tensorflow as tf
from absl import logging
from clu import metric_writers, parameter_overview, periodic_actions
from tqdm import tqdm

from audiotag_jax import checkpoint, files, model_directory, parallel
from audiotag_jax import config as config_lib
from audiotag_jax.data import input_pipeline
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.data.dataset import load_splits
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import evaluate, learning_curves, results, thresholds
from audiotag_jax.evaluation.results import Predictions
from audiotag_jax.models.create import create_model, described_fields
from audiotag_jax.training import examples, finetune, optim, steps
from audiotag_jax.training.meter import Meter


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str) -> str:
  """Trains to the last step, from the last checkpoint if there is one; evaluates.

  Args:
    config: a recipe's config, validated.
    workdir: where the run lies; made if need be.

  Returns:
    The results on the split `evaluation.split`, for a person to read.

  Raises:
    UserError: the config, the data or the workdir does not fit; the loss diverged.
  """
  run = open_run(config, Path(workdir))
  try:
    state = restore_or_init(run)
    if state.step < config.train.num_steps:
      train(run, state)
      if parallel.is_main_process():
        learning_curves.plot_learning_curves(
          run.workdir, run.results / "learning_curves.png"
        )
    return evaluate_checkpoint(run)
  finally:
    run.checkpoints.close()


def evaluate_only(config: ml_collections.ConfigDict, workdir: str) -> str:
  """Evaluates a checkpoint of a run; see `train_and_evaluate`."""
  if not (Path(workdir) / "config.json").exists():
    raise UserError(f"{workdir} holds no config.json: give the workdir of a run")
  run = open_run(config, Path(workdir))
  try:
    return evaluate_checkpoint(run)
  finally:
    run.checkpoints.close()


@dataclasses.dataclass(frozen=True)
class Run:
  """What training and evaluation share.

  Attributes:
    config: the config.
    workdir: the run's folder; its last part is the run's name.
    splits: the clips of train, val and eval.
    model: the model.
    scales: the share of the learning rate that each layer gets.
    tx: the optimizer.
    checkpoints: the run's checkpoints.
    eval_step: `steps.eval_step`, pmapped.
  """

  config: ml_collections.ConfigDict
  workdir: Path
  splits: dict[str, ClipIndex]
  model: nn.Module
  scales: dict[str, float]
  tx: optax.GradientTransformation
  checkpoints: checkpoint.RunCheckpoints
  eval_step: Callable

  @property
  def results(self) -> Path:
    return self.workdir / "results"

  def predict(self, variables: dict[str, Any], split: str) -> Predictions:
    """Scores a split with replicated `params` and `batch_stats`."""
    return evaluate.predict(self.eval_step, variables, self.splits[split], self.config)


def open_run(config: ml_collections.ConfigDict, workdir: Path) -> Run:
  """Opens, or makes, the run of a workdir, and loads its data.

  Raises:
    UserError: the config is wrong, or the workdir is of another config or data.
  """
  # TensorFlow reads and transforms the data; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  batch_size = config.train.batch_size
  parts = config.train.accumulation_steps
  parallel.check_divisible(batch_size, "train.batch_size", parts)
  parallel.check_divisible(config.evaluation.batch_size, "evaluation.batch_size")

  _check_unchanged(workdir / "config.json", config.to_dict())
  with parallel.main_process_first():
    clips = load_splits(config)
  dataset = describe_splits(clips)
  _check_unchanged(workdir / "dataset.json", dataset)
  if parallel.is_main_process():
    files.write_json(workdir / "config.json", config.to_dict())
    files.write_json(workdir / "dataset.json", dataset)

  num_classes = clips["train"].num_classes
  model = create_model(config, num_classes=num_classes, axis_name=parallel.AXIS)
  inputs_shape = (1, *input_pipeline.inputs_shape(config))
  scales = finetune.learning_rate_scales(model, config, inputs_shape)
  return Run(
    config=config,
    workdir=workdir,
    splits=clips,
    model=model,
    scales=scales,
    tx=optim.create_optimizer(config.train, scales),
    checkpoints=checkpoint.RunCheckpoints(workdir, config.train.keep_checkpoints),
    eval_step=parallel.pmap(functools.partial(steps.eval_step, model=model)),
  )


def describe_splits(clips: dict[str, ClipIndex]) -> dict[str, Any]:
  """What tells one data set's splits from another's: classes and clips."""
  return {
    "classes": list(clips["train"].classes),
    "splits": {
      name: {"num_clips": len(split), "sha256": split.sha256}
      for name, split in clips.items()
    },
  }


def _check_unchanged(path: Path, new: Any) -> None:
  """Raises `UserError` if a workdir was made with another config or data set."""
  if not path.exists():
    return
  old, new = json.loads(path.read_text()), json.loads(json.dumps(new))
  changes = config_lib.changed_keys(old, new)
  if changes:
    raise UserError(
      f"{path.parent} was made with another {path.stem}: {'; '.join(changes)}. "
      "Give another --workdir, or the values it was made with"
    )


def init_state(run: Run) -> steps.TrainState:
  """Draws the run's initial state, on the host."""
  shape = (1, *input_pipeline.inputs_shape(run.config))
  state = steps.create_state(
    run.model,
    run.tx,
    run.config.seed,
    shape,
    with_ema=run.config.train.ema_decay > 0,
  )
  return jax.tree.map(np.asarray, state)


def restore_or_init(run: Run) -> steps.TrainState:
  """Returns the last checkpoint's state, or the initial one without a checkpoint."""
  state = init_state(run)
  step = run.checkpoints.latest_step()
  if step is None:
    parameter_overview.log_parameter_overview(state.params)
    return finetune.load_backbone(state, run.config) if run.config.init_from else state
  logging.info("Going on from the checkpoint of step %d.", step)
  return run.checkpoints.restore(step, state)


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
  """The config as TensorBoard takes it: flat, and tuples as text."""
  flat = config_lib.flatten(config.to_dict())
  return {k: str(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def train_batches(run: Run, first_step: int) -> Iterator[dict[str, np.ndarray]]:
  """The training stream of this process from a step on."""
  return input_pipeline.train_batches(
    run.splits["train"],
    run.config,
    first_step=first_step,
    process=evaluate.this_process(),
  )


def pmap_train_step(run: Run) -> Callable:
  """The run's training step, pmapped; it reuses the buffers of the old state."""
  labels = run.splits["train"].labels
  train_step = steps.create_train_step(
    run.config, run.model, run.tx, run.scales, labels, parallel.AXIS
  )
  return parallel.pmap(train_step, donate_argnums=(0,))


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
  """Whether something is due after `step` steps: periodically and at the end."""
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


def evaluate_checkpoint(run: Run) -> str:
  """Scores a split, writes the results and the model, returns the results' table."""
  config, evaluation = run.config, run.config.evaluation
  step, members = evaluated_variables(run)

  def predict(split: str) -> Predictions:
    # One after the other, so that the devices hold one at a time.
    return results.mean_scores(
      [run.predict(parallel.replicate(each), split) for each in members]
    )

  predictions = predict(evaluation.split)
  is_val = evaluation.split == "val"
  val = predictions if is_val else predict("val")
  if not parallel.is_main_process():
    return ""
  if evaluation.checkpoint != "ensemble":
    save_model(run, members[0], step, val)
  entry = results.write_results(
    run.results,
    predictions,
    None if is_val else val,
    run_name=run.workdir.name,
    threshold=evaluation.threshold,
    facts={
      "model": config.model.name,
      "split": evaluation.split,
      "checkpoint": evaluation.checkpoint,
      "step": step,
      "params": sum(x.size for x in jax.tree.leaves(members[0]["params"])),
    },
  )
  return describe_results(run, predictions, entry)


def evaluated_variables(run: Run) -> tuple[int, list[dict[str, Any]]]:
  """Restores what `evaluation.checkpoint` says.

  Returns:
    The step, the last of several, and the `params` and `batch_stats`: of an ensemble,
    several.
  """
  which, like = run.config.evaluation.checkpoint, init_state(run)
  several = which in ("average", "ensemble")
  found = run.checkpoints.steps_of("latest" if several else which)
  members = [run.checkpoints.restore(step, like).variables for step in found]
  if which == "average":
    members = [jax.tree.map(lambda *x: np.mean(x, axis=0), *members)]
  return found[-1], members


def describe_results(run: Run, predictions: Predictions, entry: dict[str, Any]) -> str:
  """The results as a table with the chance level, and where they lie."""
  evaluation = run.config.evaluation
  rows = {f"{run.workdir.name}, at {evaluation.threshold}": entry}
  for key, title in (
    ("tuned_global", "at a threshold tuned on val"),
    ("tuned_per_class", "at each class's, tuned on val"),
  ):
    if key in entry:
      rows[title] = entry | entry[key]
  prior = results.label_prior(predictions, run.splits["train"].labels)
  rows["label prior (chance)"] = prior.metrics(evaluation.threshold)[0]
  num_empty = int((~predictions.labels.any(axis=0)).sum())
  several = evaluation.checkpoint == "ensemble"
  model = "none, for an ensemble is several" if several else run.workdir / "model"
  left_out = f"{num_empty} classes without a positive are left out of the means\n"
  return (
    f"\n{evaluation.split} split, {len(predictions.fname)} clips, "
    f"{evaluation.checkpoint} checkpoint (step {entry['step']})\n"
    f"{results.table(rows)}\n"
    f"{left_out if num_empty else ''}"
    f"Results: {run.results}\n"
    f"Model:   {model}\n"
    f"Curves:  tensorboard --logdir={run.workdir}"
  )


def save_model(
  run: Run, variables: dict[str, Any], step: int, val: Predictions
) -> None:
  """Writes a model directory to the workdir's model/.

  Its thresholds are tuned on `val`, what the model scores of val.
  """
  description = model_directory.ModelDescription(
    architecture=run.config.model.name,
    fields=described_fields(run.model),
    front_end=dict(run.config.frontend),
    class_names=list(run.splits["train"].classes),
    source={
      "run": run.workdir.name,
      "step": step,
      "checkpoint": run.config.evaluation.checkpoint,
    },
    thresholds={
      "global": thresholds.tune_global(val.scores, val.labels),
      "per_class": thresholds.tune_per_class(val.scores, val.labels).tolist(),
    },
    normalize=run.config.data.normalize,
  )
  model_directory.save_model(
    run.workdir / "model", description, variables, overwrite=True
  )
