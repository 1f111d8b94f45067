"""The study: its commands and their order, skipped steps and mistakes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import commands
import pytest

from audiotag_jax.errors import Stopped, Terminated
from tools import study

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.train.num_steps = 5
  return config
"""
SOURCE = "--config.data.source_dir=/data/FSD50K"


class Runner:
  """Replaces `run_step`: writes what the commands would write, or fails."""

  def __init__(self):
    self.commands = []
    self.fails_at = None

  def __call__(self, command):
    assert command[0] == sys.executable
    command = command[1:]
    self.commands.append(command)
    if self.fails_at == len(self.commands):
      return 3
    options = dict(arg.split("=", 1) for arg in command if arg.startswith("--"))
    if "--workdir" in options:
      self.write_run(Path(options["--workdir"]), options)
    elif "convert_panns" in command[0]:
      Path(options["--output"]).mkdir(parents=True)
      (Path(options["--output"]) / "model.json").touch()
    elif "export_pytorch" in command[0]:
      Path(options["--output"]).touch()
    return 0

  def write_run(self, workdir, options):
    overrides = [f"{k}={v}" for k, v in options.items() if k.startswith("--config.")]
    run = study.PlannedRun(Path(options["--config"]), workdir, overrides)
    (workdir / "results").mkdir(parents=True)
    (workdir / "config.json").write_text(study.read_config(run).to_json())
    (workdir / "results" / "predictions.npz").touch()

  def names(self):
    """The commands that ran: each a tool's name or a run's folder."""
    return [
      Path(command[0]).stem if command[0] != "-m" else Path(command[3]).name
      for command in self.commands
    ]


@pytest.fixture
def runner(monkeypatch):
  runner = Runner()
  monkeypatch.setattr(study, "run_step", runner)
  return runner


@pytest.fixture
def recipes(tmp_path):
  """Flags for two recipes and a workdir."""
  for name in ("first", "second"):
    (tmp_path / f"{name}.py").write_text(RECIPE)
  flags = [f"--config={tmp_path}/{name}.py" for name in ("first", "second")]
  return [*flags, f"--workdir={tmp_path}/study"]


def launch(monkeypatch, *args):
  monkeypatch.setattr(sys, "argv", ["study.py", *args])
  study.main()


def launch_wrong(monkeypatch, capsys, *args):
  """Runs a command that fails; returns its one line of error."""
  with pytest.raises(SystemExit) as info:
    launch(monkeypatch, *args)
  said = info.value.code
  if not isinstance(said, str):
    assert said == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
  assert "\n" not in said
  return said


def test_trains_measures_and_compares(runner, recipes, monkeypatch, tmp_path, capsys):
  launch(monkeypatch, *recipes, SOURCE, "--config.seed=7")
  runs = [f"{tmp_path}/study/{name}" for name in ("first", "second")]
  train = [
    [
      *("-m", "audiotag_jax.main", f"--config={tmp_path}/{name}.py"),
      *(f"--workdir={tmp_path}/study/{name}", SOURCE, "--config.seed=7"),
    ]
    for name in ("first", "second")
  ]
  tools = study.ROOT / "tools"
  assert runner.commands == [
    *train,
    [f"{tools}/measure.py", *runs],
    [f"{tools}/compare.py", *runs, f"--output={tmp_path}/study/results"],
  ]
  said = capsys.readouterr().out
  assert f"$ python -m audiotag_jax.main --config={tmp_path}/first.py" in said
  assert said.endswith(f"Report: {tmp_path}/study/results/report.html\n")


def test_goes_on_where_it_was_stopped(runner, recipes, monkeypatch, capsys):
  runner.fails_at = 2
  said = launch_wrong(monkeypatch, capsys, *recipes, SOURCE)
  assert said.startswith("error: the study stopped because of exit code 3 from: ")
  assert "python -m audiotag_jax.main" in said
  assert "second.py" in said
  runner.commands, runner.fails_at = [], None
  launch(monkeypatch, *recipes, SOURCE)
  assert runner.names() == ["second", "measure", "compare"]
  assert "Done before: python -m audiotag_jax.main" in capsys.readouterr().out
  runner.commands = []
  launch(monkeypatch, *recipes, SOURCE)
  assert runner.names() == ["measure", "compare"]


def test_a_run_of_each_seed(runner, recipes, monkeypatch):
  launch(monkeypatch, *recipes, SOURCE, "--seeds=0,2")
  runs = ["first_seed0", "first_seed2", "second_seed0", "second_seed2"]
  assert runner.names() == [*runs, "measure", "compare"]
  assert [command[-1] for command in runner.commands[:2]] == [
    "--config.seed=0",
    "--config.seed=2",
  ]


def test_the_demo_goes_through_pytorch(runner, monkeypatch, tmp_path):
  folder = f"{tmp_path}/demo"
  launch(monkeypatch, "--demo", f"--workdir={folder}", "--config.train.num_steps=2")
  assert runner.names() == [
    *("cnn14_demo_pretrain", "export_pytorch", "convert_panns"),
    *("crnn_demo_study", "cnn14_demo_study", "cnn14_demo_scratch"),
    *("measure", "compare"),
  ]
  _, export, convert, _, finetune, *_ = runner.commands
  model = f"{folder}/cnn14_demo_pretrain/model"
  assert export[1:] == [f"--model={model}", f"--output={folder}/cnn14.pth"]
  assert convert[1:] == [
    *(f"--checkpoint={folder}/cnn14.pth", f"--output={folder}/cnn14"),
    f"--class_names={model}",
  ]
  assert finetune[-2:] == [
    "--config.train.num_steps=2",
    f"--config.init_from={folder}/cnn14",
  ]
  runner.commands = []
  launch(monkeypatch, "--demo", f"--workdir={folder}", "--config.train.num_steps=2")
  assert runner.names() == ["measure", "compare"]


