"""A user's mistake, and how a command line reports it."""

import contextlib
import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Packages that setup.cfg requires only on the Pythons that TensorFlow is released for.
WITH_TENSORFLOW = ("clu", "tensorboard", "tensorflow", "tensorflow_datasets")
INSTALL_TENSORFLOW = (
  "audiotag_jax installs it on Python 3.11, 3.12 and 3.13; TensorFlow is not released "
  "for Python 3.14 yet"
)


class UserError(Exception):
  """A mistake that the user can fix; its message is the one line that they see.

  The message names the thing, what was expected and what to do.
  """


class Stopped(Exception):
  """A signal stopped the command, after it saved; the message says what is saved."""

  def __init__(self, number: signal.Signals, saved: str):
    super().__init__(f"Stopped by {number.name}. {saved}")
    self.exit_code = 128 + number


class Terminated(KeyboardInterrupt):
  """SIGTERM, which unwinds a command as SIGINT does, so that it clears up."""


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
  """Raises `Terminated` where SIGTERM finds the main thread in the block."""

  def raise_terminated(number: int, _: FrameType | None) -> None:
    raise Terminated

  if threading.current_thread() is not threading.main_thread():
    yield  # Python hands signals to the main thread alone.
    return
  before = signal.signal(signal.SIGTERM, raise_terminated)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def exit_on_user_error(main: Callable[..., None]) -> Callable[..., None]:
  """Makes a command's main print a `UserError` as one line and exit with 1.

  A package that is missing because TensorFlow is not released for this Python gives one
  line too. SIGINT and SIGTERM give one line, with the command that resumes if there is
  something to resume, and the exit code that shells expect: 128 + the signal.
  """

  @functools.wraps(main)
  def wrapped(*args: Any, **kwargs: Any) -> None:
    try:
      with _sigterm_raised():
        return main(*args, **kwargs)
    except UserError as error:
      sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
      package = (error.name or "").split(".")[0]
      if package not in WITH_TENSORFLOW:
        raise
      sys.exit(
        f"error: this command needs {package}, which is not installed. "
        f"{INSTALL_TENSORFLOW}"
      )
    except Stopped as stopped:
      print(f"{stopped} Resume with:\n  {shlex.join(sys.orig_argv)}", file=sys.stderr)
      sys.exit(stopped.exit_code)
    except KeyboardInterrupt as interrupt:
      print("Stopped.", file=sys.stderr)
      is_term = isinstance(interrupt, Terminated)
      sys.exit(128 + (signal.SIGTERM if is_term else signal.SIGINT))

  return wrapped
