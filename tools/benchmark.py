"""Measures this package and a peer that does the same, in one run.

python tools/benchmark.py recipe --source=/data/FSD50K --config=configs/crnn_fsd50k.py
python tools/benchmark.py data
python tools/benchmark.py tag
"""

import argparse

from audiotag_jax import command_line, logs
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parts = parser.add_subparsers(dest="part", required=True)
  stages = parts.add_parser("recipe", help="the stages of a recipe, on its data")
  stages.add_argument(
    "--source",
    type=command_line.path,
    required=True,
    help="a folder in FSD50K's layout",
  )
  stages.add_argument(
    "--config", type=command_line.path, required=True, help="a recipe"
  )
  scale = parts.add_parser("data", help="from audio files to batches, at scale")
  scale.add_argument(
    "--num_clips", type=int, default=600, help="number of clips of noise to make"
  )
  scale.add_argument(
    "--largest_index",
    type=int,
    default=2_000_000,
    help="number of clips of the largest set",
  )
  parts.add_parser("tag", help="from waveforms and files to tags, by a CNN14")
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  # Imported here because these take seconds, which a mistyped flag should not cost.
  if args.part == "recipe":
    from benchmarks import recipe

    recipe.benchmark(args.config, args.source)
  elif args.part == "data":
    from benchmarks import data

    data.benchmark(args.num_clips, args.largest_index)
  else:
    from benchmarks import tag

    tag.benchmark()


if __name__ == "__main__":
  main()
