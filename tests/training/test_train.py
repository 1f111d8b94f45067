import copy
import csv
import errno
import json
import shutil

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score
from tensorboard.backend.event_processing import event_accumulator

from audiotag_jax import model_directory, parallel
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import learning_curves, metrics, thresholds
from audiotag_jax.training import evaluate_run, loop, train
from audiotag_jax.training.run import find_own_evaluation, init_state, open_run

pytestmark = pytest.mark.slow

PERFORMANCE_KEYS = [
  "model", "split", "checkpoint", "step", "params", "num_clips", "num_classes",
  "crop", "hop_s",
  "accuracy", "precision", "recall", "f1",
  "precision_macro", "recall_macro", "f1_macro",
  "mAP", "auc", "d_prime", "lwlrap", "threshold", "tuned_global", "tuned_per_class",
]  # fmt: skip


def performance(workdir, results="results"):
  return json.loads((workdir / results / "performance.json").read_text())[workdir.name]


def last_state(config, workdir):
  run = open_run(config, workdir)
  state = run.checkpoints.restore(run.checkpoints.latest_step(), init_state(run))
  run.checkpoints.close()
  return state


def test_a_run_leaves_what_the_contract_says(finished):
  _, workdir, text = finished
  assert "label prior (chance)" in text
  assert str(workdir / "results") in text

  entry = performance(workdir)
  assert sorted(entry) == sorted(PERFORMANCE_KEYS)
  assert (entry["model"], entry["split"], entry["num_clips"]) == ("crnn", "eval", 7)

  arrays = np.load(workdir / "results/predictions.npz")
  assert sorted(arrays) == ["classes", "duration_s", "fname", "labels", "scores"]
  assert arrays["fname"].tolist() == [str(n) for n in range(1018, 1025)]
  assert arrays["scores"].dtype == np.float32
  assert arrays["scores"].shape == arrays["labels"].shape == (7, 3)
  assert (arrays["scores"] >= 0).all()
  assert (arrays["scores"] <= 1).all()
  assert arrays["labels"].dtype == np.uint8
  assert arrays["classes"].tolist() == ["Bell", "Rain", "Siren"]

  assert set(np.round(arrays["duration_s"], 4)) <= {
    np.float32(s) for s in (0.3, 1, 2.5)
  }
  per_class = metrics.per_class(arrays["scores"], arrays["labels"], 0.5)
  overall = metrics.overall(arrays["scores"], arrays["labels"], 0.5, per_class)
  assert {key: entry[key] for key in overall} == overall
  with (workdir / "results/per_class.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert [row["label"] for row in rows] == arrays["classes"].tolist()
  assert [float(row["AP"]) for row in rows] == per_class["AP"].tolist()
  assert (workdir / "results/learning_curves.png").stat().st_size > 10_000

  scalars = learning_curves.read_scalars(workdir)
  assert scalars["train/loss"][0].tolist() == [2, 4, 6]
  assert scalars["val/mAP"][0].tolist() == [2, 4, 6]
  for tag in ("learning_rate", "grad_norm", "steps_per_second", "data_wait_share"):
    assert len(scalars[f"train/{tag}"][0]) == 3


def test_thresholds_are_tuned_on_val_and_lie_with_the_model(finished):
  _, workdir, text = finished
  assert "tuned on val" in text
  val = np.load(workdir / "results/val_predictions.npz")
  assert val["fname"].tolist() == [str(n) for n in range(1012, 1018)]
  everywhere = thresholds.tune_global(val["scores"], val["labels"])
  per_class = thresholds.tune_per_class(val["scores"], val["labels"])
  description = model_directory.read_description(workdir / "model")
  assert description.thresholds == {
    "global": everywhere, "per_class": per_class.tolist()
  }  # fmt: skip
  assert description.normalize == "peak"

  entry = performance(workdir)
  scored = np.load(workdir / "results/predictions.npz")
  for key, tuned in (("tuned_global", everywhere), ("tuned_per_class", per_class)):
    decisions = scored["scores"] >= tuned
    f1 = f1_score(scored["labels"], decisions, average="micro", zero_division=0.0)
    assert entry[key]["f1"] == pytest.approx(f1)
  assert entry["tuned_global"]["threshold"] == everywhere


def test_scores_of_val_have_no_threshold_tuned_on_val(tiny_config, tmp_path):
  workdir = tmp_path / "run"
  tiny_config.evaluation.split = "val"
  text = train.train_and_evaluate(tiny_config, str(workdir))
  assert "tuned" not in text
  assert "tuned_global" not in performance(workdir)
  assert not (workdir / "results/val_predictions.npz").exists()
  assert model_directory.read_description(workdir / "model").thresholds


def test_the_average_of_checkpoints_and_their_ensemble(tiny_config, tmp_path):
  tiny_config.train.keep_checkpoints = 3
  workdir = tmp_path / "run"
  train.train_and_evaluate(tiny_config, str(workdir))

  def evaluated(which):
    tiny_config.evaluation.checkpoint = which
    evaluate_run.evaluate_only(tiny_config, str(workdir))
    entry = performance(workdir, f"results/eval-{which}")
    assert (entry["checkpoint"], entry["step"]) == (which, 6)
    return np.load(workdir / f"results/eval-{which}/predictions.npz")["scores"]

  run = open_run(tiny_config, workdir)
  like = init_state(run)
  members = [run.checkpoints.restore(step, like).variables for step in (2, 4, 6)]

  def scores(variables):
    return run.predict(parallel.replicate(variables), "eval").scores

  mean = jax.tree.map(lambda *x: sum(x) / 3, *members)
  ensemble = np.mean([scores(member) for member in members], axis=0)
  expected_average = scores(mean)
  run.checkpoints.close()
  np.testing.assert_allclose(evaluated("average"), expected_average, atol=1e-6)
  _, saved = model_directory.load_model(workdir / "results/eval-average/model")
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
    saved["params"],
    mean["params"],
  )
  np.testing.assert_allclose(evaluated("ensemble"), ensemble, atol=1e-6)


