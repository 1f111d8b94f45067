"""Finished runs: the contents of their workdirs, and checks before a comparison."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import ml_collections
import numpy as np

from audiotag_jax import config as config_lib
from audiotag_jax import config_checks, json_files, parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import learning_curves, thresholds
from audiotag_jax.evaluation.results import SETTINGS, Predictions, load_predictions
from audiotag_jax.models.create import create_model, load_model

FIXED_THRESHOLD = 0.5
EVALUATE = "python -m audiotag_jax.main --mode=evaluate --config=… --workdir="
AGAIN = "evaluate the run again, with --mode=evaluate"
MEASURE_AGAIN = "delete it, and measure the run again with tools/measure.py"
RESTORE = "restore it from a copy, or train the run again"
_COUNT = json_files.whole(0, 2**63 - 1)
_LENGTH = json_files.number(0, math.inf)
_MEAN = json_files.optional(json_files.number(0, 1))  # null: a mean over no class
ENTRY = json_files.record(
  model=json_files.TEXT,
  split=json_files.choice(*config_checks.CHOICES["evaluation.split"]),
  checkpoint=json_files.TEXT,
  step=_COUNT,
  params=_COUNT,
  threshold=json_files.number(0, 1),
  # Older results lack these.
  crop=json_files.optional(json_files.TEXT),
  hop_s=json_files.optional(_LENGTH),
)
CONDITION = json_files.record(mAP=_MEAN)
COST = {
  "device": json_files.TEXT,
  "multiply_adds_per_clip": _COUNT,
  "clips_per_second": _LENGTH,
  "clip_s": _LENGTH,
}
# Files of the workdir: the kinds of the fields that are read.
FILES = {
  workdir_lib.CONFIG: {"init_from": json_files.optional(json_files.TEXT)},
  workdir_lib.DATASET: {
    "splits": json_files.object_of(json_files.record(sha256=json_files.TEXT))
  },
}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """A finished run, by one of its evaluations.

  Attributes:
    place: where the run and the evaluation are stored.
    entry: its entry in performance.json.
    predictions: the predictions of the evaluated split.
    val: the predictions of val; None if val is the evaluated split.
  """

  place: workdir_lib.Evaluation
  entry: dict[str, Any]
  predictions: Predictions
  val: Predictions | None

  @property
  def name(self) -> str:
    """The name in a comparison."""
    return self.place.name

  @property
  def workdir(self) -> Path:
    """The run's folder."""
    return self.place.workdir

  @functools.cached_property
  def thresholds(self) -> dict[str, Any]:
    """`fixed`, and, if there are val predictions to tune on, `global`, `per_class`."""
    if self.val is None:
      return {"fixed": FIXED_THRESHOLD}
    val = self.val.scores, self.val.labels
    return {
      "fixed": FIXED_THRESHOLD,
      "global": thresholds.tune_global(*val),
      "per_class": thresholds.tune_per_class(*val),
    }

  @property
  def operating_threshold(self) -> str:
    """The name of the threshold for all classes: the tuned one, if there is one."""
    return "fixed" if self.val is None else "global"

  @functools.cached_property
  def config(self) -> ml_collections.ConfigDict:
    """The run's config, with the settings of the evaluation.

    Raises:
      UserError: the config is damaged, or has keys that this version of the code lacks.
    """
    config, path = config_lib.get_config(), self.workdir / workdir_lib.CONFIG
    values = json_files.read(path, RESTORE)
    try:
      # Lists become tuples where the base has tuples.
      config.update(values)
      config_checks.validate_types(config)
    except (
      *(ArithmeticError, AttributeError, KeyError, TypeError, ValueError),
      UserError,
    ) as error:
      reason = " ".join(str(error).split())
      raise UserError(
        f"{path} does not fit this version of the code: {reason}"
      ) from error
    settings = {key: self.entry.get(key) for key in SETTINGS}
    config.evaluation.update({k: v for k, v in settings.items() if v is not None})
    return config

  @functools.cached_property
  def restored(self) -> tuple[nn.Module, dict[str, Any]]:
    """The run's model, and the `params` and `batch_stats` that were evaluated.

    Raises:
      UserError: the config does not fit, or the stored model is not the one that was
        evaluated.
    """
    directory = self.place.model
    description, variables = load_model(directory)
    for key in ("step", "checkpoint"):
      saved, evaluated = description.source.get(key), self.entry.get(key)
      if saved != evaluated:
        raise UserError(
          f"{directory} has {key} {saved}, but {workdir_lib.PERFORMANCE} has "
          f"{evaluated}: evaluate the run again, with --mode=evaluate"
        )
    num_classes = len(description.class_names)
    model = create_model(self.config, num_classes=num_classes, axis_name=parallel.AXIS)
    return model, variables

  def read_json(self, name: str) -> dict[str, Any]:
    """Reads a JSON file of the workdir, one of `FILES`; empty if the file is missing.

    Raises:
      UserError: the file is damaged.
    """
    return _read_if_there(self.workdir / name, FILES[name], RESTORE)

  def read_cost(self) -> dict[str, Any]:
    """Reads what `cost.measure` found; empty if the file is missing.

    Raises:
      UserError: the file is damaged.
    """
    return _read_if_there(self.place.results / workdir_lib.COST, COST, MEASURE_AGAIN)

  def read_robustness(self) -> dict[str, dict[str, Any]]:
    """Reads the metrics under each condition; empty if the file is missing.

    Raises:
      UserError: the file is damaged.
    """
    path = self.place.results / workdir_lib.ROBUSTNESS
    if not path.exists():
      return {}
    value = json_files.read(path, MEASURE_AGAIN)
    json_files.check(value, dict.fromkeys(value, CONDITION), path, MEASURE_AGAIN)
    return value

  @functools.cached_property
  def scalars(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The scalars that the run wrote for TensorBoard; empty if it did not train."""
    if not any(self.workdir.glob(workdir_lib.EVENTS)):
      return {}
    return learning_curves.read_scalars(self.workdir)


def _read_if_there(
  path: Path, kinds: dict[str, json_files.Kind], remedy: str
) -> dict[str, Any]:
  if not path.exists():
    return {}
  value = json_files.read(path, remedy)
  json_files.check(value, kinds, path, remedy)
  return value


def load_runs(workdirs: Sequence[Path]) -> list[FinishedRun]:
  """Loads the runs to compare; see `load_run`.

  Raises:
    UserError: a run is missing or not evaluated, two have the same name, or they were
      not scored on the same clips.
  """
  names = [workdir_lib.find_evaluation(workdir).name for workdir in workdirs]
  for i, name in enumerate(names):
    if name in names[:i]:
      raise UserError(
        f"{workdirs[names.index(name)]} and {workdirs[i]} are both named {name}: give "
        "each run once, and rename a folder if they are two runs"
      )
  runs = [load_run(workdir) for workdir in workdirs]
  for run in runs[1:]:
    check_comparable(runs[0], run)
  return runs


def load_run(path: Path) -> FinishedRun:
  """Loads a run by its own evaluation, or by another one.

  Args:
    path: the run's workdir, or the folder of another evaluation in its results/.

  Raises:
    UserError: results are missing or damaged.
  """
  place = workdir_lib.find_evaluation(path)
  results = place.results
  for file in (workdir_lib.PERFORMANCE, workdir_lib.PREDICTIONS):
    if not (results / file).exists():
      raise UserError(
        f"{place.workdir} has no {(results / file).relative_to(place.workdir)}: "
        f"evaluate it first, with {EVALUATE}{place.workdir}"
      )
  path = results / workdir_lib.PERFORMANCE
  entries = json_files.read(path, AGAIN)
  if len(entries) != 1:
    raise UserError(f"{path} has {len(entries)} runs, not one: {AGAIN}")
  json_files.check(entries, dict.fromkeys(entries, ENTRY), path, AGAIN)
  (entry,) = entries.values()
  val_path = results / workdir_lib.VAL_PREDICTIONS
  return FinishedRun(
    place=place,
    entry=entry,
    predictions=load_predictions(results / workdir_lib.PREDICTIONS),
    val=load_predictions(val_path) if val_path.exists() else None,
  )


def check_comparable(first: FinishedRun, other: FinishedRun) -> None:
  """Raises `UserError` unless two runs were scored on the same labelled clips."""
  difference = _difference(first, other)
  if difference:
    raise UserError(
      f"{first.name} and {other.name} cannot be compared: {difference}. Evaluate "
      f"both on the same split of the same data, with {EVALUATE}{other.workdir} "
      "--config.evaluation.split=…, and give the folders of results that it names"
    )


def _difference(first: FinishedRun, other: FinishedRun) -> str:
  """Returns why two runs cannot be compared, in words; empty if they can."""
  splits = first.entry["split"], other.entry["split"]
  if splits[0] != splits[1]:
    return f"one was evaluated on {splits[0]}, the other on {splits[1]}"
  ours, theirs = first.predictions, other.predictions
  for what, a, b in (
    ("classes", ours.classes, theirs.classes),
    ("clips", ours.fname, theirs.fname),
  ):
    if len(a) != len(b):
      return f"they have {len(a)} and {len(b)} {what}"
    if (a != b).any():
      i = int(np.argmax(a != b))
      return f"their {what} differ, first at number {i + 1} ({a[i]}, {b[i]})"
  differ = (ours.labels != theirs.labels).any(axis=1)
  if differ.any():
    clip = ours.fname[np.argmax(differ)]
    return f"the labels of {differ.sum()} clips differ, first of {clip}"
  return ""
