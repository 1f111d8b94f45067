"""The statistics of a comparison, by hand and against scikit-learn."""

import dataclasses

import finished_runs
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from audiotag_jax.evaluation import bootstrap, comparison, runs


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """Four runs, scored; the last one has a lower separation."""
  folder = tmp_path_factory.mktemp("runs")
  workdirs = [
    finished_runs.write_run(
      folder / f"run{seed}", seed=seed, separation=separation, with_events=not seed
    )
    for seed, separation in enumerate((2.0, 2.0, 2.0, 0.5))
  ]
  return [comparison.score(run) for run in runs.load_runs(workdirs)]


def test_estimates_are_performance_jsons(scored):
  for one in scored:
    for metric, value in one.values["fixed"].items():
      if metric != "AP":
        assert value == pytest.approx(one.run.entry[metric]), metric
    estimate = one.estimate("fixed", "f1")
    assert estimate.low < estimate.value < estimate.high


def test_runs_are_paired_with_each_other_or_with_the_first(scored):
  def names(count):
    return [
      (a.run.name[-1], b.run.name[-1]) for a, b in comparison.pairs(scored[:count])
    ]

  assert names(1) == []
  assert names(3) == [("0", "1"), ("0", "2"), ("1", "2")]
  assert names(4) == [("0", "1"), ("0", "2"), ("0", "3")]


def test_differences_are_paired(scored):
  first, same, worse = scored[0], scored[0], scored[3]
  nothing = comparison.difference(first, same, "fixed", "mAP")
  assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
  assert not nothing.excludes_zero
  drop = comparison.difference(first, worse, "fixed", "mAP")
  mean_ap = [one.run.entry["mAP"] for one in (first, worse)]
  assert drop.value == pytest.approx(mean_ap[1] - mean_ap[0])
  assert drop.high < 0
  assert drop.excludes_zero
  paired = worse.samples["fixed"]["mAP"] - first.samples["fixed"]["mAP"]
  assert (drop.low, drop.high) == bootstrap.interval(paired, drop.value)


def test_class_differences_come_largest_first(scored):
  differences = comparison.class_differences(scored[0], scored[3])
  values = [by.value for by in differences.values()]
  assert values == sorted(values, reverse=True)
  c = next(iter(differences))
  aps = [one.values["fixed"]["AP"][c] for one in (scored[0], scored[3])]
  assert values[0] == pytest.approx(aps[1] - aps[0])


def test_chance_scores_each_class_with_its_share_of_val(scored):
  chance = comparison.chance([one.run for one in scored])
  labels = scored[0].run.predictions.labels
  prior = scored[0].run.val.labels.mean(axis=0)
  assert chance["mAP"] == pytest.approx(labels.mean(axis=0)[labels.any(axis=0)].mean())
  assert chance["auc"] == 0.5
  assert chance["d_prime"] == 0
  assert chance["brier"] == pytest.approx(np.square(prior - labels).mean())
  without = dataclasses.replace(scored[0].run, val=None)
  assert comparison.chance([without]) is None


def test_curves_and_convergence(scored):
  curves = comparison.curves(scored[0].run)
  assert set(curves) == {"train/loss", "val/loss", "val/mAP"}
  # 10 steps per second.
  np.testing.assert_allclose(curves["train/loss"].minutes, np.arange(50, 901, 50) / 600)
  np.testing.assert_allclose(curves["val/mAP"].minutes, np.arange(100, 901, 100) / 600)
  assert comparison.curves(scored[1].run) == {}


def test_convergence_by_hand():
  curve = comparison.Curve(
    steps=np.array([10, 20, 30, 40]),
    minutes=np.array([1.0, 2.0, 3.5, 4.0]),
    values=np.array([0.1, 0.46, 0.6, 0.5]),
  )
  assert comparison.convergence(curve) == {
    "final": 0.5,
    "best": 0.6,
    "best_step": 30,
    "steps": 40,
    "minutes": 4.0,
    "nearly_steps": 20,
    "nearly_minutes": 2.0,
  }


def test_reliability_is_scikit_learns(scored):
  predictions = scored[0].run.predictions
  bins = comparison.reliability(predictions.scores, predictions.labels)
  positive, score = calibration_curve(
    predictions.labels.ravel(), predictions.scores.ravel(), n_bins=15
  )
  some = bins["count"] > 0
  np.testing.assert_allclose(bins["positive"][some], positive)
  np.testing.assert_allclose(bins["score"][some], score, rtol=1e-6)
  assert bins["count"].sum() == predictions.scores.size
  errors = comparison.brier_and_calibration_error(
    predictions.scores, predictions.labels
  )
  brier = sk.brier_score_loss(predictions.labels.ravel(), predictions.scores.ravel())
  assert errors["brier"] == pytest.approx(brier, rel=1e-6)


def test_the_calibration_error_by_hand():
  # 1.0 falls into the last bin, with 0.95: mean score 0.975, half positive.
  scores = np.array([[0.01, 0.95], [0.03, 1.0]], np.float32)
  labels = np.array([[0, 1], [0, 0]], np.uint8)
  errors = comparison.brier_and_calibration_error(scores, labels)
  assert errors["ece"] == pytest.approx((2 * 0.02 + 2 * 0.475) / 4)


