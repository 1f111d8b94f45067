import json
import os

import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.training import train
from tools import measure


@pytest.fixture
def finished(tiny_config, tmp_path):
  """The workdir of a finished run."""
  workdir = tmp_path / "run"
  train.train_and_evaluate(tiny_config, str(workdir))
  return workdir


def read(path):
  return json.loads(path.read_text())


def test_a_run_is_measured_as_it_was_evaluated(finished, run_tool):
  result = run_tool("measure.py", str(finished))
  assert result.returncode == 0, result.stderr
  results = finished / "results"
  assert result.stdout.splitlines()[-2:] == [
    str(results / "cost.json"),
    str(results / "robustness.json"),
  ]
  assert "excerpt, 5 s: mAP" in result.stderr
  entry = read(finished / "results/performance.json")["run"]
  robustness = read(finished / "results/robustness.json")
  assert list(robustness)[:2] == ["clean", "white noise, 20 dB"]
  assert robustness["clean"] == pytest.approx(
    {key: entry[key] for key in ("mAP", "f1")}
  )
  cost = read(finished / "results/cost.json")
  assert cost["params"] == entry["params"]
  assert cost["clip_s"] == 1.0
  assert cost["clips_per_second"] > 1
  assert cost["multiply_adds_per_clip"] > 10_000

  again = run_tool("measure.py", str(finished))
  assert again.returncode == 0, again.stderr
  assert again.stdout.count("is there, and newer than the evaluation") == 2


@pytest.fixture
def measures(monkeypatch):
  """The runs whose cost and robustness were measured, which takes no time here."""
  runs = {"cost": [], "robustness": []}
  for name, measured in runs.items():
    monkeypatch.setattr(measure, f"measure_{name}", measured.append)
  return runs


def test_the_split_evaluated_last_is_measured(tiny_config, finished, measures):
  measure.measure_run(finished)
  (first,) = measures["cost"]
  assert first.config.evaluation.split == "eval"
  assert first.config.crnn.filters == (4, 8)
  assert measures["robustness"] == [first]
  measure.measure_run(finished)
  assert len(measures["cost"]) == 1

  tiny_config.evaluation.split, tiny_config.evaluation.threshold = "val", 0.4
  train.evaluate_only(tiny_config, str(finished))
  os.utime(finished / "results/robustness.json")
  measure.measure_run(finished)
  assert len(measures["robustness"]) == 1
  assert len(measures["cost"]) == 2
  assert measures["cost"][1].config.evaluation.split == "val"
  assert measures["cost"][1].config.evaluation.threshold == 0.4


def test_weights_or_clips_that_are_not_those_evaluated(finished, fsd50k_dir):
  path = finished / "results/performance.json"
  performance = read(path)
  performance["run"]["step"] += 1
  path.write_text(json.dumps(performance))
  with pytest.raises(UserError, match=r"run/model is of step \d, but .* of \d: eval"):
    measure.read_run(finished)
  performance["run"]["step"] -= 1
  path.write_text(json.dumps(performance))
  run = measure.read_run(finished)
  table = fsd50k_dir / "FSD50K.ground_truth/eval.csv"
  table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
  with pytest.raises(UserError, match="was evaluated on other clips than those"):
    measure.measure_robustness(run)


def test_a_config_of_another_version(tiny_config, tmp_path):
  config = tiny_config.to_dict()
  config["crnn"]["flux"] = 88
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match="config.json does not fit this version.*flux"):
    measure.read_run(tmp_path)


def test_what_is_no_finished_run_is_one_line(tmp_path, run_tool):
  (tmp_path / "config.json").write_text("{}")
  result = run_tool("measure.py", str(tmp_path))
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert "is no finished run, for it has no model/model.json: train it" in line
