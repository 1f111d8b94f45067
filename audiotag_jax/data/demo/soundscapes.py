"""The embedded demo set: polyphonic soundscapes, synthesised, as an FSD50K folder.

A clip holds one to four sounds in a room, over background noise. The labels are weak:
the sounds' classes and their parent classes, without times. A clip is a function of
(seed, split, index) alone, so a set is the same whatever the number of processes, and
the size of one split does not change another.
"""

import concurrent.futures
import csv
import dataclasses
import functools
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from absl import logging
from scipy import fft
from tqdm import tqdm

from audiotag_jax.data.demo import sounds
from audiotag_jax.data.demo.sounds import SAMPLE_RATE_HZ, SOUNDS, num_samples
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.errors import UserError

# Version of the clips, which rises whenever the clips of a seed change.
VERSION = 1
PARAMETERS_FILE = "soundscapes.json"
AUDIO_FOLDERS = {
  "train": "FSD50K.dev_audio",
  "val": "FSD50K.dev_audio",
  "eval": "FSD50K.eval_audio",
}
FIRST_FNAME = 100_000
CLIPS_PER_TASK = 25

# Shares of clips with one, two, three and four sounds.
NUM_SOUNDS_WEIGHTS = (0.25, 0.35, 0.25, 0.15)
# Ratio of the frequencies of the first class of `SOUNDS` and the last.
IMBALANCE = 8.0
# The additive recurrence that fills a hypercube of five dimensions most evenly: powers
# of 1 / 1.1347..., the root of x^6 = x + 1 (Roberts 2018, "The unreasonable
# effectiveness of quasirandom sequences"). One dimension is the number of sounds.
RECURRENCE = 1.1347241384015194 ** -np.arange(1.0, 6.0)

CLIP_S = (2.5, 6.0)
# Mean size of a clip, for 16 bits and the mean of `CLIP_S`.
CLIP_BYTES = 375_000
# Latest start of a sound that lasts to the clip's end, as a share of the clip.
LATEST_START = 0.4
EVENT_LEVEL_DB = (-12.0, 0.0)
# Level of the background, relative to the softest sound of the clip.
BACKGROUND_DB = (-30.0, -10.0)
PEAK_DB = (-20.0, -0.5)
REVERB_S = (0.1, 1.2)
REVERB_DB = (-25.0, -3.0)

# FSD50K's classes that occur here, each with AudioSet's identifier and its parents, the
# nearest first. Spelling and parents are those of FSD50K's own ground truth.
ONTOLOGY: dict[str, tuple[str, tuple[str, ...]]] = {
  "Accelerating_and_revving_and_vroom": ("/m/07q2z82", ("Engine",)),
  "Acoustic_guitar": ("/m/042v_gx", ("Guitar",)),
  "Alarm": ("/m/07pp_mv", ()),
  "Animal": ("/m/0jbk", ()),
  "Applause": ("/m/028ght", ("Human_group_actions",)),
  "Bass_drum": ("/m/0bm02", ("Drum",)),
  "Bell": ("/m/0395lw", ()),
  "Bird": ("/m/015p6", ("Wild_animals",)),
  "Bird_vocalization_and_bird_call_and_bird_song": ("/m/020bb7", ("Bird",)),
  "Brass_instrument": ("/m/01kcd", ("Musical_instrument",)),
  "Chirp_and_tweet": (
    "/m/07pggtn",
    ("Bird_vocalization_and_bird_call_and_bird_song",),
  ),
  "Church_bell": ("/m/03w41f", ("Bell",)),
  "Clock": ("/m/01x3z", ("Mechanisms",)),
  "Cricket": ("/m/09xqv", ("Insect",)),
  "Cymbal": ("/m/01qbl", ("Percussion",)),
  "Domestic_sounds_and_home_sounds": ("/t/dd00071", ()),
  "Door": ("/m/02dgv", ("Domestic_sounds_and_home_sounds",)),
  "Drum": ("/m/026t6", ("Percussion",)),
  "Engine": ("/m/02mk9", ()),
  "Glass": ("/m/039jq", ()),
  "Guitar": ("/m/0342h", ("Plucked_string_instrument",)),
  "Hi-hat": ("/m/03qtq", ("Cymbal",)),
  "Human_group_actions": ("/t/dd00012", ()),
  "Idling": ("/m/07pb8fc", ("Engine",)),
  "Insect": ("/m/03vt0", ("Wild_animals",)),
  "Knock": ("/m/07r4wb8", ("Door",)),
  "Mallet_percussion": ("/m/0j45pbj", ("Percussion",)),
  "Marimba_and_xylophone": ("/m/0dwsp", ("Mallet_percussion",)),
  "Mechanisms": ("/t/dd00077", ()),
  "Music": ("/m/04rlf", ()),
  "Musical_instrument": ("/m/04szw", ("Music",)),
  "Percussion": ("/m/0l14md", ("Musical_instrument",)),
  "Plucked_string_instrument": ("/m/0fx80y", ("Musical_instrument",)),
  "Rain": ("/m/06mb1", ("Water",)),
  "Ringtone": ("/m/01hnzm", ("Telephone",)),
  "Shatter": ("/m/07rn7sz", ("Glass",)),
  "Siren": ("/m/03kmc9", ("Alarm",)),
  "Snare_drum": ("/m/06rvn", ("Drum",)),
  "Telephone": ("/m/07cx4", ("Alarm",)),
  "Thunder": ("/m/0ngt1", ("Thunderstorm",)),
  "Thunderstorm": ("/m/0jb2l", ()),
  "Tick-tock": ("/m/07qjznl", ("Clock",)),
  "Trumpet": ("/m/07gql", ("Brass_instrument",)),
  "Water": ("/m/0838f", ()),
  "Wild_animals": ("/m/01280g", ("Animal",)),
  "Wind": ("/m/03m9d0z", ()),
}


