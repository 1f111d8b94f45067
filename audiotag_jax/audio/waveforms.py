"""Waveforms in numpy: checked, scaled, mixed to mono, resampled and cut."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr

from audiotag_jax.errors import UserError

# Full scale of each integer type; uint8 has its zero at 128, as in WAV.
FULL_SCALES = {"int16": 2.0**15, "int32": 2.0**31, "uint8": 2.0**7}
INT16_MAX = 2**15 - 1
INT16_SCALE = np.float32(2.0**-15)
# Samples that `quantize` gives one scale, fewer than PANNs' hop: 8 ms at 32 kHz.
SCALE_SAMPLES = 256
# With smaller ones, scales would have fewer bits than float32's 24.
LEAST_EXPONENT = -111
# Some files hold 32-bit integers as floats; a larger value is not audio.
MAX_PEAK = 2.0**32
# Infrasound is recorded at 100 Hz and more, ultrasound at 10 MHz and less. From 1 Hz a
# resampler makes 32,000 samples of each, and from 2 GHz its filter takes seconds.
MIN_RATE_HZ, MAX_RATE_HZ = 100, 10_000_000
# Samples that the resampler returns at once, 16 MiB.
RESAMPLED_SAMPLES = 2**22


def find_fault(samples: np.ndarray) -> str:
  """Returns why samples are invalid, worded to follow "the waveform"; empty if valid.

  Args:
    samples: <float>[...], at least one.
  """
  peak = float(max(samples.max(), -samples.min()))  # NaN if any sample is
  if not np.isfinite(peak):
    num_bad = samples.size - np.isfinite(samples).sum()
    return f"has {num_bad} samples that are not finite"
  if peak > MAX_PEAK:
    return f"has samples as large as {peak:.1g}, where full scale is 1"
  return ""


def find_rate_fault(sample_rate_hz: float) -> str:
  """Returns why a rate is invalid, worded to follow "the file"; empty if valid."""
  if MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:  # False for NaN
    return ""
  return (
    f"has a rate of {sample_rate_hz:g} Hz, which is not from {MIN_RATE_HZ} to "
    f"{MAX_RATE_HZ}"
  )


def to_mono(waveform: np.ndarray, sample_rate_hz: float, wanted_hz: int) -> np.ndarray:
  """Scales a waveform to full scale 1, mixes it to mono and resamples it.

  Args:
    waveform: <float>, full scale at 1, or <int16>, <int32> or <uint8>; [samples],
      [samples, channels] or [channels, samples]: the shorter axis is the channels, or
      the second of two equal axes.
    sample_rate_hz: its rate.
    wanted_hz: the rate wanted; see `resample`.

  Returns:
    <float32>[samples], at least one.

  Raises:
    UserError: the waveform is empty, not finite or of another type or shape, or the
      rate is not from `MIN_RATE_HZ` to `MAX_RATE_HZ`.
  """
  waveform = np.asarray(waveform)
  fault = find_rate_fault(sample_rate_hz)
  if fault:
    raise UserError(f"the waveform {fault}")
  if waveform.ndim not in (1, 2) or not waveform.size:
    raise UserError(
      "a waveform must be [samples], [samples, channels] or [channels, samples], not "
      f"of shape {list(waveform.shape)}"
    )
  if waveform.dtype.name in FULL_SCALES:
    zero = 128.0 if waveform.dtype == np.uint8 else 0.0
    waveform = (waveform - zero) / FULL_SCALES[waveform.dtype.name]
  elif not np.issubdtype(waveform.dtype, np.floating):
    raise UserError(
      f"a waveform must be float, {', '.join(FULL_SCALES)}, not {waveform.dtype}"
    )
  fault = find_fault(waveform)
  if fault:
    raise UserError(f"the waveform {fault}")
  if waveform.ndim == 2:
    waveform = waveform.mean(axis=1 if waveform.shape[1] <= waveform.shape[0] else 0)
  return resample(waveform.astype(np.float32), sample_rate_hz, wanted_hz)


def resample(waveform: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
  """Resamples a waveform <float32>[samples] of at least one sample, and keeps one.

  soxr's HQ low-pass keeps frequencies above half of `to_hz` from folding back.
  """
  if from_hz == to_hz:
    return waveform
  resampled = soxr.resample(waveform, from_hz, to_hz, quality="HQ")
  # A clip shorter than the low-pass may come out empty.
  return resampled if len(resampled) else waveform.mean(keepdims=True)


def resample_blocks(
  blocks: Iterable[np.ndarray], from_hz: float, to_hz: float
) -> Iterator[np.ndarray]:
  """Resamples a waveform as `resample` does, block by block <float32>[samples].

  A block returned has about `RESAMPLED_SAMPLES` at most, however low `from_hz` is.
  """
  if from_hz == to_hz:
    yield from blocks
    return
  stream = soxr.ResampleStream(from_hz, to_hz, 1, quality="HQ")
  most = max(1, int(RESAMPLED_SAMPLES * from_hz / to_hz))
  num_samples, num_given, total = 0, 0, 0.0
  for block in blocks:
    num_samples += len(block)
    total += float(block.sum())
    for start in range(0, len(block), most):
      resampled = stream.resample_chunk(block[start : start + most])
      num_given += len(resampled)
      yield resampled
  rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
  yield rest
  if num_samples and not num_given + len(rest):
    yield np.array([total / num_samples], np.float32)


def to_int16(waveform: np.ndarray) -> np.ndarray:
  """Quantises a waveform <float32>[samples] to <int16>[samples], of one scale.

  A waveform beyond full scale (of a float file, or with the ringing of a resampled
  square wave) is scaled down as a whole, so that nothing is clipped.
  """
  peak = max(1.0, float(np.abs(waveform).max()))
  return np.rint(waveform * (INT16_MAX / peak)).astype(np.int16)


def quantize(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Quantises a waveform to 16 bits and a scale for each `SCALE_SAMPLES` samples.

  The scale of a block is the least power of two that clips nothing. A block's error
  stays 90 dB below its peak, whatever its level, and 16-bit audio stays as it is.

  Args:
    waveform: <float32>[samples].

  Returns:
    steps <int16>[samples], and scale <float32>[blocks], the size of a step in each
    block: the waveform is their product.
  """
  starts = np.arange(0, len(waveform), SCALE_SAMPLES)
  # Up to 32767.5 steps are rounded down; -32768 steps, unlike 32768, are a value.
  highest = np.maximum.reduceat(waveform, starts) * np.float32(1 + 2.0**-16)
  lowest = np.nextafter(-np.minimum.reduceat(waveform, starts), np.float32(0))
  _, exponent = np.frexp(np.maximum(highest, lowest))
  scale = np.ldexp(INT16_SCALE, np.maximum(exponent, LEAST_EXPONENT))
  steps = waveform * np.repeat(1 / scale, SCALE_SAMPLES)[: len(waveform)]
  return np.rint(steps, out=steps).astype(np.int16), scale


