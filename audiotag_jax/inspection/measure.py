"""A data set measured on its source, before training.

Levels are in dB relative to a constant at full scale: a sine at full scale has -3 dB.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse
from tqdm import tqdm

from audiotag_jax.audio import files as audio_files
from audiotag_jax.data.sources.source import SPLITS, Clip, Source
from audiotag_jax.errors import UserError

# Level of clipped samples, and the fewest in a row that count: full scale of 16 bits
# minus one step, and the default of Audacity's "Find Clipping". A single sample at full
# scale is the peak of a clip that was normalised.
CLIPPED_LEVEL = 32_766 / 32_768
CLIPPED_RUN = 3
# Length of a block, and the level below which a block is silent.
BLOCK_S = 0.05
SILENCE_DB = -60.0
# log2 of the peak below which a clip is quiet, -42 dB: 16 bits have 8 of it.
QUIET_EXPONENT = -7
# Least power that a level is computed from, -120 dB.
MIN_POWER = 1e-12
# Clips that are handed to the threads at a time.
CHUNK = 1024

# Measures of a clip; see `measure`.
MEASURES = np.dtype(
  [
    ("duration_s", np.float64),
    ("sample_rate_hz", np.int64),
    ("channels", np.int64),
    ("peak", np.float64),
    ("rms_db", np.float64),
    ("clipped_share", np.float64),
    ("leading_silence_s", np.float64),
    ("trailing_silence_s", np.float64),
    ("silent_share", np.float64),
    ("dc_offset", np.float64),
    ("sha256", "S64"),
  ]
)
MEASURE_NAMES = MEASURES.names or ()
SILENT_SHA256 = hashlib.sha256().hexdigest().encode()


@dataclasses.dataclass(frozen=True)
class Inspection:
  """A data set's source, measured.

  Attributes:
    source: the source.
    labels: <int64>[clips, classes], sparse: 1 where a clip has a class.
    split: <str>[clips].
    measures: <MEASURES>[clips]; zeros where a clip could not be decoded.
    failed: the reason, by the position of each clip that could not be decoded.
  """

  source: Source
  labels: scipy.sparse.csr_array = dataclasses.field(repr=False)
  split: np.ndarray = dataclasses.field(repr=False)
  measures: np.ndarray = dataclasses.field(repr=False)
  failed: dict[int, str] = dataclasses.field(repr=False)

  def decoded(self, split: str | None = None) -> np.ndarray:
    """Positions <int>[n] of the clips that could be decoded, of one split or of all."""
    chosen = np.full(len(self.split), True) if split is None else self.split == split
    chosen[list(self.failed)] = False
    return np.flatnonzero(chosen)

  def label_names(self, clip: int) -> list[str]:
    return [self.source.classes[c] for c in self.source.clips[clip].labels]


def inspect_source(source: Source) -> Inspection:
  """Decodes and measures every clip of a source, each at its own rate.

  No audio is kept, so memory grows by some 150 bytes a clip.

  Raises:
    UserError: no clip can be decoded.
  """
  clips = source.clips
  measures, failed = np.zeros(len(clips), MEASURES), {}
  for position, result in enumerate(_measure_all(clips)):
    if isinstance(result, audio_files.AudioError):
      failed[position] = str(result)
    else:
      measures[position] = result
  if len(failed) == len(clips):
    example = f" ({clips[0].fname} {failed[0]})" if clips else ""
    raise UserError(
      f"{source.place}: none of its {len(clips)} clips can be decoded{example}: check "
      "config.data.source_dir"
    )
  shape = len(clips), len(source.classes)
  rows = np.repeat(np.arange(len(clips)), [len(clip.labels) for clip in clips])
  columns = [c for clip in clips for c in clip.labels]
  ones = np.ones(len(rows), np.int64)
  labels = scipy.sparse.csr_array((ones, (rows, columns)), shape=shape)
  split = np.array([clip.split for clip in clips])
  return Inspection(source, labels, split, measures, failed)


def _measure_all(clips: Sequence[Clip]) -> Iterator[tuple | audio_files.AudioError]:
  """Yields each clip's measures, or the error that prevents them, in order."""

  def measure_clip(clip: Clip) -> tuple | audio_files.AudioError:
    try:
      return measure(*audio_files.decode(clip.audio, clip.start_s, clip.end_s))
    except audio_files.AudioError as error:
      return error

  with (
    ThreadPoolExecutor(os.cpu_count()) as pool,
    tqdm(total=len(clips), desc="inspecting", unit="clip", disable=None) as bar,
  ):
    for start in range(0, len(clips), CHUNK):
      for result in pool.map(measure_clip, clips[start : start + CHUNK]):
        bar.update()
        yield result


