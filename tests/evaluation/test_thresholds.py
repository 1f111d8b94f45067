import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from audiotag_jax.evaluation import bootstrap, comparison, metrics, thresholds

SCORES = np.array([[0.9, 0.2], [0.6, 0.3], [0.4, 0.1], [0.1, 0.8]])
LABELS = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], np.uint8)


def test_the_threshold_lies_below_the_last_score_to_accept():
  # Class 0: accepting 0.9 gives F1 2/3, 0.9 to 0.4 gives 4/5, all 2/3.
  per_class = thresholds.tune_per_class(SCORES, LABELS)
  assert per_class[0] == pytest.approx((0.4 + 0.1) / 2)
  assert f1_score(LABELS[:, 0], SCORES[:, 0] >= per_class[0]) == pytest.approx(0.8)


def test_a_class_without_positives_is_decided_at_one_half():
  assert thresholds.tune_per_class(SCORES, LABELS)[1] == 0.5
  assert thresholds.tune_global(SCORES, np.zeros_like(LABELS)) == 0.5


def test_the_global_threshold_is_of_all_decisions_together():
  # 0.9: 1 of 2, F1 2/3; down to 0.4, 2 right of 4: F1 2/3; between them less.
  assert thresholds.tune_global(SCORES, LABELS) in (
    pytest.approx((0.4 + 0.3) / 2),
    pytest.approx((0.9 + 0.8) / 2),
  )


def test_a_threshold_between_neighbouring_scores_divides_them_everywhere():
  # Near 1, where float32 are 6e-8 apart; a threshold in float32 would be one of them.
  accepted = np.float32(1 - 2**-24)
  rejected = np.nextafter(accepted, np.float32(0))
  scores, labels = np.array([[accepted], [rejected]]), np.array([[1], [0]], np.uint8)
  everywhere = thresholds.tune_global(scores, labels)
  (per_class,) = thresholds.tune_per_class(scores, labels)
  assert (
    everywhere == per_class == 1 - 1.5 * 2**-24 == json.loads(json.dumps(per_class))
  )
  for threshold in (everywhere, np.array([per_class])):
    by_class = metrics.per_class(scores, labels, threshold)
    assert metrics.overall(scores, labels, threshold, by_class)["accuracy"] == 1
    assert by_class["precision"].tolist() == by_class["recall"].tolist() == [1]
    split = bootstrap.prepare(scores, labels, {"tuned": threshold})
    assert split.decisions["tuned"].tolist() == [[1, 0]]
  pair = np.array([[rejected, accepted]]), np.array([[1, 0]], np.uint8)
  assert comparison.confusions(*pair, everywhere, most=1) == [(0, 1, 1, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_larger_f1(seed):
  rng = np.random.default_rng(seed)
  labels = (rng.random((60, 4)) < 0.3).astype(np.uint8)
  scores = np.round(np.clip(0.4 * labels + 0.6 * rng.random((60, 4)), 0, 1), 2)
  scores = scores.astype(np.float32)
  grid = np.linspace(0, 1, 201)
  for c, tuned in enumerate(thresholds.tune_per_class(scores, labels)):
    best = max(f1_score(labels[:, c], scores[:, c] >= t, zero_division=0) for t in grid)
    assert f1_score(labels[:, c], scores[:, c] >= tuned) == pytest.approx(best)
  tuned = thresholds.tune_global(scores, labels)
  best = max(f1_score(labels.ravel(), scores.ravel() >= t) for t in grid[:-1])
  assert f1_score(labels.ravel(), scores.ravel() >= tuned) == pytest.approx(best)
