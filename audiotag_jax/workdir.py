"""Names of the files in a run's folder, each stated once."""

from pathlib import Path
from typing import NamedTuple

# The file that the process of the run locks.
LOCK = ".lock"
CONFIG = "config.json"
# The lines that the run has logged, those that its terminal did not show included.
LOG = "log.txt"
DATASET = "dataset.json"
CHECKPOINTS = "checkpoints"
# Checkpoints that could not be read when the run was resumed.
DAMAGED_CHECKPOINTS = "damaged_checkpoints"
# TensorBoard's event files.
EVENTS = "events.out.tfevents.*"
# Evaluated weights, as a model directory.
MODEL = "model"
# The description in any model directory.
DESCRIPTION = "model.json"
# The folder of the run's own evaluation, which holds the folders of its others.
RESULTS = "results"

# Files in the folder of an evaluation.
PERFORMANCE = "performance.json"
PER_CLASS = "per_class.csv"
PREDICTIONS = "predictions.npz"
VAL_PREDICTIONS = "val_predictions.npz"
LEARNING_CURVES = "learning_curves.png"
ROBUSTNESS = "robustness.json"
COST = "cost.json"


class Evaluation(NamedTuple):
  """The places of an evaluation of a run.

  Attributes:
    workdir: the run's folder.
    results: the folder of the evaluation's results.
    model: the model directory of the evaluated weights.
  """

  workdir: Path
  results: Path
  model: Path

  @property
  def name(self) -> str:
    """The run's name; of another evaluation than its own, also the evaluation's."""
    run = self.workdir.resolve().name
    is_own = self.results == self.workdir / RESULTS
    return run if is_own else f"{run}/{self.results.name}"

  @property
  def files(self) -> list[Path]:
    """Files of a finished evaluation; the last of them is written last."""
    return [
      self.workdir / CONFIG,
      self.model / DESCRIPTION,
      self.results / PERFORMANCE,
      self.results / PREDICTIONS,
    ]


def own_evaluation(workdir: Path) -> Evaluation:
  """Returns where the run's own evaluation is stored: that of its config.json."""
  return Evaluation(workdir, workdir / RESULTS, workdir / MODEL)


def other_evaluation(workdir: Path, name: str) -> Evaluation:
  """Returns where another evaluation of the run is stored, such as `val-last`."""
  results = workdir / RESULTS / name
  return Evaluation(workdir, results, results / MODEL)


def find_evaluation(path: Path) -> Evaluation:
  """Returns the own evaluation of a workdir, or the other one that a folder holds."""
  full = path.absolute()
  if full.parent.name == RESULTS and (path / PERFORMANCE).exists():
    return other_evaluation(full.parents[1], full.name)
  return own_evaluation(path)
