"""The command lines, run as a user runs them."""

import json

import commands
import pytest


@pytest.mark.slow
def test_the_demo_recipe_runs_from_nothing_to_results(tmp_path):
  workdir = tmp_path / "crnn_demo"
  result = commands.launch(
    "audiotag_jax/main.py",
    "--config=configs/crnn_demo.py",
    f"--workdir={workdir}",
    f"--config.data.data_dir={tmp_path}",
    "--config.data.num_train=24",
    "--config.data.num_val=20",
    "--config.data.num_eval=20",
    "--config.train.num_steps=2",
  )
  assert result.returncode == 0, result.stderr
  assert "eval split, 20 clips, best checkpoint (step 2)" in result.stdout
  assert "label prior (chance)" in result.stdout
  entry = json.loads((workdir / "results/performance.json").read_text())["crnn_demo"]
  assert entry["num_classes"] == 46
  assert "Traceback" not in result.stderr


def test_a_recipe_that_is_not_there_is_one_line(tmp_path):
  result = commands.run(
    "audiotag_jax/main.py", "--config=configs/none.py", f"--workdir={tmp_path}/run"
  )
  assert result.returncode == 1
  assert result.stderr.startswith("error: configs/none.py is not a file: give a recipe")
  assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["--config.train.steps=3"], "has no key"),
    (["--config.train.num_steps=many"], "train.num_steps"),
    (["--config.train.num_steps=0"], "config.train.num_steps is 0: it must be"),
    (["--config.crnn.pooling=best"], "config.crnn.pooling is 'best': choose from"),
    (["--config.data.dataset=fsd50k"], "config.data.source_dir is not set"),
    (["--config.init_from=/nope"], "error: /nope has no model.json: give a model di"),
    (["--config.crnn.filters[0]=7"], "has no key crnn.filters[0] (crnn.filters?): au"),
    (["--mode=evaluate"], "has no config.json"),
    (["--mode=test"], "mode"),
    (["--confg.seed=1"], "unknown flag --confg.seed=1 (--config.seed?); --help li"),
    (["--config.seed", "--config.train.num_steps=3"], "config.seed has no value"),
    (["evaluate"], "unexpected argument evaluate: flags are written --flag=value"),
  ],
)
def test_a_mistake_is_one_line(tmp_path, args, message):
  result = commands.run(
    "audiotag_jax/main.py",
    "--config=configs/crnn_demo.py",
    f"--workdir={tmp_path}/run",
    *args,
  )
  assert result.returncode in (1, 2)
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("error: ")
  assert message in lines[0]
  assert not (tmp_path / "run").exists()
