"""Files that are whole or not there."""

from collections.abc import Callable

from etils import epath


def write_whole(path: epath.PathLike, write: Callable[[epath.Path], object]) -> None:
  """Has `write` write beside the final name, then moves the file there.

  Args:
    path: the final name, of any file system that etils knows; its folder is made if
      need be.
    write: writes the file it is given.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  write(partial)
  partial.replace(path)
