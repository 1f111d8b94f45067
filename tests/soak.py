"""Trains a tiny model for many steps; prints what the process holds, as JSON lines.

python tests/soak.py WORKDIR STEPS
"""

# ruff: noqa: E402
import gc
import json
import os
import re
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import conftest

os.environ["XLA_FLAGS"] = ""

import jax

from audiotag_jax.training import train
from audiotag_jax.training.meter import Meter

EVERY_STEPS = 1_000


def held_mb() -> float:
  """The memory of this process that is not a file's, which the kernel may drop."""
  status = Path("/proc/self/status").read_text()
  sizes = dict(re.findall(r"(RssAnon|VmSwap):\s+(\d+) kB", status))
  return sum(map(int, sizes.values())) / 1024


def main(workdir: Path, num_steps: int) -> None:
  config = conftest.create_tiny_config(
    conftest.write_fsd50k(
      workdir / "source", {"train": 64, "val": 8, "eval": 8}, (0.3,)
    ),
    workdir / "data",
  )
  config.data.clip_s = 0.3
  config.train.num_steps = num_steps
  config.train.log_every_steps = 100
  config.train.eval_every_steps = EVERY_STEPS
  compilations = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: (
      compilations.append(event)
      if event == "/jax/core/compile/backend_compile_duration"
      else None
    )
  )
  add, start_s = Meter.add, time.monotonic()

  def add_and_report(self, step, metrics):
    add(self, step, metrics)
    if step % EVERY_STEPS == EVERY_STEPS // 2:
      gc.collect()
      facts = {
        "step": step,
        "held_mb": held_mb(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "compilations": len(compilations),
        "seconds": time.monotonic() - start_s,
      }
      print(json.dumps(facts), flush=True)

  Meter.add = add_and_report
  train.train_and_evaluate(config, str(workdir / "run"))


if __name__ == "__main__":
  main(Path(sys.argv[1]), int(sys.argv[2]))
