"""Polyphonic soundscapes, synthesised.

A clip holds one to four sounds in a room, over background noise. The labels are weak:
the sounds' classes and their parent classes, without times. A clip is a function of
(seed, split, index) alone.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import fft

from audiotag_jax.data.demo.ontology import smear
from audiotag_jax.data.demo.sounds import SOUNDS
from audiotag_jax.data.demo.synthesis import SAMPLE_RATE_HZ, noise, num_samples, phase
from audiotag_jax.data.sources.source import SPLITS

# Version of the clips, which rises whenever the clips of a seed change.
VERSION = 1

# Shares of clips with one, two, three and four sounds.
NUM_SOUNDS_WEIGHTS = (0.25, 0.35, 0.25, 0.15)
# Ratio of the frequencies of the first class of `SOUNDS` and the last.
IMBALANCE = 8.0
# The additive recurrence that fills a hypercube of five dimensions most evenly: powers
# of 1 / 1.1347..., the root of x^6 = x + 1 (Roberts 2018, "The unreasonable
# effectiveness of quasirandom sequences"). One dimension is the number of sounds.
RECURRENCE = 1.1347241384015194 ** -np.arange(1.0, 6.0)

CLIP_S = (2.5, 6.0)
# Latest start of a sound that lasts to the clip's end, as a share of the clip.
LATEST_START = 0.4
EVENT_LEVEL_DB = (-12.0, 0.0)
# Level of the background, relative to the softest sound of the clip.
BACKGROUND_DB = (-30.0, -10.0)
PEAK_DB = (-20.0, -0.5)
REVERB_S = (0.1, 1.2)
REVERB_DB = (-25.0, -3.0)


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
  response = noise(rng, length, 150, rng.uniform(2000, 8000))
  response *= np.exp(np.linspace(0, -6.9, length, dtype=np.float32))
  response /= np.sqrt(np.sum(response**2))
  fast = fft.next_fast_len(len(waveform) + length, real=True)
  product = fft.rfft(waveform, fast) * fft.rfft(response, fast)
  return fft.irfft(product, fast)[: len(waveform)]


def background(rng: np.random.Generator, length: int) -> np.ndarray:
  """Pink to brown noise, some with mains hum, at an RMS of 1 <float32>[length]."""
  tilt_db = rng.choice([-3.0, -4.5, -6.0])
  sound = noise(rng, length, 40, 16_000, tilt_db)
  if rng.uniform() < 0.3:
    mains_hz = rng.choice([50, 60])
    cycle = phase(mains_hz, length)
    for harmonic in (1, 2, 3, 5):
      sound += np.float32(rng.uniform(0, 1) / harmonic) * np.sin(harmonic * cycle)
  return sound / np.sqrt(np.mean(sound**2))