def measure(channels: np.ndarray, sample_rate_hz: int) -> tuple:
  """Measures a clip.

  Args:
    channels: <float32>[samples, channels], full scale at 1, at least one sample.
    sample_rate_hz: their rate.

  Returns:
    `MEASURES`, in order: the duration, the rate, the number of channels; the largest
    magnitude; the level; the share of clipped samples; the silence before the first
    block that is not silent and after the last one (both are the duration if all blocks
    are silent); the share of the duration in silent blocks; the mean of the mono mix;
    and the hash of the audio (see `audio_sha256`). Levels and shares are over all
    channels.
  """
  num_samples, num_channels = channels.shape
  duration_s = num_samples / sample_rate_hz
  peak = float(max(channels.max(), -channels.min()))
  mono = channels[:, 0]
  if num_channels > 1:
    mono = channels @ np.full(num_channels, 1 / num_channels, np.float32)
  power, block_s = _blocks(channels, sample_rate_hz)
  mean_power = (power * block_s).sum() / duration_s
  sounding = np.flatnonzero(power >= 10 ** (SILENCE_DB / 10))
  ends_s = np.cumsum(block_s)
  leading_s = trailing_s = duration_s
  if len(sounding):
    leading_s = ends_s[sounding[0]] - block_s[sounding[0]]
    trailing_s = ends_s[-1] - ends_s[sounding[-1]]
  return (
    duration_s,
    sample_rate_hz,
    num_channels,
    peak,
    10 * np.log10(max(mean_power, MIN_POWER)),
    _count_clipped(channels) / channels.size if peak >= CLIPPED_LEVEL else 0.0,
    leading_s,
    trailing_s,
    1 - block_s[sounding].sum() / ends_s[-1] if len(sounding) else 1.0,
    mono.mean(dtype=np.float64),
    audio_sha256(mono),
  )


def _blocks(channels: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a clip into blocks of `BLOCK_S`; the last block may be shorter.

  Returns:
    The mean power and the length in seconds of each <float64>[blocks].
  """
  num_samples, num_channels = channels.shape
  size = max(1, round(BLOCK_S * rate_hz))
  num_whole = num_samples // size
  whole = channels[: num_whole * size].reshape(num_whole, size * num_channels)
  rest = channels[num_whole * size :].reshape(1, -1)
  energy = [np.einsum("bs,bs->b", part, part) for part in (whole, rest)]
  sizes = np.r_[np.full(num_whole, size), num_samples - num_whole * size]
  is_filled = sizes > 0
  energy, sizes = np.concatenate(energy).astype(np.float64)[is_filled], sizes[is_filled]
  return energy / (sizes * num_channels), sizes / rate_hz


def _count_clipped(channels: np.ndarray) -> int:
  """Counts the samples in runs of `CLIPPED_RUN` or more at `CLIPPED_LEVEL` or above."""
  count = 0
  for channel in channels.T:
    is_large = np.abs(channel) >= CLIPPED_LEVEL
    edges = np.flatnonzero(np.diff(np.r_[False, is_large, False]))
    runs = edges[1::2] - edges[::2]
    count += int(runs[runs >= CLIPPED_RUN].sum())
  return count


def audio_sha256(mono: np.ndarray) -> str:
  """Hashes a waveform <float32>[samples] at 16 bits, without the zeros at its ends.

  A recording therefore has the same hash in any lossless format, and with zeros put
  before or after it. A quiet one of more bits is made louder first, so that 16 bits
  tell it from others. `SILENT_SHA256` is the hash of zeros alone.
  """
  steps = mono * 2.0**15
  _, exponent = np.frexp(max(mono.max(), -mono.min()))
  if exponent < QUIET_EXPONENT and (np.rint(steps) != steps).any():
    steps = np.ldexp(steps, QUIET_EXPONENT - exponent)
  samples = np.rint(steps).clip(-(2**15), 2**15 - 1).astype("<i2")
  nonzero = samples != 0
  if not nonzero.any():
    return SILENT_SHA256.decode()
  start, end = nonzero.argmax(), len(nonzero) - nonzero[::-1].argmax()
  return hashlib.sha256(samples[start:end].tobytes()).hexdigest()


def class_counts(inspection: Inspection) -> dict[str, np.ndarray]:
  """Counts the decoded clips of each class in each split <int64>[classes]."""
  return {
    split: inspection.labels[inspection.decoded(split)].sum(axis=0) for split in SPLITS
  }
