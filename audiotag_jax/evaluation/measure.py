"""Robustness and cost of finished runs, measured and written beside their results."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from audiotag_jax import files, parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.data.dataset import load_splits
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import cost, robustness
from audiotag_jax.evaluation.eval_step import eval_step
from audiotag_jax.evaluation.runs import FinishedRun, load_run


def measure_run(path: Path) -> Iterator[tuple[Path, bool]]:
  """Measures a run, unless it was measured after its last evaluation.

  Args:
    path: the run's workdir, or the folder of another evaluation in its results/.

  Yields:
    Each file, once it is up to date, and whether it is new.

  Raises:
    UserError: the run is not finished, or no longer fits this data or code.
  """
  place = workdir_lib.find_evaluation(path)
  check_finished(place)
  evaluated_s = place.files[-1].stat().st_mtime
  outdated = {}
  for file, measure in (
    (workdir_lib.COST, measure_cost),
    (workdir_lib.ROBUSTNESS, measure_robustness),
  ):
    measured = place.results / file
    if measured.exists() and measured.stat().st_mtime >= evaluated_s:
      yield measured, False
    else:
      outdated[measured] = measure
  if not outdated:
    return
  run = load_run(path)
  for measured, measure in outdated.items():
    files.write_json(measured, measure(run))
    yield measured, True


def check_finished(place: workdir_lib.Evaluation) -> None:
  """Raises `UserError` if a file is missing that a finished run has."""
  for file in place.files:
    if not file.exists():
      raise UserError(
        f"{place.workdir} is not a finished run, because it has no "
        f"{file.relative_to(place.workdir)}: train it to the end, or evaluate it with "
        "--mode=evaluate"
      )


def measure_cost(run: FinishedRun) -> dict[str, Any]:
  """Measures the cost of a run's model; see `cost.measure`."""
  model, variables = run.restored
  return cost.measure(model, variables, run.config)


def measure_robustness(run: FinishedRun) -> dict[str, dict[str, float]]:
  """Measures how a run's scores hold up; see `robustness.measure`.

  Raises:
    UserError: the run was evaluated on other data.
  """
  # TensorFlow reads and transforms the data; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  config = run.config
  model, variables = run.restored
  parallel.check_divisible(config.evaluation.batch_size, "evaluation.batch_size")
  clips = load_splits(config)[config.evaluation.split]
  if not np.array_equal(run.predictions.fname, np.array(clips.fname.tolist())):
    raise UserError(
      f"{run.workdir} was evaluated on other clips than {config.evaluation.split} has "
      "now: evaluate it again, with --mode=evaluate"
    )
  step = parallel.pmap(functools.partial(eval_step, model=model))
  return robustness.measure(step, parallel.replicate(variables), clips, config)
