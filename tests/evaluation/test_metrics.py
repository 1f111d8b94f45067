import numpy as np
import pytest
from sklearn import metrics as sk

from audiotag_jax.evaluation import metrics


def random_scores(seed, num_clips=200, num_classes=12, ties=False):
  rng = np.random.default_rng(seed)
  labels = (rng.random((num_clips, num_classes)) < 0.2).astype(np.uint8)
  scores = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1)
  return (scores.round(1) if ties else scores).astype(np.float32), labels


def all_metrics(scores, labels, threshold=0.5):
  classes = metrics.per_class(scores, labels, threshold)
  return metrics.overall(scores, labels, threshold, classes), classes


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_they_are_scikit_learn_s(ties, threshold):
  scores, labels = random_scores(0, ties=ties)
  overall, classes = all_metrics(scores, labels, threshold)
  decisions = scores >= threshold
  macro = sk.average_precision_score(labels, scores, average="macro")
  expected = {
    "accuracy": sk.accuracy_score(labels.ravel(), decisions.ravel()),
    "precision": sk.precision_score(labels, decisions, average="micro"),
    "recall": sk.recall_score(labels, decisions, average="micro"),
    "f1": sk.f1_score(labels, decisions, average="micro"),
    "precision_macro": sk.precision_score(labels, decisions, average="macro"),
    "recall_macro": sk.recall_score(labels, decisions, average="macro"),
    "f1_macro": sk.f1_score(labels, decisions, average="macro"),
    "mAP": macro,
    "auc": sk.roc_auc_score(labels, scores, average="macro"),
  }
  for name, value in expected.items():
    assert overall[name] == pytest.approx(value, abs=1e-6), name
  np.testing.assert_allclose(
    classes["AP"], sk.average_precision_score(labels, scores, average=None), atol=1e-6
  )
  np.testing.assert_array_equal(classes["support"], labels.sum(axis=0))


# Clips a, b, c; classes 0, 1, 2; class 2 has no positive.
SCORES = np.array([[0.9, 0.2, 0.6], [0.4, 0.8, 0.1], [0.7, 0.6, 0.2]])
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], np.uint8)


def test_by_hand():
  overall, classes = all_metrics(SCORES, LABELS)
  # Right: a0, a1, b1, b2, c1, c2; wrong: a2, b0, c0.
  assert overall["accuracy"] == pytest.approx(6 / 9)
  # 3 true, 2 false positives (a2, c0), 1 miss (b0).
  assert overall["precision"] == pytest.approx(3 / 5)
  assert overall["recall"] == pytest.approx(3 / 4)
  assert overall["f1"] == pytest.approx(6 / 9)
  # Class 0: 0.9 hit, 0.7 false, 0.4 hit. Class 1: 0.8 and 0.6 hit first.
  np.testing.assert_allclose(classes["AP"], [(1 + 2 / 3) / 2, 1.0, np.nan])
  np.testing.assert_allclose(classes["auc"], [0.5, 1.0, np.nan])
  np.testing.assert_allclose(classes["f1"], [0.5, 1.0, np.nan])
  assert overall["mAP"] == pytest.approx((5 / 6 + 1) / 2)
  assert overall["f1_macro"] == pytest.approx(0.75)
  # Labels a0, b0, b1, c1 have ranks 1, 2 (both labels), 1, 2 (after c0).
  assert overall["lwlrap"] == pytest.approx((1 + 1 + 1 + 1 / 2) / 4)


@pytest.mark.parametrize(
  ("auc", "expected"),
  [(0.5, 0.0), (0.841344746, 1.41421356), (0.158655254, -1.41421356)],
)
def test_d_prime(auc, expected):
  assert metrics.d_prime(auc) == pytest.approx(expected, abs=1e-6)


def test_a_class_without_positives_is_left_out_of_the_means():
  scores, labels = random_scores(1)
  labels[:, 3] = 0
  overall, classes = all_metrics(scores, labels)
  for name in ("AP", "auc", "precision", "recall", "f1"):
    assert np.isnan(classes[name][3])
    assert np.isfinite(np.delete(classes[name], 3)).all()
  kept, _ = all_metrics(np.delete(scores, 3, 1), np.delete(labels, 3, 1))
  for name in ("mAP", "auc", "f1_macro", "precision_macro", "recall_macro"):
    assert overall[name] == pytest.approx(kept[name])
  assert classes["support"][3] == 0


def test_a_class_on_every_clip_has_no_auc():
  scores, labels = random_scores(2)
  labels[:, 0] = 1
  _, classes = all_metrics(scores, labels)
  assert classes["AP"][0] == 1.0
  assert np.isnan(classes["auc"][0])


def test_without_any_label_the_ranking_metrics_are_nan():
  scores, labels = random_scores(3)
  overall, _ = all_metrics(scores, np.zeros_like(labels))
  for name in ("mAP", "auc", "d_prime", "lwlrap", "f1_macro"):
    assert np.isnan(overall[name])
  assert overall["recall"] == 0.0


def test_a_set_of_one_class_by_hand():
  scores = np.array([[0.9], [0.6], [0.4], [0.2]])
  labels = np.array([[1], [0], [1], [0]], np.uint8)
  overall, classes = all_metrics(scores, labels)
  assert {name: values.shape for name, values in classes.items()} == dict.fromkeys(
    ("support", "AP", "auc", "precision", "recall", "f1"), (1,)
  )
  # One hit, one false positive, one miss.
  for name in ("precision", "recall", "f1"):
    assert classes[name][0] == pytest.approx(0.5)
    assert overall[name] == pytest.approx(0.5)


def test_micro_averages_of_one_class_leave_out_its_absence():
  scores = np.array([[0.9], [0.6], [0.6], [0.2], [0.1]])
  labels = np.array([[1], [0], [0], [0], [0]], np.uint8)
  overall, _ = all_metrics(scores, labels)
  assert overall["precision"] == pytest.approx(1 / 3)
  assert overall["recall"] == pytest.approx(1.0)
  assert overall["f1"] == pytest.approx(0.5)
