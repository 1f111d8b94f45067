r"""Carries out a study: trains recipes, measures the runs and compares them.

python tools/study.py --config=configs/crnn_study.py --config=configs/cnn14_study.py \
  --workdir=runs/study --config.data.source_dir=/data/FSD50K

A study on the demo set takes minutes on two cores. Its CNN is pre-trained on a demo set
of its own, exported to PyTorch and converted back, as PANNs' own are converted:

python tools/study.py --demo --workdir=runs/demo_study

Each command is printed before it runs. Finished steps are not repeated: the same
command resumes a stopped study.
"""

import argparse
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ml_collections

from audiotag_jax import command_line, config_checks, recipes
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import Stopped, Terminated, UserError, exit_on_user_error

# The repository, relative to the current folder.
ROOT = Path(os.path.relpath(Path(__file__).resolve().parents[1]))


class PlannedRun(NamedTuple):
  """A run of a recipe that the study will make.

  Attributes:
    recipe: the recipe's file.
    workdir: the run's folder.
    overrides: changes of the recipe, as flags.
  """

  recipe: Path
  workdir: Path
  overrides: list[str]


class Step(NamedTuple):
  """A part of the study.

  Attributes:
    command: arguments of Python.
    done: the file that the command writes last. None for a command that always runs,
      because it skips finished work itself.
  """

  command: list[str]
  done: Path | None = None


def runs_of(
  recipe: Path, workdir: Path, seeds: list[int], overrides: list[str]
) -> list[PlannedRun]:
  """Returns a recipe's runs: one per seed, or one with the recipe's own seed."""
  if not seeds:
    return [PlannedRun(recipe, workdir / recipe.stem, overrides)]
  return [
    PlannedRun(
      recipe,
      workdir / f"{recipe.stem}_seed{seed}",
      [*overrides, f"--config.seed={seed}"],
    )
    for seed in seeds
  ]


def study_steps(runs: list[PlannedRun], output: Path) -> list[Step]:
  """Returns steps that train, evaluate and measure the runs, and compare them."""
  workdirs = [str(run.workdir) for run in runs]
  return [
    *map(train_step, runs),
    tool_step("measure", *workdirs),
    tool_step("compare", *workdirs, f"--output={output}"),
  ]


def train_step(run: PlannedRun) -> Step:
  command = ["-m", "audiotag_jax.main", f"--config={run.recipe}"]
  command += [f"--workdir={run.workdir}", *run.overrides]
  return Step(command, workdir_lib.own_evaluation(run.workdir).files[-1])


def tool_step(tool: str, *args: str, done: Path | None = None) -> Step:
  return Step([str(ROOT / "tools" / f"{tool}.py"), *args], done)


def plan_study(
  recipe_files: list[Path], workdir: Path, seeds: list[int], overrides: list[str]
) -> list[Step]:
  """Returns the steps of a study of some recipes.

  Raises:
    UserError: a recipe is invalid, or an existing run does not fit.
  """
  names = [recipe.stem for recipe in recipe_files]
  if len(set(names)) < len(names):
    raise UserError(
      f"runs have the names of their recipes, but these are {names}: rename one"
    )
  runs = []
  for recipe in recipe_files:
    runs += runs_of(recipe, workdir, seeds, overrides)
  for run in runs:
    check(run)
  return study_steps(runs, workdir / workdir_lib.RESULTS)


def plan_demo(workdir: Path, seeds: list[int], overrides: list[str]) -> list[Step]:
  """Returns the steps of the study on the demo set.

  Raises:
    UserError: PyTorch is not installed, or an existing run does not fit.
  """
  if importlib.util.find_spec("torch") is None:
    raise UserError("the demo study needs PyTorch: pip install -e '.[convert]'")
  configs, model, file = ROOT / "configs", workdir / "cnn14", workdir / "cnn14.pth"
  start = f"--config.init_from={model}"
  (pretraining,) = runs_of(configs / "cnn14_demo_pretrain.py", workdir, [], overrides)
  pretrained = pretraining.workdir / workdir_lib.MODEL
  runs = [
    *runs_of(configs / "crnn_demo_study.py", workdir, seeds, overrides),
    *runs_of(configs / "cnn14_demo_study.py", workdir, seeds, [*overrides, start]),
    *runs_of(configs / "cnn14_demo_scratch.py", workdir, seeds, overrides),
  ]
  for run in (pretraining, *runs):
    check(run, made_before=model)
  export = [f"--model={pretrained}", f"--output={file}"]
  names = f"--class_names={pretrained}"
  convert = [f"--checkpoint={file}", f"--output={model}", names]
  return [
    train_step(pretraining),
    tool_step("export_pytorch", *export, done=file),
    tool_step("convert_panns", *convert, done=model / workdir_lib.DESCRIPTION),
    *study_steps(runs, workdir / workdir_lib.RESULTS),
  ]


