import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_stage_gives_a_figure(fsd50k_dir):
  result = subprocess.run(
    [
      sys.executable,
      "tools/benchmark.py",
      f"--source={fsd50k_dir}",
      "--config=configs/crnn_demo.py",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  rows = [line for line in result.stdout.splitlines() if ": " in line or "GiB" in line]
  figures = {row[:34].strip(): float(row[34:44]) for row in rows}
  assert all(figure > 0 for figure in figures.values())
  assert {"prepare: clips/s", "log-mel: 6-s clips/s", "train: steps/s"} <= set(figures)
