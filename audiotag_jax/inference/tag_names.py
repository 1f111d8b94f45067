"""Names of recordings in an output, which do not change from run to run."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from audiotag_jax import names
from audiotag_jax.inference.made_by import MadeBy
from audiotag_jax.inference.tag_output import file_name


class Naming(NamedTuple):
  """The names of the given files in an output.

  Attributes:
    names: each file's name, by its `file_name`.
    root: see `MadeBy`.
    files: see `MadeBy`. In a format of events, names that the output has are among
      them, because new files may change those.
  """

  names: dict[str, str]
  root: str
  files: dict[str, str]


def as_given(found: Iterable[Path], folder: Path, earlier: MadeBy | None) -> Naming:
  """Names files by their paths, as formats of tags do.

  A file that the output has under another of its paths, such as an absolute one, keeps
  the name.

  Args:
    found: the files.
    folder: the output's.
    earlier: the record of the output, with the names that it has; None for a new one.
  """
  places = _places(found, folder)
  known = _known(earlier)
  for file, place in places.items():
    known.setdefault(place, file)
  named = {file: known[place] for file, place in places.items()}
  return Naming(named, ".", {named[file]: place for file, place in places.items()})


def of_labels(
  given: Iterable[str],
  found: Iterable[Path],
  file_format: str,
  folder: Path,
  earlier: MadeBy | None,
) -> Naming:
  """Names files for a format of events.

  A dcase table has base names, because sed_eval and sed_scores_eval look for the same
  text in the ground truth. Labels in a folder are named by paths below the folder that
  all files are in, for Raven without the ending. Where two files would have one name,
  all have their paths below that folder. Labels that exist keep their names.

  Args:
    given: the files and folders that were given.
    found: the files.
    file_format: a value of `tag_output.EVENT_FORMATS`.
    folder: the output's.
    earlier: the record of the output, with the names that it has; None for a new one.
  """
  here, places, known = _absolute(folder), _places(found, folder), _known(earlier)
  tops = [_absolute(x if os.path.isdir(x) else os.path.dirname(x)) for x in given]
  if earlier:
    tops.append(os.path.normpath(os.path.join(here, earlier.root)))
  root = os.path.commonpath(tops)
  every = dict.fromkeys([*known, *places.values()])
  below = [os.path.relpath(os.path.join(here, place), root) for place in every]
  short = below
  if file_format == "dcase":
    short = [os.path.basename(path) for path in below]
  elif file_format == "raven":
    short = [os.path.splitext(path)[0] for path in below]
  is_unique = len(set(short)) == len(short)
  new = dict(zip(every, short if is_unique else below, strict=True))
  if file_format != "dcase":
    new |= known
  named = {file: new[place] for file, place in places.items()}
  by_name = {name: place for place, name in new.items()}
  return Naming(named, os.path.relpath(root, here), by_name)


def _absolute(path: str | Path) -> str:
  return names.as_key(os.path.abspath(path))


def _places(found: Iterable[Path], folder: Path) -> dict[str, str]:
  """Returns each file's path from a folder, by its `file_name`."""
  here = _absolute(folder)
  return {file_name(path): os.path.relpath(_absolute(path), here) for path in found}


def _known(earlier: MadeBy | None) -> dict[str, str]:
  """Returns the names that an output has, by the paths of their files."""
  return {place: name for name, place in earlier.files.items()} if earlier else {}
