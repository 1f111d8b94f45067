"""Data parallelism: the only file that knows of devices and processes.

A step runs under `jax.pmap` on all local devices of all processes. Trees of
parameters are replicated, batches are sharded on their first axis.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiotag_jax.errors import Stopped, UserError, exit_on_user_error

# Name of the devices' axis, for collectives in a step and synchronised BatchNorm.
AXIS = "devices"

# Seconds without a sign of life after which a process counts as dead.
HEARTBEAT_TIMEOUT_S = 30
# Variables by which launchers say how many processes they start: Slurm, Open MPI, other
# MPIs, torchrun.
PROCESS_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
# Words of errors that say that another process does not answer.
LOST_PROCESS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "oordination")
RESUME = "The same command on every host resumes the run from its last checkpoint"

process_index = jax.process_index
process_count = jax.process_count


@contextlib.contextmanager
def joined_processes(
  coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
  """Joins this process with the others of its run; enter it before JAX is used.

  With None for all three, JAX finds the processes of Slurm, Open MPI or a TPU pod, if
  there are several. If the block raises, this process ends at once, because the others
  wait for it; they notice, and end too.

  Args:
    coordinator_address: host:port of process 0.
    num_processes: processes of the run; 1 if this process is alone.
    process_id: number of this process, from 0.

  Raises:
    UserError: the arguments are incomplete or invalid, or JAX does not find the
      processes that a launcher has started.
  """
  given = [x is not None for x in (coordinator_address, num_processes, process_id)]
  if num_processes != 1 and any(given) and not all(given):
    raise UserError(
      "--coordinator_address, --num_processes and --process_id belong together"
    )
  # The hosts of a TPU pod find one another without a launcher.
  may_be_tpu = importlib.util.find_spec("libtpu") is not None
  if num_processes == 1 or not (any(given) or may_be_tpu or started_processes()):
    yield
    return
  joined = False
  try:
    with _last_words(
      f"error: process {os.getpid()} on {socket.gethostname()} ended: it was killed, "
      f"or another process of the run ended or did not come. {RESUME}"
    ):
      joined = _join(coordinator_address, num_processes, process_id)
      yield
  except Stopped:
    raise  # All processes stop at the same step.
  except (Exception, KeyboardInterrupt) as error:
    if joined:
      _end(error)
    raise


def started_processes() -> str:
  """Returns what a launcher says if it has started several processes, or nothing."""
  for variable in PROCESS_COUNTS:
    count = os.environ.get(variable, "")
    if count.isdigit() and int(count) > 1:
      return f"{variable}={count}"
  return ""


@contextlib.contextmanager
def _last_words(line: str) -> Iterator[None]:
  """Has a line printed if this process is killed or aborts inside the block.

  JAX aborts a process whose run has lost another one, and logs many lines. A process of
  Python's waits for that, because no code of this process runs then.
  """
  wait = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"
  with subprocess.Popen(
    [sys.executable, "-S", "-c", wait, line],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    start_new_session=True,  # Ctrl-C does not reach it.
    text=True,
  ) as witness:
    try:
      yield
    finally:
      witness.communicate("The process ends by itself.")


def _join(address: str | None, count: int | None, index: int | None) -> bool:
  """Joins the processes and connects their devices; returns whether there are any."""
  # The stacks that main.py's faulthandler prints would hide the reason of an abort.
  signal.signal(signal.SIGABRT, signal.SIG_DFL)
  try:
    jax.distributed.initialize(
      address, count, index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).partition("\n")[0]
    if address is not None:
      raise UserError(f"process {index} of {count} cannot join: {reason}") from error
    if started := started_processes():
      raise UserError(
        f"{started}, but this process cannot join the others ({reason}): start main.py "
        "by srun or mpirun, or give --coordinator_address, --num_processes and "
        "--process_id; --num_processes=1 if it is alone"
      ) from error
    return False
  # Gloo waits for 30 s for a connection, but without an end for data. So all connect
  # now; later, one process may prepare data for hours while the others wait.
  multihost_utils.sync_global_devices("joined")
  pmap(lambda x: jax.lax.psum(x, AXIS))(np.zeros(jax.local_device_count()))
  return True


@exit_on_user_error
def _raise(error: BaseException) -> None:
  raise error


def _end(error: BaseException) -> NoReturn:
  """Ends this process as an exception does, but does not wait for the others."""
  code: Any = 1
  try:
    _raise(_lost_process(error) or error)
  except SystemExit as end:
    code = end.code
    if isinstance(code, str):
      print(code, file=sys.stderr)
      code = 1
  except BaseException:
    traceback.print_exc()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _lost_process(error: BaseException | None) -> UserError | None:
  """Returns the error to show if another process does not answer."""
  while error is not None:
    reason = str(error)
    if not isinstance(error, UserError) and any(x in reason for x in LOST_PROCESS):
      return UserError(
        f"another process of the run ended ({reason.partition('[')[0][:100].strip()}). "
        f"{RESUME}"
      )
    error = error.__context__
  return None


def is_main_process() -> bool:
  """Returns whether this process writes logs and results."""
  return jax.process_index() == 0


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
  """Runs the block on the main process, and only then on the others."""
  if not is_main_process():
    multihost_utils.sync_global_devices("main_process_first")
  yield
  if is_main_process():
    multihost_utils.sync_global_devices("main_process_first")


def agree(flag: bool) -> bool:
  """Returns whether a flag is true on every process; all of them must call it."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).all())


