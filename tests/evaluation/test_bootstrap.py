"""The bootstrap against scikit-learn with weights, metrics.py and hand computation."""

import numpy as np
import pytest
from sklearn import metrics as sk

from audiotag_jax.evaluation import bootstrap, metrics


def random_split(seed, num_clips=80, num_classes=5, decimals=1):
  """Scores (with ties, if rounded) and labels; class 0 has no positives."""
  rng = np.random.default_rng(seed)
  labels = (rng.random((num_clips, num_classes)) < 0.2).astype(np.uint8)
  labels[:, 0] = 0
  scores = np.clip(0.3 * labels + 0.7 * rng.random(labels.shape), 0, 1)
  return np.round(scores, decimals).astype(np.float32), labels


def random_weights(seed, num_clips=80, num_resamples=7):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 4, (num_clips, num_resamples)).astype(np.float32)


THRESHOLDS = {"fixed": 0.5, "per class": np.array([0.5, 0.3, 0.4, 0.6, 0.7])}


@pytest.mark.parametrize("decimals", [1, 7])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_metrics_are_scikit_learns(seed, decimals):
  scores, labels = random_split(seed, decimals=decimals)
  weights = random_weights(seed)
  for c in range(1, labels.shape[1]):
    ranking = bootstrap.rank(scores[:, c], labels[:, c])
    ours = bootstrap.ranking_metrics(ranking, weights)
    theirs = [
      (
        sk.average_precision_score(labels[:, c], scores[:, c], sample_weight=w),
        sk.roc_auc_score(labels[:, c], scores[:, c], sample_weight=w),
      )
      for w in weights.T
    ]
    np.testing.assert_allclose(ours, np.transpose(theirs), rtol=1e-6)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_decision_metrics_are_scikit_learns(name):
  scores, labels = random_split(0)
  weights = random_weights(0)
  split = bootstrap.prepare(scores, labels, THRESHOLDS)
  ours = bootstrap.weighted_metrics(split, weights)[name]
  decisions = scores >= THRESHOLDS[name]
  for i, w in enumerate(weights.T):
    micro = sk.precision_recall_fscore_support(
      labels.ravel(),
      decisions.ravel(),
      average="binary",
      sample_weight=np.repeat(w, labels.shape[1]),
    )
    macro = sk.precision_recall_fscore_support(
      labels[:, 1:], decisions[:, 1:], average="macro", sample_weight=w, zero_division=0
    )
    for k, metric in enumerate(("precision", "recall", "f1")):
      assert ours[metric][i] == pytest.approx(micro[k], rel=1e-9)
      assert ours[f"{metric}_macro"][i] == pytest.approx(macro[k], rel=1e-9)
    right = (decisions == labels).mean(axis=1)
    assert ours["accuracy"][i] == pytest.approx(np.average(right, weights=w))


def test_lwlrap_is_scikit_learns():
  scores, labels = random_split(1)
  # Every clip has a label, because scikit-learn counts a clip without one as perfect.
  labels[:, 0] = 1
  weights = random_weights(1)
  split = bootstrap.prepare(scores, labels, THRESHOLDS)
  ours = bootstrap.weighted_metrics(split, weights)["fixed"]["lwlrap"]
  for i, w in enumerate(weights.T):
    theirs = sk.label_ranking_average_precision_score(
      labels, scores, sample_weight=w * labels.sum(axis=1)
    )
    assert ours[i] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_weights_of_one_give_the_metrics_themselves(name):
  scores, labels = random_split(2)
  split = bootstrap.prepare(scores, labels, THRESHOLDS)
  ours = bootstrap.weighted_metrics(split, np.ones((80, 1), np.float32))[name]
  classes = metrics.per_class(scores, labels, THRESHOLDS[name])
  np.testing.assert_allclose(ours.pop("AP")[0], classes["AP"], rtol=1e-6)
  overall = metrics.overall(scores, labels, THRESHOLDS[name], classes)
  assert ours.keys() == overall.keys()
  for metric, value in overall.items():
    assert ours[metric][0] == pytest.approx(value, rel=1e-6), metric


