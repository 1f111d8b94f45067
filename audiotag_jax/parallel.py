"""Data parallelism: the only file that knows of devices and processes.

A step runs under `jax.pmap` on all local devices of all processes. Trees of
parameters are replicated, batches are sharded on their first axis.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from audiotag_jax.errors import UserError

# Name of the devices' axis, for collectives in a step and synchronised BatchNorm.
AXIS = "devices"

process_index = jax.process_index
process_count = jax.process_count


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
  devices = jax.local_devices()
  sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

  def copy(x: Any) -> jax.Array:
    return jax.device_put(np.broadcast_to(x, (len(devices), *np.shape(x))), sharding)

  return jax.tree.map(copy, tree)


def unreplicate(tree: Any) -> Any:
  """Copies the first local device's share of a replicated tree to the host."""

  def first(x: jax.Array) -> np.ndarray:
    return np.asarray(x.addressable_data(0)).reshape(x.shape[1:])

  return jax.tree.map(first, tree)


def shard(batch: Any) -> Any:
  """Splits this process's batch [local_batch, ...] to [local_devices, ...]."""
  num_devices = jax.local_device_count()
  return jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), batch)


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