def test_a_finished_run_of_another_config_is_refused(
  runner, recipes, monkeypatch, tmp_path, capsys
):
  launch(monkeypatch, *recipes, SOURCE)
  # The place of the data may change.
  launch(monkeypatch, *recipes, "--config.data.source_dir=/elsewhere")
  text = RECIPE.replace("num_steps = 5", "num_steps = 60")
  (tmp_path / "second.py").write_text(text)
  said = launch_wrong(monkeypatch, capsys, *recipes, SOURCE)
  assert said.startswith(f"error: {tmp_path}/study/second was made with another config")
  assert "train.num_steps (was 5, now 60)" in said


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ([], "first.py: config.data.source_dir is not set"),
    ([SOURCE, "--config.train.steps=3"], "first.py has no key .*steps"),
    ([SOURCE, "--config.train.num_steps=many"], "first.py: .*num_steps"),
    (
      [SOURCE, "--config.init_from=none"],
      "first.py starts from none, which is not a mod",
    ),
    ([SOURCE, "--config=none.py"], "none.py is not a file"),
    (
      [SOURCE, "--config={folder}/more/first.py"],
      "have the names of their recipes, but",
    ),
    ([SOURCE, "--sedes=1"], r"error: unknown flag --sedes=1 \(--seeds\?\)"),
    ([SOURCE, "--demo"], "not allowed with argument"),
    ([SOURCE, "--seeds=a"], "--seeds: 'a' is not whole numbers with commas, as in 0,1"),
    ([SOURCE, "--seeds=-1"], "config.seed is -1: it must be at least 0"),
  ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_run(
  args, message, runner, recipes, monkeypatch, tmp_path, capsys
):
  args = [arg.format(folder=tmp_path) for arg in args]
  said = launch_wrong(monkeypatch, capsys, *recipes, *args)
  assert re.search(message, said), said
  assert not runner.commands


def test_a_study_of_several_processes_is_refused(runner, recipes, monkeypatch, capsys):
  monkeypatch.setenv("SLURM_NTASKS", "4")
  said = launch_wrong(monkeypatch, capsys, *recipes, SOURCE)
  assert said.startswith("error: a study is for one process, but SLURM_NTASKS=4: ")
  assert not runner.commands


def test_a_stopped_study_waits_until_its_run_is_saved(tmp_path, monkeypatch):
  state = tmp_path / "state"
  run = (
    "import pathlib, signal, sys, time; state = pathlib.Path(sys.argv[1]);"
    "stop = lambda *_: (state.write_text('saved'), sys.exit(143));"
    "signal.signal(signal.SIGTERM, stop); state.write_text('begun'); time.sleep(60)"
  )

  class Popen(subprocess.Popen):
    is_interrupted = False

    def wait(self, *args, **kwargs):
      if not self.is_interrupted:
        while not state.exists() or state.read_text() != "begun":
          time.sleep(0.01)
        self.is_interrupted = True
        raise Terminated  # As SIGTERM does, in every command.
      return super().wait(*args, **kwargs)

  monkeypatch.setattr(subprocess, "Popen", Popen)
  with pytest.raises(Stopped, match="Stopped by SIGTERM") as info:
    study.run_step([sys.executable, "-c", run, str(state)])
  assert info.value.exit_code == 143
  assert state.read_text() == "saved"


def run_here(command):
  """Does what `run_step` does, in this process."""
  module, args = command[1], command[2:]
  if module == "-m":
    module, args = "audiotag_jax/main.py", args[1:]
  result = commands.run(module, *args)
  print(result.stderr)
  return result.returncode


@pytest.mark.slow
def test_the_demo_s_way_from_pre_training_to_fine_tuning(tmp_path, monkeypatch):
  overrides = [
    *(f"--config.data.{key}" for key in (f"data_dir={tmp_path}", "clip_s=1.0")),
    *(f"--config.data.num_{split}=20" for split in ("train", "val", "eval")),
    *("--config.train.num_steps=1", "--config.model.name=Cnn6"),
    *("--config.panns.filters=2,2,2,2", "--config.panns.embedding_dim=4"),
  ]
  monkeypatch.setattr(study, "run_step", run_here)
  steps = study.plan_demo(tmp_path / "demo", [], overrides)
  pretrain, export, convert, _, finetune, *_ = steps
  # Other tests cover other runs, measuring and comparing.
  study.carry_out([pretrain, export, convert, finetune])
  converted = json.loads((tmp_path / "demo/cnn14/model.json").read_text())
  assert converted["architecture"] == "Cnn6"
  assert converted["source"]["file"] == "cnn14.pth"
  model = json.loads((tmp_path / "demo/cnn14_demo_study/model/model.json").read_text())
  assert model["fields"]["filters"] == converted["fields"]["filters"] == [2] * 4


def test_a_step_whose_reader_goes_away_ends_the_study_as_quietly(monkeypatch):
  monkeypatch.setattr(study, "run_step", lambda command: 141)
  with pytest.raises(BrokenPipeError):
    study.carry_out([study.tool_step("measure", "runs/a")])
