"""Tools, run as a user runs them."""

import sys

import commands
import pytest
import tag


@pytest.fixture
def run_tool():
  """Runs a file of tools/ with arguments; returns what subprocess.run returns."""
  return lambda name, *args: commands.run(f"tools/{name}", *args)


@pytest.fixture
def launch_tool():
  """Does what `run_tool` does, in a process of its own."""
  return lambda name, *args: commands.launch(f"tools/{name}", *args)


@pytest.fixture
def run(monkeypatch, capsys, model):
  """Runs tag.py with `model`; returns its exit code, what it prints, and its errors."""

  def run(*args, checkpoint=model):
    line = ["tag.py", *map(str, args), f"--checkpoint={checkpoint}"]
    monkeypatch.setattr(sys, "argv", line)
    code = 0
    try:
      tag.main()
    except SystemExit as error:
      code = error.code
    return code, *capsys.readouterr()

  return run
