import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from audiotag_jax import logs, names

NAME = "a\x1b\udcff.wav"


@pytest.mark.parametrize(("version", "is_bad"), [("0.10.2", True), ("0.12.0.1", False)])
def test_a_jax_that_computes_wrong_is_warned_of(version, is_bad, monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", {"jax": version}.get)
  warned = []
  monkeypatch.setattr(logs.logging, "warning", lambda *args: warned.append(args))
  logs.warn_of_bad_jax()
  assert [args[0] % args[1:] for args in warned] == [
    "jax 0.10.2 computes some sums wrong on a CPU "
    "(https://github.com/jax-ml/jax/issues/39103). The models of this package were "
    "compared with float64 and are right with it. Python 3.12 and newer get a jax "
    "without this fault."
  ][:is_bad]


PROGRAM = r"""
import sys
from pathlib import Path
from absl import logging
from audiotag_jax import logs
from clu import metric_writers

NAME = "a\x1b\udcff.wav"
logs.show_progress(verbose="--verbose" in sys.argv)
with logs.written_to(Path(sys.argv[1])):
  exec(compile("logging.info('step %d', 3)", "/audiotag_jax/loop.py", "exec"))
  exec(compile("logging.info('developers')", "/orbax/a.py", "exec"))
  exec(compile("logging.warning('%s is silent', NAME)", "/audiotag_jax/a.py", "exec"))
  metric_writers.LoggingWriter().write_scalars(3, {"loss": 0.5})
logging.info("not in the file")
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_a_terminal_has_short_lines_and_the_file_has_all(verbose, tmp_path):
  path = tmp_path / "log.txt"
  command = [sys.executable, "-c", PROGRAM, str(path), *["--verbose"][: int(verbose)]]
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  assert done.stdout == ""
  silent = f"{names.printable(NAME)} is silent"
  assert "\x1b" not in silent
  short = ["step 3", f"warning: {silent}", "[3] loss=0.5"][: 2 + verbose]
  assert done.stderr.splitlines() == short
  lines = path.read_text().splitlines()
  assert [line.partition("] ")[2] for line in lines] == [
    "step 3", silent, "[3] loss=0.5"
  ]  # fmt: skip


def test_a_full_disk_costs_lines_and_says_nothing(capsys):
  with logs.written_to(Path("/dev/full")):
    logs.logging.warning("a line")
  assert "Traceback" not in capsys.readouterr().err
