"""Measures this package and a peer that does the same, in turns in one run.

python tools/benchmark.py train
python tools/benchmark.py infer --quick
python tools/benchmark.py data
python tools/benchmark.py tag
python tools/benchmark.py accelerators
python tools/benchmark.py all --json=benchmark.json
python tools/benchmark.py recipe --source=/data/FSD50K --config=configs/crnn_fsd50k.py
"""

import argparse
from typing import Any

from audiotag_jax import command_line, files, logs
from audiotag_jax.errors import UserError, exit_on_user_error

DTYPES = ("float32", "bfloat16")


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parts = parser.add_subparsers(dest="part", required=True)
  all_parts = parts.add_parser("all", help="train, infer, data and tag")
  train = parts.add_parser("train", help="training steps, beside PyTorch")
  infer = parts.add_parser("infer", help="scores of log-mels, beside PyTorch")
  data = parts.add_parser("data", help="from audio files to batches, at scale")
  tag = parts.add_parser("tag", help="from waveforms and files to tags, by a CNN14")
  computed = parts.add_parser("accelerators", help="steps on a GPU or TPU, computed")
  recipe = parts.add_parser("recipe", help="the stages of a recipe, on its data")
  for part in (all_parts, train, infer, data, tag):
    part.add_argument("--quick", action="store_true", help="measure less")
  for part in (all_parts, train, infer, data, tag, computed):
    part.add_argument(
      "--json", type=command_line.path, help="a file to write the figures to"
    )
  for part in (all_parts, train, infer):
    part.add_argument(
      "--dtypes",
      type=_dtypes,
      default=["float32"],
      help="types of the computation: float32 (the default), or float32,bfloat16",
    )
  for part in (all_parts, data):
    part.add_argument(
      "--num_clips",
      type=command_line.whole_number(1),
      default=600,
      help="number of clips of noise to make",
    )
    part.add_argument(
      "--largest_index",
      type=command_line.whole_number(1),
      default=2_000_000,
      help="number of clips of the largest set",
    )
  recipe.add_argument(
    "--source",
    type=command_line.path,
    required=True,
    help="a folder in FSD50K's layout",
  )
  recipe.add_argument(
    "--config", type=command_line.path, required=True, help="a recipe"
  )
  return parser.parse_args()


def _dtypes(text: str) -> list[str]:
  names = text.split(",")
  if not set(names) <= set(DTYPES):
    raise argparse.ArgumentTypeError(f"{text} is not a list of {', '.join(DTYPES)}")
  return names


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  if args.part == "recipe":
    from benchmarks import recipe

    recipe.benchmark(args.config, args.source)
    return
  if args.json and not args.json.parent.is_dir():
    raise UserError(
      f"--json={args.json}: {args.json.parent} is not a folder: give a file in one "
      "that exists"
    )
  figures: list[dict[str, Any]] = []
  parts = ("train", "infer", "data", "tag") if args.part == "all" else (args.part,)
  for part in parts:
    figures += run(part, args)
  if args.json:
    files.write_json(args.json, figures)


def run(part: str, args: argparse.Namespace) -> list[dict[str, Any]]:
  """Runs a part; returns its figures."""
  # Imported here because these take seconds, which a mistyped flag should not cost.
  if part in ("train", "infer"):
    from benchmarks import models

    return models.benchmark(part, quick=args.quick, dtypes=args.dtypes)
  if part == "accelerators":
    from benchmarks import accelerators

    return accelerators.benchmark()
  if part == "data":
    from benchmarks import data

    num_clips, largest = args.num_clips, args.largest_index
    if args.quick:
      num_clips, largest = min(num_clips, 100), min(largest, 10_000)
    return data.benchmark(num_clips, largest)
  from benchmarks import tag

  return tag.benchmark(quick=args.quick)


if __name__ == "__main__":
  main()
