"""Kills, signals and damage: nothing of a run is lost, nothing is counted twice."""

import collections
import copy
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import commands
import conftest
import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2

from audiotag_jax import parallel
from audiotag_jax.errors import Stopped, UserError
from audiotag_jax.evaluation import learning_curves
from audiotag_jax.training import evaluate_run, tensorboard, train
from audiotag_jax.training.run import init_state, open_run, restore_or_init

pytestmark = pytest.mark.slow

# Scalars that depend on the clock.
OF_THE_CLOCK = ("train/steps_per_second", "train/data_wait_share")


def points(workdir):
  """Counts the points of TensorBoard's files by (tag, step)."""
  counts = collections.Counter()
  for path in workdir.glob("events.out.tfevents.*"):
    for raw in event_file_loader.RawEventFileLoader(str(path)).Load():
      event = event_pb2.Event.FromString(raw)
      counts.update((value.tag, event.step) for value in event.summary.value)
  return counts


def curves(workdir):
  scalars = learning_curves.read_scalars(workdir)
  return {
    tag: (steps.tolist(), values.tolist())
    for tag, (steps, values) in scalars.items()
    if tag not in OF_THE_CLOCK
  }


def final_state(config, workdir):
  run = open_run(config, workdir)
  state = run.checkpoints.restore(run.checkpoints.steps_of("last")[0], init_state(run))
  run.checkpoints.close()
  return state


def assert_same_runs(config, one, two):
  """Asserts that two runs ended bit by bit alike."""
  states = [final_state(config, workdir) for workdir in (one, two)]
  jax.tree.map(np.testing.assert_array_equal, *states)
  assert curves(one) == curves(two)
  assert points(one) == points(two)
  assert set(points(two).values()) == {1}
  arrays = [np.load(workdir / "results/predictions.npz") for workdir in (one, two)]
  for key in arrays[0]:
    np.testing.assert_array_equal(arrays[0][key], arrays[1][key])
  performance = [
    json.loads((workdir / "results/performance.json").read_text())[workdir.name]
    for workdir in (one, two)
  ]
  assert performance[0] == performance[1]
  assert (two / "results/learning_curves.png").exists()
  assert partial_files(two) == []


def partial_files(folder):
  return [
    path
    for path in folder.rglob("*")
    if "partial" in path.name or path.name.endswith((".new", ".old"))
  ]


def with_all_to_lose(config):
  """Makes a recipe with all that a resumed run could lose, and log lines in between."""
  config.augment.mixup_alpha = 1.0
  config.augment.time_stripes = 1
  config.crnn.dropout = 0.3
  config.data.sampling = "label_weighted"
  config.train.ema_decay = 0.9
  config.train.num_steps = 8
  config.train.log_every_steps = 3
  config.train.eval_every_steps = 4
  return config


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
  """The config and the workdir of a run that nothing stopped."""
  folder = tmp_path_factory.mktemp("unbroken")
  source = conftest.write_fsd50k(folder / "source", conftest.CLIPS)
  config = with_all_to_lose(conftest.create_tiny_config(source, folder / "data"))
  train.train_and_evaluate(config, str(folder / "run"))
  return config, folder / "run"


def signal_at(monkeypatch, number, step):
  """Sends this process a signal in a training step."""
  calls, shard = itertools.count(1), parallel.shard

  def shard_and_signal(batch):
    if "mask" not in batch and next(calls) == step:
      os.kill(os.getpid(), number)
    return shard(batch)

  monkeypatch.setattr(parallel, "shard", shard_and_signal)


def signal_in_validation(monkeypatch, number):
  """Sends this process SIGTERM in the first, second or later validation from now."""
  calls, gather = itertools.count(1), parallel.gather

  def signal_and_gather(rows):  # A validation has one batch.
    if next(calls) == number:
      os.kill(os.getpid(), signal.SIGTERM)
    return gather(rows)

  monkeypatch.setattr(parallel, "gather", signal_and_gather)


def test_a_run_stopped_by_signals_ends_as_an_unbroken_one(
  unbroken, tmp_path, monkeypatch
):
  config, whole = unbroken
  stopped, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)

  def check_stop(number, saved):
    with pytest.raises(Stopped) as info:
      train.train_and_evaluate(config, str(stopped))
    assert info.value.exit_code == 128 + number
    assert f"{stopped} is saved at step {saved} of 8" in str(info.value)
    assert {step for _, step in points(stopped)} <= set(range(saved + 1))
    assert signal.getsignal(signal.SIGINT) is handler

  # Step 1 has no log line yet; step 4 is due for a validation.
  for number, step, saved in ((signal.SIGTERM, 1, 1), (signal.SIGINT, 3, 4)):
    with monkeypatch.context() as patch:
      signal_at(patch, number, step)
      check_stop(number, saved)
  # The validation of step 4 is repeated, and stopped; then it is made, and that of
  # step 8 is stopped.
  for number, saved in ((1, 4), (2, 8)):
    with monkeypatch.context() as patch:
      signal_in_validation(patch, number)
      check_stop(signal.SIGTERM, saved)
    assert ("val/mAP", saved) not in points(stopped)
  assert ("val/mAP", 4) in points(stopped)

  train.train_and_evaluate(config, str(stopped))
  assert_same_runs(config, whole, stopped)


