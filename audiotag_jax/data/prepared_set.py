"""A prepared set on disk: its lists, and whether they are whole."""

import collections
import contextlib
import csv
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from audiotag_jax import files
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.errors import UserError

CLIPS_FILE = "clips.csv"
REJECTED_FILE = "rejected.csv"
SUMS_FILE = "sha256sums.txt"
# Sets of older versions lack the last column; see `source_hash`.
CLIPS_HEADER = ("fname", "split", "num_samples", "labels", "num_bytes", "source_hash")
REJECTED_HEADER = ("fname", "split", "reason")
# Most clips or classes that a message names.
MAX_NAMED = 10


@dataclasses.dataclass(frozen=True)
class PreparedSet:
  """A prepared set on disk.

  Attributes:
    folder: holds the shards, `clips.csv` and `rejected.csv`.
    classes: the class names, in vocabulary order.
    fingerprint: the source's fingerprint.
    sample_rate_hz: the rate of its audio.
  """

  folder: epath.Path
  classes: tuple[str, ...] = dataclasses.field(repr=False)
  fingerprint: str
  sample_rate_hz: int

  @property
  def study_split_path(self) -> epath.Path:
    """The file of the study's split, the same for all sample rates."""
    return self.folder.parents[1] / f"study_split-{self.fingerprint}.csv"


@contextlib.contextmanager
def csv_writer(path: epath.Path, header: Sequence[str] = ()) -> Iterator[Callable]:
  """Yields a function that writes rows to a csv file, under its header."""
  with path.open("w", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([header] if header else [])
    yield writer.writerows
  files.sync(path)


def read_rows(path: epath.Path) -> list[list[str]]:
  """Returns the rows of a csv file, its header among them."""
  with path.open(encoding="utf-8") as file:
    return list(csv.reader(file))


def lacks_shards(folder: epath.Path) -> bool:
  """Returns whether a set lacks shards, and checks its lists by their sums.

  Raises:
    UserError: a list is not what was written.
  """
  _check_sums(folder)
  found = {path.name for path in folder.iterdir()}
  splits = tfds.builder_from_directory(folder).info.splits.values()
  return any(path.name not in found for split in splits for path in split.filepaths)


def write_sums(folder: epath.Path) -> None:
  """Writes the hashes of a set's lists, as sha256sum does, unless they are written."""
  if (folder / SUMS_FILE).exists():
    return
  files.clear_leftovers(folder)
  lists = [p for p in folder.iterdir() if p.is_file() and ".tfrecord" not in p.name]
  lines = [f"{_sha256(path)}  {path.name}\n" for path in sorted(lists, key=str)]
  files.write_text(folder / SUMS_FILE, "".join(lines))


def _check_sums(folder: epath.Path) -> None:
  if not (folder / SUMS_FILE).exists():
    return  # A set of an older version.
  for line in (folder / SUMS_FILE).read_text().splitlines():
    expected, _, name = line.partition("  ")
    if not (folder / name).is_file() or _sha256(folder / name) != expected:
      raise damaged(folder / name)


def _sha256(path: epath.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


def damaged(path: epath.Path) -> UserError:
  """Words that a list of a set is missing, or is not what was written."""
  return UserError(
    f"{path} is missing or damaged: delete {path.parent} and start the same command "
    "again, which then prepares the set again"
  )


def check_rejected(
  prepared: PreparedSet, place: epath.Path, allow_missing: int
) -> None:
  """Warns of each rejected clip; raises `UserError` if there are too many."""
  rejected = read_rows(prepared.folder / REJECTED_FILE)[1:]
  for fname, split, reason in rejected:
    logging.warning("Clip %s of %s %s.", fname, split, reason)
  if len(rejected) > allow_missing:
    names = ", ".join(fname for fname, _, _ in rejected[:MAX_NAMED])
    more = ", …" if len(rejected) > MAX_NAMED else ""
    raise UserError(
      f"{place}: {len(rejected)} clips are missing or unusable ({names}{more}), more "
      f"than the {allow_missing} allowed: repair them, or allow them with "
      f"--allow_missing={len(rejected)} (tools/prepare_data.py) or "
      "--config.data.allow_missing"
    )


def describe(prepared: PreparedSet) -> str:
  """Describes the contents of a prepared set, for a person to read."""
  rejected = read_rows(prepared.folder / REJECTED_FILE)[1:]
  per_split: collections.Counter[str] = collections.Counter()
  per_class: collections.Counter[str] = collections.Counter()
  counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  num_samples = 0
  with (prepared.folder / CLIPS_FILE).open(encoding="utf-8") as file:
    for clip in csv.DictReader(file):
      per_split[clip["split"]] += 1
      labels = [prepared.classes[int(i)] for i in clip["labels"].split()]
      per_class.update(labels)
      counts[clip["split"]].update(labels)
      num_samples += int(clip["num_samples"])
  num_clips = per_split.total()
  seconds = num_samples / prepared.sample_rate_hz
  rarest = ", ".join(f"{name} {n}" for name, n in per_class.most_common()[:-6:-1])
  reasons = collections.Counter(reason for _, _, reason in rejected)
  untrained = describe_untrained(counts)
  return "\n".join(
    [
      f"Prepared set: {prepared.folder}",
      f"  clips     {num_clips} ("
      + ", ".join(f"{name} {per_split[name]}" for name in SPLITS)
      + f"), {seconds / 3600:.2f} hours",
      f"  classes   {len(per_class)}; "
      f"{per_class.total() / max(1, num_clips):.2f} labels per clip",
      f"  rarest    {rarest}",
      f"  rejected  {len(rejected)}"
      + "".join(f"\n            {n}: {reason}" for reason, n in reasons.items()),
      *([f"  warning   {untrained}"] if untrained else []),
    ]
  )


def describe_untrained(counts: Mapping[str, Mapping[str, int]]) -> str:
  """Names, in one line, the classes that train lacks and val or eval has; or is empty.

  Args:
    counts: the number of clips of each class that a split has, by the split.
  """
  found = []
  for name in sorted({name for split in counts.values() for name in split}):
    number = {split: counts.get(split, {}).get(name, 0) for split in SPLITS}
    if not number["train"]:
      others = ", ".join(f"{split} {n}" for split, n in number.items() if n)
      found.append(f"{name} ({others})")
  if not found:
    return ""
  more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
  return (
    f"train lacks classes of val or eval, which cannot be learnt and count in mAP: "
    f"{', '.join(found[:MAX_NAMED])}{more}"
  )
