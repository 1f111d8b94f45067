"""Compares finished runs: a report with tables and figures, as one HTML file.

python tools/compare.py runs/crnn runs/cnn14 --output=results
"""

import argparse

from audiotag_jax import command_line, logs
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parser.add_argument(
    "workdirs",
    type=command_line.path,
    nargs="+",
    metavar="workdir",
    help="an evaluated run; the others are compared with the first",
  )
  parser.add_argument(
    "--output",
    type=command_line.path,
    required=True,
    help="folder to write performance.json, report.html, report.md and figures/ to",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  from audiotag_jax.evaluation import comparison_report

  comparison_report.write_report(args.workdirs, args.output)
  print(f"Report: {args.output / 'report.html'}")


if __name__ == "__main__":
  main()
