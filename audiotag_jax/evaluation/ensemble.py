"""Ensembles of finished runs: the mean of their scores, as results like a run's."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiotag_jax import files
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import results
from audiotag_jax.evaluation.runs import FinishedRun, load_runs


def write_ensemble(
  workdirs: Sequence[Path], output: Path, *, overwrite: bool = False
) -> dict[str, Any]:
  """Averages the scores of runs, those of val too, and writes the results.

  Args:
    workdirs: the runs' workdirs.
    output: a folder like a run's, with `results` and `dataset.json`; its last part is
      the ensemble's name.
    overwrite: whether to replace an existing ensemble.

  Returns:
    The ensemble's entry in performance.json.

  Raises:
    UserError: there are fewer than two runs, their clips differ, or `output` must not
      be overwritten. Nothing is written then.
  """
  files.check_output(output, overwrite)
  if len(workdirs) < 2:
    raise UserError(f"an ensemble takes two runs or more, not {len(workdirs)}")
  runs = load_runs(workdirs)
  if (output / workdir_lib.CONFIG).exists():
    raise UserError(f"{output} is a run, not an ensemble: give another --output")
  dataset = runs[0].workdir / workdir_lib.DATASET
  entry = results.write_results(
    output / workdir_lib.RESULTS,
    results.mean_scores([run.predictions for run in runs]),
    _mean_of_val(runs),
    run_name=output.resolve().name,
    threshold=runs[0].entry["threshold"],
    facts={
      "model": "ensemble of " + ", ".join(run.name for run in runs),
      "split": runs[0].entry["split"],
      "checkpoint": "ensemble",
      "step": max(run.entry["step"] for run in runs),
      "params": sum(run.entry["params"] for run in runs),
    },
  )
  shutil.copyfile(dataset, output / workdir_lib.DATASET)
  return entry


def _mean_of_val(runs: Sequence[FinishedRun]) -> results.Predictions | None:
  """The mean scores of val; None if val is the evaluated split.

  Raises:
    UserError: the runs' val clips differ.
  """
  if runs[0].val is None:
    return None
  for run in runs[1:]:
    if run.val is None or run.val.fname.tolist() != runs[0].val.fname.tolist():
      raise UserError(
        f"{runs[0].workdir} and {run.workdir} have different val clips, so that no "
        "threshold can be tuned for both: train them on the same splits"
      )
  return results.mean_scores([run.val for run in runs if run.val is not None])
