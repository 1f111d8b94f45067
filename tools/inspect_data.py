r"""Inspects a data set before training: its original files, labels and splits.

python tools/inspect_data.py --config=configs/crnn_fsd50k.py \
  --config.data.source_dir=/data/FSD50K --output=inspection

Prints a summary. Writes clips.csv, duplicates.csv, summary.json and inspection.html,
which has plots, tables, and clips of each class to look at and listen to.
"""

import argparse

from audiotag_jax import command_line, config_checks, files, logs, recipes
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__, overrides=True)
  parser.add_argument(
    "--config",
    type=command_line.path,
    required=True,
    metavar="RECIPE",
    help="a recipe, which names the data set and the log-mels",
  )
  parser.add_argument(
    "--output", type=command_line.path, required=True, help="folder to write to"
  )
  parser.add_argument(
    "--max_classes",
    type=command_line.whole_number(1),
    default=200,
    help="number of classes to listen to, most frequent first",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  config = recipes.read_recipe(args.config, args.overrides)
  config_checks.validate(config)
  # Checked here, because an inspection takes long; created when there is a report.
  files.check_folder(args.output)
  from audiotag_jax.data.dataset import open_source
  from audiotag_jax.frontend.mel import LogMelParams
  from audiotag_jax.inspection import measure, report
  from audiotag_jax.inspection.summary import describe

  inspected = measure.inspect_source(open_source(config.data))
  params = LogMelParams(**config.frontend)
  summary = report.write_report(inspected, params, args.output, args.max_classes)
  print(describe(summary))
  page = args.output / "inspection.html"
  print(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
  main()