@dataclasses.dataclass(frozen=True)
class Event:
  """A sound in a clip: its class, where it starts, how loud it is."""

  label: str
  onset_s: float
  level_db: float


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip: `waveform` <int16>[samples] at `SAMPLE_RATE_HZ`, and its contents."""

  waveform: np.ndarray
  events: tuple[Event, ...]
  background_db: float

  @property
  def labels(self) -> list[str]:
    """The classes of the clip's events, then the parents of those classes."""
    return smear(event.label for event in self.events)


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
  whole.

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
  parameters = {"version": VERSION, "seed": seed, "num_clips": num_clips}
  if _is_written(folder, parameters):
    logging.info("%s holds the soundscapes already", folder)
    return
  try:
    _write_whole(folder, parameters, num_workers or _num_cores())
  except (OSError, soundfile.LibsndfileError) as error:
    raise UserError(
      f"soundscapes cannot be written to {folder}: {error}; make room for about "
      f"{sum(num_clips.values()) * CLIP_BYTES / 1e6:.0f} MB, or choose a folder that "
      "you may write to"
    ) from error


def _write_whole(folder: Path, parameters: dict, num_workers: int) -> None:
  """Writes a set beside `folder`, then renames it."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=folder.parent, prefix=f".{folder.name}-"
  ) as scratch:
    # A folder inside the scratch folder, which only its owner may read.
    root = Path(scratch) / folder.name
    for name in {*AUDIO_FOLDERS.values(), "FSD50K.ground_truth"}:
      (root / name).mkdir(parents=True)
    labels = _write_audio(
      root, parameters["seed"], parameters["num_clips"], num_workers
    )
    _write_ground_truth(root / "FSD50K.ground_truth", labels)
    text = json.dumps(parameters, indent=2) + "\n"
    (root / PARAMETERS_FILE).write_text(text, "utf-8")
    try:
      root.rename(folder)
    except OSError:
      # Another process was faster; its set must equal this one.
      if not _is_written(folder, parameters):
        raise


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
    clip = synthesize_clip(seed, split, index)
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


def smear(labels: Iterable[str]) -> list[str]:
  """Returns the labels, each once, and then all their parents, as in FSD50K."""
  smeared = list(dict.fromkeys(labels))
  for label in smeared:  # The list grows meanwhile, so parents add their own parents.
    smeared += [p for p in ONTOLOGY[label][1] if p not in smeared]
  return smeared


def draw_labels(seed: int, split: str, index: int) -> list[str]:
  """Draws the sounds of a clip: one to four, perhaps with repeats.

  The first clips of a split take the sounds in turn, so that even a small set has each.
  Otherwise, numbers and sounds follow a low-discrepancy sequence, so that rare sounds
  are as frequent as their weights say.
  """
  names = list(SOUNDS)
  rng = np.random.default_rng((seed, SPLITS.index(split)))
  order, offsets = rng.permutation(len(names)), rng.uniform(size=len(RECURRENCE))
  position, *positions = (offsets + index * RECURRENCE) % 1
  count = 1 + _pick(position, NUM_SOUNDS_WEIGHTS)
  weights = IMBALANCE ** -np.linspace(0, 1, len(names))
  picked = [_pick(position, weights) for position in positions[:count]]
  if index < len(names):
    picked[0] = order[index]
  return [names[i] for i in picked]


def _pick(position: float, weights: Sequence[float] | np.ndarray) -> int:
  """Returns the index whose part of [0, 1), sized by weight, contains `position`."""
  edges = np.cumsum(weights)
  return min(int(np.searchsorted(edges, position * edges[-1])), len(edges) - 1)


def synthesize_clip(seed: int, split: str, index: int) -> Clip:
  """Synthesises a clip: its sounds, the room they are in, and a background."""
  rng = np.random.default_rng((seed, SPLITS.index(split), index))
  clip_s = rng.uniform(*CLIP_S)
  dry, sent = np.zeros((2, num_samples(clip_s)), np.float32)
  events = []
  for label in draw_labels(seed, split, index):
    level_db = rng.uniform(*EVENT_LEVEL_DB)
    earliest_s = clip_s * rng.uniform(0, LATEST_START)
    sound = SOUNDS[label](rng, clip_s - earliest_s)
    sound = loudness_normalized(sound) * _gain(level_db)
    latest = len(dry) - len(sound)
    start = int(rng.integers(min(num_samples(earliest_s), latest), latest + 1))
    dry[start : start + len(sound)] += sound
    sent[start : start + len(sound)] += sound * _gain(rng.uniform(*REVERB_DB))
    events.append(Event(label, start / SAMPLE_RATE_HZ, level_db))
  background_db = min(event.level_db for event in events) + rng.uniform(*BACKGROUND_DB)
  mix = dry + reverberate(rng, sent)
  mix += background(rng, len(mix)) * _gain(background_db)
  mix *= _gain(rng.uniform(*PEAK_DB)) / np.abs(mix).max()
  waveform = np.round(mix * np.iinfo(np.int16).max).astype(np.int16)
  return Clip(waveform, tuple(events), background_db)


def _gain(level_db: float) -> np.float32:
  return np.float32(10 ** (level_db / 20))


def loudness_normalized(waveform: np.ndarray) -> np.ndarray:
  """Scales to an RMS of 1 over the loudest 100 ms, or a peak of 10 if that is less.

  The peak limits clicks, because their RMS over 100 ms says little.
  """
  window = min(len(waveform), num_samples(0.1))
  energy = np.concatenate([[0], np.cumsum(waveform.astype(np.float64) ** 2)])
  loudest = np.sqrt((energy[window:] - energy[:-window]).max() / window)
  return waveform * np.float32(min(1 / loudest, 10 / np.abs(waveform).max()))


def reverberate(rng: np.random.Generator, waveform: np.ndarray) -> np.ndarray:
  """Returns a room's answer to <float32>[samples]: exponentially dying noise."""
  length = num_samples(rng.uniform(*REVERB_S))
  # The noise is down to -60 dB, a factor of e^-6.9, at its end.
  response = sounds.noise(rng, length, 150, rng.uniform(2000, 8000))
  response *= np.exp(np.linspace(0, -6.9, length, dtype=np.float32))
  response /= np.sqrt(np.sum(response**2))
  fast = fft.next_fast_len(len(waveform) + length, real=True)
  product = fft.rfft(waveform, fast) * fft.rfft(response, fast)
  return fft.irfft(product, fast)[: len(waveform)]


def background(rng: np.random.Generator, length: int) -> np.ndarray:
  """Pink to brown noise, some with mains hum, at an RMS of 1 <float32>[length]."""
  tilt_db = rng.choice([-3.0, -4.5, -6.0])
  sound = sounds.noise(rng, length, 40, 16_000, tilt_db)
  if rng.uniform() < 0.3:
    mains_hz = rng.choice([50, 60])
    cycle = sounds.phase(mains_hz, length)
    for harmonic in (1, 2, 3, 5):
      sound += np.float32(rng.uniform(0, 1) / harmonic) * np.sin(harmonic * cycle)
  return sound / np.sqrt(np.mean(sound**2))
