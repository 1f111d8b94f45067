"""Two processes of two devices each train and evaluate like one of four devices."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

RUN = """
import json, sys
import jax

process, num_processes, port, workdir = sys.argv[1:5]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4 // int(num_processes))
if num_processes == "2":
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(f"localhost:{port}", 2, int(process))

from audiotag_jax import config as config_lib
from audiotag_jax.training import train

config = config_lib.get_config()
config.update_from_flattened_dict(json.loads(sys.argv[5]))
assert jax.device_count() == 4
train.train_and_evaluate(config, workdir)
"""


def start(process, num_processes, port, workdir, config):
  flat = json.dumps(config)
  command = [sys.executable, "-c", RUN, process, num_processes, port, workdir, flat]
  return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def finish(process):
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr


def test_two_processes_do_as_one(tiny_config, tmp_path, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS")
  changed = {
    f"{room}.{key}": tiny_config[room][key]
    for room, keys in {
      "data": ("source_dir", "data_dir", "clip_s"),
      "frontend": ("sample_rate_hz", "f_max_hz"),
      "crnn": ("filters", "time_pooling", "mel_pooling", "gru_units"),
      "train": ("num_steps", "batch_size", "eval_every_steps"),
      "evaluation": ("batch_size",),
    }.items()
    for key in keys
  }
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  finish(start(0, 1, port, tmp_path / "one", changed))
  both = [start(i, 2, port, tmp_path / "two", changed) for i in range(2)]
  for process in both:
    finish(process)

  one, two = (
    np.load(tmp_path / f"{run}/results/predictions.npz") for run in ("one", "two")
  )
  assert two["fname"].tolist() == [str(n) for n in range(1018, 1025)]
  np.testing.assert_array_equal(one["labels"], two["labels"])
  np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-5)
