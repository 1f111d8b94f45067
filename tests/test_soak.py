"""A long training holds no more at its end than at its start."""

import json
import os
import subprocess
import sys

import commands
import numpy as np
import pytest


@pytest.mark.exhaustive
def test_a_long_training_grows_in_nothing(tmp_path):
  num_steps = int(os.environ.get("SOAK_STEPS", "20000"))
  result = subprocess.run(
    [
      sys.executable,
      str(commands.REPOSITORY / "tests/soak.py"),
      str(tmp_path),
      str(num_steps),
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  rows = [json.loads(line) for line in result.stdout.splitlines() if line[0] == "{"]
  assert len(rows) == num_steps // 1_000
  # The first validation compiles, and fills caches.
  first, *_, last = rows = rows[2:]
  slope = np.polyfit([row["step"] for row in rows], [row["held_mb"] for row in rows], 1)
  assert slope[0] * 1_000 < 1.0
  for key in ("files", "threads", "compilations"):
    assert last[key] <= first[key] + 2, key