def reached_preemption(step: int) -> bool:
  """Returns whether this is the step after which all processes stop.

  JAX's preemption service listens for SIGTERM on each process and chooses the step. All
  processes must call this after each step.
  """
  return multihost_utils.reached_preemption_sync_point(step)


def pmap(step: Callable, *, donate_argnums: tuple[int, ...] = ()) -> Callable:
  """Compiles a pure step for all devices; reuses the buffers of `donate_argnums`."""
  return jax.pmap(step, axis_name=AXIS, donate_argnums=donate_argnums)


def replicate(tree: Any) -> Any:
  """Copies a tree to all local devices: arrays [...] become [local_devices, ...].

  The copies have the sharding of `pmap`'s outputs. `flax.jax_utils.replicate` names the
  axis differently, so that the second call of a step would compile it again.
  """
  num_devices = jax.local_device_count()

  def copy(x: Any) -> np.ndarray:
    return np.broadcast_to(x, (num_devices, *np.shape(x)))

  return jax.device_put(jax.tree.map(copy, tree), _local_sharding())


def _local_sharding() -> NamedSharding:
  """Returns how `pmap`'s inputs and outputs are spread over the local devices."""
  return NamedSharding(
    Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS)
  )


def unreplicate(tree: Any) -> Any:
  """Copies the first local device's share of a replicated tree to the host."""

  def first(x: jax.Array) -> np.ndarray:
    return np.asarray(x.addressable_data(0)).reshape(x.shape[1:])

  return jax.tree.map(first, tree)


def shard(batch: Any) -> Any:
  """Sends this process's batch [local_batch, ...] to [local_devices, ...]."""
  num_devices = jax.local_device_count()
  parts = jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), batch)
  return jax.device_put(parts, _local_sharding())


def gather(tree: Any) -> Any:
  """Gathers sharded arrays [local_devices, n, ...] of all processes on every host.

  Returns:
    numpy arrays [processes * local_devices * n, ...], in process order.
  """

  def local_rows(x: jax.Array) -> np.ndarray:
    shards = [np.asarray(s.data) for s in x.addressable_shards]
    return np.concatenate(shards).reshape(-1, *x.shape[2:])

  rows = jax.tree.map(local_rows, tree)
  if jax.process_count() > 1:
    rows = multihost_utils.process_allgather(rows, tiled=True)
  return rows


def check_divisible(batch_size: int, key: str, parts: int = 1) -> None:
  """Checks that a global batch divides evenly among all devices.

  Args:
    batch_size: clips in a step, over all devices of all processes.
    key: the config key of `batch_size`; the message names it.
    parts: parts that each device's share is cut into.

  Raises:
    UserError: `batch_size` does not divide evenly.
  """
  num_devices = jax.device_count()
  if batch_size % (num_devices * parts):
    times = f" x {parts} accumulation steps" if parts > 1 else ""
    raise UserError(
      f"config.{key} {batch_size} is not divisible by {num_devices} devices{times}"
    )
