import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prepare_data(*args):
  return subprocess.run(
    [sys.executable, "tools/prepare_data.py", *args],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_it_prepares_a_folder_and_reports(fsd50k_dir, tmp_path):
  args = ("fsd50k", f"--source={fsd50k_dir}", f"--data_dir={tmp_path}/data")
  result = prepare_data(*args, "--sample_rate_hz=16000")
  assert result.returncode == 0, result.stderr
  assert "clips     25 (train 12, val 6, eval 7)" in result.stdout
  assert "classes   3" in result.stdout
  assert len(list((tmp_path / "data/fsd50k").glob("16000hz-*/1.0.0/clips.csv"))) == 1


def test_missing_clips_fail_it_unless_allowed(fsd50k_dir, tmp_path):
  (fsd50k_dir / "FSD50K.dev_audio/1003.wav").unlink()
  args = ("fsd50k", f"--source={fsd50k_dir}", f"--data_dir={tmp_path}/data")
  refused = prepare_data(*args)
  assert refused.returncode == 1
  assert "1 clips are missing or unreadable (1003)" in refused.stderr
  assert "Traceback" not in refused.stderr
  assert prepare_data(*args, "--allow_missing=1").returncode == 0
