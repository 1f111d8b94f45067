"""Measures how robust finished runs are, and what their models cost.

python tools/measure.py runs/crnn_fsd50k runs/cnn14_fsd50k

Writes results/robustness.json and results/cost.json of each run, for the weights and
the split that its results/performance.json is of.
"""

import argparse
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import ml_collections
import numpy as np

from audiotag_jax import config as config_lib
from audiotag_jax import files, logs, model_directory, parallel
from audiotag_jax.errors import UserError, exit_on_user_error
from audiotag_jax.models.create import create_model
from audiotag_jax.training import steps

# What a finished run has, of which the last is written last.
FILES = (
  "config.json",
  "model/model.json",
  "results/performance.json",
  "results/predictions.npz",
)


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
  """A run as it was evaluated.

  Attributes:
    workdir: the run's folder.
    config: its config, with the split and the threshold of its results.
    model: its model.
    variables: `params` and `batch_stats` of the checkpoint that was evaluated.
  """

  workdir: Path
  config: ml_collections.ConfigDict
  model: nn.Module
  variables: dict[str, Any]


def measure_run(workdir: Path) -> None:
  """Measures what is not yet measured, or was before the run was evaluated last.

  Raises:
    UserError: it is no finished run, or not of this data or code any more.
  """
  for name in FILES:
    if not (workdir / name).exists():
      raise UserError(
        f"{workdir} is no finished run, for it has no {name}: train it to the end, or "
        "evaluate it with --mode=evaluate"
      )
  evaluated_s = (workdir / FILES[-1]).stat().st_mtime
  outdated = {}
  for name, measure in {"cost": measure_cost, "robustness": measure_robustness}.items():
    path = workdir / "results" / f"{name}.json"
    if path.exists() and path.stat().st_mtime >= evaluated_s:
      print(f"{path} is there, and newer than the evaluation")
    else:
      outdated[path] = measure
  run = read_run(workdir) if outdated else None
  for path, measure in outdated.items():
    files.write_json(path, measure(run))
    print(path)


def read_run(workdir: Path) -> EvaluatedRun:
  """Reads a finished run's config and model.

  Raises:
    UserError: the config has keys that this code lacks, or the model is not the one
      that was evaluated.
  """
  config = config_lib.get_config()
  try:
    # Lists become tuples where the base has tuples.
    config.update(json.loads((workdir / "config.json").read_text()))
  except (AttributeError, KeyError, TypeError) as error:
    reason = " ".join(str(error).split())
    raise UserError(
      f"{workdir}/config.json does not fit this version of the code: {reason}"
    ) from error
  performance = json.loads((workdir / "results/performance.json").read_text())
  (entry,) = performance.values()
  config.evaluation.split = entry["split"]
  config.evaluation.threshold = entry["threshold"]

  description, variables = model_directory.load_model(workdir / "model")
  for key in ("step", "checkpoint"):
    saved, evaluated = description.source.get(key), entry.get(key)
    if saved != evaluated:
      raise UserError(
        f"{workdir}/model is of {key} {saved}, but results/performance.json of "
        f"{evaluated}: evaluate the run again, with --mode=evaluate"
      )
  num_classes = len(description.class_names)
  model = create_model(config, num_classes=num_classes, axis_name=parallel.AXIS)
  return EvaluatedRun(workdir, config, model, variables)


def measure_cost(run: EvaluatedRun) -> dict[str, Any]:
  """See `evaluation.cost.measure`."""
  from audiotag_jax.evaluation import cost

  return cost.measure(run.model, run.variables, run.config)


def measure_robustness(run: EvaluatedRun) -> dict[str, dict[str, float]]:
  """See `evaluation.robustness.measure`.

  Raises:
    UserError: the data is not what the run was evaluated on.
  """
  import tensorflow as tf

  from audiotag_jax.data.dataset import load_splits
  from audiotag_jax.evaluation import robustness

  # TensorFlow reads and transforms the data; the accelerators are JAX's.
  tf.config.set_visible_devices([], "GPU")
  config = run.config
  parallel.check_divisible(config.evaluation.batch_size, "evaluation.batch_size")
  clips = load_splits(config)
  clips = clips[config.evaluation.split]
  with np.load(run.workdir / "results/predictions.npz") as predictions:
    if not np.array_equal(predictions["fname"], clips.fname):
      raise UserError(
        f"{run.workdir} was evaluated on other clips than those of "
        f"{config.evaluation.split} now: evaluate it again, with --mode=evaluate"
      )
  eval_step = parallel.pmap(functools.partial(steps.eval_step, model=run.model))
  return robustness.measure(eval_step, parallel.replicate(run.variables), clips, config)


def parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "workdirs", type=Path, nargs="+", metavar="WORKDIR", help="folder of a run"
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  for workdir in args.workdirs:
    measure_run(workdir)


if __name__ == "__main__":
  main()
