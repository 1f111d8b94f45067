"""Folders of recordings: searched, and the entries that any search passes by."""

import collections
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

# Endings of files beside recordings: lists and notes, what editors and players keep of
# a recording, and files that are not whole yet.
NOT_AUDIO = {
  ".7z", ".bat", ".bib", ".bmp", ".bz2", ".cfg", ".csv", ".db", ".dll", ".doc", ".docx",
  ".eaf", ".exe", ".gif", ".gz", ".h5", ".heic", ".htm", ".html", ".ini", ".ipynb",
  ".jams", ".jpeg", ".jpg", ".json", ".jsonl", ".lab", ".lnk", ".log", ".md",
  ".md5", ".mid", ".midi", ".nfo", ".npy", ".npz", ".ods", ".odt", ".par2", ".parquet",
  ".pdf", ".pickle", ".pkl", ".png", ".py", ".rar", ".rst", ".rtf", ".sfv", ".sh",
  ".sha1", ".sha256", ".srt", ".svg", ".tar", ".textgrid", ".tgz", ".tif", ".tiff",
  ".toml", ".torrent", ".tsv", ".txt", ".url", ".vtt", ".webp", ".xls", ".xlsx", ".xml",
  ".xz", ".yaml", ".yml", ".zip",
  # Editors.
  ".alc", ".als", ".asd", ".aup", ".aup3", ".aup3-shm", ".aup3-wal", ".cfa", ".cpr",
  ".flp", ".gpk", ".mrk", ".ovw", ".peak", ".pek", ".pk", ".pkf", ".ptx", ".reapeaks",
  ".reapindex", ".rpp", ".rpp-bak", ".ses", ".sesx", ".sfk", ".sfl", ".sv", ".wfm",
  # Players.
  ".accurip", ".cue", ".lrc", ".m3u", ".m3u8", ".pls", ".wpl", ".xspf",
  # Downloads and copies on their way, and what is left of them.
  ".!ut", ".aria2", ".bak", ".crdownload", ".download", ".filepart", ".identifier",
  ".old", ".opdownload", ".part", ".partial", ".swp", ".temp", ".tmp", ".ytdl",
}  # fmt: skip
# Folders and files that systems, disks and network storage keep among a user's own.
# Names are compared in small letters.
SYSTEM = {
  "#recycle", "#snapshot", "$recycle.bin", "$winreagent", "@__thumb", "@deleteditems",
  "@eadir", "@recently-snapshot", "@recycle", "@sharebin", "@sharesnap", "@snapshots",
  "@synoeastream", "@synoresource", "@tmp", "__macosx", "__pycache__", "_gsdata_",
  "config.msi", "desktop.ini", "icon\r", "lost+found", "lost.dir",
  "network trash folder", "recycled", "recycler", "system volume information",
  "temporary items", "thumbs.db", "~snapshot",
}  # fmt: skip
# Hidden entries; Windows' FOUND.000, with what a check of the disk found; an editor's
# `x.wav~` and Office's `~$x.docx`.
PASSED_BY = re.compile(r"\.|found\.\d{3}$|.*~$|~\$", re.DOTALL)


def taken(folders: Iterable[str], files: Iterable[str]) -> tuple[list[str], list[str]]:
  """Returns the folders and the files of one folder that a search continues with.

  Hidden ones (`.Trash-1000`, `._x.wav`) are passed by, those of a system (`@eaDir`,
  `Thumbs.db`), files with an ending of `NOT_AUDIO`, and Audacity's `NAME_data` beside
  `NAME.aup`, which has a recording in pieces. This rule is for what a search finds: a
  folder that the user names is searched, whatever its name.

  Args:
    folders: names of the folders in one folder, without their paths.
    files: names of the files in it.
  """
  files = list(files)
  stems = {os.path.splitext(name.lower()) for name in files}
  pieces = {f"{stem}_data" for stem, ending in stems if ending == ".aup"}
  return (
    [name for name in folders if not _is_system(name) and name.lower() not in pieces],
    [name for name in files if not _is_system(name) and _ending(name) not in NOT_AUDIO],
  )


def _is_system(name: str) -> bool:
  return name.lower() in SYSTEM or PASSED_BY.match(name.lower()) is not None


def _ending(name: str) -> str:
  return os.path.splitext(name.lower())[1]


def find(top: Path, endings: Collection[str], seen: set[str]) -> list[Path]:
  """Finds the recordings of a folder and its subfolders, sorted by path.

  Links are followed, but each file and folder is found once, by its real path; under
  its own name, if that is in the folder. Links that lead nowhere and folders that
  cannot be listed are in the result too, so that opening them says so.

  Args:
    top: the folder, which may be hidden.
    endings: those of recordings, in small letters.
    seen: real paths that are left out; those that are found are added.
  """
  found, pending = [], collections.deque([top])
  while pending:
    path = pending.popleft()
    if not path.exists():
      found.append(path)
      continue
    real = os.path.realpath(path)
    if real in seen:
      continue
    seen.add(real)
    if path.is_file():
      found.append(path)
    elif path.is_dir():
      try:
        own, links = _look(path, endings)
      except OSError:
        found.append(path)
        continue
      pending.extendleft(own)
      pending.extend(links)
  return sorted(found)


def _look(folder: Path, endings: Collection[str]) -> tuple[list[Path], list[Path]]:
  """Returns what a search continues with: the folder's own entries, and its links."""
  with os.scandir(folder) as entries:
    listed = list(entries)
  links = {entry.name for entry in listed if entry.is_symlink()}
  inside = {
    entry.name
    for entry in listed
    # An entry raises an error for a link that leads back to itself.
    if (os.path.isdir(entry) if entry.name in links else entry.is_dir())
  }
  subfolders, files = taken(inside, {entry.name for entry in listed} - inside)
  wanted = subfolders + [
    name
    for name in files
    if _ending(name) in endings or (name in links and not os.path.exists(folder / name))
  ]
  return (
    [folder / name for name in wanted if name not in links],
    [folder / name for name in sorted(links.intersection(wanted))],
  )
