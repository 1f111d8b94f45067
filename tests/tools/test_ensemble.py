"""An ensemble of runs, which is compared like a run."""

import json
import sys

import finished_runs
import numpy as np
import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import ensemble, runs
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
  # It stands beside its members in a comparison.
  assert len(runs.load_runs([*workdirs, output])) == 4


def test_what_does_not_fit_is_one_line_and_nothing_is_written(workdirs, tmp_path):
  output = tmp_path / "together"
  other = finished_runs.write_run(tmp_path / "other", num_clips=80)
  with pytest.raises(UserError, match="other cannot be compared: they have 90 and 80"):
    ensemble.write_ensemble([workdirs[0], other], output)
  with pytest.raises(UserError, match="takes two runs or more, not 1"):
    ensemble.write_ensemble(workdirs[:1], output)
  without_val = finished_runs.write_run(tmp_path / "without", with_val=False)
  with pytest.raises(UserError, match="without have other val clips"):
    ensemble.write_ensemble([workdirs[0], without_val], output)
  assert not output.exists()


def test_nothing_is_written_over_a_run_or_without_being_asked(workdirs, tmp_path):
  output = tmp_path / "together"
  ensemble.write_ensemble(workdirs, output)
  with pytest.raises(UserError, match="exists: give another --output"):
    ensemble.write_ensemble(workdirs, output)
  ensemble.write_ensemble(workdirs[:2], output, overwrite=True)
  with pytest.raises(UserError, match="run2 is a run, no ensemble"):
    ensemble.write_ensemble(workdirs[:2], workdirs[2], overwrite=True)
