"""Files that are whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
  """Has `write` write beside the final name, then moves the file there.

  Args:
    path: the final name; its folder is made if need be.
    write: writes the file it is given.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  write(partial)
  os.replace(partial, path)
