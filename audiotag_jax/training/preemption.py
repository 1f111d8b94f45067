"""SIGTERM and SIGINT: a training finishes its step and saves before it ends."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from audiotag_jax import parallel


class Interrupted(Exception):
  """A signal arrived in a block that may be left at any point."""

  def __init__(self, received: signal.Signals):
    super().__init__(received.name)
    self.signal = received


class StopSignals:
  """Notes SIGTERM and SIGINT instead of dying of them; the second one kills.

  Over several processes JAX's preemption service listens for SIGTERM on each of them
  and chooses a step that all reach; SIGINT is handed to it as SIGTERM.
  """

  def __init__(self) -> None:
    self._received: signal.Signals | None = None
    self._may_interrupt = False
    # The signals that are noted, and what handled them before.
    self._handlers: dict[signal.Signals, Any] = {}

  @contextlib.contextmanager
  def noted(self) -> Iterator[None]:
    """Notes the signals that arrive in the block."""
    if threading.current_thread() is not threading.main_thread():
      yield  # Python hands signals to the main thread alone.
      return
    noted = [signal.SIGINT]
    if parallel.process_count() == 1:
      noted.append(signal.SIGTERM)
    self._handlers = {each: signal.signal(each, self._note) for each in noted}
    try:
      yield
    finally:
      for each, handler in self._handlers.items():
        signal.signal(each, handler)

  def _note(self, number: int, _: FrameType | None) -> None:
    self._received = signal.Signals(number)
    # Not logged: the signal may have come while a log line was being written.
    line = (
      f"{self._received.name}: this step is finished and saved; a second signal kills."
    )
    os.write(2, f"{line}\n".encode())
    for each in self._handlers:
      signal.signal(each, signal.SIG_DFL)
    if parallel.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
    if self._may_interrupt:
      raise Interrupted(self._received)

  @contextlib.contextmanager
  def interrupting(self) -> Iterator[None]:
    """Lets a signal leave the block at once, by `Interrupted`.

    Processes that work together leave it only at its end.
    """
    self._may_interrupt = parallel.process_count() == 1
    try:
      yield
    finally:
      self._may_interrupt = False

  def received(self, step: int) -> signal.Signals | None:
    """Returns the signal that asks to stop after this step, on all processes alike.

    Args:
      step: the step; every process asks after every step.
    """
    if parallel.process_count() == 1:
      return self._received
    if not parallel.reached_preemption(step):
      return None
    return self._received or signal.SIGTERM
