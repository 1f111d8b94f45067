"""The part `tag` of benchmark.py: from waveforms and files to tags, by a CNN14."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import soundfile
from benchmarks.report import report, report_ours, take_figures, timed

from audiotag_jax import model_directory
from audiotag_jax.frontend import mel
from audiotag_jax.inference import Tagger
from audiotag_jax.models import panns
from audiotag_jax.panns import class_names, convert, fixed, tables

if TYPE_CHECKING:
  import torch

NAME = "Cnn14"
CLIP_S = 10.0
BATCH_SIZES = (1, 8)
NUM_ROUNDS = 5
# Pause between measurements: PyTorch's OpenMP threads spin for 0.2 s after their work.
PAUSE_S = 0.5
LONG_S = 3600.0
TAG = Path(__file__).parents[1] / "tag.py"
# Program that runs a command and prints its peak memory. It is small, because a
# process's peak includes its parent's memory at its start.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def benchmark(*, quick: bool) -> list[dict[str, Any]]:
  """Measures a CNN14 of random weights against PANNs' own, in PyTorch.

  Args:
    quick: whether a minute in place of an hour is tagged.

  Returns:
    The figures that were printed.
  """
  with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch)
    variables = draw_weights()
    write_model(folder / "model", variables)
    print(f"{'':<34}{'ours':>10}{'peer':>10}{'ratio':>8}")
    benchmark_clips(folder, variables)
    benchmark_files(folder, 60.0 if quick else LONG_S)
  return take_figures()


def draw_weights() -> dict[str, Any]:
  """Returns a CNN14's initial variables, as numpy arrays."""
  model = panns.create(NAME, num_classes=527)
  waveform = np.zeros((1, 32_000), np.float32)
  draw = jax.jit(lambda key: model.init(key, waveform, train=False))
  return jax.tree.map(np.asarray, draw(jax.random.key(0)))


def write_model(directory: Path, variables: dict[str, Any]) -> None:
  description = model_directory.ModelDescription(
    architecture=NAME,
    fields={},
    front_end=dataclasses.asdict(panns.FRONT_END),
    class_names=class_names.audioset_class_names(),
    source={},
  )
  model_directory.save_model(directory, description, variables)


def benchmark_clips(folder: Path, variables: dict[str, Any]) -> None:
  """Measures clips per second, waveform to probabilities, alone and in batches."""
  import torch

  tagger = Tagger.load(folder / "model")
  reference = load_reference(folder, variables)
  rate_hz = tagger.sample_rate_hz
  rng = np.random.default_rng(0)

  def score_reference(clips: np.ndarray, num_threads: int) -> np.ndarray:
    torch.set_num_threads(num_threads)
    with torch.no_grad():
      return reference(torch.from_numpy(clips))["clipwise_output"].numpy()

  for size in BATCH_SIZES:
    clips = rng.normal(0, 0.1, (size, round(CLIP_S * rate_hz))).astype(np.float32)
    peers = {
      f"PANNs in PyTorch, {n} threads": lambda n=n, x=clips: score_reference(x, n)
      for n in range(1, (os.cpu_count() or 1) + 1)
    }
    ours = lambda x=clips: tagger.tag_batch(x, rate_hz)  # noqa: E731
    (ours_s, *peers_s), (scores, *theirs) = fastest([ours, *peers.values()])
    difference = max(np.abs(scores - x).max() for x in theirs)
    best = int(np.argmin(peers_s))
    name = f"tag: {CLIP_S:g}-s clips/s, batch {size}"
    report(name, size / ours_s, size / peers_s[best], list(peers)[best])
    print(f"{'     largest difference':<34}{difference:10.1e}")


def fastest(functions: list[Callable]) -> tuple[list[float], list]:
  """Returns each function's shortest time, measured in turns, and its result."""
  results = [function() for function in functions]
  seconds = []
  for _ in range(NUM_ROUNDS):
    for function in functions:
      time.sleep(PAUSE_S)
      seconds.append(timed(function)[0])
  return np.reshape(seconds, (NUM_ROUNDS, -1)).min(axis=0).tolist(), results