LABELS = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]], np.uint8)


def test_co_occurrence_by_hand():
  frequent, share = comparison.co_occurrence(LABELS, most=10)
  assert frequent.tolist() == [0, 1, 2]
  nan = np.nan
  expected = [[nan, 2 / 3, 1 / 3], [1, nan, 1 / 2], [1 / 2, 1 / 2, nan]]
  np.testing.assert_allclose(share, expected)
  assert comparison.co_occurrence(LABELS, most=2)[0].tolist() == [0, 1]


def test_confusions_by_hand():
  decisions = np.array([[0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 0, 0]])
  found = comparison.confusions(decisions.astype(np.float32), LABELS, 0.5, most=10)
  # Class 0 is missed in clips 0 and 1, where 3 is wrong; 2 in clip 3, where 1 is.
  assert found == [(0, 3, 2, 2), (2, 1, 1, 1)]
  assert len(comparison.confusions(decisions, LABELS, 0.5, most=1)) == 1


def test_the_precision_recall_curve_is_a_thinned_one(scored):
  predictions = scored[0].run.predictions
  labels, scores = predictions.labels, predictions.scores
  recall, precision = comparison.precision_recall(scores, labels)
  assert len(recall) == 399
  assert (np.diff(recall) >= 0).all()
  assert recall[-1] == 1
  whole = sk.precision_recall_curve(labels.ravel(), scores.ravel())
  points = set(zip(whole[1].tolist(), whole[0].tolist(), strict=True))
  assert set(zip(recall.tolist(), precision.tolist(), strict=True)) <= points


def test_bins_with_few_clips_are_merged():
  # 10, 40, 40, 5: the first joins the second, the last the third.
  values = np.repeat([1, 2, 3, 4], [10, 40, 40, 5])
  assert comparison.merged_edges(values, [1, 2, 3, 4]) == [1, 3]
  assert comparison.merged_edges(values[:20], [1, 2, 3, 4]) == [1]
  # If there are many clips, a bin holds at least a twelfth of them.
  values = np.repeat([1, 2, 3], [1000, 100, 1000])
  assert comparison.merged_edges(values, [1, 2, 3]) == [1, 2]


def test_bins_by_labels():
  counts = np.repeat([0, 1, 2, 3, 5], [3, 40, 12, 12, 35])
  labels = (np.arange(6) < counts[:, None]).astype(np.uint8)
  bins = comparison.bins_by_labels(labels)
  assert [one.name for one in bins] == ["1", "2–3", "4+"]
  assert [one.clips.sum() for one in bins] == [40, 24, 35]
  assert not any(one.clips[:3].any() for one in bins)


def test_bins_by_duration():
  duration_s = np.repeat([0.5, 2, 4, 30], [40, 40, 40, 40]).astype(np.float32)
  bins = comparison.bins_by_duration(duration_s)
  assert [one.name for one in bins] == ["< 1", "1–3", "3–5", "≥ 5"]
  assert [one.clips.sum() for one in bins] == [40] * 4
  (everything,) = comparison.bins_by_duration(duration_s[:20])
  assert everything.name == "any"
  assert everything.clips.all()


def test_a_bin_is_scored_alone(scored):
  run = scored[0].run
  clips = np.arange(90) < 40
  estimates = comparison.score_bin(run, comparison.Bin("some", clips))
  labels, scores = run.predictions.labels[clips], run.predictions.scores[clips]
  there = labels.any(axis=0)
  mean_ap = sk.average_precision_score(labels[:, there], scores[:, there])
  assert estimates["mAP"].value == pytest.approx(mean_ap)
  decisions = scores >= run.thresholds["global"]
  f1 = sk.f1_score(labels.ravel(), decisions.ravel())
  assert estimates["f1"].value == pytest.approx(f1)


def test_robustness_leaves_gaps(scored):
  workdir = scored[0].run.workdir
  (scored[1].run.workdir / "results/robustness.json").unlink()
  results = {"clean": {"mAP": 0.5, "f1": 0.4}, "hum": {"mAP": None, "f1": 0.1}}
  finished_runs.write_json(workdir / "results/robustness.json", results)
  conditions, values = comparison.robustness([one.run for one in scored[:3]])
  assert conditions == ["clean", "hum", *finished_runs.ROBUSTNESS[1:]]
  assert list(values) == ["run0", "run2"]
  np.testing.assert_array_equal(values["run0"], [0.5] + [np.nan] * 4)
  assert np.isnan(values["run2"]).tolist() == [False, True, False, False, False]


def test_other_training_clips_are_noticed(scored):
  all_runs = [one.run for one in scored]
  assert not comparison.clips_differ(all_runs, "train")
  path = all_runs[0].workdir / "dataset.json"
  dataset = all_runs[0].read_json("dataset.json")
  dataset["splits"]["train"]["sha256"] = "other"
  finished_runs.write_json(path, dataset)
  assert comparison.clips_differ(all_runs, "train")
  assert not comparison.clips_differ(all_runs, "val")
