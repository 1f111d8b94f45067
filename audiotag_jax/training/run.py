"""A run, opened from a config and a workdir: training and evaluation share it."""

import contextlib
import dataclasses
import functools
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
from clu import parameter_overview

from audiotag_jax import (
  checkpoint,
  compilation_cache,
  files,
  json_files,
  logs,
  model_directory,
  parallel,
  recipes,
)
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.data import content
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.data.dataset import load_splits
from audiotag_jax.data.inputs import inputs_shape
from audiotag_jax.evaluation import evaluate
from audiotag_jax.evaluation.eval_step import eval_step
from audiotag_jax.evaluation.results import SETTINGS, Predictions
from audiotag_jax.models.create import create_model
from audiotag_jax.training import finetune, optim, steps, tensorboard


@dataclasses.dataclass(frozen=True)
class Run:
  """The run of a workdir: everything that training and evaluation share.

  Attributes:
    config: the config.
    workdir: the run's folder; its last part is the run's name.
    splits: the clips of train, val and eval.
    model: the model.
    scales: the share of the learning rate that each layer gets.
    tx: the optimizer.
    checkpoints: the run's checkpoints.
    eval_step: `eval_step.eval_step`, pmapped.
    is_new: whether the workdir held no run before.
    own_evaluation: the `evaluation` of the config whose results are the run's own.
  """

  config: ml_collections.ConfigDict
  workdir: Path
  splits: dict[str, ClipIndex]
  model: nn.Module
  scales: dict[str, float]
  tx: optax.GradientTransformation
  checkpoints: checkpoint.RunCheckpoints
  eval_step: Callable
  is_new: bool
  own_evaluation: dict[str, Any]

  def predict(self, variables: dict[str, Any], split: str) -> Predictions:
    """Scores a split with replicated `params` and `batch_stats`."""
    return evaluate.predict(self.eval_step, variables, self.splits[split], self.config)


@contextlib.contextmanager
def owned_run(
  config: ml_collections.ConfigDict, workdir: Path, *, trains: bool
) -> Iterator[Run]:
  """Opens or creates the run of a workdir, and keeps other processes out of it.

  Args:
    config: the config, validated.
    workdir: the run's folder.
    trains: see `open_run`.

  Raises:
    UserError: the config is invalid, the workdir was made with another config or other
      data, or another process has the run.
  """
  check_config(config, workdir)
  with _lock(workdir):
    if parallel.is_main_process():
      results = workdir / workdir_lib.RESULTS
      for folder in (workdir, results, *results.glob("*/")):
        files.clear_leftovers(folder)
    with _log_of(workdir):
      run = open_run(config, workdir, trains=trains)
      try:
        yield run
      finally:
        run.checkpoints.close()


def _log_of(workdir: Path) -> contextlib.AbstractContextManager[None]:
  if not parallel.is_main_process():
    return contextlib.nullcontext()
  return logs.written_to(workdir / workdir_lib.LOG)


def check_config(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Checks a config against the devices and the workdir, before anything is written.

  Raises:
    UserError: see `owned_run`.
  """
  batch_size = config.train.batch_size
  parts = config.train.accumulation_steps
  parallel.check_divisible(batch_size, "train.batch_size", parts)
  parallel.check_divisible(config.evaluation.batch_size, "evaluation.batch_size")
  path = workdir / workdir_lib.CONFIG
  recipes.check_unchanged(path, config.to_dict())
  if config.init_from and not path.exists():
    # A resumed run does not need the model; a new one finds out before it has data.
    model_directory.read_description(Path(config.init_from))


def _lock(workdir: Path) -> contextlib.AbstractContextManager[None]:
  if not parallel.is_main_process():
    return contextlib.nullcontext()
  return files.owned(
    workdir / workdir_lib.LOCK,
    f"the run {workdir}",
    advice="stop it, or give another --workdir",
  )


def open_run(
  config: ml_collections.ConfigDict, workdir: Path, *, trains: bool = True
) -> Run:
  """Opens or creates the run of a workdir that the caller owns, and loads its data.

  Args:
    config: the config, validated.
    workdir: the run's folder.
    trains: whether the run may be trained further; see `find_own_evaluation`.

  Raises:
    UserError: the workdir was made with other data.
  """
  # TensorFlow reads and transforms the data; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  compilation_cache.use(config.train.compilation_cache)
  is_new = not (workdir / workdir_lib.CONFIG).exists()
  own_evaluation = find_own_evaluation(config, workdir, trains=trains)
  with parallel.main_process_first():
    clips = load_splits(config)
  content.check_unchanged(workdir / workdir_lib.DATASET, clips)
  if parallel.is_main_process():
    values = config.to_dict() | {"evaluation": own_evaluation}
    files.write_json(workdir / workdir_lib.CONFIG, values)
    content.write_record(workdir / workdir_lib.DATASET, clips)

  num_classes = clips["train"].num_classes
  model = create_model(config, num_classes=num_classes, axis_name=parallel.AXIS)
  batch_shape = (1, *inputs_shape(config))
  scales = finetune.learning_rate_scales(model, config, batch_shape)
  return Run(
    config=config,
    workdir=workdir,
    splits=clips,
    model=model,
    scales=scales,
    tx=optim.create_optimizer(config.train, scales),
    checkpoints=checkpoint.RunCheckpoints(workdir, config.train.keep_checkpoints),
    eval_step=parallel.pmap(functools.partial(eval_step, model=model)),
    is_new=is_new,
    own_evaluation=own_evaluation,
  )


def find_own_evaluation(
  config: ml_collections.ConfigDict, workdir: Path, *, trains: bool
) -> dict[str, Any]:
  """Returns the `evaluation` of the config whose results are the run's own.

  It is the one in the workdir's config.json, which a training that resumes may change
  until the run is evaluated.
  """
  path, evaluation = workdir / workdir_lib.CONFIG, config.evaluation.to_dict()
  results = workdir_lib.own_evaluation(workdir).results
  is_evaluated = (results / workdir_lib.PERFORMANCE).exists()
  if not path.exists() or (trains and not is_evaluated):
    return evaluation
  remedy = "restore it from a copy, or give another --workdir"
  values = json_files.read(path, remedy)
  json_files.check(values, {"evaluation": json_files.OBJECT}, path, remedy)
  # An older version may have had fewer keys.
  recorded = {key: values["evaluation"].get(key, evaluation[key]) for key in SETTINGS}
  return evaluation | recorded


def init_state(run: Run) -> steps.TrainState:
  """Draws the run's initial state, on the host."""
  shape = (1, *inputs_shape(run.config))
  state = steps.create_state(
    run.model,
    run.tx,
    run.config.seed,
    shape,
    with_ema=run.config.train.ema_decay > 0,
  )
  return jax.tree.map(np.asarray, state)


def restore_or_init(run: Run) -> tuple[steps.TrainState, dict[str, Any]]:
  """Returns the last whole checkpoint's state, or the initial one without a checkpoint.

  What TensorBoard's files hold of later steps is removed.

  Returns:
    The state, on the host, and the saved state of the meter.
  """
  state = init_state(run)
  restored = run.checkpoints.restore_latest(state)
  if parallel.is_main_process() and not run.is_new:
    tensorboard.forget_after(run.workdir, restored[1] if restored else None)
  if restored:
    state, step, meter = restored
    logging.info("Resuming from the checkpoint of step %d.", step)
    return state, meter
  parameter_overview.log_parameter_overview(state.params)
  if run.config.init_from:
    state = finetune.load_backbone(state, run.config)
  return state, {}