def test_a_kill_costs_what_came_after_the_last_checkpoint_by_the_clock(
  unbroken, tmp_path, monkeypatch
):
  config, whole = unbroken
  config = copy.deepcopy(config)
  config.train.checkpoint_every_minutes = 1e-9  # after every step
  killed, shard, calls = tmp_path / "run", parallel.shard, itertools.count(1)

  def kill(batch):
    if next(calls) == 4:
      raise MemoryError
    return shard(batch)

  with monkeypatch.context() as patch:
    patch.setattr(parallel, "shard", kill)
    with pytest.raises(MemoryError):
      train.train_and_evaluate(config, str(killed))
  assert not (killed / "results").exists()
  run = open_run(config, killed)
  assert run.checkpoints.latest_step() == 3
  run.checkpoints.close()
  train.train_and_evaluate(config, str(killed))
  assert_same_runs(config, whole, killed)
  # The checkpoints by the clock do not take the place of validated ones.
  kept = sorted(int(path.name) for path in (killed / "checkpoints").iterdir())
  assert kept[-2:] == [7, 8]
  assert 4 in kept


@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_the_second_signal_kills(second):
  script = f"""
import os, signal, time
from audiotag_jax.training.preemption import StopSignals
signals = StopSignals()
with signals.noted():
  os.kill(os.getpid(), signal.SIGTERM)
  assert signals.received(1) is signal.SIGTERM
  print("noted", flush=True)
  os.kill(os.getpid(), signal.{second})
  time.sleep(60)
"""
  result = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
  )
  assert result.stdout == "noted\n"
  assert result.stderr.startswith("SIGTERM: this step is finished and saved;")
  assert result.returncode == -signal.Signals[second]


