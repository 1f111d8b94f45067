"""Draws of clips that keep the classes in proportion (Sechidis et al. 2011)."""

from collections.abc import Collection, Sequence

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

# Most rows to stratify; AudioSet's matrix of labels would take a gigabyte.
MAX_STRATIFIED = 50_000


def draw_stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
  """Draws exactly `size` rows; the stratifier alone is off by a percent.

  Args:
    labels: <uint8>[rows, classes].
    size: the number of rows to draw, fewer than all.
    seed: the draw's seed.

  Returns:
    Their positions <int64>[size].
  """
  if labels.shape[1] == 1:  # The stratifier misreads a single column.
    labels = np.hstack([labels, 1 - labels])
  splitter = MultilabelStratifiedShuffleSplit(
    n_splits=1, test_size=size, random_state=seed
  )
  others, drawn = next(splitter.split(labels, labels))
  rng = np.random.default_rng(seed)
  shuffled = np.concatenate([rng.permutation(drawn), rng.permutation(others)])
  return shuffled[:size]


def stratified_sample(
  labels: Sequence[Collection[int]], num_classes: int, size: int, seed: int
) -> np.ndarray:
  """Draws exactly `size` rows of label lists.

  Above `MAX_STRATIFIED` rows the draw is random, which keeps the classes of so many
  rows about in proportion.

  Args:
    labels: the classes of each row.
    num_classes: the number of classes.
    size: the number of rows to draw, fewer than all.
    seed: the draw's seed.

  Returns:
    Their positions <int64>[size].
  """
  if len(labels) > MAX_STRATIFIED:
    return np.random.default_rng(seed).permutation(len(labels))[:size]
  matrix = np.zeros((len(labels), num_classes), np.uint8)
  for row, classes in zip(matrix, labels, strict=True):
    row[list(classes)] = 1
  return draw_stratified(matrix, size, seed)
