"""The data that a run is made with, recorded so that it is resumed with the same.

A run's record has hashes of each split's clips, of their labels and of the files they
come from. It does not depend on where and when the set was prepared.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from audiotag_jax import files, json_files
from audiotag_jax.data import prepared_set
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.errors import UserError

# Clips named in a message, of each kind of change.
MAX_NAMED = 3
# What each hash of a split stands for; with other clips, the other hashes say nothing.
_MEANINGS = {"sha256": "clips", "labels_sha256": "labels", "sources_sha256": "audio"}


def describe(splits: Mapping[str, ClipIndex]) -> dict[str, Any]:
  """Describes the splits of a set by their classes and by hashes, as JSON.

  The hash of the audio is None if the set is one of an older version, without hashes.
  """
  return {
    "classes": list(splits["train"].classes),
    "splits": {name: _describe_split(split) for name, split in splits.items()},
    "prepared_set": str(_folder(splits)),
  }


def _describe_split(split: ClipIndex) -> dict[str, Any]:
  rows, places = split.labels.indices, split.labels.indptr
  labels = (" ".join(map(str, rows[i:j])) for i, j in zip(places, places[1:]))
  hashes = split.source_hash.tolist()
  return {
    "num_clips": len(split),
    "sha256": split.sha256,
    "labels_sha256": _sha256(labels),
    "sources_sha256": _sha256(hashes) if all(hashes) else None,
  }


def _sha256(lines: Iterable[str]) -> str:
  return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _folder(splits: Mapping[str, ClipIndex]) -> epath.Path:
  return epath.Path(splits["train"].records.paths[0]).parent


def check_unchanged(record: Path, splits: Mapping[str, ClipIndex]) -> None:
  """Compares splits with the record of a run, if it exists.

  Hashes that an older version did not write are not compared.

  Raises:
    UserError: the splits have other classes, clips, labels or audio.
  """
  if not record.exists():
    return
  restore = "restore it from a copy, or give another --workdir"
  old, new = json_files.read(record, restore), describe(splits)
  changes = [] if old["classes"] == new["classes"] else ["the classes"]
  for name, split in new["splits"].items():
    before = old["splits"].get(name, {})
    for key, meaning in _MEANINGS.items():
      if before.get(key) and split[key] and before[key] != split[key]:
        changes.append(f"the {meaning} of {name}")
        if key == "sha256":
          break
  if changes:
    named = _named_changes(epath.Path(old.get("prepared_set", "")), _folder(splits))
    raise UserError(
      f"{record.parent} was made with other data: {', '.join(changes)} changed{named}. "
      "Restore the data, or give another --workdir"
    )


def _named_changes(old: epath.Path, new: epath.Path) -> str:
  """Names clips that differ between two prepared sets; empty if the old one is gone."""
  if not (old / prepared_set.CLIPS_FILE).exists():
    return ""
  before, after = _rows(old), _rows(new)
  changed: dict[str, list[str]] = {
    "labels": [],
    "audio": [],
    "split": [],
    "in one set alone": sorted(before.keys() ^ after.keys()),
  }
  for fname in sorted(before.keys() & after.keys()):
    was, now = before[fname], after[fname]
    changed["labels"] += [fname] * (was["labels"] != now["labels"])
    changed["split"] += [fname] * (was["split"] != now["split"])
    hashes = was.get("source_hash"), now.get("source_hash")
    changed["audio"] += [fname] * (all(hashes) and hashes[0] != hashes[1])
  parts = [
    f"{what}: {', '.join(names[:MAX_NAMED])}"
    + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
    for what, names in changed.items()
    if names
  ]
  return f" ({'; '.join(parts)})" if parts else ""


def _rows(folder: epath.Path) -> dict[str, dict[str, str]]:
  with (folder / prepared_set.CLIPS_FILE).open(encoding="utf-8") as file:
    return {row["fname"]: row for row in csv.DictReader(file)}


def write_record(record: Path, splits: Mapping[str, ClipIndex]) -> None:
  """Writes the record of a run, unless a record exists that states more."""
  new = describe(splits)
  if record.exists() and not all(s["sources_sha256"] for s in new["splits"].values()):
    return
  files.write_json(record, new)
