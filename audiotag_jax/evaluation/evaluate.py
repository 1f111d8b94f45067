"""Scores of a model over a split."""

from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
from tqdm import tqdm

from audiotag_jax import parallel
from audiotag_jax.data import input_pipeline
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.evaluation.results import Predictions


def predict(
  eval_step: Callable,
  variables: Any,
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
  *,
  perturb: Callable[[np.ndarray, str], np.ndarray] | None = None,
) -> Predictions:
  """Scores every clip of a split; a clip's score is the mean over its windows.

  Args:
    eval_step: `eval_step.eval_step`, pmapped.
    variables: replicated `params` and `batch_stats`.
    clips: the clips.
    config: the config.
    perturb: a perturbation of each recording; see `input_pipeline.eval_batches`.
  """
  scores = np.zeros(clips.labels.shape, np.float64)
  num_windows = np.zeros(len(clips), np.int64)
  total_loss = 0.0
  batches = input_pipeline.eval_batches(
    clips, config, process=this_process(), perturb=perturb
  )
  num_batches = input_pipeline.num_eval_batches(clips, config)
  for batch in tqdm(batches, "evaluating", num_batches, leave=False, disable=None):
    rows = parallel.gather(eval_step(variables, parallel.shard(batch)))
    real = rows["mask"] > 0
    np.add.at(scores, rows["clip"][real], rows["scores"][real])
    np.add.at(num_windows, rows["clip"][real], 1)
    total_loss += float(rows["loss"][real].sum(dtype=np.float64))
  return Predictions(
    fname=np.array(clips.fname.tolist()),
    scores=(scores / num_windows[:, None]).astype(np.float32),
    labels=clips.labels.toarray(),
    classes=np.array(clips.classes),
    duration_s=(clips.num_samples / config.frontend.sample_rate_hz).astype(np.float32),
    loss=total_loss / int(num_windows.sum()),
  )


def this_process() -> input_pipeline.Process:
  """The part of each batch that this process reads."""
  return input_pipeline.Process(parallel.process_index(), parallel.process_count())