def normalize(waveform: np.ndarray, kind: str) -> np.ndarray:
  """Scales a waveform to a peak of 1 ("peak"), or leaves it as it is ("none")."""
  peak = np.abs(waveform).max() if kind == "peak" else 0.0
  return waveform / peak if peak else waveform


class Window(NamedTuple):
  """A part of a recording.

  Attributes:
    start: where it starts, in samples.
    samples: <float32>[samples].
    is_last: whether the recording ends with it.
  """

  start: int
  samples: np.ndarray
  is_last: bool


def windows(
  blocks: Iterable[np.ndarray],
  window_samples: int,
  hop_samples: int,
  align_samples: int = 1,
) -> Iterator[Window]:
  """Cuts a recording into windows that cover it; stores little more than one of them.

  Windows start `hop_samples` apart. The last one starts earlier, so that it ends where
  the recording ends, as in evaluation. A recording no longer than a window is one
  window.

  Args:
    blocks: the recording <float32>[samples], block by block.
    window_samples: length of a window.
    hop_samples: from one window's start to the next one's, at most `window_samples`.
    align_samples: the last window starts at a multiple of this, and is shorter by the
      distance to it.
  """
  held, held_start, start = np.zeros(0, np.float32), 0, 0
  for block in blocks:
    held = np.concatenate([held, block])
    # A window is yielded once the recording is known to continue after it.
    while held_start + len(held) > start + window_samples:
      offset = start - held_start
      yield Window(start, held[offset : offset + window_samples], is_last=False)
      start += hop_samples
    # The last window may start as late as `start`, or a window before the end.
    drop = max(0, min(start - held_start, len(held) - window_samples))
    held, held_start = held[drop:], held_start + drop
  if len(held):
    end = held_start + len(held)
    last = -(-max(0, end - window_samples) // align_samples) * align_samples
    yield Window(last, held[last - held_start :], is_last=True)
