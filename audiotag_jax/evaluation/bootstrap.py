"""The bootstrap: how much metrics would vary with other clips of the same kind.

A resample draws as many clips as there are, with replacement (Efron & Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13). It is stored as the number of times
that each clip is drawn. These numbers are weights of the clips, so that one sort of
each class's scores serves all resamples. Metrics are defined as in metrics.py, and ties
count as in scikit-learn.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import scipy.sparse
import scipy.stats
from tqdm import tqdm

from audiotag_jax.evaluation import metrics

NUM_RESAMPLES = 1000
SEED = 0
# The ends of a 95 % interval: the shares of the resamples at or below them.
TAILS = (0.025, 0.975)
# Weights held at a time: 4 MB of float32.
CHUNK_ELEMENTS = 2**20

# Metrics in each resample, by the threshold's name and then the metric's name:
# <float64>[resamples], and [resamples, classes] for "AP".
Samples = dict[str, dict[str, np.ndarray]]


def bootstrap(
  scores: np.ndarray,
  labels: np.ndarray,
  thresholds: Mapping[str, float | np.ndarray],
  *,
  description: str = "bootstrap",
  num_resamples: int = NUM_RESAMPLES,
) -> Samples:
  """Computes the metrics of a split in each of the resamples of its clips.

  The resamples depend only on the numbers of clips and of resamples. Runs scored on the
  same clips are therefore compared on the same resamples, and their differences are
  paired.

  Args:
    scores: <float>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
    thresholds: by name, the scores from which a class counts as present.
    description: the text of the progress bar.
    num_resamples: the number of resamples.
  """
  split = prepare(scores, labels, thresholds)
  with tqdm(total=num_resamples, desc=description, leave=False, disable=None) as bar:
    chunks = []
    for weights in resamples(len(labels), num_resamples):
      chunks.append(weighted_metrics(split, weights))
      bar.update(weights.shape[1])
  return {
    threshold: {
      metric: np.concatenate([chunk[threshold][metric] for chunk in chunks])
      for metric in chunks[0][threshold]
    }
    for threshold in thresholds
  }


def resamples(num_clips: int, num_resamples: int) -> Iterator[np.ndarray]:
  """Yields how often each clip is drawn, <float32>[clips, resamples of a chunk]."""
  rng = np.random.default_rng(SEED)
  chunk = max(1, CHUNK_ELEMENTS // num_clips)
  for start in range(0, num_resamples, chunk):
    size = min(chunk, num_resamples - start)
    drawn = rng.integers(num_clips, size=(size, num_clips))
    drawn += num_clips * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * num_clips)
    yield np.ascontiguousarray(counts.reshape(size, num_clips).T, np.float32)


def interval(samples: np.ndarray, value: float) -> tuple[float, float]:
  """The 95 % percentile interval of a metric, corrected for the resamples' bias.

  A resample repeats clips, which raises average precision: if classes have few
  positives, all resamples may be above the value itself. The 2.5 and 97.5 % points of
  the resamples are therefore shifted by the difference between the value and the
  resamples' mean. In simulations of 1445 clips, 200 classes and 3.5 labels per clip,
  95 % of the intervals of the mAP contained the true value, and 20 % without the shift.

  Args:
    samples: the metric in each resample; resamples without it (NaN) are left out.
    value: the metric itself.
  """
  samples = samples[~np.isnan(samples)]
  if not len(samples):
    return np.nan, np.nan
  # A perfect AUC has an infinite d'. Each point is a resample, not a value between two.
  finite = samples[np.isfinite(samples)]
  bias = finite.mean() - value if len(finite) and np.isfinite(value) else 0.0
  low, high = np.quantile(samples, TAILS, method="inverted_cdf") - bias
  return float(low), float(high)


@dataclasses.dataclass(frozen=True)
class Ranking:
  """The order of a class's clips by score, cut at its positives.

  A group is all clips of one score that at least one positive has.

  Attributes:
    segments: <float32>[2 * groups + 1, clips], of ones: in turn, the clips before a
      group and the group, from the highest score down; then the rest.
    positives: <float32>[groups, clips], of ones: the positives of each group.
  """

  segments: scipy.sparse.csr_array
  positives: scipy.sparse.csr_array


@dataclasses.dataclass(frozen=True)
class Split:
  """Parts of a split's scores and labels that the metrics of all resamples share.

  Attributes:
    rankings: the ranking of each class.
    label_precision: <float32>[clips], the sum of the precisions at a clip's true
      labels, classes ranked within the clip.
    labels: <float32>[classes, clips].
    decisions: <float32>[classes, clips] at each threshold.
  """

  rankings: list[Ranking]
  label_precision: np.ndarray
  labels: np.ndarray
  decisions: dict[str, np.ndarray]


def prepare(
  scores: np.ndarray,
  labels: np.ndarray,
  thresholds: Mapping[str, float | np.ndarray],
) -> Split:
  """Computes the parts that do not depend on the weights; see `bootstrap`."""
  return Split(
    rankings=[rank(*pair) for pair in zip(scores.T, labels.T, strict=True)],
    label_precision=label_precision(scores, labels),
    labels=np.ascontiguousarray(labels.T, np.float32),
    decisions={
      name: np.ascontiguousarray(metrics.decide(scores, threshold).T, np.float32)
      for name, threshold in thresholds.items()
    },
  )


def weighted_metrics(split: Split, weights: np.ndarray) -> Samples:
  """Computes the metrics for weights <float32>[clips, resamples].

  The weights are whole numbers, whose sums are exact up to 2**24.
  """
  curves = [ranking_metrics(ranking, weights) for ranking in split.rankings]
  average_precision, auc = np.stack(curves, axis=-1)
  mean_auc = _mean(auc)
  ranked = {
    "AP": average_precision,
    "mAP": _mean(average_precision),
    "auc": mean_auc,
    "d_prime": np.sqrt(2.0) * scipy.stats.norm.ppf(mean_auc),
    "lwlrap": _ratio(
      split.label_precision @ weights, split.labels.sum(axis=0) @ weights, np.nan
    ),
  }
  return {
    name: ranked | decision_metrics(split.labels, decisions, weights)
    for name, decisions in split.decisions.items()
  }


def rank(scores: np.ndarray, labels: np.ndarray) -> Ranking:
  """Ranks the clips of a class by scores [clips], given labels [clips]."""
  order = np.argsort(-scores, kind="stable")
  group = np.cumsum(np.diff(scores[order], prepend=scores[order[0]]) != 0)
  positive = labels[order] > 0
  groups = np.unique(group[positive])
  starts = np.searchsorted(group, groups)
  ends = np.searchsorted(group, groups, side="right")
  bounds = np.stack([starts, ends], axis=1).ravel()
  num_positives = np.searchsorted(group[positive], groups, side="right")
  return Ranking(
    segments=_rows_of_ones(order, np.r_[0, bounds, len(order)], len(order)),
    positives=_rows_of_ones(order[positive], np.r_[0, num_positives], len(order)),
  )


def ranking_metrics(
  ranking: Ranking, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Average precision and AUC of a class, <float64>[resamples] each.

  Both are NaN if no positive has weight; the AUC is also NaN if no negative has weight.
  """
  if not ranking.positives.shape[0]:
    nan = np.full(weights.shape[1], np.nan)
    return nan, nan.copy()
  seen = np.cumsum(ranking.segments @ weights, axis=0, dtype=np.float64)
  before, through, total = seen[0:-1:2], seen[1::2], seen[-1]
  hits_here = (ranking.positives @ weights).astype(np.float64)
  hits = np.cumsum(hits_here, axis=0)
  num_positives, num_negatives = hits[-1], total - hits[-1]

  precision = _ratio(hits, through, 0.0)
  average_precision = _ratio((hits_here * precision).sum(axis=0), num_positives, np.nan)
  # A positive is right about the negatives below it, and half right about the negatives
  # of its own score.
  above = (before - (hits - hits_here) + through - hits) / 2
  right = (hits_here * (num_negatives - above)).sum(axis=0)
  return average_precision, _ratio(right, num_positives * num_negatives, np.nan)


