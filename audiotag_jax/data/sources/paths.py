"""Paths in a data set's folder: found by name, walked, kept inside of it."""

import collections
import itertools
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from etils import epath
from tqdm import tqdm

from audiotag_jax.audio.folders import taken
from audiotag_jax.data.sources.listing import PROGRESS
from audiotag_jax.errors import UserError
from audiotag_jax.names import encodable
from audiotag_jax.text_files import stripped

LEADS_OUT = "lies outside of the audio folder"


class Names:
  """Names of files, found by names that may be in another of Unicode's normal forms."""

  def __init__(self, names: Iterable[str]):
    self._all = frozenset(names)
    self._unlike: dict[str, list[str]] = collections.defaultdict(list)
    for name in self._all:
      if (read := _as_read(name)) != name:
        self._unlike[read].append(name)

  def find(self, name: str) -> str:
    """Returns the only name that reads as a name does, or the name itself."""
    if name in self._all:
      return name
    read = _as_read(name)
    alike = [*self._unlike.get(read, ()), *({read} & self._all)]
    return alike[0] if len(alike) == 1 else name


def _as_read(name: str) -> str:
  return unicodedata.normalize("NFC", stripped(name))


class _Folder(NamedTuple):
  """A folder's path below the root, its links, and the names in it."""

  below: str | None
  links: frozenset[str]
  names: Names


class Fence:
  """Tells whether files are in a folder, following links; lists each folder once."""

  def __init__(self, root: epath.Path):
    self._root = str(root)
    self._is_local = "://" not in self._root
    self._real_root = os.path.realpath(root) if self._is_local else self._root
    self._folders: dict[str, _Folder] = {}

  def place(self, path: str) -> str | None:
    """Returns a file's normalised path below the folder; None if it leads out.

    A file that exists under a name of another Unicode form, or with spaces around it,
    is found if it is the only one.

    Args:
      path: relative to the folder, or absolute.
    """
    folder, name = posixpath.split(path)
    if folder not in self._folders:
      look = self._look_local if self._is_local else self._look_remote
      self._folders[folder] = look(folder)
    below, links, names = self._folders[folder]
    if below is None:
      return None
    name = names.find(name)
    place = posixpath.join(below, name)
    if name in links and self._below(os.path.join(self._real_root, place)) is None:
      return None
    return place

  def _look_local(self, folder: str) -> _Folder:
    path = os.path.join(self._root, folder)
    if folder and not os.path.isdir(path):
      path = os.path.join(self._real_root, self.place(folder) or folder)
    below = self._below(path)
    if below is None or not os.path.isdir(path):
      return _Folder(below, frozenset(), Names(()))
    with os.scandir(path) as scan:
      entries = list(scan)
    links = frozenset(entry.name for entry in entries if entry.is_symlink())
    return _Folder(below, links, Names(entry.name for entry in entries))

  def _below(self, path: str) -> str | None:
    real = os.path.realpath(path)
    if os.path.commonpath([real, self._real_root]) != self._real_root:
      return None
    below = os.path.relpath(real, self._real_root)
    return "" if below == "." else below

  def _look_remote(self, folder: str) -> _Folder:
    root = f"{self._root}/"
    if f"{folder}/".startswith(root):
      folder = folder.removeprefix(self._root).lstrip("/")
    below = posixpath.normpath(folder)
    if "://" in folder or below.startswith(("/", "..")):
      return _Folder(None, frozenset(), Names(()))
    return _Folder("" if below == "." else below, frozenset(), Names(()))


def walk_audio(folder: epath.Path) -> Iterator[tuple[str, str | None]]:
  """Yields each recording's path below a folder, and why it is unusable, or None.

  What `folders.taken` passes by is skipped. The order is the file system's.

  Raises:
    UserError: the folder, or one in it, cannot be listed.
  """
  walk = _walk_remote if "://" in str(folder) else _walk_local
  try:
    yield from tqdm(walk(folder), "listing", unit=" files", **PROGRESS)
  except OSError as error:
    place = epath.Path(error.filename or folder)
    reason = error.strerror or "no such folder"
    raise UserError(
      f"{place} cannot be listed ({reason}): give a folder of recordings"
    ) from error


def _walk_remote(folder: epath.Path) -> Iterator[tuple[str, None]]:
  root, wanted = _in_bucket(folder), {""}
  for parent, subfolders, names in folder.walk():
    below = _in_bucket(parent).removeprefix(root).lstrip("/")
    if below in wanted:
      subfolders, names = taken((name.rstrip("/") for name in subfolders), names)
      wanted.update(posixpath.join(below, name) for name in subfolders)
      yield from ((posixpath.join(below, name), None) for name in names)


def _in_bucket(path: epath.Path) -> str:
  """A path without its scheme, which some file systems leave out."""
  return str(path).rpartition("://")[2].strip("/")


def _walk_local(folder: epath.Path) -> Iterator[tuple[str, str | None]]:
  fence, pending = Fence(folder), [""]
  while pending:
    below = pending.pop()
    with os.scandir(os.path.join(folder, below)) as scan:
      entries = {entry.name: entry for entry in scan}
    subfolders = [name for name, entry in entries.items() if _is_folder(entry)]
    inside = set(subfolders)
    files = [name for name in entries if name not in inside]
    for name in itertools.chain(*taken(subfolders, files)):
      path = f"{below}{name}"
      if (shown := encodable(path)) != path:
        yield shown, "has a name that is not UTF-8"
      elif not entries[name].is_symlink():
        if name in inside:
          pending.append(f"{path}/")
        else:
          yield path, None
      elif name in inside:
        yield path, "is a link to a folder, which is not followed"
      else:
        yield path, LEADS_OUT if fence.place(path) is None else None


def _is_folder(entry: os.DirEntry) -> bool:
  # An entry raises an error for a link that leads back to itself.
  return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
