"""Files and folders that are written whole or not at all, by one process at a time."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
from absl import logging
from etils import epath

from audiotag_jax.errors import UserError

# Names of what a writer renames at the end. The token is the writer's own; in older
# versions it was a process's number, or missing.
_LEFTOVER = re.compile(
  r"\.(?P<name>.+?)(\.[0-9a-f]+\.(?P<kind>new|old)|(\.[0-9a-f]{8})?\.partial)"
)
# What a file system answers that has no locks: ENOSYS is Lustre's without `-o flock`,
# ENOLCK that of NFS without a lock server.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
# Time for an owner that is just ending, or another thread that is just beginning.
GRACE_S = 1.0


@contextlib.contextmanager
def owned(
  lock: epath.PathLike,
  what: str,
  *,
  wait: bool = False,
  advice: str = "wait until it ends, or stop it",
) -> Iterator[None]:
  """Keeps other processes out of the block, on this host and on others.

  The kernel frees the lock (flock) of a process that ends, however it ends; NFS passes
  it on to the server. The file stays. Threads of one process share a lock. A bucket has
  no locks, and a file system without them costs a warning.

  Args:
    lock: the file that is locked; its folder is created if it does not exist.
    what: the thing to own, as the message names it.
    wait: whether to wait for another owner, which is logged.
    advice: what the message tells the user to do.

  Raises:
    UserError: another process owns the lock, and `wait` is False.
    OSError: the lock's file cannot be written.
  """
  if not _is_local(lock):
    yield
    return
  os.makedirs(os.path.dirname(os.path.abspath(lock)), exist_ok=True)
  file_lock = filelock.FileLock(
    os.path.abspath(lock), thread_local=False, is_singleton=True, on_acquired=_sign
  )
  try:
    try:
      file_lock.acquire(timeout=GRACE_S)
    except filelock.Timeout:
      in_use = f"{what} is in use by {_owner(lock)}"
      if not wait:
        raise UserError(f"{in_use}: {advice}") from None
      logging.warning("%s: waiting until it ends.", in_use)
      file_lock.acquire(poll_interval=0.5)
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    logging.warning(
      "%s cannot be locked (%s): start no second process on it.", what, error.strerror
    )
    yield
    return
  try:
    yield
  finally:
    file_lock.release()


def _sign(lock: int) -> None:
  """Writes this process's name to the lock, for the message that others get."""
  os.ftruncate(lock, 0)
  os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
  os.fsync(lock)


def _owner(lock: epath.PathLike) -> str:
  with contextlib.suppress(OSError, UnicodeDecodeError):
    return Path(lock).read_text("utf-8") or "another process"
  return "another process"


@contextlib.contextmanager
def written(what: object, advice: str) -> Iterator[None]:
  """Words an `OSError` of the block as a `UserError`: that `what` cannot be written."""
  try:
    yield
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f"{what} cannot be written ({reason}): {advice}") from error


def _is_local(path: epath.PathLike) -> bool:
  return "://" not in os.fspath(path)


def write_whole(path: epath.PathLike, write: Callable[[epath.Path], object]) -> None:
  """Lets `write` write a file beside the final name, then moves it there.

  A local file is on the disk, not only in memory, when it gets its name.

  Args:
    path: the final name, on any file system that etils supports; its folder is created
      if it does not exist.
    write: writes the file whose path it gets; if it raises, the file is removed.

  Raises:
    UserError: `path` is a folder or a device, which a file must not replace.
  """
  write_together({path: write})


def write_together(
  writers: Mapping[epath.PathLike, Callable[[epath.Path], object]],
) -> None:
  """Writes files as `write_whole` does; all are on the disk before one gets its name.

  Args:
    writers: what writes each file, by its final name, in the order of the moves.
  """
  partials = {}
  try:
    for name, write in writers.items():
      path = epath.Path(name)
      if _is_local(path) and os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file: give a file")
      path.parent.mkdir(parents=True, exist_ok=True)
      partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
      partials[path] = partial
      write(partial)
      sync(partial)
    for path, partial in partials.items():
      partial.replace(path)
  except BaseException:
    for partial in partials.values():
      partial.unlink(missing_ok=True)
    raise
  for folder in {path.parent for path in partials}:
    sync(folder)


def sync(path: epath.PathLike) -> None:
  """Waits until a local file, or a folder's list of names, is on the disk."""
  if not _is_local(path):
    return
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno != errno.EINVAL:  # A file system that syncs no folders.
      raise
  finally:
    os.close(descriptor)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a file of UTF-8 text, as `write_whole` does."""
  write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: epath.PathLike, value: Any, *, ensure_ascii: bool = True) -> None:
  """Writes a value as JSON, as `write_whole` does; see `json.dumps`."""
  write_text(path, json_text(value, ensure_ascii=ensure_ascii))


def json_text(value: Any, *, ensure_ascii: bool = True) -> str:
  """Returns the text of a JSON file; see `json.dumps`."""
  return json.dumps(value, indent=2, ensure_ascii=ensure_ascii) + "\n"


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
  """Yields a new folder that takes the place of `folder` if the block succeeds.

  A process that dies between the two renames leaves no `folder`; `clear_leftovers`
  restores the old one.
  """
  folder = folder.absolute()
  token = secrets.token_hex(4)
  new = folder.with_name(f".{folder.name}.{token}.new")
  old = folder.with_name(f".{folder.name}.{token}.old")
  new.mkdir(parents=True)
  try:
    yield new
    for parent, _, names in os.walk(new):
      for name in names:
        sync(os.path.join(parent, name))
      sync(parent)
    if folder.exists():
      folder.rename(old)
    try:
      new.rename(folder)
    except OSError:
      if old.exists():
        old.rename(folder)
      raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
  finally:
    shutil.rmtree(new, ignore_errors=True)


def clear_leftovers(folder: epath.PathLike, name: str | None = None) -> None:
  """Clears what dead writers left in a folder.

  Files of `write_whole` and folders of `replaced_folder` that did not get their names
  are removed. A folder that was moved away for a new one that never came is restored.

  Args:
    folder: the folder; nothing is done if it does not exist.
    name: the file or folder that the writers meant; None for all in the folder. The
      caller must own it.
  """
  folder = epath.Path(folder)
  if not folder.exists():
    return
  for path in sorted(folder.iterdir(), key=str):
    leftover = _LEFTOVER.fullmatch(path.name)
    if not leftover or name not in (None, leftover["name"]):
      continue
    final = folder / leftover["name"]
    if leftover["kind"] == "old" and not final.exists():
      path.rename(final)
    else:
      path.rmtree() if path.is_dir() else path.unlink(missing_ok=True)