def decision_metrics(
  labels: np.ndarray, decisions: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
  """The metrics of decisions, <float64>[resamples] each; see `metrics.overall`.

  Args:
    labels: <float32>[classes, clips].
    decisions: <float32>[classes, clips].
    weights: <float32>[clips, resamples].
  """
  right = ((labels * decisions) @ weights).astype(np.float64)
  present = (labels @ weights).astype(np.float64)
  predicted = (decisions @ weights).astype(np.float64)
  wrong = (present + predicted - 2 * right).sum(axis=0)
  micro = _precision_recall_f1(
    right.sum(axis=0), present.sum(axis=0), predicted.sum(axis=0)
  )
  per_class = _precision_recall_f1(right, present, predicted)
  return {
    "accuracy": 1 - wrong / (len(labels) * weights.sum(axis=0, dtype=np.float64)),
    **micro,
    **{
      f"{name}_macro": _mean(np.where(present > 0, values, np.nan).T)
      for name, values in per_class.items()
    },
  }


def label_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Sums the precision at each true label of each clip, <float32>[clips].

  The precision at a label is the share of true labels among the classes that score at
  least as high in the clip. `metrics.lwlrap` averages these precisions.
  """
  sums = np.zeros(len(labels), np.float32)
  for i, (clip_scores, clip_labels) in enumerate(zip(scores, labels, strict=True)):
    true_scores = clip_scores[clip_labels > 0]
    hits = (true_scores >= true_scores[:, None]).sum(axis=1)
    sums[i] = (hits / (clip_scores >= true_scores[:, None]).sum(axis=1)).sum()
  return sums


def _rows_of_ones(
  columns: np.ndarray, bounds: np.ndarray, num_columns: int
) -> scipy.sparse.csr_array:
  """A sparse matrix with ones in row r at columns[bounds[r]:bounds[r + 1]]."""
  ones = np.ones(len(columns), np.float32)
  shape = (len(bounds) - 1, num_columns)
  return scipy.sparse.csr_array((ones, columns, bounds), shape=shape)


def _precision_recall_f1(
  right: np.ndarray, present: np.ndarray, predicted: np.ndarray
) -> dict[str, np.ndarray]:
  return {
    "precision": _ratio(right, predicted, 0.0),
    "recall": _ratio(right, present, 0.0),
    "f1": _ratio(2 * right, present + predicted, 0.0),
  }


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
  """part / whole, and `otherwise` where the whole is 0."""
  result = np.full(np.shape(whole), otherwise)
  return np.divide(part, whole, out=result, where=whole > 0)


def _mean(values: np.ndarray) -> np.ndarray:
  """The mean over the last axis without NaN; NaN where all values are NaN."""
  valid = ~np.isnan(values)
  return _ratio(np.where(valid, values, 0.0).sum(axis=-1), valid.sum(axis=-1), np.nan)
