"""A user's mistake, and how a command line reports it."""

import functools
import signal
import sys
from collections.abc import Callable
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


def exit_on_user_error(main: Callable[..., None]) -> Callable[..., None]:
  """Makes a command's main print a `UserError` as one line and exit with 1.

  A package that is missing because TensorFlow is not released for this Python gives one
  line too. An interruption gives one line and the exit code that shells expect.
  """

  @functools.wraps(main)
  def wrapped(*args: Any, **kwargs: Any) -> None:
    try:
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
    except KeyboardInterrupt:
      print("Stopped.", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  return wrapped