def damage_array(checkpoint):
  """Flips a bit of an array: the files' own format does not notice."""
  files = [p for p in (checkpoint / "default").rglob("*") if p.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 4
  largest.write_bytes(content)


def truncate(checkpoint):
  for path in (checkpoint / "default").rglob("d/*"):
    path.write_bytes(path.read_bytes()[:-40])


def delete_data(checkpoint):
  for path in (checkpoint / "default").rglob("d/*"):
    path.unlink()


def empty_folder(checkpoint):
  shutil.rmtree(checkpoint)
  checkpoint.mkdir()


def add_empty_newer(checkpoint):
  (checkpoint.parent / "7").mkdir()


def empty_metadata(checkpoint):
  (checkpoint / "default/_METADATA").write_bytes(b"")


def delete_manifest(checkpoint):
  (checkpoint / "default/manifest.ocdbt").unlink()


def break_metrics(checkpoint):
  (checkpoint / "metrics/metrics").write_text('{"mAP": ')


DAMAGES = (
  damage_array, truncate, delete_data, empty_folder, add_empty_newer, empty_metadata,
  delete_manifest, break_metrics,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside(finished_copy, damage, caplog):
  config, workdir, _ = finished_copy
  damage(workdir / "checkpoints/6")
  run = open_run(config, workdir)
  state, _ = restore_or_init(run)
  run.checkpoints.close()
  expected, name = (6, "7") if damage is add_empty_newer else (4, "6")
  assert int(state.step) == expected
  assert (workdir / "damaged_checkpoints" / name).is_dir()
  assert not (workdir / "checkpoints" / name).exists()
  warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
  (warning,) = [w for w in warnings if "damaged" in w]
  assert warning.startswith(f"The checkpoint of step {name} is damaged (")
  assert "\n" not in warning
  assert {step for _, step in points(workdir)} <= set(range(expected + 1))


def test_a_run_with_a_damaged_checkpoint_ends_as_an_unbroken_one(finished_copy):
  config, workdir, _ = finished_copy
  damage_array(workdir / "checkpoints/6")
  train.train_and_evaluate(config, str(workdir))
  assert int(final_state(config, workdir).step) == 6
  assert set(points(workdir).values()) == {1}


def test_evaluation_names_a_damaged_checkpoint(finished_copy):
  config, workdir, _ = finished_copy
  config.evaluation.checkpoint = "last"
  damage_array(workdir / "checkpoints/6")
  with pytest.raises(UserError, match=r"checkpoint .*/6 (is damaged|cannot be read)"):
    evaluate_run.evaluate_only(config, str(workdir))


def test_a_checkpoint_without_checksums_still_opens(finished_copy):
  config, workdir, _ = finished_copy
  path = workdir / "checkpoints/6/_CHECKPOINT_METADATA"
  described = json.loads(path.read_text())
  described["custom_metadata"] = {}
  path.write_text(json.dumps(described))
  run = open_run(config, workdir)
  state, meter = restore_or_init(run)
  run.checkpoints.close()
  assert (int(state.step), meter) == (6, {})


def test_a_checkpoint_that_cannot_be_saved_stops_the_run(tiny_config, tmp_path):
  workdir = tmp_path / "run"
  run = open_run(tiny_config, workdir)
  state, _ = restore_or_init(run)
  run.checkpoints.save(1, state)
  run.checkpoints.wait()
  shutil.rmtree(workdir / "checkpoints")
  (workdir / "checkpoints").write_text("in the way")
  run.checkpoints.save(2, state)
  with pytest.raises(UserError, match=r"step 2 cannot be saved: .*same command"):
    run.checkpoints.wait()
  run.checkpoints.close()  # It says so once.


def test_event_files_that_cannot_be_written_do_not_stop_a_training(
  tiny_config, tmp_path, monkeypatch, caplog
):
  class Broken:
    def __getattr__(self, name):
      def fail(*_, **__):
        raise OSError("No space left on device")

      return fail

  create = tensorboard.metric_writers.create_default_writer
  monkeypatch.setattr(
    tensorboard.metric_writers,
    "create_default_writer",
    lambda path, just_logging: (
      create(path, just_logging=True) if just_logging else Broken()
    ),
  )
  tiny_config.train.num_steps = 2
  train.train_and_evaluate(tiny_config, str(tmp_path / "run"))
  messages = [record.getMessage() for record in caplog.records]
  (warning,) = [m for m in messages if "TensorBoard's files" in m]
  assert "(OSError: No space left on device)" in warning
  (curves,) = [m for m in messages if "cannot be drawn" in m]
  assert "learning_curves.png" in curves
  assert (tmp_path / "run/results/performance.json").exists()


def test_a_run_has_one_owner(finished_copy):
  config, workdir, _ = finished_copy
  script = (
    "import fcntl, sys, time; file = open(sys.argv[1], 'w');"
    "fcntl.flock(file, fcntl.LOCK_EX);"
    "print('process 7 on host', file=file, flush=True);"
    "print(flush=True); time.sleep(100)"
  )
  with subprocess.Popen(
    [sys.executable, "-c", script, str(workdir / ".lock")], stdout=subprocess.PIPE
  ) as holder:
    holder.stdout.readline()
    for entry in (train.train_and_evaluate, evaluate_run.evaluate_only):
      with pytest.raises(UserError) as info:
        entry(config, str(workdir))
      in_use = f"the run {workdir} is in use by process 7 on host"
      assert str(info.value).startswith(in_use)
    holder.kill()
  assert "Results:" in evaluate_run.evaluate_only(config, str(workdir))


def start(config_file, workdir):
  env = os.environ | {"PYTHONPATH": str(commands.REPOSITORY)}
  return subprocess.Popen(
    [sys.executable, "-m", "audiotag_jax.main", f"--config={config_file}",
     f"--workdir={workdir}"],
    env=env, cwd=commands.REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    text=True,
  )  # fmt: skip


@pytest.fixture
def recipe(unbroken, tmp_path):
  """A recipe's file with the values of the unbroken run's config."""
  config, _ = unbroken
  path = tmp_path / "recipe.py"
  values = json.dumps(config.to_dict())
  path.write_text(
    "import json\n"
    "from audiotag_jax import config as config_lib\n\n"
    "def get_config():\n"
    "  config = config_lib.get_config()\n"
    f"  values = json.loads({values!r})\n"
    "  for room, keys in values.items():\n"
    "    if isinstance(keys, dict):\n"
    "      for key, value in keys.items():\n"
    "        value = tuple(value) if isinstance(value, list) else value\n"
    "        config[room][key] = value\n"
    "    else:\n"
    "      config[room] = keys\n"
    "  return config\n"
  )
  return path


def test_main_says_what_is_saved_and_how_it_resumes(recipe, tmp_path):
  process = start(recipe, tmp_path / "run")
  with process:
    while not list((tmp_path / "run").glob("events.out.tfevents.*")):
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGTERM, stderr
  *_, saved, command = stderr.strip().splitlines()
  assert saved.startswith("Stopped by SIGTERM.")
  assert f"--workdir={tmp_path / 'run'}" in command
  assert "Traceback" not in stderr


def run_for(recipe, workdir, seconds=None, number=signal.SIGKILL):
  """Runs main.py, with a signal after a time if it is still there; returns its code."""
  with start(recipe, workdir) as process:
    try:
      process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
      process.send_signal(number)
      process.communicate()
    return process.returncode


@pytest.mark.exhaustive
def test_kills_at_random_moments(recipe, unbroken, tmp_path):
  config, _ = unbroken
  whole, killed = tmp_path / "whole/run", tmp_path / "killed/run"
  begin = time.monotonic()
  assert run_for(recipe, whole) == 0
  whole_s = time.monotonic() - begin
  rng = random.Random(int(os.environ.get("SEED", "0")))
  for _ in range(int(os.environ.get("KILLS", "10"))):
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
    code = run_for(recipe, killed, rng.uniform(0.3, 1.0) * whole_s, number)
    # Before `main` and after it, SIGTERM itself ends the process.
    assert code in (0, -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM)
    if code == 0:
      assert_same_runs(config, whole, killed)
      shutil.rmtree(killed)
  assert run_for(recipe, killed) == 0
  assert_same_runs(config, whole, killed)
