"""Exports a trained model to other runtimes, and checks and times what it wrote.

python tools/export_model.py --checkpoint=runs/crnn_fsd50k --output=exported

Writes model.stablehlo (JAX), saved_model (TensorFlow), model.onnx (ONNX Runtime) and
export.json, which describes the inputs and the scores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from audiotag_jax import command_line, files, logs
from audiotag_jax.errors import UserError, exit_on_user_error

CLIP_S = 10.0
NUM_RUNS = 10
# Largest difference of a score from the Tagger's.
TOLERANCE = 1e-4
FORMATS = ("stablehlo", "tensorflow", "onnx")


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parser.add_argument(
    "--checkpoint",
    type=command_line.path,
    required=True,
    help="a model directory or a workdir",
  )
  parser.add_argument(
    "--output", type=command_line.path, required=True, help="folder to write"
  )
  parser.add_argument(
    "--formats",
    default=",".join(FORMATS),
    help="formats among stablehlo, tensorflow and onnx, separated by commas",
  )
  parser.add_argument(
    "--inputs",
    choices=("waveform", "log_mel"),
    default="waveform",
    help="inputs of the export: waveforms (it holds the front-end), or log-mels",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing export"
  )
  return parser.parse_args()


def check(args: argparse.Namespace) -> list[str]:
  """Returns the formats; raises `UserError` if an argument is invalid."""
  formats = args.formats.split(",")
  for name in formats:
    if name not in FORMATS:
      raise UserError(f"{name!r} is not a format: choose from {', '.join(FORMATS)}")
  files.check_output(args.output, args.overwrite)
  return formats


def test_clip(sample_rate_hz: int) -> np.ndarray:
  """Returns a sweep over noise <float32>[samples], of `CLIP_S`."""
  t = np.arange(round(CLIP_S * sample_rate_hz)) / sample_rate_hz
  sweep = np.sin(2 * np.pi * (100 + 150 * t) * t)
  noise = np.random.default_rng(0).uniform(-1, 1, t.shape)
  return (0.6 * sweep + 0.1 * noise).astype(np.float32)


def latency_ms(run: Callable, x: np.ndarray) -> float:
  """Returns the median time of some calls, after one that compiles."""
  run(x)
  times_s = []
  for _ in range(NUM_RUNS):
    start_s = time.perf_counter()
    run(x)
    times_s.append(time.perf_counter() - start_s)
  return 1000 * statistics.median(times_s)


def size_mb(path: Path) -> float:
  paths = [path, *path.rglob("*")]
  return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def report(name: str, size: str, latency: float, difference: str) -> None:
  print(f"{name:<12}{size:>10}{latency:14.1f}{difference:>14}", flush=True)


@exit_on_user_error
def main() -> None:
  args = parse_args()
  formats = check(args)
  logs.show_progress()
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.inference import Tagger, export, exported_model

  tagger = Tagger.load(args.checkpoint)
  paths = export.export(tagger, args.output, formats, args.inputs)
  clip, rate_hz = test_clip(tagger.sample_rate_hz), tagger.sample_rate_hz
  expected = tagger.tag(clip, rate_hz)
  x = exported_model.model_inputs(tagger, clip, args.inputs)[None]
  print(f"{'':<12}{'MB':>10}{f'ms/{CLIP_S:g}-s clip':>14}{'difference':>14}")
  report("Tagger", "", latency_ms(lambda x: tagger.tag(x, rate_hz), clip), "")
  for name, path in paths.items():
    with export.refusing(name):
      run = export.FORMATS[name].load(path)
      difference = np.abs(run(x)["scores"][0] - expected).max()
    report(name, f"{size_mb(path):.1f}", latency_ms(run, x), f"{difference:.1e}")
    if not difference <= TOLERANCE:
      raise UserError(
        f"a score of {path} differs from the Tagger's by {difference:.1e}, more than "
        f"{TOLERANCE:g}: do not use it"
      )
  print(args.output)


if __name__ == "__main__":
  main()
