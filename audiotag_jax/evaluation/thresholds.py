"""Thresholds tuned for F1: one for all classes, or one for each.

Thresholds are tuned on val, because results are too good on the split of the tuning.
"""

import numpy as np
from sklearn import metrics as sk

# Threshold of a class without positives to tune on.
DEFAULT = 0.5


def tune_global(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns the threshold of the largest micro-averaged F1.

  Args:
    scores: <float>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
  """
  return _tune(scores.ravel(), labels.ravel())


def tune_per_class(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the threshold of each class's largest F1 <float64>[classes].

  A class without positives has `DEFAULT`.

  Args:
    scores: <float>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
  """
  return np.array([_tune(*pair) for pair in zip(scores.T, labels.T, strict=True)])


def _tune(scores: np.ndarray, labels: np.ndarray) -> float:
  """The threshold of the largest F1 of decisions [n].

  It is halfway between the lowest score that is accepted and the next lower score.
  """
  if not labels.any():
    return DEFAULT
  precision, recall, accepted = sk.precision_recall_curve(labels, scores)
  f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
  best = int(np.argmax(f1[:-1]))
  below = accepted[best - 1] if best else 0.0
  return float((np.float64(accepted[best]) + np.float64(below)) / 2)
