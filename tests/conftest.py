"""Settings that must be made before jax is imported, and shared fixtures."""

# ruff: noqa: E402
import os
import sys
import tempfile

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
# Many tests, and pytest-xdist's workers, compile the same small programs.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _COMPILED = tempfile.TemporaryDirectory(prefix="jax-cache-")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# PyTorch's optimizers import Triton where it is installed; beside TensorFlow that ends
# the process.
sys.modules["triton"] = None

import copy
import csv
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
CLASSES = ("Bell", "Rain", "Siren")
CLIPS = {"train": 12, "val": 6, "eval": 7}
MIDS = ("/m/0395lw", "/m/06mb1", "/m/03kmc9")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Makes `-m "not slow"` leave out the exhaustive tests too, and puts slow ones first.

  The slowest are the tools'. At the end, they would leave all workers but one idle.
  """
  for item in items:
    if item.get_closest_marker("exhaustive"):
      item.add_marker(pytest.mark.slow)
  items.sort(
    key=lambda item: (
      not item.get_closest_marker("slow"),
      "tools" not in item.path.parts,
    )
  )


def chirp(seconds: float, seed: int = 0, rate_hz: int = 44_100) -> np.ndarray:
  """A sweep over noise <float64>[samples], peak below 1, different for each seed."""
  rng = np.random.default_rng(seed)
  t = np.arange(round(seconds * rate_hz)) / rate_hz
  start_hz, sweep_hz = rng.uniform(200, 2000, 2)
  sweep = np.sin(2 * np.pi * (start_hz + sweep_hz * t) * t)
  return 0.6 * sweep + 0.1 * rng.uniform(-1, 1, len(t))


def write_fsd50k(
  folder: Path, num_clips: dict[str, int], seconds: tuple[float, ...] = (0.3, 1.0, 2.5)
) -> Path:
  """Writes a folder in FSD50K's layout: 44.1 kHz, each class's clips alike."""
  for name in ("dev_audio", "eval_audio", "ground_truth"):
    (folder / f"FSD50K.{name}").mkdir(parents=True)
  rows, number = {"dev": [], "eval": []}, 1000
  for split, count in num_clips.items():
    part = "eval" if split == "eval" else "dev"
    for _ in range(count):
      labels = [number % 3] if number % 4 else [number % 3, (number + 1) % 3]
      waveform = chirp(seconds[number % len(seconds)], seed=number % 3)
      path = folder / f"FSD50K.{part}_audio" / f"{number}.wav"
      soundfile.write(path, waveform, 44_100, subtype="PCM_16")
      names = ",".join(CLASSES[i] for i in labels)
      row = [number, names, ",".join(MIDS[i] for i in labels)]
      rows[part].append(row if part == "eval" else [*row, split])
      number += 1
  ground_truth = folder / "FSD50K.ground_truth"
  vocabulary = [[i, *names] for i, names in enumerate(zip(CLASSES, MIDS, strict=True))]
  tables = {
    "dev": [["fname", "labels", "mids", "split"], *rows["dev"]],
    "eval": [["fname", "labels", "mids"], *rows["eval"]],
    "vocabulary": vocabulary,
  }
  for name, table in tables.items():
    with (ground_truth / f"{name}.csv").open("w", newline="") as file:
      csv.writer(file).writerows(table)
  return folder


@pytest.fixture
def fsd50k_dir(tmp_path) -> Path:
  """12 train, 6 val and 7 eval clips of three classes, of 0.3, 1 and 2.5 s."""
  return write_fsd50k(tmp_path / "source", CLIPS)


def create_tiny_config(source_dir: Path, data_dir: Path):
  """A recipe that trains in seconds: 6 steps of 8 clips, a validation every second."""
  from audiotag_jax import config as config_lib

  config = config_lib.get_config()
  config.data.source_dir = str(source_dir)
  config.data.data_dir = str(data_dir)
  config.data.clip_s = 1.0
  config.frontend.sample_rate_hz = 8_000
  config.frontend.f_max_hz = 4_000.0
  config.crnn.filters = (4, 8)
  config.crnn.time_pooling = (2, 2)
  config.crnn.mel_pooling = (4, 4)
  config.crnn.gru_units = (8,)
  config.train.num_steps = 6
  config.train.batch_size = 8
  config.train.log_every_steps = 2
  config.train.eval_every_steps = 2
  config.evaluation.batch_size = 8
  return config


@pytest.fixture
def tiny_config(fsd50k_dir, tmp_path):
  return create_tiny_config(fsd50k_dir, tmp_path / "data")


class FinishedRun(NamedTuple):
  """A run of `create_tiny_config`.

  Attributes:
    config: its config.
    workdir: its folder.
    text: the results that it printed.
  """

  config: Any
  workdir: Path
  text: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> FinishedRun:
  """A finished run that tests share; a test that writes to it takes `finished_copy`."""
  from audiotag_jax.training import train

  folder = tmp_path_factory.mktemp("finished")
  config = create_tiny_config(write_fsd50k(folder / "source", CLIPS), folder / "data")
  text = train.train_and_evaluate(config, str(folder / "run"))
  return FinishedRun(config, folder / "run", text)


@pytest.fixture
def finished_copy(finished, tmp_path) -> FinishedRun:
  """A copy of the finished run, whose data the tests share."""
  shutil.copytree(finished.workdir, tmp_path / "run")
  config = copy.deepcopy(finished.config)
  return FinishedRun(config, tmp_path / "run", finished.text)


@pytest.fixture
def path_without_ffmpeg(tmp_path, monkeypatch) -> Path:
  """A folder that is all of PATH: there is no ffmpeg, neither imageio-ffmpeg's."""
  folder = tmp_path / "programs"
  folder.mkdir()
  monkeypatch.setenv("PATH", str(folder))
  monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(folder / "none"))
  return folder


@pytest.fixture
def ffmpeg(path_without_ffmpeg) -> Path:
  """The program ffmpeg, alone on the PATH."""
  program = path_without_ffmpeg / "ffmpeg"
  program.symlink_to(FFMPEG)
  return program
