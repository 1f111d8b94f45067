"""Loading runs, and the runs that are refused."""

import json
import shutil

import finished_runs
import numpy as np
import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import runs, thresholds


@pytest.fixture
def pair(tmp_path):
  """Two runs of the same clips, without events."""
  return [
    finished_runs.write_run(tmp_path / name, seed=seed, with_events=False)
    for seed, name in enumerate(("crnn", "cnn14"))
  ]


def test_a_run_is_loaded(pair):
  first, second = runs.load_runs(pair)
  assert (first.name, second.name) == ("crnn", "cnn14")
  assert first.entry["params"] == 195_788
  assert first.predictions.scores.shape == (90, 12)
  assert first.scalars == {}
  assert first.operating_threshold == "global"
  tuned = thresholds.tune_global(first.val.scores, first.val.labels)
  assert first.thresholds["global"] == tuned
  assert first.thresholds["per_class"].shape == (12,)


def test_without_val_predictions_a_run_has_no_tuned_threshold(tmp_path):
  workdir = finished_runs.write_run(
    tmp_path / "crnn", with_val=False, with_events=False, with_extras=False
  )
  (run,) = runs.load_runs([workdir])
  assert run.thresholds == {"fixed": 0.5}
  assert run.operating_threshold == "fixed"
  assert run.read_json("results/cost.json") == {}


@pytest.mark.parametrize("name", ["performance.json", "predictions.npz"])
def test_a_run_that_was_not_evaluated_is_refused(name, pair):
  (pair[1] / "results" / name).unlink()
  message = f"cnn14 has no results/{name}: evaluate it first, with .*--mode=evaluate"
  with pytest.raises(UserError, match=message):
    runs.load_runs(pair)


def test_a_missing_workdir_is_refused(pair, tmp_path):
  with pytest.raises(UserError, match="none has no results/performance.json"):
    runs.load_runs([*pair, tmp_path / "none"])


def test_two_runs_of_a_name_are_refused(pair, tmp_path):
  shutil.copytree(pair[0], tmp_path / "other/crnn")
  with pytest.raises(UserError, match="crnn and .*other/crnn are both named crnn: giv"):
    runs.load_runs([pair[0], tmp_path / "other/crnn"])
  with pytest.raises(UserError, match="both named crnn: give each run once"):
    runs.load_runs([pair[0], pair[0] / "../crnn"])


def rewrite(workdir, **arrays):
  path = workdir / "results/predictions.npz"
  with np.load(path) as old:
    np.savez_compressed(path, **(dict(old) | arrays))


def test_predictions_of_an_older_version_are_refused(pair):
  path = pair[0] / "results/predictions.npz"
  with np.load(path) as old:
    arrays = dict(old)
  del arrays["duration_s"]
  np.savez_compressed(path, **arrays)
  message = "predictions.npz has no duration_s, because .*: evaluate the run again"
  with pytest.raises(UserError, match=message):
    runs.load_runs(pair)


def other_labels(arrays):
  labels = arrays["labels"].copy()
  labels[[3, 7]] ^= 1
  return {"labels": labels}


DIFFERENCES = {
  "order": (
    lambda arrays: {"fname": arrays["fname"][::-1]},
    r"their clips differ, first at number 1 \(eval0, eval89\)",
  ),
  "number": (
    lambda arrays: {
      k: arrays[k][:80] for k in ("fname", "scores", "labels", "duration_s")
    },
    "they have 90 and 80 clips",
  ),
  "classes": (
    lambda arrays: {"classes": np.array([*arrays["classes"][:11], "Horn"])},
    r"their classes differ, first at number 12 \(Sound_number_8, Horn\)",
  ),
  "labels": (other_labels, "the labels of 2 clips differ, first of eval3"),
}


@pytest.mark.parametrize(("change", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_runs_on_other_clips_are_refused(change, message, pair):
  with np.load(pair[1] / "results/predictions.npz") as arrays:
    rewrite(pair[1], **change(arrays))
  with pytest.raises(
    UserError, match=f"crnn and .*cnn14 cannot be compared: {message}. Eval"
  ):
    runs.load_runs(pair)


def test_runs_on_other_splits_are_refused(pair):
  path = pair[1] / "results/performance.json"
  entries = json.loads(path.read_text())
  entries["cnn14"]["split"] = "val"
  finished_runs.write_json(path, entries)
  with pytest.raises(UserError, match="one was evaluated on eval, the other on val"):
    runs.load_runs(pair)


def test_a_config_of_another_version_is_refused(pair):
  assert runs.load_run(pair[0]).config.evaluation.split == "eval"
  (pair[0] / "config.json").write_text(json.dumps({"crnn": {"flux": 88}}))
  with pytest.raises(UserError, match="config.json does not fit this version.*flux"):
    _ = runs.load_run(pair[0]).config
