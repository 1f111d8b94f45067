"""Trains and evaluates a recipe.

python -m audiotag_jax.main --config=configs/crnn_demo.py --workdir=runs/crnn_demo
"""

import argparse
import faulthandler

from audiotag_jax import command_line, config_checks, logs, recipes
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__, overrides=True)
  parser.add_argument(
    "--config", type=command_line.path, required=True, metavar="RECIPE", help="a recipe"
  )
  parser.add_argument(
    "--workdir", type=command_line.place, required=True, help="folder of the run"
  )
  parser.add_argument(
    "--mode",
    default="train",
    choices=("train", "evaluate"),
    help="train (or resume training) and evaluate, the default; or only evaluate a "
    "checkpoint",
  )
  parser.add_argument(
    "--verbose",
    action="store_true",
    help="show the lines of the workdir's log.txt: scalars, parameters, step rates",
  )
  several = parser.add_argument_group(
    "several hosts", "Slurm, Open MPI and TPU pods need none of these."
  )
  several.add_argument("--coordinator_address", help="host:port of process 0")
  several.add_argument("--num_processes", type=int, help="processes of the run")
  several.add_argument("--process_id", type=int, help="this process, from 0")
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  config = recipes.read_recipe(args.config, args.overrides)
  config_checks.validate(config)
  logs.show_progress(verbose=args.verbose)
  faulthandler.enable()  # A crash in compiled code shows its Python call.
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax import parallel
  from audiotag_jax.training import evaluate_run, train

  entry = {"train": train.train_and_evaluate, "evaluate": evaluate_run.evaluate_only}
  with parallel.joined_processes(
    args.coordinator_address, args.num_processes, args.process_id
  ):
    print(entry[args.mode](config, args.workdir))


if __name__ == "__main__":
  main()