def test_the_moving_average_is_what_is_validated_and_saved(tiny_config, tmp_path):
  tiny_config.train.ema_decay = 0.9
  tiny_config.evaluation.checkpoint = "last"
  workdir = tmp_path / "run"
  train.train_and_evaluate(tiny_config, str(workdir))
  state = last_state(tiny_config, workdir)
  _, saved = model_directory.load_model(workdir / "model")
  jax.tree.map(np.testing.assert_array_equal, saved["params"], state.ema["params"])
  kernel = state.params["conv0"]["kernel"]
  assert not np.array_equal(saved["params"]["conv0"]["kernel"], kernel)


def test_tensorboard_shows_clips_to_see_and_to_hear(finished):
  workdir = finished.workdir
  events = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={event_accumulator.TENSORS: 0}
  ).Reload()
  plugins = {
    tag: events.SummaryMetadata(tag).plugin_data.plugin_name
    for tag in events.Tags()["tensors"]
  }
  for fname in (1012, 1014, 1015, 1017):  # spread over the six clips of val
    assert plugins[f"examples/{fname}/audio"] == "audio"
    assert plugins[f"examples/{fname}/scores"] == "images"
    assert len(events.Tensors(f"examples/{fname}/scores")) == 3
  assert plugins["_hparams_/session_start_info"] == "hparams"


def test_runs_are_compared_by_the_keys_that_differ_from_the_base(finished):
  config = copy.deepcopy(finished.config)
  config.seed = 3
  assert loop.hparams(config) == {
    "seed": 3,
    "model.name": "crnn",
    "data.clip_s": 1.0,
    "frontend.sample_rate_hz": 8_000,
    "frontend.f_max_hz": 4_000.0,
    "crnn.filters": "(4, 8)",
    "crnn.time_pooling": "(2, 2)",
    "crnn.mel_pooling": "(4, 4)",
    "crnn.gru_units": "(8,)",
    "train.num_steps": 6,
    "train.batch_size": 8,
    "train.eval_every_steps": 2,
  }


def test_a_finished_run_is_only_evaluated_again(finished, finished_copy):
  config, workdir, _ = finished_copy
  scalars = learning_curves.read_scalars(workdir)
  text = train.train_and_evaluate(config, str(workdir))
  assert text.replace(str(workdir), str(finished.workdir)) == finished.text
  again = learning_curves.read_scalars(workdir)
  np.testing.assert_array_equal(scalars["train/loss"], again["train/loss"])


def contents(folder):
  """The bytes of each file, without the lock and the log."""
  files = [path for path in folder.rglob("*") if path.is_file()]
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in files
    if path.name not in (".lock", "log.txt")
  }


def test_another_evaluation_than_the_runs_own_is_stored_beside_it(finished_copy):
  config, workdir, _ = finished_copy
  before = contents(workdir)
  config.evaluation.split = "val"
  config.evaluation.checkpoint = "last"
  text = evaluate_run.evaluate_only(config, str(workdir))
  after = contents(workdir)
  assert {name: after[name] for name in before} == before
  assert {name.split("/model/")[0] for name in after.keys() - before.keys()} == {
    *(f"results/val-last/{x}" for x in ("performance.json", "per_class.csv")),
    *("results/val-last/predictions.npz", "results/val-last"),
  }
  assert f"\nResults: {workdir}/results/val-last\n" in text
  assert f"\nModel:   {workdir}/results/val-last/model\n" in text
  assert f"results and model stay: {workdir}/results, {workdir}/model\n" in text

  entry = performance(workdir, "results/val-last")
  assert (entry["split"], entry["step"], entry["num_clips"]) == ("val", 6, 6)
  steps, values = learning_curves.read_scalars(workdir)["val/mAP"]
  assert entry["mAP"] == pytest.approx(values[steps == 6][0], abs=1e-6)

  # Neither does another threshold replace anything, nor a training that has ended.
  config.evaluation.threshold = 0.4
  train.train_and_evaluate(config, str(workdir))
  now = contents(workdir)
  del now["results/learning_curves.png"], after["results/learning_curves.png"]
  assert {name: now[name] for name in after} == after
  assert performance(workdir, "results/val-last-threshold=0.4")["threshold"] == 0.4