def load_reference(folder: Path, variables: dict[str, Any]) -> torch.nn.Module:
  """Returns `panns_inference`'s Cnn14 with the variables, on the CPU."""
  import torch

  with _panns_data(folder), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from panns_inference import models

    front_end = dataclasses.astuple(panns.FRONT_END)
    rate_hz, window, _, hop, num_mels, f_min_hz, f_max_hz = front_end
    reference = models.Cnn14(rate_hz, window, hop, num_mels, f_min_hz, f_max_hz, 527)
  rest = fixed.matrices(panns.FRONT_END.fft_samples, mel.mel_matrix(panns.FRONT_END))
  state_dict = convert.to_pytorch(variables, tables.TABLES[NAME](527), rest)
  reference.load_state_dict(
    {key: torch.from_numpy(np.array(x)) for key, x in state_dict.items()}
  )
  return reference.eval()


def write_classes(home: Path) -> None:
  """Writes AudioSet's classes to where `panns_inference` reads them when imported."""
  table = home / "panns_data" / "class_labels_indices.csv"
  table.parent.mkdir()
  with table.open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["index", "mid", "display_name"])
    for i, row in enumerate(class_names.audioset_classes()):
      writer.writerow([i, row.mid, row.name])


@contextlib.contextmanager
def _panns_data(folder: Path) -> Iterator[None]:
  """Writes the classes to a folder, and makes it the home folder in the block."""
  write_classes(folder)
  before = {key: os.environ.get(key) for key in ("HOME", "MPLBACKEND")}
  os.environ.update(HOME=str(folder), MPLBACKEND="agg")
  try:
    yield
  finally:
    for key, value in before.items():
      os.environ.pop(key)
      if value is not None:
        os.environ[key] = value


def benchmark_files(folder: Path, long_s: float) -> None:
  """Measures tools/tag.py's first answer, and pace and memory on a long file."""
  clip, long = folder / "clip.wav", folder / "long.wav"
  write_noise(clip, CLIP_S)
  write_noise(long, long_s)
  run_tag(folder, clip)
  first_s = min(timed(run_tag, folder, clip)[0] for _ in range(NUM_ROUNDS))
  report_ours("tag.py: s to the first answer", first_s)
  import_s, _ = timed(run, ["-c", "import jax"], folder)
  report_ours("     of which import jax", import_s)
  seconds, peak_gb = timed(run_tag, folder, long)
  report_ours(f"tag.py: × real time, of {long_s:g} s", long_s / seconds)
  report_ours("tag.py: peak memory, GiB", peak_gb, decimals=2)


def write_noise(path: Path, seconds: float) -> None:
  """Writes noise that swells and fades, second by second."""
  rng = np.random.default_rng(0)
  rate_hz = panns.FRONT_END.sample_rate_hz
  with soundfile.SoundFile(path, "w", rate_hz, 1, "PCM_16") as file:
    for _ in range(round(seconds)):
      file.write(rng.uniform(0.01, 0.2) * rng.standard_normal(rate_hz))


def run_tag(folder: Path, path: Path) -> float:
  """Tags a file, as a user does; returns the process's peak memory in GiB.

  Compiled programs are kept in `folder`.
  """
  command = [str(TAG), str(path), f"--checkpoint={folder / 'model'}", "--top_k=5"]
  output = run(["-c", MEASURE, sys.executable, *command], cache=folder)
  return int(output.splitlines()[-1]) / 2**20


def run(args: list[str], cache: Path) -> str:
  """Runs Python; returns what it prints."""
  env = os.environ | {"XDG_CACHE_HOME": str(cache)}
  command = [sys.executable, *args]
  done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
  return done.stdout
