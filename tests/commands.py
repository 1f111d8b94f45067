"""Command lines, run in this process or in one of their own.

A process of its own is as a user has it, and imports JAX and TensorFlow for seconds.
"""

import contextlib
import faulthandler
import io
import logging as python_logging
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from absl import logging

REPOSITORY = Path(__file__).resolve().parents[1]


def launch(script: str, *args: str) -> subprocess.CompletedProcess:
  """Runs a file of the repository as `python FILE ARGS` does, in the repository."""
  env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
  command = [sys.executable, str(REPOSITORY / script), *args]
  return subprocess.run(
    command, env=env, cwd=REPOSITORY, capture_output=True, text=True
  )


def run(script: str, *args: str) -> subprocess.CompletedProcess:
  """Does what `launch` does, in this process."""
  path, stdout, stderr = str(REPOSITORY / script), io.StringIO(), io.StringIO()
  with (
    mock.patch.object(sys, "argv", [path, *args]),
    mock.patch.dict(os.environ),
    mock.patch.object(faulthandler, "enable"),  # It needs a file.
    contextlib.chdir(REPOSITORY),
    contextlib.redirect_stdout(stdout),
    contextlib.redirect_stderr(stderr),
    _logging_kept(),
  ):
    try:
      runpy.run_path(path, run_name="__main__")
      code = 0
    except SystemExit as exit_:
      code = exit_.code or 0
      if isinstance(code, str):
        print(code, file=stderr)
        code = 1
    except Exception:
      traceback.print_exc()
      code = 1
  return subprocess.CompletedProcess(
    [path, *args], code, stdout.getvalue(), stderr.getvalue()
  )


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
  """Undoes what `audiotag_jax.logs` sets."""
  root, handler = python_logging.getLogger(), logging.get_absl_handler()
  handlers, filters = root.handlers[:], handler.filters[:]
  verbosity, stream = logging.get_verbosity(), handler.python_handler.stream
  yield
  root.handlers[:], handler.filters[:] = handlers, filters
  logging.set_verbosity(verbosity)
  handler.python_handler.setStream(stream)