def test_an_evaluation_again_writes_the_same_files(finished_copy):
  config, workdir, _ = finished_copy
  before = contents(workdir)
  text = evaluate_run.evaluate_only(config, str(workdir))
  assert f"\nResults: {workdir}/results\n" in text
  assert "stay" not in text
  after = contents(workdir)
  # orbax names the files of arrays at random.
  before, after = (
    {x: data for x, data in each.items() if "/checkpoints/" not in x}
    for each in (before, after)
  )
  assert after.keys() == before.keys()
  results = [name for name in before if name.endswith((".csv", ".npz", ".json"))]
  assert {x: after[x] for x in results} == {x: before[x] for x in results}


@pytest.mark.parametrize(
  ("trains", "is_evaluated", "split"),
  [(True, False, "val"), (True, True, "eval"), (False, False, "eval")],
)
def test_only_a_training_without_results_changes_the_runs_own_evaluation(
  trains, is_evaluated, split, finished_copy
):
  config, workdir, _ = finished_copy
  config.evaluation.split, config.evaluation.batch_size = "val", 16
  if not is_evaluated:
    shutil.rmtree(workdir / "results")
  own = find_own_evaluation(config, workdir, trains=trains)
  assert (own["split"], own["batch_size"]) == (split, 16)


def test_results_are_replaced_together_or_not_at_all(finished_copy, monkeypatch):
  config, workdir, _ = finished_copy
  before = contents(workdir / "results")

  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(np, "savez_compressed", fail)
  with pytest.raises(OSError, match="No space"):
    evaluate_run.evaluate_only(config, str(workdir))
  assert contents(workdir / "results") == before


def test_the_best_checkpoint_is_the_one_of_the_best_validation(tiny_config, tmp_path):
  tiny_config.train.num_steps = 12
  train.train_and_evaluate(tiny_config, str(tmp_path / "run"))
  steps, values = learning_curves.read_scalars(tmp_path / "run")["val/mAP"]
  best = values == values.max()
  assert performance(tmp_path / "run")["step"] in steps[best]
  kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()}
  assert {10, 12} <= kept
  assert len(kept) <= 3


def test_evaluation_needs_a_run(tiny_config, tmp_path):
  with pytest.raises(UserError, match="has no config.json"):
    evaluate_run.evaluate_only(tiny_config, str(tmp_path))


def test_a_workdir_of_another_config_is_refused(finished_copy):
  config, workdir, _ = finished_copy
  config.train.learning_rate = 0.5
  config.evaluation.threshold = 0.4  # free to change
  with pytest.raises(UserError) as info:
    train.train_and_evaluate(config, str(workdir))
  assert "train.learning_rate (was 0.001, now 0.5)" in str(info.value)
  assert "threshold" not in str(info.value)


def test_a_workdir_of_other_data_is_refused(tiny_config, fsd50k_dir, tmp_path):
  train.train_and_evaluate(tiny_config, str(tmp_path / "run"))
  path = fsd50k_dir / "FSD50K.ground_truth/dev.csv"
  path.write_text(path.read_text().replace(",val", ",train", 1))
  message = "the clips of train, the clips of val changed .split: 1012"
  with pytest.raises(UserError, match=message):
    train.train_and_evaluate(tiny_config, str(tmp_path / "run"))


def test_a_loss_that_diverges_stops_the_run(tiny_config, tmp_path):
  tiny_config.train.learning_rate = 1e38
  tiny_config.train.weight_decay = 1e30
  with pytest.raises(UserError, match=r"the loss is .* at step \d+; .*checkpoint"):
    train.train_and_evaluate(tiny_config, str(tmp_path / "run"))


def test_a_batch_that_the_devices_cannot_share_is_refused(tiny_config, tmp_path):
  tiny_config.train.batch_size = 12
  with pytest.raises(UserError, match="batch_size 12 is not divisible by 8 devices"):
    train.train_and_evaluate(tiny_config, str(tmp_path / "run"))


@pytest.mark.parametrize(
  ("step", "due"), [(1, False), (4, True), (5, False), (8, True), (10, True)]
)
def test_cadence(step, due):
  assert loop.is_due(step, every_steps=4, num_steps=10) == due


def test_classes_without_positives_are_counted(tiny_config, fsd50k_dir, tmp_path):
  path = fsd50k_dir / "FSD50K.ground_truth/eval.csv"
  path.write_text(path.read_text().replace("Siren", "Bell"))
  text = train.train_and_evaluate(tiny_config, str(tmp_path / "run"))
  assert "1 classes without a positive are left out of the means" in text
  with (tmp_path / "run/results/per_class.csv").open() as file:
    siren = list(csv.DictReader(file))[2]
  assert (siren["label"], siren["support"], siren["AP"]) == ("Siren", "0", "nan")
