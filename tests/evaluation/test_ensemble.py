"""Ensembles, and the runs that they refuse."""

import finished_runs
import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import ensemble


@pytest.fixture
def workdirs(tmp_path):
  return [finished_runs.write_run(tmp_path / f"run{i}", seed=i) for i in range(3)]


def test_what_does_not_fit_is_one_line_and_nothing_is_written(workdirs, tmp_path):
  output = tmp_path / "together"
  other = finished_runs.write_run(tmp_path / "other", num_clips=80)
  with pytest.raises(UserError, match="other cannot be compared: they have 90 and 80"):
    ensemble.write_ensemble([workdirs[0], other], output)
  with pytest.raises(UserError, match="takes two runs or more, not 1"):
    ensemble.write_ensemble(workdirs[:1], output)
  without_val = finished_runs.write_run(tmp_path / "without", with_val=False)
  with pytest.raises(UserError, match="without have different val clips"):
    ensemble.write_ensemble([workdirs[0], without_val], output)
  assert not output.exists()


def test_nothing_is_written_over_a_run_or_without_being_asked(workdirs, tmp_path):
  output = tmp_path / "together"
  ensemble.write_ensemble(workdirs, output)
  with pytest.raises(UserError, match="exists: give another --output"):
    ensemble.write_ensemble(workdirs, output)
  ensemble.write_ensemble(workdirs[:2], output, overwrite=True)
  with pytest.raises(UserError, match="run2 is a run, not an ensemble"):
    ensemble.write_ensemble(workdirs[:2], workdirs[2], overwrite=True)
