"""A comparison of runs as plain data: every number of the report.

Metrics come from metrics.py, their intervals from bootstrap.py.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from audiotag_jax import workdir as workdir_lib
from audiotag_jax.evaluation import bootstrap, metrics
from audiotag_jax.evaluation.results import Predictions, label_prior
from audiotag_jax.evaluation.runs import FIXED_THRESHOLD, FinishedRun
from audiotag_jax.reporting.formatting import Estimate

CURVES = ("train/loss", "val/loss", "val/mAP")
# Share of the final val mAP at which a run counts as nearly converged.
NEARLY = 0.9
# Bins of Guo et al., "On calibration of modern neural networks" (2017), section 5.
NUM_CALIBRATION_BINS = 15
# Fewest clips of a bin, as a number and as a share of all clips.
LEAST_CLIPS = 15
LEAST_SHARE = 1 / 12
DURATION_EDGES_S = (0, 1, 3, 5, 10, 20)


@dataclasses.dataclass(frozen=True)
class Scored:
  """A run's metrics.

  Attributes:
    run: the run.
    values: the metrics by the threshold's name and then the metric's name: numbers, and
      <float64>[classes] for "AP".
    samples: the same metrics in each resample; see `bootstrap.Samples`.
  """

  run: FinishedRun
  values: dict[str, dict[str, Any]]
  samples: bootstrap.Samples

  def estimate(self, threshold: str, metric: str) -> Estimate:
    """A metric at a threshold (`fixed`, `global` or `per_class`)."""
    value = self.values[threshold][metric]
    return estimate(metric, value, self.samples[threshold][metric])

  def class_estimate(self, c: int) -> Estimate:
    """The average precision of a class."""
    value = self.values["fixed"]["AP"][c]
    return estimate("AP", value, self.samples["fixed"]["AP"][:, c])


def estimate(metric: str, value: float, samples: np.ndarray) -> Estimate:
  """A metric with its interval, no wider than the metric's range."""
  ends = bootstrap.interval(samples, value)
  if metric != "d_prime":
    ends = np.clip(ends, 0, 1).tolist()
  return Estimate(value, *ends)


def score(run: FinishedRun) -> Scored:
  """Computes a run's metrics at each of its thresholds, and their resamples."""
  return Scored(
    run,
    values={
      name: _values(run.predictions, threshold)
      for name, threshold in run.thresholds.items()
    },
    samples=bootstrap.bootstrap(
      run.predictions.scores,
      run.predictions.labels,
      run.thresholds,
      description=f"bootstrap of {run.name}",
    ),
  )


def _values(predictions: Predictions, threshold: float | np.ndarray) -> dict:
  overall, classes = predictions.metrics(threshold)
  return overall | {"AP": classes["AP"]}


def clips_differ(runs: Sequence[FinishedRun], split: str) -> bool:
  """Returns whether runs that record a split's clips disagree about them."""
  datasets = [run.read_json(workdir_lib.DATASET) for run in runs]
  splits = [d["splits"].get(split, {}) for d in datasets if d]
  return len({clips.get("sha256") for clips in splits}) > 1


def chance(runs: Sequence[FinishedRun]) -> dict[str, float] | None:
  """The metrics of scoring every clip with each class's share of the val clips.

  The result is None if no run has val predictions.
  """
  val = next((run.val for run in runs if run.val is not None), None)
  if val is None:
    return None
  prior = label_prior(runs[0].predictions, val.labels)
  calibration = brier_and_calibration_error(prior.scores, prior.labels)
  return _values(prior, FIXED_THRESHOLD) | calibration


