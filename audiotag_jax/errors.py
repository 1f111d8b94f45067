"""A user's mistake, and how a command line reports it."""

import functools
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
  """A mistake the user can mend: its message is the one line they get to read.

  The message names the thing, what was expected and what to do.
  """


def exit_on_user_error(main: Callable[..., None]) -> Callable[..., None]:
  """Makes a command's main print a `UserError` as one line and exit with 1.

  An interruption gives one line as well, and the exit code that shells know it by.
  """

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    try:
      return main(*args, **kwargs)
    except UserError as error:
      sys.exit(f"error: {error}")
    except KeyboardInterrupt:
      print("Stopped.", file=sys.stderr)
      sys.exit(128 + signal.SIGINT)

  return wrapped
