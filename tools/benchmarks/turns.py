"""Functions that are timed in turns, each in a process of its own.

So the peak memory of each is its own, and a slow minute of the machine slows all.
"""

import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

# Pause between measurements: PyTorch's OpenMP threads spin for 0.2 s after their work.
PAUSE_S = 0.5


class Timing(NamedTuple):
  """The times of a function.

  Attributes:
    seconds: of each measured call.
    first_s: seconds until the first call had returned, its compilation included.
    peak_gib: peak memory in GiB of the device, or of the process on a CPU.
  """

  seconds: list[float]
  first_s: float
  peak_gib: float

  @property
  def median_s(self) -> float:
    return statistics.median(self.seconds)


# Makes the function that is timed, in the new process. The function returns when its
# work is done; a second one returns the peak of the device's memory in GiB, or nothing.
Create = Callable[..., tuple[Callable[[], object], Callable[[], float | None]]]


class Worker:
  """A process that calls a function when told to."""

  def __init__(self, create: Create, *args: Any):
    context = multiprocessing.get_context("spawn")
    self._connection, other = context.Pipe()
    # A daemon ends with this process.
    self._process = context.Process(
      target=_work, args=(other, create, args), daemon=True
    )
    self._process.start()
    other.close()

  def seconds(self) -> float:
    """Waits for a call and returns its seconds.

    Raises:
      RuntimeError: the process raised an exception, which the message names.
    """
    self._connection.send("call")
    return self._receive()

  def close(self) -> float:
    """Ends the process; returns its peak memory in GiB."""
    self._connection.send("end")
    peak_gib = self._receive()
    self._process.join()
    return peak_gib

  def kill(self) -> None:
    self._process.kill()
    self._process.join()

  def _receive(self) -> float:
    try:
      answer = self._connection.recv()
    except (EOFError, ConnectionResetError):
      self._process.join()
      raise RuntimeError(f"ended with code {self._process.exitcode}") from None
    if isinstance(answer, str):
      raise RuntimeError(answer)
    return answer


def _work(connection: Connection, create: Create, args: tuple[Any, ...]) -> None:
  """Runs in the process of a `Worker`."""
  try:
    connection.recv()
    start_s = time.perf_counter()
    function, peak_gib = create(*args)
    function()
    connection.send(time.perf_counter() - start_s)
    while connection.recv() == "call":
      start_s = time.perf_counter()
      function()
      connection.send(time.perf_counter() - start_s)
    connection.send(peak_gib() or process_gib())
  except Exception as error:
    connection.send(f"{type(error).__name__}: {error}".splitlines()[0])


def process_gib() -> float:
  """Returns the peak memory of this process in GiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(
  functions: dict[str, tuple[Create, tuple[Any, ...]]], num_rounds: int
) -> dict[str, Timing]:
  """Times functions in turns: A B A B.

  Args:
    functions: by name, what creates a function, and its arguments.
    num_rounds: measured calls of each.

  Returns:
    The timings by name. A function that fails is left out, and a line says why.
  """
  workers: dict[str, Worker] = {}
  seconds: dict[str, list[float]] = {}

  def call(name: str, worker: Worker) -> None:
    try:
      seconds.setdefault(name, []).append(worker.seconds())
    except RuntimeError as error:
      worker.kill()
      del workers[name]
      print(f"{name} cannot be measured: {error}", file=sys.stderr)

  for name, (create, args) in functions.items():
    workers[name] = Worker(create, *args)
    call(name, workers[name])
  for _ in range(1 + num_rounds):  # The second call is not measured either.
    for name, worker in list(workers.items()):
      time.sleep(PAUSE_S)
      call(name, worker)
  return {
    name: Timing(seconds[name][2:], seconds[name][0], worker.close())
    for name, worker in workers.items()
  }


def num_threads() -> int:
  """Returns the threads that each function may use: all cores."""
  return os.cpu_count() or 1
