"""The package without TensorFlow: it tags, and refuses the rest in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import tiny_models
from conftest import chirp

from audiotag_jax.errors import WITH_TENSORFLOW

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
HIDE = f"""
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name not in {WITH_TENSORFLOW}:
      return super().find_spec(name, path, target)

sys.meta_path = [Finder if f is PathFinder else f for f in sys.meta_path]
"""
RUN, MODEL = "{folder}/runs/crnn", "{folder}/model"
DEMO = "--config=configs/crnn_demo.py"


@pytest.fixture
def run(tmp_path):
  """Runs a command whose Python has none of TensorFlow's packages, in `tmp_path`."""
  (tmp_path / "hidden").mkdir()
  (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
  path = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])

  def run(*args):
    return subprocess.run(
      [sys.executable, *(arg.format(folder=tmp_path) for arg in args)],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": path},
      capture_output=True,
      text=True,
    )

  return run


def test_recordings_are_tagged(run, tmp_path):
  tiny_models.write(tmp_path / "model")
  soundfile.write(tmp_path / "clip.wav", chirp(1.0, rate_hz=16_000), 16_000)
  done = run(
    "tools/tag.py", "{folder}/clip.wav", f"--checkpoint={MODEL}", "--format=jsonl"
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert json.loads(done.stdout)["tags"]
  assert "usage: convert_panns.py" in run("tools/convert_panns.py", "--help").stdout


def test_stablehlo_is_exported_and_tensorflow_is_named(run, tmp_path):
  tiny_models.write(tmp_path / "model", "Cnn6")
  export = ("tools/export_model.py", f"--checkpoint={MODEL}")
  done = run(*export, "--output={folder}/out", "--formats=stablehlo")
  assert (done.returncode, done.stderr) == (0, "")
  assert (tmp_path / "out" / "model.stablehlo").exists()

  done = run(*export, "--output={folder}/all")
  assert done.returncode == 1
  assert done.stderr == (
    "error: this format needs tensorflow (audiotag_jax installs it on Python 3.11, "
    "3.12 and 3.13; TensorFlow is not released for Python 3.14 yet): leave the format "
    "out of --formats, or install it\n"
  )
  assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
  "args",
  [
    ("-m", "audiotag_jax.main", DEMO, f"--workdir={RUN}"),
    ("tools/prepare_data.py", "soundscapes", "--data_dir={folder}/data"),
    ("tools/inspect_data.py", DEMO, "--output={folder}/inspection"),
    ("tools/study.py", DEMO, "--workdir={folder}/study"),
    ("tools/compare.py", RUN, "--output={folder}/report"),
  ],
  ids=lambda args: Path(args[1] if args[0] == "-m" else args[0]).stem,
)
def test_a_command_that_needs_it_says_so_in_a_line(run, args):
  done = run(*args)
  assert done.returncode == 1
  start, _, end = done.stderr.partition(", which is not installed. ")
  assert start.removeprefix("error: this command needs ") in WITH_TENSORFLOW
  assert end == (
    "audiotag_jax installs it on Python 3.11, 3.12 and 3.13; TensorFlow is not "
    "released for Python 3.14 yet\n"
  )
