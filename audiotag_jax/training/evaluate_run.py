"""Evaluation of a run: its results, and its model directory.

The run's own evaluation is the one of its config.json. Others are stored beside it.
"""

from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from audiotag_jax import model_directory, parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import results, thresholds
from audiotag_jax.evaluation.results import SETTINGS, Predictions
from audiotag_jax.models.create import model_fields
from audiotag_jax.training.run import Run, init_state, owned_run


def evaluate_only(config: ml_collections.ConfigDict, workdir: str) -> str:
  """Evaluates a checkpoint of a run; see `train.train_and_evaluate`.

  Raises:
    UserError: the workdir has no run, or see `train.train_and_evaluate`.
  """
  if not (Path(workdir) / workdir_lib.CONFIG).exists():
    raise UserError(f"{workdir} has no {workdir_lib.CONFIG}: give the workdir of a run")
  with owned_run(config, Path(workdir), trains=False) as run:
    return evaluate_checkpoint(run)


def place_of(run: Run) -> workdir_lib.Evaluation:
  """Returns where the evaluation that the config asks for is stored.

  Results of other settings than the run's own have a folder of their own, named after
  the split, the checkpoint and the other settings that differ.
  """
  evaluation = run.config.evaluation
  changed = [key for key in SETTINGS if evaluation[key] != run.own_evaluation[key]]
  if not changed:
    return workdir_lib.own_evaluation(run.workdir)
  named = ("split", "checkpoint")
  others = [f"{key}={evaluation[key]}" for key in changed if key not in named]
  name = "-".join([*(evaluation[key] for key in named), *others])
  return workdir_lib.other_evaluation(run.workdir, name)


def evaluate_checkpoint(run: Run) -> str:
  """Scores a split, writes the results and the model, returns the results' table."""
  config, evaluation = run.config, run.config.evaluation
  step, members = evaluated_variables(run)

  def predict(split: str) -> Predictions:
    # The members are scored one by one, so that the devices hold only one.
    return results.mean_scores(
      [run.predict(parallel.replicate(each), split) for each in members]
    )

  predictions = predict(evaluation.split)
  is_val = evaluation.split == "val"
  val = predictions if is_val else predict("val")
  if not parallel.is_main_process():
    return ""
  place = place_of(run)
  if evaluation.checkpoint != "ensemble":
    save_model(run, place.model, members[0], step, val)
  entry = results.write_results(
    place.results,
    predictions,
    None if is_val else val,
    run_name=run.workdir.name,
    threshold=evaluation.threshold,
    facts={
      "model": config.model.name,
      **{key: evaluation[key] for key in SETTINGS},
      "step": step,
      "params": sum(x.size for x in jax.tree.leaves(members[0]["params"])),
    },
  )
  return describe_results(run, place, predictions, entry)


def evaluated_variables(run: Run) -> tuple[int, list[dict[str, Any]]]:
  """Restores the checkpoints that `evaluation.checkpoint` names.

  Returns:
    The step (the last step of several checkpoints), and the `params` and `batch_stats`
    of each member; only an ensemble has several members.
  """
  which, like = run.config.evaluation.checkpoint, init_state(run)
  several = which in ("average", "ensemble")
  found = run.checkpoints.steps_of("latest" if several else which)
  members = [run.checkpoints.restore(step, like).variables for step in found]
  if which == "average":
    members = [jax.tree.map(lambda *x: np.mean(x, axis=0), *members)]
  return found[-1], members


def describe_results(
  run: Run,
  place: workdir_lib.Evaluation,
  predictions: Predictions,
  entry: dict[str, Any],
) -> str:
  """Describes the results: a table with the chance level, and the files' paths."""
  evaluation = run.config.evaluation
  rows = {f"{run.workdir.name}, at {evaluation.threshold}": entry}
  for key, title in (
    ("tuned_global", "at a threshold tuned on val"),
    ("tuned_per_class", "at one per class, tuned on val"),
  ):
    if key in entry:
      rows[title] = entry | entry[key]
  prior = results.label_prior(predictions, run.splits["train"].labels)
  rows["label prior (chance)"] = prior.metrics(evaluation.threshold)[0]
  num_empty = int((~predictions.labels.any(axis=0)).sum())
  model, own = str(place.model), workdir_lib.own_evaluation(run.workdir)
  if evaluation.checkpoint == "ensemble":
    model = "not written, because an ensemble has several"
  left_out = f"{num_empty} classes without a positive are left out of the means\n"
  kept = f"The run's own results and model stay: {own.results}, {own.model}\n"
  return (
    f"\n{evaluation.split} split, {len(predictions.fname)} clips, "
    f"{evaluation.checkpoint} checkpoint (step {entry['step']})\n"
    f"{results.table(rows)}\n"
    f"{left_out if num_empty else ''}"
    f"Results: {place.results}\n"
    f"Model:   {model}\n"
    f"{kept if place != own else ''}"
    f"Curves:  tensorboard --logdir={run.workdir}"
  )


def save_model(
  run: Run, directory: Path, variables: dict[str, Any], step: int, val: Predictions
) -> None:
  """Writes a model directory.

  Its thresholds are tuned on `val`, the model's scores of val.
  """
  description = model_directory.ModelDescription(
    architecture=run.config.model.name,
    fields=model_fields(run.model),
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
  model_directory.save_model(directory, description, variables, overwrite=True)