def pairs(scored: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
  """Pairs each run with each other, or, if there are more than 3, only the first."""
  if len(scored) <= 3:
    return list(itertools.combinations(scored, 2))
  return [(scored[0], other) for other in scored[1:]]


def difference(first: Scored, second: Scored, threshold: str, metric: str) -> Estimate:
  """The second run's metric minus the first run's; the resamples are paired."""
  # Two infinite d' have no difference.
  with np.errstate(invalid="ignore"):
    samples = second.samples[threshold][metric] - first.samples[threshold][metric]
    value = np.subtract(
      second.values[threshold][metric], first.values[threshold][metric]
    )
  return Estimate(float(value), *bootstrap.interval(samples, value))


def class_differences(first: Scored, second: Scored) -> dict[int, Estimate]:
  """The second run's AP of each class minus the first run's, largest first."""
  values = second.values["fixed"]["AP"] - first.values["fixed"]["AP"]
  samples = second.samples["fixed"]["AP"] - first.samples["fixed"]["AP"]
  order = [int(c) for c in np.argsort(-values) if not np.isnan(values[c])]
  return {
    c: Estimate(values[c], *bootstrap.interval(samples[:, c], values[c])) for c in order
  }


@dataclasses.dataclass(frozen=True)
class Curve:
  """A scalar over training: steps, minutes of training and values, [points] each."""

  steps: np.ndarray
  minutes: np.ndarray
  values: np.ndarray


def curves(run: FinishedRun) -> dict[str, Curve]:
  """A run's learning curves; empty if the run wrote none.

  Training time is the sum over log intervals of steps / steps_per_second, which leaves
  out validations and stops.
  """
  scalars = run.scalars
  if not {*CURVES, "train/steps_per_second"} <= scalars.keys():
    return {}
  log_steps, steps_per_second = scalars["train/steps_per_second"]
  seconds = np.cumsum(np.diff(log_steps, prepend=0) / steps_per_second)

  def minutes_at(steps: np.ndarray) -> np.ndarray:
    return np.interp(steps, np.r_[0, log_steps], np.r_[0, seconds / 60])

  return {
    tag: Curve(scalars[tag][0], minutes_at(scalars[tag][0]), scalars[tag][1])
    for tag in CURVES
  }


def convergence(curve: Curve) -> dict[str, float]:
  """The final, best and nearly final val mAP of a run, and the steps of each."""
  final, best = curve.values[-1], int(np.argmax(curve.values))
  nearly = int(np.argmax(curve.values >= NEARLY * final))
  return {
    "final": final,
    "best": curve.values[best],
    "best_step": curve.steps[best],
    "steps": curve.steps[-1],
    "minutes": curve.minutes[-1],
    "nearly_steps": curve.steps[nearly],
    "nearly_minutes": curve.minutes[nearly],
  }


def reliability(scores: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Bins all decisions of a split by their score, in bins of equal width.

  Returns:
    Arrays [bins]: `count`, and the means `score` and `positive` (NaN in empty bins).
  """
  scores = scores.ravel().astype(np.float64)
  bins = np.minimum(scores * NUM_CALIBRATION_BINS, NUM_CALIBRATION_BINS - 1).astype(int)

  def per_bin(weights: np.ndarray | None) -> np.ndarray:
    return np.bincount(bins, weights, NUM_CALIBRATION_BINS)

  count = per_bin(None)
  nonzero = np.where(count > 0, count, np.nan)
  return {
    "count": count,
    "score": per_bin(scores) / nonzero,
    "positive": per_bin(labels.ravel()) / nonzero,
  }


def brier_and_calibration_error(
  scores: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
  """`brier`, the mean squared error, and `ece`, the expected calibration error.

  The calibration error is the mean, over decisions, of their bin's gap between mean
  score and share of positives.
  """
  bins = reliability(scores, labels)
  gaps = np.abs(bins["score"] - bins["positive"])
  return {
    "brier": float(np.square(scores.astype(np.float64) - labels).mean()),
    "ece": float(np.nansum(gaps * bins["count"]) / bins["count"].sum()),
  }


def co_occurrence(labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
  """Computes how often the most frequent classes come together.

  Returns:
    The classes' indices <int>[n], the most frequent first, and the share of the row's
    clips that also have the column's label <float64>[n, n], NaN on the diagonal.
  """
  support = labels.sum(axis=0, dtype=np.int64)
  frequent = np.argsort(-support, kind="stable")[: min(most, (support > 0).sum())]
  chosen = labels[:, frequent].astype(np.float32)
  share = (chosen.T @ chosen).astype(np.float64) / support[frequent, None]
  np.fill_diagonal(share, np.nan)
  return frequent, share


def confusions(
  scores: np.ndarray, labels: np.ndarray, threshold: float, most: int
) -> list[tuple[int, int, int, int]]:
  """The commonest pairs of a missed class and a wrongly predicted class in a clip.

  Returns:
    Tuples of the missed class, the wrongly predicted class, the clips where both
    happened, and all clips where the former was missed.
  """
  decisions, labels = metrics.decide(scores, threshold), labels.astype(bool)
  missed = (labels & ~decisions).astype(np.float32)
  wrong = (decisions & ~labels).astype(np.float32)
  counts = (missed.T @ wrong).astype(np.int64)
  order = np.argsort(-counts, axis=None, kind="stable")[:most]
  commonest = np.transpose(np.unravel_index(order, counts.shape)).tolist()
  num_missed = missed.sum(axis=0).astype(np.int64)
  return [
    (a, b, int(counts[a, b]), int(num_missed[a])) for a, b in commonest if counts[a, b]
  ]


def precision_recall(
  scores: np.ndarray, labels: np.ndarray, num_points: int = 400
) -> tuple[np.ndarray, np.ndarray]:
  """The micro-averaged curve: recall (evenly spaced, ascending) and precision."""
  precision, recall, _ = precision_recall_curve(labels.ravel(), scores.ravel())
  precision, recall = precision[::-1], recall[::-1]
  points = np.searchsorted(recall, np.linspace(0, 1, num_points)[1:])
  return recall[points], precision[points]


def merged_edges(values: np.ndarray, edges: Sequence[float]) -> list[float]:
  """Drops lower edges of bins until each bin holds enough of the values.

  Args:
    values: [clips], none below the first edge.
    edges: the bins' lower edges, ascending; the last bin is open.
  """
  least = max(LEAST_CLIPS, LEAST_SHARE * len(values))
  kept = [edges[0]]
  for edge in edges[1:]:
    num_in_bin = ((values >= kept[-1]) & (values < edge)).sum()
    if num_in_bin >= least and (values >= edge).sum() >= least:
      kept.append(edge)
  return kept


@dataclasses.dataclass(frozen=True)
class Bin:
  """Clips with something in common: its name, and a mask of the clips <bool>[clips]."""

  name: str
  clips: np.ndarray


def bins_by_labels(labels: np.ndarray) -> list[Bin]:
  """Bins of clips by their number of labels; clips without labels are left out."""
  counts = labels.sum(axis=1, dtype=np.int64)
  labelled = counts[counts > 0]
  edges = merged_edges(labelled, range(1, int(labelled.max(initial=1)) + 1))
  ends = [*(edge - 1 for edge in edges[1:]), None]
  return [
    Bin(_range(first, last), (counts >= first) & (counts <= (last or counts.max())))
    for first, last in zip(edges, ends, strict=True)
  ]


def _range(first: float, last: float | None) -> str:
  if last is None:
    return f"{first}+"
  return str(first) if first == last else f"{first}–{last}"


def bins_by_duration(duration_s: np.ndarray) -> list[Bin]:
  """Bins of clips by their length in seconds."""
  edges = merged_edges(duration_s, DURATION_EDGES_S)
  bins = []
  for low, high in zip(edges, [*edges[1:], np.inf], strict=True):
    name = f"< {high:g}" if not low else f"≥ {low:g}" if high == np.inf else ""
    name = "any" if (low, high) == (0, np.inf) else name or f"{low:g}–{high:g}"
    bins.append(Bin(name, (duration_s >= low) & (duration_s < high)))
  return bins


def score_bin(run: FinishedRun, chosen: Bin) -> dict[str, Estimate]:
  """`mAP` and `f1` (at the operating threshold) over a bin's clips, resampled alone.

  Only classes with positives among these clips count in the mAP.
  """
  part = dataclasses.replace(
    run.predictions,
    scores=run.predictions.scores[chosen.clips],
    labels=run.predictions.labels[chosen.clips],
  )
  threshold = run.thresholds[run.operating_threshold]
  values = _values(part, threshold)
  samples = bootstrap.bootstrap(
    part.scores,
    part.labels,
    {"operating": threshold},
    description=f"bootstrap of {run.name}: {chosen.name}",
  )["operating"]
  return {
    metric: estimate(metric, values[metric], samples[metric])
    for metric in ("mAP", "f1")
  }


def robustness(runs: Sequence[FinishedRun]) -> tuple[list[str], dict[str, np.ndarray]]:
  """The mAP under the conditions of robustness.json, of the runs that have the file.

  Returns:
    The conditions, the first being "clean", and each run's mAP <float64>[conditions],
    NaN where it is missing.
  """
  results = {run.name: run.read_robustness() for run in runs}
  results = {name: result for name, result in results.items() if result}
  conditions = list(dict.fromkeys(itertools.chain(*results.values())))
  return conditions, {
    name: np.array([result.get(c, {}).get("mAP") for c in conditions], np.float64)
    for name, result in results.items()
  }
