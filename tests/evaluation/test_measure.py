import json
import os

import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import measure
from audiotag_jax.evaluation.runs import load_run
from audiotag_jax.training import evaluate_run, train

pytestmark = pytest.mark.slow


def read(path):
  return json.loads(path.read_text())


@pytest.fixture
def measures(monkeypatch):
  """The runs whose cost and robustness were measured; measuring takes no time here."""
  runs = {"cost": [], "robustness": []}
  for name, measured in runs.items():
    monkeypatch.setattr(measure, f"measure_{name}", measured.append)
  return runs


def test_each_evaluation_is_measured_by_itself(finished_copy, measures):
  config, finished, _ = finished_copy
  list(measure.measure_run(finished))
  (first,) = measures["cost"]
  assert first.config.evaluation.split == "eval"
  assert first.config.crnn.filters == (4, 8)
  assert measures["robustness"] == [first]
  list(measure.measure_run(finished))
  assert len(measures["cost"]) == 1

  config.evaluation.split, config.evaluation.threshold = "val", 0.4
  config.evaluation.crop = "windows"
  evaluate_run.evaluate_only(config, str(finished))
  list(measure.measure_run(finished))
  assert len(measures["cost"]) == len(measures["robustness"]) == 1
  other = finished / "results/val-best-crop=windows-threshold=0.4"
  paths = list(measure.measure_run(other))
  assert paths == [(other / "cost.json", True), (other / "robustness.json", True)]
  _, second = measures["cost"]
  evaluation = second.config.evaluation
  assert (evaluation.split, evaluation.crop) == ("val", "windows")
  assert (evaluation.threshold, second.config.evaluation.checkpoint) == (0.4, "best")
  assert second.restored

  evaluate_run.evaluate_only(config, str(finished))
  os.utime(other / "robustness.json")
  list(measure.measure_run(other))
  assert (len(measures["cost"]), len(measures["robustness"])) == (3, 2)


def test_weights_or_clips_that_are_not_those_evaluated(
  tiny_config, fsd50k_dir, tmp_path
):
  finished = tmp_path / "run"
  train.train_and_evaluate(tiny_config, str(finished))
  path = finished / "results/performance.json"
  performance = read(path)
  performance["run"]["step"] += 1
  path.write_text(json.dumps(performance))
  with pytest.raises(UserError, match=r"run/model has step \d, but .* has \d: eval"):
    _ = load_run(finished).restored
  performance["run"]["step"] -= 1
  path.write_text(json.dumps(performance))
  run = load_run(finished)
  table = fsd50k_dir / "FSD50K.ground_truth/eval.csv"
  table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
  with pytest.raises(UserError, match="was evaluated on other clips than eval has"):
    measure.measure_robustness(run)
