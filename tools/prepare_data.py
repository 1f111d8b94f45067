"""Prepares a data set for training, as main.py does on first use.

python tools/prepare_data.py fsd50k --source=/data/FSD50K
"""

import argparse
from pathlib import Path

from audiotag_jax import logs
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("dataset", choices=["fsd50k"])
  parser.add_argument(
    "--source",
    type=Path,
    required=True,
    help="folder with FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth",
  )
  parser.add_argument(
    "--data_dir",
    default="",
    help="where prepared sets lie (TFDS's ~/tensorflow_datasets if not given)",
  )
  parser.add_argument(
    "--sample_rate_hz",
    type=int,
    default=32_000,
    help="the recipe's config.frontend.sample_rate_hz (32000 if not given)",
  )
  parser.add_argument(
    "--allow_missing",
    type=int,
    default=0,
    metavar="N",
    help="accept up to N clips that are missing or unreadable",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  from audiotag_jax.data import fsd50k

  prepared = fsd50k.prepare(
    args.source,
    data_dir=args.data_dir,
    sample_rate_hz=args.sample_rate_hz,
    allow_missing=args.allow_missing,
  )
  print(fsd50k.describe(prepared, args.sample_rate_hz))


if __name__ == "__main__":
  main()
