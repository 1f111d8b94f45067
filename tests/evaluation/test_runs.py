"""Loading runs, and the runs that are refused."""

import json
import shutil
from pathlib import Path

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
  assert run.read_cost() == {}


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


def test_another_evaluation_of_a_run_is_loaded_by_its_folder(pair, monkeypatch):
  other = finished_runs.write_run(pair[0].parent / "other", split="val", with_val=False)
  for workdir in pair:
    shutil.copytree(other / "results", workdir / "results/val-last")
  first, second = runs.load_runs([workdir / "results/val-last" for workdir in pair])
  assert (first.name, second.name) == ("crnn/val-last", "cnn14/val-last")
  assert (first.entry["split"], first.val) == ("val", None)
  assert first.read_json("dataset.json")
  assert runs.load_run(pair[0]).entry["split"] == "eval"
  monkeypatch.chdir(pair[0] / "results/val-last")
  assert runs.load_run(Path()).name == "crnn/val-last"
  message = (
    "crnn and crnn/val-last cannot be compared: one was evaluated on eval, the o"
  )
  with pytest.raises(UserError, match=message):
    runs.load_runs([pair[0], pair[0] / "results/val-last"])
  with pytest.raises(UserError, match="results/val-best has no results/performance"):
    runs.load_run(pair[0] / "results/val-best")


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


def read_all(workdir):
  run = runs.load_run(workdir)
  for name in runs.FILES:
    run.read_json(name)
  run.read_cost()
  run.read_robustness()
  assert run.config


@pytest.mark.parametrize(
  ("file", "text", "reason"),
  [
    ("config.json", "", r"config.json is not valid JSON .it is empty.: restore it"),
    ("config.json", "[]", r"config.json holds \[\], not an object"),
    ("config.json", '{"init_from": 3}', "init_from is 3, not text"),
    ("config.json", '{"crnn": {"filters": ["x"]}}', "does not fit this version"),
    ("config.json", f'{{"data": {{"clip_s": 1{"0" * 400}}}}}', "does not fit this ver"),
    ("dataset.json", '{"splits": {"val": 1}}', "splits is .*, not an object of an obj"),
    ("results/performance.json", "{}", "performance.json has 0 runs, not one"),
    ("results/performance.json", '{"a": {"split": "eval"}}', "a is .*an object with m"),
    ("results/robustness.json", '{"clean": {"mAP": "x"}}', "clean is .*with mAP"),
    ("results/cost.json", '{"params": 1}', "it has no device, which is text"),
  ],
)
def test_a_damaged_file_of_a_run_is_refused_in_one_line(tmp_path, file, text, reason):
  workdir = finished_runs.write_run(tmp_path / "run", with_events=False, num_clips=20)
  (workdir / file).write_text(text)
  with pytest.raises(UserError, match=reason) as error:
    read_all(workdir)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (lambda a: a.update(scores=a["scores"][:5]), "scores is float32.5, 12., beside 20"),
    (lambda a: a.update(scores=a["scores"] + 1), "scores has values that are not from"),
    (lambda a: a.update(labels=a["labels"] + 1), "labels has values that are not from"),
    (lambda a: a.update(fname=np.array([3] * 20)), "fname is int64"),
    (lambda a: a.update(classes=np.array([{}] * 12)), "classes.npy has .* for object"),
  ],
)
def test_predictions_that_do_not_fit_together_are_refused(tmp_path, change, reason):
  arrays = finished_runs.predictions("eval", 20, 12, 2.0, 0)
  change(arrays)
  np.savez_compressed(tmp_path / "predictions.npz", **arrays)
  with pytest.raises(UserError, match=reason):
    runs.load_predictions(tmp_path / "predictions.npz")


def test_a_shape_that_is_larger_than_its_file_is_refused(tmp_path):
  path = tmp_path / "predictions.npz"
  arrays = finished_runs.predictions("eval", 20, 12, 2.0, 0)
  np.savez(path, **arrays)
  data = path.read_bytes()
  forged = data.replace(
    b"'shape': (20, 12), }" + b" " * 9, b"'shape': (99999999999, 9), }"
  )
  assert forged != data
  path.write_bytes(forged)
  with pytest.raises(UserError, match="predictions.npz cannot be read"):
    runs.load_predictions(path)
