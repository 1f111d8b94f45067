"""Files and folders that are written whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from audiotag_jax.errors import UserError


def write_whole(path: epath.PathLike, write: Callable[[epath.Path], object]) -> None:
  """Lets `write` write a file beside the final name, then moves it there.

  Args:
    path: the final name, on any file system that etils supports; its folder is created
      if it does not exist.
    write: writes the file whose path it gets.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  write(partial)
  partial.replace(path)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a file of UTF-8 text, as `write_whole` does."""
  write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: epath.PathLike, value: Any, *, ensure_ascii: bool = True) -> None:
  """Writes a value as JSON, as `write_whole` does; see `json.dumps`."""
  write_text(path, json.dumps(value, indent=2, ensure_ascii=ensure_ascii) + "\n")


def check_output(path: Path, overwrite: bool) -> None:
  """Raises `UserError` if `path` exists and may not be overwritten."""
  if path.exists() and not overwrite:
    raise UserError(f"{path} exists: give another --output, or --overwrite")


def check_folder(folder: Path) -> None:
  """Finds out whether files can be written to a folder, without creating it.

  Raises:
    UserError: the folder, or the nearest one above it that exists, is not a folder or
      may not be written to.
  """
  nearest = folder.absolute()
  while not os.path.lexists(nearest):
    nearest = nearest.parent
  if not nearest.is_dir():
    fault = "is not a folder"
  elif not os.access(nearest, os.W_OK | os.X_OK):
    fault = "may not be written to"
  else:
    return
  raise UserError(f"--output={folder}: {nearest} {fault}: give another folder")


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
  """Yields a new folder that takes the place of `folder` if the block succeeds."""
  folder = folder.absolute()
  new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
  old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
  new.mkdir(parents=True)
  try:
    yield new
    if folder.exists():
      folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
  finally:
    shutil.rmtree(new, ignore_errors=True)
