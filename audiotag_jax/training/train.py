"""The way from a config to a finished run."""

from pathlib import Path

import ml_collections
from absl import logging

from audiotag_jax import logs, parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import reason_of
from audiotag_jax.evaluation import learning_curves
from audiotag_jax.training.evaluate_run import evaluate_checkpoint
from audiotag_jax.training.loop import Loop
from audiotag_jax.training.run import owned_run, restore_or_init


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str) -> str:
  """Trains to the last step, resuming from the last checkpoint; then evaluates.

  Args:
    config: a recipe's config, validated.
    workdir: folder of the run; created if it does not exist.

  Returns:
    The results on the split `evaluation.split`, as text for a person.

  Raises:
    UserError: the config, the data or the workdir is invalid, or the loss diverged.
    Stopped: SIGTERM or SIGINT arrived while the run trained; it is saved.
  """
  with owned_run(config, Path(workdir), trains=True) as run:
    logs.warn_of_bad_jax()
    state, meter = restore_or_init(run)
    Loop(run, state, meter).run()
    if parallel.is_main_process():
      draw_learning_curves(run.workdir)
    return evaluate_checkpoint(run)


def draw_learning_curves(workdir: Path) -> None:
  """Draws a run's curves; a picture that cannot be drawn only gives a warning."""
  path = workdir / workdir_lib.RESULTS / workdir_lib.LEARNING_CURVES
  try:
    learning_curves.plot_learning_curves(workdir, path)
  except Exception as error:  # Matplotlib raises many kinds.
    logging.warning("%s cannot be drawn: %s", path, reason_of(error))
