"""The demo set: soundscapes written as an FSD50K folder.

A clip is a function of (seed, split, index) alone, so a set is the same whatever the
number of processes, and the size of one split does not change another.
"""

import concurrent.futures
import csv
import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import soundfile
from absl import logging
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.data.demo import soundscapes
from audiotag_jax.data.demo.ontology import ONTOLOGY
from audiotag_jax.data.demo.synthesis import SAMPLE_RATE_HZ
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.errors import UserError

PARAMETERS_FILE = "soundscapes.json"
AUDIO_FOLDERS = {
  "train": "FSD50K.dev_audio",
  "val": "FSD50K.dev_audio",
  "eval": "FSD50K.eval_audio",
}
FIRST_FNAME = 100_000
CLIPS_PER_TASK = 25
# Mean size of a clip, for 16 bits and the mean of `soundscapes.CLIP_S`.
CLIP_BYTES = 375_000


def write_soundscapes(
  folder: Path,
  *,
  num_train: int,
  num_val: int,
  num_eval: int,
  seed: int,
  num_workers: int | None = None,
) -> None:
  """Writes a set in FSD50K's layout, unless it is written already.

  The set is written beside `folder` and renamed at the end, so that `folder` is always
  whole. If another process writes it, the call waits.

  Args:
    folder: the folder of the set.
    num_train: clips with `split` train in dev.csv.
    num_val: clips with `split` val in dev.csv.
    num_eval: clips in eval.csv.
    seed: the seed of the clips.
    num_workers: processes that write; None for one per core.

  Raises:
    UserError: `folder` holds something else, or cannot be written.
  """
  num_clips = {"train": num_train, "val": num_val, "eval": num_eval}
  parameters = {"version": soundscapes.VERSION, "seed": seed, "num_clips": num_clips}
  if _is_written(folder, parameters):
    logging.info("%s holds the soundscapes already", folder)
    return
  megabytes = sum(num_clips.values()) * CLIP_BYTES / 1e6
  with (
    files.written(
      folder,
      f"make room for about {megabytes:.0f} MB of soundscapes, or choose a folder that "
      "you may write to",
    ),
    files.owned(
      folder.with_name(f".{folder.name}.lock"), f"the folder {folder}", wait=True
    ),
  ):
    files.clear_leftovers(folder.parent, folder.name)
    if not _is_written(folder, parameters):
      _write_whole(folder, parameters, num_workers or _num_cores())


def _write_whole(folder: Path, parameters: dict, num_workers: int) -> None:
  """Writes a set beside `folder`, then renames it.

  Raises:
    OSError: the set cannot be written.
  """
  with files.replaced_folder(Path(folder)) as root:
    for name in {*AUDIO_FOLDERS.values(), "FSD50K.ground_truth"}:
      (root / name).mkdir()
    try:
      labels = _write_audio(
        root, parameters["seed"], parameters["num_clips"], num_workers
      )
    except soundfile.LibsndfileError as error:
      raise OSError(str(error)) from error
    _write_ground_truth(root / "FSD50K.ground_truth", labels)
    text = json.dumps(parameters, indent=2) + "\n"
    (root / PARAMETERS_FILE).write_text(text, "utf-8")


def _is_written(folder: Path, parameters: dict) -> bool:
  """Returns whether the set is already written.

  Raises:
    UserError: the folder holds something else.
  """
  if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
    return False
  try:
    found = json.loads((folder / PARAMETERS_FILE).read_text("utf-8"))
  except (OSError, ValueError, RecursionError):
    found = "something else"
  if found != parameters:
    raise UserError(
      f"{folder} holds {found}, where soundscapes of {parameters} were expected: "
      "delete or move it, or choose another folder"
    )
  num_wavs = sum(1 for _ in folder.glob("*_audio/*.wav"))
  num_clips = sum(parameters["num_clips"].values())
  if num_wavs != num_clips:
    raise UserError(
      f"{folder} holds {num_wavs} of the {num_clips} clips expected: delete it, "
      "and it is written again"
    )
  return True


def _num_cores() -> int:
  if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def fname(split: str, index: int) -> int:
  """The number that names a clip: unique over the splits, whatever their sizes."""
  return FIRST_FNAME + len(SPLITS) * index + SPLITS.index(split)


def _write_audio(
  root: Path, seed: int, num_clips: dict[str, int], num_workers: int
) -> dict[str, list[list[str]]]:
  """Writes the clips of every split; returns the labels of each clip."""
  tasks = [
    (split, range(start, min(start + CLIPS_PER_TASK, num_clips[split])))
    for split in SPLITS
    for start in range(0, num_clips[split], CLIPS_PER_TASK)
  ]
  labels: dict[str, list] = {split: [] for split in SPLITS}
  write = functools.partial(_write_clips, root, seed)
  with tqdm(
    total=sum(num_clips.values()), desc="writing soundscapes", disable=None
  ) as progress:
    # Fewer clips are not worth the start of a process.
    num_workers = min(num_workers, sum(num_clips.values()) // CLIPS_PER_TASK)
    for (split, _), labels_of_task in zip(tasks, _map(write, tasks, num_workers)):
      labels[split] += labels_of_task
      progress.update(len(labels_of_task))
  return labels


def _map(function: Callable, tasks: Sequence, num_workers: int) -> Iterator:
  """Maps over tasks in order, in several processes or in this one."""
  if num_workers < 2:
    yield from map(function, tasks)
    return
  # Not forked: threads of the caller's libraries may hold locks at that moment.
  with concurrent.futures.ProcessPoolExecutor(
    num_workers, multiprocessing.get_context("spawn")
  ) as executor:
    yield from executor.map(function, tasks)


def _write_clips(root: Path, seed: int, task: tuple[str, range]) -> list[list[str]]:
  """Writes some clips of a split; returns the labels of each."""
  split, indices = task
  labels = []
  for index in indices:
    clip = soundscapes.synthesize_clip(seed, split, index)
    path = root / AUDIO_FOLDERS[split] / f"{fname(split, index)}.wav"
    soundfile.write(path, clip.waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
    labels.append(clip.labels)
  return labels


def _write_ground_truth(folder: Path, labels: dict[str, list[list[str]]]) -> None:
  """Writes dev.csv, eval.csv and vocabulary.csv as FSD50K has them."""

  def rows(split: str) -> Iterator[tuple[int, str, str]]:
    for index, of_clip in enumerate(labels[split]):
      mids = (ONTOLOGY[label][0] for label in of_clip)
      yield fname(split, index), ",".join(of_clip), ",".join(mids)

  dev = [(*row, split) for split in ("train", "val") for row in rows(split)]
  _write_csv(folder / "dev.csv", [("fname", "labels", "mids", "split"), *dev])
  _write_csv(folder / "eval.csv", [("fname", "labels", "mids"), *rows("eval")])
  classes = enumerate(sorted(ONTOLOGY))
  vocabulary = [(index, label, ONTOLOGY[label][0]) for index, label in classes]
  _write_csv(folder / "vocabulary.csv", vocabulary)


def _write_csv(path: Path, rows: Iterable[Sequence]) -> None:
  with path.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows(rows)