def check(run: PlannedRun, made_before: Path | None = None) -> None:
  """Finds mistakes in a run before hours are spent on others.

  Args:
    run: the run.
    made_before: a model directory that an earlier step makes.

  Raises:
    UserError: the recipe is missing or invalid, the model to start from is missing,
      or the workdir holds a run of another config.
  """
  config = read_config(run)
  model = Path(config.init_from)
  is_there = model == made_before or (model / workdir_lib.DESCRIPTION).exists()
  if config.init_from and not is_there:
    raise UserError(
      f"{run.recipe} starts from {model}, which is not a model directory: make it with "
      "tools/convert_panns.py, as the recipe says"
    )
  recipes.check_unchanged(run.workdir / workdir_lib.CONFIG, config.to_dict())


def read_config(run: PlannedRun) -> ml_collections.ConfigDict:
  """Reads a run's config, and validates it.

  Raises:
    UserError: the recipe or a key does not exist, or a value is invalid.
  """
  config = recipes.read_recipe(run.recipe, run.overrides)
  try:
    config_checks.validate(config)
  except UserError as error:
    raise UserError(f"{run.recipe}: {error}") from error
  return config


def carry_out(steps: list[Step]) -> None:
  """Runs the steps that are left to do.

  Raises:
    BrokenPipeError: nobody reads the output of a step any more.
    UserError: a step fails.
  """
  for step in steps:
    command = shlex.join(["python", *step.command])
    if step.done and step.done.exists():
      print(f"Done before: {command}", flush=True)
      continue
    print(f"\n$ {command}", flush=True)
    code = run_step([sys.executable, *step.command])
    if code == 128 + signal.SIGPIPE:
      raise BrokenPipeError
    if code:
      raise UserError(f"the study stopped because of exit code {code} from: {command}")


def run_step(command: list[str]) -> int:
  """Runs a command, and returns its exit code.

  Raises:
    Stopped: SIGINT or SIGTERM arrived; the command got it too, and has ended.
  """
  with subprocess.Popen(command) as process:
    try:
      return process.wait()
    except KeyboardInterrupt as interrupt:
      # A terminal sends SIGINT to both, SIGTERM is sent to the study alone.
      number = signal.SIGINT
      if isinstance(interrupt, Terminated):
        number = signal.SIGTERM
        process.terminate()
      process.wait()
      raise Stopped(number, "Finished steps and the run's checkpoint stay.") from None


def parse_seeds(text: str) -> list[int]:
  try:
    return [int(seed) for seed in text.split(",")]
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is not whole numbers with commas, as in 0,1,2"
    ) from None


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__, overrides=True)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument(
    "--config",
    type=command_line.path,
    action="append",
    help="a recipe; repeat the flag for others, which are compared with the first",
  )
  what.add_argument("--demo", action="store_true", help="the study on the demo set")
  parser.add_argument(
    "--workdir",
    type=command_line.path,
    required=True,
    help="folder of the runs and the report",
  )
  parser.add_argument(
    "--seeds",
    type=parse_seeds,
    default=[],
    help="such as 0,1,2: one run of each recipe per seed (the recipe's if not given)",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  # SIGTERM then ends the running command too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  args = parse_args()
  # The runs need it. If it is missing, the study says so before it starts a run.
  import tensorflow_datasets  # noqa: F401

  from audiotag_jax import parallel

  if started := parallel.started_processes():
    raise UserError(
      f"a study is for one process, but {started}: start it without srun or mpirun, or "
      "train each recipe with main.py"
    )
  try:
    if args.demo:
      steps = plan_demo(args.workdir, args.seeds, args.overrides)
    else:
      steps = plan_study(args.config, args.workdir, args.seeds, args.overrides)
    carry_out(steps)
  except KeyboardInterrupt:
    sys.exit("\nStopped; the same command resumes the study.")
  print(f"\nReport: {args.workdir / 'results' / 'report.html'}")


if __name__ == "__main__":
  main()
