import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def figures_of(result):
  assert result.returncode == 0, result.stderr
  rows = [line for line in result.stdout.splitlines() if ": " in line or "GiB" in line]
  return {row[:34].strip(): float(row[34:44]) for row in rows if row[34:44].strip()}


@pytest.mark.exhaustive
def test_every_stage_of_a_recipe_gives_a_figure(launch_tool, fsd50k_dir):
  args = (f"--source={fsd50k_dir}", "--config=configs/crnn_demo.py")
  figures = figures_of(launch_tool("benchmark.py", "recipe", *args))
  assert all(figure > 0 for figure in figures.values())
  assert {"prepare: clips/s", "log-mel: 6-s clips/s", "train: steps/s"} <= set(figures)


@pytest.mark.exhaustive
def test_the_data_path_gives_figures(launch_tool):
  args = ("--num_clips=20", "--largest_index=1000")
  result = launch_tool("benchmark.py", "data", *args)
  assert result.returncode == 0, result.stderr
  rows = result.stdout.splitlines()
  assert [row[:34].strip() for row in rows[1:6]] == [
    "prepare: × real time",
    "prepare: clips/s",
    "prepare: peak memory, GiB",
    "log-mel of waveforms: 10-s clips/s",
    "cached log-mels: 10-s clips/s",
  ]
  assert all(float(row[34:44]) > 0 for row in rows[1:6])
  assert [row.split()[0] for row in rows[7:]] == ["1,000"]
  assert all(float(row.split()[-2]) > 0 for row in rows[7:])


def test_tagging_a_file_is_measured(tmp_path):
  tiny_models.write(tmp_path / "model")
  code = (
    "import pathlib; from benchmarks import tag as b; "
    f"folder = pathlib.Path({str(tmp_path)!r}); "
    "b.write_noise(folder / 'a.wav', 2.0); "
    "print(b.run_tag(folder, folder / 'a.wav'))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  assert 0.1 < float(result.stdout) < 1.0  # GiB
