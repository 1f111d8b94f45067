"""main.py as several processes that train and evaluate as one, on this machine's CPU.

They find one another by flags, or by the variables of Slurm and Open MPI, simulated.
The process that they are compared with has eight devices.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import commands
import jax
import numpy as np
import pytest

from audiotag_jax import recipes
from audiotag_jax.evaluation import learning_curves
from audiotag_jax.training.run import init_state, open_run

pytestmark = pytest.mark.slow

DEVICES = 4  # over all processes


def by_flags(number, index, count):
  return {}, [
    f"--coordinator_address=localhost:{61_440 + number}",
    f"--num_processes={count}",
    f"--process_id={index}",
  ]


def by_slurm(number, index, count):
  names = ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
  values = map(str, (number, count, index, index))
  return {"SLURM_STEP_NODELIST": "localhost"} | dict(
    zip(names, values, strict=True)
  ), []


def by_open_mpi(number, index, count):
  return {
    "OMPI_MCA_orte_hnp_uri": f"{number * 2**12}.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": str(count),
    "OMPI_COMM_WORLD_RANK": str(index),
    "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
  }, []


@pytest.fixture
def start(finished, tmp_path):
  """Starts the processes of a run like `finished`, which end with the test."""
  recipe, started = tmp_path / "recipe.py", []
  values = recipes.flatten(finished.config.to_dict())
  recipe.write_text(
    "from audiotag_jax import config as config_lib\n\n\ndef get_config():\n"
    "  config = config_lib.get_config()\n"
    f"  config.update_from_flattened_dict({values})\n"
    "  return config\n"
  )

  def start_all(launch, count, workdir, *overrides):
    number = random.randrange(4096)  # JAX's port is 61440 and this
    for index in range(count):
      env, flags = launch(number, index, count)
      env |= {"PYTHONPATH": str(commands.REPOSITORY)}
      env |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES // count}"}
      command = [sys.executable, "-m", "audiotag_jax.main", f"--config={recipe}"]
      with (tmp_path / f"{workdir.name}.{len(started)}").open("w") as log:
        process = subprocess.Popen(
          [*command, f"--workdir={workdir}", *flags, *overrides],
          env=os.environ | env,
          stdout=log,
          stderr=subprocess.STDOUT,
        )
      started.append((process, log.name))
    return started[-count:]

  yield start_all
  for process, _ in started:
    process.kill()


def read(log):
  with open(log) as file:
    return file.read()


def finish(processes, timeout_s=400):
  for process, log in processes:
    assert process.wait(timeout_s) == 0, read(log)[-3000:]


def assert_same_run(finished, workdir):
  """The run has the losses, metrics, scores and checkpoint of `finished`."""
  for tag in ("train/loss", "val/loss", "val/mAP"):
    expected, values = (
      dict(zip(*learning_curves.read_scalars(folder)[tag], strict=True))
      for folder in (finished.workdir, workdir)
    )
    assert values == pytest.approx(expected, abs=1e-5)
  expected, arrays = (
    np.load(folder / "results/predictions.npz")
    for folder in (finished.workdir, workdir)
  )
  assert arrays["fname"].tolist() == [str(n) for n in range(1018, 1025)]
  np.testing.assert_array_equal(arrays["labels"], expected["labels"])
  np.testing.assert_allclose(arrays["scores"], expected["scores"], atol=1e-5)
  (expected,), (entry,) = (
    json.loads((folder / "results/performance.json").read_text()).values()
    for folder in (finished.workdir, workdir)
  )
  for key, value in expected.items():
    if isinstance(value, float):
      assert entry[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key
  states = []
  for folder in (finished.workdir, workdir):
    run = open_run(finished.config, folder)
    states.append(run.checkpoints.restore(6, init_state(run)))
    run.checkpoints.close()
    # A bias before a softmax has no gradient but rounding, which Adam scales up.
    del states[-1].params["attention"]["bias"]
  for part in ("params", "batch_stats"):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
      *(getattr(state, part) for state in states),
    )


@pytest.mark.parametrize(
  ("launch", "count"),
  [
    (by_slurm, 2),
    pytest.param(by_flags, 4, marks=pytest.mark.exhaustive),
    pytest.param(by_open_mpi, 2, marks=pytest.mark.exhaustive),
  ],
)
def test_processes_do_as_one(finished, start, tmp_path, launch, count):
  workdir = tmp_path / "run"
  processes = start(launch, count, workdir)
  finish(processes)
  texts = [read(log) for _, log in processes]
  assert ["Results: " in text for text in texts] == [True] + [False] * (count - 1)
  assert len(list(workdir.glob("events*"))) == 1
  assert_same_run(finished, workdir)


@pytest.mark.exhaustive
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(
  finished, start, tmp_path, killed
):
  workdir = tmp_path / "run"
  processes = start(by_slurm, 2, workdir)
  while not (workdir / "checkpoints/2").exists():
    assert [process.poll() for process, _ in processes] == [None, None], [
      read(log)[-3000:] for _, log in processes
    ]
    time.sleep(0.05)
  processes[killed][0].send_signal(signal.SIGKILL)
  survivor, log = processes[1 - killed]
  assert survivor.wait(60) != 0
  time.sleep(0.5)  # The last line comes after the end of a process that JAX aborts.
  last = read(log).strip().splitlines()[-1]
  assert last.startswith("error: ")
  assert "another process of the run ended" in last
  assert "resumes the run" in last
  assert "Traceback" not in read(log)
  assert "eval split" not in read(log)

  finish(start(by_slurm, 2, workdir))
  assert_same_run(finished, workdir)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_to_one_process_saves_one_step_of_all(
  start, tmp_path, number, stopped
):
  workdir = tmp_path / "run"
  longer = ("--config.train.num_steps=400", "--config.train.eval_every_steps=200")
  processes = start(by_flags, 2, workdir, *longer)
  while "train/loss" not in read(processes[0][1]):
    assert processes[0][0].poll() is None, read(processes[0][1])[-3000:]
    time.sleep(0.05)
  processes[stopped][0].send_signal(number)
  saved = set()
  for process, log in processes:
    code = process.wait(120)
    assert code in (128 + number, 128 + signal.SIGTERM), read(log)[-3000:]
    assert "Traceback" not in read(log)
    saved |= set(re.findall(r"is saved at step (\d+) of 400", read(log)))
  (step,) = saved
  assert (workdir / "checkpoints" / step).exists()
  finish(start(by_flags, 2, workdir, *longer))
  steps, _ = learning_curves.read_scalars(workdir)["train/loss"]
  assert steps.tolist() == list(range(2, 401, 2))


def test_processes_that_cannot_join_are_refused(tmp_path, monkeypatch):
  # As in a batch script that calls main.py without srun.
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  monkeypatch.setenv("SLURM_NTASKS", "2")
  result = commands.launch(
    "audiotag_jax/main.py",
    "--config=configs/crnn_demo.py",
    f"--workdir={tmp_path}/run",
  )
  assert result.returncode == 1
  assert result.stderr.strip().splitlines()[-1].startswith("error: SLURM_NTASKS=2, but")
  assert "Traceback" not in result.stderr
  assert not (tmp_path / "run").exists()
