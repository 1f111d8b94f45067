"""An ensemble of runs, which is compared like a run."""

import json
import sys

import finished_runs
import numpy as np
import pytest

from audiotag_jax.evaluation import runs
from tools import ensemble as tool


@pytest.fixture
def workdirs(tmp_path):
  return [finished_runs.write_run(tmp_path / f"run{i}", seed=i) for i in range(3)]


def test_its_scores_are_the_runs_mean(workdirs, tmp_path, monkeypatch, capsys):
  output = tmp_path / "together"
  args = ["ensemble.py", *map(str, workdirs), f"--output={output}"]
  monkeypatch.setattr(sys, "argv", args)
  monkeypatch.setattr(tool.logs, "show_progress", lambda: None)
  tool.main()
  for name in ("predictions", "val_predictions"):
    members = [np.load(w / f"results/{name}.npz")["scores"] for w in workdirs]
    arrays = np.load(output / f"results/{name}.npz")
    expected = sum(m.astype(np.float64) for m in members) / 3
    np.testing.assert_allclose(arrays["scores"], expected, atol=1e-7)
  entry = json.loads((output / "results/performance.json").read_text())["together"]
  single = [json.loads((w / "results/performance.json").read_text()) for w in workdirs]
  mean_aps = [next(iter(one.values()))["mAP"] for one in single]
  assert entry["mAP"] > max(mean_aps)  # noise of its own in each: the mean has less
  assert entry["model"] == "ensemble of run0, run1, run2"
  assert entry["params"] == 3 * 195_788
  assert f"{entry['mAP']:.3f}" in capsys.readouterr().out
  # A comparison takes the ensemble beside its members.
  assert len(runs.load_runs([*workdirs, output])) == 4
