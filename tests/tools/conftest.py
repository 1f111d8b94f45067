"""Tools, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run_tool():
  """Runs a file of tools/ with arguments; returns what subprocess.run returns."""

  def run(name: str, *args: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "tools" / name), *args]
    return subprocess.run(
      command, env=env, cwd=REPOSITORY, capture_output=True, text=True
    )

  return run
