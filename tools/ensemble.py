"""Averages the scores of finished runs to an ensemble, which compares like a run.

python tools/ensemble.py runs/cnn14_seed0 runs/cnn14_seed1 --output=runs/cnn14_ensemble
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
    help="an evaluated run",
  )
  parser.add_argument(
    "--output", type=command_line.path, required=True, help="folder of the ensemble"
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing ensemble"
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  from audiotag_jax.evaluation import ensemble, results

  entry = ensemble.write_ensemble(args.workdirs, args.output, overwrite=args.overwrite)
  print(results.table({args.output.resolve().name: entry}))
  print(f"Results: {args.output / 'results'}")


if __name__ == "__main__":
  main()
