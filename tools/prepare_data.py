"""Prepares a data set for training, as main.py does on first use.

python tools/prepare_data.py fsd50k --source=/data/FSD50K
python tools/prepare_data.py manifest --csv=clips.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import ml_collections
from etils import epath

from audiotag_jax import command_line, config_checks, logs, recipes, text_files
from audiotag_jax import config as config_lib
from audiotag_jax.data.sources import download
from audiotag_jax.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
  import tensorflow_datasets as tfds


def parse_args() -> tuple[argparse.Namespace, list[str]]:
  parser = command_line.create_parser(__doc__)
  parser.epilog = "with --beam_runner, all other options are handed to Beam"
  parser.add_argument("dataset", choices=config_checks.CHOICES["data.dataset"])
  parser.add_argument(
    "--source",
    "--csv",
    type=command_line.place,
    default="",
    help="the data: a folder or, for a manifest, a csv",
  )
  parser.add_argument(
    "--download",
    action="store_true",
    help="fetch FSD50K's archives (24 GB) from Zenodo into the source folder first",
  )
  parser.add_argument(
    "--md5sums",
    type=command_line.path,
    metavar="FILE",
    help="output of md5sum, for archives that are not Zenodo's own",
  )
  parser.add_argument(
    "--audio_dir",
    type=command_line.place,
    default="",
    help="folder with the audio, if not that of the csv",
  )
  parser.add_argument(
    "--label_separator", default=",", help="separator of a clip's labels in a manifest"
  )
  parser.add_argument(
    "--fold", type=int, default=5, help="fold of ESC-50 to evaluate on"
  )
  parser.add_argument(
    "--data_dir",
    type=command_line.place,
    default="",
    help="folder of prepared sets (TFDS's ~/tensorflow_datasets if not given)",
  )
  parser.add_argument(
    "--sample_rate_hz",
    type=int,
    default=32_000,
    help="the recipe's config.frontend.sample_rate_hz (%(default)s if not given)",
  )
  parser.add_argument(
    "--log_mels_for",
    type=command_line.path,
    metavar="RECIPE",
    help="cache the log-mels of this recipe too (its rate then is the one prepared)",
  )
  parser.add_argument(
    "--allow_missing",
    type=int,
    default=0,
    metavar="N",
    help="accept up to N clips that are missing or unusable",
  )
  parser.add_argument("--beam_runner", help="prepare on Beam: DirectRunner, …")
  args, others = parser.parse_known_args()
  if others and not args.beam_runner:
    parser.refuse(others[0])
  return args, others


def create_config(args: argparse.Namespace) -> ml_collections.ConfigDict:
  """Returns the config with which main.py would prepare the same data set.

  Raises:
    UserError: the data set needs a source, or a value is invalid.
  """
  if args.dataset != "soundscapes" and not args.source:
    flag, place = "--source", "a folder"
    if args.dataset == "manifest":
      flag, place = "--csv", "a csv file of clips and labels"
    raise UserError(
      f"{flag} is not set: give the place of the {args.dataset} data, {place}"
    )
  config = config_lib.get_config()
  if args.log_mels_for:
    config = recipes.read_recipe(args.log_mels_for)
    config.data.cache_log_mels = True
  else:
    config.frontend.sample_rate_hz = args.sample_rate_hz
    config.frontend.f_max_hz = min(config.frontend.f_max_hz, args.sample_rate_hz / 2)
  config.data.dataset = args.dataset
  config.data.source_dir = args.source
  for name in ("audio_dir", "label_separator", "fold", "data_dir", "allow_missing"):
    config.data[name] = getattr(args, name)
  config_checks.validate(config)
  return config


def expected_md5(md5sums: Path | None) -> dict[str, str]:
  """Returns the md5 of each archive by name, from Zenodo or from md5sum's output."""
  if not md5sums:
    return download.RECORD_MD5
  try:
    with md5sums.open("rb") as file:
      lines = [line.split(maxsplit=1) for line in text_files.read_lines(file, md5sums)]
    return {name.strip().lstrip("*"): md5 for md5, name in filter(None, lines)}
  except (OSError, ValueError) as error:
    raise UserError(
      f"{md5sums} cannot be read as md5sum's output ({error}): make it with "
      "md5sum FSD50K.*.z*"
    ) from error


def beam_config(runner: str, options: list[str]) -> tfds.download.DownloadConfig:
  """Returns TFDS's settings for a Beam runner and its options."""
  import tensorflow_datasets as tfds

  try:
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError:
    raise UserError(
      "--beam_runner needs Apache Beam: python -m pip install -e '.[beam]'"
    ) from None
  return tfds.download.DownloadConfig(
    beam_runner=runner, beam_options=PipelineOptions(options)
  )


@exit_on_user_error
def main() -> None:
  args, beam_options = parse_args()
  logs.show_progress()
  config = create_config(args)
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.data import dataset as dataset_lib
  from audiotag_jax.data import prepared_set

  download_config = None
  if args.beam_runner:
    download_config = beam_config(args.beam_runner, beam_options)
  if args.dataset == "fsd50k":
    source = epath.Path(args.source).expanduser()
    if args.download:
      download.download_record(Path(source))
    download.check_md5(source, expected_md5(args.md5sums))
  prepared = dataset_lib.prepare(config, download_config)
  if args.log_mels_for:
    dataset_lib.load_clips(prepared, config)
  print(prepared_set.describe(prepared))


if __name__ == "__main__":
  main()
