"""Metrics of multi-label classification, per class and overall.

Scikit-learn computes the metrics that it has; this file defines the averages. A class
without positives (or, for AUC, without negatives) has no ranking metrics: they are NaN,
and means leave them out.
"""

from collections.abc import Callable

import numpy as np
import scipy.stats
from sklearn import metrics as sk


def decide(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
  """Returns which classes count as present <bool>[clips, classes].

  float64, because a threshold may be between two neighbouring float32, as which numpy
  would round it.

  Args:
    scores: <float32>[clips, classes].
    threshold: the least score, or each class's.
  """
  return scores.astype(np.float64) >= threshold


def per_class(
  scores: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray
) -> dict[str, np.ndarray]:
  """Computes the metrics of each class.

  Args:
    scores: <float>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
    threshold: the score from which a class counts as present, or each class's.

  Returns:
    Arrays [classes]: `support` (positives), `AP`, `auc`, `precision`, `recall` and
    `f1`. A class that is never predicted has precision 0. All but `support` are NaN
    without positives.
  """
  support = labels.sum(axis=0, dtype=np.int64)
  has_positives = support > 0
  has_both = has_positives & (support < len(labels))
  decisions = decide(scores, threshold)
  precision, recall, f1 = np.transpose(
    [_binary(labels[:, c], decisions[:, c]) for c in range(labels.shape[1])]
  )
  return {
    "support": support,
    "AP": _where(has_positives, sk.average_precision_score, scores, labels),
    "auc": _where(has_both, sk.roc_auc_score, scores, labels),
    "precision": np.where(has_positives, precision, np.nan),
    "recall": np.where(has_positives, recall, np.nan),
    "f1": np.where(has_positives, f1, np.nan),
  }


def overall(
  scores: np.ndarray,
  labels: np.ndarray,
  threshold: float | np.ndarray,
  classes: dict[str, np.ndarray],
) -> dict[str, float]:
  """Computes the metrics of a split.

  Args:
    scores: <float>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
    threshold: the score from which a class counts as present, or each class's.
    classes: the result of `per_class` for the same arguments.

  Returns:
    `accuracy`: the share of clip-by-class decisions that are right; `precision`,
    `recall`, `f1`: micro-averaged over all decisions; `precision_macro`,
    `recall_macro`, `f1_macro`, `mAP`, `auc`: means over the classes that have the
    metric; `d_prime`: computed from the mean AUC; `lwlrap`.
  """
  decisions = decide(scores, threshold)
  precision, recall, f1 = _binary(labels.ravel(), decisions.ravel())
  auc = _mean(classes["auc"])
  return {
    "accuracy": float((decisions == labels.astype(bool)).mean()),
    "precision": float(precision),
    "recall": float(recall),
    "f1": float(f1),
    "precision_macro": _mean(classes["precision"]),
    "recall_macro": _mean(classes["recall"]),
    "f1_macro": _mean(classes["f1"]),
    "mAP": _mean(classes["AP"]),
    "auc": auc,
    "d_prime": d_prime(auc),
    "lwlrap": lwlrap(scores, labels),
  }


def d_prime(auc: float) -> float:
  """Separation, in standard deviations, of two normal score distributions.

  sqrt(2) times the standard normal quantile of the AUC, as in Hershey et al., "CNN
  architectures for large-scale audio classification" (2017), section 3.1.
  """
  return float(np.sqrt(2.0) * scipy.stats.norm.ppf(auc))


def lwlrap(scores: np.ndarray, labels: np.ndarray) -> float:
  """Label-weighted label-ranking average precision (DCASE 2019 task 2).

  It is the precision at each true label of each clip, averaged over all true labels:
  scikit-learn's LRAP with clips weighted by their number of labels.
  """
  num_labels = labels.sum(axis=1)
  if not num_labels.any():
    return float("nan")
  return float(
    sk.label_ranking_average_precision_score(labels, scores, sample_weight=num_labels)
  )


def _binary(labels: np.ndarray, decisions: np.ndarray) -> tuple[float, float, float]:
  """Precision, recall and F1 of the positives among decisions [n]."""
  precision, recall, f1, _ = sk.precision_recall_fscore_support(
    labels, decisions, average="binary", zero_division=0.0
  )
  return precision, recall, f1


def _where(
  defined: np.ndarray, metric: Callable, scores: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """Applies a metric to the classes where it is defined; NaN elsewhere."""
  values = np.full(len(defined), np.nan)
  for c in np.flatnonzero(defined):
    values[c] = metric(labels[:, c], scores[:, c])
  return values


def _mean(values: np.ndarray) -> float:
  return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
