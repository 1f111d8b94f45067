"""Carries out a study: trains recipes, measures the runs and compares them.

python tools/study.py --config=configs/crnn_study.py --config=configs/cnn14_study.py \
  --workdir=runs/study --config.data.source_dir=/data/FSD50K

The same on the demo set, with a CNN that is pre-trained there and goes through
PyTorch as PANNs' own do; minutes on two cores:

python tools/study.py --demo --workdir=runs/demo_study

Each command is printed before it is run. What is done is not done again: stopped, the
study goes on by the same command.
"""

import argparse
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ml_collections

from audiotag_jax import command_line, recipes
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError, exit_on_user_error

# The repository, as one names it from where one stands.
ROOT = Path(os.path.relpath(Path(__file__).resolve().parents[1]))


class PlannedRun(NamedTuple):
  """A run of a recipe, before it is made.

  Attributes:
    recipe: its file.
    workdir: its folder.
    overrides: what it changes of the recipe, as flags.
  """

  recipe: Path
  workdir: Path
  overrides: list[str]


class Step(NamedTuple):
  """A part of the study.

  Attributes:
    command: what is run, by this Python.
    done: the file that the command writes last. None for a command that is always run,
      for it knows itself what is left to do.
  """

  command: list[str]
  done: Path | None = None


def runs_of(
  recipe: Path, workdir: Path, seeds: list[int], overrides: list[str]
) -> list[PlannedRun]:
  """Returns a recipe's runs: one for each seed, or one of the recipe's own."""
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
  """Trains and evaluates each run, measures all, compares the others with the first."""
  workdirs = [str(run.workdir) for run in runs]
  return [
    *map(train_step, runs),
    tool_step("measure", *workdirs),
    tool_step("compare", *workdirs, f"--output={output}"),
  ]


def train_step(run: PlannedRun) -> Step:
  command = ["-m", "audiotag_jax.main", f"--config={run.recipe}"]
  command += [f"--workdir={run.workdir}", *run.overrides]
  return Step(command, run.workdir / workdir_lib.PREDICTIONS)


def tool_step(tool: str, *args: str, done: Path | None = None) -> Step:
  return Step([str(ROOT / "tools" / f"{tool}.py"), *args], done)


def plan_study(
  recipes: list[Path], workdir: Path, seeds: list[int], overrides: list[str]
) -> list[Step]:
  """Returns the steps of a study of some recipes.

  Raises:
    UserError: something is wrong with a recipe or with a run that is there.
  """
  names = [recipe.stem for recipe in recipes]
  if len(set(names)) < len(names):
    raise UserError(f"runs are called as their recipes, but those are {names}: rename")
  runs = []
  for recipe in recipes:
    runs += runs_of(recipe, workdir, seeds, overrides)
  for run in runs:
    check(run)
  return study_steps(runs, workdir / workdir_lib.RESULTS)


def plan_demo(workdir: Path, seeds: list[int], overrides: list[str]) -> list[Step]:
  """Returns the steps of the study on the demo set.

  Raises:
    UserError: there is no PyTorch, or something is wrong with a run that is there.
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
  """Finds what can be found wrong with a run before hours are spent on others.

  Args:
    run: the run.
    made_before: a model directory that an earlier step makes.

  Raises:
    UserError: its recipe is not there or makes no sense, there is no model to start
      from, or its workdir holds a run of another config.
  """
  config = read_config(run)
  model = Path(config.init_from)
  is_there = model == made_before or (model / workdir_lib.DESCRIPTION).exists()
  if config.init_from and not is_there:
    raise UserError(
      f"{run.recipe} starts from {model}, which is no model directory: make it with "
      "tools/convert_panns.py, as the recipe says"
    )
  path = run.workdir / workdir_lib.CONFIG
  if path.exists():
    old, new = json.loads(path.read_text()), json.loads(config.to_json())
    changes = recipes.changed_keys(old, new)
    if changes:
      raise UserError(
        f"{run.workdir} was made with another config: {'; '.join(changes)}. Give "
        "another --workdir, or the values it was made with"
      )


def read_config(run: PlannedRun) -> ml_collections.ConfigDict:
  """Reads a run's config, and validates it.

  Raises:
    UserError: there is no such recipe or key, or a value makes no sense.
  """
  config = recipes.read_recipe(run.recipe, run.overrides)
  try:
    recipes.validate(config)
  except UserError as error:
    raise UserError(f"{run.recipe}: {error}") from error
  return config


def carry_out(steps: list[Step]) -> None:
  """Runs the steps that are left to do.

  Raises:
    UserError: one fails.
  """
  for step in steps:
    command = shlex.join(["python", *step.command])
    if step.done and step.done.exists():
      print(f"Done before: {command}", flush=True)
      continue
    print(f"\n$ {command}", flush=True)
    code = subprocess.run([sys.executable, *step.command], check=False).returncode
    if code:
      raise UserError(
        f"the study stopped, for this failed with exit code {code}: {command}"
      )


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__, overrides=True)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument(
    "--config",
    type=Path,
    action="append",
    help="a recipe, once for each; the others are compared with the first",
  )
  what.add_argument("--demo", action="store_true", help="the study on the demo set")
  parser.add_argument(
    "--workdir", type=Path, required=True, help="folder of the runs and the report"
  )
  parser.add_argument(
    "--seeds",
    type=lambda text: [int(seed) for seed in text.split(",")],
    default=[],
    help="such as 0,1,2: runs of each recipe (one, of the recipe's seed, if not given)",
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  # So that the command under way ends with the study.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  args = parse_args()
  # The runs need it: where it is missing, the study says so before it starts one.
  import tensorflow_datasets  # noqa: F401

  try:
    if args.demo:
      steps = plan_demo(args.workdir, args.seeds, args.overrides)
    else:
      steps = plan_study(args.config, args.workdir, args.seeds, args.overrides)
    carry_out(steps)
  except KeyboardInterrupt:
    sys.exit("\nStopped; the same command goes on from here.")
  print(f"\nReport: {args.workdir / 'results' / 'report.html'}")


if __name__ == "__main__":
  main()