def test_a_class_without_positives_in_a_resample_is_left_out_of_its_mean():
  labels = np.array([[1, 0], [0, 1], [0, 0]], np.uint8)
  scores = np.array([[0.9, 0.1], [0.1, 0.2], [0.5, 0.9]], np.float32)
  weights = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 3]], np.float32)
  split = bootstrap.prepare(scores, labels, {"fixed": 0.5})
  sampled = bootstrap.weighted_metrics(split, weights)["fixed"]
  np.testing.assert_array_equal(
    sampled["AP"], [[1, 0.5], [1, np.nan], [np.nan, np.nan]]
  )
  np.testing.assert_array_equal(sampled["mAP"], [0.75, 1, np.nan])
  np.testing.assert_array_equal(sampled["auc"], [0.75, 1, np.nan])
  np.testing.assert_allclose(sampled["f1_macro"], [1 / 3, 2 / 3, np.nan])


def test_the_resamples_draw_as_many_clips_and_are_always_the_same():
  chunks = list(bootstrap.resamples(3000, 1000))
  assert [len(chunk) for chunk in chunks] == [3000] * 3
  weights = np.concatenate(chunks, axis=1)
  np.testing.assert_array_equal(weights.sum(axis=0), np.full(1000, 3000))
  again = np.concatenate(list(bootstrap.resamples(3000, 1000)), axis=1)
  np.testing.assert_array_equal(weights, again)
  # The variance of a count with n draws at 1 / n is 1 - 1 / n.
  assert weights.var() == pytest.approx(1, abs=0.01)
  assert len(np.unique(weights, axis=1).T) == 1000


def test_the_interval_is_of_the_ordered_resamples():
  samples = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))
  assert bootstrap.interval(samples, 500.5) == (25, 975)
  assert bootstrap.interval(np.r_[samples, np.nan, np.nan], 500.5) == (25, 975)


def test_the_interval_is_freed_of_bias():
  samples = np.arange(1.0, 1001.0)
  assert bootstrap.interval(samples, 400.5) == (-75, 875)


def test_intervals_of_what_is_infinite_or_not_there():
  some = np.array([1.0, 2.0, np.inf])
  assert bootstrap.interval(some, 1.5) == (1, np.inf)
  assert bootstrap.interval(some, np.inf) == (1, np.inf)
  np.testing.assert_array_equal(
    bootstrap.interval(np.array([np.nan]), np.nan), (np.nan, np.nan)
  )


def test_the_interval_holds_the_true_value_of_rare_classes():
  rng = np.random.default_rng(0)
  values, plain, ours = [], [], []
  for _ in range(30):
    labels = (rng.random((300, 150)) < 0.015).astype(np.uint8)
    scores = labels + rng.normal(size=labels.shape)
    split = bootstrap.prepare(scores, labels, {"fixed": 0.5})
    ones = np.ones((300, 1), np.float32)
    values.append(bootstrap.weighted_metrics(split, ones)["fixed"]["mAP"][0])
    samples = bootstrap.bootstrap(scores, labels, {"fixed": 0.5}, num_resamples=200)
    plain.append(np.quantile(samples["fixed"]["mAP"], bootstrap.TAILS))
    ours.append(bootstrap.interval(samples["fixed"]["mAP"], values[-1]))

  def coverage(intervals):
    low, high = np.transpose(intervals)
    return np.mean((low <= np.mean(values)) & (np.mean(values) <= high))

  assert coverage(plain) < 0.5
  assert coverage(ours) > 0.9


def test_the_accuracys_interval_is_the_binomials():
  # One class, 70 of 100 decisions right: the resamples' accuracy is binomial.
  labels = np.ones((100, 1), np.uint8)
  scores = np.r_[np.ones(70), np.zeros(30)].astype(np.float32)[:, None]
  samples = bootstrap.bootstrap(scores, labels, {"fixed": 0.5})["fixed"]["accuracy"]
  assert len(samples) == 1000
  assert samples.mean() == pytest.approx(0.7, abs=0.005)
  assert samples.std() == pytest.approx(np.sqrt(0.7 * 0.3 / 100), rel=0.1)
  # scipy.stats.binom.interval(0.95, 100, 0.7) is (61, 79).
  assert bootstrap.interval(samples, 0.7) == (
    pytest.approx(0.61, abs=0.011),
    pytest.approx(0.79, abs=0.011),
  )


def test_resamples_of_two_runs_are_paired():
  scores, labels = random_split(3)
  first = bootstrap.bootstrap(scores, labels, THRESHOLDS, num_resamples=50)
  second = bootstrap.bootstrap(scores / 2, labels, THRESHOLDS, num_resamples=50)
  # Halved scores rank alike.
  np.testing.assert_array_equal(first["fixed"]["mAP"], second["fixed"]["mAP"])
  assert not np.array_equal(first["fixed"]["f1"], second["fixed"]["f1"])
