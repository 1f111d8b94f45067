import json

import pytest

pytestmark = pytest.mark.slow


def read(path):
  return json.loads(path.read_text())


def test_a_run_is_measured_as_it_was_evaluated(finished_copy, run_tool):
  finished = finished_copy.workdir
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
  assert again.stdout.count("exists, and is newer than the evaluation") == 2


def test_anything_but_a_finished_run_is_refused_in_one_line(tmp_path, run_tool):
  (tmp_path / "config.json").write_text("{}")
  result = run_tool("measure.py", str(tmp_path))
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  message = "is not a finished run, because it has no model/model.json: train it"
  assert message in line
