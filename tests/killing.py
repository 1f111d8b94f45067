"""Preparations that are killed, each in a process of its own.

python tests/killing.py prepare SOURCE FOLDER never 0 1 2 … 0.5
python tests/killing.py together prepare SOURCE FOLDER never 30

Each moment has a folder of its name in FOLDER. A process writes there and is killed
before it opens, renames or removes the so many-th file; a moment with a point is in
seconds. Another process then finishes, or, with `together`, works at the same time. The
exit codes of both are printed. The processes are forked from this one, which has
imported everything.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from etils import epath

from audiotag_jax import config as config_lib
from audiotag_jax import files
from audiotag_jax.data import builder, log_mel_cache, prepared_set, shards
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.demo import fsd50k_folder
from audiotag_jax.data.sources import fsd50k
from audiotag_jax.errors import UserError

shards.SHARD_CLIPS = 5
files.GRACE_S = 0.0
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def prepare(source: str, folder: Path) -> prepared_set.PreparedSet:
  return builder.prepare(
    fsd50k.read_source(epath.Path(source)),
    data_dir=str(folder),
    sample_rate_hz=8_000,
    allow_missing=0,
  )


def cache(source: str, folder: Path) -> None:
  config = config_lib.get_config()
  config.frontend.sample_rate_hz, config.frontend.f_max_hz = 8_000, 4_000.0
  prepared = prepare(source, folder)
  log_mel_cache.cache_log_mels(read_index(prepared.folder)[0], prepared.folder, config)


def synthesize(_: str, folder: Path) -> None:
  sizes = {"num_train": 3, "num_val": 1, "num_eval": 1}
  fsd50k_folder.write_soundscapes(folder / "demo", **sizes, seed=0)


TASKS = {"prepare": prepare, "cache": cache, "synthesize": synthesize}


def start(task: str, source: str, folder: Path, event: int | None) -> int:
  """Forks a process that does a task; returns its id."""
  process = os.fork()
  if process:
    return process
  if event is not None:
    die_at(event, str(folder))
  try:
    TASKS[task](source, folder)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    os._exit(1)
  except BaseException:
    traceback.print_exc()
    os._exit(2)
  os._exit(0)


def die_at(event: int, folder: str) -> None:
  """Makes this process kill itself at an event in a folder."""
  seen = 0

  def hook(name: str, args: tuple) -> None:
    nonlocal seen
    if name in EVENTS and folder in str(args[0]):
      seen += 1
      if seen > event:
        os.kill(os.getpid(), signal.SIGKILL)

  sys.addaudithook(hook)


def wait(process: int) -> int:
  """Waits for a process; returns its exit code."""
  return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_and_finish(task: str, source: str, root: str, *moments: str) -> None:
  for moment in moments:
    folder = Path(root) / moment
    is_time = "." in moment
    event = None if is_time or moment == "never" else int(moment)
    process = start(task, source, folder, event)
    if is_time:
      time.sleep(float(moment))
      os.kill(process, signal.SIGKILL)
    print(moment, wait(process), wait(start(task, source, folder, None)))


def work_together(task: str, source: str, root: str, *moments: str) -> None:
  for moment in moments:
    folder = Path(root) / moment
    first = start(task, source, folder, None if moment == "never" else int(moment))
    while not list(folder.rglob("*.lock")):
      time.sleep(0.01)
    second = start(task, source, folder, None)
    print(moment, wait(first), wait(second))


if __name__ == "__main__":
  if sys.argv[1] == "together":
    work_together(*sys.argv[2:])
  else:
    kill_and_finish(*sys.argv[1:])
