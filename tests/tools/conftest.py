"""Tools, run as a user runs them."""

import commands
import pytest


@pytest.fixture
def run_tool():
  """Runs a file of tools/ with arguments; returns what subprocess.run returns."""
  return lambda name, *args: commands.run(f"tools/{name}", *args)


@pytest.fixture
def launch_tool():
  """Does what `run_tool` does, in a process of its own."""
  return lambda name, *args: commands.launch(f"tools/{name}", *args)
