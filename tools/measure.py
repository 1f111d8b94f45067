"""Measures the robustness of finished runs, and the cost of their models.

python tools/measure.py runs/crnn_fsd50k runs/cnn14_fsd50k

Writes results/robustness.json and results/cost.json of each run, with the same weights
and the same split as its results/performance.json. The folder of another evaluation,
such as runs/crnn_fsd50k/results/val-last, may stand in place of a run.
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
    metavar="WORKDIR",
    help="folder of a run, or of an evaluation",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_progress()
  from audiotag_jax.evaluation import measure

  for workdir in args.workdirs:
    for path, is_new in measure.measure_run(workdir):
      print(path if is_new else f"{path} exists, and is newer than the evaluation")


if __name__ == "__main__":
  main()
