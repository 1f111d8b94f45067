"""A user's mistake, and how a command line reports it."""

import contextlib
import errno
import functools
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from audiotag_jax.names import printable

# Packages that setup.cfg requires only on the Pythons that TensorFlow is released for.
WITH_TENSORFLOW = ("clu", "tensorboard", "tensorflow", "tensorflow_datasets")
INSTALL_TENSORFLOW = (
  "audiotag_jax installs it on Python 3.11, 3.12 and 3.13; TensorFlow is not released "
  "for Python 3.14 yet"
)

# Advice on the commonest refusals of the operating system.
ADVICE = {
  errno.EACCES: "change its permissions, or give another path",
  errno.EDQUOT: "free some space, or give a path on another disk",
  errno.EEXIST: "give another path, or move what is there",
  errno.EFBIG: "give a path on a file system that takes larger files",
  errno.EISDIR: "give a file, not a folder",
  errno.ELOOP: "give a path without links that lead back to themselves",
  errno.EMFILE: "allow more open files, with ulimit -n",
  errno.ENAMETOOLONG: "give a shorter name",
  errno.ENOENT: "give a path that exists",
  errno.ENOSPC: "free some space, or give a path on another disk",
  errno.ENOTDIR: "give a path on which only the last part is a file",
  errno.EPERM: "change its permissions, or give another path",
  errno.EROFS: "give a path on a disk that can be written to",
}


class UserError(Exception):
  """A mistake that the user can fix; its message is the one line that they see.

  The message names the thing, what was expected and what to do.
  """


def reason_of(error: BaseException) -> str:
  """Words another library's error for a message: kind and text, one line, cut short."""
  return " ".join(f"{type(error).__name__}: {error}".split())[:200]


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

  What the operating system refuses, memory that is not there, and a package that is
  missing because TensorFlow is not released for this Python give one line too. SIGINT
  and SIGTERM give one line, with the command that resumes if there is something to
  resume, and the exit code that shells expect: 128 + the signal. A reader of the output
  that stops early, as `head` does, ends the command without a line, with 128 + SIGPIPE.
  """

  @functools.wraps(main)
  def wrapped(*args: Any, **kwargs: Any) -> None:
    try:
      with _sigterm_raised():
        main(*args, **kwargs)
        if sys.stdout:
          sys.stdout.flush()
    except UserError as error:
      _fail(str(error))
    except MemoryError as error:
      reason = f" ({error})" if str(error) else ""
      _fail(f"there is not enough memory{reason}: use smaller batches or inputs")
    except BrokenPipeError:
      sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
      _fail(describe_refusal(error))
    except ModuleNotFoundError as error:
      package = (error.name or "").split(".")[0]
      if package not in WITH_TENSORFLOW:
        raise
      _fail(
        f"this command needs {package}, which is not installed. {INSTALL_TENSORFLOW}"
      )
    except Stopped as stopped:
      print(f"{stopped} Resume with:\n  {shlex.join(sys.orig_argv)}", file=sys.stderr)
      sys.exit(stopped.exit_code)
    except KeyboardInterrupt as interrupt:
      print("Stopped.", file=sys.stderr)
      is_term = isinstance(interrupt, Terminated)
      sys.exit(128 + (signal.SIGTERM if is_term else signal.SIGINT))
    finally:
      _drop_unwritable()

  return wrapped


def _drop_unwritable() -> None:
  """Drops output that nobody reads or that has no room.

  Python writes what is left at its end, and prints that it failed.
  """
  for stream in filter(None, (sys.stdout, sys.stderr)):
    try:
      stream.flush()
    except OSError:
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def describe_refusal(error: OSError) -> str:
  """Words what the operating system refuses, in one line with what to do."""
  reason = error.strerror or str(error) or type(error).__name__
  advice = ADVICE.get(error.errno or 0, "look at the disk and the path, and try again")
  paths = [
    os.fsdecode(path) if isinstance(path, bytes) else str(path)
    for path in (error.filename, error.filename2)
    if path is not None
  ]
  paths = paths or _written(error)
  if not paths:
    return f"a file cannot be read or written ({reason}): {advice}"
  return f"{' or '.join(paths)} cannot be read or written ({reason}): {advice}"


def _written(error: OSError) -> list[str]:
  """Returns the path that was written to, which a full disk's error does not name.

  It is the innermost path among the variables of the functions that were running.
  """
  found = [
    os.fspath(value)
    for frame, _ in traceback.walk_tb(error.__traceback__)
    for name, value in frame.f_locals.items()
    if name in ("partial", "path", "output") and isinstance(value, os.PathLike)
  ]
  return found[-1:]


def _fail(message: str) -> NoReturn:
  """Exits with 1 and one line."""
  sys.exit(f"error: {printable(' '.join(message.splitlines()))}")
